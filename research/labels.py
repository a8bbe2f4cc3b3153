"""The known shift of the official labels."""

import numpy as np

from facial_keypoints.geometry import proportional_shift, vertical_shift
from research.frames import Frames

# The official labels sit to the right of and below the features: by 0.48 px and 1.88 % of the
# distance between the outer eye corners. Measured in x by symmetry (python
# benchmarks/label_audit.py), taken over to y: docs/data.md says why.
SHIFT_PIXELS, SHIFT_INTER_OCULAR = 0.48, 0.0188


def label_shift(points: np.ndarray) -> np.ndarray:
    """Shift of the official labels for keypoints (…, 68, 2) in pixels -> (…, 1, 1), the same in x
    and y."""
    return proportional_shift(points, SHIFT_PIXELS, SHIFT_INTER_OCULAR)


def learned_shift(trained: dict) -> list[float]:
    """(pixels, share of the inter-ocular distance) by which a network's points lie too low;
    `trained`: a checkpoint's `data`.

    Nothing unless it learned published labels. Then it is the shift in y alone: training mirrors,
    and a network that sees a shift to the right as often as one to the left learns neither.
    """
    published = trained.get("kind") == "official" and trained.get("labels") == "published"
    return [SHIFT_PIXELS, SHIFT_INTER_OCULAR] if published else [0.0, 0.0]


def predicted_label_shift(points: np.ndarray, trained: dict) -> np.ndarray:
    """What predictions (…, 68, 2) hold of the official labels' shift -> (…, 1, 2), see
    `learned_shift`."""
    return vertical_shift(points, *learned_shift(trained))


def match_label_convention(frames: Frames, points: np.ndarray, trained: dict) -> np.ndarray:
    """Predictions as these labels would have them: the known shift is added for the official labels
    as published.

    `trained` is a checkpoint's `data`: what a network that learned published labels holds of the
    shift is taken out.
    """
    wanted = frames.kind == "official" and frames.labels == "published"
    return points + wanted * label_shift(points) - predicted_label_shift(points, trained)
