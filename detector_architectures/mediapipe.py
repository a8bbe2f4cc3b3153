"""MediaPipe's face detector (BlazeFace, Bazarevsky et al., 2019); it needs the package
mediapipe."""

import threading

import numpy as np

from facial_keypoints.detectors import Detections, from_landmarks
from facial_keypoints.errors import DataError


class Detector:
    """`detect(image)`: uint8 RGB or gray -> tight boxes (n, 4) float32 in pixels, scores (n,) in
    0…1."""

    fit = (0.0, 0.0, 1.0, 1.0)  # the boxes are computed from landmarks and are already tight

    def __init__(self, min_score: float = 0.3):
        try:
            from mediapipe.python.solutions import face_detection
        except ImportError:
            raise DataError(
                "detector 'mediapipe' needs a package: pip install "
                "mediapipe==0.10.21 (later releases lack the models)"
            ) from None
        self.lock = threading.Lock()  # the graph handles one image at a time
        self.net = face_detection.FaceDetection(
            model_selection=1, min_detection_confidence=min_score
        )

    def detect(self, image: np.ndarray) -> Detections:
        image = np.dstack([image] * 3) if image.ndim == 2 else image
        with self.lock:
            found = self.net.process(np.ascontiguousarray(image)).detections or []
        if not found:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0))
        scores = np.clip([one.score[0] for one in found], 0, 1)
        size = np.array(image.shape[1::-1])
        marks = (
            np.array([[(p.x, p.y) for p in one.location_data.relative_keypoints] for one in found])
            * size
            - 0.5
        )
        # MediaPipe has one point for the mouth, its center; the corners are estimated
        eyes, nose, mouth = marks[:, :2], marks[:, 2:3], marks[:, 3:4]
        half = (eyes[:, 1:] - eyes[:, :1]) * 0.4
        landmarks = np.concatenate([eyes, nose, mouth - half, mouth + half], 1)
        return Detections(from_landmarks(landmarks), scores)
