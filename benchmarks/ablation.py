"""Ablation of models5: short trainings on the person split, each compared with the base, face by
face, on validation people."""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from research.evaluation.prediction import predict_frames, predict_in_self_crops
from benchmarks import variants
from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import UsageError
from facial_keypoints.files import atomic_write, csv_text
from research.networks.checkpoints import load_weights, read_checkpoint
from research.networks.export import milliseconds_per_face
from research.datasets import load_frames, split_frames
from research.networks.inspection import describe
from research.data.label_shift import match_label_convention
from research.evaluation.metrics import bootstrap, point_errors
from research.networks.registry import parameter_count
from facial_keypoints.files import csv_rows
from research.augmentation.transforms import AUGMENTATIONS, Augmentation
from models import models4, models5
from train import TrainingConfig, train

# after research, which sets how PyTorch's threads wait
import torch

TABLE = Path(__file__).with_name("ablation.csv")
COLUMNS = (
    "step",
    "seeds",
    "epochs",
    "nme",
    "gain",
    "gain_low",
    "gain_high",
    "gains",
    "nme_own",
    "nme_training",
    "parameters",
    "multiply_adds",
    "ms_per_face",
    "minutes",
)
# an augmentation for one step only: crops that fit the labels almost exactly
CLOSEST = Augmentation(zoom=0.012, place=0.006, angle=4.5, strength=0.25)

NET = variants.Base
STEPS = {  # name: (function that builds the network, further settings of the training)
    "base": (NET, {}),
    "direct regression (models4)": (models4.Net, {}),
    "heat maps": (variants.HeatMaps, {}),
    "cells and offsets": (variants.Cells, {}),
    "loss: logarithm": (variants.Logarithm, {}),
    "loss: flat inside the cell": (variants.Flat, {}),
    "loss: Wing": (variants.Wing, {}),
    "loss: soft Wing": (variants.SoftWing, {}),
    "distances in units of the spread (STAR)": (variants.Star, {}),
    "distances in units of the root of the spread": (models5.Net, {}),
    "labels half as wide": (variants.Sharper, {}),
    "labels twice as wide": (variants.Blunter, {}),
    "labels as published": (NET, {"labels": "published"}),
    "without negative crops": (variants.FacesAlone, {}),
    "simple augmentation": (NET, {"augment": "strong-simple"}),
    "schedule: none": (NET, {"schedule": ()}),
    "schedule: medium": (NET, {"schedule": ((0.6, "medium"),)}),
    "schedule: closest": (NET, {"schedule": ((0.6, "medium"), (0.8, "closest"))}),
    "distilled from models6": (NET, {"teacher": "models6-person"}),
    "batches of 16": (NET, {"batch_size": 16}),
    "batches of 64": (NET, {"batch_size": 64}),
    "learning rate 0.004": (NET, {"lr": 0.004}),
    "half of the people, twice": (NET, {"people": 2}),
    "a quarter of the people, four times": (NET, {"people": 4}),
    "twice the epochs": (NET, {"times": 2}),
    "narrow (48, 96)": (partial(NET, widths=(48, 96)), {}),
    "wide (96, 192)": (partial(NET, widths=(96, 192)), {}),
    "models6 (128, 256)": (partial(NET, widths=(128, 256), features=256), {}),
    "deep (3 blocks)": (partial(NET, depth=3), {}),
    "early stage (32, 64, 128)": (partial(NET, widths=(32, 64, 128)), {}),
    "side 96": (partial(NET, side=96), {}),
    "side 160": (partial(NET, side=160), {}),
}
ASKED = ("weights of the last step", "mirrored crops as well")  # the base, other predictions


def some_people(frames, one_in):
    """The frames of every `one_in`-th person, in the order of names."""
    chosen = np.unique(frames.people)[::one_in]
    return frames.select(np.flatnonzero(np.isin(frames.people, chosen)))


def nme_of(points, frames, trained):
    """NME (n,) in % of a network's predictions (n, 68, 2) on frames with corrected labels;
    `trained`: the `data` of its checkpoint."""
    return point_errors(match_label_convention(frames, points, trained), frames.points).mean(1)


def measure(step, seed, epochs, frames, folder):
    """Train one step, or resume an earlier call -> the network, its checkpoint's `data`, minutes of
    training."""
    build, more = STEPS["base" if step in ASKED else step]
    more = dict(more)
    training = split_frames(frames[more.pop("labels", "corrected")], "person", "training")
    one_in = more.pop("people", 1)
    epochs *= more.pop("times", one_in)  # with fewer frames, as many training steps as the base
    config = TrainingConfig("models5", epochs, seed=seed, **more)
    path, history = train(
        config, some_people(training, one_in), None, folder, build=build, resume=True
    )
    net = build()
    content = read_checkpoint(path)
    state = content["state_dict"]
    if step == ASKED[0]:
        state = torch.load(folder / "last.pt", weights_only=True)["state"]["net"]
    load_weights(net, state, path)
    return net, content["data"], sum(row["seconds"] for row in history) / 60


def write_table(path, kept):
    """The rows in the order of the steps."""
    atomic_write(path, csv_text(COLUMNS, [kept[name] for name in (*STEPS, *ASKED) if name in kept]))


def read_options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"of {', '.join((*STEPS, *ASKED))} (default: all)"
    )
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    parser.add_argument(
        "--epochs", type=bounded_number(int, 1), default=20, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--seeds",
        type=bounded_number(int, 0),
        nargs="+",
        default=[0],
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/ablation"),
        help="folder of the training runs, which are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--table",
        type=Path,
        default=TABLE,
        help="rows of other steps are kept (default: %(default)s)",
    )
    return parser.parse_args()


def row_of(step, options, frames, validation, known, base):
    """The row of a step: its networks, one for each seed, on validation frames and on frames that
    they know. base: {seed: NME of each validation frame by the first step}, filled by it."""
    mirrored = step == ASKED[1]
    errors, own, learnt, minutes = [], [], [], []
    for seed in options.seeds:
        folder = (
            options.out
            / f"{'base' if step in ASKED else step.replace('/', '-')} {options.epochs} epochs "
            f"seed {seed}"
        )
        net, trained, spent = measure(step, seed, options.epochs, frames, folder)
        points = predict_frames(net, validation, mirrored=mirrored)
        errors.append(nme_of(points, validation, trained))
        points = predict_in_self_crops(net, validation, mirrored=mirrored, first=points)
        own.append(nme_of(points, validation, trained).mean())
        points = predict_frames(net, known, mirrored=mirrored)
        learnt.append(nme_of(points, known, trained).mean())
        minutes.append(spent)
        base.setdefault(seed, errors[-1])
    each = [base[seed] - nme for seed, nme in zip(options.seeds, errors, strict=True)]
    gains = np.mean(each, axis=0)
    low, high = bootstrap(gains, validation.people)
    figures = {
        "nme": np.mean(errors),
        "gain": gains.mean(),
        "gain_low": low,
        "gain_high": high,
        "nme_own": np.mean(own),
        "nme_training": np.mean(learnt),
    }
    return {
        "step": step,
        "seeds": len(errors),
        "epochs": options.epochs,
        **{name: round(float(value), 3) for name, value in figures.items()},
        "gains": " ".join(f"{gain.mean():.3f}" for gain in each),  # of each seed
        "parameters": parameter_count(net),
        "multiply_adds": sum(row[-1] for row in describe(net)),
        "minutes": round(float(np.mean(minutes)), 1),
    }


def main():
    options = read_options()
    AUGMENTATIONS["closest"] = CLOSEST
    unknown = set(options.steps) - {*STEPS, *ASKED}
    if unknown:
        raise UsageError(f"no step {min(unknown)!r}; there are {', '.join((*STEPS, *ASKED))}")
    frames = {labels: load_frames(options.data, labels) for labels in ("corrected", "published")}
    validation = split_frames(frames["corrected"], "person", "validation")
    known = some_people(split_frames(frames["corrected"], "person", "training"), 4)
    kept = csv_rows(options.table, optional=True)
    kept = {row["step"]: row for row in kept if row["step"] in (*STEPS, *ASKED)}
    if any(int(row["epochs"]) != options.epochs for row in kept.values()):
        raise UsageError(
            f"{options.table} has rows with another number of epochs than "
            f"{options.epochs}; give another --table"
        )
    base = {}
    for step in dict.fromkeys(["base", *(options.steps or [*STEPS, *ASKED])]):
        row = row_of(step, options, frames, validation, known, base)
        if step in kept and int(kept[step]["seeds"]) > row["seeds"]:
            continue  # keep an earlier row, which has more seeds
        kept[step] = row
        print(
            f"{step:<36} NME {row['nme']:.2f}  gain {row['gain']:+.2f} ({row['gain_low']:+.2f} to "
            f"{row['gain_high']:+.2f})  in self-predicted crops {row['nme_own']:.2f}  on training "
            f"faces {row['nme_training']:.2f}  {row['minutes']} minutes",
            flush=True,
        )
        write_table(options.table, kept)
    shapes = {
        int(kept[step]["multiply_adds"]): build().eval()
        for step, (build, _) in STEPS.items()
        if step in kept
    }
    times = dict(zip(shapes, milliseconds_per_face(*shapes.values(), rounds=7), strict=True))
    # measure all rows together, also earlier ones: times depend on the machine and its load
    for step, row in kept.items():
        row["ms_per_face"] = round(
            float(times[int(row["multiply_adds"])]) * (2 if step == ASKED[1] else 1), 2
        )
    write_table(options.table, kept)


if __name__ == "__main__":
    run_command(main)
