"""Audit of the labels of a data set: shift, quantization grid, lower bounds of the NME, doubtful
labels."""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from facial_keypoints.command import bounded_number, nonempty_path, run_command
from facial_keypoints.errors import UsageError
from facial_keypoints.files import atomic_open
from research.datasets import load_frames, split_frames
from research.labeling.label_audit import fit_shift, lower_bounds, quantization_grid, trusted
from research.data.label_shift import SHIFT_INTER_OCULAR, SHIFT_PIXELS
from research.evaluation.metrics import face_errors, point_errors
from research.labeling.shift import measure_shift
from research.networks.contract import checked_net
from train import TrainingConfig, train
from models import load_weights, net_class, read_checkpoint
from research.data.frames import Frames

# after research, which sets how PyTorch's threads wait
import torch

IMAGE_KINDS = (".png", ".jpg", ".pdf", ".svg")  # file formats of the gallery of doubtful labels


def train_small(
    frames: Frames, name: str, epochs: int, folder: str | Path, bar: bool = True
) -> torch.nn.Module:
    """A small network trained on frames for `labeling.shift.measure_shift`: models5 with half the
    channels, on crops of half the side. The run is written to `folder`/`name`.

    Crop jitter stays on in all epochs, because a crop centered exactly on the labels has the same
    shift as the labels. There are no drawn covers, which small networks do not learn so quickly.
    """
    config = TrainingConfig(
        "models5",
        epochs,
        batch_size=16,
        augment="strong-simple",
        schedule=((0.6, "medium-simple"),),
    )
    build = partial(net_class("models5"), len(frames.layout), side=64, widths=(32, 64), features=64)
    path, _ = train(config, frames, None, Path(folder) / name, build=build, bar=bar)
    net = checked_net(build(), "models5", frames.layout)
    load_weights(net, read_checkpoint(path)["state_dict"], path)
    return net


def read_options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        default="official",
        help="sample, official, or a folder or zip (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=bounded_number(int, 1),
        default=40,
        help="epochs of the two networks that measure the shift (default: %(default)s)",
    )
    parser.add_argument(
        "--shift",
        type=bounded_number(float, -100, 100),
        nargs=2,
        metavar=("PX", "SHARE"),
        help="first add a known shift to the labels in x and y, to test the measurement",
    )
    parser.add_argument(
        "--doubtful",
        type=nonempty_path,
        metavar="FILE",
        help="draw the most doubtful labels into this picture (.png, .jpg, .pdf or .svg)",
    )
    return parser.parse_args()


def print_shift(frames, offset, length, known, epochs):
    """Print the shift of the labels in x, and by the size of the faces. offset: (n, 2) in pixels;
    length: (n,) inter-ocular distances; known: (n,) mask of the faces that are used."""
    (constant, share), spread = fit_shift(offset[known, 0], length[known])
    print(
        f"{frames.data}: {len(frames)} training frames, two halves of the people, "
        f"{epochs} epochs under mirroring; "
        f"{100 * known.mean():.0f} % of the faces are predicted well enough to be used"
    )
    print(
        f"shift in x: {constant:.2f} ± {spread[0]:.2f} px + {100 * share:.2f} ± "
        f"{100 * spread[1]:.2f} % of the inter-ocular "
        f"distance (used for the official set: {SHIFT_PIXELS} px + "
        f"{100 * SHIFT_INTER_OCULAR:.2f} %)"
    )
    for group in np.array_split(np.flatnonzero(known)[np.argsort(length[known])], 4):
        x, y = offset[group].mean(0)
        print(
            f"  faces of {length[group].min():5.1f} to {length[group].max():5.1f} px: {x:+.2f} "
            f"px in x, {y:+.2f} in y "
            "(mirroring does not reveal a shift in y: the networks learn it)"
        )


def main():
    options = read_options()
    if options.doubtful and Path(options.doubtful).suffix.lower() not in IMAGE_KINDS:
        raise UsageError(
            f"--doubtful {options.doubtful}: the file's name ends in {', '.join(IMAGE_KINDS)}"
        )

    everything = load_frames(options.data, "published")
    frames = split_frames(everything, "official", "all-training")
    if options.shift:
        unit = frames.lengths()[:, None, None]
        frames.points = frames.points + (options.shift[0] + options.shift[1] * unit).astype(
            np.float32
        )
    with tempfile.TemporaryDirectory() as folder:
        fit = partial(train_small, epochs=options.epochs, folder=folder, bar=sys.stderr.isatty())
        offset, predictions = measure_shift(frames, fit)
    length = frames.lengths()
    known = trusted(frames, offset, predictions)
    print_shift(frames, offset, length, known, options.epochs)
    cells = quantization_grid(frames.complete(), frames.layout)
    pitch = np.median(cells[:, 0])
    print(
        f"grid: pitch {pitch:.2f} % of the inter-ocular distance "
        f"(median {np.median(cells[:, 0] * length) / 100:.2f} px), "
        f"strength {np.median(cells[:, 1]):.2f}; whole pixels: "
        f"{100 * np.mean(frames.points % 1 == 0):.0f} % of the numbers"
    )
    print(
        "lower bound of the NME: "
        + ", ".join(
            f"{name} {value:.2f} %"
            for name, value in lower_bounds(frames.complete(), pitch, layout=frames.layout).items()
        )
    )
    predictions = predictions + offset.mean(0)
    errors = face_errors(point_errors(predictions, frames.points, "layout", frames.layout))
    worst = np.argsort(-errors)[:20]
    print(
        "most doubtful: " + ", ".join(f"{frames.names[i]} ({errors[i]:.0f} %)" for i in worst[:5])
    )
    if options.doubtful:
        gallery(frames, predictions, worst, errors, options.doubtful)


def gallery(frames, predictions, rows, errors, path):
    """Draw the labels (green) and predictions (orange) of doubtful frames. Never commit the file:
    it shows real people.

    predictions: (n, 68, 2) in pixels; rows: up to 20 indices of frames; errors: NME (n,) in %, for
    the titles; path: of the file.
    """
    import matplotlib.pyplot as plt

    from research.reporting.plots import image_on, points_on

    figure, axes = plt.subplots(4, 5, figsize=(15, 12), layout="constrained")
    for axis, row in zip(axes.flat, rows, strict=False):
        image_on(axis, frames.image(row), f"{frames.names[row]} {errors[row]:.0f} %")
        points_on(axis, predictions[row], truth=frames.points[row], layout=frames.layout)
    with atomic_open(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:].lower())
    print(f"drawn: {path}")


if __name__ == "__main__":
    run_command(main)
