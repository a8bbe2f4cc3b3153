"""Predictions of a network over annotated frames, and the check for data leakage."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm.auto import tqdm

from facial_keypoints.errors import DataError
from facial_keypoints.geometry import tight_box, to_points
from research.augmentation.transforms import evaluation_transform
from research.data.frames import Frames
from research.networks.contract import input_size, layout_of
from research.networks.registry import predict_all, predict_targets


def crop_batches(
    net: torch.nn.Module, frames: Frames, boxes: np.ndarray | None = None, batch_size: int = 64
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """The crops of frames as a network takes them: pairs of crops (n, 1, side, side) and matrices
    (n, 2, 3), around boxes (n, 4) or else the tight boxes of the labels."""
    transform = evaluation_transform(input_size(net), layout_of(net))
    boxes = frames.boxes() if boxes is None else boxes
    for start in range(0, len(frames), batch_size):
        rows = range(start, min(start + batch_size, len(frames)))
        samples = [
            transform({"image": frames.image(r), "keypoints": frames.points[r], "box": boxes[r]})
            for r in rows
        ]
        yield (
            torch.stack([sample["image"] for sample in samples]),
            np.stack([sample["matrix"].numpy() for sample in samples]),
        )


def predict_frames(
    net: torch.nn.Module,
    frames: Frames,
    batch_size: int = 64,
    bar: bool = False,
    boxes: np.ndarray | None = None,
    mirrored: bool = False,
) -> np.ndarray:
    """Predictions of a network in crops of `boxes` (n, 4), else of the labels' tight boxes: points
    (n, k, 2) in pixels.

    mirrored: the mean of the predictions for each crop and for its mirror image.
    """
    side, points = input_size(net), []
    progress = tqdm(
        total=len(frames), desc="predicting", unit="frame", disable=not bar, leave=False
    )
    with progress:
        for crops, matrices in crop_batches(net, frames, boxes, batch_size):
            targets = predict_targets(net, crops).numpy()
            if mirrored:
                other = predict_targets(net, crops.flip(-1)).numpy()
                other = other[:, layout_of(net).flip_indices]
                targets = (targets + other * np.array([-1, 1], np.float32)) / 2
            points.append(to_points(targets, matrices, side))
            progress.update(len(crops))
    return np.concatenate(points)


def predict_in_self_crops(
    net: torch.nn.Module,
    frames: Frames,
    steps: int = 4,
    mirrored: bool = False,
    first: np.ndarray | None = None,
) -> np.ndarray:
    """Predictions (n, k, 2) in crops around the network's own predictions, as at inference.

    The first crop is centered on the labels, which favors a network that predicts the center of the
    crop when it is uncertain. Each further step crops around the last prediction, so after `steps`
    predictions little of this bias remains. first: the predictions (n, k, 2) in the first crops,
    if they are known already.
    """
    points = predict_frames(net, frames, mirrored=mirrored) if first is None else first
    boxes = None
    for _ in range(steps - 1):
        last, boxes = boxes, tight_box(points)
        # all points at one place, as untrained networks predict them, have no box
        lost = boxes[:, 2:].max(1) < 1
        if lost.any():
            boxes[lost] = (frames.boxes() if last is None else last)[lost]
        points = predict_frames(net, frames, boxes=boxes, mirrored=mirrored)
    return points


def check_leakage(content: dict, frames: Frames, where: str) -> None:
    """Raise DataError if the checkpoint was trained on any of these frames."""
    seen = sorted({*(content["data"].get("frames") or [])} & {*frames.names.tolist()})
    if seen:
        raise DataError(
            f"data leakage: {where} was trained on {len(seen)} of these {len(frames)} "
            f"frames ({seen[0]} is one), so its error would be too low; choose the "
            "split it was trained with, or give --allow-leak"
        )


def visibility_of(net: torch.nn.Module, frames: Frames) -> np.ndarray:
    """The visibility (n, k) that a network predicts in the crops of the labels' tight boxes; its
    confidence, if it predicts no visibility."""
    parts = []
    for crops, _ in crop_batches(net, frames):
        _, confidence, visibility, _ = predict_all(net, crops)
        parts.append(confidence if visibility is None else visibility)
    return torch.cat(parts).numpy()
