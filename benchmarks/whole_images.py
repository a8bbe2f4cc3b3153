"""Faces that the whole pipeline finds, and its false positives, on photos with known faces and on
photos without faces."""

import argparse
import csv
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from research.evaluation.prediction import check_leakage
from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.detector import MIN_CONFIDENCE, KeypointDetector
from facial_keypoints.detectors import detector_names
from facial_keypoints.command import run_command
from facial_keypoints.geometry import overlap, tight_box
from facial_keypoints.images import read_image
from facial_keypoints.predict_files import list_photos
from research.networks.export import use_checkpoints
from research.networks.registry import find_weights
from research.networks.checkpoints import read_checkpoint
from research.datasets import SPLITS, load_frames, split_frames
from research.evaluation.metrics import point_errors
from research.synthetic.faces import draw_scene


def holds(points, box):
    """True if the center of keypoints (68, 2) lies in a box (4,), and their sizes differ by a
    factor of less than 3. A tolerant criterion, because annotated boxes are not tight."""
    tight = tight_box(points)
    center = tight[:2] + tight[2:] / 2
    return (
        (box[:2] < center).all()
        and (center < box[:2] + box[2:]).all()
        and 1 / 3 < tight[2:].max() / box[2:].max() < 3
    )


def on_photos(detector, folder):
    """Lines of text about a folder: first for the photos in its boxes.csv (name, left, top, width,
    height), then the number of faces in all other photos, by folder."""
    truth = defaultdict(list)
    with open(folder / "boxes.csv", newline="") as file:
        for row in csv.DictReader(file):
            truth[row["name"]].append(
                np.array([float(row[k]) for k in ("left", "top", "width", "height")])
            )
    known, others = np.zeros(3, int), defaultdict(int)
    for name, path in tqdm(
        list_photos([folder]), unit="photo", leave=False, disable=not sys.stderr.isatty()
    ):
        faces = detector(read_image(path))
        if name in truth:
            found = sum(any(holds(face.points, box) for face in faces) for box in truth[name])
            false = sum(not any(holds(face.points, box) for box in truth[name]) for face in faces)
            known += [len(truth[name]), found, false]
        else:
            others[Path(name).parent.as_posix() if "/" in name else name] += len(faces)
    return [
        f"{known[1]} of {known[0]} faces with boxes found, {known[2]} false",
        *(f"{name}: {count} faces" for name, count in others.items()),
    ]


def on_frames(detector, frames):
    """Run the pipeline on annotated frames -> NME in % (n,), names of false positives,
    milliseconds (n,).

    The NME is nan where no face has a tight box with an IoU of at least 0.5. A face with an IoU
    below 0.3 is a false positive; the name of its frame is listed.
    """
    errors, other, times = [], [], []
    for index in tqdm(
        range(len(frames)), unit="frame", leave=False, disable=not sys.stderr.isatty()
    ):
        image = frames.image(index)
        start = time.perf_counter()
        faces = detector(image)
        times.append(1000 * (time.perf_counter() - start))
        shares = overlap(
            np.array([tight_box(face.points) for face in faces]).reshape(-1, 4),
            tight_box(frames.points[index]),
        )
        best = int(shares.argmax()) if len(faces) else -1
        errors.append(
            np.nan
            if best < 0 or shares[best] < 0.5
            else np.nanmean(point_errors(faces[best].points[None], frames.points[index][None]))
        )
        other += [frames.names[index]] * int((shares < 0.3).sum())
    return np.array(errors), other, np.array(times)


def under_moved_boxes(detector, frames, each=6, away=0.2, scale=1.25):
    """How far points move, in % of the inter-ocular distance (m,), if boxes are moved by `away` of
    their longer side and scaled by a factor of 1/`scale` to `scale`."""
    rng, moved = np.random.default_rng(0), []
    for index in range(0, len(frames), 8):
        image, box = frames.image(index), tight_box(frames.points[index])
        kept = detector.predict_boxes(image, box[None])[0].points
        for angle, zoom in zip(
            rng.uniform(0, 2 * np.pi, each), scale ** rng.uniform(-1, 1, each), strict=True
        ):
            center = (
                box[:2]
                + box[2:] / 2
                + away * box[2:].max() * np.array([np.cos(angle), np.sin(angle)])
            )
            other = np.concatenate([center - box[2:] * zoom / 2, box[2:] * zoom])
            moved.append(
                point_errors(
                    detector.predict_boxes(image, other[None])[0].points[None], kept[None]
                ).mean()
            )
    return np.array(moved)


def on_a_large_photo(detector, calls=5):
    """Number of faces found in a synthetic scene with 8 faces and 12 megapixels, and the median
    time of a call in milliseconds."""
    crowd = cv2.resize(
        draw_scene(5, faces=8, width=1000, height=750)[0],
        (4000, 3000),
        interpolation=cv2.INTER_CUBIC,
    )
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        found = detector(crowd)
        times.append(1000 * (time.perf_counter() - start))
    return len(found), np.median(times)


def listed(names, most=20):
    """Names in one line, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_options() -> argparse.Namespace:
    """The options of the command."""
    use_checkpoints()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", type=Path, help="folders with boxes.csv")
    parser.add_argument(
        "--data", help="also measure annotated frames: sample, official, or a folder or zip"
    )
    parser.add_argument(
        "--split", default="official", choices=SPLITS, help="(default: %(default)s)"
    )
    parser.add_argument("--part", default="validation", help="(default: %(default)s)")
    parser.add_argument("--net", default=DEFAULT_NET, help="(default: %(default)s)")
    parser.add_argument("--detector", nargs="+", default=["haar"], choices=detector_names())
    parser.add_argument(
        "--min-confidence", type=float, default=MIN_CONFIDENCE, help="(default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--tilted", action="store_true")
    parser.add_argument(
        "--allow-leak",
        action="store_true",
        help="measure on frames that the network was trained on",
    )
    return parser.parse_args()


def main():
    options = read_options()
    cv2.setNumThreads(options.threads)
    # limit the process to so many cores, even if libraries start more threads
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    for name in options.detector:
        detector = KeypointDetector(
            options.net,
            name,
            "cpu",
            options.min_confidence,
            threads=options.threads,
            tilted=options.tilted,
        )
        print(
            f"{name}, {options.net} by {detector.model.runtime}, confidence at least "
            f"{options.min_confidence:g}, "
            f"{options.threads} thread(s)"
        )
        print(
            "  12 megapixels: {} of 8 synthetic faces found, {:.0f} ms".format(
                *on_a_large_photo(detector)
            )
        )
        for folder in options.photos:
            print("\n".join("  " + line for line in on_photos(detector, folder)))
        if options.data:
            frames = split_frames(load_frames(options.data), options.split, options.part)
            if not options.allow_leak:
                check_leakage(read_checkpoint(find_weights(options.net)), frames, options.net)
            errors, other, times = on_frames(detector, frames)
            found = ~np.isnan(errors)
            print(
                f"  {options.data}, {options.part}: {100 * found.mean():.1f} % of {len(frames)} "
                f"faces found, their NME {np.nanmean(errors):.2f} %, {len(other)} "
                f"false positives, {np.median(times):.1f} ms per image (90 % within "
                f"{np.percentile(times, 90):.1f})"
            )
            moved = under_moved_boxes(detector, frames)
            print(
                "  boxes moved by 20 % and scaled by 0.8 to 1.25 move points by "
                f"{np.median(moved):.2f} % (median; "
                f"90 % within {np.percentile(moved, 90):.2f})"
            )
            print(
                f"  not found: {listed(frames.names[~found])}\n  false positives: {listed(other)}"
            )


if __name__ == "__main__":
    run_command(main)
