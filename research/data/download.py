"""Resumable downloads with checks."""

import hashlib
import os
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm.auto import tqdm

from facial_keypoints.errors import DataError


def download(
    addresses: Sequence[str], target: Path, check: Callable[[Path], None], what: str, otherwise: str
) -> None:
    """Download `target` from the first address whose file passes `check`. An interrupted download
    is resumed; the file gets its name only after the check.

    Raises DataError with the name of the data, `what`, and the advice `otherwise`.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        lock.acquire()  # one process fetches, the others wait for it
    except OSError as error:
        raise DataError(
            f"{target}: {what} cannot be written there ({error.strerror}). {otherwise}"
        ) from None
    try:
        if not target.exists():
            fetch_one_of(addresses, target, check, what, otherwise)
    finally:
        lock.release()


def fetch_one_of(
    addresses: Sequence[str], target: Path, check: Callable[[Path], None], what: str, otherwise: str
) -> None:
    """The work of `download`, after the file is locked."""
    problems = []
    for number, address in enumerate(addresses):
        part = target.with_name(
            f"{target.name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part"
        )
        try:
            _fetch(address, part)
            try:
                check(part)
            except DataError:
                # complete but wrong: resuming it would not help
                part.unlink(missing_ok=True)
                raise
            os.replace(part, target)
            return
        except (URLError, OSError, HTTPException, DataError) as error:
            problems.append(f"  {number + 1}. {address}\n     {error}")
    raise DataError(
        f"{what} could not be downloaded:\n" + "\n".join(problems) + f"\n{otherwise} "
        "The part downloaded so far is kept, and the next call resumes it."
    )


def _fetch(address, part, timeout=60):
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "facial-keypoints", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urlopen(Request(address, headers=headers), timeout=timeout)
    except URLError as error:
        if getattr(error, "code", None) == 416:  # nothing is left to fetch: the part is whole
            return
        raise
    with response:
        if have and response.status != 206:  # the server does not resume: begin again
            have = 0
        length = response.headers.get("Content-Length") or ""
        total = have + int(length) if length.isdecimal() else 0  # 0: the server does not say
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(
                total=total or None,
                initial=have,
                unit="B",
                unit_scale=True,
                desc=part.name.split(".zip")[0],
            ) as bar,
        ):
            while block := response.read(1 << 16):
                file.write(block)
                bar.update(len(block))
            file.flush()
            # otherwise, after a power failure, the file could exist without its content
            os.fsync(file.fileno())
    if total and part.stat().st_size < total:
        raise DataError(f"interrupted after {part.stat().st_size:,} of {total:,} bytes")
