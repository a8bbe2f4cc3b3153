"""Face detectors, one a file, each a class Detector: `detect(image)` -> boxes and scores. Found by file name."""

import importlib
from pathlib import Path

import numpy as np

from errors import UsageError

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
