"""Face detectors by name, and tight boxes of the keypoints from their boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from facial_keypoints.defaults import DEFAULT_DETECTOR
from facial_keypoints.paths import DETECTORS_MODULE, detector_names
from facial_keypoints.geometry import rolled, tight_box
from facial_keypoints.head import mean_head
from facial_keypoints.plugins import plugin_class

__all__ = ["DEFAULT_DETECTOR", "detector_names", "from_landmarks", "load_detector", "to_tight"]


def load_detector(name: str) -> Any:
    """A detector by name. Raises UsageError for a name that is not present."""
    return plugin_class(
        "detector", name, detector_names(), "detector_architectures", DETECTORS_MODULE, "Detector"
    )()


def to_tight(boxes: np.ndarray, fit: Sequence[float], rolls: np.ndarray | float = 0) -> np.ndarray:
    """A detector's boxes (n, 4) -> tight boxes of the keypoints (n, 4), by its `fit` (x, y, width,
    height).

    x, y: from the center of the detector's box to that of the tight box; width, height: of the
    tight box; all as shares of the width and height of the detector's box, for an upright face.
    rolls: of the faces, (n,) in degrees. `fit` is measured on training frames: python
    benchmarks/face_detection.py --fit.
    """
    size = boxes[:, 2:]
    away = rolled((size * np.array(fit[:2]))[:, None], np.broadcast_to(rolls, len(boxes)))[:, 0]
    center, tight = boxes[:, :2] + size / 2 + away, size * np.array(fit[2:])
    return np.concatenate([center - tight / 2, tight], 1).astype(np.float32)


def from_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose tip and mouth corners (n, 5, 2), viewer's left first, in pixels -> tight boxes of
    the 68 points (n, 4).

    The mean head is laid over the five by the similarity that fits best.
    """
    head = mean_head()[:, :2]
    five = mean_head("five")[:, :2]
    model, seen = (
        (points - points.mean(-2, keepdims=True)) @ [1, 1j]
        for points in (five, np.asarray(landmarks, float))
    )
    turns = seen @ model.conj() / np.square(np.abs(model)).sum()  # (n,) complex: scale and angle
    whole = turns[:, None] * ((head - five.mean(0)) @ [1, 1j])
    points = np.stack([whole.real, whole.imag], -1) + np.asarray(landmarks, float).mean(
        1, keepdims=True
    )
    return tight_box(points)
