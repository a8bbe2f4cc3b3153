"""Answers as CSV and JSON lines, and the .pts files of iBUG 300-W, written whole or not at all."""

import csv
import io
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from errors import DataError

COLUMNS = ["name", "left", "top", "width", "height", "confidence"] + [f"{axis}{i}" for i in range(68) for axis in "xy"]


@contextmanager
def open_whole(path):
    """A binary file to write to that takes its name only when all is written: readers see the old file or the new."""
    path = Path(os.path.realpath(path))  # a link stays a link, to the new file
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a terminal is written to as it is
        with open(path, "wb") as file:
            yield file
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's files are private; ours are like any other
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def write_whole(path, data):
    """Write `data` (str or bytes) to `path`, whole or not at all. Raises DataError where it cannot be written."""
    with open_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def csv_header():
    """First line of the CSV of answers."""
    return ",".join(COLUMNS) + "\n"


def to_csv(name, face):
    """A line of the CSV: name, box, confidence, x0, y0, … x67, y67 in pixels of the photo."""
    text = io.StringIO()
    numbers = [*(f"{v:.2f}" for v in face.box), f"{face.confidence:.4f}", *(f"{v:.2f}" for v in face.points.ravel())]
    csv.writer(text, lineterminator="\n").writerow([name, *numbers])
    return text.getvalue()


def to_json(name, face):
    """A line of JSON: name, box, confidence, points as 68 pairs."""
    box, points = ([[round(float(v), 2) for v in row] for row in rows] for rows in (face.box[None], face.points))
    row = {"name": name, "box": box[0], "confidence": round(float(face.confidence), 4), "points": points}
    return json.dumps(row, ensure_ascii=False) + "\n"


def to_pts(points):
    """Keypoints (68, 2), 0-based pixel centres -> text of a .pts file, which counts from 1."""
    rows = "\n".join(f"{x + 1:.6f} {y + 1:.6f}" for x, y in np.asarray(points, np.float64))
    return f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n"


def read_pts(text, where=".pts"):
    """Text of a .pts file (1-based) -> keypoints (68, 2) float32, 0-based. Raises DataError naming `where`."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    inside = text.partition("{")[2].partition("}")[0].split()
    try:
        points = np.array([float(v) for v in inside], np.float64)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    if points.size != 136 or not np.isfinite(points).all():
        raise DataError(f"{where}: {points.size / 2:g} points between the braces, expected 68 pairs of numbers")
    points = points.reshape(68, 2) - 1
    if np.linalg.norm(points[36] - points[45]) < 1e-3:
        raise DataError(f"{where}: outer eye corners coincide")
    return points.astype(np.float32)


def read_boxes(path):
    """A CSV with columns name, left, top, width, height (tight boxes, pixels) -> list of (name, (4,) float32)."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from None
    table = csv.DictReader(io.StringIO(text))
    missing = [c for c in COLUMNS[:5] if c not in (table.fieldnames or [])]
    if missing:
        raise DataError(f"{path}: column {', '.join(missing)} missing; expected name,left,top,width,height")
    rows = []
    try:
        table = list(table)
    except csv.Error as error:
        raise DataError(f"{path}: not a table of comma-separated values ({error})") from None
    for line, row in enumerate(table, start=2):
        try:
            box = np.array([float(row[c]) for c in COLUMNS[1:5]], np.float32)
        except (TypeError, ValueError):
            raise DataError(f"{path}: line {line}: left, top, width, height must be numbers") from None
        if not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
            raise DataError(f"{path}: line {line}: width and height must be above 0, all four finite")
        if np.abs(box).max() > 1e6:
            raise DataError(f"{path}: line {line}: a box a million pixels away or wide is a mistake")
        rows.append((row["name"], box))
    return rows
