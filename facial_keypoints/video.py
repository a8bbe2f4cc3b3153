"""Video files and cameras: frames in, frames out."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.images import pixel_limit, size_of

BLACK = 3  # mean of gray levels of a frame without a picture
COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # formats that announce a number of frames
LONGEST_STEP = 60  # seconds between two frames; files with longer steps have wrong times
LISTS = (b"ffconcat", b"#EXT", b"<", b"v=0")  # how lists of FFmpeg begin: concat, HLS, DASH, SDP
# one message for a damaged video, not one per frame
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class VideoReader:
    """Reads a video file, or a camera by its number: yields pairs of a frame, uint8 RGB (h, w, 3),
    and its time in seconds, correct also where the frame rate varies.

    Raises DataError for a file that is not a video, or whose frames have more pixels than an image
    may have.
    """

    def __init__(self, place: int | str | os.PathLike):
        self.live, self.name, self.count = isinstance(place, int), str(place), 0
        self.passed = self.longest = 0.0  # seconds of the last frame, and between two frames
        if isinstance(place, int):
            self.name = f"camera {place}"
        else:
            size_of(place)
            refuse_text(place)
        self.capture = cv2.VideoCapture(place if self.live else utf8_name(self.name))
        if not self.capture.isOpened():
            raise DataError(
                f"{self.name}: "
                + (
                    "no such camera, or another program uses it"
                    if self.live
                    else "not a video that OpenCV can read"
                )
            )
        self.refuse_large(
            *(
                int(self.capture.get(side))
                for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
        )
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 1000 else 25.0
        self.length = (
            None if self.live else max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
        )

    def __iter__(self):
        begun, self.count, passed, last = time.perf_counter(), 0, 0.0, 0.0
        dark = not self.live
        while True:
            ok, frame = self.capture.read()
            if not ok:
                break
            self.refuse_large(*frame.shape[1::-1])
            dark = dark and float(frame[::8, ::8].mean()) < BLACK
            stamp = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if self.live:
                passed = time.perf_counter() - begun
            elif self.count:  # a file without times, or with wrong ones, has the frame rate
                step = stamp - last
                passed += step if 0 < step < LONGEST_STEP else 1 / self.rate
            last = stamp
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), passed
            self.longest = max(self.longest, passed - self.passed)
            self.count, self.passed = self.count + 1, passed
        if not self.count:
            raise DataError(f"{self.name}: no frame could be read")
        if dark:
            raise DataError(
                f"{self.name}: all {self.count} frames are black, as interlaced ones are in "
                f"OpenCV; convert it: ffmpeg -i {Path(self.name).name} -vf yadif NEW.mp4"
            )

    def refuse_large(self, width: int, height: int) -> None:
        """Raise DataError for frames that would take too much memory."""
        if width * height > pixel_limit():
            raise DataError(
                f"{self.name}: frames of {width}×{height} pixels, more than "
                f"{pixel_limit():,}; FACIAL_KEYPOINTS_MAX_PIXELS sets another limit"
            )

    @property
    def cut(self) -> bool:
        """True if more than 10 % of the frames that the file announces could not be read; in
        formats that announce a duration, more than 10 % of it, because there OpenCV
        computes the number of frames from the duration, as if the frame rate did not vary."""
        if self.length is None:
            return False
        if Path(self.name).suffix.lower() in COUNTED:
            return self.count < 0.9 * self.length - 1
        return self.passed + self.longest < 0.9 * self.length / self.rate - 1 / self.rate

    def close(self) -> None:
        self.capture.release()


def refuse_text(path: str | os.PathLike) -> None:
    """Raise DataError for a file that is text: OpenCV would take it for a list of other files or of
    addresses, and read those."""
    with open(path, "rb") as file:
        start = file.read(512)
    # every container of videos has bytes below 9 in its head
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(LISTS) or all(byte > 8 for byte in start):
        raise DataError(f"{path}: not a video that OpenCV can read")


def utf8_name(name: str) -> str:
    """The name, if OpenCV can open it. Raises DataError for a name that is not UTF-8, because
    OpenCV would end the process."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{name}: OpenCV cannot open a clip whose name is not UTF-8; rename it"
        ) from None
    return name


class VideoWriter:
    """Writes a video file atomically: under a temporary name until it is complete."""

    def __init__(self, path: str | os.PathLike, rate: float):
        self.path, self.rate, self.count = Path(path), rate, 0
        self.writer: cv2.VideoWriter | None = None
        if self.path.suffix.lower() not in CODECS:
            raise UsageError(f"{path}: drawn clips end in {', '.join(CODECS)}")
        utf8_name(str(path))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                dir=self.path.parent, prefix=".", suffix=self.path.suffix
            )
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        os.close(handle)
        self.part = Path(name)

    def write(self, image: np.ndarray) -> None:
        if self.writer is None:
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
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
                written = count_frames(self.part)
                if written < self.count:  # OpenCV does not report a full disk
                    raise DataError(
                        f"{self.path}: {written} of {self.count} frames could be "
                        "written; is the disk full?"
                    )
                self.part.chmod(0o644)
                os.replace(self.part, self.path)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from None
        finally:
            self.part.unlink(missing_ok=True)


def count_frames(path: str | os.PathLike) -> int:
    """How many frames a video file says it has; 0 if it cannot be opened."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count


def track_video(tracker: Callable, clip: VideoReader, each: Callable, bar: bool = True) -> int:
    """Track the faces of a VideoReader, to the end of a file, or until Ctrl-C for a camera. Returns
    the number of faces, summed over the frames.

    each(index, frame, faces) is called for every frame: uint8 RGB (h, w, 3), list of Face.
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
