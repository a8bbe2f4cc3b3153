"""Geometry of faces: boxes, the square crop and its inverse, roll, yaw, likeness to a head."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from facial_keypoints.assets import SAVED_MODELS
from facial_keypoints.errors import DataError

CROP_SCALE = 1.25  # side of the square crop / longer side of the tight box of the 68 points
# Where each keypoint lands in a mirrored picture (iBUG 68: jaw, brows, nose, eyes, mouth).
FLIP_INDICES = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47,
     46, 39, 38, 37,
     36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)



def tight_box(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> their box (…, 4): left, top, width, height in the same units."""
    points = np.asarray(points, np.float32)
    low, high = points.min(-2), points.max(-2)
    return np.concatenate([low, high - low], -1)


def overlap(a: np.ndarray, b: np.ndarray, of_smaller: bool = False) -> np.ndarray:
    """Intersection over union of boxes (n, 4) with one box (4,); or over the smaller of the two: 1
    for one in the other."""
    low, high = np.maximum(a[:, :2], b[:2]), np.minimum(a[:, :2] + a[:, 2:], b[:2] + b[2:])
    both, areas = np.clip(high - low, 0, None).prod(1), (a[:, 2:].prod(1), b[2:].prod())
    return both / (np.minimum(*areas) if of_smaller else sum(areas) - both)


def inter_ocular(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> distance (…) between the outer eye corners, 36 and 45, in the same
    units."""
    return np.linalg.norm(points[..., 36, :] - points[..., 45, :], axis=-1)


def proportional_shift(points: np.ndarray, pixels: float, share: float) -> np.ndarray:
    """`pixels` and a share of the inter-ocular distance, for keypoints (…, 68, 2) -> (…, 1, 1)
    float32."""
    shift = pixels + share * inter_ocular(np.asarray(points, np.float32))
    return shift[..., None, None].astype(np.float32)


def vertical_shift(points: np.ndarray, pixels: float, share: float) -> np.ndarray:
    """A proportional shift down -> (…, 1, 2) float32."""
    return proportional_shift(points, pixels, share) * np.array([0, 1], np.float32)


def yaw_estimate(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> how far a head is turned: 0 frontal, -1 and 1 profiles, by the nose
    tip's place on the jaw."""
    left, nose, right = (points[..., i, 0] for i in (1, 30, 15))
    return np.clip((2 * nose - left - right) / (right - left), -1, 1)


def crop_matrix(box: np.ndarray | Sequence[float], side: int, zoom: float = 1.0,
                angle: float = 0.0, shift: np.ndarray | Sequence[float] = (0.0, 0.0),
                mirror: bool = False) -> np.ndarray:
    """Affine (2, 3) float64 that takes pixels of the image to pixels of the square crop around
    `box`.

    box: left, top, width, height of the tight box. The crop is CROP_SCALE × its longer side ×
    `zoom`, centered on it and moved by `shift` (in crop sides), turned by `angle` degrees, mirrored
    if asked.
    """
    left, top, width, height = (float(v) for v in box)
    outer = CROP_SCALE * max(width, height) * zoom
    if not (np.isfinite(outer) and outer > 0):
        raise DataError(f"a box of {width:g}×{height:g} pixels holds no face")
    center = np.array([left + width / 2 + shift[0] * outer, top + height / 2 + shift[1] * outer])
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear = np.array([[cos, sin], [-sin, cos]]) * side / outer
    if mirror:
        linear[0] *= -1
    return np.column_stack([linear, (side - 1) / 2 - linear @ center])


def crop_image(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Cut the crop of `crop_matrix` out of a uint8 image (h, w[, 3]) -> (side, side[, 3]); outside
    is black.

    Shrinking more than twofold averages first (area resize), so that large photos do not alias.
    """
    (a, b), (c, d) = matrix[:, :2].tolist()
    scale = abs(a * d - b * c) ** 0.5
    if scale >= 0.5 and max(image.shape) < 2**15:  # as far as warpAffine can count
        return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_CONSTANT)
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[-1, -1], [side, -1], [-1, side],
                        [side, side]]) @ inverse[:, :2].T + inverse[:, 2]
    margin = 2 + 2 / scale
    low = np.clip(np.floor(corners.min(0) - margin), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin) + 1, 0, image.shape[1::-1]).astype(int)
    if (high <= low).any():
        return np.zeros((side, side, *image.shape[2:]), np.uint8)
    region = image[low[1]:high[1], low[0]:high[0]]
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ low])
    if scale < 0.5:
        size = np.maximum(np.ceil((high - low) * scale * 2), 1).astype(int)
        # exact, so that points stay in place: x = (x' + 1/2) ratio - 1/2
        ratio = (high - low) / size
        region = cv2.resize(region, size.tolist(), interpolation=cv2.INTER_AREA)
        linear = matrix[:, :2] * ratio
        matrix = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)])
    return cv2.warpAffine(region, matrix, (side, side), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_CONSTANT)


def to_targets(points: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Points (…, k, 2) in pixels of the image -> targets, -1…1 from edge to edge of the crop of
    `matrix` (…, 2, 3)."""
    matrix = np.asarray(matrix, np.float64)
    inside = (
        np.asarray(points, np.float64) @ np.swapaxes(matrix[..., :2], -1, -2)
        + matrix[..., None, :, 2]
    )
    return ((2 * inside + 1) / side - 1).astype(np.float32)


def targets_to_pixels(targets: np.ndarray, side: int) -> np.ndarray:
    """Targets, -1…1 from edge to edge of a crop of `side` pixels -> pixels of the crop."""
    return ((np.asarray(targets, np.float64) + 1) * side - 1) / 2


def to_points(targets: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """The inverse of `to_targets`: targets (…, k, 2) -> points in pixels of the image."""
    matrix = np.asarray(matrix, np.float64)
    inside = targets_to_pixels(targets, side)
    inverse = np.linalg.inv(matrix[..., :2])
    return ((inside - matrix[..., None, :, 2]) @ np.swapaxes(inverse, -1, -2)).astype(np.float32)


HEAD_FILE = SAVED_MODELS / "head.csv"



@cache
def mean_head() -> np.ndarray:
    """A mean head: keypoints (68, 3) in units of the inter-ocular distance; x to the viewer's
    right, y down, z away.

    It is level: the median pitch of training heads that look ahead is 0.
    """
    return np.loadtxt(HEAD_FILE, delimiter=",", skiprows=1).astype(np.float64)


def roll_angle(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> how far faces are rotated clockwise in degrees (…): the rotation that
    fits `head` best."""
    points = np.asarray(points, np.float64)
    points = points - points.mean(-2, keepdims=True)
    front = mean_head()[:, :2] - mean_head()[:, :2].mean(0)
    along = (points * front).sum((-1, -2))
    across = (front[:, 0] * points[..., 1] - front[:, 1] * points[..., 0]).sum(-1)
    return np.degrees(np.arctan2(across, along))


def affine_residual(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> how little they look like a head: 0 for one seen from anywhere, 1 for
    noise.

    The share of the points' spread that no affine camera explains; openness of mouths and lids
    counts as well.
    """
    points = np.asarray(points, np.float64)
    points = points - points.mean(-2, keepdims=True)
    left = points - affine_projector() @ points
    return np.sqrt(np.square(left).sum((-1, -2)) / np.square(points).sum((-1, -2)).clip(1e-12))


@cache
def affine_projector() -> np.ndarray:
    """(68, 68): takes centered points to the nearest that some affine camera sees of `head`."""
    model = mean_head() - mean_head().mean(0)
    return model @ np.linalg.pinv(model)


# `affine_residual` from which a face is doubted; at twice that it is none
MAX_SHAPE_RESIDUAL = 0.15


def shape_score(points: np.ndarray) -> np.ndarray:
    """Keypoints (n, 68, 2) -> (n,) 1 for what may be a head, as 99.9 % of the official labels may,
    0 for what is none."""
    return np.clip(2 - affine_residual(points) / MAX_SHAPE_RESIDUAL, 0, 1)


def rotated_copy(size: tuple[int, int], angle: float) -> tuple[np.ndarray, list[int]]:
    """Matrix (2, 3) that turns a picture of size (height, width) by -angle degrees, and the size
    (width, height) to hold it."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear, (height, width) = np.array([[cos, sin], [-sin, cos]]), size
    new = np.ceil(np.abs(linear) @ (width, height)) if angle else np.array([width, height])
    return np.column_stack([linear,
                            (new - 1) / 2 - linear @ ((width - 1) / 2,
                                                      (height - 1) / 2)]), new.astype(int).tolist()


def boxes_differ(boxes: np.ndarray, better: np.ndarray, allowed: float = 0.03) -> np.ndarray:
    """(n,) True where boxes (n, 4) are off by more than a share of the longer side of better ones,
    in place or in size."""
    side, better_side = boxes[:, 2:].max(1), better[:, 2:].max(1)
    away = np.linalg.norm(boxes[:, :2] + boxes[:, 2:] / 2 - better[:, :2] - better[:, 2:] / 2,
                          axis=1)
    return (away > allowed * better_side) | (np.abs(np.log(side / better_side)) > 1.5 * allowed)


def level_boxes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (n, 68, 2) -> the boxes (n, 4) that are tight once faces are turned level, and
    their tilts (n,) in degrees."""
    tilt = roll_angle(points)
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    # (n, 2, 2): by -tilt
    turns = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    boxes = tight_box(points @ turns.swapaxes(-1, -2))
    middles = ((boxes[:, None, :2] + boxes[:, None, 2:] / 2) @ turns)[:, 0]
    return np.concatenate([middles - boxes[:, 2:] / 2, boxes[:, 2:]], 1), tilt
