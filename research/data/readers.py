"""Labels in the formats of other data sets and label tools: WFLW, COFW, Kaggle, COCO, imglab, Label
Studio."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

import cv2
import numpy as np

from facial_keypoints.errors import DataError, import_optional
from facial_keypoints.files import MAX_COORDINATE, PARSE_ERRORS, short_message
from facial_keypoints.image_headers import read_header
from facial_keypoints.images import IMAGE_ENDINGS, MAX_BYTES
from facial_keypoints.layouts import MAX_POINTS, Layout, layout_from, load_layout
from research.data.stores import FrameStore

LABEL_ENDINGS = (".json", ".xml", ".csv", ".mat", ".txt", ".yaml", ".yml")
# layouts that are recognized by the names of their keypoints
NAMED_LAYOUTS = ("ibug68", "wflw98", "lapa106", "cofw29", "aflw19", "kaggle15", "five")
MAX_PICTURES = 100_000  # in a table of pixels
# of Kaggle's training.csv, in its order; kaggle15 has the same points in the same order
KAGGLE_COLUMNS = [
    f"{name}_{axis}"
    for name in (
        "left_eye_center",
        "right_eye_center",
        "left_eye_inner_corner",
        "left_eye_outer_corner",
        "right_eye_inner_corner",
        "right_eye_outer_corner",
        "left_eyebrow_inner_end",
        "left_eyebrow_outer_end",
        "right_eyebrow_inner_end",
        "right_eyebrow_outer_end",
        "nose_tip",
        "mouth_left_corner",
        "mouth_right_corner",
        "mouth_center_top_lip",
        "mouth_center_bottom_lip",
    )
    for axis in "xy"
]
KAGGLE_SIDE = 96  # pixels
# classes of MERL-RAV: about up to 30°, 60° and 90° of yaw
POSES = ("frontal", "lefthalf", "righthalf", "left", "right")


class PixelStore:
    """Images that a data set keeps as numbers in its tables, by name; each is read as a PNG."""

    def __init__(self, path: str | Path, images: dict[str, np.ndarray]):
        self.path, self.images = Path(path), images

    def read(self, name: str) -> bytes:
        """The bytes of one image."""
        return cv2.imencode(".png", self.images[name])[1].tobytes()


@dataclass
class Annotations:
    """Labeled faces as a reader finds them, in parallel lists.

    names: 'training/NAME' or 'test/NAME', each once; paths: of the images in the store; points: (k,
    2) in pixels, nan for missing points; people: who it is, or a name of the image where that is
    not known; visible: (k,) 1 for visible points, 0 for occluded or self-occluded ones, nan where
    unknown; pose: one of POSES, '' where unknown; layout: of the points, where the format says it;
    store: where the images are, if not where the labels are.
    """

    kind: str
    names: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    visible: list[np.ndarray] = field(default_factory=list)
    pose: list[str] = field(default_factory=list)
    layout: Layout | None = None
    store: FrameStore | None = None

    def add(
        self,
        name: str,
        path: str,
        points: np.ndarray,
        person: str,
        visible: np.ndarray | None = None,
        pose: object = "",
    ) -> None:
        self.names.append(name)
        self.paths.append(path)
        self.points.append(points)
        self.people.append(person)
        self.visible.append(np.full(len(points), np.nan) if visible is None else visible)
        self.pose.append(pose if isinstance(pose, str) and pose in POSES else "")


class ImageFinder:
    """Finds the images that label files name: by their whole path, next to the label file, or by
    their file name anywhere in the set."""

    def __init__(self, where: str, inside: Sequence[str]):
        self.where, self.faces = where, Counter()
        self.images = {name for name in inside if name.lower().endswith(IMAGE_ENDINGS)}
        self.by_name: dict[str, list[str]] = {}
        for name in sorted(self.images):
            self.by_name.setdefault(PurePosixPath(name).name, []).append(name)

    def find(self, given: Any, labels: str) -> str:
        """The path of an image in the set. Raises DataError where it is missing or not unique."""
        if not isinstance(given, str) or not given:
            raise DataError(f"{self.where}: {labels}: the name of an image is missing")
        text = image_reference(given)
        neighbor = (PurePosixPath(labels).parent / text).as_posix()
        for path in (text, neighbor):
            if path in self.images:
                return path
        found = self.by_name.get(PurePosixPath(text).name, [])
        # tools put numbers before the names of uploaded images
        found = found or self.by_name.get(PurePosixPath(text).name.partition("-")[2], [])
        close = [path for path in found if path.endswith(text)] or found
        if len(close) != 1:
            what = "is missing" if not close else f"may be any of {len(close)} files"
            raise DataError(f"{self.where}: {labels}: the image {given[:200]} {what}")
        return close[0]

    def face_name(self, side: str, path: str) -> str:
        """A name for the next face of an image: its path, then PATH#2, …"""
        self.faces[side, path] += 1
        number = self.faces[side, path]
        return f"{side}/{path}" + (f"#{number}" if number > 1 else "")


def image_reference(text: str) -> str:
    """The path of an image in what a label tool writes: a path, or an address such as
    /data/local-files/?d=photos/a.jpg."""
    local = re.search(r"[?&]d=([^&]+)", text)
    return unquote(local[1] if local else text.split("?")[0]).replace("\\", "/")


def side_of(name: str) -> str:
    """'training' for a label file with 'train' in its name, else 'test'."""
    return "training" if re.search("train", PurePosixPath(name).name, re.I) else "test"


def checked(points: Any, where: str) -> np.ndarray:
    """Points as float64, nan where missing. Raises DataError for numbers that are not finite or too
    large."""
    points = np.asarray(points, np.float64)
    if not (np.abs(points[~np.isnan(points)]) <= MAX_COORDINATE).all():
        raise DataError(f"{where}: a coordinate that is a million pixels away, or not a number")
    return points


def read_annotations(store: FrameStore, inside: Sequence[str]) -> Annotations | None:
    """The labels of a data set in one of these formats, recognized by its files; None if it is in
    none of them. Raises DataError that names the file and what is wrong, also for a set in two
    formats: which of them counts cannot be known."""
    known: list[tuple[str, Annotations]] = []
    for recognize, read in READERS:
        files = [
            name
            for name in inside
            if recognize(PurePosixPath(name).name) and "__MACOSX" not in name
        ]
        if files and (found := read(store, inside, files)) is not None:
            if not found.names:
                raise DataError(f"{store.path}: {files[0]}: no labeled faces in it")
            known.append((sorted(files)[0], found))
    if len(known) > 1:
        raise two_formats(store.path, known[0][0], known[1][0])
    return known[0][1] if known else None


def two_formats(where: str | Path, first: str, second: str) -> DataError:
    """The error for a data set whose faces are labeled in two formats."""
    return DataError(
        f"{where}: labels in two formats, {first} and {second}; give the path of the file that "
        "counts, or move the other"
    )


def read_wflw(store: FrameStore, inside: Sequence[str], files: Sequence[str]) -> Annotations:
    """WFLW: a line per face with 98 points, 4 numbers of a box, 6 attributes, and the image."""
    found = Annotations("wflw", layout=load_layout("wflw98"))
    finder = ImageFinder(str(store.path), inside)
    for file in files:
        text = store.read(file).decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words:
                continue
            where = f"{store.path}: {file}: line {number}"
            try:
                points = np.array([float(word) for word in words[:196]])
            except ValueError as error:
                raise DataError(f"{where}: {error}") from None
            if len(words) < 197:
                raise DataError(
                    f"{where}: {len(words)} words; 196 numbers of 98 points and the "
                    "name of an image are needed"
                )
            # names of images may hold spaces; box and attributes stand before them
            name = " ".join(words[206:] or words[196:])
            path = finder.find(name, file)
            found.add(
                finder.face_name(side_of(file), path),
                path,
                checked(points.reshape(98, 2), where),
                f"{side_of(file)}/{path}",
            )
    return found


def read_cofw(store: FrameStore, inside: Sequence[str], files: Sequence[str]) -> Annotations:
    """COFW color: MATLAB files of version 7.3 with images and 29 points; occluded points are
    labeled as well."""
    h5py = import_optional("h5py", "reading .mat files of COFW")
    found, images = Annotations("cofw", layout=load_layout("cofw29")), {}
    for file in files:
        where = f"{store.path}: {file}"
        try:
            with h5py.File(io.BytesIO(store.read(file)), "r") as content:
                tables = [
                    (name[-2:], content[name]) for name in ("phisTr", "phisT") if name in content
                ]
                if not tables:
                    raise DataError(f"{where}: no table phisTr or phisT; is it COFW color?")
                which = "Tr" if "phisTr" in content else "T"
                numbers = np.array(own_values(content, f"phis{which}"), np.float64).T
                references = own_values(content, f"Is{which}").ravel()
                pixels = [own_values(content, reference, pixels=True) for reference in references]
        except (OSError, *PARSE_ERRORS, RuntimeError) as error:
            raise DataError(
                f"{where}: not a MATLAB file of COFW ({short_message(error)})"
            ) from None
        if numbers.shape != (len(pixels), 87):
            raise DataError(
                f"{where}: {len(pixels)} images and a table {numbers.shape}; 87 "
                "columns are needed: x, y and occlusion of 29 points"
            )
        side = "training" if which == "Tr" else "test"
        for index, (row, image) in enumerate(zip(numbers, pixels, strict=True)):
            path = f"{PurePosixPath(file).stem}/{index:04d}.png"
            # MATLAB's order: columns first, and counts from 1
            image = image.T if image.ndim == 2 else image.transpose(2, 1, 0)[..., ::-1]
            images[path] = np.ascontiguousarray(image.astype(np.uint8))
            points = np.stack([row[:29], row[29:58]], -1) - 1
            found.add(
                f"{side}/{path}",
                path,
                checked(points, f"{where}: face {index}"),
                f"{side}/{path}",
                1 - np.clip(np.rint(row[58:]), 0, 1),
            )
    found.store = PixelStore(store.path, images)
    return found


def own_values(content: Any, place: Any, pixels: bool = False) -> np.ndarray:
    """The values of a data set of an HDF5 file, or of the data set that a reference points to.
    Raises ValueError for values outside of the file, which HDF5 would read from any other file of
    the machine, for more than fit into the file, and for pixels that are not an image of 8 bits."""
    found = content[place]
    if found.file.id != content.id or found.external is not None or found.is_virtual:
        raise ValueError("values that lie in another file")
    if found.nbytes > MAX_BYTES:
        raise ValueError(f"a table of {found.nbytes:,} bytes; at most {MAX_BYTES:,} are read")
    values = np.array(found)
    if pixels and not (
        values.dtype == np.uint8
        and values.size
        and (values.ndim == 2 or (values.ndim == 3 and values.shape[0] == 3))
    ):
        raise ValueError(f"an image of {values.dtype} {values.shape}, not of 8 bits")
    return values


def read_kaggle(
    store: FrameStore, inside: Sequence[str], files: Sequence[str]
) -> Annotations | None:
    """Kaggle Facial Keypoints Detection: training.csv with 30 columns and the pixels of images of
    96×96; empty cells are missing points. None for other tables of this name."""
    found, images = Annotations("kaggle", layout=load_layout("kaggle15")), {}
    for file in files:
        where = f"{store.path}: {file}"
        try:
            rows = csv.DictReader(io.StringIO(store.read(file).decode("utf-8-sig", "replace")))
            if not {*KAGGLE_COLUMNS, "Image"} <= {*(rows.fieldnames or [])}:
                return None
            for number, row in enumerate(rows):
                if number >= MAX_PICTURES:
                    raise DataError(f"{where}: more than {MAX_PICTURES:,} rows")
                line = f"{where}: row {number + 1}"
                points = np.array([float(row[name] or "nan") for name in KAGGLE_COLUMNS])
                pixels = np.array((row["Image"] or "").split(), np.float64)
                if len(pixels) != KAGGLE_SIDE**2:
                    raise DataError(
                        f"{line}: {len(pixels)} pixels in column Image, expected "
                        f"{KAGGLE_SIDE}×{KAGGLE_SIDE}"
                    )
                path = f"{PurePosixPath(file).stem}/{number:05d}.png"
                images[path] = pixels.clip(0, 255).astype(np.uint8).reshape(KAGGLE_SIDE, -1)
                points = points.reshape(-1, 2)
                points[np.isnan(points).any(1)] = np.nan
                found.add(f"training/{path}", path, checked(points, line), path)
        except (csv.Error, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: row {len(found.names) + 1}: {short_message(error)}"
            ) from None
    found.store = PixelStore(store.path, images)
    return found


def read_json_labels(
    store: FrameStore, inside: Sequence[str], files: Sequence[str]
) -> Annotations | None:
    """COCO keypoints, COCO-WholeBody faces, or tasks of Label Studio; None if the files hold
    neither."""
    found, finder = Annotations("coco"), ImageFinder(str(store.path), inside)
    files_of: dict[str, str] = {}  # {kind: its first file}
    for file in sorted(files):
        where = f"{store.path}: {file}"
        try:
            content = json.loads(store.read(file))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({short_message(error)})") from None
        try:
            before = len(found.names)
            if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
                read_coco_file(content, found, finder, file, where)
                kind = "coco"
            elif isinstance(content, list) and content and "data" in content[0]:
                read_label_studio(content, found, finder, file, where, store)
                kind = "label studio"
            if len(found.names) > before:
                files_of.setdefault(kind, file)
        except PARSE_ERRORS as error:
            raise DataError(
                f"{where}: not COCO keypoints or Label Studio tasks ({short_message(error)})"
            ) from None
    if len(files_of) > 1:
        raise two_formats(store.path, *files_of.values())
    return found if found.names else None


def unique(rows: Sequence[dict], what: str, where: str) -> None:
    """Raise DataError for two rows with one id."""
    twice = [key for key, count in Counter(row.get("id") for row in rows).items() if count > 1]
    if twice:
        raise DataError(f"{where}: two {what} have the id {str(twice[0])[:40]!r}")


def in_order_of(layout: Layout | None, first: Layout | None, where: str) -> list[int] | None:
    """The order of the keypoints of a layout in which they are those of the layout of the first
    face; None for the order they have. Raises DataError for other keypoints."""
    names, wanted = (one.keypoints if one else None for one in (layout, first))
    if names == wanted:
        return None
    if names is None or wanted is None or {*names} != {*wanted}:
        raise DataError(
            f"{where}: faces with other keypoints than the first face of the set; keep sets of "
            "different layouts in folders of their own"
        )
    return [names.index(name) for name in wanted]


def read_coco_file(
    content: dict, found: Annotations, finder: ImageFinder, file: str, where: str
) -> None:
    """The faces of a COCO file: keypoints of any number, or `face_kpts` of COCO-WholeBody. Points
    with visibility 0 are missing.

    In a file that marks points as occluded (visibility 1), points of visibility 2 are visible, and
    those of 0 and 1 are not. A file without any 1 does not say which points are visible.
    """
    marked, first = False, len(found.names)
    unique(content["images"], "images", where)
    unique(content.get("categories", []), "categories", where)
    images = {image["id"]: image["file_name"] for image in content["images"]}
    layouts = {
        category.get("id"): coco_layout(category, where)
        for category in content.get("categories", [])
        if category.get("keypoints")
    }
    for row in content["annotations"]:
        whole_body = "face_kpts" in row
        values = row.get("face_kpts") if whole_body else row.get("keypoints")
        if not values or (whole_body and not row.get("face_valid", True)):
            continue
        points, flags = coco_points(values, f"{where}: annotation {str(row.get('id'))[:20]}")
        points[flags == 0] = np.nan
        marked |= bool((flags == 1).any())
        if np.isnan(points).all():
            continue
        layout = (
            load_layout()
            if whole_body and len(points) == 68
            else layouts.get(row.get("category_id"))
        )
        if not found.names:
            found.layout = layout
        if order := in_order_of(layout, found.layout, where):
            points, flags = points[order], flags[order]
        if row["image_id"] not in images:
            raise DataError(
                f"{where}: annotation {str(row.get('id'))[:20]} is of image "
                f"{str(row['image_id'])[:40]}, which is not in the list of images"
            )
        path = finder.find(images[row["image_id"]], file)
        side = side_of(file)
        found.add(
            finder.face_name(side, path),
            path,
            points,
            f"{side}/{path}",
            (flags == 2).astype(np.float64),
            row.get("pose"),
        )
    if not marked:
        for visible in found.visible[first:]:
            visible[:] = np.nan


def coco_points(values: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The keypoints of an annotation -> points (k, 2) and visibility (k,)."""
    if not isinstance(values, list) or len(values) > 3 * MAX_POINTS or len(values) % 3:
        raise DataError(f"{where}: keypoints must be triples x, y, visibility")
    numbers = checked(np.array(values, np.float64).reshape(-1, 3), where)
    return numbers[:, :2], numbers[:, 2]


def coco_layout(category: dict, where: str) -> Layout | None:
    """The layout that a COCO category describes by its names; a known one where all names are the
    same. None where the names are only numbers."""
    names = [str(name) for name in category["keypoints"]]
    for known in map(load_layout, NAMED_LAYOUTS):
        if tuple(names) == known.keypoints:
            return known
    if all(name.isdecimal() for name in names):
        return None
    values: dict[str, Any] = {"name": str(category.get("name") or "face")[:100], "keypoints": names}
    pairs = [[a - 1, b - 1] for a, b in category.get("skeleton") or []]
    if len(pairs) > 5 * MAX_POINTS:
        raise DataError(f"{where}: a skeleton of {len(pairs):,} lines; at most {5 * MAX_POINTS:,}")
    values["parts"] = [
        {"name": f"line {number}", "points": list(line), "region": "all"}
        for number, line in enumerate(chains(pairs), 1)
    ]
    return layout_from(values, where)


def chains(pairs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Pairs of points that lines connect -> as few longer lines as follow from their order."""
    lines: list[list[int]] = []
    for a, b in pairs:
        if lines and lines[-1][-1] == a:
            lines[-1].append(b)
        else:
            lines.append([a, b])
    return lines


def read_label_studio(
    tasks: list, found: Annotations, finder: ImageFinder, file: str, where: str, store: FrameStore
) -> None:
    """Tasks of Label Studio as its JSON export has them: of each the last annotation that was not
    cancelled, else the last prediction. The names of keypoints come from the labels; a face has
    each name once."""
    faces = [
        (path, labeled, f"{where}: task {number}")
        for number, task in enumerate(tasks, 1)
        for path, labeled in faces_of_task(task, finder, file, store, f"{where}: task {number}")
    ]
    names = list(dict.fromkeys(name for _, labeled, _ in faces for name in labeled))
    if not faces:
        return
    known = [
        layout
        for layout in map(load_layout, NAMED_LAYOUTS)
        if {*names} <= {*layout.keypoints} and len(names) > len(layout) / 2
    ]
    layout = (
        known[0]
        if known
        else layout_from({"name": "label studio", "keypoints": sorted(names, key=natural)}, where)
    )
    found.kind, found.layout = "label studio", layout
    for path, labeled, task in faces:
        points = np.full((len(layout), 2), np.nan)
        for name, point in labeled.items():
            points[layout.keypoints.index(name)] = point
        person = f"{side_of(file)}/{path}"
        found.add(finder.face_name(side_of(file), path), path, checked(points, task), person)


def faces_of_task(
    task: dict, finder: ImageFinder, file: str, store: FrameStore, where: str
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The faces of a task of Label Studio: the path of its image, and {name of a keypoint: (2,) in
    pixels}. Raises DataError for a rotated image, one of another size, or a face with a name
    twice."""
    chosen = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
    chosen = chosen or task.get("predictions") or []
    if not chosen:
        return []
    texts = [value for value in task["data"].values() if isinstance(value, str)]
    images = [text for text in texts if image_reference(text).lower().endswith(IMAGE_ENDINGS)]
    path, faces = finder.find(images[0] if images else None, file), dict[str, dict]()
    header = read_header(store.read(path))
    for row in chosen[-1].get("result", []):
        if row.get("type") != "keypointlabels":
            continue
        if row.get("image_rotation"):
            raise DataError(f"{where}: the image was rotated; label it without rotation")
        if header and {row["original_width"], row["original_height"]} != {*header[1:3]}:
            raise DataError(
                f"{where}: labeled on {row['original_width']}×{row['original_height']} pixels, but "
                f"{path} has {header.width}×{header.height}"
            )
        size = np.array([row["original_width"], row["original_height"]], np.float64)
        place = np.array([row["value"]["x"], row["value"]["y"]], np.float64)
        face = str(row.get("parentID") or row.get("meta", {}).get("face", ""))
        # percentages from edge to edge -> pixel centers
        point, name = place / 100 * size - 0.5, str(row["value"]["keypointlabels"][0])
        if name in faces.setdefault(face, {}):
            raise DataError(
                f"{where}: a face has {name[:40]!r} twice; label several faces as regions of their "
                "own (docs/keypoints.md)"
            )
        faces[face][name] = point
    return [(path, labeled) for labeled in faces.values()]


def natural(name: str) -> list:
    """A key that sorts numbers in names by their value."""
    return [
        (0, int(word), "") if word.isdecimal() else (1, 0, word)
        for word in re.findall(r"\d+|\D+", name)
    ]


def read_imglab(
    store: FrameStore, inside: Sequence[str], files: Sequence[str]
) -> Annotations | None:
    """XML files of dlib and its tool imglab: boxes with named parts; parts that a box lacks are
    missing points. None if the files are other XML."""
    boxes, finder = [], ImageFinder(str(store.path), inside)
    for file in sorted(files):
        where = f"{store.path}: {file}"
        data = store.read(file)
        if b"<!ENTITY" in data:
            raise DataError(
                f"{where}: XML with entities, which is not read; replace them by their text"
            )
        try:
            root = ElementTree.fromstring(data)
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise DataError(f"{where}: not XML ({short_message(error)})") from None
        if root.tag != "dataset":
            continue
        for image in root.iter("image"):
            for box in image.iter("box"):
                parts = {part.get("name", ""): part for part in box.iter("part")}
                if parts and box.get("ignore") != "1":
                    boxes.append((file, image.get("file"), parts, where))
    if not boxes:
        return None
    names = sorted({name for *_, parts, _ in boxes for name in parts}, key=natural)
    if len(names) > MAX_POINTS:
        raise DataError(f"{store.path}: {len(names)} names of parts, at most {MAX_POINTS} are read")
    found = Annotations("imglab")
    if not all(name.isdecimal() for name in names):
        found.layout = coco_layout({"name": "imglab", "keypoints": names}, str(store.path))
    for file, image, parts, where in boxes:
        points = np.full((len(names), 2), np.nan)
        for name, part in parts.items():
            try:
                points[names.index(name)] = float(part.get("x", "")), float(part.get("y", ""))
            except ValueError:
                raise DataError(
                    f"{where}: {image}: part {name[:40]!r} has no numbers x and y"
                ) from None
        path = finder.find(image, file)
        found.add(
            finder.face_name(side_of(file), path),
            path,
            checked(points, f"{where}: {image}"),
            f"{side_of(file)}/{path}",
        )
    return found


class YoloSet(NamedTuple):
    """What the YAML file of a YOLO pose set says: points of a face, numbers of a point (2: x, y; 3:
    also v), the layout, and how the paths of images of the sides train and val begin."""

    points: int
    each: int
    layout: Layout | None
    train: str
    val: str


def yolo_set(text: bytes, where: str) -> YoloSet | None:
    """The content of a YAML file; None if it has no kpt_shape."""
    if b"kpt_shape" not in text:  # a YAML file of something else needs no package
        return None
    yaml: Any = import_optional("yaml", "reading labels of YOLO", "pyyaml")
    try:
        values = yaml.safe_load(text.decode("utf-8", "replace"))
        if not isinstance(values, dict) or "kpt_shape" not in values:
            return None
        count, each = (int(number) for number in values["kpt_shape"])
        flip = [int(index) for index in values.get("flip_idx") or range(min(count, MAX_POINTS))]
        names = values.get("kpt_names")
        names = next(iter(names.values())) if isinstance(names, dict) and names else None
        train, val = (str(values.get(side) or "-").lstrip("./") for side in ("train", "val"))
    except (*PARSE_ERRORS, yaml.YAMLError) as error:
        raise DataError(f"{where}: not a YAML file of YOLO ({short_message(error)})") from None
    if each not in (2, 3) or not 0 < count <= MAX_POINTS or sorted(flip) != list(range(count)):
        raise DataError(
            f"{where}: kpt_shape must be [points, 2 or 3], at most {MAX_POINTS} points, and "
            "flip_idx each of their indices once"
        )
    layouts = [*map(load_layout, NAMED_LAYOUTS)]
    layout = next((one for one in layouts if names == list(one.keypoints)), None)
    if layout is None and count != len(load_layout()):
        numbered = [str(number) for number in range(count)]
        mirror = [[a, b] for a, b in enumerate(flip) if a < b]
        content = {"name": "yolo", "keypoints": names or numbered, "mirror": mirror}
        layout = layout_from(content, where)
    return YoloSet(count, each, layout, train, val)


def read_yolo(store: FrameStore, inside: Sequence[str], files: Sequence[str]) -> Annotations | None:
    """YOLO pose labels: a YAML file with kpt_shape, and for each image of a folder images a file in
    the folder labels next to it. None if no YAML file has kpt_shape. An image is of the training
    side if its path begins as the entry `train` does, unless `val` does so too."""
    described = {
        file: yolo_set(store.read(file), f"{store.path}: {file}") for file in sorted(files)
    }
    known = [(file, content) for file, content in described.items() if content]
    if not known:
        return None
    if len(known) > 1:
        raise DataError(f"{store.path}: {known[0][0]} and {known[1][0]} describe the set; keep one")
    (file, yolo), finder = known[0], ImageFinder(str(store.path), inside)
    found, present, marked = Annotations("yolo", layout=yolo.layout), set(inside), False
    root = PurePosixPath(file).parent.as_posix()
    for path in sorted(finder.images):
        folder, _, name = f"/{path}".rpartition("/images/")
        labels = PurePosixPath(f"{folder}/labels/{name}".lstrip("/")).with_suffix(".txt").as_posix()
        if labels not in present:
            continue
        within = path if root == "." else path.removeprefix(f"{root}/")
        training = within.startswith(yolo.train) and not within.startswith(yolo.val)
        side = "training" if training else "test"
        header = read_header(store.read(path))
        if header is None:
            raise DataError(f"{store.path}: {path}: not an image, or a damaged one")
        text = store.read(labels).decode("utf-8", "replace")
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{store.path}: {labels}: line {number}"
                points, flags = yolo_face(line, yolo, (header.width, header.height), where)
                marked |= bool((flags == 1).any())
                visible = np.where(np.isnan(flags), np.nan, flags == 2)
                found.add(finder.face_name(side, path), path, points, path, visible)
    if not marked:  # as in COCO: without any 1 the labels do not say which points are visible
        found.visible = [np.full(yolo.points, np.nan) for _ in found.names]
    return found


def yolo_face(
    line: str, yolo: YoloSet, size: tuple[int, int], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """A line of labels -> points (k, 2) in pixels of an image of a size (width, height), nan where
    not labeled, and v (k,): 0, 1 or 2, nan where the set has none."""
    try:
        numbers = np.array(line.split(), np.float64)
    except ValueError as error:
        raise DataError(f"{where}: {short_message(error)}") from None
    needed = 5 + yolo.points * yolo.each
    if len(numbers) != needed:
        raise DataError(
            f"{where}: {len(numbers)} numbers; {needed} are needed: class, box, and "
            f"{yolo.each} for each of {yolo.points} points"
        )
    rows = numbers[5:].reshape(yolo.points, yolo.each)
    points, flags = rows[:, :2] * size, np.full(yolo.points, np.nan)
    if yolo.each == 3:
        flags = rows[:, 2]
        points[flags == 0] = np.nan
    return checked(points, where), flags


READERS: list[tuple[Callable, Callable]] = [
    (lambda name: re.fullmatch(r"list_98pt.*\.txt", name), read_wflw),
    (lambda name: re.fullmatch(r"COFW.*\.mat", name, re.I), read_cofw),
    (lambda name: name == "training.csv", read_kaggle),
    (lambda name: name.lower().endswith(".json"), read_json_labels),
    (lambda name: name.lower().endswith(".xml"), read_imglab),
    (lambda name: name.lower().endswith((".yaml", ".yml")), read_yolo),
]
