"""Openness of eyes and mouth, against labels of people: the constants of
`facial_keypoints.openness`, and how well it separates closed eyes from open ones."""

import argparse

import numpy as np

from evaluate import POSE_GROUPS
from facial_keypoints.command import run_command
from facial_keypoints.openness import HIDDEN_EYE, LEFT_EYE, LIPS, RIGHT_EYE, eyes_open, gaps
from research.data.frames import Frames
from research.datasets import SPLIT_PARTS, load_frames, split_frames
from research.evaluation.metrics import ranking_auc
from research.evaluation.prediction import predict_frames, visibility_of
from research.networks.registry import find_weights, load_checkpoint

# what a label says: height of an eye or of the gap between the lips / its width
CLOSED_LABEL, OPEN_LABEL, SHUT_LIPS = 0.1, 0.2, 0.03


def aspect(points: np.ndarray, corners: tuple[int, int], pairs: tuple) -> np.ndarray:
    """Height / width (n,) of an eye or of the inner lips of labels (n, 68, 2)."""
    above, below = np.transpose(pairs)
    height = np.linalg.norm(points[:, above] - points[:, below], axis=-1).mean(-1)
    return height / np.linalg.norm(points[:, corners[0]] - points[:, corners[1]], axis=-1)


def visible(frames: Frames, rows: range) -> np.ndarray:
    """Mask (n,) of the faces whose points `rows` are all visible."""
    return (frames.visible[:, list(rows)] == 1).all(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="?", default="models7", help="(default: %(default)s)")
    parser.add_argument(
        "--data", default="data/merlrav.zip", help="labeled by people (default: %(default)s)"
    )
    parser.add_argument(
        "--part", default="training", choices=SPLIT_PARTS, help="(default: %(default)s)"
    )
    options = parser.parse_args()
    frames = split_frames(load_frames(options.data), "official", options.part)
    net, _ = load_checkpoint(find_weights(options.net))
    points = predict_frames(net, frames, bar=True)

    labels = np.stack(
        [
            aspect(frames.points, (36, 39), RIGHT_EYE),
            aspect(frames.points, (42, 45), LEFT_EYE),
        ],
        1,
    )
    seen = np.stack([visible(frames, range(36, 42)), visible(frames, range(42, 48))], 1)
    closed, opened = seen & (labels < CLOSED_LABEL), seen & (labels > OPEN_LABEL)
    lids = gaps(points, (RIGHT_EYE, LEFT_EYE))
    print(
        f"{options.net} on {len(frames)} faces, {options.part}: "
        f"EYE_SHUT, EYE_OPEN = {np.median(lids[closed]):.3f}, {np.median(lids[opened]):.3f}"
    )
    shut = visible(frames, range(60, 68)) & (aspect(frames.points, (60, 64), LIPS) < SHUT_LIPS)
    print(f"MOUTH_SHUT = {np.median(gaps(points, (LIPS,))[shut]):.3f}, {shut.sum()} mouths\n")

    visibility = visibility_of(net, frames)[:, 36:48].reshape(-1, 2, 6).mean(2)
    labeled = frames.visible[:, 36:48].reshape(-1, 2, 6)
    for eyes, text in ((labeled.min(2) == 1, "visible"), (labeled.max(2) == 0, "hidden")):
        print(
            f"{100 * (visibility[eyes] < HIDDEN_EYE).mean():.2f} % of {eyes.sum()} {text} eyes "
            "have a visibility below HIDDEN_EYE"
        )
    print()

    values = eyes_open(points)
    print(
        "| eyes | closed | open | median of closed | of open | closed below 0.5 % | "
        "open above 0.5 % | AUC |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for group, names in POSE_GROUPS.items():
        here = np.isin(frames.pose.astype(str), names)[:, None]
        low, high = values[closed & here], values[opened & here]
        auc = ranking_auc(-np.concatenate([low, high]), np.arange(len(low) + len(high)) < len(low))
        print(
            f"| {group} | {len(low)} | {len(high)} | {np.median(low):.2f} | {np.median(high):.2f} "
            f"| {100 * (low < 0.5).mean():.0f} | {100 * (high > 0.5).mean():.0f} | {auc:.3f} |"
        )


if __name__ == "__main__":
    run_command(main)
