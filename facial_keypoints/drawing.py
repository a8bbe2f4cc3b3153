"""Keypoints and head axes drawn on images; the colors are those of Okabe and Ito."""

from collections.abc import Iterable

import cv2
import numpy as np

from facial_keypoints.geometry import mean_head
from facial_keypoints.pose import Pose

AXIS_COLORS = ((213, 94, 0), (0, 158, 115), (0, 114, 178))  # of the axes x, y, z


def draw_axes(image: np.ndarray, pose: Pose, thickness: int | None = None) -> None:
    """Draw x (orange), y (green), z (blue, towards the viewer) of a head at its nose, into a uint8
    RGB image."""
    start = mean_head()[30]
    ends = np.stack([start, *(start + 0.9 * np.diag([1.0, 1.0, -1.0]))])
    pixels = cv2.projectPoints(ends, cv2.Rodrigues(pose.rotation)[0], pose.translation, pose.camera,
                               None)[0][:, 0]
    if not np.abs(pixels).max() < 1e5:
        return
    width = thickness or max(round(float(np.linalg.norm(pixels[1:] - pixels[0],
                                                        axis=1).max()) / 30), 1)
    center, *ends = np.round(pixels).astype(int).tolist()
    for end, color in zip(ends, AXIS_COLORS, strict=True):
        cv2.line(image, center, end, color, width, cv2.LINE_AA)


BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
PARTS = {  # name: (points, closed line, color)
    "jaw": (range(17), False, SKY), "right brow": (range(17, 22), False, ORANGE),
    "left brow": (range(22, 27), False, ORANGE), "nose bridge": (range(27, 31), False, GREEN),
    "nose": (range(31, 36), False, GREEN), "right eye": (range(36, 42), True, YELLOW),
    "left eye": (range(42, 48), True, YELLOW), "outer lips": (range(48, 60), True, RED),
    "inner lips": (range(60, 68), True, RED),
}


def rgb(color: str) -> tuple[int, ...]:
    """'#rrggbb' -> (r, g, b) in 0…255."""
    return tuple(int(color[i:i + 2], 16) for i in (1, 3, 5))


def draw_faces(image: np.ndarray, faces: Iterable) -> np.ndarray:
    """A copy of a uint8 RGB photo (h, w, 3) with the keypoints of its faces drawn, sized to each
    face."""
    canvas = image.copy()
    for face in faces:
        size = max(float(np.ptp(face.points, axis=0).max()), 1.0)
        line, radius = max(round(size / 250), 1), max(size / 110, 0.8)
        for rows, closed, color in PARTS.values():
            path = np.round(face.points[list(rows)] * 16).astype(np.int32)
            cv2.polylines(canvas, [path], closed, rgb(color), line, cv2.LINE_AA, shift=4)
        for x, y in face.points:
            center = (round(float(x) * 16), round(float(y) * 16))
            cv2.circle(canvas, center, round(radius * 16), (255, 255, 255), -1, cv2.LINE_AA,
                       shift=4)
    return canvas
