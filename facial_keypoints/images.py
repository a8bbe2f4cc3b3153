"""Image reader: any image file or array as upright uint8 RGB, within limits of size."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.defaults import VIDEO_ENDINGS
from facial_keypoints.image_headers import read_header


class PillowImage(Protocol):
    """What this library uses of a `PIL.Image.Image`; Pillow is not imported."""

    mode: str

    def convert(self, mode: str = ...) -> Any:
        """The image in another mode."""


# A path, encoded bytes, an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or a PIL image.
Photo = str | os.PathLike[str] | bytes | np.ndarray | PillowImage

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# Images that this reader cannot decode. In a folder they are skipped, and reported.
UNREADABLE_ENDINGS = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".jp2",
    ".psd",
    ".svg",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
)
# Larger images are an error before they are decoded, to protect the memory. MAX_PIXELS of one image
# are 600 MB decoded; the environment variable FACIAL_KEYPOINTS_MAX_PIXELS sets another limit.
MAX_PIXELS = 200_000_000
MAX_BYTES = 1_000_000_000  # of one file


def read_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Read one image: path or encoded bytes -> uint8 RGB (h, w, 3), rotated upright by its EXIF
    tag.

    Formats: PNG, JPEG, WebP, BMP, TIFF, GIF, PPM. Gray, palette, CMYK and 16-bit files become 8-bit
    RGB, alpha is dropped, and of an animation the first frame is read. Raises DataError with the
    name of the file if it is missing, damaged or not an image, if it has more than `pixel_limit()`
    pixels, or if it has 32-bit samples, which have no defined white level.
    """
    if isinstance(source, (str, os.PathLike)):
        name, data = str(source), read_bytes(source)
    else:
        name, data = "picture", bytes(source)
    limit = pixel_limit()
    header = read_header(data)
    if header is None and Path(name).suffix.lower() in VIDEO_ENDINGS:
        raise DataError(
            f"{name}: a video; the command facial-keypoints follows its faces, in Python "
            "facial_keypoints.tracking.Tracker does so for the frames of video.VideoReader"
        )
    if header is None:
        raise DataError(
            f"{name}: not a picture in a known format; save it as PNG, JPEG, WebP, "
            "BMP, TIFF, GIF or PPM"
        )
    if header.width * header.height > limit:
        raise DataError(
            f"{name}: {header.width}×{header.height} pixels, at most {limit:,} are "
            "read; shrink it first, or set "
            "FACIAL_KEYPOINTS_MAX_PIXELS"
        )
    if header.is_32_bit:
        raise DataError(
            f"{name}: 32-bit pixels have no defined white level; convert it to 8 or 16 bits"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        image = None
    if image is None:
        large = header.width * header.height > 1 << 30 or max(header.width, header.height) > 1 << 20
        reason = "larger than OpenCV decodes; shrink it" if large else "damaged, it does not decode"
        raise DataError(f"{name}: {reason}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def pixel_limit() -> int:
    """Maximum number of pixels of an image: FACIAL_KEYPOINTS_MAX_PIXELS if set, else MAX_PIXELS."""
    given = os.environ.get("FACIAL_KEYPOINTS_MAX_PIXELS")
    if given and not (given.isdecimal() and len(given) < 100):
        raise UsageError(f"FACIAL_KEYPOINTS_MAX_PIXELS is {given[:40]!r}, not a number of pixels")
    return int(given or MAX_PIXELS)


def read_bytes(path: str | os.PathLike) -> bytes:
    """The bytes of a regular file. Raises DataError if it cannot be read or is too large."""
    size_of(path)  # a device is not opened: that can have effects
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            # another file may be there by now
            if (size := _regular_size(os.fstat(file.fileno()), path)) > MAX_BYTES:
                raise DataError(f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read")
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _open_without_waiting(path, flags):
    """Open a file; a pipe without a writer is opened too, and not waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_of(path: str | os.PathLike) -> int:
    """Size in bytes of a regular file. Raises DataError for folders, devices and missing files."""
    if str(path).startswith(("http://", "https://")):
        raise DataError(f"{path}: addresses are not read; download the file first")
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte in it
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    return _regular_size(about, path)


def _regular_size(about, path):
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{path}: cannot be read (it is a folder or a device, not a file)")
    return about.st_size


def files_below(
    folder: str | os.PathLike[str],
    endings: tuple[str, ...] | None = IMAGE_ENDINGS,
    unlisted: list[str] | None = None,
) -> Iterator[str]:
    """Paths of the files with these extensions (None: of all files) in a folder and its subfolders,
    sorted. A folder that cannot be listed raises DataError, or its message is appended to
    `unlisted`.

    Links to folders are followed, but not in a circle. Broken links and pipes are included, so that
    reading them reports an error.
    """
    above: dict[str, set[str]] = {}  # of each folder, the real paths of it and of those above it

    def refuse(error):
        message = f"{error.filename}: cannot be listed ({error.strerror})"
        if unlisted is None:
            raise DataError(message)
        unlisted.append(message)

    for inside, folders, files in os.walk(os.fspath(folder), onerror=refuse, followlinks=True):
        passed = above.pop(inside, set()) | {os.path.realpath(inside)}
        paths = {name: os.path.join(inside, name) for name in sorted(folders)}
        folders[:] = [name for name in paths if os.path.realpath(paths[name]) not in passed]
        above |= {paths[name]: passed for name in folders}
        yield from (
            os.path.join(inside, name)
            for name in sorted(files)
            if endings is None or Path(name).suffix.lower() in endings
        )


def as_image(photo: Any) -> np.ndarray:
    """A path, encoded bytes, PIL image or array (h, w), (h, w, 1), (h, w, 3), (h, w, 4) -> uint8
    RGB (h, w, 3)."""
    if isinstance(photo, (str, os.PathLike, bytes)):
        return read_image(photo)
    if hasattr(photo, "convert"):  # PIL
        return _from_pillow(photo)
    if photo is None:
        raise DataError("None is not a photo; cv2.imread gives None for a file that it cannot read")
    image = np.asarray(photo)
    if image.dtype != np.uint8:
        raise DataError(f"a photo must be uint8 with 0…255 as decoded, not {image.dtype}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        image = np.dstack([image] * 3)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        raise DataError(f"a photo must be (height, width[, 3 or 4]), not {image.shape}")
    return np.ascontiguousarray(image[..., :3])


def _from_pillow(photo):
    """A PIL image, which decodes its file only now -> uint8 RGB (h, w, 3)."""
    from PIL import ImageOps

    try:
        if photo.mode.startswith(("I", "F")):  # more than 8 bits: PIL would clip values at 255
            values = np.asarray(photo)
            if photo.mode == "F" or values.min() < 0 or values.max() > 65535:
                raise DataError(
                    f"a PIL image of mode {photo.mode} has no defined white "
                    "level; give 8 or 16 bits"
                )
            return as_image((values // 256).astype(np.uint8))
        return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # of damaged files
        name = getattr(photo, "filename", "") or "a PIL image"
        raise DataError(
            f"{name}: damaged, Pillow cannot decode it ({' '.join(str(error).split())[:200]})"
        ) from None


def to_gray(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (h, w, 3) or gray (h, w) -> gray (h, w)."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
