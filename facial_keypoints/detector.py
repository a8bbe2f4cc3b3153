"""KeypointDetector: photo -> faces with keypoints in that photo's pixels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np

from facial_keypoints.alignment import align_face
from facial_keypoints.defaults import DEFAULT_DETECTOR, DEFAULT_NET, MIN_CONFIDENCE
from facial_keypoints.detectors import (
    FaceDetector,
    detect,
    fallback_of,
    fit_of,
    is_upright_only,
    load_detector,
    to_tight,
)
from facial_keypoints.errors import UsageError
from facial_keypoints.face_model import FaceFit, Person, fit_3d
from facial_keypoints.geometry import (
    boxes_differ,
    crop_image,
    crop_matrix,
    overlap,
    rotated_copy,
    tight_box,
    to_points,
)
from facial_keypoints.head import level_boxes, shape_score
from facial_keypoints.images import Photo, as_image, to_gray
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.model import find_model, load_model, Model, Prediction
from facial_keypoints.openness import HIDDEN_EYE, eyes_open, mouth_open
from facial_keypoints.pose import Pose, has_pose, head_pose

# two faces are duplicates if more than this share of the smaller box is inside the other box
DUPLICATE_OVERLAP = 0.57
# a box of the face detector with an IoU above this with a known face belongs to this face; two
# people cheek to cheek have less
KNOWN_OVERLAP = 0.5
# degrees by which copies are rotated counter-clockwise to find rolled faces; the roll that the
# detector finds in a copy is added to them
ROTATIONS = (-30, 30, -55, 55)
# photos of a list that are in memory and predicted together
PHOTOS_AT_ONCE = 16
MIN_REFINE_CONFIDENCE = 0.1  # faces below it do not gain from a refinement step
# A refinement step that lowers the confidence of a face by more than this is undone: the crop has
# left the face. Smaller decreases are noise; undoing them makes the points less accurate.
MAX_REFINE_LOSS = 0.02
# a face is refined if the box or roll of its points differs by more than this from that of its crop
# (`geometry.boxes_differ`)
BOX_TOLERANCE, ROLL_TOLERANCE = 0.03, 10.0  # share of the longer side; degrees


# eq: compared by identity, for == on arrays gives an array, not True or False
@dataclass(eq=False, repr=False)
class Face:
    """One face: points (k, 2), box (4,) as left, top, width, height, and confidence in 0…1.

    Points and box are in pixels. `box` is the tight box of the points for accepted faces, the tight
    box estimated from the detector's box for rejected faces, and the given box for faces from
    `predict_boxes`. `layout` says what the k points are; 68 by default.
    """

    box: np.ndarray
    points: np.ndarray
    confidence: float
    point_confidence: np.ndarray | None = None  # (k,) in 0…1
    # (k,) in 0…1: the probability that a point is visible, neither occluded nor on the far side of
    # the head; None from models that were not trained for it
    point_visibility: np.ndarray | None = None
    # (k, 2) in pixels along x and y: the standard deviations of the distributions that the network
    # predicts for each point; None from models without them
    point_spread: np.ndarray | None = None
    identity: int | None = None  # number of a tracked face, from 1
    person: Person | None = None  # of a tracked face: what the frames say about the person
    layout: Layout = field(default_factory=load_layout)

    def __repr__(self) -> str:
        box = ", ".join(f"{value:.0f}" for value in self.box)
        number = "" if self.identity is None else f", identity={self.identity}"
        return (
            f"Face(box=({box}), confidence={self.confidence:.2f}, {len(self.points)} points of "
            f"{self.layout.name}{number})"
        )

    @property
    def pose(self) -> Pose | None:
        """The pose of the head, computed from the points at each access (`pose.head_pose`); None
        for layouts without the keypoints that it needs."""
        return head_pose(self.points, layout=self.layout) if has_pose(self.layout) else None

    @property
    def eyes_open(self) -> np.ndarray:
        """(2,) how far the person's right and left eye are open: 0 closed, 1 as open as the median
        eye (`openness.eyes_open`). nan for an eye that is probably hidden, and for layouts without
        eyelids."""
        eyes = eyes_open(self.points, self.layout)
        if self.point_visibility is not None and self.layout == load_layout():
            hidden = self.point_visibility[36:48].reshape(2, 6).mean(1) < HIDDEN_EYE
            eyes = np.where(hidden, np.nan, eyes)
        return eyes

    @property
    def mouth_open(self) -> float:
        """How far the mouth is open: 0 closed, 1 for a gap of half the distance between the outer
        eye corners (`openness.mouth_open`); nan for layouts without inner lips."""
        return float(mouth_open(self.points, self.layout))

    def aligned(
        self, photo: Photo, side: int = 112, template: str = "arcface"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The face cut out of its photo: RGB (side, side, 3) uint8, and the matrix (2, 3) from
        pixels of the photo to pixels of the crop. template: "arcface", as recognition networks
        expect it; "ffhq", as generators do; "eyes", which only levels the eyes
        (`alignment.align_face`)."""
        return align_face(as_image(photo), self.points, side, template, self.layout)

    def fit_3d(self) -> FaceFit:
        """The face in three dimensions: points (k, 3), head pose, expressions by the names of
        ARKit, identity (`face_model.fit_3d`); tracked faces share the identity of their person.
        Raises UsageError for layouts with too few of the keypoints of ibug68."""
        return fit_3d(self.points, self.point_visibility, self.layout, self.person)

    def part(self, name: str) -> np.ndarray:
        """The points (m, 2) of a part of the layout, such as "left eye". Raises UsageError that
        lists the parts."""
        return self.points[list(self.layout.part(name).points)]

    def named(self) -> dict[str, np.ndarray]:
        """{name of a keypoint: its point (2,)}."""
        return dict(zip(self.layout.keypoints, self.points, strict=True))


class KeypointDetector:
    """Finds faces and their keypoints: `KeypointDetector()(photo)` -> list of Face, the largest
    first.

    photo: a path, a uint8 array (height, width, 3) RGB or (height, width) gray, or a PIL image.
    net: the name of a model, or the path of an .onnx file or (after `import models`, with PyTorch)
    of a checkpoint. detector: a detector's name, or an object whose `detect(image)` returns boxes
    (n, 4), scores (n,) and optionally rolls (n,). device: 'auto', 'cpu', 'cuda', … runtime:
    'onnx', 'openvino' or 'torch'; 'auto' is torch for checkpoints and for devices that ONNX Runtime
    does not have, else onnx; `device` of the result is where it really runs. threads: number of
    threads of the network in one call (0: the runtime chooses). tilted: also search copies of the
    photo that are rotated by up to 55 degrees, for faces that lie on their side.

    Raises UsageError for an unknown net, detector or runtime; DataError for a photo or a model that
    cannot be read.

    The confidence of a face is the mean confidence of its points times a face shape score, which is
    1 for layouts that share too few keypoints with ibug68 (`head.has_shape_score`). Faces below
    `min_confidence` are rejected. Of duplicate detections the most confident one is kept. If no
    face is accepted, the detector's `fallback` (if it has one) is tried; then, if the detector
    finds upright faces only (`upright_only`), rotated copies of the photo are searched.
    A KeypointDetector can be shared by threads if its face detector is thread-safe (all detectors
    in detector_architectures/ are).
    """

    # maximum number of predictions per face, the first one included: each crop after the first is
    # centered on the previous prediction, until box and roll hardly change
    refinement_steps = 3
    batch = 64  # faces at once

    def __init__(
        self,
        net: str | os.PathLike | Model = DEFAULT_NET,
        detector: str | FaceDetector | None = DEFAULT_DETECTOR,
        device: str = "auto",
        min_confidence: float = MIN_CONFIDENCE,
        runtime: str = "auto",
        threads: int = 1,
        tilted: bool = False,
    ):
        check_detector(detector)
        if not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence must be from 0 to 1, not {min_confidence}")
        self.model = net if isinstance(net, Model) else load_model(net, runtime, device, threads)
        self.device = self.model.device
        self.detector = load_detector(detector) if isinstance(detector, str) else detector
        self.min_confidence, self.tilted = min_confidence, tilted

    def __call__(self, photo: Any) -> list[Face]:
        """The accepted faces of a photo, the largest first."""
        return self.detect(photo)[0]

    def detect(
        self, photo: Any, known: Any = (), rotated: bool = True
    ) -> tuple[list[Face], list[Face]]:
        """Accepted faces (largest first) and rejected faces (highest confidence first).

        A rejected face is one that the face detector found and whose confidence is below
        `min_confidence`. A search is one pass of one face detector over the photo or over rotated
        copies of it (`searches`). Each accepted face is returned once; a rejected one may be
        returned once for each search. known (n, 4): tight boxes of known faces; faces whose box has
        an IoU above KNOWN_OVERLAP with one of them, and duplicates of them, are not returned, and
        if any are given, only the first search runs. rotated=False: skip the last search, in
        rotated copies, which takes several times as long as the first one (without effect if
        `tilted`).
        """
        return self.detect_batch([photo], [known], rotated)[0]

    def detect_batch(
        self, photos: Sequence, known: Sequence | None = None, rotated: bool = True
    ) -> list[tuple[list[Face], list[Face]]]:
        """As `detect`, for a list of photos at once -> a list of pairs (accepted, rejected).

        The crops of all photos go through the network together, which is faster on GPUs and with
        several threads. All photos are in memory at once. known: one array of boxes per photo.
        """
        images = [as_image(photo) for photo in photos]
        found: list[tuple[list[Face], list[Face]]] = [([], []) for _ in images]
        known = [
            np.asarray(boxes, np.float32).reshape(-1, 4) for boxes in known or [()] * len(images)
        ]
        todo = list(range(len(images)))
        for detector, angles in self.searches(rotated) if todo else ():
            boxes = [self.search(images[index], detector, known[index], angles) for index in todo]
            candidates = self._predict(
                [images[index] for index in todo], *map(list, zip(*boxes, strict=True))
            )
            for index, faces in zip(todo, candidates, strict=True):
                accepted, rejected = found[index]
                accepted += self.filter_faces(faces, known[index])
                rejected += [face for face in faces if face.confidence < self.min_confidence]
            todo = [index for index in todo if not found[index][0] and not len(known[index])]
            if not todo:  # before the next detector is loaded
                break
        return [
            (
                sorted(accepted, key=lambda face: -face.box[2] * face.box[3]),
                sorted(rejected, key=lambda face: -face.confidence),
            )
            for accepted, rejected in found
        ]

    def searches(self, rotated: bool = True) -> Iterator[tuple[FaceDetector, tuple[int, ...]]]:
        """What is tried, one after another, until a face is accepted: pairs of a face detector and
        the angles in degrees by which the photo is rotated."""
        detector, upright = self.detector, (0,)
        while detector:
            yield detector, upright + ROTATIONS if self.tilted else upright
            detector = fallback_of(detector)
        if rotated and not self.tilted and self.detector and is_upright_only(self.detector):
            yield self.detector, ROTATIONS

    def filter_faces(self, faces: list[Face], known: Any = ()) -> list[Face]:
        """The faces with at least `min_confidence`, each once and none of the `known` (n, 4), the
        most confident first. Sets their `box` to the tight box of their points."""
        kept: list[Face] = []
        boxes = [*known]
        for face in sorted(faces, key=lambda face: -face.confidence):
            box = tight_box(face.points)
            double = boxes and (
                overlap(np.stack(boxes), box, of_smaller=True).max() > DUPLICATE_OVERLAP
            )
            if face.confidence >= self.min_confidence and not double:
                face.box = box
                kept.append(face)
                boxes.append(box)
        return kept

    def search(
        self, image: np.ndarray, detector: FaceDetector, known: np.ndarray, angles: Sequence[int]
    ) -> tuple[np.ndarray, ...]:
        """Tight boxes (n, 4) and roll (n,) in degrees of the faces that a detector finds in copies
        of an image rotated by `angles`, except known faces (m, 4)."""
        found, fit = [], fit_of(detector)
        if is_upright_only(detector):
            image = to_gray(image)
        for angle in angles:
            matrix, size = rotated_copy(image.shape[:2], angle)
            copy = image if angle == 0 else cv2.warpAffine(image, matrix, size)
            boxes, _, roll = detect(detector, copy)
            boxes = to_tight(to_tight(boxes, fit, roll), self.model.fit, roll)
            # back to the image: the inverse of a rotation is its transpose
            middles = (boxes[:, :2] + boxes[:, 2:] / 2 - matrix[:, 2]) @ matrix[:, :2]
            boxes[:, :2] = middles - boxes[:, 2:] / 2
            for box in known:
                new = overlap(boxes, box) <= KNOWN_OVERLAP
                boxes, roll = boxes[new], roll[new]
            found.append((boxes, angle + roll))
        return tuple(np.concatenate(column) for column in zip(*found, strict=True))

    def predict_boxes(self, photo: Any, boxes: Any, angles: Any | None = None) -> list[Face]:
        """Keypoints at given tight boxes (n, 4): one Face per box, in their order, whatever the
        confidence.

        angles (n,): how far the faces are rotated clockwise, in degrees; their crops are turned
        back.
        """
        try:
            boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
            angles = np.zeros(len(boxes)) if angles is None else np.asarray(angles, np.float64)
        except (TypeError, ValueError):
            raise UsageError(
                "boxes must be rows of four numbers: left, top, width, height"
            ) from None
        if angles.shape != (len(boxes),) or not np.isfinite(angles).all():
            raise UsageError(f"angles must be {len(boxes)} finite numbers, one for each box")
        return self._predict([as_image(photo)], [boxes], [angles])[0]

    def _predict(self, images, boxes, angles):
        """Faces at the boxes (n, 4) and angles (n,) of each image, as `predict_boxes`: a list of
        Face for each image."""
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        counts = [len(one) for one in boxes]
        owners = np.repeat(np.arange(len(images)), counts)
        boxes, angles, faces = np.concatenate(boxes), np.concatenate(angles), []
        layout = self.model.layout
        for start in range(0, len(boxes), self.batch):
            some = slice(start, start + self.batch)
            found = self._refine(
                [grays[owner] for owner in owners[some]], boxes[some].copy(), angles[some].copy()
            )
            scores = shape_score(found.targets, self.model.layout)
            columns = [[None] * len(scores) if values is None else values for values in found]
            faces += [
                Face(box, face, float(sure.mean() * score), sure, seen, spread, layout=layout)
                for box, face, sure, seen, spread, score in zip(
                    boxes[some], *columns, scores, strict=True
                )
            ]
        ends = np.cumsum(counts)
        return [faces[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _refine(self, grays, boxes, angles):
        """The predictions of one face in each of n images, as `predict_crops`. Each step predicts
        again in a crop around the previous points. Its result is discarded if it lowers the
        confidence by more than MAX_REFINE_LOSS."""
        found = self.predict_crops(grays, boxes, angles)
        points, confidence = found.targets, found.confidence
        for _ in range(self.refinement_steps - 1):
            better, level = level_boxes(points, self.model.layout)
            again = boxes_differ(boxes, better, BOX_TOLERANCE)
            again |= np.abs(angles - level) > ROLL_TOLERANCE
            again &= confidence.mean(1) > MIN_REFINE_CONFIDENCE
            rows = np.flatnonzero(again)
            if not len(rows):
                break
            boxes[rows], angles[rows] = better[rows], level[rows]
            later = self.predict_crops([grays[row] for row in rows], boxes[rows], angles[rows])
            kept = later.confidence.mean(1) >= confidence[rows].mean(1) - MAX_REFINE_LOSS
            for values, new in zip(found, later, strict=True):
                if values is not None:
                    values[rows[kept]] = new[kept]
        return found._replace(targets=self.model.correct(points))

    def predict_crops(
        self, grays: list[np.ndarray], boxes: np.ndarray, angles: np.ndarray
    ) -> Prediction:
        """Predictions in the crop of one box (n, 4), rotated by its angle (n,), in each of n gray
        images. `targets` and `spread` (n, k, 2) are in pixels of the image here, not in units of
        targets; confidence is (n, k), visibility (n, k) or None."""
        side, scale = self.model.side, self.model.layout.crop_scale
        matrices = np.stack(
            [
                crop_matrix(box, side, angle=a, scale=scale)
                for box, a in zip(boxes, angles, strict=True)
            ]
        )
        crops = np.stack(
            [crop_image(gray, matrix, side) for gray, matrix in zip(grays, matrices, strict=True)]
        )
        found = self.model(crops[:, None].astype(np.float32) / 255)
        spread = found.spread
        if spread is not None:  # variances along the axes of the crop -> along those of the image
            inverse = np.linalg.inv(matrices[:, :, :2])
            variance = np.square(spread * (side / 2)) @ np.square(inverse).swapaxes(1, 2)
            spread = np.sqrt(variance).astype(np.float32)
        return found._replace(targets=to_points(found.targets, matrices, side), spread=spread)


@overload
def find_keypoints(
    photo: list[Any] | tuple[Any, ...],
    *,
    net: str | os.PathLike[str] | Model = ...,
    detector: str | FaceDetector | None = ...,
    device: str = ...,
    min_confidence: float = ...,
    runtime: str = ...,
    threads: int = ...,
    tilted: bool = ...,
) -> list[list[Face]]: ...


@overload
def find_keypoints(
    photo: Photo,
    *,
    net: str | os.PathLike[str] | Model = ...,
    detector: str | FaceDetector | None = ...,
    device: str = ...,
    min_confidence: float = ...,
    runtime: str = ...,
    threads: int = ...,
    tilted: bool = ...,
) -> list[Face]: ...


def find_keypoints(
    photo: Any,
    *,
    net: str | os.PathLike[str] | Model = DEFAULT_NET,
    detector: str | FaceDetector | None = DEFAULT_DETECTOR,
    device: str = "auto",
    min_confidence: float = MIN_CONFIDENCE,
    runtime: str = "auto",
    threads: int = 1,
    tilted: bool = False,
) -> list[Face] | list[list[Face]]:
    """The faces of a photo (path, encoded bytes, array or PIL image), the largest first; for a list
    or tuple of photos, a list of such lists.

    The options are those of KeypointDetector. The detector is kept while they stay the same and the
    file of `net` does not change: a loop over photos loads it once.
    """
    check_detector(detector)
    finder: Any = detector
    if isinstance(net, Model):
        key: tuple = ()
    else:
        key, net = file_key(find_model(net, runtime, device)), os.fspath(net)
    kept = _kept_detector(key, net, finder, device, min_confidence, runtime, threads, tilted)
    if not isinstance(photo, (list, tuple)):
        return kept(photo)
    batches = (
        photo[start : start + PHOTOS_AT_ONCE] for start in range(0, len(photo), PHOTOS_AT_ONCE)
    )
    return [accepted for batch in batches for accepted, _ in kept.detect_batch(batch)]


def check_detector(detector: Any) -> None:
    """Raise UsageError for what is neither the name of a face detector, nor one, nor None."""
    if not (detector is None or isinstance(detector, str) or hasattr(detector, "detect")):
        raise UsageError(
            "detector must be a name or an object with a method detect(image), not "
            f"{type(detector).__name__}"
        )


def file_key(path: Path) -> tuple:
    """What changes when a file is replaced or edited: its real path, time, size and inode."""
    try:
        status = path.stat()
    except OSError:  # the error about it comes with its loading
        return (str(path),)
    return os.path.realpath(path), status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=1)
def _kept_detector(key, net, detector, device, min_confidence, runtime, threads, tilted):
    """The detector of `find_keypoints`. key: of the file of weights; with another key or other
    options, a new detector is built."""
    return KeypointDetector(net, detector, device, min_confidence, runtime, threads, tilted)
