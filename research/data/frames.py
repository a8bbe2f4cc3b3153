"""The table of annotated frames."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from facial_keypoints.errors import DataError
from facial_keypoints.geometry import tight_box
from facial_keypoints.images import read_image
from facial_keypoints.layouts import Layout, load_layout
from research.data.completion import complete_points
from research.data.stores import Shards


@dataclass
class Frames:
    """A table of annotated frames. `select` takes rows; `image` decodes one."""

    data: str  # the parameter it was loaded with: sample, official or a path
    names: np.ndarray  # (n,) 'training/NAME' or 'test/NAME'
    points: np.ndarray  # (n, k, 2) float32, pixels of the frame; nan for missing points
    people: np.ndarray  # (n,) names of people
    # 'corrected' where the known shift of the official labels was taken out
    labels: str = "published"
    split: str = ""  # set by split_frames
    # 'official', 'sample', 'layout' (as the official set), 'annotations', 'pts', or a format of
    # `readers`
    kind: str = "layout"
    layout: Layout = field(default_factory=load_layout)  # of the k keypoints
    store: Any = None  # a FrameStore
    paths: Any = field(default=None, repr=False)  # (n,) where each frame lies in the store
    # (n, k) float32, as people labeled it: 1 visible, 0 occluded or on the far side of the head,
    # nan unknown; None where no label says it
    visible: np.ndarray | None = field(default=None, repr=False)
    # (n,) a class of `readers.POSES`, '' where unknown; None where no label says it
    pose: np.ndarray | None = field(default=None, repr=False)

    def __len__(self):
        return len(self.names)

    def select(self, rows: np.ndarray) -> "Frames":
        """The frames of the given rows: a boolean mask or indices."""
        parts = {key: getattr(self, key)[rows] for key in ("names", "points", "people", "paths")}
        visible = None if self.visible is None else self.visible[rows]
        pose = None if self.pose is None else self.pose[rows]
        return replace(self, **parts, visible=visible, pose=pose)

    @property
    def sides(self) -> np.ndarray:
        """(n,) 'training' or 'test', as published."""
        return np.array([name.split("/")[0] for name in self.names])

    @property
    def has_sides(self) -> bool:
        """True if the data set was published with a training and a test side."""
        return len(set(self.sides)) > 1

    @property
    def videos(self) -> np.ndarray:
        """(n,) the clip a frame was taken from: names are Person_<video digit><frame digit>.jpg,
        others stand alone."""
        if self.kind not in ("official", "sample", "layout", "annotations"):
            return np.array([name.split("/", 1)[1] for name in self.names])
        return np.array(
            [re.sub(r"(_\d)\d\.\w+$", r"\1", name.split("/", 1)[1]) for name in self.names]
        )

    @property
    def shards(self) -> np.ndarray:
        """(n,) the archive each frame lies in, counted from 0; all 0 where there is one."""
        if not isinstance(self.store, Shards):
            return np.zeros(len(self), int)
        order = {name: number for number, name in enumerate(self.store.stores)}
        return np.array([order[path.split("/", 1)[0]] for path in self.paths])

    def complete(self) -> np.ndarray:
        """The points (n, k, 2) with estimates in place of missing ones (`complete_points`)."""
        return complete_points(self.points, self.layout)

    def with_hidden_points(self) -> "Frames":
        """The frames with estimated positions of the points that are labeled as hidden, but
        without a position."""
        if self.visible is None:
            return self
        unplaced = (np.isnan(self.points).any(-1) & (self.visible == 0))[..., None]
        return replace(self, points=np.where(unplaced, self.complete(), self.points))

    def boxes(self) -> np.ndarray:
        """The tight boxes (n, 4) of the keypoints in pixels, missing ones estimated."""
        return tight_box(self.complete())

    def lengths(self) -> np.ndarray:
        """(n,) the distance that errors are divided by, in pixels."""
        return self.layout.normalizer(self.complete())

    def digests(self) -> np.ndarray:
        """(n,) sha256 of each frame's file: equal for frames that are byte for byte the same."""
        return np.array([hashlib.sha256(self.store.read(path)).hexdigest() for path in self.paths])

    def image(self, row: int) -> np.ndarray:
        """Decode frame `row`: uint8 RGB (h, w, 3)."""
        try:
            return read_image(self.store.read(self.paths[row]))
        except DataError as error:
            raise DataError(f"{self.store.path}: {self.paths[row]}: {error}") from None
