"""Label audit: shift and quantization grid of labels, lower bounds of the NME, and the most
doubtful labels of a data set (the command)."""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.detector import Face, KeypointDetector
from facial_keypoints.command import bounded_number, nonempty_path, run_command
from facial_keypoints.errors import UsageError
from facial_keypoints.geometry import tight_box
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.model import Model, load_model
from research.networks.on_demand import use_checkpoints_for
from research.datasets import load_frames
from research.data.frames import Frames
from research.data.label_files import FILES, LabeledPhoto, refuse_label_files, write_label_files
from research.evaluation.metrics import face_errors, point_errors


def residual_shift(points: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Mean offset (n, 2) of labels from predictions over the labeled points of each face, in the
    same units."""
    return np.nanmean(points - predictions, axis=1)


def fit_shift(
    offset: np.ndarray, length: np.ndarray, draws: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Fit offsets (n,) in px by constant + share * inter-ocular distances (n,) in px -> (constant,
    share) and their standard errors (2,).

    Least squares on offset / length, so that large faces, whose errors are larger, do not dominate.
    The standard errors are from `draws` bootstrap samples.
    """
    design = np.column_stack([1 / length, np.ones_like(length)])
    target = offset / length
    rng, fits = np.random.default_rng(seed), []
    for draw in range(draws + 1):
        rows = np.arange(len(target)) if draw == 0 else rng.integers(0, len(target), len(target))
        fits.append(np.linalg.lstsq(design[rows], target[rows], rcond=None)[0])
    return fits[0], np.std(fits[1:], axis=0)


def periodogram(values: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Strength (k,) in 0…1 of a grid with each cell size `pitch` (k,) in numbers (m,): |mean of
    exp(2πi value / pitch)|."""
    return np.abs(np.exp(2j * np.pi * values[:, None] / pitch).mean(0))


def grid_pitch(
    values: np.ndarray, lowest: float = 1.5, highest: float = 9.0, steps: int = 400
) -> tuple[float, float]:
    """Pitch and strength of the grid that numbers (m,) lie on; strength 0: no grid, 1: all numbers
    are on the grid.

    The peak of the periodogram between pitches `lowest` and `highest`. Rounding to whole pixels has
    its peak at 1 px, below `lowest`.
    """
    pitch = np.geomspace(lowest, highest, steps)
    strength = periodogram(values, pitch)
    # numbers on a grid are also on the grid of half its pitch: take the largest pitch
    high = strength >= 0.9 * strength.max()
    last = np.flatnonzero(high)[-1]
    first = last - np.argmin(high[last::-1]) + 1 if not high[:last].all() else 0
    peak = first + strength[first : last + 1].argmax()
    return float(pitch[peak]), float(strength[peak])


def quantization_grid(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Rows (n, 2) for keypoints (n, k, 2) in pixels: pitch of each face's grid in % of the layout's
    normalization distance, and its strength. The axis, x or y, with the stronger grid is used."""
    rows, length = [], load_layout(layout).normalizer(points)
    for face, unit in zip(points, length, strict=True):
        best = max(
            (
                grid_pitch(face[:, axis], max(1.5, 0.03 * unit), max(3.0, 0.09 * unit))
                for axis in (0, 1)
            ),
            key=lambda row: row[1],
        )
        rows.append([100 * best[0] / unit, best[1]])
    return np.array(rows)


def quantize(
    points: np.ndarray,
    pitch_share: float,
    rng: np.random.Generator,
    layout: str | Layout = "ibug68",
) -> np.ndarray:
    """Round points (n, k, 2) to a randomly placed grid per face, like the arg-max of a heat map.
    The cell size is `pitch_share` % of the layout's normalization distance."""
    cell = pitch_share / 100 * load_layout(layout).normalizer(points)[:, None, None]
    start = rng.uniform(0, 1, (len(points), 1, 2)) * cell
    return np.round((points - start) / cell) * cell + start


def mean_error(points: np.ndarray, truth: np.ndarray, layout: str | Layout) -> float:
    """NME in % of points (n, k, 2) over the labeled points of all faces."""
    return float(face_errors(point_errors(points, truth, "layout", layout)).mean())


def lower_bounds(
    points: np.ndarray, pitch_share: float, seed: int = 0, layout: str | Layout = "ibug68"
) -> dict[str, float]:
    """NME in % of a perfect network on labels rounded to pixels, to cells, or to both."""
    rng = np.random.default_rng(seed)
    cell = pitch_share / 100 * load_layout(layout).normalizer(points)[:, None, None]
    truth = points + rng.uniform(-0.5, 0.5, points.shape) * np.maximum(cell, 1)
    cells = quantize(truth, pitch_share, rng, layout)
    return {
        "pixels": mean_error(np.round(truth), truth, layout),
        "cells": mean_error(cells, truth, layout),
        "both": mean_error(np.round(cells), truth, layout),
    }


def trusted(
    frames: Frames, offset: np.ndarray, predictions: np.ndarray, limit: float = 15
) -> np.ndarray:
    """Mask (n,) of the faces whose NME is at most `limit` % after the mean offset is removed; at
    least the better half of the faces."""
    errors = face_errors(
        point_errors(predictions + offset.mean(0), frames.points, "layout", frames.layout)
    )
    return errors <= max(limit, np.median(errors))


def doubtful_faces(frames: Frames, model: Model) -> list[tuple[float, int, Face]]:
    """The labels of frames, the most doubtful first: (error of the model in % of the normalization
    distance, row, the labeled Face). The model predicts in crops around its own predictions, as at
    inference. Raises UsageError if it predicts another layout."""
    if model.layout.keypoints != frames.layout.keypoints:
        raise UsageError(
            f"{model.path} predicts layout {model.layout.name}, but the labels of "
            f"{frames.data} are {frames.layout.name}"
        )
    detector, found = KeypointDetector(model, detector=None, min_confidence=0), []
    boxes, complete = frames.boxes(), frames.complete()
    for row in tqdm(range(len(frames)), unit="face", disable=not sys.stderr.isatty()):
        predicted = detector.predict_boxes(frames.image(row), boxes[row])[0]
        errors = point_errors(
            predicted.points[None], frames.points[row][None], "layout", frames.layout
        )
        face = Face(
            tight_box(complete[row]), frames.points[row], predicted.confidence, layout=frames.layout
        )
        found.append((float(face_errors(errors)[0]), row, face))
    return sorted(found, key=lambda one: -one[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Order the labels of a data set by doubt: how far the predictions of a network "
        "are from them. Use a network that was not trained on these labels; "
        "`benchmarks/label_quality.py` trains one on each half."
    )
    parser.add_argument("data", help="a folder, zip or file of labels, sample, or official")
    parser.add_argument(
        "--net",
        default=DEFAULT_NET,
        help="a network, a checkpoint or an .onnx file (default: %(default)s)",
    )
    parser.add_argument("--layout", help="keypoint layout: a name or a .toml file")
    parser.add_argument(
        "--most",
        type=bounded_number(int, 1),
        default=20,
        metavar="N",
        help="write the N most doubtful faces (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=nonempty_path,
        required=True,
        metavar="FOLDER",
        help=f"where {', '.join(FILES)} are written",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace label files that are in --out"
    )
    options = parser.parse_args()
    refuse_label_files(options.out, options.overwrite)
    use_checkpoints_for(options.net)
    model = load_model(options.net)
    frames = load_frames(options.data, layout=options.layout)
    labels = {Path(options.data).resolve(), frames.store.path.resolve()}
    if Path(options.out).resolve() in labels:
        raise UsageError(f"{options.out} holds the labels that are audited; give another --out")
    found = doubtful_faces(frames, model)[: options.most]
    photos: dict[str, LabeledPhoto] = {}
    for error, row, face in found:
        path = str(frames.paths[row])
        if path not in photos:
            photos[path] = LabeledPhoto(path, frames.image(row).shape[:2], [])
        photos[path].faces.append(face)
        print(f"{error:6.1f} %  {frames.names[row]}")
    paths = write_label_files(options.out, list(photos.values()), frames.layout)
    print(f"{len(found)} of {len(frames)} faces; written: {', '.join(map(str, paths))}")


if __name__ == "__main__":
    run_command(main)
