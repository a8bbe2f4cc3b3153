"""Estimated positions of keypoints without a label: from a 3D head, or from a typical face."""

from dataclasses import replace

import numpy as np

from facial_keypoints.geometry import align_shapes, tight_box
from facial_keypoints.head import mean_head
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.pose import has_pose, rigid_points

# fewest labeled rigid points that a 3D head is fitted to; with fewer, the typical face is used
MIN_RIGID = 8


def complete_points(points: np.ndarray, layout: Layout) -> np.ndarray:
    """Keypoints (n, k, 2) with missing points (nan) replaced by estimates.

    A face with at least MIN_RIGID labeled rigid points of a layout that has a 3D head gets the
    estimates of `from_head`. Other faces get those of `from_shape`.
    """
    missing = np.isnan(points).any(-1)
    if not missing.any():
        return points
    result = points.astype(np.float64)
    if has_pose(layout):
        rigid = rigid_points(layout)
        rows = missing.any(1) & ((~missing[:, rigid]).sum(1) >= MIN_RIGID)
        result[rows] = from_head(result[rows], layout)
    rows = np.flatnonzero(np.isnan(result).any((1, 2)))
    if len(rows):
        shape = np.array(layout.shape) if layout.shape else mean_of_shapes(points)
        for row in rows:
            result[row] = from_shape(result[row], shape)
    return result.astype(np.float32)


def from_head(points: np.ndarray, layout: Layout) -> np.ndarray:
    """Keypoints (n, k, 2), nan where missing -> the same with the missing ones where the mean head
    has them, fitted under weak perspective to the labeled rigid ones; nan for keypoints that the
    mean head lacks.

    A missing point also gets the deviation of its mirror partner from the fitted head, mirrored:
    faces are nearly symmetric, so the hidden half of an open mouth is open as well.
    """
    head, missing = mean_head(layout), np.isnan(points).any(-1)
    rigid = rigid_points(layout)
    labeled = (~missing[:, rigid]).astype(float)
    scale, axes, origin = fit_heads(head[rigid], points[:, rigid], labeled)
    fitted = scale[:, None, None] * head @ axes.swapaxes(1, 2) + origin
    result = np.where(missing[..., None], fitted, points)
    if layout.mirror:
        partner = np.array(layout.mirror)
        # the deviation in the axes of the head, with nothing along the line of sight
        deviation = (points - fitted)[:, partner] @ axes * [-1, 1, 1]
        moved = (missing & ~missing[:, partner])[..., None]
        result = result + np.where(moved, deviation @ axes.swapaxes(1, 2), 0)
    return result


def fit_heads(
    model: np.ndarray, points: np.ndarray, weights: np.ndarray, rounds: int = 30
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a model (k, 3) to points (n, k, 2) under weak perspective, by least squares with weights
    (n, k); points with a weight of 0 may be nan.

    Returns scales (n,), the first two rows of the rotations (n, 2, 3), and origins (n, 1, 2): a
    point p (3,) of the model is seen at scale * axes @ p + origin. Starts from the affine camera,
    then alternates between the depths of the points and the rotation that fits the points with
    these depths (Kabsch, 1976).
    """
    weights = weights[..., None]
    points = np.where(weights > 0, points, 0)
    total = weights.sum(1, keepdims=True)
    middle, center = (
        (weights * model).sum(1, keepdims=True) / total,
        (weights * points).sum(1, keepdims=True) / total,
    )
    model, points = model - middle, points - center
    spread = np.swapaxes(weights * model, 1, 2) @ model
    ridge = 1e-6 * np.trace(spread, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    camera = np.swapaxes(
        np.linalg.solve(spread + ridge, np.swapaxes(weights * model, 1, 2) @ points), 1, 2
    )
    left, values, right = np.linalg.svd(camera, full_matrices=False)
    axes, scale = left @ right, np.maximum(values.mean(1), 1e-9)
    rotation = np.concatenate([axes, np.cross(axes[:, 0], axes[:, 1])[:, None]], 1)
    square = np.maximum((weights * np.square(model)).sum((1, 2)), 1e-9)
    for _ in range(rounds):
        depth = scale[:, None, None] * model @ rotation[:, 2, :, None]
        full = np.concatenate([points, depth], 2)
        left, values, right = np.linalg.svd(np.swapaxes(weights * full, 1, 2) @ model)
        values[:, 2] *= np.sign(np.linalg.det(left @ right))
        left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
        rotation, scale = left @ right, np.maximum(values.sum(1) / square, 1e-9)
    axes = rotation[:, :2]
    return scale, axes, center - scale[:, None, None] * middle @ axes.swapaxes(1, 2)


def from_shape(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Keypoints (k, 2), nan where missing -> the same with the missing ones where they lie on a
    typical face `shape` (k, 2), moved, scaled and rotated onto the other points."""
    rest, known = np.isnan(points).any(-1), ~np.isnan(points).any(-1) & ~np.isnan(shape).any(1)
    if known.sum() < 2:
        return points
    linear, offset = align_shapes(shape[known][None], points[known])
    result = points.copy()
    result[rest] = shape[rest] @ linear[0] + offset[0]
    return result


def mean_of_shapes(points: np.ndarray) -> np.ndarray:
    """Keypoints (n, k, 2), nan where missing -> a typical face (k, 2): the mean of all faces, each
    moved and scaled so that the tight boxes of the most complete ones agree; nan for points that
    nobody has."""
    labeled = ~np.isnan(points).any(-1)
    shape = np.full(points.shape[1:], np.nan)
    best = points[labeled.sum(1) == labeled.sum(1).max()].astype(np.float64)
    box = tight_box(best).astype(np.float64)
    known = ~np.isnan(best).any((0, 2))
    scaled = (best - (box[:, None, :2] + box[:, None, 2:] / 2)) / box[:, 2:].max(1)[:, None, None]
    shape[known] = scaled[:, known].mean(0)
    if known.all() or known.sum() < 2:
        return shape
    # points that the most complete faces lack: from all faces that have them
    sums, counts = np.zeros_like(shape), np.zeros(len(shape))
    for face, rows in zip(points.astype(np.float64), labeled, strict=True):
        both = rows & known
        if both.sum() >= 2 and np.ptp(face[both], axis=0).any():
            linear, offset = align_shapes(face[both][None], shape[both])
            sums[rows] += face[rows] @ linear[0] + offset[0]
            counts += rows
    more = ~known & (counts > 0)
    shape[more] = sums[more] / counts[more, None]
    return shape


def with_shape(layout: Layout, points: np.ndarray) -> Layout:
    """A layout with the mean shape of keypoints (n, k, 2), if it has no shape of its own and each
    keypoint is labeled in some face."""
    if layout.shape or layout == load_layout():
        return layout
    shape = mean_of_shapes(points)
    if np.isnan(shape).any():
        return layout
    return replace(layout, shape=tuple((round(float(x), 4), round(float(y), 4)) for x, y in shape))
