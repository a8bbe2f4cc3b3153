"""The metrics of facial keypoints, and the command that scores checkpoints on a data set."""

import argparse
import json
import sys
import time

import numpy as np

import models
import runtimes
from data_load import (
    LABELS, PARTS, SPLITS, FacialKeypointsDataset, crop_matrix, evaluation_transform, inter_ocular, label_shift,
    learned_shift, load_frames, split_frames, tight_box, to_points, to_targets,
)
from errors import DataError, UsageError, number, run
from transforms import SWAP

REGIONS = {"jaw": range(17), "brows": range(17, 27), "nose": range(27, 36), "eyes": range(36, 48), "mouth": range(48, 68)}
NORMALIZERS = ("outer-eyes", "inter-pupil", "box-diagonal")


# ---------------------------------------------------------------- metrics: arrays in, percentages out

def normalizer_length(truth, normalizer="outer-eyes"):
    """Length (n,) that errors on keypoints (n, 68, 2) are divided by.

    outer-eyes: points 36 to 45, the inter-ocular distance of 300-W (Sagonas et al., ICCV-W 2013); inter-pupil: centres
    of the two eyes' six points; box-diagonal: of the tight box.
    """
    if normalizer not in NORMALIZERS:
        raise UsageError(f"normalizer must be one of {', '.join(NORMALIZERS)}, not {normalizer!r}")
    if normalizer == "outer-eyes":
        return inter_ocular(truth)
    if normalizer == "inter-pupil":
        return np.linalg.norm(truth[:, 36:42].mean(1) - truth[:, 42:48].mean(1), axis=-1)
    return np.linalg.norm(tight_box(truth)[:, 2:], axis=-1)


def point_errors(points, truth, normalizer="outer-eyes"):
    """Keypoints (n, 68, 2), any one unit -> error of each point (n, 68) in % of the normaliser."""
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    if points.shape != truth.shape:
        raise ValueError(f"answers {points.shape} and truth {truth.shape} differ in shape")
    if not np.isfinite(points).all():
        raise DataError(f"face {int(np.argmin(np.isfinite(points).all((1, 2))))} has answers that are no numbers")
    length = normalizer_length(truth, normalizer)
    if not (length > 0).all():
        raise DataError(f"face {int(np.argmin(length))} has a {normalizer} distance of 0; its error is undefined")
    return 100 * np.linalg.norm(points - truth, axis=-1) / length[:, None]


def debias(points, truth):
    """Take the mean offset of each point over these faces, in units of the inter-ocular distance, out of `points`.

    points, truth: (n, 68, 2) in any one unit -> (n, 68, 2) in that unit.
    """
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    length = normalizer_length(truth)[:, None, None]
    return points - length * ((points - truth) / length).mean(0)


def failure_rate(nme, limit):
    """Share in % of faces whose NME (n,) is above `limit` %."""
    return float(100 * np.mean(np.asarray(nme) > limit))


def area_under_curve(nme, limit=8.0):
    """Area in % under the cumulative error curve up to `limit` %, exactly: the mean of max(0, 1 - nme / limit)."""
    return float(100 * np.mean(np.maximum(0, 1 - np.asarray(nme) / limit)))


def bootstrap(values, groups=None, draws=2000, seed=0):
    """95 % interval of the mean of `values` (n,) by drawing whole groups (people) with replacement.

    Frames of one person are alike: drawing frames one by one would make the interval too narrow. Efron, 1979.
    Where all are of one group, or groups are not known, values are drawn.
    """
    values = np.asarray(values, np.float64)
    alone = groups is None or len(set(groups)) == 1
    _, group = np.unique(np.arange(len(values)) if alone else groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def summarize(points, truth, people=None, normalizer="outer-eyes"):
    """All metrics of answers (n, 68, 2) against the truth as a dictionary; percentages as numbers."""
    errors = point_errors(points, truth, normalizer)
    nme = errors.mean(1)
    low, high = bootstrap(nme, people)
    offset = ((points - truth) / normalizer_length(truth, normalizer)[:, None, None]).mean((0, 1))
    return {
        "n": len(nme), "nme": float(nme.mean()), "nme_low": low, "nme_high": high,
        "nme_debiased": float(point_errors(debias(points, truth), truth, normalizer).mean()),
        "fr8": failure_rate(nme, 8), "fr10": failure_rate(nme, 10), "auc8": area_under_curve(nme),
        "regions": {name: float(errors[:, list(rows)].mean()) for name, rows in REGIONS.items()},
        "offset": (100 * offset).tolist(), "points": errors.mean(0).tolist(), "normalizer": normalizer,
    }


def mean_shape(training):
    """Mean targets (68, 2) of training frames in their crops: what a network that ignores its input would answer."""
    return to_targets(training.points, crop_matrices(training.points), 1).mean(0)


def crop_matrices(points, side=1):
    """Matrices (n, 2, 3) of the crops around keypoints (n, 68, 2); to targets and back, any side gives the same."""
    return np.stack([crop_matrix(box, side) for box in tight_box(points)])


def rounding_floor(truth, seed=0):
    """Answers that are the truth up to a whole pixel, which is what a perfect network scores on rounded labels."""
    return truth + np.random.default_rng(seed).uniform(-0.5, 0.5, truth.shape).astype(np.float32)


# ---------------------------------------------------------------- networks on frames

def predict_frames(net, frames, batch_size=64, bar=False, boxes=None, mirrored=False):
    """Plain answers of a network in crops of `boxes` (n, 4), else of the annotated ones: points (n, 68, 2) in pixels.

    mirrored: the mean of the answers for each crop and for its mirror image.
    """
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    side = models.input_size(net)
    loader = DataLoader(FacialKeypointsDataset(frames, evaluation_transform(side), boxes=boxes), batch_size)
    points = []
    for batch in tqdm(loader, desc="predicting", unit="batch", disable=not bar, leave=False):
        targets = models.answer(net, batch["image"]).numpy()
        if mirrored:
            other = models.answer(net, batch["image"].flip(-1)).numpy()[:, SWAP]
            targets = (targets + other * np.float32([-1, 1])) / 2
        points.append(to_points(targets, batch["matrix"].numpy(), side))
    return np.concatenate(points)


def settled_answers(net, frames, looks=4, mirrored=False):
    """Answers (n, 68, 2) in crops around the network's own answers, as in use, where no crop tells where the label is.

    The first crop is centred on the labels, and a network that is unsure leans to the middle of its crop. After some
    looks little is left of that: the crop is where the network itself sees the face.
    """
    points = predict_frames(net, frames, mirrored=mirrored)
    for _ in range(looks - 1):
        points = predict_frames(net, frames, boxes=tight_box(points), mirrored=mirrored)
    return points


def in_convention_of(frames, points, trained):
    """Answers as these labels would have them: the known shift is added for the official labels as published.

    `trained` is a checkpoint's `data`: what a network that learned published labels holds of the shift is taken out.
    """
    wanted = frames.kind == "official" and frames.labels == "published"
    return points + wanted * label_shift(points) - learned_shift(points, trained)


def refuse_leak(content, frames, where):
    """Raise DataError if the checkpoint was trained on any of these frames."""
    seen = sorted({*(content["data"].get("frames") or [])} & {*frames.names.tolist()})
    if seen:
        raise DataError(f"{where} was trained on {len(seen)} of these {len(frames)} frames ({seen[0]} is one): its "
                        "score would not be honest. Choose the split it was trained with, or give --allow-leak")


def default_part(frames, contents):
    """The part that is scored if none is given: all frames of a set without sides that no checkpoint was trained on."""
    trained_here = any({*(content["data"].get("frames") or [])} & {*frames.names.tolist()} for content in contents)
    return "test" if frames.has_sides or trained_here else "all"


def score(path, frames, normalizer="outer-eyes", allow_leak=False, bar=False):
    """Score one checkpoint on frames -> (metrics, NME of each face (n,), points (n, 68, 2))."""
    net, content = models.load_checkpoint(path)
    if not allow_leak:
        refuse_leak(content, frames, path)
    points = predict_frames(net, frames, bar=bar)
    if not (inter_ocular(points) > 0).all():  # nor where they are no numbers
        raise DataError(f"{path}: answers that are no faces; the weights are broken, train them again")
    points = in_convention_of(frames, points, content["data"])
    metrics = {"net": content["net"], **summarize(points, frames.points, frames.people, normalizer)}
    own = in_convention_of(frames, settled_answers(net, frames), content["data"])
    metrics["nme_own"] = float(point_errors(own, frames.points, normalizer).mean())
    return metrics, point_errors(points, frames.points, normalizer).mean(1), points


def milliseconds_per_face(*nets, rounds=1, repeats=60):
    """Median times (len(nets),) of one crop, on one thread of the CPU, by the runtime that needs no extra package.

    The networks take turns, `rounds` times: a slow moment of a shared machine is nobody's alone.
    """
    ready, rng = [], np.random.default_rng(0)
    for net in nets:
        side = models.input_size(net)
        ready.append((runtimes.compile_net(net, "torch", threads=1), rng.random((1, 1, side, side), np.float32)))
    times = np.empty((rounds, len(nets), repeats))
    for turn in times:
        for (answer, image), row in zip(ready, turn, strict=True):
            for i in range(repeats):
                start = time.perf_counter()
                answer(image)
                row[i] = time.perf_counter() - start
    return 1000 * np.median(np.median(times[..., repeats // 4:], -1), 0)


# ---------------------------------------------------------------- command

def table(rows):
    """Metrics of several models -> lines of text."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':<{width}}  {'NME':>6} {'95 % interval':>15} {'FR@8':>6} {'FR@10':>6} {'AUC@8':>6} {'debiased':>9} "
             f"{'own crops':>9} {'offset x, y':>14}  " + " ".join(f"{name:>6}" for name in REGIONS)]
    for name, m in rows:
        lines.append(f"{name:<{width}}  {m['nme']:6.2f} {m['nme_low']:7.2f}–{m['nme_high']:<7.2f} {m['fr8']:6.1f} "
                     f"{m['fr10']:6.1f} {m['auc8']:6.1f} {m['nme_debiased']:9.2f} "
                     f"{m.get('nme_own', float('nan')):9.2f} {m['offset'][0]:+7.2f}{m['offset'][1]:+7.2f}  "
                     + " ".join(f"{m['regions'][r]:6.2f}" for r in REGIONS))
    return "\n".join(lines)


def baselines(frames, everything, split, normalizer):
    """Rows of the mean shape (if the data set has training frames) and of the rounding floor."""
    rows = []
    try:
        training = split_frames(everything, split, "training")
    except DataError:
        training = None
    if training is not None:
        points = to_points(np.broadcast_to(mean_shape(training), frames.points.shape), crop_matrices(frames.points), 1)
        rows.append(("mean shape", summarize(points, frames.points, frames.people, normalizer)))
    rows.append(("rounding floor",
                 summarize(rounding_floor(frames.points), frames.points, frames.people, normalizer)))
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Score checkpoints on a data set; two are also compared.")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="a file of weights, or a network's name")
    parser.add_argument("--data", default="sample", help="sample, official, or a folder or zip (default: %(default)s)")
    parser.add_argument("--split", default="person", choices=SPLITS, help="(default: %(default)s)")
    parser.add_argument("--part", choices=PARTS, help="(default: test; all for a data set without a training side that the "
                        "network was not trained on)")
    parser.add_argument("--labels", default="corrected", choices=LABELS,
                        help="of the official set, its known shift taken out or left in (default: %(default)s)")
    parser.add_argument("--normalizer", default="outer-eyes", choices=NORMALIZERS, help="(default: %(default)s)")
    parser.add_argument("--allow-leak", action="store_true", help="score on frames that the network was trained on")
    parser.add_argument("--worst", type=number(int, 0), default=0, metavar="N", help="name the N worst frames")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    if len(options.checkpoints) > 2:
        raise UsageError("one checkpoint is scored, two are compared; call again for more")
    paths = [models.find_weights(name) for name in options.checkpoints]
    contents = [models.read_checkpoint(path) for path in paths]  # a wrong file is an error before the data is loaded
    everything = load_frames(options.data, options.labels)
    options.part = options.part or default_part(everything, contents)
    frames = split_frames(everything, options.split, options.part)
    named = {"data": options.data, "split": options.split, "part": options.part, "labels": frames.labels}
    results = [score(path, frames, options.normalizer, options.allow_leak, sys.stderr.isatty()) for path in paths]
    rows = [{"checkpoint": str(path), **metrics, **named} for path, (metrics, _, _) in zip(paths, results, strict=True)]
    if len(results) == 2:
        difference = results[1][1] - results[0][1]
        low, high = bootstrap(difference, frames.people)
        rows[0] |= {"other": rows[1], "difference": {"nme": float(difference.mean()), "nme_low": low, "nme_high": high}}
    if options.json:
        print(json.dumps(rows[0]))
        return
    of_all = "" if len(frames) == len(everything) else f" of {len(everything)}"
    print(f"{frames.data}, {options.split} split, {options.part}: {len(frames)}{of_all} frames of {len(set(frames.people))} "
          f"people, labels {frames.labels}; % of {options.normalizer}")
    shown = [(path.name if len(paths) < 2 else str(path), metrics)
             for path, (metrics, _, _) in zip(paths, results, strict=True)]
    print(table(shown + baselines(frames, everything, options.split, options.normalizer)))
    if len(results) == 2:
        d = rows[0]["difference"]
        verdict = "within the noise" if d["nme_low"] <= 0 <= d["nme_high"] else "more than noise"
        print(f"second minus first: {d['nme']:+.2f} ({d['nme_low']:+.2f} to {d['nme_high']:+.2f}), {verdict}")
    for (path, (_, nme, _)) in zip(paths, results, strict=True):
        for row in np.argsort(-nme)[:options.worst]:
            print(f"{path.name}: {frames.names[row]} {nme[row]:.2f}")


if __name__ == "__main__":
    run(main)
