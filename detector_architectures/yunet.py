"""YuNet (Wu, Peng, Yu, MIR 2023) with OpenCV's FaceDetectorYN. This command downloads its weights
(227 kB): python -m detector_architectures.yunet"""

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np

from facial_keypoints.detectors import Detections, from_landmarks
from facial_keypoints.command import run_command
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write

WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
ADDRESSES = [
    f"https://{place}/models/face_detection_yunet/{WEIGHTS.name}"
    for place in (
        "media.githubusercontent.com/media/opencv/opencv_zoo/main",
        "github.com/opencv/opencv_zoo/raw/main",
    )
]
LONG_SIDE = 1280  # larger photos are searched on a copy of this size


def find_weights() -> Path:
    """The path of the ONNX file: the value of YUNET_ONNX, or the downloaded file. Raises DataError
    with the command to download it."""
    given = os.environ.get("YUNET_ONNX")
    path = Path(given) if given else WEIGHTS
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; download YuNet's weights: python -m {__name__}, "
            "or set YUNET_ONNX to their path"
        )
    return path


def check(path: Path, data: bytes) -> None:
    """Raise DataError if the sha256 of the file's bytes is not the expected one."""
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise DataError(
            f"{path}: sha256 {found[:12]}…, expected {SHA256[:12]}…: not YuNet's "
            "weights of March 2023; download them again: python -m "
            "detector_architectures.yunet, or set YUNET_ONNX to their path"
        )


class Detector:
    """`detect(image)`: uint8 RGB or gray -> tight boxes (n, 4) float32 in pixels, scores (n,) in
    0…1."""

    fit = (0.0, 0.0, 1.0, 1.0)  # the boxes are computed from five landmarks and are already tight

    def __init__(self, min_score: float = 0.5):
        path = find_weights()
        check(path, path.read_bytes())
        self.lock = threading.Lock()  # the input size is set before each search
        self.net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score, 0.3)

    def detect(self, image: np.ndarray) -> Detections:
        ratio = min(LONG_SIDE / max(image.shape[:2]), 1.0)
        size = [max(round(n * ratio), 1) for n in image.shape[1::-1]]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if ratio < 1 else image
        small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR)
        with self.lock:
            self.net.setInputSize(size)
            _, rows = self.net.detect(small)
        if rows is None:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0))
        boxes = from_landmarks(rows[:, 4:14].reshape(-1, 5, 2)) / np.float32(ratio)
        return Detections(boxes, rows[:, 14].clip(0, 1).astype(float))


def fetch(addresses: Sequence[str] = ADDRESSES, path: Path = WEIGHTS) -> None:
    """Fetch the weights from the first address that responds. Raises DataError."""
    reasons = []
    for address in addresses:
        try:
            with urlopen(address, timeout=60) as response:
                data = response.read(2_000_000)
        except (OSError, ValueError) as error:
            reasons.append(f"{address}: {error}")
            continue
        check(path, data)
        atomic_write(path, data)
        return
    raise DataError(
        f"YuNet's weights could not be downloaded ({'; '.join(reasons)}). Download them by "
        f"hand and save them as {path}."
    )


def main() -> None:
    fetch()
    print(f"fetched: {WEIGHTS}")


if __name__ == "__main__":
    run_command(main)
