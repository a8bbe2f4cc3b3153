"""A detector without a search: the whole image is the face. For cropped portraits and aligned data
sets."""

import numpy as np

from facial_keypoints.detectors import Detections


class Detector:
    """`detect(image)` -> one box, the whole image. The face is assumed to fill it as much as it
    fills the training crops."""

    fit = (0.0, 0.0, 0.8, 0.8)  # the tight box is 1 / CROP_SCALE of the crop

    def detect(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        return Detections(np.array([[0, 0, width, height]], np.float32), np.ones(1))
