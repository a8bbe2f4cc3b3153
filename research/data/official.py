"""The official set: where it is found, and the check that it is whole."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from facial_keypoints.errors import DataError
from research import HOME
from research.data.download import download
from research.data.folders import TABLES, load_folder
from research.data.frames import Frames

ADDRESSES = (  # the published archive, and the repository that keeps the same folders
    "https://s3.amazonaws.com/video.udacity-data.com/topher/2018/May/"
    "5aea1b91_train-test-data/train-test-data.zip",
    "https://github.com/udacity/P1_Facial_Keypoints/archive/refs/heads/master.zip",
)
OFFICIAL_ROWS = {"training": 3462, "test": 770}


def load_official(
    folder: str | Path | None = None, addresses: Sequence[str] = ADDRESSES
) -> "Frames":
    """The official set: FACIAL_KEYPOINTS_DATA, else what lies in `folder` (data/), else downloaded
    into it once."""
    given = os.environ.get("FACIAL_KEYPOINTS_DATA")
    if given:
        frames = load_folder(given, "official")
    else:
        folder = Path(folder or HOME / "data")
        archive = folder / "train-test-data.zip"
        if not archive.exists() and not (folder / TABLES["training"]).exists():
            download(
                addresses,
                archive,
                check_official,
                "the official data set",
                f"Fetch train-test-data.zip by hand and place it as {archive}, or set "
                "FACIAL_KEYPOINTS_DATA to its path.",
            )
        frames = load_folder(archive if archive.exists() else folder, "official")
    if frames.kind != "layout":
        raise DataError(
            f"{frames.store.path}: not in the layout of the official set "
            f"({' and '.join(TABLES.values())})"
        )
    frames.kind = "official"
    return frames


def is_official(frames: Frames) -> bool:
    """True if a folder or zip given by path holds the official set: its number of rows on both
    sides."""
    sides = frames.sides
    return frames.kind == "layout" and all(
        (sides == side).sum() == n for side, n in OFFICIAL_ROWS.items()
    )


def check_official(path: Path) -> None:
    """Raise DataError unless `path` holds the whole official set: row counts, and every annotated
    image decodes."""
    frames = load_folder(path)
    for side, expected in OFFICIAL_ROWS.items():
        found = int((frames.sides == side).sum())
        if found != expected:
            raise DataError(f"{path}: {found} {side} rows, expected {expected}")
    for row in tqdm(range(len(frames)), desc="checking images", unit="image", leave=False):
        frames.image(row)
