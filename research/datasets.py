"""Data sets by name, with corrected labels, and their splits into training, validation and test."""

import hashlib
from pathlib import Path

import numpy as np

from facial_keypoints.errors import DataError, UsageError
from research.frames import is_official, load_folder, load_official, Frames
from research.labels import label_shift
from research.synthetic_faces import sample_archive

SPLITS = ("official", "person")
SPLIT_PARTS = ("training", "validation", "test", "all-training", "all")
LABELS = ("corrected", "published")


def load_frames(data: str = "sample", labels: str = "corrected") -> Frames:
    """Load a data set: 'sample' (synthetic faces), 'official', or the path of a folder or zip ->
    Frames.

    `labels='corrected'` takes the known shift out of the official labels; other data sets have none
    to take out and keep their labels as published. Raises DataError (what is wrong with the files)
    or UsageError.
    """
    if labels not in LABELS:
        raise UsageError(f"labels must be one of {', '.join(LABELS)}, not {labels!r}")
    if data == "sample":
        frames = load_folder(sample_archive(), "sample")
        frames.kind = "sample"
    elif data == "official":
        frames = load_official()
    elif data and Path(data).exists():
        frames = load_folder(data)
        frames.kind = "official" if is_official(frames) else frames.kind
    else:
        raise DataError(f"{data!r}: no such data set; give 'sample', 'official' or the path of a "
                        "folder or zip")
    if labels == "corrected" and frames.kind == "official":
        frames.points = frames.points - label_shift(frames.points)
        frames.labels = "corrected"
    return frames


def person_digit(person: str) -> int:
    """0…9 from the sha256 of a name: which side of the `person` split somebody is on."""
    return int(hashlib.sha256(person.encode()).hexdigest(), 16) % 10


def split_frames(frames: Frames, split: str = "person", part: str = "training") -> Frames:
    """The frames of one part: training, validation, test, all-training (training and validation),
    or all.

    `person`: no person on two sides; people are dealt out by `person_digit`: 0, 1 test, 2
    validation, rest training. `official`: as published, the same people on both sides; validation
    are the training rows of digit 2; training frames that are byte for byte a test frame are left
    out. A set without published sides (`annotations.csv`, photos with .pts files and no folder
    train…) is all test in `official`. Raises DataError for a part without frames.
    """
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if part not in SPLIT_PARTS:
        raise UsageError(f"part must be one of {', '.join(SPLIT_PARTS)}, not {part!r}")
    digits = np.array([person_digit(person) for person in frames.people])
    test = digits < 2 if split == "person" else frames.sides == "test"
    validation = (digits == 2) & ~test
    rows = {"test": test, "validation": validation, "training": ~test & ~validation,
            "all-training": ~test,
            "all": np.ones(len(frames), bool)}[part]
    if split == "official" and "training" in part:
        rows &= ~_copies_of_test(frames)
    if not rows.any():
        people = (
            f"it divides {len(set(frames.people))} people by their names: more people are needed"
        )
        cure = {"person": people
                + (", or none for validation: --final" if part == "validation" else ""),
                "official": "this data set has no training side: split 'person' divides it by "
                            "people"}[split]
        raise DataError(f"{frames.data}: the {split} split has no {part} frames; {cure}")
    chosen = frames.select(rows)
    chosen.split = split
    return chosen


def _copies_of_test(frames):
    """(n,) True for training frames whose file is byte for byte that of a test frame."""
    is_test = frames.sides == "test"
    digests = frames.digests()
    return ~is_test & np.isin(digests, digests[is_test])


def shared_between_sides(frames: Frames, split: str) -> dict[str, int]:
    """How many people, videos and frames the test part shares with the training and validation
    parts."""
    test = split_frames(frames, split, "test")
    rest = split_frames(frames, split, "all-training")
    shared = {"people": np.intersect1d(test.people, rest.people),
              "videos": np.intersect1d(test.videos, rest.videos)}
    shared["frames"] = np.intersect1d(test.digests(), rest.digests())
    return {key: len(value) for key, value in shared.items()}
