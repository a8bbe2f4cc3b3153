"""A folder for one run at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from facial_keypoints.errors import DataError, UsageError


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[Path]:
    """Have a folder for oneself: a second run into it is refused, not mixed in. Raises UsageError,
    or DataError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a killed run's kernel takes a moment to follow it
        (lock := FileLock(folder / ".lock", timeout=5)).acquire()
    except Timeout:
        raise UsageError(f"{folder}: another run writes there; wait for it to end, or write "
                         "elsewhere") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror})") from None
    try:
        yield folder
    finally:
        lock.release()
