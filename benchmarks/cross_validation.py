"""Cross-validation over the people of a small data set: an estimate of the error of a network that
is trained on all of it."""

import argparse
import sys
import tempfile
import time

import numpy as np

from research.evaluation.prediction import predict_in_self_crops
from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.command import SEED, bounded_number, run_command
from facial_keypoints.errors import UsageError
from research.datasets import load_frames
from research.evaluation.metrics import bootstrap, face_errors, normalizer_name, point_errors
from research.networks.registry import find_weights, load_checkpoint
from research.augmentation.transforms import AUGMENTATIONS
from train import TrainingConfig, train


def folds_of(people, folds, seed=0):
    """The fold (n,) of each frame: people are shuffled and dealt out, so that nobody is in two."""
    names = np.random.default_rng(seed).permutation(sorted(set(people)))
    fold = {name: number % folds for number, name in enumerate(names)}
    return np.array([fold[name] for name in people])


def read_options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder, zip or file of labels, or sample")
    parser.add_argument("--layout", help="of the keypoints, a name or a .toml file")
    parser.add_argument("--net", default=DEFAULT_NET, help="(default: %(default)s)")
    parser.add_argument("--init", help="weights to start from (default: random)")
    parser.add_argument(
        "--epochs", type=bounded_number(int, 1), default=400, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=bounded_number(int, 1), default=16, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--lr",
        type=bounded_number(float, 0),
        default=TrainingConfig.lr,
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--augment", default="strong-simple", choices=AUGMENTATIONS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--folds", type=bounded_number(int, 2), default=5, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--points",
        nargs=2,
        type=bounded_number(int, 0),
        metavar=("FIRST", "LAST"),
        help="print the error of this range of keypoints as well",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="(default: %(default)s)")
    return parser.parse_args()


def main():
    options = read_options()
    frames = load_frames(options.data, layout=options.layout)
    fold = folds_of(frames.people, options.folds, options.seed)
    if fold.max() + 1 < options.folds:
        raise UsageError(f"{options.data}: fewer people than folds; give --folds {fold.max() + 1}")
    init = str(find_weights(options.init)) if options.init else ""
    config = TrainingConfig(
        options.net,
        options.epochs,
        options.batch_size,
        options.lr,
        augment=options.augment,
        seed=options.seed,
        init=init,
    )
    errors = np.empty(frames.points.shape[:2])
    for number in range(options.folds):
        begun, kept = time.perf_counter(), fold == number
        with tempfile.TemporaryDirectory() as folder:
            path, _ = train(config, frames.select(~kept), None, folder, bar=sys.stderr.isatty())
            net, _ = load_checkpoint(path)
        tested = frames.select(kept)
        errors[kept] = point_errors(
            predict_in_self_crops(net, tested), tested.points, "layout", frames.layout
        )
        print(
            f"fold {number + 1} of {options.folds}: trained on {(~kept).sum()} frames in "
            f"{time.perf_counter() - begun:.0f} s, NME of the other {kept.sum()}: "
            f"{face_errors(errors[kept]).mean():.2f} %",
            flush=True,
        )
    nme = face_errors(errors)
    low, high = bootstrap(nme, frames.people)
    print(
        f"all folds: NME {nme.mean():.2f} % ({low:.2f} to {high:.2f}), % of "
        f"{normalizer_name('layout', frames.layout)}"
    )
    if options.points:
        first, last = options.points
        some = face_errors(errors[:, first : last + 1])
        print(f"keypoints {first} to {last}: {some.mean():.2f} %")


if __name__ == "__main__":
    run_command(main)
