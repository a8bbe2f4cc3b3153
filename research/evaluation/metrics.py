"""Metrics of facial keypoints: NME, failure rate, AUC, bootstrap intervals; jitter and lag."""

import numpy as np

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import crop_matrix, tight_box, to_targets
from facial_keypoints.head import as_ibug68, inter_ocular
from facial_keypoints.layouts import Layout, convert_points, load_layout
from research.data.completion import complete_points
from research.data.frames import Frames


def jitter(points: np.ndarray) -> float:
    """Keypoints over time (t, n, 2) of a face at rest -> root mean square distance of points from
    their mean place."""
    points = np.asarray(points, np.float64)
    return float(np.sqrt(np.square(points - points.mean(0)).sum(-1).mean()))


def lag(points: np.ndarray, truth: np.ndarray, most: int = 6) -> float:
    """The lag of predictions (t, n, 2) in frames, with fractions: the delay from 0 to `most` by
    which the truth (t, n, 2) must be moved to fit them best."""
    predictions, truth = (np.asarray(p, np.float64).mean(1) for p in (points, truth))
    predictions, truth = predictions - predictions.mean(0), truth - truth.mean(0)
    times, delays = np.arange(len(truth)), np.linspace(0, most, 20 * most + 1)
    rows = times >= most

    def late_by(delay):
        return np.stack(
            [np.interp(times[rows] - delay, times, truth[:, axis]) for axis in (0, 1)], 1
        )

    errors = [np.square(late_by(delay) - predictions[rows]).mean() for delay in delays]
    return float(delays[int(np.argmin(errors))])


REGIONS = tuple(load_layout().regions)  # of ibug68; other layouts may have others
NORMALIZERS = ("layout", "outer-eyes", "inter-pupil", "box-diagonal", "box-size")


def normalizer_name(normalizer: str, layout: Layout) -> str:
    """The normalizer that 'layout' stands for: the one that the layout names, else the diagonal of
    the tight box; others as they are."""
    if normalizer != "layout":
        return normalizer
    return layout.normalization.name if layout.normalization else "box-diagonal"


def normalizer_length(
    truth: np.ndarray, normalizer: str = "layout", layout: str | Layout = "ibug68"
) -> np.ndarray:
    """Length (n,) that errors on keypoints (n, k, 2) are divided by; missing points are estimated.

    normalizer: 'layout', what the layout names (outer-eyes for ibug68); 'outer-eyes', between the
    outer eye corners, the inter-ocular distance of 300-W (Sagonas et al., ICCV-W 2013);
    'inter-pupil', between the centers of the eyes; 'box-diagonal', of the tight box; 'box-size',
    the square root of its area, as AFLW has it (Köstinger et al., ICCV-W 2011). Raises UsageError
    for another name, and for a layout without these points.
    """
    if normalizer not in NORMALIZERS:
        raise UsageError(f"normalizer must be one of {', '.join(NORMALIZERS)}, not {normalizer!r}")
    layout = load_layout(layout)
    truth = complete_points(np.asarray(truth), layout)
    if normalizer == "layout":
        return layout.normalizer(truth)
    if normalizer == "box-size":
        return np.sqrt(tight_box(truth)[:, 2:].prod(-1))
    if normalizer == "box-diagonal":
        return np.linalg.norm(tight_box(truth)[:, 2:], axis=-1)
    ends = (
        as_ibug68(truth, layout)[:, [36, 45]]
        if normalizer == "outer-eyes"
        else convert_points(truth, layout, "five")[:, :2].astype(np.float64)
    )
    if np.isnan(ends).any():
        raise UsageError(
            f"layout {layout.name} has no points for the normalizer {normalizer}; "
            "give layout or box-diagonal"
        )
    return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)


def point_errors(
    points: np.ndarray,
    truth: np.ndarray,
    normalizer: str = "layout",
    layout: str | Layout = "ibug68",
) -> np.ndarray:
    """Keypoints (n, k, 2), any one unit -> error of each point (n, k) in % of the normalizer; nan
    where the truth is missing."""
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    if points.shape != truth.shape:
        raise ValueError(f"predictions {points.shape} and truth {truth.shape} differ in shape")
    if not np.isfinite(points).all():
        raise DataError(
            f"face {int(np.argmin(np.isfinite(points).all((1, 2))))} has predictions "
            "that "
            "are no numbers"
        )
    length = normalizer_length(truth, normalizer, layout)
    if not (length > 0).all():
        raise DataError(
            f"face {int(np.argmin(length > 0))} has a {normalizer} distance of 0; its "
            "error is undefined"
        )
    return 100 * np.linalg.norm(points - truth, axis=-1) / length[:, None]


def face_errors(errors: np.ndarray) -> np.ndarray:
    """Errors of points (n, k), nan where missing -> the NME of each face (n,), over its labeled
    points."""
    return np.nanmean(errors, axis=1)


def mean_of_labeled(values: np.ndarray) -> np.ndarray:
    """The mean over the faces (n, …) that have a value -> (…); nan where none has."""
    counts = (~np.isnan(values)).sum(0)
    return np.where(counts > 0, np.nansum(values, 0) / np.maximum(counts, 1), np.nan)


def debias(points: np.ndarray, truth: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Remove from `points` the mean offset of each point from the truth. The mean over these faces
    is taken in normalization distances, and each face gets it scaled to its own size.

    points, truth: (n, k, 2) in any one unit -> (n, k, 2) in that unit.
    """
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    length = normalizer_length(truth, "layout", layout)[:, None, None]
    return points - length * np.nan_to_num(mean_of_labeled((points - truth) / length))


def box_errors(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Keypoints (n, k, 2), any one unit -> error of each point (n, k) in % of the square root of
    the area of the tight box of the labeled points; nan where the truth is missing.

    The NME_box of MERL-RAV (Kumar et al., CVPR 2020) is the mean over faces of the mean of these.
    """
    size = np.sqrt(tight_box(truth)[:, 2:].prod(-1).clip(1e-6))
    return 100 * np.linalg.norm(np.asarray(points, np.float64) - truth, axis=-1) / size[:, None]


def ranking_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve in 0…1: the probability that a positive (n,) bool has a higher score
    (n,) than a negative, ties counted half. nan without positives or negatives."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float("nan")
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def failure_rate(nme: np.ndarray, limit: float) -> float:
    """Share in % of faces whose NME (n,) is above `limit` %."""
    return float(100 * np.mean(np.asarray(nme) > limit))


def area_under_curve(nme: np.ndarray, limit: float = 8.0) -> float:
    """Area in % under the cumulative error curve up to `limit` %, exactly: the mean of max(0, 1 -
    nme / limit)."""
    return float(100 * np.mean(np.maximum(0, 1 - np.asarray(nme) / limit)))


def bootstrap(
    values: np.ndarray, groups: np.ndarray | None = None, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of `values` (n,) by drawing whole groups (people) with replacement.

    Frames of one person are alike: drawing frames one by one would make the interval too narrow.
    Efron, 1979. Where all are of one group, or groups are not known, values are drawn.
    """
    values = np.asarray(values, np.float64)
    alone = groups is None or len(set(groups)) == 1
    _, group = np.unique(
        np.arange(len(values)) if groups is None or alone else groups, return_inverse=True
    )
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


# Pairs of keypoints of ibug68 whose mean distance measures how faces differ.
FACE_MEASURES = {
    "eye opening": ((37, 41), (38, 40), (43, 47), (44, 46)),
    "upper lip": ((51, 62),),
    "nose width": ((31, 35),),
    "nose to lip": ((33, 51),),
    "jaw width": ((3, 13),),
    "mouth width": ((48, 54),),
}


def face_measures(points: np.ndarray) -> dict[str, np.ndarray]:
    """Keypoints of ibug68 (n, 68, 2) -> for each of FACE_MEASURES its length (n,) in pixels; nan
    where a keypoint is missing."""
    return {
        name: np.mean(
            [np.linalg.norm(points[:, a] - points[:, b], axis=-1) for a, b in pairs], axis=0
        )
        for name, pairs in FACE_MEASURES.items()
    }


def measure_slopes(
    points: np.ndarray, truth: np.ndarray, layout: str | Layout = "ibug68"
) -> dict[str, list[float]]:
    """For each of FACE_MEASURES the slope of the predicted on the true length, and their
    correlation: a slope of 0 means that every face gets the mean face's length. Both are nan with
    fewer than three faces, or where all true lengths are the same.

    Both lengths are in inter-ocular distances of the true points: in those of the predictions, a
    face whose predicted eyes are near each other would outweigh all others.
    """
    found = {}
    points, truth = (as_ibug68(np.asarray(a, np.float64), layout) for a in (points, truth))
    unit = inter_ocular(truth)
    predicted = face_measures(points)
    for name, true in face_measures(truth).items():
        known = np.isfinite(true) & np.isfinite(predicted[name]) & (unit > 0)
        x, y = true[known] / unit[known], predicted[name][known] / unit[known]
        enough = known.sum() > 2 and x.std() > 1e-9
        slope = float(np.cov(x, y)[0, 1] / x.var(ddof=1)) if enough else float("nan")
        alike = float(np.corrcoef(x, y)[0, 1]) if enough and y.std() > 1e-9 else float("nan")
        found[name] = [slope, alike]
    return found


def summarize(
    points: np.ndarray,
    truth: np.ndarray,
    people: np.ndarray | None = None,
    normalizer: str = "layout",
    layout: str | Layout = "ibug68",
) -> dict:
    """All metrics of predictions (n, k, 2) against the truth, as a dictionary. Values in % are
    stored as 3.5, not as 0.035.

    fr8, fr10: failure rates above 8 and 10 %; auc8: see `area_under_curve`; offset: mean (x, y),
    and points: mean error of each point, both in % of the normalizer; measures: see
    `measure_slopes`. Missing points of the truth (nan) take no part.
    """
    layout = load_layout(layout)
    errors = point_errors(points, truth, normalizer, layout)
    nme = face_errors(errors)
    low, high = bootstrap(nme, people)
    length = normalizer_length(truth, normalizer, layout)[:, None, None]
    offset = np.nanmean((points - truth) / length, axis=(0, 1))
    without_offset = point_errors(debias(points, truth, layout), truth, normalizer, layout)
    return {
        "n": len(nme),
        "nme": float(nme.mean()),
        "nme_low": low,
        "nme_high": high,
        "nme_debiased": float(face_errors(without_offset).mean()),
        "fr8": failure_rate(nme, 8),
        "fr10": failure_rate(nme, 10),
        "auc8": area_under_curve(nme),
        "regions": {
            name: float(np.nanmean(errors[:, rows]))
            if np.isfinite(errors[:, rows]).any()
            else float("nan")
            for name, rows in layout.regions.items()
        },
        "offset": (100 * offset).tolist(),
        "points": mean_of_labeled(errors).tolist(),
        "measures": measure_slopes(points, truth, layout),
        "normalizer": normalizer_name(normalizer, layout),
        "layout": layout.name,
    }


def mean_shape(training: Frames) -> np.ndarray:
    """Mean targets (k, 2) of training frames in their crops: what a network that ignores its input
    would predict; 0, the center, for points that no frame has."""
    targets = to_targets(training.points, crop_matrices(training), 1)
    return np.nan_to_num(mean_of_labeled(targets)).astype(np.float32)


def crop_matrices(frames: Frames, side: int = 1) -> np.ndarray:
    """Matrices (n, 2, 3) of the crops around the keypoints of frames; targets do not depend on
    `side`."""
    return np.stack(
        [crop_matrix(box, side, scale=frames.layout.crop_scale) for box in frames.boxes()]
    )


def rounding_bound(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """The truth (n, k, 2) in pixels, moved by up to half a pixel in x and y. Its error is that of a
    perfect network on labels rounded to whole pixels, without the coarser grid of the official
    labels."""
    return truth + np.random.default_rng(seed).uniform(-0.5, 0.5, truth.shape).astype(np.float32)
