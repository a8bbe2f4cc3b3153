"""Calibration of `Face.point_spread`: how many labeled points lie within one and two spreads of the
predicted ones."""

import argparse

import numpy as np
import torch

from facial_keypoints.command import run_command
from facial_keypoints.geometry import to_targets
from research.datasets import add_part_flags, frames_of
from research.evaluation.prediction import crop_batches
from research.networks.contract import input_size
from research.networks.registry import find_weights, load_checkpoint, predict_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="+", metavar="NAME")
    add_part_flags(parser, "data/merlrav.zip", "official")
    options = parser.parse_args()
    frames = frames_of(options)
    print(f"{frames.data}, {options.part}: {len(frames)} faces; each coordinate by itself")
    print("| network | within one spread % | within two % | median error / spread |")
    print("| --- | ---: | ---: | ---: |")
    for name in options.nets:
        net, _ = load_checkpoint(find_weights(name))
        side, row, ratios = input_size(net), 0, []
        for crops, matrices in crop_batches(net, frames):
            targets, _, _, spread = predict_all(net, crops)
            true = to_targets(frames.points[row : row + len(crops)], matrices, side)
            ratios.append((targets - torch.from_numpy(true)).abs() / spread)
            row += len(crops)
        ratio = torch.cat(ratios).numpy()
        ratio = ratio[np.isfinite(ratio)]
        within = [100 * (ratio < limit).mean() for limit in (1, 2)]
        print(f"| {name} | {within[0]:.0f} | {within[1]:.0f} | {np.median(ratio):.2f} |")


if __name__ == "__main__":
    run_command(main)
