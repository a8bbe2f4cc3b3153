"""The mean head, and what points are measured against it: roll, yaw, face shape score, boxes."""

from functools import cache

import numpy as np

from facial_keypoints.geometry import relative_box, rolled, tight_box
from facial_keypoints.layouts import Layout, conversion_matrix, convert_points, load_layout
from facial_keypoints.paths import SAVED_MODELS


OUTER_EYE_CORNERS = (36, 45)  # of ibug68
# how many keypoints a layout must share with the mean head: for the head pose, and (more, because
# few points fit a head too easily) for the face shape score
MIN_HEAD_POINTS, MIN_SHAPE_POINTS = 5, 20
HEAD_FILE = SAVED_MODELS / "head.csv"
# `affine_residual` above which a face is doubtful; at twice this value its score is 0
MAX_SHAPE_RESIDUAL = 0.15
JAW_MIDDLE = 0.05  # x of the mean head: jaw keypoints nearer to 0 are in neither half


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


def mirrored(shapes: np.ndarray) -> np.ndarray:
    """Keypoints of ibug68 (n, 68, 2) -> those of the mirror images, mirrored about x = 0."""
    return shapes[:, load_layout().flip_indices] * [-1, 1]


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


def level_boxes(
    points: np.ndarray, layout: str | Layout = "ibug68"
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (n, k, 2) -> boxes (n, 4) for `crop_matrix`, each tight if its face is rotated
    upright about the center of the box; and the clockwise roll of each face (n,) in degrees."""
    tilt = roll_angle(points, layout)
    boxes = tight_box(rolled(points, -tilt))
    middles = rolled(boxes[:, None, :2] + boxes[:, None, 2:] / 2, tilt)[:, 0]
    return np.concatenate([middles - boxes[:, 2:] / 2, boxes[:, 2:]], 1), tilt
