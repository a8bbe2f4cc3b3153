"""The known shift of the official labels."""

import numpy as np

from facial_keypoints.errors import UsageError
from facial_keypoints.head import proportional_shift, vertical_shift
from facial_keypoints.layouts import load_layout
from research.data.frames import Frames

# The official labels sit to the right of and below the features: by 0.48 px and 1.88 % of the
# distance between the outer eye corners. Measured in x by symmetry (python
# benchmarks/label_quality.py), and assumed for y: see docs/data.md.
SHIFT_PIXELS, SHIFT_INTER_OCULAR = 0.48, 0.0188


def label_shift(points: np.ndarray) -> np.ndarray:
    """Shift of the official labels for keypoints (…, 68, 2) in pixels -> (…, 1, 1) in pixels, equal
    in x and y."""
    return proportional_shift(points, SHIFT_PIXELS, SHIFT_INTER_OCULAR)


def learned_shift(trained: dict) -> list[float]:
    """(pixels, share of the inter-ocular distance) by which the points of a network are too low.
    `trained`: the `data` of its checkpoint.

    (0, 0) unless the network was trained on published official labels. It learns only the shift in
    y: training mirrors half of the samples, so shifts to the right and to the left cancel.
    """
    published = trained.get("kind") == "official" and trained.get("labels") == "published"
    return [SHIFT_PIXELS, SHIFT_INTER_OCULAR] if published else [0.0, 0.0]


def predicted_label_shift(points: np.ndarray, trained: dict) -> np.ndarray:
    """The shift that a network learned from its labels, for its predictions (…, 68, 2) -> (…, 1, 2)
    in pixels; see `learned_shift`."""
    return vertical_shift(points, *learned_shift(trained))


def match_label_convention(frames: Frames, points: np.ndarray, trained: dict) -> np.ndarray:
    """Predictions (n, 68, 2) in pixels, in the convention of the labels of `frames`.

    The known shift is added if these are the published official labels. The shift that the network
    learned is removed; `trained`: the `data` of its checkpoint.
    """
    wanted = frames.kind == "official" and frames.labels == "published"
    if not wanted and not any(learned_shift(trained)):
        return points
    if frames.layout != load_layout():
        raise UsageError(
            "the shift of the official labels is known for the keypoints of ibug68 "
            f"only, not for {frames.layout.name}; use corrected labels"
        )
    return points + wanted * label_shift(points) - predicted_label_shift(points, trained)
