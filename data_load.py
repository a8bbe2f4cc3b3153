"""Annotated frames for training: the dataset, the sampler, and the transforms. As a command, it
prints the splits of a data set."""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from facial_keypoints.command import run_command
from facial_keypoints.errors import DataError
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box, to_points, to_targets
from facial_keypoints.head import inter_ocular, yaw_estimate
from facial_keypoints.images import read_image
from research.datasets import (
    add_data_flags,
    SPLITS,
    SPLIT_PARTS,
    load_frames,
    shared_between_sides,
    split_frames,
)
from research.data.frames import Frames
from research.augmentation.head_rotation import TurnedViews
from research.augmentation.transforms import (
    AUGMENTATIONS,
    Augment,
    Compose,
    FaceCrop,
    Normalize,
    RandomCrop,
    Rescale,
    ToTensor,
    data_transform,
    evaluation_transform,
    training_transform,
)

# after research, which sets how PyTorch's threads wait
import torch
from torch.utils.data import Dataset, Sampler

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "Compose",
    "EpochSampler",
    "FaceCrop",
    "FacialKeypointsDataset",
    "Frames",
    "Normalize",
    "RandomCrop",
    "Rescale",
    "ToTensor",
    "add_data_flags",
    "crop_image",
    "crop_matrix",
    "data_transform",
    "evaluation_transform",
    "inter_ocular",
    "load_frames",
    "read_image",
    "split_frames",
    "tight_box",
    "to_points",
    "to_targets",
    "training_transform",
    "yaw_estimate",
]

# bytes of decoded gray frames that a dataset keeps in memory; other frames are decoded again
CACHE_BYTES = 300_000_000
# largest absolute `yaw_estimate` at which a head hides none of its keypoints: about 15 degrees
MAX_FRONTAL = 0.3
SHUFFLE_ARCHIVES = 4  # archives of a sharded set that are shuffled together, and read at once


class FacialKeypointsDataset(Dataset):
    """Annotated frames as samples {'image', 'keypoints', 'visible', 'row'}, and 'box' (4,) where
    `boxes` are used. Each is put through `transform(sample, rng)`; before that, it has:

    image: uint8 RGB (h, w, 3); with `gray=True` gray (h, w), kept in memory up to CACHE_BYTES
    keypoints: (k, 2) float32, in pixels of the frame; nan where missing
    visible: (k,) float32, 1 for visible keypoints and 0 for hidden ones, nan where it is not known:
        as labeled (`Frames.visible`); in turned views 0 for those that the head hides; in other
        samples 1, or nan for missing keypoints and at a yaw above about 15° (a frame whose yaw
        cannot be estimated counts as frontal)
    row: index of the frame

    `dataset[epoch * len(dataset) + index]` is frame `index` as it is transformed in epoch `epoch`:
    randomness depends on (seed, epoch, index) alone, for any number of workers.

    boxes: (n, 4), left, top, width, height in pixels; `FaceCrop` crops around them instead of the
        tight boxes of the keypoints; by default `frames.boxes()` if keypoints are missing
    schedule: pairs (epoch, transform) in order; from that epoch on, this transform replaces the one
        before
    turned: share of the samples that are `TurnedViews` of their frame; needs `gray=True`
    """

    def __init__(
        self,
        frames: Frames,
        transform: Callable | None = None,
        gray: bool = False,
        seed: int = 0,
        boxes: np.ndarray | None = None,
        schedule: Sequence[tuple[int, Callable]] = (),
        turned: float = 0.0,
        bar: bool = True,
    ):
        if boxes is None and np.isnan(frames.points).any():
            boxes = frames.boxes()  # the box of the points that are there would be too small
        self.frames, self.transform, self.seed = frames, transform, seed
        self.boxes, self.schedule = boxes, schedule
        self.visible = frames.visible
        if self.visible is None:
            yaw = np.nan_to_num(yaw_estimate(frames.points, frames.layout))[:, None]
            labeled = ~np.isnan(frames.points).any(-1)
            self.visible = np.where(
                (np.abs(yaw) < MAX_FRONTAL) & labeled, np.float32(1), np.float32(np.nan)
            )
        self.gray, self.images, room = gray, [], CACHE_BYTES
        while gray and room > 0 and len(self.images) < len(frames):
            self.images.append(self.decoded(len(self.images)))
            room -= self.images[-1].nbytes
        self.turned, self.views = (
            turned,
            TurnedViews(frames, seed, bar, torch.get_num_threads()) if turned else None,
        )

    def __len__(self):
        return len(self.frames)

    def decoded(self, index: int) -> np.ndarray:
        """Frame `index`, gray if asked for."""
        image = self.frames.image(index)
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if self.gray else image

    def __getitem__(self, position):
        epoch, index = divmod(int(position), len(self))
        if epoch < 0:
            raise IndexError(position)
        rng = np.random.default_rng((self.seed, epoch, index))
        if self.views is not None and rng.random() < self.turned:
            image, points, visible = self.views(index, rng)
            sample = {
                "image": image,
                "keypoints": points,
                "visible": visible.astype(np.float32),
                "row": index,
            }
        else:
            image = self.images[index] if index < len(self.images) else self.decoded(index)
            points = self.frames.points[index]
            sample = {
                "image": image,
                "keypoints": points,
                "visible": self.visible[index],
                "row": index,
            }
            if self.boxes is not None:
                sample["box"] = self.boxes[index]
        if self.transform is None:
            return sample
        transform = [self.transform, *(later for start, later in self.schedule if start <= epoch)][
            -1
        ]
        return transform(sample, rng)

    def __iter__(self):  # without it, iteration would never end: larger indices are later epochs
        return (self[i] for i in range(len(self)))


class EpochSampler(Sampler):
    """Positions epoch * length + row of all rows of a dataset, in an order that depends on seed,
    epoch and `shards` alone. Set `epoch` before each epoch.

    shards: (length,) the archive of each row. With several, archives come in a random order, and
    rows are shuffled within SHUFFLE_ARCHIVES of them, so that a set larger than memory is read as a
    stream.
    """

    def __init__(self, length: int, seed: int = 0, shards: np.ndarray | None = None):
        self.length, self.seed, self.epoch = length, seed, 0
        self.shards = np.zeros(length, int) if shards is None else np.asarray(shards)

    def __len__(self):
        return self.length

    def __iter__(self):
        rng, kinds = np.random.default_rng((self.seed, self.epoch)), np.unique(self.shards)
        if len(kinds) > 1:
            kinds = rng.permutation(kinds)
            windows = [
                np.isin(self.shards, kinds[i : i + SHUFFLE_ARCHIVES])
                for i in range(0, len(kinds), SHUFFLE_ARCHIVES)
            ]
            order = np.concatenate([rng.permutation(np.flatnonzero(window)) for window in windows])
        else:
            order = rng.permutation(self.length)
        return iter((self.epoch * self.length + order).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print the splits of a data set and what their parts share."
    )
    parser.add_argument(
        "--data",
        default="sample",
        help="sample, official, or a folder, zip or file of labels (default: %(default)s)",
    )
    parser.add_argument("--layout", help="keypoint layout: a name or a .toml file")
    options = parser.parse_args()
    frames = load_frames(options.data, "published", options.layout)
    print(
        f"{frames.data}: {len(frames)} annotated frames, {len(frames.layout)} keypoints "
        f"({frames.layout.name})"
    )
    for split in SPLITS:
        sizes = defaultdict(str)
        for part in SPLIT_PARTS[:3]:
            try:
                rows = split_frames(frames, split, part)
                sizes[part] = f"{len(rows)} frames of {len(set(rows.people))} people"
            except DataError:
                sizes[part] = "none"
        print(
            f"\n{split} split\n" + "\n".join(f"  {part:<11} {size}" for part, size in sizes.items())
        )
        if "none" in (sizes["test"], sizes["training"]):
            continue
        shared = shared_between_sides(frames, split)
        print(
            "  shared between test and the rest: "
            + ", ".join(f"{n} {what}" for what, n in shared.items())
        )
        if split == "person" and any(shared.values()):
            raise DataError(
                "the person split has data leakage: test and other parts share "
                "people, videos or frames"
            )


if __name__ == "__main__":
    run_command(main)
