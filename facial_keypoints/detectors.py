"""Face detectors: what they are, by name, and tight boxes of the keypoints from their boxes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from facial_keypoints.defaults import DEFAULT_DETECTOR
from facial_keypoints.paths import DETECTORS_MODULE, detector_names
from facial_keypoints.geometry import rolled, tight_box
from facial_keypoints.head import mean_head
from facial_keypoints.plugins import plugin_class

__all__ = [
    "DEFAULT_DETECTOR",
    "Detections",
    "FaceDetector",
    "detector_names",
    "from_landmarks",
    "load_detector",
    "to_tight",
]


class Detections(NamedTuple):
    """Faces that a detector finds. boxes: (n, 4) float32, left, top, width, height in pixels;
    scores: (n,) in 0…1; rolls: (n,) in degrees, clockwise, None where the detector does not tell
    them."""

    boxes: np.ndarray
    scores: np.ndarray
    rolls: np.ndarray | None = None


class FaceDetector(Protocol):
    """What finds faces: a class Detector of a file in detector_architectures/, or any object with
    this method. What it may also have is read by `fit_of`, `fallback_of` and `is_upright_only`."""

    def detect(self, image: np.ndarray) -> Detections | tuple[np.ndarray, ...]:
        """The faces in a uint8 image, RGB (h, w, 3) or gray (h, w)."""
        ...


def detect(detector: FaceDetector, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `Detections` of an image, with rolls of 0 where the detector tells none."""
    boxes, scores, rolls = Detections(*detector.detect(image))
    return boxes, scores, np.zeros(len(boxes)) if rolls is None else rolls


def fit_of(detector: FaceDetector) -> Sequence[float]:
    """Its `fit`, see `to_tight`; boxes of a detector without one are tight already."""
    return getattr(detector, "fit", (0.0, 0.0, 1.0, 1.0))


def fallback_of(detector: FaceDetector) -> FaceDetector | None:
    """Its `fallback`, a detector or the name of one, which is tried where no face is accepted."""
    other = getattr(detector, "fallback", None)
    return load_detector(other) if isinstance(other, str) else other


def is_upright_only(detector: FaceDetector) -> bool:
    """Its `upright_only`: true if it misses rolled faces, so that rotated copies are searched."""
    return getattr(detector, "upright_only", False)


def load_detector(name: str) -> FaceDetector:
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
