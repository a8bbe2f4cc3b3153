"""How frames become samples: data sets by name, label correction, splits, the dataset; transforms by their names."""

import argparse
import hashlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import passive_threads  # noqa: F401 - before PyTorch
from torch.utils.data import Dataset, Sampler

from errors import DataError, UsageError, run
from pictures import read_image
from sources import Frames, is_official, load_folder, load_official
from transforms import (
    AUGMENTATIONS, Augment, Compose, FaceCrop, Normalize, RandomCrop, Rescale, ToTensor, crop_image, crop_matrix,
    data_transform, evaluation_transform, inter_ocular, tight_box, to_points, to_targets, training_transform, turned,
)

__all__ = [
    "AUGMENTATIONS", "Augment", "Compose", "EpochSampler", "FaceCrop", "FacialKeypointsDataset", "Frames", "Normalize",
    "RandomCrop", "Rescale", "ToTensor", "crop_image", "crop_matrix", "data_transform", "evaluation_transform",
    "inter_ocular", "label_shift", "learned_shift", "load_frames", "read_image", "split_frames", "tight_box", "to_points",
    "to_targets", "training_transform", "turned",
]

SPLITS = ("official", "person")
PARTS = ("training", "validation", "test", "all-training", "all")
LABELS = ("corrected", "published")
KEPT = 300_000_000  # bytes of decoded gray frames that a dataset keeps in memory; what is beyond is decoded again
AT_ONCE = 4  # archives of a sharded set that are shuffled together, and read at once

# The official labels sit to the right of and below the features: by 0.48 px and 1.88 % of the distance between the
# outer eye corners. Measured in x by symmetry (python audit.py), taken over to y: docs/data.md says why.
SHIFT_PIXELS, SHIFT_INTER_OCULAR = 0.48, 0.0188


# ---------------------------------------------------------------- data sets, labels, splits

def load_frames(data="sample", labels="corrected"):
    """Load a data set: 'sample' (drawn faces), 'official', or the path of a folder or zip -> Frames.

    `labels='corrected'` takes the known shift out of the official labels; other data sets have none to take out
    and keep their labels as published. Raises DataError (what is wrong with the files) or UsageError.
    """
    if labels not in LABELS:
        raise UsageError(f"labels must be one of {', '.join(LABELS)}, not {labels!r}")
    if data == "sample":
        from sample_faces import sample_archive

        frames = load_folder(sample_archive(), "sample")
        frames.kind = "sample"
    elif data == "official":
        frames = load_official()
    elif data and Path(data).exists():
        frames = load_folder(data)
        frames.kind = "official" if is_official(frames) else frames.kind
    else:
        raise DataError(f"{data!r}: no such data set; give 'sample', 'official' or the path of a folder or zip")
    if labels == "corrected" and frames.kind == "official":
        frames.points = frames.points - label_shift(frames.points)
        frames.labels = "corrected"
    return frames


def label_shift(points):
    """Shift of the official labels for keypoints (…, 68, 2) in pixels -> (…, 1, 1), the same in x and y."""
    length = inter_ocular(np.asarray(points, np.float32))
    return (SHIFT_PIXELS + SHIFT_INTER_OCULAR * length)[..., None, None].astype(np.float32)


def learned_shift(points, trained):
    """What a network's answers (…, 68, 2) hold of the official labels' shift -> (…, 1, 2); `trained`: a checkpoint's `data`.

    Nothing unless it learned published labels. Then it is the shift in y alone: training mirrors, and who sees a shift to
    the right as often as one to the left learns neither.
    """
    published = trained.get("kind") == "official" and trained.get("labels") == "published"
    return label_shift(points) * np.float32([0, published])


def person_digit(person):
    """0…9 from the sha256 of a name: which side of the `person` split somebody is on."""
    return int(hashlib.sha256(person.encode()).hexdigest(), 16) % 10


def split_frames(frames, split="person", part="training"):
    """The frames of one part: training, validation, test, all-training (training and validation), or all.

    `person`: no person on two sides; people are dealt out by `person_digit`: 0, 1 test, 2 validation, rest training.
    `official`: as published, the same people on both sides; validation are the training rows of digit 2; training
    frames that are byte for byte a test frame are left out. A set without published sides (`annotations.csv`, photos
    with .pts files and no folder train…) is all test in `official`. Raises DataError for a part without frames.
    """
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if part not in PARTS:
        raise UsageError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    digits = np.array([person_digit(person) for person in frames.people])
    test = digits < 2 if split == "person" else frames.sides == "test"
    validation = (digits == 2) & ~test
    rows = {"test": test, "validation": validation, "training": ~test & ~validation, "all-training": ~test,
            "all": np.ones(len(frames), bool)}[part]
    if split == "official" and "training" in part:
        rows &= ~_copies_of_test(frames)
    if not rows.any():
        people = f"it divides {len(set(frames.people))} people by their names: more people are needed"
        cure = {"person": people + (", or none for validation: --final" if part == "validation" else ""),
                "official": "this data set has no training side: split 'person' divides it by people"}[split]
        raise DataError(f"{frames.data}: the {split} split has no {part} frames; {cure}")
    chosen = frames.select(rows)
    chosen.split = split
    return chosen


def _copies_of_test(frames):
    """(n,) True for training frames whose file is byte for byte that of a test frame."""
    is_test = frames.sides == "test"
    digests = frames.digests()
    return ~is_test & np.isin(digests, digests[is_test])


# ---------------------------------------------------------------- dataset

class FacialKeypointsDataset(Dataset):
    """Annotated frames as samples {'image', 'keypoints', 'row'}, put through `transform(sample, rng)`.

    image: uint8 RGB (h, w, 3), or gray (h, w) with `gray=True`, decoded once and kept in memory as far as KEPT goes.
    keypoints: (68, 2) float32, pixels of the frame. boxes (n, 4) in pixels, if given, are what `FaceCrop` crops around
    instead of the keypoints' own. row: which frame it is. `dataset[epoch * len(dataset) + index]` is frame `index` as
    epoch `epoch` sees it: chance comes from (seed, epoch, index) alone, the same whatever the number of workers.
    finish: pairs (epoch, transform), in order; from each epoch on that transform is used instead.
    """

    def __init__(self, frames, transform=None, gray=False, seed=0, boxes=None, finish=()):
        self.frames, self.transform, self.seed, self.boxes, self.finish = frames, transform, seed, boxes, finish
        self.gray, self.images, room = gray, [], KEPT
        while gray and room > 0 and len(self.images) < len(frames):
            self.images.append(self.decoded(len(self.images)))
            room -= self.images[-1].nbytes

    def __len__(self):
        return len(self.frames)

    def decoded(self, index):
        """Frame `index`, gray if asked for."""
        image = self.frames.image(index)
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if self.gray else image

    def __getitem__(self, position):
        epoch, index = divmod(int(position), len(self))
        if epoch < 0:
            raise IndexError(position)
        image = self.images[index] if index < len(self.images) else self.decoded(index)
        sample = {"image": image, "keypoints": self.frames.points[index], "row": index}
        if self.boxes is not None:
            sample["box"] = self.boxes[index]
        if self.transform is None:
            return sample
        transform = [self.transform, *(later for start, later in self.finish if start <= epoch)][-1]
        return transform(sample, np.random.default_rng((self.seed, epoch, index)))

    def __iter__(self):  # without it, Python's old protocol would go on into the epochs for ever
        return (self[i] for i in range(len(self)))


class EpochSampler(Sampler):
    """All rows of a dataset of `length` in an order that depends on (seed, epoch) alone; set `epoch` before each.

    shards: (length,) the archive of each row. With several, archives come in a random order, and rows are shuffled
    within AT_ONCE of them, so that a set larger than memory is read as a stream.
    """

    def __init__(self, length, seed=0, shards=None):
        self.length, self.seed, self.epoch = length, seed, 0
        self.shards = np.zeros(length, int) if shards is None else np.asarray(shards)

    def __len__(self):
        return self.length

    def __iter__(self):
        rng, kinds = np.random.default_rng((self.seed, self.epoch)), np.unique(self.shards)
        if len(kinds) > 1:
            kinds = rng.permutation(kinds)
            windows = [np.isin(self.shards, kinds[i:i + AT_ONCE]) for i in range(0, len(kinds), AT_ONCE)]
            order = np.concatenate([rng.permutation(np.flatnonzero(window)) for window in windows])
        else:
            order = rng.permutation(self.length)
        return iter((self.epoch * self.length + order).tolist())


# ---------------------------------------------------------------- command

def leaks(frames, split):
    """How many people, videos and frames the test part shares with the training and validation parts."""
    test = split_frames(frames, split, "test")
    rest = split_frames(frames, split, "all-training")
    shared = {"people": np.intersect1d(test.people, rest.people), "videos": np.intersect1d(test.videos, rest.videos)}
    shared["frames"] = np.intersect1d(test.digests(), rest.digests())
    return {key: len(value) for key, value in shared.items()}


def main():
    parser = argparse.ArgumentParser(description="Print the splits of a data set and what leaks between their sides.")
    parser.add_argument("--data", default="sample", help="sample, official, or a folder or zip (default: %(default)s)")
    frames = load_frames(parser.parse_args().data, "published")
    print(f"{frames.data}: {len(frames)} annotated frames")
    for split in SPLITS:
        sizes = defaultdict(str)
        for part in PARTS[:3]:
            try:
                rows = split_frames(frames, split, part)
                sizes[part] = f"{len(rows)} frames of {len(set(rows.people))} people"
            except DataError:
                sizes[part] = "none"
        print(f"\n{split} split\n" + "\n".join(f"  {part:<11} {size}" for part, size in sizes.items()))
        if "none" in (sizes["test"], sizes["training"]):
            continue
        shared = leaks(frames, split)
        print("  shared between test and the rest: " + ", ".join(f"{n} {what}" for what, n in shared.items()))
        if split == "person" and any(shared.values()):
            raise DataError("the person split leaks")


if __name__ == "__main__":
    run(main)
