"""Folders and zip archives, read alike."""

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from facial_keypoints.errors import DataError
from facial_keypoints.images import MAX_BYTES, files_below, read_bytes

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError)
MAX_FILES = 2_000_000  # in an archive; more are a mistake, or an attack on the memory
MAX_NAME = 500  # characters of a frame's path, for tables of paths are as wide as the longest


class FrameStore(Protocol):
    """Where frames lie: a folder, an archive, several archives, or pixels in a file."""

    path: Path

    def read(self, name: str) -> bytes:
        """The bytes of an image file."""
        ...


class Store:
    """A folder or a zip, read alike. A zip is opened once per process: forked workers share no file
    offset."""

    def __init__(self, path: str | Path):
        self.path, self.zip, self.pid = Path(path), None, None
        if not self.path.exists():
            raise DataError(f"{path}: no such folder or zip")
        self.is_zip = self.path.is_file()
        try:
            readable = not self.is_zip or zipfile.is_zipfile(self.path)
        except BROKEN_ZIP:  # an archive that says it lies on several disks
            readable = False
        if not readable:
            raise DataError(
                f"{path}: not a folder or a complete zip archive; download or create it again"
            )

    def _open(self):
        if self.pid != os.getpid():
            try:
                archive = zipfile.ZipFile(self.path)
            except (OSError, ValueError, NotImplementedError, *BROKEN_ZIP) as error:
                raise DataError(
                    f"{self.path}: a damaged zip archive ({str(error)[:200]}); fetch it again"
                ) from None
            if len(archive.infolist()) > MAX_FILES:
                raise DataError(
                    f"{self.path}: {len(archive.infolist()):,} files in it, at most "
                    f"{MAX_FILES:,} are read"
                )
            if max(map(len, archive.namelist()), default=0) > MAX_NAME:
                raise DataError(
                    f"{self.path}: a path in it of more than {MAX_NAME} characters; "
                    "pack it with shorter ones"
                )
            twice = [name for name, count in Counter(archive.namelist()).items() if count > 1]
            if twice:
                raise DataError(f"{self.path}: {twice[0]} is in it twice; pack it again")
            self.zip, self.pid = archive, os.getpid()
        return self.zip

    def names(self) -> list[str]:
        """All files inside, as relative paths with '/'."""
        if self.is_zip:
            return [name for name in self._open().namelist() if not name.endswith("/")]
        files = (Path(file) for file in files_below(self.path, None) if os.path.isfile(file))
        names = (file.relative_to(self.path).as_posix() for file in files)
        return sorted(names, key=lambda name: name.split("/"))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(f"{self.path}: {name!r} points outside of the data")
        try:
            return (
                self._unpacked(self._open().getinfo(name))
                if self.is_zip
                else read_bytes(self.path / name)
            )
        except KeyError:
            raise DataError(f"{self.path}: {name} is not in the archive") from None
        except (OSError, ValueError, NotImplementedError, RuntimeError, *BROKEN_ZIP) as error:
            raise DataError(f"{self.path}: {name} cannot be read ({str(error)[:200]})") from None

    def _unpacked(self, member):
        """A file of the archive: no more of it than its header says, for the header may lie."""
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.path}: {member.filename} has an unsupported compression; "
                "pack the archive again with deflate"
            )
        if member.file_size > MAX_BYTES:
            raise DataError(
                f"{self.path}: {member.filename} has {member.file_size:,} bytes "
                f"unpacked, at most {MAX_BYTES:,} "
                "are read"
            )
        with self.zip.open(member) as file:
            # one more, so that its end and its checksum are seen
            return file.read(member.file_size + 1)

    def __getstate__(self):
        return {**self.__dict__, "zip": None, "pid": None}


class Shards:
    """Several archives in a folder, read as one store: paths begin with the archive's name."""

    def __init__(self, path: str | Path, archives: Sequence[Path]):
        self.path, self.stores = Path(path), {archive.name: Store(archive) for archive in archives}

    def read(self, name: str) -> bytes:
        """The bytes of one file, 'ARCHIVE/PATH'."""
        archive, inside = name.split("/", 1)
        return self.stores[archive].read(inside)
