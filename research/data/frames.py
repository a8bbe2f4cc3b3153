"""Annotated frames: folders and archives in the official layout or with .pts files, the official
set; other formats are read by `readers`."""

import csv
import hashlib
import io
import os
import re
import sys
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
from facial_keypoints.geometry import tight_box
from facial_keypoints.images import IMAGE_ENDINGS, MAX_BYTES, read_bytes, read_image
from facial_keypoints.layouts import (
    MAX_POINTS,
    Layout,
    load_layout,
    read_layout,
    unnamed_layout,
)
from research.data.completion import complete_points
from research.data.download import download
from research.data.readers import LABEL_ENDINGS, POSES, Annotations, read_annotations

HOME = Path(__file__).resolve().parents[2]
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
        try:
            readable = not self.is_zip or zipfile.is_zipfile(self.path)
        except BROKEN_ZIP:  # an archive that says it lies on several disks
            readable = False
        if not readable:
            raise DataError(
                f"{path}: neither a folder nor a whole zip archive; fetch it, or let "
                "it be made, again"
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
            if len(twice := doubled(np.array(archive.namelist(), dtype=object))):
                raise DataError(f"{self.path}: {twice[0]} is in it twice; pack it again")
            self.zip, self.pid = archive, os.getpid()
        return self.zip

    def names(self) -> list[str]:
        """All files inside, as relative paths with '/'."""
        if self.is_zip:
            return [name for name in self._open().namelist() if not name.endswith("/")]
        return [
            p.relative_to(self.path).as_posix() for p in sorted(self.path.rglob("*")) if p.is_file()
        ]

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
                f"{self.path}: {member.filename} is packed in another way than zips "
                "commonly are; pack it again"
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


@dataclass
class Frames:
    """A table of annotated frames. `select` takes rows; `image` decodes one."""

    data: str  # the parameter it was loaded with: sample, official or a path
    names: np.ndarray  # (n,) 'training/NAME' or 'test/NAME'
    points: np.ndarray  # (n, k, 2) float32, pixels of the frame; nan for missing points
    people: np.ndarray  # (n,) names of people
    # 'corrected' where the known shift of the official labels was taken out
    labels: str = "published"
    split: str = ""  # set by split_frames
    # 'official', 'sample', 'layout' (as the official set), 'annotations', 'pts', or a format of
    # `readers`
    kind: str = "layout"
    layout: Layout = field(default_factory=load_layout)  # of the k keypoints
    store: Any = None  # a Store or Shards
    paths: Any = field(default=None, repr=False)  # (n,) where each frame lies in the store
    # (n, k) float32, as people labeled it: 1 visible, 0 occluded or on the far side of the head,
    # nan unknown; None where no label says it
    visible: np.ndarray | None = field(default=None, repr=False)
    # (n,) a class of `readers.POSES`, '' where unknown; None where no label says it
    pose: np.ndarray | None = field(default=None, repr=False)

    def __len__(self):
        return len(self.names)

    def select(self, rows: np.ndarray) -> "Frames":
        """The frames of the given rows: a boolean mask or indices."""
        parts = {key: getattr(self, key)[rows] for key in ("names", "points", "people", "paths")}
        visible = None if self.visible is None else self.visible[rows]
        pose = None if self.pose is None else self.pose[rows]
        return replace(self, **parts, visible=visible, pose=pose)

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
        if self.kind not in ("official", "sample", "layout", "annotations"):
            return np.array([name.split("/", 1)[1] for name in self.names])
        return np.array(
            [re.sub(r"(_\d)\d\.\w+$", r"\1", name.split("/", 1)[1]) for name in self.names]
        )

    @property
    def shards(self) -> np.ndarray:
        """(n,) the archive each frame lies in, counted from 0; all 0 where there is one."""
        if not isinstance(self.store, Shards):
            return np.zeros(len(self), int)
        order = {name: number for number, name in enumerate(self.store.stores)}
        return np.array([order[path.split("/", 1)[0]] for path in self.paths])

    def complete(self) -> np.ndarray:
        """The points (n, k, 2) with estimates in place of missing ones (`complete_points`)."""
        return complete_points(self.points, self.layout)

    def with_hidden_points(self) -> "Frames":
        """The frames with estimated positions of the points that are labeled as hidden, but
        without a position."""
        if self.visible is None:
            return self
        unplaced = (np.isnan(self.points).any(-1) & (self.visible == 0))[..., None]
        return replace(self, points=np.where(unplaced, self.complete(), self.points))

    def boxes(self) -> np.ndarray:
        """The tight boxes (n, 4) of the keypoints in pixels, missing ones estimated."""
        return tight_box(self.complete())

    def lengths(self) -> np.ndarray:
        """(n,) the distance that errors are divided by, in pixels."""
        return self.layout.normalizer(self.complete())

    def digests(self) -> np.ndarray:
        """(n,) sha256 of each frame's file: equal for frames that are byte for byte the same."""
        return np.array([hashlib.sha256(self.store.read(path)).hexdigest() for path in self.paths])

    def image(self, row: int) -> np.ndarray:
        """Decode frame `row`: uint8 RGB (h, w, 3)."""
        try:
            return read_image(self.store.read(self.paths[row]))
        except DataError as error:
            raise DataError(f"{self.store.path}: {self.paths[row]}: {error}") from None


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


def choose_layout(given: Layout | None, points: int, where: str | Path) -> Layout:
    """The layout of a data set with so many points per face: the one that is given, else ibug68 for
    68 points, else one without names, which is said on standard error. Raises DataError for
    another number of points."""
    if given is not None:
        if len(given) != points:
            raise DataError(
                f"{where}: {points} points per face, but layout {given.name} has "
                f"{len(given)}; give the layout of this data set"
            )
        return given
    if points == len(load_layout()):
        return load_layout()
    print(
        f"{where}: {points} points per face and no layout: they are numbered, nothing is "
        "mirrored, and errors are in % of the diagonal of the tight box. A file layout.toml in "
        "the data folder, or --layout, changes that: docs/keypoints.md",
        file=sys.stderr,
    )
    return unnamed_layout(points)


def refuse_bad_faces(
    names: np.ndarray, points: np.ndarray, layout: Layout, where: str | Path
) -> None:
    """Raise DataError, with the name of the frame, for a face with fewer than two points, or whose
    errors would be divided by 0."""
    few = (~np.isnan(points).any(-1)).sum(1) < min(2, points.shape[1])
    if few.any():
        raise DataError(
            f"{where}: {names[np.argmax(few)]}: fewer than two labeled points; leave the face out"
        )
    flat = layout.normalizer(complete_points(points, layout)) < 1e-3
    if flat.any():
        name = layout.normalization.name if layout.normalization else "box diagonal"
        raise DataError(
            f"{where}: {names[np.argmax(flat)]}: the points whose distance errors are "
            f"divided by ({name}) coincide"
        )


def doubled(names: np.ndarray) -> np.ndarray:
    """Those of names (n,) that have stood before, in their order."""
    return names[pd.Series(names).duplicated().to_numpy()]


def person_of(name: str) -> str:
    """The person in a frame's name: what stands before its last '_'."""
    return name.rsplit("/", 1)[-1].rsplit("_", 1)[0]


def load_folder(
    path: str | Path, data: str | None = None, layout: str | Layout | None = None
) -> "Frames":
    """Frames of a folder, zip or file: the official layout, annotations.csv next to images/, images
    with .pts files, or a format of `readers`.

    layout: of the keypoints, by name, file or object; else a file layout.toml of the data, the one
    that belongs to the format, or one by the number of points (`choose_layout`).
    """
    alone = Path(path).suffix.lower() in LABEL_ENDINGS and Path(path).is_file()
    store = Store(Path(path).parent if alone else path)
    given = load_layout(layout) if layout else layout_of_data(store)
    inside = store.names()
    if alone:  # one file of labels among others in its folder
        inside = [
            name
            for name in inside
            if name == Path(path).name or name.lower().endswith(IMAGE_ENDINGS)
        ]
    # what a killed call left, and what systems add
    seen = [name for name in inside if not name.startswith(".")]
    if (
        not store.is_zip
        and seen
        and all(name.endswith(".zip") and "/" not in name for name in seen)
    ):
        return _load_shards(store.path, seen, data or str(path), given)
    tables = [(side, _shortest(inside, table)) for side, table in TABLES.items()]
    tables = [
        (side, table, table.replace(TABLES[side], f"{side}/")) for side, table in tables if table
    ]
    kind = "layout"
    if not tables and (table := _shortest(inside, "annotations.csv")):
        tables, kind = [("test", table, table.replace("annotations.csv", "images/"))], "annotations"
    if not tables:
        return _load_others(store, inside, data or str(path), given)
    names, points, paths = [], [], []
    for side, table, folder in tables:
        rows, xy = read_table(store.read(table), f"{store.path}: {table}")
        names += [f"{side}/{row}" for row in rows]
        paths += [folder + row for row in rows]
        points.append(xy)
    if len({xy.shape[1] for xy in points}) > 1:
        raise DataError(f"{path}: its tables have different numbers of points")
    absent = set(paths) - set(inside)
    if absent:
        raise DataError(
            f"{path}: {len(absent)} annotated images are missing, {sorted(absent)[0]} among them"
        )
    people = np.array([person_of(name) for name in names])
    if kind == "annotations" and (
        len(set(people)) == 1 or not all(re.search(r"_\d\d\.\w+$", name) for name in names)
    ):
        people = np.array(names)  # not named after people: each photo a person of its own
    return _frames(
        store,
        data or str(path),
        kind,
        np.array(names),
        np.concatenate(points),
        people,
        np.array(paths),
        given,
    )


def _frames(store, data, kind, names, points, people, paths, layout, visible=(), pose=()):
    """A checked table of frames."""
    layout = choose_layout(layout, points.shape[1], store.path)
    refuse_bad_faces(names, points, layout, store.path)
    flags = np.array(visible, np.float32)
    return Frames(
        data,
        names,
        points,
        people,
        kind=kind,
        store=store,
        paths=paths,
        layout=layout,
        visible=None if np.isnan(flags).all() else flags,
        pose=np.array(pose) if any(pose) else None,
    )


def layout_of_data(store: Store) -> Layout | None:
    """The layout that a data set carries in a file layout.toml, or None."""
    place = _shortest(store.names(), "layout.toml")
    return read_layout(f"{store.path}: {place}", store.read(place)) if place else None


def _load_shards(path, archives, data, layout):
    """Frames of all archives in a folder, one after another."""
    parts = [load_folder(path / archive, layout=layout) for archive in archives]
    if len({part.layout for part in parts}) > 1:
        raise DataError(f"{path}: archives with different layouts of keypoints")
    names = np.concatenate([part.names for part in parts])
    kinds = {part.kind for part in parts}
    if len(kinds) > 1:
        raise DataError(
            f"{path}: archives of several layouts ({', '.join(sorted(kinds))}); keep "
            "them in folders of their own"
        )
    if len(twice := doubled(names)):
        raise DataError(f"{path}: {twice[0]} is in two archives")
    paths = np.concatenate(
        [
            np.char.add(f"{archive}/", part.paths)
            for archive, part in zip(archives, parts, strict=True)
        ]
    )
    flags = [
        np.full(part.points.shape[:2], np.nan, np.float32) if part.visible is None else part.visible
        for part in parts
    ]
    return Frames(
        data,
        names,
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.people for part in parts]),
        kind=kinds.pop(),
        paths=paths,
        store=Shards(path, [path / archive for archive in archives]),
        layout=parts[0].layout,
        visible=None if all(part.visible is None for part in parts) else np.concatenate(flags),
        pose=None
        if all(part.pose is None for part in parts)
        else np.concatenate(
            [np.full(len(part), "") if part.pose is None else part.pose for part in parts]
        ),
    )


def _shortest(inside, table):
    """The path of `table` that lies least deep, or None; archives may carry the data below a folder
    of their own."""
    return min(
        (n for n in inside if n.rsplit("/", 1)[-1] == table and "__MACOSX" not in n),
        key=len,
        default=None,
    )


def _load_others(store, inside, data, given):
    """Frames of a set in one of the other formats."""
    images = {n.rsplit(".", 1)[0]: n for n in inside if n.lower().endswith(IMAGE_ENDINGS)}
    files = [n for n in inside if n.lower().endswith(".pts")]
    if files:
        found = _read_pts_files(store, images, files)
    elif (others := read_annotations(store, inside)) is not None:
        found = others
    else:
        raise DataError(
            f"{store.path}: no {TABLES['training']}, annotations.csv, .pts files or "
            "other labels that are known; docs/data.md lists the formats"
        )
    if len(twice := doubled(np.array(found.names))):
        raise DataError(f"{store.path}: {twice[0]} occurs twice")
    sizes = {len(points) for points in found.points}
    if len(sizes) > 1:
        odd = next(
            name
            for name, points in zip(found.names, found.points, strict=True)
            if len(points) != len(found.points[0])
        )
        raise DataError(
            f"{store.path}: {odd} has another number of points than the first face; "
            "keep sets of different layouts in folders of their own"
        )
    return _frames(
        found.store or store,
        data,
        found.kind,
        np.array(found.names),
        np.array(found.points, np.float32),
        np.array(found.people),
        np.array(found.paths),
        given or found.layout,
        found.visible,
        found.pose,
    )


def _read_pts_files(store, images, files):
    found, faces = Annotations("pts"), []
    by_name: dict[str, list[str]] = {}
    for stem in sorted(images):
        by_name.setdefault(stem.rsplit("/", 1)[-1], []).append(stem)
    for file in files:
        stem = file[: -len(".pts")]
        image = stem if stem in images else _image_of(stem, by_name, f"{store.path}: {file}")
        # A folder named train… is the training side; with no such folder the whole set is for
        # testing.
        side = "training" if re.search(r"(^|/)train", file, re.I) else "test"
        name = images.get(stem, f"{stem}.pts")
        faces.append(
            (
                f"{side}/{name}",
                images[image],
                read_pts(store.read(file), f"{store.path}: {file}"),
                f"{side}/{image}",
            )
        )
    # as MERL-RAV writes them; the reader of .pts files has subtracted 1
    signed = any((points == -2).all(1).any() for _, _, points, _ in faces)
    for name, path, points, person in faces:  # who is who is not known: each photo a person
        points, visible = without_signs(points) if signed else (points, None)
        pose = next((part for part in name.split("/") if part in POSES), "")
        found.add(name, path, points, person, visible, pose if signed else "")
    return found


def _image_of(stem, by_name, where):
    """The image, without its ending, that belongs to a .pts file in another folder: the one of the
    same name, or of the same name without a number at its end (FILE_1, the second face)."""
    name = stem.rsplit("/", 1)[-1]
    near = by_name.get(name) or by_name.get(re.sub(r"_\d+$", "", name), [])
    if len(near) != 1:
        what = "no image next to it" if not near else f"{len(near)} images have its name"
        raise DataError(f"{where}: {what}")
    return near[0]


def without_signs(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (k, 2) with the signs of MERL-RAV (Kumar et al., CVPR 2020), 0-based -> points (k, 2)
    in pixels, nan where self-occluded, and visible (k,).

    A point whose numbers are both negative in the file is occluded, and lies at their absolute
    values; −1 −1 is a self-occluded point without a position.
    """
    one_based = np.asarray(points, np.float32) + 1
    hidden, missing = (one_based < 0).all(1), (one_based == -1).all(1)
    placed: np.ndarray = np.abs(one_based) - 1
    placed[missing] = np.nan
    return placed, np.where(hidden, np.float32(0), np.float32(1))


def load_official(
    folder: str | Path | None = None, addresses: Sequence[str] = ADDRESSES
) -> "Frames":
    """The official set: FACIAL_KEYPOINTS_DATA, else what lies in `folder` (data/), else downloaded
    into it once."""
    given = os.environ.get("FACIAL_KEYPOINTS_DATA")
    if given:
        frames = load_folder(given, "official")
    else:
        folder = Path(folder or HOME / "data")
        archive = folder / "train-test-data.zip"
        if not archive.exists() and not (folder / TABLES["training"]).exists():
            download(
                addresses,
                archive,
                check_official,
                "the official data set",
                f"Fetch train-test-data.zip by hand and place it as {archive}, or set "
                "FACIAL_KEYPOINTS_DATA to its path.",
            )
        frames = load_folder(archive if archive.exists() else folder, "official")
    if frames.kind != "layout":
        raise DataError(
            f"{frames.store.path}: not in the layout of the official set "
            f"({' and '.join(TABLES.values())})"
        )
    frames.kind = "official"
    return frames


def is_official(frames: Frames) -> bool:
    """True if a folder or zip given by path holds the official set: its number of rows on both
    sides."""
    sides = frames.sides
    return frames.kind == "layout" and all(
        (sides == side).sum() == n for side, n in OFFICIAL_ROWS.items()
    )


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
