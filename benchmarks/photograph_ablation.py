"""Ablation of models7: short trainings on photographs that people labeled, each with one change,
measured on the validation part."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path


from benchmarks.photographs import figures
from research.evaluation.prediction import predict_frames, visibility_of
from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import UsageError
from facial_keypoints.files import atomic_write, csv_text
from models import models7
from research.networks.checkpoints import load_weights, read_checkpoint
from research.datasets import load_frames, split_frames
from research.networks.registry import find_weights
from facial_keypoints.files import csv_rows
from research.evaluation.results import PHOTOGRAPH_COLUMNS, photograph_table
from train import TrainingConfig, train

# after research, which sets how PyTorch's threads wait
import torch
from torch import nn

TABLE = Path(__file__).with_name("photograph_ablation.csv")
COLUMNS = ("step", "epochs", "minutes", *PHOTOGRAPH_COLUMNS[2:])


class OneLayerStem(models7.Net):
    """One first layer with a step of 4 pixels, as models5 has it."""

    def __init__(self, **options: int):
        super().__init__(**options)
        channels = self.stem[3].out_channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 8, 4, 2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


class OneLook(models7.Net):
    """Without the second look."""

    def __init__(self, **options: int):
        super().__init__(**options)
        self.look = NoCorrection()


class NoCorrection(nn.Module):
    """In place of models7.SecondLook: no corrections."""

    def forward(
        self, maps: torch.Tensor, features: torch.Tensor, points: torch.Tensor
    ) -> torch.Tensor:
        return torch.zeros_like(points)


class FineMaps(models7.Net):
    """Two more maps for each point, of twice the resolution."""

    def __init__(self, **options: int):
        super().__init__(**options)
        cells, fine = (self.input_size // 16) ** 2, self.maps.in_channels // 2
        self.fine = nn.Conv2d(fine, 2 * self.count, 1)
        self.mix = nn.Sequential(
            nn.Linear(12 * cells, self.axes.in_features), nn.ReLU(inplace=True)
        )

    def looked(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As in models7."""
        early = self.stem(images)
        fine = self.stages[:2](early)
        maps = [
            layer(values).reshape(images.shape[0], self.count, -1)
            for layer, values in ((self.maps, self.stages[2:](fine)), (self.fine, fine))
        ]
        x = self.mix(torch.cat(maps, 2))
        return early, x + self.points(x.transpose(1, 2)).transpose(1, 2)


class NarrowLabels(models7.Net):
    """Label distributions and robust loss two thirds as wide."""

    label_width, loss_width = 0.014, 0.01


class WideLabels(models7.Net):
    """Label distributions and robust loss as in models5."""

    label_width, loss_width = 0.03, 0.03


class EqualWeights(models7.Net):
    """Hidden points count as much as visible ones."""

    hidden_weight = 1.0


NET = models7.Net
STEPS: dict[str, tuple[Callable, dict]] = {  # name: (network, settings of the training)
    "base": (NET, {}),
    "random start": (NET, {"init": ""}),
    "first layer with a step of 4": (OneLayerStem, {}),
    "without the second look": (OneLook, {}),
    "maps of 14×14 as well": (FineMaps, {}),
    "side 96": (partial(NET, side=96), {}),
    "side 128": (partial(NET, side=128), {}),
    "labels narrower": (NarrowLabels, {}),
    "labels wider": (WideLabels, {}),
    "hidden points count fully": (EqualWeights, {}),
    "hidden points ignored": (NET, {"hidden": "ignored"}),
    "simple augmentation": (NET, {"augment": "strong-simple"}),
    "schedule: none": (NET, {"schedule": ()}),
    "batches of 32": (NET, {"batch_size": 32}),
    "twice the epochs": (NET, {"times": 2}),
    "distilled from models8": (NET, {"teacher": "models8"}),
}


def read_options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all)"
    )
    parser.add_argument(
        "--data",
        default="data/merlrav.zip",
        help="built by python -m research.data.merlrav (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=bounded_number(int, 1), default=10, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/photograph-ablation"),
        help="folder of the trainings, which are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--table",
        type=Path,
        default=TABLE,
        help="rows of other steps are kept (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    options = read_options()
    unknown = set(options.steps) - {*STEPS}
    if unknown:
        raise UsageError(f"no step {min(unknown)!r}; there are {', '.join(STEPS)}")
    frames = load_frames(options.data)
    training, validation = (
        split_frames(frames, "official", part) for part in ("training", "validation")
    )
    kept = {row["step"]: row for row in csv_rows(options.table, optional=True)}
    for step in options.steps or STEPS:
        build, more = STEPS[step]
        more = {"init": str(find_weights("models5")), "batch_size": 64, "lr": 0.0025, **more}
        epochs = options.epochs * more.pop("times", 1)
        if more.get("teacher"):
            more["teacher"] = str(find_weights(more["teacher"]))
        path, history = train(
            TrainingConfig("models7", epochs, **more),
            training,
            None,
            options.out / f"{step.replace('/', '-')} {epochs} epochs",
            build=build,
            resume=True,
        )
        net = build()
        load_weights(net, read_checkpoint(path)["state_dict"], path)
        row = figures(
            step, predict_frames(net, validation), visibility_of(net, validation), validation
        )
        minutes = sum(epoch["seconds"] for epoch in history) / 60
        kept[step] = {"step": step, "epochs": epochs, "minutes": round(minutes, 1), **row}
        print(photograph_table([kept[step] | {"weights": step}]).splitlines()[-1], flush=True)
        atomic_write(
            options.table,
            csv_text(
                COLUMNS,
                [
                    {column: kept[name].get(column, "") for column in COLUMNS}
                    for name in STEPS
                    if name in kept
                ],
            ),
        )


if __name__ == "__main__":
    run_command(main)
