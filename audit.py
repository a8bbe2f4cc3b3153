"""What the labels are: their shift, the lattice they lie on, the floor that sets for any score, and the doubtful ones."""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import models
from data_load import (
    SHIFT_INTER_OCULAR, SHIFT_PIXELS, inter_ocular, load_frames, person_digit, split_frames,
)
from errors import DataError, UsageError, named, number, run
from evaluate import point_errors, settled_answers
from formats import open_whole
from models import models5
from train import train


PICTURES = (".png", ".jpg", ".pdf", ".svg")  # what the gallery of doubtful labels may be
# A quarter of the default network: many passes over few frames matter more here than the last digit of each answer.
SMALL = partial(models5.Net, side=64, widths=(32, 64), features=64)


def residual_shift(points, answers):
    """Mean offset (n, 2) of labels from answers over the 68 points of each face, in the same units."""
    return (points - answers).mean(1)


def fit_shift(offset, length, draws=1000, seed=0):
    """Offsets (n,) in px against inter-ocular distances (n,) -> (constant, share of the distance) and their spreads.

    Least squares on offset / length, so that large faces, whose errors are larger, do not rule; spreads by bootstrap.
    """
    design = np.column_stack([1 / length, np.ones_like(length)])
    target = offset / length
    rng, fits = np.random.default_rng(seed), []
    for draw in range(draws + 1):
        rows = np.arange(len(target)) if draw == 0 else rng.integers(0, len(target), len(target))
        fits.append(np.linalg.lstsq(design[rows], target[rows], rcond=None)[0])
    return fits[0], np.std(fits[1:], axis=0)


def periodogram(values, pitch):
    """How strongly numbers (m,) lie on a lattice of each pitch (k,): |mean of exp(2πi value / pitch)|, 0 … 1."""
    return np.abs(np.exp(2j * np.pi * values[:, None] / pitch).mean(0))


def lattice_pitch(values, lowest=1.5, highest=9.0, steps=400):
    """Pitch of the lattice that numbers (m,) lie on, and how strongly: 0 no lattice, 1 all on it.

    The largest peak of the periodogram. Whole pixels make a peak at 1 px, below `lowest`.
    """
    pitch = np.geomspace(lowest, highest, steps)
    strength = periodogram(values, pitch)
    high = strength >= 0.9 * strength.max()  # a lattice is one of half its pitch as well: the widest is meant
    last = np.flatnonzero(high)[-1]
    first = last - np.argmin(high[last::-1]) + 1 if not high[:last].all() else 0
    peak = first + strength[first:last + 1].argmax()
    return float(pitch[peak]), float(strength[peak])


def lattice(points):
    """Pitch in % of the inter-ocular distance and strength (n, 2) of each face's lattice, from x and y alike."""
    rows, length = [], inter_ocular(points)
    for face, unit in zip(points, length, strict=True):
        best = max((lattice_pitch(face[:, axis], max(1.5, 0.03 * unit), max(3.0, 0.09 * unit)) for axis in (0, 1)),
                   key=lambda row: row[1])
        rows.append([100 * best[0] / unit, best[1]])
    return np.array(rows)


def on_cells(points, pitch_share, rng):
    """Points (n, 68, 2) as the arg-max cells of a heat map would have them: `pitch_share` % of the inter-ocular distance."""
    cell = pitch_share / 100 * inter_ocular(points)[:, None, None]
    start = rng.uniform(0, 1, (len(points), 1, 2)) * cell
    return np.round((points - start) / cell) * cell + start


def floors(points, pitch_share, seed=0):
    """NME in % of a perfect network: labels rounded to pixels, to cells, and to both."""
    rng = np.random.default_rng(seed)
    cell = pitch_share / 100 * inter_ocular(points)[:, None, None]
    truth = points + rng.uniform(-0.5, 0.5, points.shape) * np.maximum(cell, 1)
    cells = on_cells(truth, pitch_share, rng)
    return {"pixels": point_errors(np.round(truth), truth).mean(), "cells": point_errors(cells, truth).mean(),
            "both": point_errors(np.round(cells), truth).mean()}


def measure_shift(frames, epochs, folder, bar=True):
    """Train with mirroring on labels as they are -> offsets (n, 2) of labels from answers, and the answers (n, 68, 2).

    A network that sees every face mirrored as well, with mirrored labels, cannot tell a shift to the right from one to
    the left: what it learns in x is the truth plus nothing, and the mean offset of labels from its answers is their shift.
    One half of the people is answered for by the network of the other half: a face that was learned by heart is not
    mirrored any more, it is recognised. Crops stay loose to the end: one that fits the labels shifts with them.
    """
    half = np.array([person_digit(person) % 2 for person in frames.people], bool)
    if half.all() or not half.any():
        raise DataError(f"{frames.data}: too few people to have two halves of them, one to learn from and one to measure on")
    answers = np.empty_like(frames.points)
    for side in (False, True):
        path, _ = train("models5", frames.select(half == side), None, Path(folder) / f"half{side:d}", epochs=epochs,
                        batch_size=16, augment="plain", build=SMALL, bar=bar, finish=((0.6, "gentle"),))
        net = SMALL()
        models.fill(net, models.read_checkpoint(path)["state_dict"], path)
        answers[half != side] = settled_answers(net, frames.select(half != side))
    return residual_shift(frames.points, answers), answers


def trusted(frames, offset, answers, limit=15):
    """(n,) True for faces that the network finds to within `limit` % once the mean offset is taken out; half at least."""
    errors = point_errors(answers + offset.mean(0), frames.points).mean(1)
    return errors <= max(limit, np.median(errors))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="official", help="sample, official, or a folder or zip (default: %(default)s)")
    parser.add_argument("--epochs", type=number(int, 1), default=40, help="of the networks that measure (default: %(default)s)")
    parser.add_argument("--shift", type=number(float, -100, 100), nargs=2, metavar=("PX", "SHARE"),
                        help="put a known shift in x and y into the labels first, to see it come out")
    parser.add_argument("--doubtful", type=named, metavar="FILE",
                        help="draw the most doubtful labels into this picture (.png, .jpg, .pdf or .svg)")
    options = parser.parse_args()
    if options.doubtful and Path(options.doubtful).suffix.lower() not in PICTURES:
        raise UsageError(f"--doubtful {options.doubtful}: a picture's name ends in {', '.join(PICTURES)}")

    everything = load_frames(options.data, "published")
    frames = split_frames(everything, "official", "all-training")
    if options.shift:
        unit = inter_ocular(frames.points)[:, None, None]
        frames.points = frames.points + (options.shift[0] + options.shift[1] * unit).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        offset, answers = measure_shift(frames, options.epochs, folder, bar=sys.stderr.isatty())
    length = inter_ocular(frames.points)
    known = trusted(frames, offset, answers)
    (constant, share), spread = fit_shift(offset[known, 0], length[known])
    print(f"{frames.data}: {len(frames)} training frames, two halves of the people, {options.epochs} epochs under mirroring; "
          f"{100 * known.mean():.0f} % of the faces are known well enough")
    print(f"shift in x: {constant:.2f} ± {spread[0]:.2f} px + {100 * share:.2f} ± {100 * spread[1]:.2f} % of the inter-ocular "
          f"distance (in use for the official set: {SHIFT_PIXELS} px + {100 * SHIFT_INTER_OCULAR:.2f} %)")
    for group in np.array_split(np.flatnonzero(known)[np.argsort(length[known])], 4):
        x, y = offset[group].mean(0)
        print(f"  faces of {length[group].min():5.1f} to {length[group].max():5.1f} px: {x:+.2f} px in x, {y:+.2f} in y "
              "(a shift in y is learned: mirroring cannot show it)")
    cells = lattice(frames.points)
    pitch = np.median(cells[:, 0])
    print(f"lattice: pitch {pitch:.2f} % of the inter-ocular distance "
          f"(median {np.median(cells[:, 0] * length) / 100:.2f} px), "
          f"strength {np.median(cells[:, 1]):.2f}; whole pixels: {100 * np.mean(frames.points % 1 == 0):.0f} % of the numbers")
    print("floor of the NME: " + ", ".join(f"{name} {value:.2f} %" for name, value in floors(frames.points, pitch).items()))
    answers = answers + offset.mean(0)
    errors = point_errors(answers, frames.points).mean(1)
    worst = np.argsort(-errors)[:20]
    print("most doubtful: " + ", ".join(f"{frames.names[i]} ({errors[i]:.0f} %)" for i in worst[:5]))
    if options.doubtful:
        gallery(frames, answers, worst, errors, options.doubtful)


def gallery(frames, answers, rows, errors, path):
    """Draw labels (green) and answers (n, 68, 2) in pixels (coloured) of doubtful frames. Never commit it: it shows people.

    rows: up to 20 indices of frames; errors: NME (n,) in %, for their titles; path: of the picture.
    """
    import matplotlib.pyplot as plt

    import show

    figure, axes = plt.subplots(4, 5, figsize=(15, 12), layout="constrained")
    for axis, row in zip(axes.flat, rows, strict=False):
        show.image_on(axis, frames.image(row), f"{frames.names[row]} {errors[row]:.0f} %")
        show.points_on(axis, answers[row], truth=frames.points[row])
    with open_whole(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:].lower())
    print(f"drawn: {path}")


if __name__ == "__main__":
    run(main)
