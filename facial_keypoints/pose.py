"""Head pose."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from facial_keypoints.errors import UsageError
from facial_keypoints.head import MIN_HEAD_POINTS, mean_head
from facial_keypoints.layouts import Layout, conversion_matrix, load_layout

# of ibug68, without most of the jaw and the mouth, which move most in speech
RIGID = [0, 1, 2, 14, 15, 16, *range(17, 48), 48, 50, 51, 52, 54]
# assumed distance of camera and head if no focal length is given, in inter-ocular distances: about
# 1 m
DISTANCE = 10


@dataclass
class Pose:
    """Angles in degrees: yaw > 0 looks to the viewer's right, pitch > 0 down, roll > 0 tilts
    clockwise.

    All are 0 for a level head that looks into the camera, wherever it is in the photo: they are
    relative to the line of sight from the camera to the head.
    rotation (3, 3) and translation (3,), in inter-ocular distances, transform `mean_head` to camera
    coordinates; camera (3, 3) projects these to pixels.
    """

    yaw: float
    pitch: float
    roll: float
    rotation: np.ndarray
    translation: np.ndarray
    camera: np.ndarray


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Angles in degrees -> rotation (3, 3): pitch first, then yaw, then roll."""
    (sy, cy), (sp, cp), (sr, cr) = (
        (np.sin(np.radians(a)), np.cos(np.radians(a))) for a in (yaw, pitch, roll)
    )
    return (
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    )


def angles_of(rotation: np.ndarray) -> tuple[float, ...]:
    """The inverse of `rotation_of`: yaw, pitch, roll in degrees, yaw within ±90."""
    yaw = np.arcsin(np.clip(rotation[2, 0], -1, 1))
    return tuple(
        float(a)
        for a in np.degrees(
            [
                yaw,
                np.arctan2(rotation[2, 1], rotation[2, 2]),
                np.arctan2(rotation[1, 0], rotation[0, 0]),
            ]
        )
    )


@cache
def rigid_points(layout: str | Layout = "ibug68") -> np.ndarray:
    """Indices of the keypoints of a layout that the mean head has, without most of the jaw and the
    mouth, which move most in speech."""
    layout = load_layout(layout)
    if layout == load_layout():
        return np.array(RIGID)
    rigid = conversion_matrix(load_layout(), layout) @ np.isin(np.arange(len(load_layout())), RIGID)
    return np.flatnonzero(rigid > 1 - 1e-6)


def has_pose(layout: str | Layout) -> bool:
    """True if a layout has enough keypoints of the mean head for the pose of the head."""
    return len(rigid_points(layout)) >= MIN_HEAD_POINTS


def head_pose(
    points: np.ndarray,
    size: tuple[int, int] | None = None,
    focal: float | None = None,
    model: np.ndarray | None = None,
    layout: str | Layout = "ibug68",
) -> Pose:
    """Keypoints (k, 2) in pixels -> Pose. Raises UsageError for a layout without `has_pose`.

    size (height, width) of the photo and focal length, in pixels: for a calibrated camera whose
    optical axis is at the center of the photo. Without them, the camera is assumed to point at the
    head from a distance of DISTANCE inter-ocular distances; then the position and size of the face
    in the photo do not matter. model (k, 3): a head to use instead of `mean_head`.
    """
    if not has_pose(layout):
        raise UsageError(
            f"the head pose needs at least {MIN_HEAD_POINTS} keypoints with the names "
            f"that ibug68 has; layout {load_layout(layout).name} has fewer"
        )
    rows = rigid_points(layout)
    model, seen = (
        (mean_head(layout) if model is None else model)[rows],
        np.asarray(points, np.float64)[rows],
    )
    if focal is None or size is None:
        focal, center = DISTANCE * weak_perspective_scale(model, seen), seen.mean(0)
    else:
        center = (np.array(size[::-1]) - 1) / 2
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, turn, translation = cv2.solvePnP(model, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    turn, translation = cv2.solvePnPRefineLM(model, seen, camera, None, turn, translation)
    rotation, translation = cv2.Rodrigues(turn)[0], translation.ravel()
    yaw, pitch, roll = angles_of(sight_rotation(translation).T @ rotation)
    return Pose(yaw, pitch, roll, rotation, translation, camera)


def affine_camera(model: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The affine camera (2, 3) that takes a centered model (k, 3) to centered points (k, 2) with
    least squared error."""
    return np.linalg.lstsq(model - model.mean(0), seen - seen.mean(0), rcond=None)[0].T


def weak_perspective_scale(model: np.ndarray, seen: np.ndarray) -> float:
    """Pixels per unit of a model (k, 3) that a distant camera sees as points (k, 2) in pixels, for
    any rotation."""
    values = np.linalg.svd(affine_camera(model, seen), compute_uv=False)
    return max(np.sqrt(np.square(values).mean()), 1e-9)


def sight_rotation(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes the camera's axis z to a direction (3,)."""
    axis = np.cross([0, 0, 1], direction)
    angle = np.arctan2(np.linalg.norm(axis), direction[2])
    return cv2.Rodrigues(axis / max(np.linalg.norm(axis), 1e-12) * angle)[0]
