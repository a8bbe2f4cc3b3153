"""Fit the map from our keypoints to the label convention of 300-W. The points of dlib, which was
trained on 300-W, stand for this convention."""

if __name__ == "__main__":
    from research import startup  # noqa: F401 - before the packages

import argparse
import math

import numpy as np

from evaluate import predict_frames
from facial_keypoints.errors import run_command
from facial_keypoints.files import atomic_write
from facial_keypoints.geometry import (
    CONVENTION_FILE, ConventionMap, convention_map, deviations, in_convention_of_300w, mirrored,
    rolled, shapes_of,
)
from research.datasets import load_frames, split_frames
from research.dlib_labels import found_faces, predict_by_dlib
from research.metrics import face_errors, point_errors
from research.networks import find_weights, load_checkpoint

NETS = ("models5", "models6")  # whose predictions are mapped
MODES = 20  # principal components; with more, the map came no nearer to dlib on validation people
KEPT = 0.8  # share of the faces that the map is fitted to


def fit_convention(points: np.ndarray, others: np.ndarray) -> ConventionMap:
    """Keypoints (n, 68, 2) of our networks, and `others` (n, 68, 2) of a predictor that was trained
    on 300-W, on the same faces -> the map from the former to the latter, with MODES principal
    components of our shapes.

    Linear least squares on faces and their mirror images, so that the map is symmetric. The
    share 1 - KEPT of the faces whose movements are farthest from the median is left out: there, the
    other predictor probably did not find the face.
    """
    shapes, sizes, angles = shapes_of(points)
    movements = rolled((others - points) / sizes, -angles)
    kept = found_faces(movements, KEPT)
    shapes, movements = (np.concatenate([one[kept], mirrored(one[kept])])
                         for one in (shapes, movements))
    mean = shapes.mean(0)
    _, values, modes = np.linalg.svd((shapes - mean).reshape(len(shapes), -1), full_matrices=False)
    modes = modes[:MODES] / (values[:MODES, None] / math.sqrt(len(shapes)))
    away = deviations(shapes, mean, modes)
    fit = np.linalg.lstsq(np.column_stack([np.ones(len(away)), away]),
                          movements.reshape(len(away), -1))[0]
    return ConventionMap(mean, fit[0].reshape(mean.shape), modes, fit[1:])


def write_convention(convention: ConventionMap) -> None:
    """Write the map where `convention_map` reads it."""
    rows = np.vstack([convention.mean.reshape(1, -1), convention.offset.reshape(1, -1),
                      convention.modes, convention.responses])
    header = ",".join(f"{axis}{i}" for i in range(len(convention.mean)) for axis in "xy")
    lines = [",".join(f"{value:.5g}" for value in row) for row in rows]
    atomic_write(CONVENTION_FILE, "\n".join([header, *lines, ""]))
    convention_map.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the map from our keypoints to the convention "
                                                 "of 300-W, on training people of the person "
                                                 "split, and test it on validation people.")
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    everything = load_frames(parser.parse_args().data)
    nets = [load_checkpoint(find_weights(f"{name}-person"))[0] for name in NETS]
    pairs = {}
    for part in ("training", "validation"):
        frames = split_frames(everything, "person", part)
        others = predict_by_dlib(frames)
        pairs[part] = (np.concatenate([predict_frames(net, frames) for net in nets]),
                       np.concatenate([others] * len(nets)))
    write_convention(fit_convention(*pairs["training"]))
    points, others = pairs["validation"]
    shapes, sizes, angles = shapes_of(points)
    constant = rolled(np.broadcast_to(convention_map().offset, shapes.shape), angles)
    away = [np.median(face_errors(point_errors(others, moved))) for moved in (
        points, points + sizes * constant, in_convention_of_300w(points))]
    print(f"written: {CONVENTION_FILE.name}. Median distance from dlib's points on "
          f"{len(points) // len(nets)} frames of validation people, in % of the inter-ocular "
          f"distance: {away[0]:.2f} as predicted, {away[1]:.2f} with the same movement for all "
          f"faces, {away[2]:.2f} with the map")


if __name__ == "__main__":
    run_command(main)
