"""Predictions as a start for labeling by hand: photos -> files of CVAT, Label Studio and imglab.
Photos without a face come first, then the least confident."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facial_keypoints.defaults import DEFAULT_DETECTOR, DEFAULT_NET, MIN_CONFIDENCE
from facial_keypoints.paths import detector_names
from facial_keypoints.detector import Face, KeypointDetector
from facial_keypoints.command import bounded_number, nonempty_path, printable, run_command
from facial_keypoints.errors import DataError
from facial_keypoints.geometry import tight_box
from facial_keypoints.images import read_image
from facial_keypoints.layouts import Layout, convert_points, load_layout
from facial_keypoints.predict_files import list_photos
from research.networks.on_demand import use_checkpoints_for
from research.data.label_files import FILES, LabeledPhoto, refuse_label_files, write_label_files


def in_layout(face: Face, layout: Layout) -> Face:
    """A face with its keypoints in another layout; points that cannot be derived are nan."""
    if face.layout == layout:
        return face
    points = convert_points(face.points, face.layout, layout)
    return replace(
        face,
        points=points,
        point_confidence=None,
        point_visibility=None,
        layout=layout,
        box=tight_box(points) if np.isfinite(points).any() else face.box,
    )


def prelabel(
    photos: Iterable[tuple[str, Path]],
    detector: KeypointDetector,
    layout: str | Layout | None = None,
    bar: bool = False,
) -> tuple[list[LabeledPhoto], list[str]]:
    """Faces of photos (name, path) in a layout, the network's by default -> the photos, those that
    need correction most first, and a message for each that could not be read.

    Photos without a face come first, then those with the least confident face.
    """
    layout = load_layout(layout or detector.model.layout)
    done, failures = [], []
    for name, path in tqdm(list(photos), unit="photo", disable=not bar):
        try:
            image = read_image(path)
            faces = [in_layout(face, layout) for face in detector(image)]
        except DataError as error:
            failures.append(str(error))
            continue
        done.append(LabeledPhoto(name, image.shape[:2], faces))
    done.sort(key=lambda photo: min((face.confidence for face in photo.faces), default=-1))
    return done, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=nonempty_path, metavar="PHOTO|FOLDER")
    parser.add_argument(
        "--out",
        type=nonempty_path,
        required=True,
        metavar="FOLDER",
        help=f"where {', '.join(FILES)} are written",
    )
    parser.add_argument(
        "--net",
        default=DEFAULT_NET,
        help="a network, a checkpoint or an .onnx file (default: %(default)s)",
    )
    parser.add_argument(
        "--layout",
        help="layout of the labels: a name or a .toml file; keypoints that the "
        "network does not give are left out (default: the network's)",
    )
    parser.add_argument(
        "--detector",
        default=DEFAULT_DETECTOR,
        choices=detector_names(),
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--min-confidence",
        type=bounded_number(float, 0, 1),
        default=MIN_CONFIDENCE,
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace label files that are in --out"
    )
    options = parser.parse_args()
    refuse_label_files(options.out, options.overwrite)
    use_checkpoints_for(options.net)
    detector = KeypointDetector(options.net, options.detector, "cpu", options.min_confidence)
    layout = load_layout(options.layout or detector.model.layout)
    done, failures = prelabel(list_photos(options.photos), detector, layout, sys.stderr.isatty())
    if not done:
        raise DataError("no photo could be read: " + failures[0])
    paths = write_label_files(options.out, done, layout)
    without = sum(not photo.faces for photo in done)
    print(
        f"{sum(len(photo.faces) for photo in done)} faces in {len(done)} photos; the "
        f"{without} without a face come first; written: {', '.join(map(str, paths))}"
    )
    for message in failures:
        print(f"failed: {printable(message)}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    run_command(main)
