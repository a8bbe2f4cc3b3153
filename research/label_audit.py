"""Label audit: shift, quantization grid, lower bounds of the NME."""

import numpy as np

from facial_keypoints.geometry import inter_ocular
from research.frames import Frames
from research.metrics import point_errors


def residual_shift(points: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Mean offset (n, 2) of labels from predictions over the 68 points of each face, in the same
    units."""
    return (points - predictions).mean(1)


def fit_shift(offset: np.ndarray, length: np.ndarray, draws: int = 1000,
              seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (n,) in px against inter-ocular distances (n,) -> (constant, share of the distance)
    and their spreads.

    Least squares on offset / length, so that large faces, whose errors are larger, do not rule;
    spreads by bootstrap.
    """
    design = np.column_stack([1 / length, np.ones_like(length)])
    target = offset / length
    rng, fits = np.random.default_rng(seed), []
    for draw in range(draws + 1):
        rows = np.arange(len(target)) if draw == 0 else rng.integers(0, len(target), len(target))
        fits.append(np.linalg.lstsq(design[rows], target[rows], rcond=None)[0])
    return fits[0], np.std(fits[1:], axis=0)


def periodogram(values: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """How strongly numbers (m,) lie on a grid of each pitch (k,): |mean of exp(2πi value /
    pitch)|, 0 … 1."""
    return np.abs(np.exp(2j * np.pi * values[:, None] / pitch).mean(0))


def grid_pitch(values: np.ndarray, lowest: float = 1.5, highest: float = 9.0,
               steps: int = 400) -> tuple[float, float]:
    """Pitch of the grid that numbers (m,) lie on, and how strongly: 0 no grid, 1 all on it.

    The largest peak of the periodogram. Whole pixels make a peak at 1 px, below `lowest`.
    """
    pitch = np.geomspace(lowest, highest, steps)
    strength = periodogram(values, pitch)
    # a grid is one of half its pitch as well: the widest is meant
    high = strength >= 0.9 * strength.max()
    last = np.flatnonzero(high)[-1]
    first = last - np.argmin(high[last::-1]) + 1 if not high[:last].all() else 0
    peak = first + strength[first:last + 1].argmax()
    return float(pitch[peak]), float(strength[peak])


def quantization_grid(points: np.ndarray) -> np.ndarray:
    """Pitch in % of the inter-ocular distance and strength (n, 2) of each face's grid, from x
    and y alike."""
    rows, length = [], inter_ocular(points)
    for face, unit in zip(points, length, strict=True):
        best = max((grid_pitch(face[:, axis], max(1.5, 0.03 * unit), max(3.0, 0.09 * unit))
                    for axis in (0, 1)),
                   key=lambda row: row[1])
        rows.append([100 * best[0] / unit, best[1]])
    return np.array(rows)


def quantize(points: np.ndarray, pitch_share: float, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 68, 2) as the arg-max cells of a heat map would have them: `pitch_share` % of the
    inter-ocular distance."""
    cell = pitch_share / 100 * inter_ocular(points)[:, None, None]
    start = rng.uniform(0, 1, (len(points), 1, 2)) * cell
    return np.round((points - start) / cell) * cell + start


def lower_bounds(points: np.ndarray, pitch_share: float, seed: int = 0) -> dict[str, float]:
    """NME in % of a perfect network: labels rounded to pixels, to cells, and to both."""
    rng = np.random.default_rng(seed)
    cell = pitch_share / 100 * inter_ocular(points)[:, None, None]
    truth = points + rng.uniform(-0.5, 0.5, points.shape) * np.maximum(cell, 1)
    cells = quantize(truth, pitch_share, rng)
    return {"pixels": point_errors(np.round(truth), truth).mean(),
            "cells": point_errors(cells, truth).mean(),
            "both": point_errors(np.round(cells), truth).mean()}


def trusted(frames: Frames, offset: np.ndarray, predictions: np.ndarray,
            limit: float = 15) -> np.ndarray:
    """(n,) True for faces that the network finds to within `limit` % once the mean offset is taken
    out; half at least."""
    errors = point_errors(predictions + offset.mean(0), frames.points).mean(1)
    return errors <= max(limit, np.median(errors))
