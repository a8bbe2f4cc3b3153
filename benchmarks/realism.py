"""How similar synthetic faces are to real ones: what a cascade finds, and how networks transfer
between synthetic and official frames."""

import argparse

import numpy as np

from evaluate import score
from facial_keypoints.command import bounded_number, run_command
from research.datasets import load_frames, split_frames
from research.networks.registry import find_weights
from detector_architectures.haar import Detector


def found_by_haar(frames):
    """Share in % of frames in which the cascade (scaleFactor 1.1, minNeighbors 5) has a box around
    the face's center."""
    detector = Detector(scale_factor=1.1, min_neighbors=5, portraits=False)
    hits = 0
    for row in range(len(frames)):
        boxes, *_ = detector.detect(frames.image(row))
        center = frames.points[row].mean(0)
        hits += bool(
            ((boxes[:, :2] < center) & (center < boxes[:, :2] + boxes[:, 2:])).all(1).any()
        )
    return 100 * hits / len(frames)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--on-official",
        default="models4",
        metavar="CHECKPOINT",
        help="network trained on official frames (default: %(default)s)",
    )
    parser.add_argument(
        "--on-drawn", metavar="CHECKPOINT", help="network trained only on synthetic frames"
    )
    parser.add_argument(
        "--frames",
        type=bounded_number(int, 1),
        metavar="N",
        help="use at most N synthetic frames (default: all)",
    )
    options = parser.parse_args()
    sample = load_frames("sample")
    drawn = split_frames(sample, "official", "test")
    if options.frames:
        sample, drawn = (
            frames.select(np.arange(min(options.frames, len(frames)))) for frames in (sample, drawn)
        )
    print(f"Haar finds {found_by_haar(sample):.1f} % of the synthetic faces")
    official = split_frames(load_frames("official", "published"), "official", "test")
    if options.on_drawn:
        nme = score(find_weights(options.on_drawn), official)[0]["nme"]
        print(
            "trained on synthetic faces alone, NME on official test frames, published labels: "
            f"{nme:.2f} %"
        )
    path = find_weights(options.on_official)
    a, b = score(path, official)[0]["nme"], score(path, drawn)[0]["nme"]
    print(
        f"trained on official frames, NME on official test frames {a:.2f} %, on synthetic ones "
        f"{b:.2f} %: "
        f"difference {np.abs(a - b):.2f}"
    )


if __name__ == "__main__":
    run_command(main)
