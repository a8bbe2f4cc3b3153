"""Predictions as CSV, JSON lines, COCO keypoints and .pts files, and back."""

import csv
import datetime
import io
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from facial_keypoints.errors import DataError
from facial_keypoints.files import (
    MAX_COORDINATE,
    PARSE_ERRORS,
    atomic_write,
    finite_array,
    read_text,
    safe_relative_path,
    short_message,
)
from facial_keypoints.layouts import MAX_POINTS, Layout, load_layout

if TYPE_CHECKING:  # detector.py loads OpenCV
    from facial_keypoints.detector import Face

BOX_COLUMNS = ["name", "left", "top", "width", "height"]
OPENNESS = ("right_eye_open", "left_eye_open", "mouth_open")
MAX_CELLS = 20_000_000  # of a table of boxes
MAX_COLUMNS = 5000  # of a table of boxes: each row takes the room of all of them


def csv_columns(points: int = 68) -> list[str]:
    """The columns of the CSV of predictions."""
    return [
        *BOX_COLUMNS,
        "confidence",
        *(f"{axis}{i}" for i in range(points) for axis in "xy"),
        "identity",
        *OPENNESS,
    ]


def csv_line(name: str, face: "Face") -> str:
    """A line of the CSV: name, box, confidence, x0, y0, x1, y1, … in pixels of the photo; identity
    in clips, else empty; openness of the eyes and the mouth, empty where unknown."""
    text = io.StringIO()
    numbers = [
        *(f"{v:.2f}" for v in face.box),
        f"{face.confidence:.4f}",
        *(f"{v:.2f}" for v in face.points.ravel()),
    ]
    csv.writer(text, lineterminator="\n").writerow(
        [
            name,
            *numbers,
            "" if face.identity is None else face.identity,
            *("" if np.isnan(value) else f"{value:.2f}" for value in openness_of(face)),
        ]
    )
    return text.getvalue()


def openness_of(face: "Face") -> tuple[float, float, float]:
    """Openness of the right eye, the left eye and the mouth of a Face; nan where unknown."""
    right, left = face.eyes_open
    return float(right), float(left), face.mouth_open


def rounded(rows: Any, digits: int = 2) -> list:
    """An array as nested lists of short numbers."""
    return np.round(np.asarray(rows, np.float64), digits).tolist()


def json_line(name: str, face: "Face", expressions: bool = False) -> str:
    """A line of JSON: name, box, confidence, layout, points as pairs, their names; and where known
    the confidence and visibility of each point, the pose, openness and the identity. With
    `expressions`, also those and the points in three dimensions, of `Face.fit_3d`."""
    row = {
        "name": name,
        "box": rounded(face.box),
        "confidence": round(float(face.confidence), 4),
        "layout": face.layout.name,
        "points": rounded(face.points),
        "names": list(face.layout.keypoints),
    }
    if face.point_confidence is not None:
        row["point_confidence"] = rounded(face.point_confidence, 3)
    if face.point_visibility is not None:
        row["point_visibility"] = rounded(face.point_visibility, 3)
    if face.point_spread is not None:
        row["point_spread"] = rounded(face.point_spread, 2)
    if (pose := face.pose) is not None:
        row["pose"] = {angle: round(getattr(pose, angle), 1) for angle in ("yaw", "pitch", "roll")}
    for name, value in zip(OPENNESS, openness_of(face), strict=True):
        if not np.isnan(value):
            row[name] = round(value, 2)
    if face.identity is not None:
        row["identity"] = face.identity
    if expressions:
        fit = face.fit_3d()
        row["expressions"] = {name: round(value, 3) for name, value in fit.expressions.items()}
        row["points_3d"] = rounded(fit.points, 4)
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_json(path: str | os.PathLike) -> list[dict]:
    """The rows of a file of JSON lines as dictionaries, with arrays box (4,) and points (k, 2).
    Raises DataError."""
    rows = []
    # no other sign ends a line of JSON
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append(
                {
                    **row,
                    "box": finite_array(row["box"], 4),
                    "points": checked_points(row["points"], 2),
                }
            )
        except PARSE_ERRORS as error:
            raise DataError(
                f"{path}: line {number} is not a face ({short_message(error)}); expected a line "
                "written by facial-keypoints --json"
            ) from None
    return rows


def checked_points(values: Any, columns: int) -> np.ndarray:
    """Keypoints of a face from nested or flat lists -> (k, columns) float32. Raises one of
    PARSE_ERRORS."""
    if not isinstance(values, list) or not 1 <= len(values) <= columns * MAX_POINTS:
        raise ValueError("no list of keypoints")
    return finite_array(values, -1, columns)


class Writer(Protocol):
    """What takes the faces of one photo or frame after another, and is closed at the end."""

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        """name: of the photo or frame; size: its height and width in pixels; faces: of `Face`."""
        ...

    def close(self) -> None:
        """Write what belongs at the end."""
        ...


class CsvWriter:
    """The CSV of predictions in an open binary file."""

    def __init__(self, file: BinaryIO, layout: str | Layout = "ibug68"):
        self.file = file
        file.write((",".join(csv_columns(len(load_layout(layout)))) + "\n").encode())

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        self.file.write(
            "".join(csv_line(name, face) for face in faces).encode("utf-8", "surrogateescape")
        )

    def close(self) -> None:
        """Nothing more to write."""


class SpreadsheetWriter(CsvWriter):
    """The CSV of predictions for spreadsheets: a name that they would take for a formula begins
    with an apostrophe."""

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        super().write(
            f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name, size, faces
        )


class JsonWriter(CsvWriter):
    """JSON lines in an open binary file, with the head pose of each face where the layout has what
    it needs; with `expressions` if they are asked for."""

    def __init__(self, file: BinaryIO, layout: str | Layout = "ibug68", expressions: bool = False):
        self.file, self.expressions = file, expressions

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        lines = (json_line(name, face, self.expressions) for face in faces)
        self.file.write("".join(lines).encode("utf-8", "surrogateescape"))


def point_flags(face: "Face") -> np.ndarray:
    """COCO's flags (k,) of the points of a Face: 2 for visible points, 1 for hidden ones
    (visibility, or confidence from models without it, below 0.5), 0 for points without a
    position."""
    seen = face.point_confidence if face.point_visibility is None else face.point_visibility
    flags = np.full(len(face.points), 2) if seen is None else 1 + (np.asarray(seen) >= 0.5)
    return flags * np.isfinite(face.points).all(1)


class CocoWriter:
    """COCO keypoints JSON in an open binary file: faces are written as they come, the list of
    images at the end.

    keypoints are x, y, v for each point: pixels of the photo, 0-based centers; v is 2 for visible
    points, 1 for hidden ones (visibility, or confidence from models without it, below 0.5), and 0
    for missing points. The category has the names of the keypoints and the skeleton, pairs that
    count from 1.
    """

    def __init__(self, file: BinaryIO, layout: str | Layout = "ibug68"):
        self.file, self.images, self.count = file, [], 0
        category = coco_category(load_layout(layout))
        info = {
            "description": "faces found by Facial Keypoint Detection",
            "date_created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        file.write(
            f'{{"info": {json.dumps(info)}, "categories": {json.dumps([category])}, '
            '"annotations": ['.encode()
        )

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        self.images.append(
            {
                "id": len(self.images) + 1,
                "file_name": name,
                "height": int(size[0]),
                "width": int(size[1]),
            }
        )
        for face in faces:
            flags = point_flags(face)
            labeled = flags > 0
            points = rounded(np.where(labeled[:, None], face.points, 0))
            row = {
                "id": self.count + 1,
                "image_id": len(self.images),
                "category_id": 1,
                "iscrowd": 0,
                "num_keypoints": int(labeled.sum()),
                "bbox": rounded(face.box),
                "area": round(float(face.box[2] * face.box[3]), 2),
                "segmentation": [rounded(box_polygon(face.box))],
                "score": round(float(face.confidence), 4),
                "keypoints": [
                    v
                    for point, flag in zip(points, flags.tolist(), strict=True)
                    for v in (*point, flag)
                ],
            }
            if face.identity is not None:
                row["track_id"] = face.identity
            text = (", " if self.count else "") + json.dumps(row)
            self.file.write(text.encode())
            self.count += 1

    def close(self) -> None:
        images = json.dumps(self.images, ensure_ascii=False)
        self.file.write(f'], "images": {images}}}\n'.encode("utf-8", "surrogateescape"))


def coco_category(layout: Layout) -> dict:
    """The category of faces in COCO's format: the names of the keypoints, and the lines between
    them as pairs that count from 1."""
    return {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(layout.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in layout.skeleton()],
    }


def box_polygon(box: Any) -> list[float]:
    """A box (4,) as the polygon x0, y0, … of its corners: pycocotools makes masks of polygons."""
    left, top, width, height = (float(v) for v in box)
    return [left, top, left + width, top, left + width, top + height, left, top + height]


WRITERS: dict[str, Callable[..., Writer]] = {
    "csv": CsvWriter,
    "json": JsonWriter,
    "coco": CocoWriter,
}


def read_coco(path: str | os.PathLike) -> dict[str, list]:
    """COCO keypoints JSON -> {file name: list of (box (4,), points (k, 2), score)}. Raises
    DataError."""
    try:
        content = json.loads(read_text(path))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        faces: dict[str, list] = {name: [] for name in names.values()}
        for row in content["annotations"]:
            points = checked_points(row["keypoints"], 3)[:, :2]
            faces[names[row["image_id"]]].append(
                (finite_array(row["bbox"], 4), points, float(row.get("score", 1)))
            )
    except PARSE_ERRORS as error:
        raise DataError(
            f"{path}: not COCO keypoints ({short_message(error)}); expected a file as written by "
            "facial-keypoints --coco"
        ) from None
    return faces


class FacePaths:
    """Names of one file for each face, in a folder: NAME.ENDING for the first face of a photo,
    NAME-2.ENDING for the next. Of a.jpg and a.png the second keeps its ending."""

    def __init__(self, folder: str | os.PathLike, ending: str):
        self.folder, self.ending, self.faces = Path(folder), ending, Counter[str]()
        self.owners: dict[Path, str] = {}

    def next(self, name: str) -> Path:
        """The path of the next face of a photo."""
        self.faces[name] += 1
        number = f"-{self.faces[name]}" if self.faces[name] > 1 else ""
        inside = safe_relative_path(name)
        stems = itertools.chain(
            (inside.stem, inside.name), (f"{inside.name}~{i}" for i in itertools.count(2))
        )
        paths = (self.folder / inside.with_name(f"{stem}{number}{self.ending}") for stem in stems)
        return next(path for path in paths if self.owners.setdefault(path, name) == name)


class PtsWriter:
    """One .pts file for each face, in a folder (`FacePaths`)."""

    def __init__(self, folder: str | os.PathLike):
        self.paths = FacePaths(folder, ".pts")

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        for face in faces:
            atomic_write(self.paths.next(name), pts_text(face.points))

    def close(self) -> None:
        pass


class YoloWriter:
    """Labels for YOLO pose networks in a folder: labels/NAME.txt with a line for each face, and
    data.yaml. A line is: class, center and size of the box, and x, y, v of each point; all lengths
    are shares of the width or height of the photo; v is as in COCO (`CocoWriter`)."""

    def __init__(self, folder: str | os.PathLike, layout: str | Layout = "ibug68"):
        self.folder, self.layout = Path(folder), load_layout(layout)
        self.owners: dict[Path, str] = {}
        self.last: tuple[str, list[str]] = ("", [])

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        path = self.folder / "labels" / safe_relative_path(name).with_suffix(".txt")
        owner = self.owners.setdefault(path, name)
        if owner != name:
            raise DataError(f"{name}: {owner} has the same labels file, {path}; rename one of them")
        # rows of boxes of one photo come one after another
        lines = [
            *(self.last[1] if self.last[0] == name else []),
            *(self.line(face, size) for face in faces),
        ]
        self.last = (name, lines)
        atomic_write(path, "".join(lines))

    def line(self, face: "Face", size: Sequence[int]) -> str:
        """The line of a Face in a photo of a size (height, width)."""
        scale = np.array([size[1], size[0]], np.float64)
        box = np.asarray(face.box, np.float64)
        numbers = [*((box[:2] + box[2:] / 2) / scale), *(box[2:] / scale)]
        flags, points = point_flags(face), np.nan_to_num(face.points) / scale
        words = [f"{value:.6f}" for value in numbers]
        for (x, y), flag in zip(points, flags, strict=True):
            words += [f"{x:.6f}", f"{y:.6f}", str(flag)]
        return f"0 {' '.join(words)}\n"

    def close(self) -> None:
        """Write data.yaml."""
        flip = self.layout.mirror or range(len(self.layout))
        atomic_write(
            self.folder / "data.yaml",
            "# labels/ next to a folder images/ with the photos, as Ultralytics and RF-DETR read\n"
            f"path: .\ntrain: images\nval: images\nnames:\n  0: face\n"
            f"kpt_shape: [{len(self.layout)}, 3]\nflip_idx: [{', '.join(map(str, flip))}]\n"
            f"kpt_names:\n  0: {json.dumps(list(self.layout.keypoints))}\n",
        )


def pts_text(points: np.ndarray) -> str:
    """Keypoints (k, 2), 0-based pixel centers -> text of a .pts file, which counts from 1."""
    rows = "\n".join(f"{x + 1:.6f} {y + 1:.6f}" for x, y in np.asarray(points, np.float64))
    return f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n"


def read_pts(text: str | bytes, where: str = ".pts") -> np.ndarray:
    """Text of a .pts file (1-based) -> keypoints (k, 2) float32, 0-based. Raises DataError that
    names `where`."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    inside = text.partition("{")[2].partition("}")[0].split()
    try:
        points = finite_array([float(v) - 1 for v in inside], -1)
    except ValueError as error:
        raise DataError(f"{where}: {error}; between the braces stand pairs of numbers") from None
    if not points.size or points.size % 2 or points.size > 2 * MAX_POINTS:
        raise DataError(
            f"{where}: {points.size / 2:g} points between the braces, expected pairs "
            f"of numbers, at most {MAX_POINTS}"
        )
    said = re.search(r"n_points:\s*(\d{1,9})", text.partition("{")[0])
    if said and int(said[1]) != len(points) // 2:
        raise DataError(
            f"{where}: {len(points) // 2} points between the braces, but n_points is {said[1]}"
        )
    return points.reshape(-1, 2)


def read_boxes(path: str | os.PathLike) -> list[tuple[str, np.ndarray]]:
    """A CSV with columns name, left, top, width, height (tight boxes, pixels) -> list of (name,
    (4,) float32). Raises DataError that names the line."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)))
        heads = list(reader.fieldnames or [])
        if len(heads) > MAX_COLUMNS:
            raise DataError(f"{path}: {len(heads):,} columns, at most {MAX_COLUMNS:,} are read")
        if len(heads) != len(set(heads)):
            twice = next(name for name in heads if heads.count(name) > 1)
            raise DataError(f"{path}: column {twice} is in it twice")
        table = []
        for row in reader:
            table.append(row)
            if len(table) * len(heads) > MAX_CELLS:
                raise DataError(f"{path}: more than {MAX_CELLS:,} cells; divide the table")
    except csv.Error as error:
        raise DataError(f"{path}: not a table of comma-separated values ({error})") from None
    missing = [c for c in BOX_COLUMNS if c not in heads]
    if missing:
        raise DataError(
            f"{path}: column {', '.join(missing)} missing; expected name,left,top,width,height"
        )
    rows = []
    for line, row in enumerate(table, start=2):
        if None in row:
            raise DataError(
                f"{path}: line {line}: more cells than columns; are commas used as decimal points?"
            )
        try:
            box = np.array([float(row[c]) for c in BOX_COLUMNS[1:]], np.float32)
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: line {line}: left, top, width, height must be numbers"
            ) from None
        if not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
            raise DataError(
                f"{path}: line {line}: width and height must be above 0, all four finite"
            )
        if np.abs(box).max() > MAX_COORDINATE or box[2:].max() < 1:
            raise DataError(
                f"{path}: line {line}: left, top, width and height must be within a "
                "million pixels, and the longer side at least 1 pixel"
            )
        rows.append((row["name"], box))
    return rows
