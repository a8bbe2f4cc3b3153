"""Time and error of exported models as they are shipped and with 8-bit integers (`models.py export
--int8`), on faces that people labeled."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from facial_keypoints import KeypointDetector
from facial_keypoints.command import run_command
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box, to_points
from facial_keypoints.images import to_gray
from facial_keypoints.paths import SAVED_MODELS
from research.datasets import add_part_flags, frames_of
from research.evaluation.metrics import box_errors, face_errors
from research.networks.export import export_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="+", metavar="NAME")
    add_part_flags(parser, "data/merlrav.zip", "official")
    options = parser.parse_args()
    frames = frames_of(options)
    boxes = tight_box(frames.points)
    print(
        f"{frames.data}, {options.part}: {len(frames)} faces; one thread; median ms of the network"
    )
    print("| model | MB | ms | NME_box % | mean confidence |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.nets:
            small = Path(scratch) / f"{name}-int8.onnx"
            export_checkpoint(name, small, int8=True)
            for path in (SAVED_MODELS / f"{name}.onnx", small):
                model, times, points, sure = KeypointDetector(path).model, [], [], []
                for row, box in enumerate(boxes):
                    matrix = crop_matrix(box, model.side)
                    crop = crop_image(to_gray(frames.image(row)), matrix, model.side)
                    images = crop[None, None].astype(np.float32) / 255
                    start = time.perf_counter()
                    found = model(images)
                    times.append(time.perf_counter() - start)
                    points.append(to_points(found.targets, matrix[None], model.side)[0])
                    sure.append(found.confidence.mean())
                errors = face_errors(box_errors(np.stack(points), frames.points))
                print(
                    f"| {path.stem} | {path.stat().st_size / 1e6:.1f} "
                    f"| {1000 * np.median(times):.2f} | {np.mean(errors):.2f} "
                    f"| {np.mean(sure):.3f} |"
                )


if __name__ == "__main__":
    run_command(main)
