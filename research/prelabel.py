"""Predictions as a start for labeling by hand: photos -> files of CVAT, Label Studio and imglab,
the least confident first."""

import argparse
import sys
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from facial_keypoints.assets import DEFAULT_DETECTOR, DEFAULT_NET, MIN_CONFIDENCE, detector_names
from facial_keypoints.detector import Face, KeypointDetector
from facial_keypoints.errors import DataError, bounded_number, nonempty_path, run_command
from facial_keypoints.geometry import tight_box
from facial_keypoints.images import read_image
from facial_keypoints.layouts import Layout, convert_points, load_layout
from facial_keypoints.model import needs_pytorch
from facial_keypoints.predict_files import list_photos
from research.label_files import LabeledPhoto, write_label_files


def in_layout(face: Face, layout: Layout) -> Face:
    """A face with its keypoints in another layout; points that cannot be derived are nan."""
    if face.layout == layout:
        return face
    points = convert_points(face.points, face.layout, layout)
    return replace(face, points=points, point_confidence=None, layout=layout,
                   box=tight_box(points) if np.isfinite(points).any() else face.box)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=nonempty_path, metavar="PHOTO|FOLDER")
    parser.add_argument("--out", type=nonempty_path, required=True, metavar="FOLDER",
                        help="where coco.json, label_studio.json and imglab.xml are written")
    parser.add_argument("--net", default=DEFAULT_NET,
                        help="a network, a checkpoint or an .onnx file (default: %(default)s)")
    parser.add_argument("--layout",
                        help="of the labels, a name or a .toml file; keypoints that the network "
                             "does not give are left out (default: the network's)")
    parser.add_argument("--detector", default=DEFAULT_DETECTOR, choices=detector_names(),
                        help="(default: %(default)s)")
    parser.add_argument("--min-confidence", type=bounded_number(float, 0, 1),
                        default=MIN_CONFIDENCE, help="(default: %(default)s)")
    options = parser.parse_args()
    if needs_pytorch(options.net):
        import research.export  # noqa: F401 - enables loading of checkpoints
    detector = KeypointDetector(options.net, options.detector, "cpu", options.min_confidence)
    layout = load_layout(options.layout or detector.model.layout)
    done, failures = [], []
    for name, path in tqdm(list_photos(options.photos), unit="photo",
                           disable=not sys.stderr.isatty()):
        try:
            image = read_image(path)
            faces = [in_layout(face, layout) for face in detector(image)]
        except DataError as error:
            failures.append(str(error))
            continue
        done.append(LabeledPhoto(name, image.shape[:2], faces))
    if not done:
        raise DataError("no photo could be read: " + failures[0])
    # photos without a face need most work, then those with the least confident face
    done.sort(key=lambda photo: min((face.confidence for face in photo.faces), default=-1))
    paths = write_label_files(options.out, done, layout)
    without = sum(not photo.faces for photo in done)
    print(f"{sum(len(photo.faces) for photo in done)} faces in {len(done)} photos, of which "
          f"{without} without a face come first; written: {', '.join(map(str, paths))}")
    for message in failures:
        print(f"failed: {message}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    run_command(main)
