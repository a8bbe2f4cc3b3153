"""Tables of keypoints in the official layout: a file name, then columns 0, 1, …"""

import csv
import io
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from facial_keypoints.errors import DataError
from facial_keypoints.files import MAX_COORDINATE
from facial_keypoints.layouts import MAX_POINTS
from research.data.stores import MAX_NAME

MAX_CELLS = 50_000_000  # of a table
MAX_TABLE = 200_000_000  # bytes of a table, which takes many times as much once it is read


def point_columns(text: bytes, where: str) -> list[str]:
    """The columns 0, 1, … of a table, before it is read. Raises DataError where one is missing or
    there twice, and for too many columns or a row with more cells than columns: pandas would take
    much memory, or read the numbers as other points."""
    lines = re.split(rb"\r\n|\n|\r", text)
    if lines[0].count(b",") > 2 * MAX_POINTS:
        raise DataError(
            f"{where}: {lines[0].count(b','):,} columns, at most {2 * MAX_POINTS:,} of "
            "points are read"
        )
    try:
        heads = next(csv.reader([lines[0].decode("utf-8-sig", "replace")]), [])
    except csv.Error as error:
        raise DataError(f"{where}: its first line is not comma-separated ({error})") from None
    if not heads:
        raise DataError(f"{where}: not a table of comma-separated values (no columns)")
    if len(twice := doubled(np.array(heads[1:], dtype=object))):
        raise DataError(f"{where}: column {twice[0]} is in it twice")
    if len(lines) * len(heads) > MAX_CELLS:
        raise DataError(
            f"{where}: {len(lines):,} rows of {len(heads):,} columns; at most {MAX_CELLS:,} "
            "cells are read; make several archives of the set"
        )
    wanted = numbered_columns(heads[1:], where)
    for number, line in enumerate(lines[1:], 2):
        if line.count(b",") >= len(heads) and b'"' not in line:
            raise DataError(
                f"{where}: line {number}: {line.count(b',') + 1} cells for "
                f"{len(heads)} columns; are commas used as decimal points?"
            )
    return wanted


def numbered_columns(columns: Sequence[str], where: str) -> list[str]:
    """The columns 0, 1, … of a table. Raises DataError where one is missing."""
    numbers = {name for name in columns if name.isdecimal() and len(name) < 6}
    wanted = [str(i) for i in range(max(map(int, numbers), default=0) + 1)]
    missing = [name for name in wanted if name not in numbers]
    missing += [str(len(wanted))] if len(wanted) % 2 and not missing else []
    if missing or len(wanted) > 2 * MAX_POINTS:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise DataError(
            f"{where}: column {shown} missing; expected a file name, then columns 0, "
            "1, 2, … (x0, y0, x1, …), two for each point, of at most "
            f"{MAX_POINTS} points"
        )
    return wanted


def read_table(text: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A CSV of the official layout -> names (n,), points (n, k, 2) float32; empty cells are missing
    points (nan). Raises DataError that names the row and says what to do."""
    if len(text) > MAX_TABLE:
        raise DataError(
            f"{where}: {len(text):,} bytes, at most {MAX_TABLE:,} are read; make "
            "several archives of the set"
        )
    wanted = point_columns(text, where)
    try:
        table = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where}: not a table of comma-separated values ({' '.join(str(error).split())[:200]})"
        ) from None
    if not len(table):
        raise DataError(f"{where}: no rows")
    if table.iloc[:, 0].str.len().max() > MAX_NAME:
        raise DataError(f"{where}: a name of more than {MAX_NAME} characters")
    names = table.iloc[:, 0].to_numpy(dtype=str)
    with np.errstate(over="ignore"):
        numbers = (
            table[wanted]
            .apply(pd.to_numeric, errors="coerce")
            .to_numpy(np.float64)
            .astype(np.float32)
        )
    empty = (table[wanted] == "").to_numpy().reshape(len(table), -1, 2)
    empty = np.repeat(empty.all(-1), 2, axis=1)  # both coordinates of a point, or neither
    bad = np.argwhere(~(np.abs(numbers) <= MAX_COORDINATE) & ~empty)
    if len(bad):
        row, column = bad[0]
        value, far = table[wanted].iloc[row, column], np.isfinite(numbers[row, column])
        raise DataError(
            f"{where}: line {row + 2} ({names[row]}), column {column}: {value[:40]!r} "
            "is " + ("a million pixels away" if far else "not a number")
        )
    if len(twice := doubled(names)):
        raise DataError(f"{where}: {twice[0]} occurs twice")
    return names, numbers.reshape(len(names), -1, 2)


def doubled(names: np.ndarray) -> np.ndarray:
    """Those of names (n,) that have stood before, in their order."""
    return names[pd.Series(names).duplicated().to_numpy()]
