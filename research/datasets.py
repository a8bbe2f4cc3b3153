"""Data sets by name, with corrected labels, and their splits into training, validation and test."""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.layouts import Layout, convert_points, load_layout
from research.data.folders import load_folder
from research.data.frames import Frames
from research.data.official import is_official, load_official
from research.data.label_shift import label_shift
from research.data.photo_groups import is_aflw, photo_groups
from research.synthetic.faces import sample_archive

SPLITS = ("official", "person")
SPLIT_PARTS = ("training", "validation", "test", "all-training", "all")
LABELS = ("corrected", "published")


def load_frames(
    data: str = "sample", labels: str = "corrected", layout: str | Layout | None = None
) -> Frames:
    """Load a data set: 'sample' (synthetic faces), 'official', or the path of a folder, zip or file
    of labels -> Frames.

    layout: of the keypoints, by name, .toml file or object. For a path the data's own is the
    default (`load_folder`); the points of 'sample' and 'official' are converted to another layout,
    with missing points where that is not possible.

    `labels='corrected'` removes the known shift from the official labels. The labels of other data
    sets are not changed. Raises DataError if the files are missing or wrong, UsageError for unknown
    `labels`.
    """
    if labels not in LABELS:
        raise UsageError(f"labels must be one of {', '.join(LABELS)}, not {labels!r}")
    if data == "sample":
        frames = load_folder(sample_archive(), "sample")
        frames.kind = "sample"
    elif data == "official":
        frames = load_official()
    elif data and Path(data).exists():
        frames = load_folder(data, layout=layout)
        frames.kind = "official" if is_official(frames) else frames.kind
        if is_aflw(frames.names):
            frames.people, frames.kind = photo_groups(frames), "merlrav"
    else:
        raise DataError(
            f"{data!r}: no such data set; give 'sample', 'official' or the path of a folder or zip"
        )
    if labels == "corrected" and frames.kind == "official":
        frames.points = frames.points - label_shift(frames.points)
        frames.labels = "corrected"
    if layout and data in ("sample", "official"):
        frames = convert_frames(frames, layout)
    return frames


def convert_frames(frames: Frames, layout: str | Layout) -> Frames:
    """Frames with their keypoints in another layout; points that cannot be derived are missing.
    Raises UsageError where fewer than two can."""
    layout = load_layout(layout)
    points = convert_points(frames.points, frames.layout, layout)
    if (~np.isnan(points).any(-1)).sum(1).min() < min(2, len(layout)):
        raise UsageError(
            f"layout {layout.name} shares too few keypoints with "
            f"{frames.layout.name}: give its parts and keypoints the same names"
        )
    return replace(frames, points=points, layout=layout)


def add_data_flags(parser: argparse.ArgumentParser, data: str = "sample") -> None:
    """Add the flags --data, --layout, --split and --labels, the arguments of `load_frames` and
    `split_frames`, to the parser of a command. data: the default of --data."""
    shown = "(default: %(default)s)"
    parser.add_argument(
        "--data",
        default=data,
        help=f"sample, official, or a folder, zip or file of labels {shown}",
    )
    parser.add_argument(
        "--layout", help="keypoint layout: a name or a .toml file (default: the data's own)"
    )
    parser.add_argument("--split", default="person", choices=SPLITS, help=shown)
    parser.add_argument(
        "--labels",
        default="corrected",
        choices=LABELS,
        help=f"labels of the official data: published, or corrected for their shift {shown}",
    )


def add_part_flags(
    parser: argparse.ArgumentParser,
    data: str = "official",
    split: str = "person",
    part: str = "validation",
) -> None:
    """Add the flags of `add_data_flags`, and --part, with these defaults."""
    add_data_flags(parser, data)
    parser.set_defaults(split=split)
    parser.add_argument("--part", default=part, choices=SPLIT_PARTS, help="(default: %(default)s)")


def frames_of(options: argparse.Namespace) -> Frames:
    """The frames that the flags of `add_part_flags` choose."""
    frames = load_frames(options.data, options.labels, options.layout)
    return split_frames(frames, options.split, options.part)


def person_digit(person: str) -> int:
    """0…9 from the sha256 of a name; it determines the part of the `person` split."""
    return int(hashlib.sha256(person.encode("utf-8", "surrogateescape")).hexdigest(), 16) % 10


def split_frames(frames: Frames, split: str = "person", part: str = "training") -> Frames:
    """The frames of one part: training, validation, test, all-training (training and validation),
    or all.

    `person`: the parts have no person in common. `person_digit` decides: 0 and 1 test, 2
    validation, the others training. `official`: as published, with the same people
    in training and test. The training frames of people with digit 2 are the validation part, and
    training frames that are identical to a test frame are removed. In a data set without published
    sides (`annotations.csv`, or photos with .pts files and no folder train…), all frames are test
    frames of `official`. Raises DataError for a part without frames.
    """
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if part not in SPLIT_PARTS:
        raise UsageError(f"part must be one of {', '.join(SPLIT_PARTS)}, not {part!r}")
    digits = np.array([person_digit(person) for person in frames.people])
    test = digits < 2 if split == "person" else frames.sides == "test"
    validation = (digits == 2) & ~test
    rows = {
        "test": test,
        "validation": validation,
        "training": ~test & ~validation,
        "all-training": ~test,
        "all": np.ones(len(frames), bool),
    }[part]
    if split == "official" and "training" in part:
        rows &= ~_copies_of_test(frames)
    if not rows.any():
        people = (
            f"it divides {len(set(frames.people))} people by their names: more people are needed"
        )
        cure = {
            "person": people
            + (", or none for validation: --final" if part == "validation" else ""),
            "official": "this data set has no training side: split 'person' divides it by people",
        }[split]
        raise DataError(f"{frames.data}: the {split} split has no {part} frames; {cure}")
    chosen = frames.select(rows)
    chosen.split = split
    return chosen


def _copies_of_test(frames):
    """Mask (n,) of the training frames whose file is identical to the file of a test frame."""
    is_test = frames.sides == "test"
    digests = frames.digests()
    return ~is_test & np.isin(digests, digests[is_test])


def shared_between_sides(frames: Frames, split: str) -> dict[str, int]:
    """How many people, videos and frames the test part shares with the training and validation
    parts."""
    test = split_frames(frames, split, "test")
    rest = split_frames(frames, split, "all-training")
    shared = {
        "people": np.intersect1d(test.people, rest.people),
        "videos": np.intersect1d(test.videos, rest.videos),
    }
    shared["frames"] = np.intersect1d(test.digests(), rest.digests())
    return {key: len(value) for key, value in shared.items()}
