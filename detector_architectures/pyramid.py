"""A small convolutional network that searches an image pyramid: faces of any size, yaw and roll. It
was trained by `python -m research.face_detector.training`."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from facial_keypoints.detectors import Detections
from facial_keypoints.images import read_bytes, to_gray
from facial_keypoints.model import onnx_session
from facial_keypoints.onnx_file import verified_metadata

WEIGHTS = Path(__file__).with_suffix(".onnx")
STRIDE = 8  # pixels of a level of the pyramid per cell of the network's output
# The network finds faces of these sizes (pixels of a level; the square root of width times height).
# Levels are a factor of 2 apart, so that each face has at least one in which it has such a size.
SMALLEST, LARGEST = 22.0, 54.0
UNIT = 32.0  # of the network's widths and heights, in pixels
# Of the smallest face to find: pixels of the image, or share of its longer side in large images
LEAST, SHARE = 24.0, 1 / 80
# Boxes with a lower score are not returned. It is low because the keypoint network rejects false
# positives.
MIN_SCORE = 0.3
# Images up to this side (px) are first searched only for clear faces of at least this share of the
# longer side. If none is accepted, the fallback searches for all.
PORTRAIT, PORTRAIT_SHARE, PORTRAIT_SCORE = 320, 0.18, 0.5
SAME_OVERLAP = 0.4  # IoU above which two boxes are one face
# Boxes are rounded to so many pixels and rolls to whole degrees, so that the same photo gives the
# same crops with every version of the runtime, and in the browser.
STEP = 0.25


class Detector:
    """`detect(image)`: uint8 RGB or gray -> tight boxes (n, 4) float32 left, top, width, height in
    pixels, scores (n,) in 0…1, and the roll of each face (n,) in degrees, clockwise. The boxes are
    tight once the faces are rotated upright about their centers.

    min_score: the lowest score of a returned box. portraits: search small photos for large, clear
    faces only, see PORTRAIT. A Detector can be shared by threads.
    """

    fit = (0.0, 0.0, 1.0, 1.0)  # the boxes are tight already
    share = SHARE

    def __init__(self, min_score: float = MIN_SCORE, portraits: bool = True):
        self.min_score, self.portraits = min_score, portraits
        data = read_bytes(WEIGHTS)
        verified_metadata(
            data,
            WEIGHTS,
            "install the library again, or train it: python -m research.face_detector.training",
        )
        self.session = onnx_session(data)

    def __reduce__(self) -> tuple:
        """Loaded anew in another process (spawn)."""
        return type(self), (self.min_score, self.portraits)

    @property
    def fallback(self) -> "Detector | None":
        """The detector to use if no face is accepted: one that also searches small photos for small
        faces. It shares the network."""
        if not self.portraits:
            return None
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, portraits=False)
        return other

    def detect(self, image: np.ndarray) -> Detections:
        gray = to_gray(image)
        longer = max(gray.shape)
        share, least = self.share, self.min_score
        if self.portraits and longer <= PORTRAIT:
            share, least = max(share, PORTRAIT_SHARE), max(least, PORTRAIT_SCORE)
        faces = [
            self.search(level, ratio, least)
            for level, ratio in levels(gray, SMALLEST / max(LEAST, share * longer))
        ]
        boxes, scores, rolls = map(np.concatenate, zip(*faces, strict=True))
        kept = np.asarray(
            cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0, SAME_OVERLAP), int
        ).reshape(-1)
        whole = np.rint(boxes[kept] / STEP) * np.float32(STEP)
        return Detections(whole, scores[kept], np.rint(rolls[kept]))

    def search(
        self, level: np.ndarray, ratio: np.ndarray, least: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Faces with a score above `least` in a level of the pyramid, whose sides are `ratio` of
        those of the image: boxes (n, 4) in pixels of the image, scores and rolls (n,)."""
        images = level[None, None].astype(np.float32) / 255
        cells = self.session.run(["cells"], {"images": images})[0][0]
        rows, columns = np.nonzero(cells[0] > least)
        score, x, y, width, height, cos, sin = cells[:, rows, columns].astype(np.float64)
        middle = (STRIDE * np.stack([columns + x, rows + y], -1) + STRIDE / 2) / ratio
        size = UNIT * np.exp(np.stack([width, height], -1)) / np.sqrt(np.prod(ratio))
        return (
            np.concatenate([middle - size / 2 - 0.5, size], 1).astype(np.float32),
            score,
            np.degrees(np.arctan2(sin, cos)),
        )


def levels(gray: np.ndarray, ratio: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (gray level, its ratios (2,) to the width and height of the image): each half as large
    as the one before, until a face as large as the picture would be found. Levels are extended by
    black to whole cells."""
    size = np.array(gray.shape[::-1])
    ratio, level = min(ratio, 1.0), gray
    while True:
        shape = np.maximum(np.rint(size * ratio), 1).astype(int)
        level = cv2.resize(level, shape.tolist(), interpolation=cv2.INTER_AREA)
        right, below = -shape % STRIDE
        yield cv2.copyMakeBorder(level, 0, below, 0, right, cv2.BORDER_CONSTANT), shape / size
        if size.max() * ratio <= LARGEST:
            return
        ratio /= 2
