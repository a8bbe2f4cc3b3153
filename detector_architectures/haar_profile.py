"""OpenCV's profile cascade, on the picture and on its mirror image: faces turned to either side."""

import cv2
import numpy as np

from . import haar


class Detector(haar.Detector):
    """As haar.Detector, with haarcascade_profileface on both sides."""

    file = "haarcascade_profileface.xml"
    fit = (0.0, 0.144, 0.753, 0.721)
    evidence = (-2.14, 0.98)
    same_overlap = 0.3  # IoU above which boxes from both sides are one face
    fallback = None

    def __init__(self, scale_factor: float = 1.1, min_neighbors: int = 1):
        super().__init__(scale_factor, min_neighbors, portraits=False)

    def search(self, gray: np.ndarray, scale_factor: float) -> tuple[np.ndarray, np.ndarray]:
        boxes, weights = super().search(gray, scale_factor)
        mirrored, more = super().search(cv2.flip(gray, 1), scale_factor)
        mirrored[:, 0] = gray.shape[1] - mirrored[:, 0] - mirrored[:, 2]
        boxes, weights = np.concatenate([boxes, mirrored]), np.concatenate([weights, more])
        if not len(boxes):
            return boxes, weights
        above = weights - weights.min() + 1  # NMSBoxes drops scores that are not above 0
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), above.tolist(), 0, self.same_overlap)
        return boxes[kept], weights[kept]
