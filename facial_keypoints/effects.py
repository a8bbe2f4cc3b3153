"""Sunglasses, and faces that are made unrecognizable."""

from functools import cache

import cv2
import numpy as np

from facial_keypoints.alignment import need
from facial_keypoints.drawing import draw_axes
from facial_keypoints.errors import UsageError
from facial_keypoints.geometry import tight_box
from facial_keypoints.head import MIN_HEAD_POINTS, OUTER_EYE_CORNERS, as_ibug68, box_fit, head_rows
from facial_keypoints.layouts import Layout
from facial_keypoints.pose import has_pose, head_pose


GLASSES_CORNERS = ((80, 70), (320, 70))  # of the outer corners of the eyes, in pixels


@cache
def glasses_image() -> np.ndarray:
    """Sunglasses as RGBA (160, 400, 4) uint8, the outer eye corners at GLASSES_CORNERS."""
    picture = np.zeros((160, 400, 4), np.uint8)
    for center in (118, 282):
        cv2.ellipse(picture, (center, 76), (70, 52), 0, 0, 360, (25, 25, 28, 255), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (center, 76), (61, 43), 0, 0, 360, (30, 38, 52, 215), -1, cv2.LINE_AA)
        cv2.ellipse(
            picture, (center - 22, 58), (22, 10), -25, 0, 360, (150, 170, 190, 225), -1, cv2.LINE_AA
        )
    cv2.ellipse(picture, (200, 66), (24, 12), 0, 180, 360, (25, 25, 28, 255), 8, cv2.LINE_AA)
    for x, end in ((50, 2), (350, 398)):
        cv2.line(picture, (x, 58), (end, 48), (25, 25, 28, 255), 9, cv2.LINE_AA)
    return picture


def wear_glasses(image: np.ndarray, points: np.ndarray, layout: str | Layout = "ibug68") -> None:
    """Put half-transparent sunglasses on a face of a uint8 RGB image, in place, with the scale and
    roll of the face. Raises UsageError for layouts without outer eye corners."""
    corners = need(as_ibug68(points, layout)[[*OUTER_EYE_CORNERS]], "outer eye corners", layout)
    start, end = GLASSES_CORNERS
    along = (corners[1] - corners[0]) / (end[0] - start[0])
    linear = np.array([[along[0], -along[1]], [along[1], along[0]]])
    matrix = np.column_stack([linear, corners[0] - linear @ start])
    picture = glasses_image().astype(np.float32) / 255
    picture[..., :3] *= picture[..., 3:]  # premultiplied: no dark or bright seam
    worn = cv2.warpAffine(picture, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)
    image[:] = (
        np.clip(image * (1 - worn[..., 3:]) + 255 * worn[..., :3], 0, 255).round().astype(np.uint8)
    )


def refuse_style(style: str, layout: Layout) -> None:
    """Raise UsageError if a style of `--draw` needs keypoints that a layout does not name."""
    if style in ("pose", "head") and not has_pose(layout):
        raise UsageError(
            f"style {style}: layout {layout.name} has too few of the keypoints of ibug68 "
            "for the pose of the head"
        )
    if style == "blur" and len(head_rows(layout)) < MIN_HEAD_POINTS:
        raise UsageError(
            f"style blur: where the head is does not follow from the keypoints of layout "
            f"{layout.name}; hide faces by a network with the 68 keypoints"
        )
    if style == "glasses":
        need(
            as_ibug68(np.zeros((len(layout), 2)), layout)[[*OUTER_EYE_CORNERS]],
            "outer eye corners",
            layout,
        )


def face_box(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (k, 2) of a layout -> about the tight box (4,) of the 68 keypoints of `ibug68`,
    float64; it encloses the points."""
    box = tight_box(points).astype(np.float64)
    x, y, width, height = box_fit(layout)
    size = box[2:] / (width, height)
    low = np.minimum(box[:2] + box[2:] / 2 - size * (x, y) - size / 2, box[:2])
    return np.concatenate([low, np.maximum(low + size, box[:2] + box[2:]) - low])


def blur_face(image: np.ndarray, points: np.ndarray, layout: str | Layout = "ibug68") -> None:
    """Make a face of a uint8 RGB image unrecognizable, in place: an ellipse around it is reduced to
    six cells across."""
    box = face_box(points, layout)
    low, high = box[:2], box[:2] + box[2:]
    size = max((high - low).max(), 2.0)
    left, top = np.maximum(np.floor(low - 0.6 * size), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high + 0.35 * size) + 1, image.shape[1::-1]).astype(int)
    if right <= left or bottom <= top:
        return
    region = image[top:bottom, left:right]
    cells = np.maximum(np.round(np.array(region.shape[1::-1]) / size * 6), 1).astype(int)
    coarse = cv2.resize(
        cv2.resize(region, cells.tolist(), interpolation=cv2.INTER_AREA), region.shape[1::-1]
    )
    center = (low + high) / 2 - [left, top] - [0, 0.12 * size]  # the forehead has no points
    y, x = np.mgrid[: region.shape[0], : region.shape[1]]
    across = np.maximum((high - low) / 2, 0.35 * size) * [1.25, 1.0] + [0, 0.3 * size]
    mask = np.clip(
        8 * (1.08 - np.hypot((x - center[0]) / across[0], (y - center[1]) / across[1])), 0, 1
    )[..., None]
    region[:] = (region * (1 - mask) + coarse * mask).round().astype(np.uint8)


DRAW_STYLES = {  # values of `--style` besides points; each draws one face of a layout, in place
    "pose": lambda image, points, layout: draw_axes(image, head_pose(points, layout=layout)),
    "glasses": wear_glasses,
    "blur": blur_face,
}
