"""Metadata and checksum of an exported model: read from its ONNX file, without a runtime.

Why not by the runtime: a damaged or foreign file is refused before a runtime parses it, OpenVINO
gives no metadata, and the page in the browser checks the same bytes in the same way.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from facial_keypoints.errors import DataError
from facial_keypoints.files import PARSE_ERRORS, short_message
from facial_keypoints.images import read_bytes
from facial_keypoints.layouts import layout_from

KEY = "facial_keypoints"  # key of the metadata entry, whose value is a JSON object
METADATA_FIELD = 14  # metadata_props of ModelProto, in onnx.proto
FORMAT = 1
MAX_SHIFT, MAX_FIT = 10.0, 100.0  # larger values of the metadata are a mistake


def fields_of(data: bytes) -> Iterator[tuple]:
    """Pairs (field number, start, end) of the top-level fields of a protocol buffer. Raises
    ValueError."""
    place = 0
    while place < len(data):
        start = place
        tag, place = varint(data, place)
        kind = tag & 7
        if kind == 0:
            _, place = varint(data, place)
        elif kind == 2:
            length, place = varint(data, place)
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place > len(data):
            raise ValueError("cut off")
        yield tag >> 3, start, place


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a variable-length integer at offset `place` -> its value, and the offset after it.
    Raises ValueError."""
    value = shift = 0
    while shift < 64:
        if place >= len(data):
            raise ValueError("cut off")
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")


def content(data: bytes, start: int, end: int) -> bytes:
    """The bytes of a length-delimited field between its start and end."""
    _, place = varint(data, start)
    _, place = varint(data, place)
    return data[place:end]


def digest(data: bytes) -> str:
    """SHA-256 of an ONNX file without its metadata."""
    total = hashlib.sha256()
    for number, start, end in fields_of(data):
        if number != METADATA_FIELD:
            total.update(data[start:end])
    return total.hexdigest()


def metadata_entry(values: dict) -> bytes:
    """Metadata as a field to be appended to an ONNX file."""

    def delimited(number, text):
        raw = text if isinstance(text, bytes) else text.encode()
        return encoded(number << 3 | 2) + encoded(len(raw)) + raw

    text = json.dumps(values, separators=(",", ":"))
    return delimited(METADATA_FIELD, delimited(1, KEY) + delimited(2, text))


def encoded(value: int) -> bytes:
    """A variable-length integer."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def read_metadata(data: bytes) -> dict:
    """Read our metadata from the bytes of an ONNX file; {} if there are none. Raises ValueError if
    the bytes are not an ONNX file."""
    for number, start, end in fields_of(data):
        if number == METADATA_FIELD:
            entry = content(data, start, end)
            parts = {field: content(entry, a, b) for field, a, b in fields_of(entry)}
            if parts.get(1) == KEY.encode():
                return json.loads(parts.get(2, b""))
    return {}


def verified_metadata(data: bytes, path: Path, cure: str, **expected: type) -> dict:
    """The metadata of an ONNX file of ours, given its bytes, after its checksum was verified.

    Raises DataError, which ends with `cure`, if it is damaged, of another version, or lacks one of
    the `expected` entries.
    """
    try:
        values = read_metadata(data)
        if values and values["format"] != FORMAT:
            raise DataError(
                f"{path}: written by another version (format {values['format']!r}); {cure}"
            )
        expected = {**expected, "sha256": str}
        wrong = [key for key, kind in expected.items() if not isinstance(values.get(key), kind)]
        found = digest(data)
    except PARSE_ERRORS as error:
        raise DataError(
            f"{path}: damaged or not an ONNX file ({short_message(error)}); {cure}"
        ) from None
    if wrong:
        raise DataError(
            f"{path}: an ONNX file without the metadata of this project "
            f"({', '.join(wrong)}); {cure}"
        )
    if found != values["sha256"]:
        raise DataError(f"{path}: damaged, its checksum does not match; {cure}")
    return values


def is_fit(values: object) -> bool:
    """True for x, y, width and height as `detectors.to_tight` takes them."""
    return (
        isinstance(values, list)
        and len(values) == 4
        and all(type(value) in (int, float) and abs(value) < MAX_FIT for value in values)
        and min(values[2:]) > 0
    )


def read_model_file(path: Path) -> tuple[bytes, dict]:
    """The bytes and the metadata of an exported model, with its Layout. Raises DataError if it is
    damaged or was not exported by this project."""
    data = read_bytes(path)
    cure = "export it again: python models.py export CHECKPOINT --onnx FILE.onnx"
    values = verified_metadata(
        data, path, cure, side=int, crop_scale=float, points=int, shift=list, net=str
    )
    if list(map(type, values["shift"])) != [float, float]:
        raise DataError(
            f"{path}: an ONNX file without the metadata of this project (shift); {cure}"
        )
    if not all(abs(value) < MAX_SHIFT for value in values["shift"]):
        raise DataError(f"{path}: a shift of {values['shift']}; {cure}")
    fit = values.get("fit")
    if fit is not None and not is_fit(fit):
        raise DataError(
            f"{path}: a fit that is not four finite numbers, two of them above 0; {cure}"
        )
    values["layout"] = layout_from(values.get("layout"), path)
    if len(values["layout"]) != values["points"]:
        raise DataError(
            f"{path}: a model of {values['points']} points with a layout of "
            f"{len(values['layout'])}; {cure}"
        )
    return data, values
