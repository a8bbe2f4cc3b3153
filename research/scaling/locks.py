"""A folder for one run at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from facial_keypoints.errors import DataError, UsageError


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[Path]:
    """A context that locks a folder and creates it if needed. Raises UsageError if another run has
    locked it, DataError if it cannot be written to."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a killed run's kernel takes a moment to follow it
        (lock := FileLock(folder / ".lock", timeout=5)).acquire()
    except Timeout:
        raise UsageError(
            f"{folder}: another run writes there; wait until it ends, or use another folder"
        ) from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror})") from None
    try:
        yield folder
    finally:
        lock.release()
