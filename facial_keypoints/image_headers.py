"""Size and kind of an image file from its first bytes; nothing is decoded.

Why not a library: OpenCV, which decodes the images, allocates whatever size a header claims, so a
small malicious file could take all memory; Pillow, which reads sizes only, is not a dependency of
the library.
"""

import re
import struct
from typing import NamedTuple


class Header(NamedTuple):
    """The content of a header: name of the format, size in pixels, and whether the samples have
    more than 16 bits or are floats."""

    format: str
    width: int
    height: int
    is_32_bit: bool = False


def read_header(data: bytes) -> Header | None:
    """The header of a PNG, JPEG, GIF, WebP, BMP, TIFF or PPM file, or None for anything else."""
    for reader in (png, jpeg, gif, webp, bmp, tiff, ppm):
        try:
            header = reader(data)
        except (struct.error, IndexError, ValueError, OverflowError):
            # truncated data, or invalid numbers
            continue
        if header is not None and header.width > 0 and header.height > 0:
            return header
    return None


def png(data: bytes) -> Header | None:
    """W3C PNG specification, 11.2.1: IHDR is the first chunk."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return Header("PNG", *struct.unpack(">II", data[16:24]))
    return None


def jpeg(data: bytes) -> Header | None:
    """ITU-T T.81, B.2.2: the frame header follows the first of the markers SOF0 to SOF15. DHT, JPG
    and DAC have codes in that range but are other markers."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while data[place] == 0xFF:
        while data[place] == 0xFF:  # fill bytes
            place += 1
        marker = data[place]
        place += 1
        if marker == 1 or 0xD0 <= marker <= 0xD7:  # markers without a length
            continue
        if marker in (0xD9, 0xDA):  # end of image, start of scan
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 3 : place + 7])
            return Header("JPEG", width, height)
        place += struct.unpack(">H", data[place : place + 2])[0]
    return None


def gif(data: bytes) -> Header | None:
    """GIF89a specification, 18: the logical screen."""
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return Header("GIF", *struct.unpack("<HH", data[6:10]))
    return None


def webp(data: bytes) -> Header | None:
    """WebP container specification: lossy (VP8, RFC 6386, 9.1), lossless (VP8L) and extended (VP8X)
    files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)
    if data[12:16] == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if data[12:16] == b"VP8X" and len(data) >= 30:
        return Header(
            "WEBP",
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    return None


def bmp(data: bytes) -> Header | None:
    """Windows bitmap: the old core header of 12 bytes, or one of at least 40."""
    if data[:2] != b"BM":
        return None
    size = struct.unpack("<I", data[14:18])[0]
    width, height = (
        struct.unpack("<HH", data[18:22]) if size == 12 else struct.unpack("<ii", data[18:26])
    )
    return Header("BMP", width, abs(height))  # a negative height: the first row is the top one


def tiff(data: bytes) -> Header | None:
    """TIFF 6.0, section 2, and BigTIFF: the first directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    version = struct.unpack(f"{order}H", data[2:4])[0]
    if version not in (42, 43):
        return None
    if version == 43:
        start, count_kind, count_size, entry, value = (
            struct.unpack(f"{order}Q", data[8:16])[0],
            "Q",
            8,
            20,
            12,
        )
    else:
        start, count_kind, count_size, entry, value = (
            struct.unpack(f"{order}I", data[4:8])[0],
            "H",
            2,
            12,
            8,
        )
    count = struct.unpack(f"{order}{count_kind}", data[start : start + count_size])[0]
    tags = {}
    for number in range(min(count, 4096)):
        place = start + count_size + number * entry
        tag, kind = struct.unpack(f"{order}HH", data[place : place + 4])
        if tag in (256, 257, 258, 339):  # width, height, bits of a sample, kind of a sample
            tags[tag] = tiff_value(data, order, kind, place, entry, value) or 0
    bits, sample = tags.get(258, 1), tags.get(339, 1)
    return (
        Header("TIFF", tags[256], tags[257], bits > 16 or sample == 3)
        if {256, 257} <= tags.keys()
        else None
    )


def tiff_value(
    data: bytes, order: str, kind: int, place: int, entry: int, value: int
) -> int | None:
    """The first value of a directory entry: in the entry itself, or at the offset that it gives."""
    code, size = {3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}.get(kind, ("H", 2))
    room, offset = entry - value, place + value
    number = struct.unpack(
        f"{order}{'Q' if entry == 20 else 'I'}", data[place + 4 : place + value]
    )[0]
    if number * size > room:
        offset = struct.unpack(
            f"{order}{'Q' if entry == 20 else 'I'}", data[offset : offset + room]
        )[0]
    return struct.unpack(f"{order}{code}", data[offset : offset + size])[0]


def ppm(data: bytes) -> Header | None:
    """Netpbm: P1 to P6, with comments; Pf and PF hold floats."""
    found = re.match(
        rb"P([1-6fF])((?:\s+|#[^\n]*\n)+)(\d{1,9})((?:\s+|#[^\n]*\n)+)(\d{1,9})\s", data[:4096]
    )
    return Header("PPM", int(found[3]), int(found[5]), found[1] in b"fF") if found else None
