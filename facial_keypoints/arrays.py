"""Faces as stacked arrays, and as the results of other packages."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from facial_keypoints.detector import Face
from facial_keypoints.errors import UsageError, import_optional
from facial_keypoints.layouts import load_layout


class FaceArrays(NamedTuple):
    """n faces of one layout. boxes (n, 4): left, top, width, height in pixels; points (n, k, 2) in
    pixels; confidence (n,); point_confidence and visibility (n, k), nan where a model does not give
    it; identity (n,): 0 for faces that are not tracked."""

    boxes: np.ndarray
    points: np.ndarray
    confidence: np.ndarray
    point_confidence: np.ndarray
    visibility: np.ndarray
    identity: np.ndarray


def stack(faces: Sequence[Face]) -> FaceArrays:
    """Faces of one layout as arrays; none gives arrays of length 0 with 68 points. Raises
    UsageError for faces of different layouts."""
    if len({face.layout.name for face in faces}) > 1:
        raise UsageError("stack takes faces of one layout; stack those of each layout apart")
    points = len(faces[0].layout if faces else load_layout())

    def rows(values: list, *shape: int) -> np.ndarray:
        unknown = np.full(shape, np.nan)
        known = [unknown if value is None else value for value in values]
        return np.asarray(known, np.float32).reshape(len(faces), *shape)

    return FaceArrays(
        rows([face.box for face in faces], 4),
        rows([face.points for face in faces], points, 2),
        rows([face.confidence for face in faces]),
        rows([face.point_confidence for face in faces], points),
        rows([face.point_visibility for face in faces], points),
        np.array([face.identity or 0 for face in faces], int),
    )


def to_supervision(faces: Sequence[Face]) -> Any:
    """Faces of one layout as `supervision.KeyPoints`, for its annotators: the confidence is that of
    each point. Raises UsageError if supervision is not installed."""
    supervision: Any = import_optional("supervision", "to_supervision", "supervision>=0.29")
    arrays = stack(faces)
    if not len(faces):
        return supervision.KeyPoints.empty()
    whole = np.repeat(arrays.confidence[:, None], arrays.points.shape[1], 1)
    return supervision.KeyPoints(
        xy=arrays.points,
        keypoint_confidence=np.where(
            np.isnan(arrays.point_confidence), whole, arrays.point_confidence
        ),
        class_id=np.zeros(len(faces), int),
    )
