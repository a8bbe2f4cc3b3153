"""Files: atomic writes, safe paths, text and numbers from outside."""

import csv
import io
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.images import read_bytes

MAX_COORDINATE = 1e6  # pixels: larger positions and sizes in input files are errors


@contextmanager
def atomic_open(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A context with a binary file that replaces `path` only when all is written, so that readers
    see the old file or the new one. Raises DataError."""
    path = Path(os.path.realpath(path))  # keep a symbolic link, and replace the file it points to
    # a pipe or a terminal cannot be replaced: write to it directly
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, "wb") as file:
            yield file
        return
    if os.path.isdir(path):
        raise DataError(f"{path}: cannot be written, it is a folder; give a file's name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RecursionError) as error:  # the second: thousands of folders in one another
        reason = getattr(error, "strerror", None) or "the path is too deep"
        raise DataError(f"{path}: cannot be written ({reason})") from None
    # its name is known before it exists, so that it is removed whenever a signal comes
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # so that a power failure cannot leave an empty file
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        # a BrokenPipeError comes from standard output, not from this file
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def refuse_overwriting(inputs: Iterable, outputs: Iterable) -> None:
    """Raise UsageError if an output would replace an input or another output."""
    taken, places = (
        {os.path.realpath(path) for path in inputs},
        Counter(os.path.realpath(path) for path in outputs),
    )
    for path in outputs:
        if os.path.realpath(path) in taken:
            raise UsageError(
                f"{path} is one of the inputs and would be overwritten; give another folder or name"
            )
        if places[os.path.realpath(path)] > 1:
            raise UsageError(
                f"two outputs would go to {path}; give photos with other names, or another output"
            )


def atomic_write(path: str | os.PathLike, data: str | bytes) -> None:
    """Write `data` (str or bytes) to `path`, atomically. Raises DataError where it cannot
    be written."""
    with atomic_open(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def csv_text(columns: Sequence[str], rows: Iterable[dict], header: bool = True) -> str:
    """Rows as dictionaries -> CSV text with these columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def csv_rows(path: str | Path, optional: bool = False) -> list[dict[str, str]]:
    """Rows of a CSV file as dictionaries of text. optional: [] if there is no such file."""
    if optional and not Path(path).exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# the exceptions that malformed JSON can raise
PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def finite_array(values: Any, *shape: int) -> np.ndarray:
    """Nested lists of numbers -> float32 array of that shape. Raises one of PARSE_ERRORS."""
    with np.errstate(over="ignore"):
        array = np.asarray(values, np.float32).reshape(shape)
    if not (np.abs(array) <= MAX_COORDINATE).all():
        raise ValueError("a number that is not finite, or a million pixels away")
    return array


def short_message(error: BaseException) -> str:
    """An error in few words, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def read_text(path: str | os.PathLike) -> str:
    """The text of a file. Bytes that are not UTF-8 are kept (surrogateescape) and are the same when
    the text is written. Raises DataError."""
    return read_bytes(path).decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")


def safe_relative_path(name: str) -> Path:
    """A photo's name as a path that stays below the folder it is put into."""
    return Path(*(part for part in Path(name).parts if part not in ("/", "..", Path(name).anchor)))
