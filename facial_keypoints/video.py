"""Video files and cameras: frames in, frames out."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from facial_keypoints.errors import DataError, UsageError, import_optional
from facial_keypoints.images import pixel_limit, size_of
from facial_keypoints.pyav import ENDINGS, H264Encoder, find_pyav, is_interlaced, progressive_frames

BLACK = 3  # mean of gray levels of a frame without a picture
COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # formats that announce a number of frames
LONGEST_STEP = 60  # seconds between two frames; files with longer steps have wrong times
SLOWEST = 0.05  # frames per second; files with lower rates have wrong ones
LISTS = (b"ffconcat", b"#EXT", b"<", b"v=0")  # how lists of FFmpeg begin: concat, HLS, DASH, SDP
# one message for a damaged video, not one per frame
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
GIF_RATE, GIF_SIDE, GIF_SECONDS, GIF_COLORS = 12.5, 480, 30, 128
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
DRAWN_CLIPS = (*CODECS, ".gif")  # endings of files that can be written


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
        self.rate = rate if SLOWEST <= rate <= 1000 else 25.0
        self.interlaced = not self.live and is_interlaced(self.name)
        self.length = (
            None if self.live else max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
        )

    def __iter__(self):
        if self.interlaced:
            self.count = 0
            for frame, seconds in progressive_frames(self.name):
                yield frame, seconds
                self.count, self.passed = self.count + 1, seconds
            return
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
                "OpenCV; PyAV reads these: pip install av"
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


class OpencvEncoder:
    """Writes a clip of a constant frame rate with OpenCV."""

    silent = ""

    def __init__(self, path: Path, rate: float):
        self.path, self.rate = path, rate
        self.writer: cv2.VideoWriter | None = None

    def write(self, image: np.ndarray, seconds: float) -> None:
        if self.writer is None:
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self.writer = cv2.VideoWriter(str(self.path), codec, self.rate, image.shape[1::-1])
            if not self.writer.isOpened():
                raise DataError("OpenCV cannot write such a clip here; try .avi")
        self.writer.write(image[..., ::-1])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()


class GifEncoder:
    """Writes an animation that repeats, with Pillow: at most GIF_RATE frames per second and
    GIF_SIDE pixels a side, because its files are large."""

    silent = ""

    def __init__(self, path: Path):
        import_optional("PIL", "a .gif", "Pillow")
        self.path, self.images, self.times = path, [], []

    def write(self, image: np.ndarray, seconds: float) -> None:
        from PIL import Image

        if self.times and seconds < self.times[-1] + 1 / GIF_RATE - 1e-6:
            return
        if seconds > GIF_SECONDS:
            raise DataError(f"a .gif takes {GIF_SECONDS} seconds at most; draw into an .mp4")
        ratio = min(GIF_SIDE / max(image.shape[:2]), 1)
        size = tuple(max(round(ratio * side), 1) for side in image.shape[1::-1])
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self.images.append(Image.fromarray(small).quantize(GIF_COLORS))
        self.times.append(seconds)

    def close(self) -> None:
        if self.images:
            steps = np.diff([*self.times, self.times[-1] + 1 / GIF_RATE])
            self.images[0].save(
                self.path,
                save_all=True,
                append_images=self.images[1:],
                duration=[round(1000 * step) for step in steps],
                loop=0,
            )


class VideoWriter:
    """Writes a video file atomically: under a temporary name until it is complete.

    .mp4, .m4v, .mov and .mkv become H.264 with the sound of the clip `source` where PyAV is
    installed, else MPEG-4 without sound; .avi is Motion JPEG; .gif is a short animation.
    `note`: what a user should know about the file, or ''.
    """

    def __init__(
        self, path: str | os.PathLike, rate: float, source: str | os.PathLike | None = None
    ):
        self.path, self.rate, self.source, self.count = Path(path), rate, source, 0
        self.encoder: OpencvEncoder | GifEncoder | H264Encoder | None = None
        self.note = ""
        if self.path.suffix.lower() not in DRAWN_CLIPS:
            raise UsageError(f"{path}: drawn clips end in {', '.join(DRAWN_CLIPS)}")
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

    def open(self) -> OpencvEncoder | GifEncoder | H264Encoder:
        """What encodes a file with this ending."""
        ending = self.path.suffix.lower()
        if ending == ".gif":
            return GifEncoder(self.part)
        if ending in ENDINGS and find_pyav() is not None:
            return H264Encoder(self.part, self.rate, self.source)
        if ending in ENDINGS:
            self.note = "written without sound, as MPEG-4; for H.264: pip install av"
        return OpencvEncoder(self.part, self.rate)

    def write(self, image: np.ndarray, seconds: float | None = None) -> None:
        """Add a frame, uint8 RGB (h, w, 3), at a time in seconds; default: by the frame rate."""
        if self.encoder is None:
            self.encoder = self.open()
        with self.named_errors():
            self.encoder.write(image, self.count / self.rate if seconds is None else seconds)
        self.count += 1

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Put the name of the clip before the errors of its encoder."""
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if self.encoder is not None:
                with self.named_errors():
                    self.encoder.close()
                if self.encoder.silent:
                    self.note = f"written without sound ({self.encoder.silent})"
            if kind is None and self.encoder is not None:
                self.refuse_incomplete()
                self.part.chmod(0o644)
                os.replace(self.part, self.path)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from None
        finally:
            self.part.unlink(missing_ok=True)

    def refuse_incomplete(self) -> None:
        """Raise DataError if frames are missing: OpenCV does not report a full disk."""
        if isinstance(self.encoder, GifEncoder):
            return
        written = count_frames(self.part)
        if written < self.count:
            raise DataError(
                f"{self.path}: {written} of {self.count} frames could be written; is the disk full?"
            )


def count_frames(path: str | os.PathLike) -> int:
    """How many frames a video file says it has; 0 if it cannot be opened."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count


def track_video(tracker: Callable, clip: VideoReader, each: Callable, bar: bool = True) -> int:
    """Track the faces of a VideoReader, to the end of a file, or until Ctrl-C for a camera. Returns
    the number of faces, summed over the frames.

    each(index, frame, faces, seconds) is called for every frame: uint8 RGB (h, w, 3), list of
    Face, its time.
    """
    faces_seen = 0
    try:
        with tqdm(clip, total=clip.length, unit="frame", disable=not bar) as frames:
            for index, (frame, seconds) in enumerate(frames):
                found = tracker(frame, seconds)
                faces_seen += len(found)
                frames.set_postfix(faces=len(found), refresh=False)
                each(index, frame, found, seconds)
    except KeyboardInterrupt:
        if not clip.live:
            raise
        print("stopped", file=sys.stderr)
    finally:
        clip.close()
    return faces_seen
