"""Aligned crops: a face at the place in a square where recognition networks or generators expect
it."""

import cv2
import numpy as np

from facial_keypoints.defaults import TEMPLATES
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import align_shapes, crop_image, tight_box
from facial_keypoints.head import as_ibug68
from facial_keypoints.layouts import Layout, convert_points, load_layout

# Centers of the eyes, nose tip and corners of the mouth in a crop of 112×112 pixels: Deng, Guo, Xue
# and Zafeiriou, ArcFace, CVPR 2019, as InsightFace publishes them
ARCFACE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def need(points: np.ndarray, what: str, layout: str | Layout) -> np.ndarray:
    """Points as float64. Raises UsageError where the layout lacks them."""
    if np.isnan(points).any():
        raise UsageError(
            f"layout {load_layout(layout).name} has no {what}: its keypoints need the "
            "names that ibug68 has"
        )
    return np.asarray(points, np.float64)


def arcface_matrix(points: np.ndarray, side: int, layout: str | Layout = "ibug68") -> np.ndarray:
    """Similarity (2, 3) that takes eyes, nose and mouth nearest to the ARCFACE template."""
    five = need(convert_points(points, layout, "five"), "eyes, nose tip and mouth corners", layout)
    # pixel centers of 112 pixels -> those of `side`
    wanted = (ARCFACE + 0.5) * (side / 112) - 0.5
    linear, offset = align_shapes(five[None], wanted)
    return np.column_stack([linear[0].T, offset[0]])


def ffhq_matrix(points: np.ndarray, side: int, layout: str | Layout = "ibug68") -> np.ndarray:
    """The square of the FFHQ data set (Karras, Laine and Aila, CVPR 2019, its published
    download program): its axis x is the mean of the line between the eyes and the normal of the
    line from the eyes to the mouth."""
    known = as_ibug68(points, layout)
    rows = [*range(36, 48), 48, 54]
    known = need(known[rows], "eyes and mouth corners", layout)
    right, left, mouth = known[:6].mean(0), known[6:12].mean(0), known[12:].mean(0)
    eyes, across = (right + left) / 2, left - right
    down = mouth - eyes
    x = across - np.array([-down[1], down[0]])
    length = max(np.hypot(*across) * 2, np.hypot(*down) * 1.8)  # half the side, in pixels
    x = x / max(np.hypot(*x), 1e-9) * max(length, 1e-9)
    linear = np.array([x, [-x[1], x[0]]]) * (side / 2 / (x @ x))
    return np.column_stack([linear, (side - 1) / 2 - linear @ (eyes + 0.1 * down)])


def eyes_matrix(points: np.ndarray, side: int, layout: str | Layout = "ibug68") -> np.ndarray:
    """The eyes on a horizontal line at 0.35 of the height, 0.4 of the side apart."""
    right, left = need(convert_points(points, layout, "five")[:2], "eyes", layout)
    along = (left - right) * (1 / 0.4 / side)
    linear = np.linalg.inv(np.array([[along[0], -along[1]], [along[1], along[0]]]))
    return np.column_stack(
        [linear, np.array([(side - 1) / 2, 0.35 * side]) - linear @ ((right + left) / 2)]
    )


MATRICES = {"arcface": arcface_matrix, "ffhq": ffhq_matrix, "eyes": eyes_matrix}


def align_face(
    image: np.ndarray,
    points: np.ndarray,
    side: int = 112,
    template: str = "arcface",
    layout: str | Layout = "ibug68",
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a face out of a uint8 image (h, w[, 3]) -> the crop (side, side[, 3]), and the matrix
    (2, 3) that takes pixels of the image to pixels of the crop.

    template: one of TEMPLATES. Outside of the image, arcface and eyes are black, as InsightFace
    fills them; ffhq is mirrored at the border, as in that set. Raises UsageError for layouts
    without the keypoints that the template needs, and DataError for points that coincide.
    """
    if template not in MATRICES:
        raise UsageError(f"no template {template!r}; there are {', '.join(TEMPLATES)}")
    if side < 8:
        raise UsageError(f"a crop of {side} pixels is too small; at least 8 are needed")
    if not tight_box(points)[2:].max() > 0:
        raise DataError("the points of the face coincide; there is nothing to align")
    matrix = MATRICES[template](points, side, layout)
    if template != "ffhq":
        return crop_image(image, matrix, side), matrix
    # as much of the mirrored image as the crop shows, at most three times the image
    corners = np.array([[-1, -1], [side, -1], [-1, side], [side, side]]) - matrix[:, 2]
    corners = corners @ np.linalg.inv(matrix[:, :2]).T
    size = np.array(image.shape[1::-1])
    low = np.clip(np.ceil(-corners.min(0)) + 2, 0, 3 * size).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 3 - size, 0, 3 * size).astype(int)
    border = (low[1], high[1], low[0], high[0])
    padded = cv2.copyMakeBorder(image, *(int(n) for n in border), cv2.BORDER_REFLECT_101)
    moved = np.column_stack([matrix[:, :2], matrix[:, 2] - matrix[:, :2] @ low])
    return crop_image(padded, moved, side), matrix
