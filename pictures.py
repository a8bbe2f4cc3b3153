"""The image reader: pictures of any kind, from strangers too, as upright RGB."""

import io
import os
import stat
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from errors import DataError, UsageError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# Images that this reader cannot decode. In a folder they are skipped, and reported.
UNREADABLE_ENDINGS = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf")
# What is larger is refused before it is decoded: a mistake, or an attack on the memory.
MAX_PIXELS = 200_000_000  # of one picture: 600 MB; FACIAL_KEYPOINTS_MAX_PIXELS in the environment sets another limit
MAX_BYTES = 1_000_000_000  # of one file
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")  # as Pillow calls what is known to come out right


def read_image(source):
    """Read one picture: path or encoded bytes -> uint8 RGB (h, w, 3), turned upright by its EXIF tag.

    PNG, JPEG, WebP, BMP, TIFF, GIF, PPM; gray, palette, CMYK and 16-bit files become 8-bit RGB, alpha is dropped.
    Of an animation the first picture. Raises DataError that names the file when it is missing, no picture, damaged,
    above MAX_PIXELS (or what FACIAL_KEYPOINTS_MAX_PIXELS says instead), or made of 32-bit numbers without a white.
    """
    is_path = isinstance(source, (str, os.PathLike))
    name = str(source) if is_path else "picture"
    data, limit = read_bytes(source) if is_path else bytes(source), pixel_limit()
    size, kind = header_of(data, name)
    if size[0] * size[1] > limit:
        raise DataError(f"{name}: {size[0]}×{size[1]} pixels, at most {limit:,} are read; shrink it first, or set "
                        "FACIAL_KEYPOINTS_MAX_PIXELS")
    if kind in ("TIFF F", "TIFF I", "PPM F"):
        raise DataError(f"{name}: pixels of 32 bits, in which white may be anything; save it with 8 or 16 bits")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        own = size[0] * size[1] > 1 << 30 or max(size) > 1 << 20
        raise DataError(f"{name}: {'larger than OpenCV decodes; shrink it' if own else 'damaged, it does not decode'}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def pixel_limit():
    """The most pixels of a picture: MAX_PIXELS, or what FACIAL_KEYPOINTS_MAX_PIXELS says."""
    given = os.environ.get("FACIAL_KEYPOINTS_MAX_PIXELS")
    if given and not (given.isdecimal() and len(given) < 100):
        raise UsageError(f"FACIAL_KEYPOINTS_MAX_PIXELS is {given[:40]!r}, not a number of pixels")
    return int(given or MAX_PIXELS)


def read_bytes(path):
    """The bytes of a file: of a real one, that ends. Raises DataError."""
    if (size := size_of(path)) > MAX_BYTES:
        raise DataError(f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def size_of(path):
    """Bytes of a real file, that ends. Raises DataError for others."""
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte in it
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{path}: cannot be read (it is a folder or a device, not a file)")
    return about.st_size


def files_below(folder, endings=IMAGE_ENDINGS):
    """Paths of what lies in a folder and its folders and ends so, in order. Raises DataError for one that cannot be listed.

    Links to nowhere and pipes are among them: whoever reads them is told.
    """
    def refuse(error):
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})")

    for inside, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (os.path.join(inside, name) for name in sorted(files) if Path(name).suffix.lower() in endings)


def header_of(data, name):
    """Size of an encoded picture, and its format with Pillow's mode, from its header alone: nothing is decoded here."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours counts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as header:
                if header.format not in FORMATS:
                    raise ValueError(header.format)
                return header.size, f"{header.format} {header.mode}"
    except Exception:  # Pillow's plugins raise many kinds; all mean the same here
        raise DataError(f"{name}: not a picture in a known format; save it as PNG, JPEG, WebP, BMP, TIFF, GIF or PPM") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
