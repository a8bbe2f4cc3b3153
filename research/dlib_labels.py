"""The keypoints of dlib, which was trained on 300-W, for labeled frames: for the convention
of 300-W, and for the details of eyes and mouth, about which coarse labels say little.
"""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from tqdm.auto import tqdm

from facial_keypoints.errors import UsageError, import_optional
from facial_keypoints.geometry import rolled, shapes_of, yaw_estimate
from facial_keypoints.layouts import load_layout
from research.frames import Frames

DLIB = "dlib"  # as a teacher, in place of a checkpoint
KEPT = 0.85  # share of the frames on which dlib probably found the face
SIZES = (0.94, 1.0, 1.06)  # of the boxes that predictions are averaged over


def dlib_predictor() -> Callable[[np.ndarray, Sequence[float]], np.ndarray]:
    """dlib's regression trees (Kazemi and Sullivan, CVPR 2014), trained on 300-W, as a function of
    a gray image and a square box (left, top, side) -> points (68, 2) in pixels. Raises UsageError
    if dlib or its weights are not installed."""
    packages, why = "dlib-bin face_recognition_models", "predicting by dlib"
    dlib: Any = import_optional("dlib", why, packages)
    # the package has the weights; importing it would need pkg_resources, which setuptools removed
    found = find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise UsageError(f"{why} requires a package: pip install {packages}")
    predictor: Any = dlib.shape_predictor(os.path.join(
        found.submodule_search_locations[0], "models", "shape_predictor_68_face_landmarks.dat"))

    def predict(gray, box):
        left, top, side = (int(v) for v in box)
        parts = predictor(gray, dlib.rectangle(left, top, left + side, top + side)).parts()
        return np.array([(part.x, part.y) for part in parts], np.float32)
    return predict


def predict_by_dlib(frames: Frames, sizes: Sequence[float] = (1.0,), mirrored: bool = False,
                    bar: bool = True) -> np.ndarray:
    """dlib's points (n, 68, 2) in pixels, predicted in the tight boxes of the labels, made square
    like those of dlib's face detector.

    sizes: the mean of the predictions in boxes of these relative sizes is taken; mirrored: also of
    those in the mirror image. One prediction is rounded to whole pixels.
    """
    predict, flip, found = dlib_predictor(), load_layout().flip_indices, []
    for row, box in enumerate(tqdm(frames.boxes(), desc="dlib", unit="frame", leave=False,
                                   disable=not bar)):
        gray = cv2.cvtColor(frames.image(row), cv2.COLOR_RGB2GRAY)
        other, last, each = np.ascontiguousarray(gray[:, ::-1]), gray.shape[1] - 1, []
        for size in sizes:
            side = size * box[2:].max()
            low = np.rint(box[:2] + box[2:] / 2 - side / 2)
            side = np.rint(low[0] + side) - low[0]
            each.append(predict(gray, [*low, side]))
            if mirrored:
                points = predict(other, [last - low[0] - side, low[1], side])[flip]
                each.append(np.column_stack([last - points[:, 0], points[:, 1]]))
        found.append(np.mean(each, 0))
    return np.array(found, np.float32)


def found_faces(offsets: np.ndarray, share: float) -> np.ndarray:
    """Offsets (n, 68, 2) of dlib's points from ours, upright and divided by the size of the face
    -> where dlib probably found the face, (n,) bool: the `share` nearest to the median offset."""
    far = np.linalg.norm(offsets - np.median(offsets, axis=0), axis=2).mean(1)
    return far <= np.quantile(far, share)


def labels_by_dlib(frames: Frames, points: np.ndarray, bar: bool = True) -> Frames:
    """Frames with the points of dlib as labels, minus the difference of conventions: of their
    offsets from the predictions `points` (n, 68, 2) of our network, what is constant, linear or
    quadratic in the yaw.

    The share 1 - KEPT of the frames where dlib is farthest away is left out: there, it probably did
    not find the face. Raises UsageError for other layouts than ibug68, and without dlib.
    """
    if frames.layout != load_layout():
        raise UsageError(f"dlib predicts the keypoints of ibug68, not of {frames.layout.name}")
    others = predict_by_dlib(frames, SIZES, mirrored=True, bar=bar)
    shapes, sizes, angles = shapes_of(points.astype(np.float64))
    away = rolled((others - points) / sizes, -angles)
    kept = found_faces(away, KEPT)
    yaw = yaw_estimate(shapes)
    design = np.column_stack([np.ones_like(yaw), yaw, yaw * yaw])
    fit = np.linalg.lstsq(design[kept], away[kept].reshape(kept.sum(), -1))[0]
    constant = rolled((design @ fit).reshape(away.shape), angles) * sizes
    frames = frames.select(np.flatnonzero(kept))
    frames.points = (others - constant)[kept].astype(np.float32)
    return frames
