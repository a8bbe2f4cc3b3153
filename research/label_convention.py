"""Where networks trained on 300-W put each point, against our labels: measured with dlib."""

if __name__ == "__main__":
    from research import startup  # noqa: F401 - before the packages

import argparse
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from tqdm.auto import tqdm

from facial_keypoints.errors import UsageError, run_command
from facial_keypoints.files import atomic_write
from facial_keypoints.geometry import (
    CONVENTION_FILE, convention_offsets, inter_ocular, roll_angle, rolled,
)
from facial_keypoints.layouts import load_layout
from research.datasets import load_frames, split_frames
from research.frames import Frames


def dlib_predictor() -> Callable[[np.ndarray, Sequence[float]], Any]:
    """dlib's regression trees (Kazemi and Sullivan, CVPR 2014), trained on 300-W, as a function of
    a gray image and a box (left, top, width, height). Raises ImportError if dlib or its weights are
    not installed."""
    import dlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import face_recognition_models
    predictor = dlib.shape_predictor(face_recognition_models.pose_predictor_model_location())
    return lambda gray, box: predictor(gray, dlib.rectangle(*(
        int(v) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))))


def predict_by_dlib(frames: Frames) -> np.ndarray:
    """dlib's points (n, 68, 2) at the tight boxes of the labels, made square as its detector gives
    them."""
    try:
        predict, found = dlib_predictor(), []
    except ImportError as error:
        raise UsageError(f"measuring the convention of 300-W requires packages ({error}): pip "
                         "install dlib-bin face_recognition_models") from None
    for row, box in enumerate(tqdm(frames.boxes(), desc="dlib", unit="frame", leave=False)):
        gray = cv2.cvtColor(frames.image(row), cv2.COLOR_RGB2GRAY)
        start = box[:2] + box[2:] / 2 - box[2:].max() / 2
        low, high = np.rint(start), np.rint(start + box[2:].max())
        found.append([(part.x, part.y) for part in predict(gray, [*low, *(high - low)]).parts()])
    return np.array(found, np.float32)


def measure_offsets(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Labels (n, 68, 2) and the points of other networks -> the median offset (68, 2) of the others
    from the labels, in inter-ocular distances, with the faces upright; symmetric in x."""
    offsets = rolled((others - labels) / inter_ocular(labels)[:, None, None], -roll_angle(labels))
    middle = np.median(offsets, axis=0)
    return (middle + middle[load_layout().flip_indices] * [-1, 1]) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the offset of points in the convention "
                                                 "of 300-W from those of our labels.")
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    frames = split_frames(load_frames(parser.parse_args().data), "person", "training")
    offsets = measure_offsets(frames.points, predict_by_dlib(frames))
    rows = [",".join(f"{value:.4f}" for value in row) for row in offsets]
    atomic_write(CONVENTION_FILE, "\n".join(["x,y", *rows, ""]))
    convention_offsets.cache_clear()
    print(f"written: {CONVENTION_FILE.name}, measured on {len(frames)} frames; the offset of a "
          f"point is {100 * np.linalg.norm(offsets, axis=1).mean():.1f} % of the inter-ocular "
          "distance on average")


if __name__ == "__main__":
    run_command(main)
