"""Faces followed and smoothed over the frames of a clip or a camera."""

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from errors import DataError, UsageError
from pictures import size_of
from pipeline import misfit
from transforms import inter_ocular, overlap, tight_box

ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # of a damaged clip one line tells, not one a frame
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class OneEuro:
    """The 1€ filter (Casiez, Roussel, Vogel, CHI 2012) on keypoints: calm when a face is still, quick when it moves.

    A low-pass whose cutoff grows with speed, here in inter-ocular distances a second, so that large and small faces are
    treated alike. The speed that counts is the face's, the mean over its points, in which their noise cancels; what a
    point moves beyond that counts less. cutoff: in Hz, at rest; slope: Hz for each inter-ocular distance a second.
    """

    def __init__(self, cutoff=0.2, slope=12.0, own_slope=0.5, derivative_cutoff=2.0):
        self.cutoff, self.slope, self.own_slope, self.derivative_cutoff = cutoff, slope, own_slope, derivative_cutoff
        self.points = self.raw = self.speed = self.seconds = None
        self.count = 0

    def __call__(self, points, seconds):
        """Raw keypoints (68, 2) at a time -> smoothed ones."""
        points = np.asarray(points, np.float64)
        if self.points is None or seconds <= self.seconds:
            self.points, self.raw, self.speed, self.seconds = points, points, np.zeros_like(points), seconds
            return points.astype(np.float32)
        passed = seconds - self.seconds
        speed = (points - self.raw) / passed / max(float(inter_ocular(points)), 1e-6)
        self.speed = self.speed + weight(self.derivative_cutoff, passed) * (speed - self.speed)
        common = self.speed.mean(0)
        own = np.linalg.norm(self.speed - common, axis=1, keepdims=True)
        cutoff = self.cutoff + self.slope * np.linalg.norm(common) + self.own_slope * own
        self.count += 1  # a mean at first, of late frames more: the first one's error is not to be held for a second
        self.points = self.points + np.maximum(weight(cutoff, passed), 2 / (self.count + 2)) * (points - self.points)
        self.raw, self.seconds = points, seconds
        return self.points.astype(np.float32)


def weight(cutoff, passed):
    """Weight of a new value in a low-pass of `cutoff` Hz after `passed` seconds; equation 3 of the 1€ paper."""
    return 1 / (1 + 1 / (2 * np.pi * np.asarray(cutoff) * passed))


@dataclass
class Track:
    """A face that is followed: who, where last, how it is smoothed, for how many frames it has been missed."""

    identity: int
    face: object
    filter: OneEuro = field(default_factory=OneEuro)
    missed: int = 0
    box: np.ndarray = None  # where the next look begins; it stays while it fits, else answers would drift with their crops


class Tracker:
    """Follows faces: `Tracker(KeypointDetector())(frame, seconds)` -> list of Face with identities, smoothed.

    A face is looked for where its last points were; the detector is asked for the first frame, when a face was lost,
    and every `every` frames. A face that comes back within `patience` frames near its place keeps its identity.
    A Tracker follows one clip and belongs to one thread; trackers in several threads may share a KeypointDetector.
    """

    def __init__(self, detector, every=15, patience=15, smooth=True):
        self.detector, self.every, self.patience, self.smooth = detector, every, patience, smooth
        self.tracks, self.count, self.frames, self.searches = [], 0, 0, 0
        self.rejected = []  # the most confident rejected face of each search

    def __call__(self, frame, seconds):
        seen = [track for track in self.tracks if not track.missed]
        faces = self.detector.at(frame, np.array([track.box for track in seen])) if seen else []
        for track, face in zip(seen, faces, strict=True):
            if face.confidence >= self.detector.min_confidence and not self.doubled(face, track):
                track.face, tight = face, tight_box(face.points)
                if misfit(track.box[None], tight[None], 0.1)[0]:
                    track.box = tight
            else:
                track.missed = 1
        for track in self.tracks:
            track.missed += track.missed > 0 and track not in seen
        self.tracks = [track for track in self.tracks if track.missed <= self.patience]
        if self.frames % self.every == 0 or any(track.missed for track in self.tracks):
            self.search(frame)
        self.frames += 1
        return [self.shown(track, seconds) for track in self.tracks if not track.missed]

    def missed(self):
        """The faces that are not found just now, where they were last."""
        return [track.face for track in self.tracks if track.missed]

    def doubled(self, face, track):
        """True if an older track has come to lie on this face."""
        older = [other for other in self.tracks if other.identity < track.identity and not other.missed]
        boxes = np.array([tight_box(other.face.points) for other in older])
        return len(older) > 0 and overlap(boxes, tight_box(face.points)).max() > 0.5

    def search(self, frame):
        """Ask the detector; faces it finds where a track is, or was, go on with it, the others begin one."""
        self.searches += 1
        faces, rejected = self.detector.detect(frame)
        self.rejected += rejected[:1]
        for face in faces:
            boxes = np.array([tight_box(track.face.points) for track in self.tracks])
            shares = overlap(boxes, tight_box(face.points)) if len(boxes) else np.zeros(1)
            if shares.max() > 0.2:
                track = self.tracks[int(shares.argmax())]
                if track.missed:
                    track.face, track.box, track.missed, track.filter = face, face.box, 0, OneEuro()
            else:
                self.count += 1
                self.tracks.append(Track(self.count, face, box=face.box))

    def shown(self, track, seconds):
        """The face with smoothed points."""
        points = track.filter(track.face.points, seconds) if self.smooth else track.face.points
        return replace(track.face, points=points, box=tight_box(points), identity=track.identity)


def jitter(points):
    """Keypoints over time (t, n, 2) of a face at rest -> root mean square distance of points from their mean place."""
    points = np.asarray(points, np.float64)
    return float(np.sqrt(np.square(points - points.mean(0)).sum(-1).mean()))


def lag(points, truth, most=6):
    """By how many frames answers (t, n, 2) follow the truth (t, n, 2) late: where their mean difference is least."""
    answers, truth = (np.asarray(p, np.float64).mean(1) for p in (points, truth))
    answers, truth = answers - answers.mean(0), truth - truth.mean(0)
    times, delays = np.arange(len(truth)), np.linspace(0, most, 20 * most + 1)
    rows = times >= most

    def late_by(delay):
        return np.stack([np.interp(times[rows] - delay, times, truth[:, axis]) for axis in (0, 1)], 1)

    errors = [np.square(late_by(delay) - answers[rows]).mean() for delay in delays]
    return float(delays[int(np.argmin(errors))])


# ---------------------------------------------------------------- clips and cameras

class Clip:
    """The frames of a video file, or of a camera by its number, as uint8 RGB, with their times in seconds."""

    def __init__(self, place):
        self.live, self.name, self.count = isinstance(place, int), str(place), 0
        if self.live:
            self.name = f"camera {place}"
        else:
            size_of(place)
        self.capture = cv2.VideoCapture(place if self.live else utf8(self.name))
        if not self.capture.isOpened():
            raise DataError(f"{self.name}: " + ("no such camera, or another program has it" if self.live else
                                                "no video that can be read"))
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 1000 else 25.0
        self.length = None if self.live else max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None

    def __iter__(self):
        begun, self.count = time.perf_counter(), 0
        while True:
            ok, frame = self.capture.read()
            if not ok:
                break
            passed = time.perf_counter() - begun if self.live else self.count / self.rate
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), passed
            self.count += 1
        if not self.count:
            raise DataError(f"{self.name}: no frame could be read")

    @property
    def cut(self):
        """True if clearly fewer frames came than the file says it has; some kinds of files only estimate their number."""
        return self.length is not None and self.count < 0.9 * self.length - 1

    def close(self):
        self.capture.release()


def utf8(name):
    """A name that OpenCV can be given: it ends the process for one that is not UTF-8. Raises DataError."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{name}: OpenCV opens no clips whose names are not UTF-8; rename it") from None
    return name


class Film:
    """A video file that takes its name only when all is written."""

    def __init__(self, path, rate):
        self.path, self.rate, self.writer, self.count = Path(path), rate, None, 0
        if self.path.suffix.lower() not in CODECS:
            raise UsageError(f"{path}: drawn clips end in {', '.join(CODECS)}")
        utf8(str(path))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".", suffix=self.path.suffix)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        os.close(handle)
        self.part = Path(name)

    def write(self, image):
        if self.writer is None:
            codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
            self.writer = cv2.VideoWriter(str(self.part), codec, self.rate, image.shape[1::-1])
            if not self.writer.isOpened():
                raise DataError(f"{self.path}: OpenCV cannot write such a clip here; try .avi")
        self.writer.write(image[..., ::-1])
        self.count += 1

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.writer is not None:
            self.writer.release()
        try:
            if kind is None and self.writer is not None:
                written = frames_in(self.part)
                if written < self.count:  # OpenCV does not tell of a full disk
                    raise DataError(f"{self.path}: {written} of {self.count} frames could be written; is the disk full?")
                self.part.chmod(0o644)
                os.replace(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)


def frames_in(path):
    """How many frames a video file says it has; 0 if it cannot be opened."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count


def process(tracker, clip, each, bar=True):
    """Follow the faces of a Clip to its end, or of a camera until Ctrl-C -> how many faces were seen.

    each(index, frame, faces) is called for every frame: uint8 RGB, list of Face.
    """
    faces_seen = 0
    try:
        with tqdm(clip, total=clip.length, unit="frame", disable=not bar) as frames:
            for index, (frame, seconds) in enumerate(frames):
                found = tracker(frame, seconds)
                faces_seen += len(found)
                frames.set_postfix(faces=len(found), refresh=False)
                each(index, frame, found)
    except KeyboardInterrupt:
        if not clip.live:
            raise
        print("stopped", file=sys.stderr)
    finally:
        clip.close()
    return faces_seen
