"""Faces of one photo or of nearly the same photo, so that a split keeps them on one side."""

import re
from collections.abc import Iterable

import cv2
import numpy as np

from research.data.frames import Frames

AFLW_NAME = re.compile(r"image(\d{5})(_\d+)?\.\w+$")  # of AFLW's photos, and of crops from them
# Faces of one photo have neighboring numbers in AFLW. Crops are numbered by face.
NEIGHBORS = 3
HASH_SIDE = 16
MAX_DIFFERENCE = 40  # of 256 bits; pairs up to here were looked at, and show one photo twice
MAX_SIDE = 200  # pixels; larger images are whole photos, with one number for all their faces


def is_aflw(names: Iterable[str]) -> bool:
    """True if all names of frames are those of photos of AFLW."""
    return all(AFLW_NAME.search(name) for name in names)


def photo_groups(frames: Frames) -> np.ndarray:
    """A name (n,) for each frame of AFLW, the same for frames that may show one photo: whose
    numbers differ by at most NEIGHBORS, in a chain, or (for crops of faces) whose difference
    hashes differ by at most MAX_DIFFERENCE bits."""
    found = [AFLW_NAME.search(name) for name in frames.names]
    numbers = np.array([int(match[1]) for match in found if match])
    order = np.argsort(numbers, kind="stable")
    group = np.empty(len(frames), int)
    group[order] = np.cumsum(np.diff(numbers[order], prepend=numbers[order[0]]) > NEIGHBORS)
    if len(frames) > 1 and max(frames.image(0).shape[:2]) <= MAX_SIDE:
        for first, second in near_duplicates(frames):
            group[group == group[second]] = group[first]
    return np.array([f"photos {number}" for number in group])


def near_duplicates(frames: Frames) -> np.ndarray:
    """Pairs of rows (m, 2) whose images are nearly the same, by their difference hashes."""
    hashes = np.stack([difference_hash(frames.image(row)) for row in range(len(frames))])
    signs, pairs = hashes.astype(np.float32) * 2 - 1, []
    for start in range(0, len(signs), 1024):
        alike = signs[start : start + 1024] @ signs.T
        rows, others = np.nonzero(alike >= signs.shape[1] - 2 * MAX_DIFFERENCE)
        pairs.append(np.column_stack([rows + start, others])[rows + start < others])
    return np.concatenate(pairs)


def difference_hash(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> 256 bits: whether gray levels rise from left to right in the middle of
    the image, at 16×16 places."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edge = np.array(gray.shape) // 8
    middle = gray[edge[0] : -edge[0] or None, edge[1] : -edge[1] or None]
    small = cv2.resize(middle, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    return (np.diff(small.astype(int), axis=1) > 0).ravel()
