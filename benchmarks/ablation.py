"""What each step of the flagship is worth: short trainings on the person split, compared face by face on validation people."""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import models
from data_load import load_frames, split_frames
from errors import number, run
from evaluate import bootstrap, point_errors, predict_frames
from models import models5
from train import train

TABLE = Path(__file__).with_name("ablation.csv")
COLUMNS = ("step", "seed", "epochs", "nme", "gain", "gain_low", "gain_high", "parameters", "multiply_adds", "minutes")


class Logarithm(models5.Net):
    """The logarithmic distance, as the first tries had it: steepest where the label is."""

    def penalty(self, distance):
        return torch.log1p(distance / 0.02)


class Flat(models5.Net):
    """Nothing to pay inside half a cell of the lattice (0.02 in targets), logarithmic from its edge on."""

    def penalty(self, distance):
        return torch.log1p((distance - 0.02).clamp_min(0) / 0.02)


class Doubtless(models5.Net):
    """Trained on faces alone."""

    empty = 0.0


NET = models5.Net
STEPS = {  # name: how the network is built, and what else training is given
    "base": (NET, {}),
    "logarithm": (Logarithm, {}),
    "flat": (Flat, {}),
    "doubtless": (Doubtless, {}),
    "plain": (NET, {"augment": "plain"}),
    "batches of 32": (NET, {"batch_size": 32}),
    "lr 0.004": (NET, {"lr": 0.004}),
    "early": (partial(NET, widths=(32, 64, 128)), {}),
    "112": (partial(NET, side=112), {}),
    "wide": (partial(NET, widths=(96, 192)), {}),
    "deep": (partial(NET, depth=3), {}),
}


def score(net, frames):
    """NME (n,) of each frame."""
    return point_errors(predict_frames(net, frames), frames.points).mean(1)


def measure(step, seed, epochs, training, validation, folder):
    """Train one step, or take what an earlier call left -> row, NME of each validation face."""
    build, more = STEPS[step]
    path, history = train(step, training, None, folder, epochs=epochs, seed=seed, build=build, resume=True, **more)
    net = build()
    models.fill(net, models.read_checkpoint(path)["state_dict"], path)
    nme = score(net, validation)
    row = {"step": step, "seed": seed, "epochs": epochs, "nme": nme.mean(), "parameters": models.parameter_count(net),
           "multiply_adds": sum(r[-1] for r in models.describe(net)), "minutes": sum(h["seconds"] for h in history) / 60}
    return row, nme


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", help=f"of {', '.join(STEPS)} (default: all)")
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    parser.add_argument("--epochs", type=number(int, 1), default=30, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0], help="(default: %(default)s)")
    options = parser.parse_args()
    frames = load_frames(options.data)
    training, validation = (split_frames(frames, "person", part) for part in ("training", "validation"))
    rows = []
    for seed in options.seeds:
        first = None
        for step in options.steps or STEPS:
            folder = Path(f"runs/ablation/{step}-{seed}-{options.epochs}")
            row, nme = measure(step, seed, options.epochs, training, validation, folder)
            first = nme if first is None else first
            low, high = bootstrap(first - nme, validation.people)
            rows.append(row | {"gain": (first - nme).mean(), "gain_low": low, "gain_high": high})
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)


if __name__ == "__main__":
    run(main)
