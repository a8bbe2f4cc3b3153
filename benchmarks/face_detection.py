"""Compare face detectors on annotated frames, also rolled, turned or occluded: the share of faces
found, false positives, time, and the constants (`fit`) that make their boxes tight."""

import argparse
import time

import cv2
import numpy as np

from benchmarks.confidence import logistic_regression
from benchmarks.robustness import ALL_CONDITIONS
from facial_keypoints.detectors import detector_names, load_detector, to_tight
from facial_keypoints.command import run_command
from facial_keypoints.geometry import overlap, relative_box
from facial_keypoints.head import level_boxes
from research.datasets import add_part_flags, frames_of


def frames_under(condition, frames):
    """Gray images of frames under a condition of benchmarks/robustness.py, and the boxes (n, 4) of
    their faces, tight once they are upright."""
    images, points = [], []
    for index in range(len(frames)):
        gray = cv2.cvtColor(frames.image(index), cv2.COLOR_RGB2GRAY)
        image, face, *_ = ALL_CONDITIONS[condition](
            gray, frames.points[index], np.random.default_rng((0, index))
        )
        images.append(image)
        points.append(face)
    return images, level_boxes(np.array(points), frames.layout)[0]


def run_over(detector, images):
    """Per image: the detector's boxes and scores, and the milliseconds they took."""
    predictions, times = [], []
    for image in images:
        start = time.perf_counter()
        predictions.append(detector.detect(image)[:2])
        times.append(1000 * (time.perf_counter() - start))
    return predictions, times


def fit(predictions, truth):
    """Rows (n, 4): center of the tight box relative to the center of the detector's box, and its
    width and height, as shares of the size of the detector's box.

    One row per frame in which exactly one box contains the center of the face.
    """
    rows = []
    for (boxes, _), box in zip(predictions, truth, strict=True):
        center = box[:2] + box[2:] / 2
        hits = [b for b in boxes if ((b[:2] < center) & (center < b[:2] + b[2:])).all()]
        if len(hits) == 1:
            rows.append(relative_box(hits[0], box))
    return np.array(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_part_flags(parser, "sample", "official", "training")
    parser.add_argument(
        "--detector",
        nargs="+",
        choices=detector_names(),
        default=[n for n in detector_names() if n.startswith(("haar", "pyramid"))],
    )
    parser.add_argument(
        "--under",
        nargs="+",
        default=["unchanged"],
        choices=ALL_CONDITIONS,
        metavar="CONDITION",
        help="of benchmarks/robustness.py",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="print each detector's fit and the evidence of its scores",
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    frames = frames_of(options)
    print(
        f"{options.data}, {options.split} split, {options.part}: {len(frames)} frames, one thread"
    )
    for condition in options.under:
        print(condition)
        report(options, *frames_under(condition, frames))


def report(options, images, truth):
    """Print a line for each detector, and its fit where that was asked for."""
    for name in options.detector:
        detector = load_detector(name)
        predictions, times = run_over(detector, images)
        overlaps = [
            overlap(to_tight(boxes, detector.fit), box)
            for (boxes, _), box in zip(predictions, truth, strict=True)
        ]
        found = np.mean([(o >= 0.5).any() for o in overlaps])
        false = sum((o < 0.3).sum() for o in overlaps)
        print(
            f"  {name:<13} found {100 * found:5.1f} %   false boxes "
            f"{100 * false / len(images):5.1f} in 100 frames   "
            f"{np.median(times):5.1f} ms"
        )
        if options.fit and hasattr(detector, "evidence"):
            rows = fit(predictions, truth)
            scores = np.concatenate([s for _, s in predictions])
            middle, spread = detector.evidence
            weights = middle - spread * np.log(1 / np.clip(scores, 1e-12, 1 - 1e-12) - 1)
            print(
                f"  fit = ({', '.join(f'{v:.3f}' for v in np.median(rows, 0))})   on {len(rows)} "
                "frames, standard deviation "
                f"({', '.join(f'{v:.3f}' for v in rows.std(0))})"
            )
            slope, rest = logistic_regression(weights, np.concatenate(overlaps) >= 0.3)
            # middle and scale of the logistic curve
            print(f"  evidence = ({-rest / slope:.2f}, {1 / slope:.2f})")


if __name__ == "__main__":
    run_command(main)
