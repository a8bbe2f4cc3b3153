"""OpenCV's frontal Haar cascade (Viola, Jones, CVPR 2001; Lienhart, Maydt, ICIP 2002). OpenCV 5 has
none."""

from __future__ import annotations  # OpenCV 5 lacks a class that is named in type hints

import threading
from pathlib import Path

import cv2
import numpy as np

from facial_keypoints.detectors import Detections
from facial_keypoints.errors import DataError
from facial_keypoints.images import to_gray

WINDOW = 24  # side in pixels of the smallest window that is searched
# side of the smallest tight box that is searched: 24 px, or 1/80 of the longer side in large photos
SMALLEST, SHARE = 24, 1 / 80
# Photos up to this side (px) are first searched only for faces of at least this share of the longer
# side, with this scale factor. If none is accepted, the fallback searches for smaller faces.
PORTRAIT, PORTRAIT_SHARE, PORTRAIT_FACTOR = 320, 0.25, 1.25

_cascades = threading.local()


def load_cascade(file: str) -> cv2.CascadeClassifier:
    """One of the cascades that OpenCV ships, e.g. 'haarcascade_eye.xml', one object per thread.

    A cascade keeps the image pyramid of its current search, so two threads must not share one.
    Raises DataError if the cascade is missing or does not load.
    """
    if file not in _cascades.__dict__:
        _cascades.__dict__[file] = read_cascade(file)
    return _cascades.__dict__[file]


def read_cascade(file: str) -> cv2.CascadeClassifier:
    """Read a cascade from OpenCV's data folder. Raises DataError."""
    folder = Path(getattr(getattr(cv2, "data", None), "haarcascades", ""))
    if not hasattr(cv2, "CascadeClassifier") or not (folder / file).is_file():
        raise DataError(
            f"OpenCV {cv2.__version__} has no {file}: version 5 dropped the cascades; "
            'install an earlier one: pip install "opencv-python>=4.10,<5"'
        )
    cascade = cv2.CascadeClassifier(str(folder / file))
    if cascade.empty():  # OpenCV says nothing when a file does not load
        raise DataError(
            f"{folder / file} does not load; install OpenCV again: pip install "
            "--force-reinstall opencv-python"
        )
    return cascade


class Detector:
    """`detect(image)`: uint8 RGB or gray -> boxes (n, 4) float32 left, top, width, height in
    pixels, scores (n,) in 0…1.

    A Detector can be shared by threads.
    """

    file = "haarcascade_frontalface_default.xml"
    fit = (0.0, 0.145, 0.865, 0.832)
    share = SHARE
    upright_only = True  # rolled faces are searched in rotated copies of the photo
    # logistic curve of the stage weight: where half of the boxes are faces, and the scale
    evidence = (0.03, 1.24)

    def __init__(self, scale_factor: float = 1.2, min_neighbors: int = 1, portraits: bool = True):
        self.scale_factor, self.min_neighbors, self.portraits = (
            scale_factor,
            min_neighbors,
            portraits,
        )
        load_cascade(self.file)  # a missing file is an error now, not at the first photo

    @property
    def fallback(self) -> Detector | str:
        """The detector to use if no face is accepted: first one that also searches small photos for
        small faces, then the name of the detector of profiles."""
        return (
            type(self)(self.scale_factor, self.min_neighbors, False)
            if self.portraits
            else "haar_profile"
        )

    def detect(self, image: np.ndarray) -> Detections:
        """Search a copy of the image, shrunk so that the smallest face to find has the size of the
        smallest window: more pixels would only cost time."""
        gray = to_gray(image)
        portrait = self.portraits and max(gray.shape) <= PORTRAIT
        ratio = min(
            WINDOW
            * self.fit[2]
            / max(SMALLEST, (PORTRAIT_SHARE if portrait else self.share) * max(gray.shape)),
            1.0,
        )
        if ratio < 1:
            size = [max(round(n * ratio), 1) for n in gray.shape[::-1]]
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        border = 0 if portrait else WINDOW // 2  # to find faces cut off by the image border
        boxes, weights = self.search(
            cv2.copyMakeBorder(gray, *[border] * 4, cv2.BORDER_REPLICATE),
            max(self.scale_factor, PORTRAIT_FACTOR) if portrait else self.scale_factor,
        )
        boxes[:, :2] -= border
        middle, spread = self.evidence
        scores = 1 / (1 + np.exp((middle - weights) / spread))
        return Detections(boxes / np.float32(ratio), scores)

    def search(self, gray: np.ndarray, scale_factor: float) -> tuple[np.ndarray, np.ndarray]:
        boxes, _, weights = load_cascade(self.file).detectMultiScale3(
            gray,
            scale_factor,
            self.min_neighbors,
            minSize=(WINDOW, WINDOW),
            outputRejectLevels=True,
        )
        return np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(
            weights, np.float64
        ).reshape(-1)


def find_parts(
    image: np.ndarray, box: np.ndarray, file: str = "haarcascade_eye.xml", min_neighbors: int = 2
) -> np.ndarray:
    """Boxes (n, 4) of eyes or smiles inside a face box, in pixels of the image, by one of OpenCV's
    cascades."""
    left, top, width, height = (round(float(v)) for v in box)
    left, top = max(left, 0), max(top, 0)
    face = to_gray(image)[top : top + height, left : left + width]
    if not face.size:
        return np.zeros((0, 4), np.float32)
    found = load_cascade(file).detectMultiScale(
        face, 1.1, min_neighbors, minSize=(max(width // 8, 8),) * 2
    )
    return np.asarray(found, np.float32).reshape(-1, 4) + np.array([left, top, 0, 0], np.float32)
