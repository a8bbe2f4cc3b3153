"""Label audit: shift, quantization grid, lower bounds of the NME."""

import numpy as np

from facial_keypoints.geometry import inter_ocular
from research.frames import Frames
from research.metrics import face_errors, point_errors


def residual_shift(points: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Mean offset (n, 2) of labels from predictions over the labeled points of each face, in the
    same units."""
    return np.nanmean(points - predictions, axis=1)


def fit_shift(offset: np.ndarray, length: np.ndarray, draws: int = 1000,
              seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Fit offsets (n,) in px by constant + share * inter-ocular distances (n,) in px -> (constant,
    share) and their standard errors (2,).

    Least squares on offset / length, so that large faces, whose errors are larger, do not dominate.
    The standard errors are from `draws` bootstrap samples.
    """
    design = np.column_stack([1 / length, np.ones_like(length)])
    target = offset / length
    rng, fits = np.random.default_rng(seed), []
    for draw in range(draws + 1):
        rows = np.arange(len(target)) if draw == 0 else rng.integers(0, len(target), len(target))
        fits.append(np.linalg.lstsq(design[rows], target[rows], rcond=None)[0])
    return fits[0], np.std(fits[1:], axis=0)


def periodogram(values: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Strength (k,) in 0…1 of a grid of each pitch (k,) in numbers (m,): |mean of exp(2πi value /
    pitch)|."""
    return np.abs(np.exp(2j * np.pi * values[:, None] / pitch).mean(0))


def grid_pitch(values: np.ndarray, lowest: float = 1.5, highest: float = 9.0,
               steps: int = 400) -> tuple[float, float]:
    """Pitch and strength of the grid that numbers (m,) lie on; strength 0: no grid, 1: all numbers
    are on the grid.

    The peak of the periodogram between pitches `lowest` and `highest`. Rounding to whole pixels has
    its peak at 1 px, below `lowest`.
    """
    pitch = np.geomspace(lowest, highest, steps)
    strength = periodogram(values, pitch)
    # numbers on a grid are also on the grid of half its pitch: take the largest pitch
    high = strength >= 0.9 * strength.max()
    last = np.flatnonzero(high)[-1]
    first = last - np.argmin(high[last::-1]) + 1 if not high[:last].all() else 0
    peak = first + strength[first:last + 1].argmax()
    return float(pitch[peak]), float(strength[peak])


def quantization_grid(points: np.ndarray) -> np.ndarray:
    """Rows (n, 2) for keypoints (n, 68, 2) in pixels: pitch of each face's grid in % of the
    inter-ocular distance, and its strength. The axis, x or y, with the stronger grid is used."""
    rows, length = [], inter_ocular(points)
    for face, unit in zip(points, length, strict=True):
        best = max((grid_pitch(face[:, axis], max(1.5, 0.03 * unit), max(3.0, 0.09 * unit))
                    for axis in (0, 1)),
                   key=lambda row: row[1])
        rows.append([100 * best[0] / unit, best[1]])
    return np.array(rows)


def quantize(points: np.ndarray, pitch_share: float, rng: np.random.Generator) -> np.ndarray:
    """Round points (n, 68, 2) to a randomly placed grid per face, like the arg-max of a heat map.
    The cell size is `pitch_share` % of the inter-ocular distance."""
    cell = pitch_share / 100 * inter_ocular(points)[:, None, None]
    start = rng.uniform(0, 1, (len(points), 1, 2)) * cell
    return np.round((points - start) / cell) * cell + start


def lower_bounds(points: np.ndarray, pitch_share: float, seed: int = 0) -> dict[str, float]:
    """NME in % of a perfect network on labels rounded to pixels, to cells, or to both."""
    rng = np.random.default_rng(seed)
    cell = pitch_share / 100 * inter_ocular(points)[:, None, None]
    truth = points + rng.uniform(-0.5, 0.5, points.shape) * np.maximum(cell, 1)
    cells = quantize(truth, pitch_share, rng)
    return {"pixels": point_errors(np.round(truth), truth).mean(),
            "cells": point_errors(cells, truth).mean(),
            "both": point_errors(np.round(cells), truth).mean()}


def trusted(frames: Frames, offset: np.ndarray, predictions: np.ndarray,
            limit: float = 15) -> np.ndarray:
    """Mask (n,) of the faces whose NME is at most `limit` % after the mean offset is removed; at
    least the better half of the faces."""
    errors = face_errors(point_errors(predictions + offset.mean(0), frames.points, "layout",
                                      frames.layout))
    return errors <= max(limit, np.median(errors))
