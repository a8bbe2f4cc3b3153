"""Weights of one layout as the start of a network for another, and the crop of the new layout."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from facial_keypoints.errors import DataError
from facial_keypoints.geometry import relative_box, tight_box
from facial_keypoints.head import MIN_HEAD_POINTS, box_fit, head_rows
from facial_keypoints.layouts import Layout, conversion_matrix
from research.networks.checkpoints import load_weights
from research.data.frames import Frames
from research.networks.contract import layout_of
from research.networks.terms import sources_of

SAMPLE = 60  # frames that `measured_fit` looks at


@dataclass
class Origins:
    """What influenced the weights of a training run: names of frames, for the check for data
    leakage; kinds of data sets, for the terms of use; minutes of training before this run."""

    frames: set[str]
    sources: set[str]
    minutes: float = 0.0

    def add(self, content: dict, trained: bool = False) -> None:
        """Add those of a checkpoint. trained: its weights are the start of the run."""
        self.frames |= {*(content["data"].get("frames") or [])}
        self.sources |= {*sources_of(content["data"])}
        minutes = content["metrics"].get("minutes")
        if trained and isinstance(minutes, (int, float)):
            self.minutes += minutes


def transfer_weights(net: torch.nn.Module, content: dict, path: str | Path) -> list[str]:
    """Put the weights of a checkpoint into a network, whose layout may be another.

    Tensors of the same shape are copied. In others the dimensions that belong to keypoints are
    mapped: each keypoint starts from the weights of the old keypoint that `source_points` chooses.
    Returns lines for the user that say what was kept and what was not. Raises DataError if the
    weights are those of another network.
    """
    old, new = content["layout"], layout_of(net)
    if old.keypoints == new.keypoints and content["net"] != type(net).__module__.split(".")[-1]:
        return [transfer_common(net, content, path)]
    if old.keypoints == new.keypoints:
        load_weights(net, content["state_dict"], path)
        return [f"{Path(path).name}: all weights are copied"]
    sources = source_points(old, new)
    state, mapped = {}, []
    for name, own in net.state_dict().items():
        given = content["state_dict"].get(name)
        if not isinstance(given, torch.Tensor):
            raise DataError(f"{path}: weights of another network: {name} is missing")
        if given.shape != own.shape:
            given = map_points(given.float(), own, sources, len(old))
            if given is None:
                raise DataError(f"{path}: weights of another network: {name} is of another shape")
            mapped.append(name)
        state[name] = given
    load_weights(net, state, path)
    same = sum(
        old.keypoints[source] == name
        for source, name in zip(sources.tolist(), new.keypoints, strict=True)
    )
    return [
        f"{Path(path).name}: {len(state) - len(mapped)} of {len(state)} tensors are copied "
        f"from layout {old.name}, {len(mapped)} are initialized ({', '.join(mapped)}). "
        f"Of the {len(new)} keypoints of layout {new.name}, {same} start from the keypoint of "
        f"the same name, {len(new) - same} from other keypoints"
    ]


def transfer_common(net: torch.nn.Module, content: dict, path: str | Path) -> str:
    """Put the weights of another network that have the same name and shape into a network. Its
    other weights keep their random values. Returns a line that says how many are copied. Raises
    DataError if none fits."""
    own, given = net.state_dict(), content["state_dict"]
    common = {
        name: value
        for name, value in own.items()
        if value.is_floating_point()
        and isinstance(given.get(name), torch.Tensor)
        and given[name].shape == value.shape
    }
    if not common:
        raise DataError(
            f"{path}: weights of network {content['net']}, which has no layer in "
            "common with this one"
        )
    load_weights(net, own | {name: given[name] for name in common}, path)
    return (
        f"{Path(path).name}: weights of {content['net']}; {len(common)} of {len(own)} tensors "
        "have the same name and shape and are copied, the others are initialized"
    )


def source_points(old: Layout, new: Layout) -> np.ndarray:
    """The index of the old keypoint that each new one starts from: (points of new,). The first that
    exists of: the same name; the largest weight of the conversion; the nearest on overlaid typical
    faces; the same order."""
    weights = conversion_matrix(old, new)
    known = ~np.isnan(weights).any(1)
    found = np.round(np.linspace(0, len(old) - 1, len(new))).astype(int)
    if old.shape and new.shape:
        found = np.linalg.norm(
            overlaid(old, new, weights, known)[:, None] - np.array(old.shape), axis=-1
        ).argmin(1)
    found[known] = weights[known].argmax(1)
    return found


def overlaid(old: Layout, new: Layout, weights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The typical shape (points of new, 2) of a new layout, moved and scaled onto that of the old
    one: by the keypoints that both have, else by their tight boxes."""
    shape, other = np.array(new.shape), np.array(old.shape)
    if known.sum() >= MIN_HEAD_POINTS:
        mine, theirs = shape[known], weights[known] @ other
        scale = np.sqrt(
            np.square(theirs - theirs.mean(0)).sum()
            / np.square(mine - mine.mean(0)).sum().clip(1e-12)
        )
        return (shape - mine.mean(0)) * scale + theirs.mean(0)
    mine, theirs = tight_box(shape), tight_box(other)
    return (shape - mine[:2]) / mine[2:].max() * theirs[2:].max() + theirs[:2]


def map_points(
    given: torch.Tensor, own: torch.Tensor, sources: np.ndarray, count: int
) -> torch.Tensor | None:
    """A tensor whose dimensions are multiples of the number of keypoints, `count`, as one of the
    shape of `own`; None where the shapes do not fit. Where inputs of a layer belong to keypoints
    too, each keeps the sum of its weights."""
    if given.ndim != own.ndim:
        return None
    index, result = torch.from_numpy(sources), given
    for axis, (before, after) in enumerate(zip(given.shape, own.shape, strict=True)):
        if before == after:
            continue
        if before % count or after != before // count * len(sources):
            return None
        each = before // count
        parts = result.unflatten(axis, (count, each)).index_select(axis, index)
        if axis == 1:  # an input that several copies of a keypoint share
            shares = 1 / torch.bincount(index, minlength=count)[index].float()
            parts = parts * shares.view(-1, *[1] * (parts.ndim - axis - 1))
        result = parts.flatten(axis, axis + 1)
    return result


def measured_fit(frames: Frames) -> list[float]:
    """The move from the tight box of the 68 keypoints of ibug68, which face detectors give, to that
    of the layout of these frames: (x, y, width, height) as `detectors.to_tight` takes it.

    By the mean head where the layout has enough of its keypoints; else the median over up to SAMPLE
    frames in which the default model finds the labeled face; else the same box.
    """
    if len(head_rows(frames.layout)) >= MIN_HEAD_POINTS:
        return list(box_fit(frames.layout))
    from facial_keypoints.detector import KeypointDetector

    detector, found = KeypointDetector(runtime="onnx"), []
    rows = np.unique(np.linspace(0, len(frames) - 1, min(SAMPLE, len(frames))).astype(int))
    boxes = frames.boxes()
    for row in rows:
        image = frames.image(row)
        middle = boxes[row, :2] + boxes[row, 2:] / 2
        for face in detector(image):
            away = np.abs(face.box[:2] + face.box[2:] / 2 - middle)
            if (away < np.maximum(face.box[2:], boxes[row, 2:]) / 2).all():
                found.append(relative_box(face.box, boxes[row]))
                break
    return np.median(found, 0).tolist() if found else [0.0, 0.0, 1.0, 1.0]
