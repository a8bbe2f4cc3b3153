"""Aligned faces, sunglasses, and faces that are made unrecognizable."""

from functools import cache

import cv2
import numpy as np

from facial_keypoints.drawing import draw_axes
from facial_keypoints.pose import head_pose



def align_matrix(points: np.ndarray, side: int, eyes: float = 0.35) -> np.ndarray:
    """Similarity (2, 3) that puts the centers of the eyes level in a square of `side` pixels, at
    `eyes` of its height."""
    points = np.asarray(points, np.float64)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    along = (right - left) * (1 / 0.4 / side)  # the eyes are 0.4 of the side apart
    linear = np.linalg.inv(np.array([[along[0], -along[1]], [along[1], along[0]]]))
    return np.column_stack([linear,
                            np.array([(side - 1) / 2,
                                      eyes * side]) - linear @ ((left + right) / 2)])


def align_face(image: np.ndarray, points: np.ndarray,
               side: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A face cut out with its eyes level, (side, side[, 3]) uint8, and its keypoints (68, 2)
    there."""
    matrix = align_matrix(points, side)
    shrinks = abs(np.linalg.det(matrix[:, :2])) < 0.25
    face = cv2.warpAffine(cv2.GaussianBlur(image, (0, 0),
                                           0.5 / np.sqrt(np.linalg.det(matrix[:, :2]))) if shrinks
                                           else image,
                          matrix, (side, side), flags=cv2.INTER_LINEAR)
    return face, (np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@cache
def glasses_image() -> np.ndarray:
    """Sunglasses as RGBA (160, 400, 4) uint8, the outer corners of the eyes at (80, 70) and (320,
    70)."""
    picture = np.zeros((160, 400, 4), np.uint8)
    for center in (118, 282):
        cv2.ellipse(picture, (center, 76), (70, 52), 0, 0, 360, (25, 25, 28, 255), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (center, 76), (61, 43), 0, 0, 360, (30, 38, 52, 215), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (center - 22, 58), (22, 10), -25, 0, 360, (150, 170, 190, 225), -1,
                    cv2.LINE_AA)
    cv2.ellipse(picture, (200, 66), (24, 12), 0, 180, 360, (25, 25, 28, 255), 8, cv2.LINE_AA)
    for x, end in ((50, 2), (350, 398)):
        cv2.line(picture, (x, 58), (end, 48), (25, 25, 28, 255), 9, cv2.LINE_AA)
    return picture


def wear_glasses(image: np.ndarray, points: np.ndarray) -> None:
    """Put sunglasses on a face of a uint8 RGB image, in place: with its scale and tilt, half seen
    through."""
    corners = np.asarray(points, np.float64)[[36, 45]]
    along = (corners[1] - corners[0]) / 240
    linear = np.array([[along[0], -along[1]], [along[1], along[0]]])
    matrix = np.column_stack([linear, corners[0] - linear @ (80, 70)])
    picture = glasses_image().astype(np.float32) / 255
    picture[..., :3] *= picture[..., 3:]  # premultiplied: no dark or bright seam
    worn = cv2.warpAffine(picture, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)
    image[:] = np.clip(image * (1 - worn[..., 3:]) + 255 * worn[..., :3], 0,
                       255).round().astype(np.uint8)


def blur_face(image: np.ndarray, points: np.ndarray) -> None:
    """Make a face of a uint8 RGB image unrecognizable, in place: an ellipse around it is left six
    averages wide."""
    points = np.asarray(points, np.float64)
    low, high = points.min(0), points.max(0)
    size = max((high - low).max(), 2.0)
    left, top = np.maximum(np.floor(low - 0.6 * size), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high + 0.35 * size) + 1, image.shape[1::-1]).astype(int)
    if right <= left or bottom <= top:
        return
    region = image[top:bottom, left:right]
    cells = np.maximum(np.round(np.array(region.shape[1::-1]) / size * 6), 1).astype(int)
    coarse = cv2.resize(cv2.resize(region, cells.tolist(), interpolation=cv2.INTER_AREA),
                        region.shape[1::-1])
    center = (low + high) / 2 - [left, top] - [0, 0.12 * size]  # the forehead has no points
    y, x = np.mgrid[:region.shape[0], :region.shape[1]]
    across = np.maximum((high - low) / 2, 0.35 * size) * [1.25, 1.0] + [0, 0.3 * size]
    mask = np.clip(8 * (1.08 - np.hypot((x - center[0]) / across[0], (y - center[1]) / across[1])),
                   0, 1)[..., None]
    region[:] = (region * (1 - mask) + coarse * mask).round().astype(np.uint8)


DRAW_STYLES = {  # of `pipeline.py --draw`, next to points; each draws one face into an image
    "pose": lambda image, points: draw_axes(image, head_pose(points)),
    "glasses": wear_glasses,
    "blur": blur_face,
}
