"""Variants of the details of models5 and models6: a longer training, and heat maps for more points
in both coordinates. Each is trained on the person split and measured on validation people."""

if __name__ == "__main__":
    from research import startup  # noqa: F401 - before the packages

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from evaluate import predict_frames
from facial_keypoints.errors import bounded_number, run_command
from models.models5 import Details
from research.checkpoints import load_weights, read_checkpoint, save_checkpoint
from research.datasets import load_frames, split_frames
from research.export import milliseconds_per_face
from research.face_detector import Separable
from research.frames import Frames
from research.labels import match_label_convention
from research.metrics import summarize
from research.networks import find_weights, load_checkpoint, net_class, parameter_count
from train import TrainingConfig, train


class HeatMapDetails(Details):
    """Details that correct both coordinates of all points but the jaw's, by heat maps.

    There is a patch for each eye with its eyebrow, of which the left one is mirrored, one for the
    mouth and one for the nose. Each point has a heat map, and its position is the mean of this map
    (Sun et al., ECCV 2018). Coordinates are relative to the mean of the points of a patch, along
    the axes of the face, in units of these (`Details.place`).

    channels: of the layers; more: points move by larger shares of the difference between patch and
    prediction
    """

    sides = ((*range(17, 22), *range(36, 42)), (*range(22, 27), *range(42, 48)))
    patches = (*sides, tuple(range(48, 68)), tuple(range(27, 36)))  # their keypoints
    in_order = (4, 3, 2, 1, 0, 8, 7, 6, 5, 10, 9)  # points of one side in the order of the other
    # rows of the parts, whose points move together, among the points of all patches
    ranges = ((0, 5), (5, 11), (11, 16), (16, 22), (22, 42), (42, 51))
    extent = ((0.48, 0.40), (-0.48, 0.40), (0.72, 0.48), (0.50, 0.50))  # half of each patch
    height, width, cell = 40, 48, 4  # of a patch and of a cell of the heat maps, in samples

    def __init__(self, channels=48, more=False):
        super().__init__()
        del self.trunk, self.eye, self.mouth
        # points move together with their part, apart from it to the side, and in height; the last
        # two: heights of the points of eyes, thickness of the upper lip
        self.moved = (0.5, 0.3, 0.5, 0.6, 0.7) if more else (0.3, 0.2, 0.3, 0.5, 0.6)
        self.maps = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            *(Separable(channels, channels, dilation=dilation) for dilation in (1, 2, 4, 1)),
            nn.Conv2d(channels, 11 + 20 + 9, 1))
        self.points = [point for patch in self.patches for point in patch]
        low, right = (self.steps(size // self.cell)[:, 1] for size in (self.height, self.width))
        self.register_buffer("cells", torch.cartesian_prod(low, right).flip(1), persistent=False)

    def place(self, points):
        """Targets (n, 68, 2) -> the centers of the patches (n, 4, 2) and the axes of the face."""
        centers = torch.stack([points[:, patch].mean(1) for patch in self.patches], 1)
        return centers, super().place(points)[1]

    def coordinates(self, points, centers, axes):
        """Coordinates (n, 51, 2) of points (n, 68, 2)."""
        away = torch.cat([points[:, patch] - centers[:, i, None]
                          for i, patch in enumerate(self.patches)], 1)
        return self.along(away, axes)

    def look(self, images, centers, axes):
        """Coordinates (n, 51, 2) of the points as the patches of the crops show them."""
        right, down = (self.steps(size)[:, 1:].to(centers) for size in (self.width, self.height))
        extent = torch.tensor(self.extent).to(centers)
        steps = extent[:, :, None] * axes[:, None]  # (n, 4, 2, 2)
        places = (centers[:, :, None, None] + right * steps[:, :, None, None, 0]
                  + (down * steps[:, :, None, 1])[:, :, :, None])  # (n, 4, height, width, 2)
        maps = self.maps(self.sample(images, places.flatten(1, 2))).flatten(2).softmax(-1)
        found = (maps @ self.cells).unflatten(0, (-1, 4)) * extent[:, None]
        return torch.cat([found[:, 0, :11], found[:, 1, self.in_order], found[:, 2, 11:31],
                          found[:, 3, 31:]], 1)

    def forward(self, images, points):
        """Crops and predicted points (n, 68, 2) -> corrected points (n, 68, 2)."""
        together, aside, height, eyes, lip = self.moved
        centers, axes = self.place(points)
        away = self.look(images, centers, axes) - self.coordinates(points, centers, axes)
        moves = []
        for rows, down in zip(self.ranges, (height, eyes, height, eyes, height, height),
                              strict=True):
            part = away[:, slice(*rows)]
            middle = part.mean(1, keepdim=True)
            moves.append(together * middle + (part - middle) * part.new_tensor([aside, down]))
        moves, order = torch.cat(moves, 1), self.points
        upper, lower = ([order.index(pair[i]) for pair in self.lip] for i in (0, 1))
        thicker = (lip - height) / 2 * (away[:, lower, 1] - away[:, upper, 1])
        moves[:, lower, 1] += thicker
        moves[:, upper, 1] -= thicker
        result = points.clone()
        result[:, order] += moves @ axes
        return result

    def loss(self, images, targets, points):
        """The mean absolute error of the points apart from the mean of their part, plus twice that
        of these means, in units of 5 % of the axes, and the term of slopes as in `Details`."""
        known = ~targets.isnan().any(2).any(1)
        images, targets, points = images[known], targets[known], points[known]
        centers, axes = self.place(points)
        found = self.look(images, centers, axes)
        if not len(targets):
            return found.sum()  # 0
        wanted = self.coordinates(targets, centers, axes)
        parts = [(found - wanted)[:, slice(*rows)] for rows in self.ranges]
        middle = torch.stack([part.mean(1) for part in parts], 1)
        apart = torch.cat([part - part.mean(1, keepdim=True) for part in parts], 1)
        upper, lower = ([self.points.index(pair[i]) for pair in self.openings] for i in (0, 1))
        opened, truth = (one[:, lower, 1] - one[:, upper, 1] for one in (found, wanted))
        return 20 * (apart.abs().mean() + 2 * middle.abs().mean()) + self.slope_loss(opened, truth)


# name: (function that builds the details, the variant whose training it shares, factor of epochs)
VARIANTS: dict[str, tuple[Callable[[], Details], str, int]] = {
    "as shipped": (Details, "as shipped", 1),
    "three times the epochs": (Details, "three times the epochs", 3),
    "heat maps": (HeatMapDetails, "heat maps", 1),
    "the same, points move more": (partial(HeatMapDetails, more=True), "heat maps", 1),
}


def network_with(name: str, build: Callable[[], Details]) -> torch.nn.Module:
    """A new network of models/ whose `add("details")` makes these."""
    kind: type = net_class(name)

    class Variant(kind):
        def add(self, part):
            self.details = build()
    return Variant()


def without_details(name: str, folder: Path) -> Path:
    """Write the shipped weights of a network without their details, to train others from."""
    path, content = folder / f"{name}.pt", read_checkpoint(find_weights(name))
    state = {key: value for key, value in content["state_dict"].items()
             if not key.startswith("details.")}
    save_checkpoint(path, content["net"], state, content["params"], {}, content["data"],
                    content["layout"])
    return path


def figures(net: torch.nn.Module, frames: Frames, data: dict) -> str:
    """NME, debiased NME, and slope and correlation of the opening of the eyes and of the upper
    lip."""
    points = match_label_convention(frames, predict_frames(net.eval(), frames), data)
    found = summarize(points, frames.points, frames.people, "layout", frames.layout)
    slopes = ("{:.2f} ({:.2f})".format(*found["measures"][name])
              for name in ("eye opening", "upper lip"))
    return f"{found['nme']:8.3f} {found['nme_debiased']:8.3f}   {'  '.join(slopes)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"of {', '.join(VARIANTS)} "
                                                                       "(default: all)")
    parser.add_argument("--net", nargs="+", default=["models5", "models6"],
                        choices=["models5", "models6"], help="(default: both)")
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    parser.add_argument("--portraits", metavar="FOLDER",
                        help="also measure on these frames, labeled by people")
    parser.add_argument("--epochs", type=bounded_number(int, 1), default=20,
                        help="(default: %(default)s)")
    parser.add_argument("--seed", type=bounded_number(int, 0), default=0,
                        help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/details"),
                        help="folder of the training runs, which are kept (default: %(default)s)")
    options = parser.parse_args()
    chosen = options.variants or list(VARIANTS)
    if unknown := set(chosen) - set(VARIANTS):
        parser.error(f"no variant {min(unknown)!r}; there are {', '.join(VARIANTS)}")
    frames = load_frames(options.data)
    training, *sets = (split_frames(frames, "person", part) for part in ("training", "validation"))
    if options.portraits:
        sets.append(load_frames(options.portraits))
    print(f"{'':42}NME %, debiased %, slope (correlation) of eye opening and upper lip: validation "
          f"people{', portraits' if options.portraits else ''}; parameters of the details; ms")
    for name in options.net:
        first = without_details(f"{name}-person", options.out)
        plain, content = load_checkpoint(first)
        nets, lines = [plain], [""]
        for variant in tqdm(chosen, f"details of {name}", unit="variant"):
            build, run, factor = VARIANTS[variant]
            config = TrainingConfig(name, options.epochs * factor, lr=0.003, augment="gentle",
                                    seed=options.seed, turned=0.3, only="details", init=str(first),
                                    teacher="dlib")
            path, _ = train(config, training, None,
                            options.out / f"{name} {run} {options.epochs} epochs seed "
                                          f"{options.seed}",
                            build=partial(network_with, name, build), resume=True)
            net = network_with(name, build)
            net.add("details")
            load_weights(net, read_checkpoint(path)["state_dict"], path)
            nets.append(net)
            lines.append(f"{parameter_count(net) - parameter_count(plain):8,}")
        # all together: times depend on the machine and its load
        times = milliseconds_per_face(*nets, runtime="onnx", rounds=7)
        for variant, net, line, time in zip(("without", *chosen), nets, lines, times, strict=True):
            measured = "  ".join(figures(net, one, content["data"]) for one in sets)
            print(f"{name:8} {variant:32} {measured} {line:8} {time:6.2f}")


if __name__ == "__main__":
    run_command(main)
