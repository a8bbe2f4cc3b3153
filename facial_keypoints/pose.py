"""Head pose, and openness of eyes and mouth."""

from dataclasses import dataclass

import cv2
import numpy as np

from facial_keypoints.geometry import mean_head

# not the lower lip and the chin, which talk
RIGID = [0, 1, 2, 14, 15, 16, *range(17, 48), 48, 50, 51, 52, 54]
# of the camera from the head, in inter-ocular distances, where no focal length is known: about 1 m
DISTANCE = 10


@dataclass
class Pose:
    """Angles in degrees: yaw > 0 looks to the viewer's right, pitch > 0 down, roll > 0 tilts
    clockwise.

    All are 0 for a level head that looks into the camera, wherever it is in the photo: they are
    relative to the line of sight from the camera to the head.
    rotation (3, 3) and translation (3,), in inter-ocular distances, take `head` to the camera;
    camera (3, 3) to pixels.
    """

    yaw: float
    pitch: float
    roll: float
    rotation: np.ndarray
    translation: np.ndarray
    camera: np.ndarray


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Angles in degrees -> rotation (3, 3): pitch first, then yaw, then roll."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(np.radians(a)), np.cos(np.radians(a)))
                                for a in (yaw, pitch, roll))
    return (
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    )


def angles_of(rotation: np.ndarray) -> tuple[float, ...]:
    """The inverse of `rotation_of`: yaw, pitch, roll in degrees, yaw within ±90."""
    yaw = np.arcsin(np.clip(rotation[2, 0], -1, 1))
    return tuple(float(a) for a in np.degrees([yaw, np.arctan2(rotation[2, 1], rotation[2, 2]),
                                               np.arctan2(rotation[1, 0], rotation[0, 0])]))


def head_pose(points: np.ndarray, size: tuple[int, int] | None = None, focal: float | None = None,
              model: np.ndarray | None = None) -> Pose:
    """Keypoints (68, 2) in pixels -> Pose.

    size (height, width) and focal in pixels: of a calibrated camera, whose axis meets the middle of
    the photo. Without a focal length the camera is taken to look at the head, from a distance of
    DISTANCE inter-ocular distances: then place and size of the face in the photo do not matter.
    model (68, 3): another head than the mean one.
    """
    model, seen = (
        (mean_head() if model is None else model)[RIGID],
        np.asarray(points, np.float64)[RIGID],
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


def weak_perspective_scale(model: np.ndarray, seen: np.ndarray) -> float:
    """Pixels for each unit of a model (k, 3) that is seen as points (k, 2) from far away, in
    whatever rotation."""
    camera = np.linalg.lstsq(model - model.mean(0), seen - seen.mean(0), rcond=None)[0]
    return max(np.sqrt(np.square(np.linalg.svd(camera, compute_uv=False)).mean()), 1e-9)


def sight_rotation(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes the camera's axis z to a direction (3,)."""
    axis = np.cross([0, 0, 1], direction)
    angle = np.arctan2(np.linalg.norm(axis), direction[2])
    return cv2.Rodrigues(axis / max(np.linalg.norm(axis), 1e-12) * angle)[0]



def openness(points: np.ndarray, corners: tuple[int, int], above: list[int],
             below: list[int]) -> np.ndarray:
    """Mean distance of upper from lower points / distance of the corners; any batch (…, 68, 2)."""
    width = np.linalg.norm(points[..., corners[0], :] - points[..., corners[1], :], axis=-1)
    return np.linalg.norm(points[..., above, :] - points[..., below, :], axis=-1).mean(-1) / width


def eye_openness(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> (…, 2), the viewer's left and right eye: some 0.3 open, below 0.15
    shut.

    The eye aspect ratio of Soukupová and Čech, Computer Vision Winter Workshop 2016.
    """
    points = np.asarray(points)
    return np.stack([openness(points, (36, 39), [37, 38], [41, 40]),
                     openness(points, (42, 45), [43, 44], [47, 46])], -1)


def mouth_openness(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, 68, 2) -> (…): height of the gap between the lips / its width; 0 shut, above
    0.3 open."""
    return openness(np.asarray(points), (60, 64), [61, 62, 63], [67, 66, 65])
