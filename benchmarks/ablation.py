"""What each step of the flagship is worth: short trainings on the person split, compared face by face on validation people."""

import argparse
import csv
import io
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import models
from data_load import label_shift, load_frames, split_frames
from errors import UsageError, number, run
from evaluate import bootstrap, milliseconds_per_face, point_errors, predict_frames
from formats import write_whole
from models import models4, models5
from train import train

TABLE = Path(__file__).with_name("ablation.csv")
COLUMNS = ("step", "seeds", "epochs", "nme", "gain", "gain_low", "gain_high", "parameters", "multiply_adds", "ms_per_face",
           "minutes")


class Logarithm(models5.Net):
    """The logarithmic distance, as first tries had it: steepest where the label is."""

    def penalty(self, distance):
        return torch.log1p(distance / 0.02)


class Flat(models5.Net):
    """Nothing to pay inside half a cell of the lattice (0.02 in targets), logarithmic from its edge on."""

    def penalty(self, distance):
        return torch.log1p((distance - 0.02).clamp_min(0) / 0.02)


class FacesAlone(models5.Net):
    """Trained without crops that show no face."""

    empty = 0.0


NET = models5.Net
STEPS = {  # name: how the network is built, what else training is given
    "base": (NET, {}),
    "direct regression (models4)": (models4.Net, {}),
    "loss: logarithm": (Logarithm, {}),
    "loss: flat inside the cell": (Flat, {}),
    "faces alone": (FacesAlone, {}),
    "plain augmentation": (NET, {"augment": "plain"}),
    "labels as published": (NET, {"labels": "published"}),
    "batches of 64": (NET, {"batch_size": 64}),
    "learning rate 0.004": (NET, {"lr": 0.004}),
    "narrow (48, 96)": (partial(NET, widths=(48, 96)), {}),
    "wide (96, 192)": (partial(NET, widths=(96, 192)), {}),
    "wider (128, 256)": (partial(NET, widths=(128, 256), features=256), {}),
    "deep (3 blocks)": (partial(NET, depth=3), {}),
    "early stage (32, 64, 128)": (partial(NET, widths=(32, 64, 128)), {}),
    "side 96": (partial(NET, side=96), {}),
    "side 112": (partial(NET, side=112), {}),
    "side 160": (partial(NET, side=160), {}),
}
ASKED = ("weights of the last step", "mirrored crops as well")  # the base again, asked otherwise


def nme_of(net, frames, labels="corrected", mirrored=False):
    """NME (n,) of a network on frames with corrected labels."""
    points = predict_frames(net, frames, mirrored=mirrored)
    return point_errors(points - label_shift(points) if labels == "published" else points, frames.points).mean(1)


def measure(step, seed, epochs, frames, validation, folder):
    """Train one step, or take what an earlier call left -> network, NME (n,) of validation faces, minutes of training."""
    build, more = STEPS["base" if step in ASKED else step]
    more = dict(more)
    training = split_frames(frames[labels := more.pop("labels", "corrected")], "person", "training")
    path, history = train("models5", training, None, folder, epochs=epochs, seed=seed, build=build, resume=True, **more)
    net = build()
    state = models.read_checkpoint(path)["state_dict"]
    if step == ASKED[0]:
        state = torch.load(folder / "last.pt", weights_only=True)["state"]["net"]
    models.fill(net, state, path)
    return net, nme_of(net, validation, labels, step == ASKED[1]), sum(row["seconds"] for row in history) / 60


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join((*STEPS, *ASKED))} (default: all)")
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    parser.add_argument("--epochs", type=number(int, 1), default=30, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0], help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="keeps trainings (default: %(default)s)")
    parser.add_argument("--table", type=Path, default=TABLE, help="rows of other steps are kept (default: %(default)s)")
    options = parser.parse_args()
    unknown = set(options.steps) - {*STEPS, *ASKED}
    if unknown:
        raise UsageError(f"no step {min(unknown)!r}; there are {', '.join((*STEPS, *ASKED))}")
    frames = {labels: load_frames(options.data, labels) for labels in ("corrected", "published")}
    validation = split_frames(frames["corrected"], "person", "validation")
    kept = {row["step"]: row for row in csv.DictReader(options.table.open())} if options.table.exists() else {}
    steps = options.steps or [*STEPS, *ASKED]
    base = {}
    for step in dict.fromkeys(["base", *steps]):
        nme, minutes = [], []
        for seed in options.seeds:
            folder = options.out / f"{'base' if step in ASKED else step.replace('/', '-')} {options.epochs} epochs seed {seed}"
            net, errors, spent = measure(step, seed, options.epochs, frames, validation, folder)
            base.setdefault(seed, errors)
            nme.append(errors)
            minutes.append(spent)
        gains = np.mean([base[seed] - errors for seed, errors in zip(options.seeds, nme, strict=True)], axis=0)
        low, high = bootstrap(gains, validation.people)
        kept[step] = {
            "step": step, "seeds": len(nme), "epochs": options.epochs, "nme": round(float(np.mean(nme)), 3),
            "gain": round(float(gains.mean()), 3), "gain_low": round(low, 3), "gain_high": round(high, 3),
            "parameters": models.parameter_count(net), "multiply_adds": sum(row[-1] for row in models.describe(net)),
            "ms_per_face": round(milliseconds_per_face(net), 2), "minutes": round(float(np.mean(minutes)), 1)}
        print(f"{step:<30} NME {kept[step]['nme']:.2f}  gain {gains.mean():+.2f} ({low:+.2f} to {high:+.2f})", flush=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept[name] for name in (*STEPS, *ASKED) if name in kept)
        write_whole(options.table, text.getvalue())


if __name__ == "__main__":
    run(main)
