"""The shift of labels, measured with networks that cannot learn it."""

from collections.abc import Callable

import numpy as np
import torch

from facial_keypoints.errors import DataError
from research.data.frames import Frames
from research.datasets import person_digit
from research.evaluation.prediction import predict_in_self_crops
from research.labeling.label_audit import residual_shift


def measure_shift(
    frames: Frames, fit: Callable[[Frames, str], torch.nn.Module]
) -> tuple[np.ndarray, np.ndarray]:
    """Train with mirroring on labels as they are -> the mean offset (n, 2) of the labels of each
    face from the predictions, and the predictions (n, k, 2), both in pixels.

    The network is also trained on the mirror image of every face, with mirrored labels. A shift to
    the right in one is a shift to the left in the other, so the network learns x without the shift.
    The mean difference between labels and predictions is the shift. The people are divided into two
    halves, and each half is predicted by the network trained on the other half, because a network
    can memorize the shifted labels of the faces it was trained on. Predictions are averaged over
    the crop and its mirror image, because a network that is not trained to the end has a shift of
    its own. y offsets do not show a shift that all labels share.

    fit: trains a network on frames; the second argument is a name for the run.
    """
    half = np.array([person_digit(person) % 2 for person in frames.people], bool)
    if half.all() or not half.any():
        raise DataError(
            f"{frames.data}: too few people to divide them into two halves, one for "
            "training and one for measuring"
        )
    predictions = np.empty_like(frames.points)
    for side in (False, True):
        net = fit(frames.select(half == side), f"half{side:d}")
        predictions[half != side] = predict_in_self_crops(
            net, frames.select(half != side), steps=8, mirrored=True
        )
    return residual_shift(frames.points, predictions), predictions
