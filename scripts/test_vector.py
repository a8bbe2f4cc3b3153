"""Writes examples/photo.pgm and examples/vector.json: one photo, one box, the crop and the points
that every port to another language must give."""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np

from facial_keypoints.command import run_command
from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.files import atomic_write
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box, to_points
from facial_keypoints.images import to_gray
from facial_keypoints.model import load_model
from research.synthetic.faces import draw_scene

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SEED, WIDTH, HEIGHT = 11, 240, 240


def vector() -> tuple[bytes, dict]:
    """The photo as a PGM file, and what a port must give."""
    photo, points = draw_scene(SEED, faces=1, width=WIDTH, height=HEIGHT)
    gray, model = to_gray(photo), load_model(DEFAULT_NET, runtime="onnx")
    box = np.rint(tight_box(points)[0]).tolist()
    matrix = crop_matrix(box, model.side, scale=model.layout.crop_scale)
    crop = crop_image(gray, matrix, model.side)
    found = model(crop[None, None].astype(np.float32) / 255)
    values = {
        "photo": "photo.pgm",
        "net": f"{DEFAULT_NET}.onnx",
        "box": box,
        "side": model.side,
        "crop_scale": model.layout.crop_scale,
        "matrix": matrix.round(9).tolist(),
        "crop_crc32": zlib.crc32(crop),
        "points": [
            [round(float(value), 3) for value in point]
            for point in to_points(found.targets, matrix[None], model.side)[0]
        ],
        "confidence": round(float(found.confidence.mean()), 4),
    }
    return b"P5 %d %d 255\n" % (WIDTH, HEIGHT) + gray.tobytes(), values


def lines(values: dict) -> str:
    """JSON with a value on each line."""
    rows = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    photo, values = vector()
    atomic_write(EXAMPLES / "photo.pgm", photo)
    atomic_write(EXAMPLES / "vector.json", lines(values))
    print("written: examples/photo.pgm, examples/vector.json")


if __name__ == "__main__":
    run_command(main)
