"""What happens to the network and to the frames before the first epoch."""

from dataclasses import dataclass
from typing import Any

import torch

from facial_keypoints.layouts import Layout, load_layout
from research.data.completion import with_shape
from research.data.frames import Frames
from research.networks.checkpoints import read_checkpoint
from research.networks.contract import layout_of
from research.networks.transfer import Origins, measured_fit, transfer_weights
from research.scaling.distributed import print_rank_zero
from research.training.distillation import refine_labels


@dataclass(frozen=True)
class Prepared:
    """Training frames as the network sees them, and what the checkpoint says about them.

    data: the set, its labels, and all frames and sources that influenced the weights
    minutes: of the trainings that this one starts from
    """

    frames: Frames
    data: dict
    minutes: float


def training_layout(frames: Frames) -> Layout:
    """The layout of the frames, with the mean face of these frames if it names none."""
    return with_shape(frames.layout, frames.points)


def prepare_training(
    net: torch.nn.Module, frames: Frames, init: str, teacher: str, hidden: str
) -> Prepared:
    """Copy the weights of `init` into the network, refine the labels by the teacher, and estimate
    hidden points, each if asked for (`train.TrainingConfig`)."""
    origins = Origins({*frames.names.tolist()}, {frames.kind})
    if hidden == "estimated":
        frames = frames.with_hidden_points()
    if init:
        first = read_checkpoint(init)
        for line in transfer_weights(net, first, init):
            print_rank_zero(line)
        origins.add(first, trained=True)
    if teacher:
        frames, content = refine_labels(frames, teacher)
        origins.add(content)
    data: dict[str, Any] = {
        "data": frames.data,
        "kind": frames.kind,
        "sources": sorted(origins.sources),
        "split": frames.split,
        "labels": frames.labels,
        "frames": sorted(origins.frames),
    }
    if layout_of(net) != load_layout():
        data["fit"] = measured_fit(frames)
    return Prepared(frames, data, origins.minutes)
