"""Metrics of facial keypoints: NME, failure rate, AUC, bootstrap intervals; jitter and lag."""

import numpy as np

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import crop_matrix, inter_ocular, tight_box, to_targets
from research.frames import Frames


def jitter(points: np.ndarray) -> float:
    """Keypoints over time (t, n, 2) of a face at rest -> root mean square distance of points from
    their mean place."""
    points = np.asarray(points, np.float64)
    return float(np.sqrt(np.square(points - points.mean(0)).sum(-1).mean()))


def lag(points: np.ndarray, truth: np.ndarray, most: int = 6) -> float:
    """By how many frames predictions (t, n, 2) follow the truth (t, n, 2) late: where their mean
    difference is least."""
    predictions, truth = (np.asarray(p, np.float64).mean(1) for p in (points, truth))
    predictions, truth = predictions - predictions.mean(0), truth - truth.mean(0)
    times, delays = np.arange(len(truth)), np.linspace(0, most, 20 * most + 1)
    rows = times >= most

    def late_by(delay):
        return np.stack([np.interp(times[rows] - delay, times, truth[:, axis]) for axis in (0, 1)],
                        1)

    errors = [np.square(late_by(delay) - predictions[rows]).mean() for delay in delays]
    return float(delays[int(np.argmin(errors))])


REGIONS = {"jaw": range(17), "brows": range(17, 27), "nose": range(27, 36), "eyes": range(36, 48),
           "mouth": range(48, 68)}
NORMALIZERS = ("outer-eyes", "inter-pupil", "box-diagonal")



def normalizer_length(truth: np.ndarray, normalizer: str = "outer-eyes") -> np.ndarray:
    """Length (n,) that errors on keypoints (n, 68, 2) are divided by.

    outer-eyes: points 36 to 45, the inter-ocular distance of 300-W (Sagonas et al., ICCV-W 2013);
    inter-pupil: centers of the two eyes' six points; box-diagonal: of the tight box.
    """
    if normalizer not in NORMALIZERS:
        raise UsageError(f"normalizer must be one of {', '.join(NORMALIZERS)}, not {normalizer!r}")
    if normalizer == "outer-eyes":
        return inter_ocular(truth)
    if normalizer == "inter-pupil":
        return np.linalg.norm(truth[:, 36:42].mean(1) - truth[:, 42:48].mean(1), axis=-1)
    return np.linalg.norm(tight_box(truth)[:, 2:], axis=-1)


def point_errors(points: np.ndarray, truth: np.ndarray,
                 normalizer: str = "outer-eyes") -> np.ndarray:
    """Keypoints (n, 68, 2), any one unit -> error of each point (n, 68) in % of the normalizer."""
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    if points.shape != truth.shape:
        raise ValueError(f"predictions {points.shape} and truth {truth.shape} differ in shape")
    if not np.isfinite(points).all():
        raise DataError(f"face {int(np.argmin(np.isfinite(points).all((1, 2))))} has predictions "
                        "that "
                        "are no numbers")
    length = normalizer_length(truth, normalizer)
    if not (length > 0).all():
        raise DataError(f"face {int(np.argmin(length))} has a {normalizer} distance of 0; its "
                        "error is undefined")
    return 100 * np.linalg.norm(points - truth, axis=-1) / length[:, None]


def debias(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Take the mean offset of each point over these faces, in units of the inter-ocular distance,
    out of `points`.

    points, truth: (n, 68, 2) in any one unit -> (n, 68, 2) in that unit.
    """
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    length = normalizer_length(truth)[:, None, None]
    return points - length * ((points - truth) / length).mean(0)


def failure_rate(nme: np.ndarray, limit: float) -> float:
    """Share in % of faces whose NME (n,) is above `limit` %."""
    return float(100 * np.mean(np.asarray(nme) > limit))


def area_under_curve(nme: np.ndarray, limit: float = 8.0) -> float:
    """Area in % under the cumulative error curve up to `limit` %, exactly: the mean of max(0, 1 -
    nme / limit)."""
    return float(100 * np.mean(np.maximum(0, 1 - np.asarray(nme) / limit)))


def bootstrap(values: np.ndarray, groups: np.ndarray | None = None, draws: int = 2000,
              seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `values` (n,) by drawing whole groups (people) with replacement.

    Frames of one person are alike: drawing frames one by one would make the interval too narrow.
    Efron, 1979. Where all are of one group, or groups are not known, values are drawn.
    """
    values = np.asarray(values, np.float64)
    alone = groups is None or len(set(groups)) == 1
    _, group = np.unique(np.arange(len(values)) if groups is None or alone else groups,
                         return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def summarize(points: np.ndarray, truth: np.ndarray, people: np.ndarray | None = None,
              normalizer: str = "outer-eyes") -> dict:
    """All metrics of predictions (n, 68, 2) against the truth as a dictionary; percentages as
    numbers."""
    errors = point_errors(points, truth, normalizer)
    nme = errors.mean(1)
    low, high = bootstrap(nme, people)
    offset = ((points - truth) / normalizer_length(truth, normalizer)[:, None, None]).mean((0, 1))
    return {
        "n": len(nme), "nme": float(nme.mean()), "nme_low": low, "nme_high": high,
        "nme_debiased": float(point_errors(debias(points, truth), truth, normalizer).mean()),
        "fr8": failure_rate(nme, 8), "fr10": failure_rate(nme, 10), "auc8": area_under_curve(nme),
        "regions": {name: float(errors[:, list(rows)].mean()) for name, rows in REGIONS.items()},
        "offset": (100 * offset).tolist(), "points": errors.mean(0).tolist(),
        "normalizer": normalizer,
    }


def mean_shape(training: Frames) -> np.ndarray:
    """Mean targets (68, 2) of training frames in their crops: what a network that ignores its input
    would predict."""
    return to_targets(training.points, crop_matrices(training.points), 1).mean(0)


def crop_matrices(points: np.ndarray, side: int = 1) -> np.ndarray:
    """Matrices (n, 2, 3) of the crops around keypoints (n, 68, 2); to targets and back, any side
    gives the same."""
    return np.stack([crop_matrix(box, side) for box in tight_box(points)])


def rounding_bound(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Predictions that are the truth up to a whole pixel, which is what a perfect network scores on
    rounded labels."""
    return truth + np.random.default_rng(seed).uniform(-0.5, 0.5, truth.shape).astype(np.float32)
