"""What PyAV adds to OpenCV: interlaced clips are read, and clips are written as H.264 with their
sound."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from facial_keypoints.errors import DataError
from facial_keypoints.files import short_message

TICKS = Fraction(1, 90_000)  # seconds; the times of MPEG
ENDINGS = (".mp4", ".m4v", ".mov", ".mkv")  # of files that hold H.264
# visually lossless, and fast enough not to be what a call waits for
QUALITY = {"crf": "18", "preset": "veryfast"}


def find_pyav() -> Any:
    """PyAV, or None if it is not installed."""
    try:
        import av
    except ImportError:
        return None
    av.logging.set_level(av.logging.PANIC)  # errors are raised; a damaged clip has hundreds
    return av


def is_interlaced(path: str | os.PathLike) -> bool:
    """True if the first frame of a clip is interlaced; False also where PyAV is not installed or
    cannot read the clip."""
    if (av := find_pyav()) is None:
        return False
    try:
        with av.open(os.fspath(path)) as clip:
            return next(clip.decode(video=0)).interlaced_frame
    except (av.FFmpegError, StopIteration, IndexError, OSError):
        return False


def progressive_frames(path: str | os.PathLike) -> Iterator[tuple[np.ndarray, float]]:
    """The frames of an interlaced clip, uint8 RGB (h, w, 3), with their times in seconds from the
    first. The filter yadif makes one picture of both fields of a frame. Raises DataError for a clip
    that PyAV cannot read; a damaged end ends it, as in OpenCV's reader."""
    av: Any = find_pyav()
    first = None
    try:
        with av.open(os.fspath(path)) as clip:
            for frame in whole_frames(av, clip):
                seconds = float(frame.pts * frame.time_base)
                first = seconds if first is None else first
                # its rotation is counter-clockwise, as that of np.rot90
                turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield np.ascontiguousarray(turned), seconds - first
    except (av.FFmpegError, OSError) as error:
        if first is None:
            raise DataError(f"{path}: PyAV cannot read it ({short_message(error)})") from None


def whole_frames(av: Any, clip: Any) -> Iterator[Any]:
    """The frames of an open clip after yadif, which gives each when the next one is there."""
    stream, graph = clip.streams.video[0], av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream), graph.add("yadif"), graph.add("buffersink")
    ).configure()

    def ready():
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield graph.vpull()

    for frame in clip.decode(stream):
        graph.vpush(frame)
        yield from ready()
    graph.vpush(None)
    yield from ready()


class H264Encoder:
    """Writes a clip as H.264 with yuv420p, which all players and browsers show, and the sound of
    `source` where its format fits into the file. Sides of an odd length get another row or column,
    because the format has none. Each frame has its own time, so rates may vary.

    `silent`: why there is no sound although the source has one, or ''. Errors of FFmpeg are a
    DataError, without the name of the file, which is a temporary one.
    """

    def __init__(self, path: Path, rate: float, source: str | os.PathLike | None = None):
        self.av: Any = find_pyav()
        self.silent = ""
        self.file = self.av.open(str(path), "w", options={"movflags": "faststart"})
        self.video = self.file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        self.video.pix_fmt, self.video.options = "yuv420p", QUALITY
        self.video.codec_context.time_base = TICKS
        self.source: Any = None
        self.packets: Iterator[Any] = iter(())
        self.waiting: Any = None
        if source is not None:
            self.open_sound(source)
        self.last = -1

    def open_sound(self, source: str | os.PathLike) -> None:
        """Copy the first audio stream of a clip, packet by packet."""
        try:
            self.source = self.av.open(os.fspath(source))
            if not self.source.streams.audio:
                return
            stream = self.source.streams.audio[0]
            copy = self.file.add_stream_from_template(stream)
        except (self.av.FFmpegError, ValueError, OSError) as error:
            self.silent = short_message(error)
            return
        begin = self.source.start_time or 0  # microseconds

        def packets():
            for packet in self.source.demux(stream):
                if packet.dts is None:
                    continue
                shift = round(begin / 1_000_000 / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                yield packet

        self.packets = packets()
        self.waiting = next(self.packets, None)

    def mux_sound(self, seconds: float) -> None:
        """Write the sound up to a time, so that sound and picture lie near each other."""
        while self.waiting is not None and self.waiting.dts * self.waiting.time_base <= seconds:
            self.file.mux(self.waiting)
            self.waiting = next(self.packets, None)

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Add a frame, uint8 RGB (h, w, 3), at a time after that of the frame before."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.last < 0:
            self.video.width, self.video.height = image.shape[1], image.shape[0]
        frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self.last = max(round(seconds / TICKS), self.last + 1)
        frame.pts, frame.time_base = self.last, TICKS
        self.attempt(lambda: self.file.mux(self.video.encode(frame)))
        self.attempt(lambda: self.mux_sound(seconds))

    def close(self) -> None:
        """Finish the file."""
        try:
            if self.last >= 0:
                self.attempt(lambda: self.file.mux(self.video.encode()))
                self.attempt(lambda: self.mux_sound(float("inf")))
        finally:
            self.attempt(self.file.close)
            if self.source is not None:
                self.source.close()

    def attempt(self, step: Any) -> None:
        """Do a step; errors of FFmpeg and of the disk are a DataError."""
        try:
            step()
        except (self.av.FFmpegError, OSError) as error:
            raise DataError(f"cannot be written ({short_message(error)})") from None
