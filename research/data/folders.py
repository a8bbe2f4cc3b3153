"""Annotated frames of folders and archives: the official layout, .pts files, archives in a folder;
other formats are read by `readers`."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facial_keypoints.errors import DataError
from facial_keypoints.formats import read_pts
from facial_keypoints.images import IMAGE_ENDINGS
from facial_keypoints.layouts import Layout, load_layout, read_layout, unnamed_layout
from research.data.completion import complete_points
from research.data.frames import Frames
from research.data.stores import FrameStore, Shards, Store
from research.data.tables import doubled, read_table
from research.data.readers import (
    LABEL_ENDINGS,
    POSES,
    Annotations,
    read_annotations,
    two_formats,
)

TABLES = {"training": "training_frames_keypoints.csv", "test": "test_frames_keypoints.csv"}


def person_of(name: str) -> str:
    """The person in a frame's name: what stands before its last '_'."""
    return name.rsplit("/", 1)[-1].rsplit("_", 1)[0]


@dataclass(frozen=True)
class Source:
    """What a loader looks at: a store, the files of it that count, the parameter that it was given
    as, and the layout that was asked for, if any."""

    store: Store
    files: list[str]
    data: str
    layout: Layout | None

    @classmethod
    def of(cls, path: str | Path, data: str | None, layout: str | Layout | None) -> "Source":
        """The source of a folder, a zip, or one file of labels among others in its folder."""
        path = Path(path)
        alone = path.suffix.lower() in LABEL_ENDINGS and path.is_file()
        store = Store(path.parent if alone else path)
        files = [
            file
            for file in store.names()
            if not alone or file == path.name or file.lower().endswith(IMAGE_ENDINGS)
        ]
        given = load_layout(layout) if layout else layout_of_data(store)
        return cls(store, files, data or str(path), given)


def load_folder(
    path: str | Path, data: str | None = None, layout: str | Layout | None = None
) -> Frames:
    """Frames of a folder, zip or file: the official layout, annotations.csv next to images/, images
    with .pts files, or a format of `readers`.

    layout: of the keypoints, by name, file or object; else a file layout.toml of the data, the one
    that belongs to the format, or one by the number of points (`choose_layout`).
    """
    source = Source.of(path, data, layout)
    for load in (load_archives, load_tables, load_annotations, load_others):
        if (frames := load(source)) is not None:
            return frames
    raise DataError(
        f"{source.store.path}: no {TABLES['training']}, annotations.csv, .pts files or "
        "other labels that are known; docs/data.md lists the formats"
    )


def load_tables(source: Source) -> Frames | None:
    """The layout of the official set: a table and a folder for each side."""
    tables = [
        (side, table, table.replace(TABLES[side], f"{side}/"))
        for side in TABLES
        if (table := shallowest(source.files, TABLES[side]))
    ]
    return frames_of_tables(source, "layout", tables) if tables else None


def load_annotations(source: Source) -> Frames | None:
    """A file annotations.csv next to a folder images."""
    table = shallowest(source.files, "annotations.csv")
    if not table:
        return None
    folder = table.replace("annotations.csv", "images/")
    frames = frames_of_tables(source, "annotations", [("test", table, folder)])
    by_people = all(re.search(r"_\d\d\.\w+$", name) for name in frames.names)
    if len(set(frames.people)) == 1 or not by_people:
        frames.people = frames.names  # not named after people: each photo a person of its own
    return frames


def frames_of_tables(source: Source, kind: str, tables: Sequence[tuple[str, str, str]]) -> Frames:
    """Frames of tables (side, file, folder of the images)."""
    where = source.store.path
    names, points, paths = [], [], []
    for side, table, folder in tables:
        rows, xy = read_table(source.store.read(table), f"{where}: {table}")
        names += [f"{side}/{row}" for row in rows]
        paths += [folder + row for row in rows]
        points.append(xy)
    if len({xy.shape[1] for xy in points}) > 1:
        raise DataError(f"{where}: its tables have different numbers of points")
    if absent := set(paths) - set(source.files):
        raise DataError(
            f"{where}: {len(absent)} annotated images are missing, {sorted(absent)[0]} among them"
        )
    return checked_frames(
        source.store,
        source.data,
        kind,
        np.array(names),
        np.concatenate(points),
        np.array([person_of(name) for name in names]),
        np.array(paths),
        source.layout,
    )


def checked_frames(
    store: FrameStore,
    data: str,
    kind: str,
    names: np.ndarray,
    points: np.ndarray,
    people: np.ndarray,
    paths: np.ndarray,
    layout: Layout | None,
    visible: Sequence = (),
    pose: Sequence[str] = (),
) -> Frames:
    """A table of frames with a layout. Raises DataError for faces that cannot be measured."""
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
    place = shallowest(store.names(), "layout.toml")
    return read_layout(f"{store.path}: {place}", store.read(place)) if place else None


def load_archives(source: Source) -> Frames | None:
    """A folder of zip archives and nothing else: the frames of all, one archive after another."""
    # besides what a killed call left, and what systems add
    files = [file for file in source.files if not file.startswith(".")]
    only_archives = all(file.endswith(".zip") and "/" not in file for file in files)
    if source.store.is_zip or not files or not only_archives:
        return None
    archives = [source.store.path / file for file in files]
    parts = [load_folder(archive, layout=source.layout) for archive in archives]
    return joined(source, archives, parts)


def joined(source: Source, archives: Sequence[Path], parts: Sequence[Frames]) -> Frames:
    """The frames of several archives, `parts`, as one table."""
    path = source.store.path
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
            np.char.add(f"{archive.name}/", part.paths)
            for archive, part in zip(archives, parts, strict=True)
        ]
    )
    flags = [
        np.full(part.points.shape[:2], np.nan, np.float32) if part.visible is None else part.visible
        for part in parts
    ]
    return Frames(
        source.data,
        names,
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.people for part in parts]),
        kind=kinds.pop(),
        paths=paths,
        store=Shards(path, archives),
        layout=parts[0].layout,
        visible=None if all(part.visible is None for part in parts) else np.concatenate(flags),
        pose=None
        if all(part.pose is None for part in parts)
        else np.concatenate(
            [np.full(len(part), "") if part.pose is None else part.pose for part in parts]
        ),
    )


def shallowest(inside: Sequence[str], table: str) -> str | None:
    """The path of `table` that lies least deep, or None; archives may carry the data below a folder
    of their own."""
    return min(
        (n for n in inside if n.rsplit("/", 1)[-1] == table and "__MACOSX" not in n),
        key=len,
        default=None,
    )


def load_others(source: Source) -> Frames | None:
    """Images with .pts files, or a format of `readers`."""
    store, files = source.store, source.files
    pts = [file for file in files if file.lower().endswith(".pts")]
    found = read_annotations(store, files)
    if pts and found is not None:
        raise two_formats(store.path, pts[0], "labels of another program")
    if pts:
        found = read_pts_files(store, files, pts)
    if found is None:
        return None
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
    return checked_frames(
        found.store or store,
        source.data,
        found.kind,
        np.array(found.names),
        np.array(found.points, np.float32),
        np.array(found.people),
        np.array(found.paths),
        source.layout or found.layout,
        found.visible,
        found.pose,
    )


def read_pts_files(store: Store, inside: Sequence[str], files: Sequence[str]) -> Annotations:
    """The faces of .pts files, each next to its image or in another folder."""
    found, faces = Annotations("pts"), []
    images = {n.rsplit(".", 1)[0]: n for n in inside if n.lower().endswith(IMAGE_ENDINGS)}
    by_name: dict[str, list[str]] = {}
    for stem in sorted(images):
        by_name.setdefault(stem.rsplit("/", 1)[-1], []).append(stem)
    for file in files:
        stem = file[: -len(".pts")]
        image = stem if stem in images else image_of(stem, by_name, f"{store.path}: {file}")
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


def image_of(stem: str, by_name: dict[str, list[str]], where: str) -> str:
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
