"""Knowledge distillation: labels refined by the predictions of a trained network."""

from pathlib import Path

import numpy as np

from research.data.frames import Frames
from research.data.label_shift import match_label_convention
from research.evaluation.prediction import predict_frames
from research.networks.registry import find_weights, load_checkpoint


def refine_labels(frames: Frames, teacher: str | Path) -> tuple[Frames, dict]:
    """Knowledge distillation: replace each label by the mean of the label and the prediction of the
    teacher network. Returns the frames, and the teacher's checkpoint.

    Quantized labels are noisy, and a larger network averages this noise out. The predictions are
    averaged over each crop and its mirror image, and moved by the shift that these labels have.
    """
    net, content = load_checkpoint(find_weights(teacher))
    predictions = match_label_convention(
        frames, predict_frames(net, frames, mirrored=True), content["data"]
    )
    frames = frames.select(np.arange(len(frames)))
    frames.points = (frames.points + predictions.astype(np.float32)) / 2
    return frames, content
