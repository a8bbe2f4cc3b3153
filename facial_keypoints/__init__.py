"""Finds faces in photos and videos, and the keypoints (facial landmarks) of each, 68 by default.

from facial_keypoints import find_keypoints

for face in find_keypoints("photo.jpg"):
    print(face.box, face.points.shape, face.confidence)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # type checkers and editors read the names here, Python by __getattr__
    from facial_keypoints.arrays import stack, to_supervision
    from facial_keypoints.detector import Face, KeypointDetector, find_keypoints
    from facial_keypoints.errors import DataError, UsageError
    from facial_keypoints.layouts import Layout, convert_points, load_layout

__version__ = "0.2.0"
__all__ = [
    "DataError",
    "Face",
    "KeypointDetector",
    "Layout",
    "UsageError",
    "convert_points",
    "find_keypoints",
    "load_layout",
    "stack",
    "to_supervision",
]

_MODULES = {
    "DataError": "errors",
    "UsageError": "errors",
    "Face": "detector",
    "KeypointDetector": "detector",
    "find_keypoints": "detector",
    "Layout": "layouts",
    "load_layout": "layouts",
    "convert_points": "layouts",
    "stack": "arrays",
    "to_supervision": "arrays",
}


def __getattr__(name: str) -> object:
    """Import a name at its first use: `facial-keypoints --help` needs neither OpenCV nor ONNX
    Runtime."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"facial_keypoints.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'facial_keypoints' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
