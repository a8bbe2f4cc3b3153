"""Faces tracked and smoothed over the frames of a video."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from facial_keypoints.detector import BOX_TOLERANCE, ROLL_TOLERANCE, Face
from facial_keypoints.face_model import Person
from facial_keypoints.geometry import boxes_differ, overlap, tight_box
from facial_keypoints.head import level_boxes
from facial_keypoints.layouts import Layout, load_layout

SAME_OVERLAP = 0.2  # a face with a higher IoU with a missed track continues this track
DOUBLED_OVERLAP = 0.5  # a track whose IoU with an older track exceeds this is a duplicate


class OneEuroFilter:
    """The 1€ filter (Casiez, Roussel, Vogel, CHI 2012) on keypoints: little jitter when a face is
    still, little lag when it moves.

    A low-pass filter whose cutoff frequency increases with speed. Speed is in normalization
    distances of the layout (inter-ocular distances for ibug68) per second, so it does not depend on
    the face size. The mean velocity of all points has the large weight `slope`, because noise
    averages out in it. The velocity of a point relative to this mean has the small weight
    `own_slope`. cutoff: cutoff frequency at rest, in Hz; slope, own_slope: in Hz per (normalization
    distance per second); derivative_cutoff: cutoff frequency of the velocity filter, in Hz.
    """

    def __init__(
        self,
        cutoff: float = 0.2,
        slope: float = 12.0,
        own_slope: float = 0.5,
        derivative_cutoff: float = 2.0,
        layout: str | Layout = "ibug68",
    ):
        self.cutoff, self.slope, self.own_slope = cutoff, slope, own_slope
        self.derivative_cutoff, self.layout = derivative_cutoff, load_layout(layout)
        self.points: np.ndarray | None = None  # the last smoothed points (k, 2)
        # the last raw points (k, 2), and velocities (k, 2) in normalization distances per second
        self.raw = self.speed = np.zeros((0, 2))
        self.seconds = 0.0
        self.count = 0

    def __call__(self, points: np.ndarray, seconds: float) -> np.ndarray:
        """Raw keypoints (k, 2) at a time in seconds -> smoothed ones (k, 2)."""
        points = np.asarray(points, np.float64)
        if self.points is None or seconds <= self.seconds:
            self.points, self.raw, self.speed, self.seconds = (
                points,
                points,
                np.zeros_like(points),
                seconds,
            )
            return points.astype(np.float32)
        passed = seconds - self.seconds
        speed = (points - self.raw) / passed / max(float(self.layout.normalizer(points)), 1e-6)
        share = lowpass_weight(self.derivative_cutoff, passed)
        self.speed = self.speed + share * (speed - self.speed)
        common = self.speed.mean(0)
        own = np.linalg.norm(self.speed - common, axis=1, keepdims=True)
        cutoff = self.cutoff + self.slope * np.linalg.norm(common) + self.own_slope * own
        # start like a running mean that favors new frames, so that the error of the first frame
        # does not persist
        self.count += 1
        self.points = self.points + np.maximum(
            lowpass_weight(cutoff, passed), 2 / (self.count + 2)
        ) * (points - self.points)
        self.raw, self.seconds = points, seconds
        return self.points.astype(np.float32)


def lowpass_weight(cutoff: float | np.ndarray, passed: float) -> np.ndarray:
    """Weight of a new value in a low-pass of `cutoff` Hz after `passed` seconds; equation 3 of the
    1€ paper."""
    return 1 / (1 + 1 / (2 * np.pi * np.asarray(cutoff) * passed))


@dataclass
class Track:
    """A face that is tracked: its identity, its last prediction, its filter, and for how many
    frames in a row it has been missed."""

    identity: int
    face: Face
    filter: OneEuroFilter = field(init=False)
    missed: int = 0
    person: Person = field(default_factory=Person)
    # box and roll of the crop in the next frame. They change only when the points have moved by
    # more than a tolerance: otherwise small errors of crop and points would add up
    box: np.ndarray = field(init=False)
    angle: float = field(init=False)

    def __post_init__(self):
        self.start_anew()
        self.box, self.angle = level_box(self.face)

    def follow(self, face: Face) -> None:
        """Take the face of a new frame. As in a refinement step, its points give the crop of the
        next frame; if they moved by less than a tolerance, the old crop is kept. So a face that
        rests or moves slowly needs one prediction per frame."""
        self.face, (box, angle) = face, level_box(face)
        if (
            boxes_differ(self.box[None], box[None], BOX_TOLERANCE)[0]
            or abs(self.angle - angle) > ROLL_TOLERANCE
        ):
            self.box, self.angle = box, angle

    def start_anew(self) -> None:
        """Reset the smoothing filter."""
        self.filter = OneEuroFilter(layout=self.face.layout)


def level_box(face: Face) -> tuple[np.ndarray, float]:
    """`level_boxes` of one face: a box (4,) for `crop_matrix`, and the roll in degrees."""
    boxes, angles = level_boxes(face.points[None], face.layout)
    return boxes[0], float(angles[0])


class Tracker:
    """Tracks faces: `Tracker(KeypointDetector())(frame, seconds)` -> list of Face with identities.

    frame: uint8 RGB (height, width, 3); seconds: its time. A tracked face is missed if the
    confidence of its new prediction is below the detector's `min_confidence`, or if its box
    overlaps that of an older track (IoU above DOUBLED_OVERLAP). The points are smoothed unless
    `smooth` is False. Keypoints are predicted in a crop around those of the last frame. The face
    detector runs on the first frame, on every `every`-th frame, and on each frame in which a face
    is missed. A missed face that is found again within `max_missed` frames, in a box that overlaps
    its last one (SAME_OVERLAP), keeps its identity. A Tracker is for one clip and one thread;
    trackers in several threads may share a KeypointDetector.
    """

    def __init__(self, detector: Any, every: int = 15, max_missed: int = 15, smooth: bool = True):
        self.detector, self.every, self.max_missed = detector, every, max_missed
        self.smooth = smooth
        self.tracks, self.count, self.frames, self.searches = [], 0, 0, 0
        self.rejected = []  # the most confident rejected face of each search
        self.doubtful: list[Face] = []  # all rejected faces of the last search

    def __call__(self, frame: np.ndarray, seconds: float) -> list[Face]:
        seen = [track for track in self.tracks if not track.missed]
        faces = (
            self.detector.predict_boxes(
                frame, [track.box for track in seen], [track.angle for track in seen]
            )
            if seen
            else []
        )
        for track, face in zip(seen, faces, strict=True):
            if face.confidence >= self.detector.min_confidence and not self.doubled(face, track):
                track.follow(face)
            else:
                track.missed = 1
        for track in self.tracks:
            track.missed += track.missed > 0 and track not in seen
        self.tracks = [track for track in self.tracks if track.missed <= self.max_missed]
        if self.frames % self.every == 0 or any(track.missed for track in self.tracks):
            self.search(frame)
        self.frames += 1
        return [self.smoothed_face(track, seconds) for track in self.tracks if not track.missed]

    def missed(self) -> list:
        """The faces that are missed in this frame, as they were last found."""
        return [track.face for track in self.tracks if track.missed]

    def doubled(self, face: Face, track: Track) -> bool:
        """True if the IoU of the face with the face of an older active track is above
        DOUBLED_OVERLAP."""
        older = [
            other for other in self.tracks if other.identity < track.identity and not other.missed
        ]
        boxes = np.array([tight_box(other.face.points) for other in older])
        return len(older) > 0 and overlap(boxes, tight_box(face.points)).max() > DOUBLED_OVERLAP

    def search(self, frame: np.ndarray) -> None:
        """Run the detector, for faces without an active track (one that is not missed). The missed
        track that a face overlaps most continues with it, if their IoU is above SAME_OVERLAP. Any
        other face starts a new track."""
        self.searches += 1
        known = [tight_box(track.face.points) for track in self.tracks if not track.missed]
        # rotated copies take several times as long: only on every `every`-th frame
        faces, rejected = self.detector.detect(frame, known, self.frames % self.every == 0)
        self.rejected += rejected[:1]
        self.doubtful = rejected
        for face in faces:
            missed = [track for track in self.tracks if track.missed]
            boxes = np.array([tight_box(track.face.points) for track in missed])
            shares = overlap(boxes, tight_box(face.points)) if missed else np.zeros(1)
            if shares.max() > SAME_OVERLAP:
                track = missed[int(shares.argmax())]
                track.missed = 0
                track.follow(face)
                track.start_anew()
            else:
                self.count += 1
                self.tracks.append(Track(self.count, face))

    def smoothed_face(self, track: Track, seconds: float) -> Face:
        """The face of a track with its identity; points and box are smoothed if `smooth` is set."""
        points = track.filter(track.face.points, seconds) if self.smooth else track.face.points
        return replace(
            track.face,
            points=points,
            box=tight_box(points),
            identity=track.identity,
            person=track.person,
        )
