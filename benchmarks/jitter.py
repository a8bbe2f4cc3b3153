"""Jitter and lag of tracked keypoints, measured on synthetic clips with sensor noise: one still,
one moving."""

import argparse
import time

import cv2
import matplotlib.cbook
import numpy as np

from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.detector import KeypointDetector
from facial_keypoints.command import run_command
from facial_keypoints.errors import DataError
from facial_keypoints.head import inter_ocular
from facial_keypoints.images import read_image
from facial_keypoints.tracking import Tracker
from research.networks.export import use_checkpoints
from research.evaluation.metrics import jitter, lag

RATE, SETTLED = 25, 30  # frames per second; number of frames until the filter has settled


def clip(photo, frames, noise, moving, seed=0):
    """Yield uint8 frames of a photo with sensor noise, and the shift (2,) of each in pixels: slow
    sines if `moving` is 1, no shift if 0. noise: standard deviation in gray levels."""
    rng, steps = np.random.default_rng(seed), np.arange(frames)
    places = np.stack([40 * np.sin(steps / 12), 20 * np.sin(steps / 9)], 1) * moving
    for place in places:
        matrix = np.column_stack([np.eye(2), place])
        moved = cv2.warpAffine(photo, matrix, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        yield np.clip(moved + rng.normal(0, noise, photo.shape), 0, 255).astype(np.uint8), place


def followed(detector, photo, frames, noise, moving, smooth):
    """Predictions (frames, 68, 2) and true shifts (frames, 2) in pixels, and the median time per
    frame in milliseconds."""
    tracker, predictions, places, times = Tracker(detector, smooth=smooth), [], [], []
    for number, (frame, place) in enumerate(clip(photo, frames, noise, moving)):
        start = time.perf_counter()
        predictions.append(tracker(frame, number / RATE)[0].points)
        times.append(1000 * (time.perf_counter() - start))
        places.append(place)
    return np.array(predictions), np.array(places), np.median(times)


def main():
    use_checkpoints()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default=DEFAULT_NET, help="(default: %(default)s)")
    options = parser.parse_args()
    photo = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    photo = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    detector = KeypointDetector(options.net)
    faces = detector(photo)
    if not faces:
        raise DataError(
            f"{options.net} finds no face in the photo of Grace Hopper; train the network longer"
        )
    start = faces[0].points
    unit = 100 / inter_ocular(start)
    print(
        f"{options.net}, a face with {inter_ocular(start):.0f} px between the outer eye corners, "
        f"{RATE} frames per second; "
        f"% of that distance\n{'noise':>6} {'jitter raw':>11} {'smoothed':>9} {'ratio':>11}"
        f"{'moving: error raw':>19} {'smoothed':>9} {'lag in frames':>15} {'ms / frame':>11}"
    )
    for noise in (3, 6, 12):
        still, moving = (
            [followed(detector, photo, frames, noise, moves, smooth) for smooth in (False, True)]
            for frames, moves in ((90, 0), (75, 1))
        )
        calm = [jitter(predictions[SETTLED:]) * unit for predictions, _, _ in still]
        errors = [
            unit * np.linalg.norm(predictions - start - places[:, None], axis=-1).mean()
            for predictions, places, _ in moving
        ]
        predictions, places, milliseconds = moving[1]
        print(
            f"{noise:>6} {calm[0]:>11.2f} {calm[1]:>9.2f} "
            f"{calm[0] / calm[1]:>11.1f}{errors[0]:>19.2f} {errors[1]:>9.2f} "
            f"{lag(predictions, start + places[:, None]):>15.2f} {milliseconds:>11.1f}"
        )


if __name__ == "__main__":
    run_command(main)
