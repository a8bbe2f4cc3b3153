"""Geometry of faces: boxes, the square crop and its inverse, roll, yaw, face shape score."""

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from facial_keypoints.assets import SAVED_MODELS
from facial_keypoints.errors import DataError
from facial_keypoints.layouts import (
    CROP_SCALE,
    Layout,
    conversion_matrix,
    convert_points,
    load_layout,
)

OUTER_EYE_CORNERS = (36, 45)  # of ibug68
# how many keypoints a layout must share with the mean head: for the head pose, and (more, because
# few points fit a head too easily) for the face shape score
MIN_HEAD_POINTS, MIN_SHAPE_POINTS = 5, 20


def tight_box(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, k, 2) -> their box (…, 4): left, top, width, height in the same units; missing
    points (nan) are left out."""
    points = np.asarray(points, np.float32)
    low, high = np.fmin.reduce(points, axis=-2), np.fmax.reduce(points, axis=-2)
    return np.concatenate([low, high - low], -1)


def overlap(a: np.ndarray, b: np.ndarray, of_smaller: bool = False) -> np.ndarray:
    """Intersection over union (n,) of boxes (n, 4) with one box (4,). With `of_smaller`,
    intersection over the area of the smaller box: 1 if one box is inside the other."""
    low, high = np.maximum(a[:, :2], b[:2]), np.minimum(a[:, :2] + a[:, 2:], b[:2] + b[2:])
    both, areas = np.clip(high - low, 0, None).prod(1), (a[:, 2:].prod(1), b[2:].prod())
    return both / (np.minimum(*areas) if of_smaller else sum(areas) - both)


def inter_ocular(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> distance (…) between the outer eye corners, in the same units."""
    left, right = OUTER_EYE_CORNERS
    return np.linalg.norm(points[..., left, :] - points[..., right, :], axis=-1)


def proportional_shift(points: np.ndarray, pixels: float, share: float) -> np.ndarray:
    """A shift of `pixels` + `share` × inter-ocular distance for keypoints (…, 68, 2) in pixels ->
    (…, 1, 1) float32 in pixels."""
    shift = pixels + share * inter_ocular(np.asarray(points, np.float32))
    return shift[..., None, None].astype(np.float32)


def vertical_shift(points: np.ndarray, pixels: float, share: float) -> np.ndarray:
    """The `proportional_shift` in y only (down) -> (…, 1, 2) float32 in pixels."""
    return proportional_shift(points, pixels, share) * np.array([0, 1], np.float32)


def as_ibug68(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) of a layout as those of `ibug68` (…, 68, 2); nan where they cannot be
    derived."""
    if load_layout(layout) == load_layout():
        return np.asarray(points)
    return convert_points(points, layout, "ibug68")


def yaw_estimate(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) -> how far a head is turned (…), from the position of the nose tip
    between the jaw points 1 and 15 of ibug68: 0 frontal, 1 a profile that looks to the viewer's
    right, -1 to the left. nan for layouts without these points."""
    points = as_ibug68(points, layout)
    left, nose, right = (points[..., i, 0] for i in (1, 30, 15))
    return np.clip((2 * nose - left - right) / (right - left), -1, 1)


def crop_matrix(
    box: np.ndarray | Sequence[float],
    side: int,
    zoom: float = 1.0,
    angle: float = 0.0,
    shift: np.ndarray | Sequence[float] = (0.0, 0.0),
    mirror: bool = False,
    scale: float = CROP_SCALE,
) -> np.ndarray:
    """Affine (2, 3) float64 that takes pixels of the image to pixels of the square crop around
    `box`.

    box: left, top, width, height of the tight box. `side` pixels of the crop show `scale`
    (the layout's `crop_scale`) × the longer side of the box × `zoom`. The crop is centered on the
    box, moved by `shift` (shares of the crop's side, along the axes of the image) and rotated
    clockwise by `angle` degrees, so that a face with this roll is upright in it. Its content is
    mirrored if `mirror`. Raises DataError for a box without width and height, or with values that
    are not finite.
    """
    left, top, width, height = (float(v) for v in box)
    outer = scale * max(width, height) * zoom
    # a sum is finite only if all its terms are
    if not (math.isfinite(left + top + width + height + outer) and outer > 0):
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

    A crop that shrinks more than twofold is first resized by area averages, to avoid aliasing.
    """
    (a, b), (c, d) = matrix[:, :2].tolist()
    scale = abs(a * d - b * c) ** 0.5
    if scale >= 0.5 and max(image.shape) < 2**15:  # warpAffine cannot take larger images
        return cv2.warpAffine(
            image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
    inverse = cv2.invertAffineTransform(matrix)
    corners = (
        np.array([[-1, -1], [side, -1], [-1, side], [side, side]]) @ inverse[:, :2].T
        + inverse[:, 2]
    )
    margin = 2 + 2 / scale
    low = np.clip(np.floor(corners.min(0) - margin), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin) + 1, 0, image.shape[1::-1]).astype(int)
    if (high <= low).any():
        return np.zeros((side, side, *image.shape[2:]), np.uint8)
    region = image[low[1] : high[1], low[0] : high[0]]
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ low])
    if scale < 0.5:
        size = np.maximum(np.ceil((high - low) * scale * 2), 1).astype(int)
        # exact, so that points stay in place: x = (x' + 1/2) ratio - 1/2
        ratio = (high - low) / size
        region = cv2.resize(region, size.tolist(), interpolation=cv2.INTER_AREA)
        linear = matrix[:, :2] * ratio
        matrix = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)])
    return cv2.warpAffine(
        region, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )


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
def mean_head(layout: str | Layout = "ibug68") -> np.ndarray:
    """A mean head: keypoints (k, 3) in units of the inter-ocular distance; x to the viewer's right,
    y down, z away from the viewer; nan for keypoints that cannot be derived from `ibug68`.

    It is level: the median pitch of training heads that look ahead is 0.
    """
    head = np.loadtxt(HEAD_FILE, delimiter=",", skiprows=1).astype(np.float64)
    layout = load_layout(layout)
    return head if layout == load_layout() else conversion_matrix(load_layout(), layout) @ head


@cache
def head_rows(layout: str | Layout = "ibug68") -> np.ndarray:
    """Indices of the keypoints of a layout that the mean head has."""
    return np.flatnonzero(~np.isnan(mean_head(layout)).any(1))


@cache
def _front(layout):
    """The upright face that rolls are measured against: indices of keypoints and their centered
    positions seen from the front, or None if the layout has no such face."""
    layout, rows = load_layout(layout), head_rows(layout)
    if len(rows) >= MIN_HEAD_POINTS:
        front = mean_head(layout)[rows, :2]
    elif layout.shape:
        rows, front = np.arange(len(layout)), np.array(layout.shape)
    else:
        return None
    return (slice(None) if len(rows) == len(layout) else rows), front - front.mean(0)


def roll_angle(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) -> roll of the faces in degrees (…), clockwise: the rotation that fits a
    typical face best; 0 for layouts of which no typical face is known."""
    points = np.asarray(points, np.float64)
    if (found := _front(layout)) is None:
        return np.zeros(points.shape[:-2])
    rows, front = found
    points = points[..., rows, :]
    points = points - points.mean(-2, keepdims=True)
    along = (points * front).sum((-1, -2))
    across = (front[:, 0] * points[..., 1] - front[:, 1] * points[..., 0]).sum(-1)
    return np.degrees(np.arctan2(across, along))


def affine_residual(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) -> how badly the best affine view of the mean head fits them (…): the
    square root of the share of their variance that the fit does not explain. 0 for a mean head seen
    from any direction, near 1 for random points.

    It is the smallest of up to three values: of all keypoints, without the jaw on the viewer's
    left, and without the jaw on the viewer's right (`shape_rows`). In a turned head, the labels of
    the far half follow the visible outline of the cheek, not the jaw of the head. An open mouth and
    closed eyes raise it.
    """
    points, residuals = np.asarray(points, np.float64), []
    for rows in shape_rows(layout):
        some = points[..., rows, :]
        some = some - some.mean(-2, keepdims=True)
        left = some - affine_projector(layout, rows) @ some
        residuals.append(np.square(left).sum((-1, -2)) / np.square(some).sum((-1, -2)).clip(1e-12))
    return np.sqrt(np.minimum.reduce(residuals))


@cache
def shape_rows(layout: str | Layout = "ibug68") -> tuple[tuple[int, ...], ...]:
    """Up to three sets of indices of keypoints that the mean head has: all of them, those without
    the jaw on the viewer's left, and those without the jaw on the viewer's right. The second or
    third set is left out if it has fewer than MIN_SHAPE_POINTS."""
    layout, rows = load_layout(layout), head_rows(layout).tolist()
    jaw, x = layout.regions.get("jaw", []), mean_head(layout)[:, 0]
    halves = [
        [row for row in rows if not (row in jaw and sign * x[row] > JAW_MIDDLE)] for sign in (-1, 1)
    ]
    return tuple(
        tuple(some)
        for some in (rows, *halves)
        if some == rows or MIN_SHAPE_POINTS <= len(some) < len(rows)
    )


@cache
def affine_projector(layout: str | Layout, rows: tuple[int, ...]) -> np.ndarray:
    """(m, m): projects m centered keypoints, those of `rows`, to the nearest ones that are an
    affine image of the mean head."""
    model = mean_head(layout)[list(rows)]
    model = model - model.mean(0)
    return model @ np.linalg.pinv(model)


def rolled(vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Vectors (n, k, 2), rotated clockwise by angles (n,) in degrees."""
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    turns = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return vectors @ turns.swapaxes(-1, -2)


def mirrored(shapes: np.ndarray) -> np.ndarray:
    """Keypoints of ibug68 (n, 68, 2) -> those of the mirror images, mirrored about x = 0."""
    return shapes[:, load_layout().flip_indices] * [-1, 1]


# `affine_residual` above which a face is doubtful; at twice this value its score is 0
MAX_SHAPE_RESIDUAL = 0.15
JAW_MIDDLE = 0.05  # x of the mean head: jaw keypoints nearer to 0 are in neither half


def has_shape_score(layout: str | Layout) -> bool:
    """True if a layout shares enough keypoints with the mean head for a shape score."""
    return len(head_rows(layout)) >= MIN_SHAPE_POINTS


def shape_score(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (n, k, 2) -> face shape score (n,): 1 for points that fit a head
    (`affine_residual`), down to 0 for points that do not.

    1 for all faces of a layout without `has_shape_score`: there, the confidence alone decides.
    """
    if not has_shape_score(layout):
        return np.ones(len(points))
    return np.clip(2 - affine_residual(points, layout) / MAX_SHAPE_RESIDUAL, 0, 1)


def box_fit(layout: str | Layout) -> tuple[float, ...]:
    """Where the tight box of a layout lies relative to the tight box of `ibug68`, for a face that
    looks ahead: (x, y, width, height), the shift of the center and the size, as multiples of the
    width and height of the box of `ibug68` (`relative_box`). (0, 0, 1, 1) for layouts that share
    too few keypoints with the mean head."""
    rows = head_rows(layout)
    if load_layout(layout) == load_layout() or len(rows) < MIN_HEAD_POINTS:
        return (0.0, 0.0, 1.0, 1.0)
    return relative_box(tight_box(mean_head()[:, :2]), tight_box(mean_head(layout)[rows, :2]))


def align_shapes(shapes: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity transforms that map shapes (n, k, 2) to `mean` (k, 2) with least squared error.

    Returns linear (n, 2, 2) and offset (n, 2): a mapped shape is shape @ linear + offset.
    """
    center, origin = shapes.mean(1), mean.mean(0)
    x, y = shapes - center[:, None], mean - origin
    square = (x**2).sum((1, 2))
    cos = (x * y).sum((1, 2)) / square
    sin = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(1) / square
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    return linear, origin - np.einsum("ni,nij->nj", center, linear)


def relative_box(box: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    """Where `other` (4,) lies relative to `box` (4,): the shift of its center and its size, as
    multiples of the width and height of `box` -> (x, y, width, height)."""
    x, y = (other[:2] + other[2:] / 2 - box[:2] - box[2:] / 2) / box[2:]
    width, height = other[2:] / box[2:]
    return tuple(float(value) for value in (x, y, width, height))


def rotated_copy(size: tuple[int, int], angle: float) -> tuple[np.ndarray, list[int]]:
    """Matrix (2, 3) that rotates an image of `size` (height, width) counter-clockwise by `angle`
    degrees, and the size (width, height) that contains the whole result."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear, (height, width) = np.array([[cos, sin], [-sin, cos]]), size
    new = np.ceil(np.abs(linear) @ (width, height)) if angle else np.array([width, height])
    return np.column_stack(
        [linear, (new - 1) / 2 - linear @ ((width - 1) / 2, (height - 1) / 2)]
    ), new.astype(int).tolist()


def boxes_differ(boxes: np.ndarray, better: np.ndarray, allowed: float) -> np.ndarray:
    """Mask (n,) of the boxes (n, 4) that differ from `better` (n, 4): the centers are farther apart
    than `allowed` × the longer side of `better`, or the logarithms of the two longer sides differ
    by more than 1.5 × `allowed`."""
    side, better_side = boxes[:, 2:].max(1), better[:, 2:].max(1)
    away = np.linalg.norm(
        boxes[:, :2] + boxes[:, 2:] / 2 - better[:, :2] - better[:, 2:] / 2, axis=1
    )
    return (away > allowed * better_side) | (np.abs(np.log(side / better_side)) > 1.5 * allowed)


def level_boxes(
    points: np.ndarray, layout: str | Layout = "ibug68"
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (n, k, 2) -> boxes (n, 4) for `crop_matrix`, each tight if its face is rotated
    upright about the center of the box; and the clockwise roll of each face (n,) in degrees."""
    tilt = roll_angle(points, layout)
    boxes = tight_box(rolled(points, -tilt))
    middles = rolled(boxes[:, None, :2] + boxes[:, None, 2:] / 2, tilt)[:, 0]
    return np.concatenate([middles - boxes[:, 2:] / 2, boxes[:, 2:]], 1), tilt
