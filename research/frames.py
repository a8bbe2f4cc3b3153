"""Annotated frames: folders, archives, the official set, the synthetic set, and their splits."""

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from facial_keypoints.errors import DataError
from facial_keypoints.files import MAX_COORDINATE
from facial_keypoints.formats import read_pts
from facial_keypoints.images import IMAGE_ENDINGS, MAX_BYTES, read_bytes, read_image
from research.download import download

HOME = Path(__file__).resolve().parents[1]
ADDRESSES = (  # the published archive, and the repository that keeps the same folders
    "https://s3.amazonaws.com/video.udacity-data.com/topher/2018/May/"
    "5aea1b91_train-test-data/train-test-data.zip",
    "https://github.com/udacity/P1_Facial_Keypoints/archive/refs/heads/master.zip",
)
OFFICIAL_ROWS = {"training": 3462, "test": 770}
TABLES = {"training": "training_frames_keypoints.csv", "test": "test_frames_keypoints.csv"}
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError)
MAX_FILES = 2_000_000  # in an archive; more are a mistake, or an attack on the memory
MAX_NAME = 500  # characters of a frame's path, for tables of paths are as wide as the longest
MAX_TABLE = 200_000_000  # bytes of a table, which takes many times as much once it is read


class Store:
    """A folder or a zip, read alike. A zip is opened once per process: forked workers share no file
    offset."""

    def __init__(self, path: str | Path):
        self.path, self.zip, self.pid = Path(path), None, None
        if not self.path.exists():
            raise DataError(f"{path}: no such folder or zip")
        self.is_zip = self.path.is_file()
        if self.is_zip and not zipfile.is_zipfile(self.path):
            raise DataError(f"{path}: neither a folder nor a whole zip archive; fetch it, or let "
                            "it be made, again")

    def _open(self):
        if self.pid != os.getpid():
            try:
                archive = zipfile.ZipFile(self.path)
            except (OSError, ValueError, *BROKEN_ZIP) as error:
                raise DataError(f"{self.path}: a damaged zip archive ({str(error)[:200]}); fetch "
                                "it again") from None
            if len(archive.infolist()) > MAX_FILES:
                raise DataError(f"{self.path}: {len(archive.infolist()):,} files in it, at most "
                                f"{MAX_FILES:,} are read")
            if max(map(len, archive.namelist()), default=0) > MAX_NAME:
                raise DataError(f"{self.path}: a path in it of more than {MAX_NAME} characters; "
                                "pack it with shorter ones")
            self.zip, self.pid = archive, os.getpid()
        return self.zip

    def names(self) -> list[str]:
        """All files inside, as relative paths with '/'."""
        if self.is_zip:
            return [name for name in self._open().namelist() if not name.endswith("/")]
        return [p.relative_to(self.path).as_posix() for p in sorted(self.path.rglob("*"))
                if p.is_file()]

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
        except (OSError, NotImplementedError, RuntimeError, *BROKEN_ZIP) as error:
            raise DataError(f"{self.path}: {name} cannot be read ({str(error)[:200]})") from None

    def _unpacked(self, member):
        """A file of the archive: no more of it than its header says, for the header may lie."""
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.path}: {member.filename} is packed in another way than zips "
                            "commonly are; pack it again")
        if member.file_size > MAX_BYTES:
            raise DataError(f"{self.path}: {member.filename} has {member.file_size:,} bytes "
                            f"unpacked, at most {MAX_BYTES:,} "
                            "are read")
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


@dataclass
class Frames:
    """A table of annotated frames. `select` takes rows; `image` decodes one."""

    data: str  # the parameter it was loaded with: sample, official or a path
    names: np.ndarray  # (n,) 'training/NAME' or 'test/NAME'
    points: np.ndarray  # (n, 68, 2) float32, pixels of the frame
    people: np.ndarray  # (n,) names of people
    # 'corrected' where the known shift of the official labels was taken out
    labels: str = "published"
    split: str = ""  # set by split_frames
    kind: str = "layout"  # 'official', 'sample', 'layout', 'annotations' or 'pts'
    store: Any = None  # a Store or Shards
    paths: Any = field(default=None, repr=False)  # (n,) where each frame lies in the store

    def __len__(self):
        return len(self.names)

    def select(self, rows: np.ndarray) -> "Frames":
        """The frames of the given rows: a boolean mask or indices."""
        parts = {key: getattr(self, key)[rows] for key in ("names", "points", "people", "paths")}
        return replace(self, **parts)

    @property
    def sides(self) -> np.ndarray:
        """(n,) 'training' or 'test', as published."""
        return np.array([name.split("/")[0] for name in self.names])

    @property
    def has_sides(self) -> bool:
        """True if the data set was published with a training and a test side."""
        return len(set(self.sides)) > 1

    @property
    def videos(self) -> np.ndarray:
        """(n,) the clip a frame was taken from: names are Person_<video digit><frame digit>.jpg,
        others stand alone."""
        if self.kind == "pts":
            return np.array([name.split("/", 1)[1] for name in self.names])
        return np.array([re.sub(r"(_\d)\d\.\w+$", r"\1", name.split("/", 1)[1])
                         for name in self.names])

    @property
    def shards(self) -> np.ndarray:
        """(n,) the archive each frame lies in, counted from 0; all 0 where there is one."""
        if not isinstance(self.store, Shards):
            return np.zeros(len(self), int)
        order = {name: number for number, name in enumerate(self.store.stores)}
        return np.array([order[path.split("/", 1)[0]] for path in self.paths])

    def digests(self) -> np.ndarray:
        """(n,) sha256 of each frame's file: equal for frames that are byte for byte the same."""
        return np.array([hashlib.sha256(self.store.read(path)).hexdigest() for path in self.paths])

    def image(self, row: int) -> np.ndarray:
        """Decode frame `row`: uint8 RGB (h, w, 3)."""
        try:
            return read_image(self.store.read(self.paths[row]))
        except DataError as error:
            raise DataError(f"{self.store.path}: {self.paths[row]}: {error}") from None


def read_table(text: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A CSV of the official layout -> names (n,), points (n, 68, 2) float32. Raises DataError
    naming row and cure."""
    if len(text) > MAX_TABLE:
        raise DataError(f"{where}: {len(text):,} bytes, at most {MAX_TABLE:,} are read; make "
                        "several archives of the set")
    try:
        table = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a table of comma-separated values "
                        f"({' '.join(str(error).split())[:200]})") from None
    wanted = [str(i) for i in range(136)]
    missing = [name for name in wanted if name not in table.columns[1:]]
    more = [name for name in table.columns[1:] if name.isdecimal() and name not in wanted]
    if more and not missing:
        raise DataError(f"{where}: {(len(wanted) + len(more)) / 2:g} points a row (columns 0 to "
                        f"{more[-1]}), expected 68 "
                        "(columns 0 to 135); select or convert them first: the order of the points "
                        "has a meaning")
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise DataError(f"{where}: column {shown} missing; expected a file name, then columns 0 to "
                        "135 (x0, y0, … y67)")
    if table.iloc[:, 0].str.len().max() > MAX_NAME:
        raise DataError(f"{where}: a name of more than {MAX_NAME} characters")
    names = table.iloc[:, 0].to_numpy(dtype=str)
    with np.errstate(over="ignore"):
        numbers = table[wanted].apply(pd.to_numeric,
                                      errors="coerce").to_numpy(np.float64).astype(np.float32)
    bad = np.argwhere(~(np.abs(numbers) <= MAX_COORDINATE))
    if len(bad):
        row, column = bad[0]
        value, far = table[wanted].iloc[row, column], np.isfinite(numbers[row, column])
        raise DataError(f"{where}: line {row + 2} ({names[row]}), column {column}: {value[:40]!r} "
                        "is "
                        + ("a million pixels away" if far else "not a number"))
    if len(twice := doubled(names)):
        raise DataError(f"{where}: {twice[0]} occurs twice")
    points = numbers.reshape(-1, 68, 2)
    if not len(points):
        raise DataError(f"{where}: no rows")
    flat = np.linalg.norm(points[:, 36] - points[:, 45], axis=1) < 1e-3
    if flat.any():
        raise DataError(f"{where}: line {np.argmax(flat) + 2} ({names[np.argmax(flat)]}): outer "
                        "eye corners coincide")
    return names, points


def doubled(names: np.ndarray) -> np.ndarray:
    """Those of names (n,) that have stood before, in their order."""
    return names[pd.Series(names).duplicated().to_numpy()]


def person_of(name: str) -> str:
    """The person in a frame's name: what stands before its last '_'."""
    return name.rsplit("/", 1)[-1].rsplit("_", 1)[0]


def load_folder(path: str | Path, data: str | None = None) -> "Frames":
    """Frames of a folder or zip: official layout, annotations.csv next to images/, or images with
    .pts files."""
    store = Store(path)
    inside = store.names()
    # what a killed call left, and what systems add
    seen = [name for name in inside if not name.startswith(".")]
    if not store.is_zip and seen and all(name.endswith(".zip") and "/" not in name
                                         for name in seen):
        return _load_shards(store.path, seen, data or str(path))
    tables = [(side, _shortest(inside, table)) for side, table in TABLES.items()]
    tables = [(side, table, table.replace(TABLES[side], f"{side}/")) for side,
              table in tables if table]
    kind = "layout"
    if not tables and (table := _shortest(inside, "annotations.csv")):
        tables, kind = [("test", table, table.replace("annotations.csv", "images/"))], "annotations"
    if not tables:
        return _load_pts(store, inside, data or str(path))
    names, points, paths = [], [], []
    for side, table, folder in tables:
        rows, xy = read_table(store.read(table), f"{store.path}: {table}")
        names += [f"{side}/{row}" for row in rows]
        paths += [folder + row for row in rows]
        points.append(xy)
    absent = set(paths) - set(inside)
    if absent:
        raise DataError(f"{path}: {len(absent)} annotated images are missing, {sorted(absent)[0]} "
                        "among them")
    people = np.array([person_of(name) for name in names])
    if kind == "annotations" and (len(set(people)) == 1
                                  or not all(re.search(r"_\d\d\.\w+$", name) for name in names)):
        people = np.array(names)  # not named after people: each photo a person of its own
    return Frames(data or str(path), np.array(names), np.concatenate(points), people, kind=kind,
                  store=store,
                  paths=np.array(paths))


def _load_shards(path, archives, data):
    """Frames of all archives in a folder, one after another."""
    parts = [load_folder(path / archive) for archive in archives]
    names = np.concatenate([part.names for part in parts])
    kinds = {part.kind for part in parts}
    if len(kinds) > 1:
        raise DataError(f"{path}: archives of several layouts ({', '.join(sorted(kinds))}); keep "
                        "them in folders of their own")
    if len(twice := doubled(names)):
        raise DataError(f"{path}: {twice[0]} is in two archives")
    paths = np.concatenate([np.char.add(f"{archive}/", part.paths) for archive,
                            part in zip(archives, parts, strict=True)])
    return Frames(data, names, np.concatenate([part.points for part in parts]),
                  np.concatenate([part.people for part in parts]), kind=kinds.pop(), paths=paths,
                  store=Shards(path, [path / archive for archive in archives]))


def _shortest(inside, table):
    """The path of `table` that lies least deep, or None; archives may carry the data below a folder
    of their own."""
    return min((n for n in inside if n.rsplit("/", 1)[-1] == table and "__MACOSX" not in n),
               key=len, default=None)


def _load_pts(store, inside, data):
    images = {n.rsplit(".", 1)[0]: n for n in inside if n.lower().endswith(IMAGE_ENDINGS)}
    files = [n for n in inside if n.lower().endswith(".pts")]
    if not files:
        raise DataError(f"{store.path}: no {TABLES['training']}, annotations.csv or .pts files in "
                        "it; "
                        "see docs/data.md for the layouts that are read")
    names, points, paths = [], [], []
    for file in files:
        stem = file[: -len(".pts")]
        if stem not in images:
            raise DataError(f"{store.path}: no image next to {file}")
        # A folder named train… is the training side; with no such folder the whole set is for
        # testing.
        side = "training" if re.match(r"train", file, re.I) else "test"
        names.append(f"{side}/{images[stem]}")
        points.append(read_pts(store.read(file), f"{store.path}: {file}"))
        paths.append(images[stem])
    # who is who is not known: each photo its own person
    people = np.array([name.rsplit(".", 1)[0] for name in names])
    return Frames(data, np.array(names), np.array(points), people, kind="pts", store=store,
                  paths=np.array(paths))


def load_official(folder: str | Path | None = None,
                  addresses: Sequence[str] = ADDRESSES) -> "Frames":
    """The official set: FACIAL_KEYPOINTS_DATA, else what lies in `folder` (data/), else downloaded
    into it once."""
    given = os.environ.get("FACIAL_KEYPOINTS_DATA")
    if given:
        frames = load_folder(given, "official")
    else:
        folder = Path(folder or HOME / "data")
        archive = folder / "train-test-data.zip"
        if not archive.exists() and not (folder / TABLES["training"]).exists():
            download(addresses, archive, check_official, "the official data set",
                 f"Fetch train-test-data.zip by hand and place it as {archive}, or set "
                 "FACIAL_KEYPOINTS_DATA to its path.")
        frames = load_folder(archive if archive.exists() else folder, "official")
    if frames.kind != "layout":
        raise DataError(f"{frames.store.path}: not in the layout of the official set "
                        f"({' and '.join(TABLES.values())})")
    frames.kind = "official"
    return frames


def is_official(frames: Frames) -> bool:
    """True if a folder or zip given by path holds the official set: its number of rows on both
    sides."""
    sides = frames.sides
    return frames.kind == "layout" and all((sides == side).sum() == n for side,
                                           n in OFFICIAL_ROWS.items())


def check_official(path: Path) -> None:
    """Raise DataError unless `path` holds the whole official set: row counts, and every annotated
    image decodes."""
    frames = load_folder(path)
    for side, expected in OFFICIAL_ROWS.items():
        found = int((frames.sides == side).sum())
        if found != expected:
            raise DataError(f"{path}: {found} {side} rows, expected {expected}")
    for row in tqdm(range(len(frames)), desc="checking images", unit="image", leave=False):
        frames.image(row)


