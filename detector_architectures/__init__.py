"""Face detectors, one a file, each a class Detector: `detect(image)` -> boxes and scores. Found by file name."""

import importlib
from pathlib import Path

import numpy as np

import uses
from errors import UsageError
from transforms import tight_box

DEFAULT = "haar"


def names():
    """The detectors present: names of the files beside this one."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))


def load_detector(name):
    """A detector by name. Raises UsageError for a name that is not present."""
    if name not in names():
        raise UsageError(f"no detector {name!r}; present are {', '.join(names())} (files in detector_architectures/)")
    return importlib.import_module(f"detector_architectures.{name}").Detector()


def to_tight(boxes, fit):
    """A detector's boxes (n, 4) -> tight boxes of the 68 points (n, 4), by its `fit` (x, y, width, height).

    x, y: from the detector's centre to that of the tight box; width, height: of the tight box; all as shares of the
    detector's width and height. Measured on training frames: python benchmarks/detectors.py --fit.
    """
    size = boxes[:, 2:]
    centre, tight = boxes[:, :2] + size * (0.5 + np.array(fit[:2])), size * np.array(fit[2:])
    return np.concatenate([centre - tight / 2, tight], 1).astype(np.float32)


def from_landmarks(landmarks):
    """Eyes, nose tip and mouth corners (n, 5, 2), viewer's left first, in pixels -> tight boxes of the 68 points (n, 4).

    The mean head is laid over the five by the similarity that fits best.
    """
    head = uses.head()[:, :2]
    five = np.stack([head[36:42].mean(0), head[42:48].mean(0), head[30], head[48], head[54]])
    model, seen = ((points - points.mean(-2, keepdims=True)) @ [1, 1j] for points in (five, np.asarray(landmarks, float)))
    turns = seen @ model.conj() / np.square(np.abs(model)).sum()  # (n,) complex: scale and angle
    whole = turns[:, None] * ((head - five.mean(0)) @ [1, 1j])
    points = np.stack([whole.real, whole.imag], -1) + np.asarray(landmarks, float).mean(1, keepdims=True)
    return tight_box(points)
