"""Answers as CSV and JSON lines, and the .pts files of iBUG 300-W, written whole or not at all."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from errors import DataError

COLUMNS = ["name", "left", "top", "width", "height", "confidence"] + [f"{axis}{i}" for i in range(68) for axis in "xy"]


def write_whole(path, data):
    """Write `data` (str or bytes) beside `path`, then rename: a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's files are private; ours are like any other
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def to_csv(rows):
    """Rows of (name, face) -> CSV text, one row a face: name, box, confidence, x0, y0, … x67, y67 in pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, face in rows:
        numbers = [*(f"{v:.2f}" for v in face.box), f"{face.confidence:.4f}", *(f"{v:.2f}" for v in face.points.ravel())]
        writer.writerow([name, *numbers])
    return text.getvalue()


def to_json_lines(rows):
    """Rows of (name, face) -> one JSON object a line: name, box, confidence, points."""
    return "".join(
        json.dumps({
            "name": name,
            "box": [round(float(v), 2) for v in face.box],
            "confidence": round(float(face.confidence), 4),
            "points": [[round(float(x), 2), round(float(y), 2)] for x, y in face.points],
        }, ensure_ascii=False) + "\n"
        for name, face in rows
    )


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
    for line, row in enumerate(table, start=2):
        try:
            box = np.array([float(row[c]) for c in COLUMNS[1:5]], np.float32)
        except (TypeError, ValueError):
            raise DataError(f"{path}: line {line}: left, top, width, height must be numbers") from None
        if not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
            raise DataError(f"{path}: line {line}: width and height must be above 0, all four finite")
        rows.append((row["name"], box))
    return rows
