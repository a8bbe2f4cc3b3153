"""How far eyes and mouth are open, from keypoints; blinks."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from facial_keypoints.errors import UsageError
from facial_keypoints.head import MIN_HEAD_POINTS, as_ibug68, mean_head
from facial_keypoints.layouts import Layout
from facial_keypoints.pose import rigid_points

# pairs of upper and lower points of ibug68, of the person's right eye, left eye and inner lips
RIGHT_EYE, LEFT_EYE = ((37, 41), (38, 40)), ((43, 47), (44, 46))
LIPS = ((61, 67), (62, 66), (63, 65))
# Gaps in inter-ocular distances, as models7 predicts them: the medians of eyes and mouths that
# people labeled as shut, the median of open eyes (benchmarks/closed_eyes.py), and an open mouth
EYE_SHUT, EYE_OPEN = 0.05, 0.10
MOUTH_SHUT, MOUTH_OPEN = 0.02, 0.5
# mean visibility of the points of an eye below which its openness is not given: less than one in a
# thousand visible eyes, and four of five hidden ones (same command)
HIDDEN_EYE = 0.25


@cache
def _solver(layout: str | Layout) -> np.ndarray:
    """(3, m): takes centered rigid points (m, 2) of a layout to the camera that fits best."""
    model = mean_head(layout)[rigid_points(layout)]
    return np.linalg.pinv(model - model.mean(0))


def head_scale(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) -> pixels (…) that one inter-ocular distance takes along the vertical
    axis of the head: the affine camera that takes the mean head to the points says it, whichever
    way the head is turned."""
    rows = rigid_points(layout)
    points = np.asarray(points, np.float64)[..., rows, :]
    camera = _solver(layout) @ (points - points.mean(-2, keepdims=True))
    return np.linalg.norm(camera[..., 1, :], axis=-1)


def gaps(
    points: np.ndarray, groups: Sequence[Sequence[tuple[int, int]]], layout: str | Layout = "ibug68"
) -> np.ndarray:
    """Keypoints (…, k, 2) -> (…, groups): for each group the mean distance of its pairs of points
    of ibug68, in inter-ocular distances along the vertical of the head; nan for layouts without
    these points."""
    if len(rigid_points(layout)) < MIN_HEAD_POINTS:
        return np.full((*np.shape(points)[:-2], len(groups)), np.nan)
    known, unit = as_ibug68(points, layout), np.maximum(head_scale(points, layout), 1e-9)
    lengths = [
        np.linalg.norm(known[..., above, :] - known[..., below, :], axis=-1).mean(-1)
        for above, below in (np.transpose(pairs) for pairs in groups)
    ]
    return np.stack(lengths, -1) / unit[..., None]


def eyes_open(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) -> (…, 2), the person's right and left eye: 0 closed, 1 as open as the
    median eye, whichever way the head is turned; more for wide eyes, slightly below 0 for some
    closed ones. nan for layouts without eyelids.

    The values are for networks whose points follow the eyelids: `models7` and `models8`.
    """
    return (gaps(points, (RIGHT_EYE, LEFT_EYE), layout) - EYE_SHUT) / (EYE_OPEN - EYE_SHUT)


def mouth_open(points: np.ndarray, layout: str | Layout = "ibug68") -> np.ndarray:
    """Keypoints (…, k, 2) -> (…): 0 for closed lips, 1 for a gap of half the distance between the
    outer eye corners. nan for layouts without inner lips."""
    return (gaps(points, (LIPS,), layout)[..., 0] - MOUTH_SHUT) / (MOUTH_OPEN - MOUTH_SHUT)


class BlinkCounter:
    """Counts blinks of one person in a video: `counter(face.eyes_open, seconds)` for each frame ->
    True in the frame in which a blink ends.

    A blink is counted when the mean of both eyes has been below `closed`, and is above `opened`
    again: between the two, noise cannot count twice. Eyes that stay closed for longer than
    `longest` seconds are not a blink. `closed_share()` is the share of the last minute in
    which the eyes were closed (PERCLOS), the usual sign of drowsiness: above 0.15, a driver is
    tired (Wierwille and Ellsworth, 1994).
    """

    def __init__(self, closed: float = 0.35, opened: float = 0.6, longest: float = 0.8):
        if not closed < opened:
            raise UsageError(f"closed ({closed}) must be below opened ({opened})")
        self.closed, self.opened, self.longest = closed, opened, longest
        self.blinks = 0
        self.since: float | None = None  # when the eyes closed
        self.history: list[tuple[float, bool]] = []

    def __call__(self, eyes: np.ndarray, seconds: float) -> bool:
        seen = np.asarray(eyes, float)
        if np.isnan(seen).all():
            return False
        openness, ended = float(np.nanmean(seen)), False
        if openness < self.closed and self.since is None:
            self.since = seconds
        elif openness > self.opened and self.since is not None:
            ended = seconds - self.since <= self.longest
            self.blinks, self.since = self.blinks + ended, None
        self.history = [one for one in self.history if one[0] > seconds - 60]
        self.history.append((seconds, openness < self.closed))
        return ended

    def closed_share(self) -> float:
        """Share of the last minute in which the eyes were closed, 0 before the first frame."""
        if len(self.history) < 2:
            return float(bool(self.history) and self.history[-1][1])
        times = np.array([time for time, _ in self.history])
        shut = np.array([closed for _, closed in self.history])
        spans = np.diff(times)
        return float((spans * shut[:-1]).sum() / max(spans.sum(), 1e-9))
