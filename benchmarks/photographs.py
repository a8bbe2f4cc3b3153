"""Errors on photographs that people labeled (MERL-RAV): of our networks, dlib and MediaPipe."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.peers import (
    dlib_on_boxes,
    dlib_weights,
    landmarker_predictor,
    own_predictor,
)
from research.evaluation.prediction import check_leakage, predict_frames, visibility_of
from evaluate import POSE_GROUPS, visibility_metrics
from facial_keypoints.command import run_command
from facial_keypoints.model import exported_file
from facial_keypoints.files import atomic_write, csv_text
from research.datasets import SPLIT_PARTS, load_frames, split_frames
from research.data.frames import Frames
from research.evaluation.metrics import summarize
from research.networks.terms import SHORT_TERMS, terms_of
from research.networks.registry import find_weights, load_checkpoint, parameter_count
from facial_keypoints.files import csv_rows
from facial_keypoints.paths import PHOTOGRAPHS
from research.evaluation.results import PHOTOGRAPH_COLUMNS, photograph_table, replace_rows

# what their authors allow: dlib's weights learned from 300-W, whose terms exclude products
PEERS = {"dlib": "research", "mediapipe": "anything (Apache 2.0)"}
TIMED = 200  # faces, after as many that warm up


def predict_by(predict: Callable, frames: Frames) -> np.ndarray:
    """Points (n, 68, 2) of a predictor of `peers` in the tight boxes of the labels; nan where it
    finds no face."""
    points = []
    for row, box in enumerate(tqdm(frames.boxes(), desc="predicting", unit="face", leave=False)):
        gray = cv2.cvtColor(frames.image(row), cv2.COLOR_RGB2GRAY)
        points.append(np.asarray(predict([gray], box[None])[0], np.float32))
    return np.stack(points)


def cost(predict: Callable, frames: Frames, weights: str | Path) -> dict:
    """Megabytes of weights, and the median of milliseconds for a face, crop included, on one
    thread of a loaded image."""
    times, boxes = [], frames.boxes()
    cv2.setNumThreads(1)
    for row in range(min(2 * TIMED, len(frames))):
        gray = cv2.cvtColor(frames.image(row), cv2.COLOR_RGB2GRAY)
        start = time.perf_counter()
        predict([gray], boxes[row][None])
        times.append(time.perf_counter() - start)
    return {
        "megabytes": round(Path(weights).stat().st_size / 1e6, 2),
        "milliseconds": round(1000 * float(np.median(times[len(times) // 2 :])), 2),
    }


def figures(name: str, points: np.ndarray, visibility: np.ndarray, frames: Frames) -> dict:
    """A row of PHOTOGRAPHS of predictions (n, 68, 2) and visibility (n, 68). Faces that were not
    found (nan) are left out, and `found` is the share of the others in %."""
    found = np.isfinite(points).all((1, 2))
    points, visibility, frames = points[found], visibility[found], frames.select(found)
    metrics = visibility_metrics(points, visibility, frames)
    # faces without self-occluded points: there the distance of the eyes is a fair unit
    whole = np.isfinite(frames.points).all((1, 2))
    usual = summarize(points[whole], frames.points[whole], frames.people[whole])
    poses = metrics["poses"]
    _, nme_box, auc7, visible, occluded = poses["all"]
    row = {
        "weights": name,
        "faces": len(found),
        "found": 100 * found.mean(),
        "nme_box": nme_box,
        "auc7": auc7,
        "visible": visible,
        "occluded": occluded,
        "nme": usual["nme"],
        "debiased": usual["nme_debiased"],
        "eye_slope": usual["measures"]["eye opening"][0],
        "lip_slope": usual["measures"]["upper lip"][0],
        "mouth_slope": usual["measures"]["mouth width"][0],
        "auc_self_occluded": metrics["visibility_auc"][0],
        "auc_occluded": metrics["visibility_auc"][1],
    }
    row |= {
        group.replace(" ", "_"): poses[group][1] if group in poses else float("nan")
        for group in POSE_GROUPS
    }
    return {
        key: round(float(value), 3) if isinstance(value, float) else value
        for key, value in row.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "predictors", nargs="+", metavar="NAME", help=f"networks, or {' or '.join(PEERS)}"
    )
    parser.add_argument(
        "--data",
        default="data/merlrav.zip",
        help="built by python -m research.data.merlrav (default: %(default)s)",
    )
    parser.add_argument(
        "--part", default="validation", choices=SPLIT_PARTS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--landmarker",
        default="face_landmarker.task",
        metavar="FILE",
        help="weights of MediaPipe's Face Landmarker (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="store the rows in saved_models/photographs.csv, which the model "
        "cards and docs/results.md show",
    )
    options = parser.parse_args()
    frames = split_frames(load_frames(options.data), "official", options.part)
    peers = {"dlib": dlib_on_boxes, "mediapipe": partial(landmarker_predictor, options.landmarker)}
    files = {"dlib": dlib_weights, "mediapipe": lambda: options.landmarker}
    rows = []
    for name in options.predictors:
        more: dict = {"part": options.part, "use": PEERS.get(name, "")}
        if name in PEERS:
            predict = peers[name]()
            points = predict_by(predict, frames)
            more |= cost(predict, frames, files[name]())
            visibility = np.full(points.shape[:2], np.nan)
        else:
            net, content = load_checkpoint(find_weights(name))
            check_leakage(content, frames, name)
            points = predict_frames(net, frames, bar=True)
            visibility = visibility_of(net, frames)
            more["parameters"] = parameter_count(net)
            more["use"] = SHORT_TERMS[terms_of(content["data"])]
            if exported_file(name):
                predict, path = own_predictor(name)
                more |= cost(predict, frames, path)
        rows.append(figures(name, points, visibility, frames) | more)
    print(photograph_table(rows))
    if options.keep:
        before = csv_rows(PHOTOGRAPHS, optional=True)
        rows = replace_rows(before, rows, "weights", "part")
        atomic_write(PHOTOGRAPHS, csv_text(PHOTOGRAPH_COLUMNS, rows))


if __name__ == "__main__":
    run_command(main)
