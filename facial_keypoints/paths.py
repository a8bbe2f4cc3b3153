"""Where the files that come with the library lie, in a clone and in a wheel."""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# a wheel carries them inside; in a clone they lie next to the package
_INSTALLED = (_PACKAGE / "saved_models").is_dir()

SAVED_MODELS = (_PACKAGE if _INSTALLED else _PACKAGE.parent) / "saved_models"
# tables of scores: on the official frames, and on photographs labeled by people
PUBLISHED, PHOTOGRAPHS = SAVED_MODELS / "results.csv", SAVED_MODELS / "photographs.csv"
DETECTORS = (_PACKAGE if _INSTALLED else _PACKAGE.parent) / "detector_architectures"
DETECTORS_MODULE = (
    "facial_keypoints.detector_architectures" if _INSTALLED else "detector_architectures"
)
LAYOUTS = _PACKAGE / "layouts"


def detector_names() -> list[str]:
    """The face detectors: names of the files in detector_architectures/."""
    return sorted(file.stem for file in DETECTORS.glob("[a-z]*.py"))


@cache  # these files come with the library and stay; asked for in hot loops
def layout_names() -> tuple[str, ...]:
    """The keypoint layouts that come with the library: names of the files in layouts/."""
    return tuple(sorted(file.stem for file in LAYOUTS.glob("*.toml")))
