"""Answers as CSV, JSON lines, COCO keypoints and .pts files, and back; files are written whole or not at all."""

import csv
import datetime
import io
import itertools
import json
import os
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout  # comes with PyTorch

from errors import DataError, UsageError
from pictures import read_bytes

COLUMNS = ["name", "left", "top", "width", "height", "confidence", *(f"{axis}{i}" for i in range(68) for axis in "xy"),
           "identity"]
FAR = 1e6  # pixels: what is said to be farther away, or wider, is a mistake


@contextmanager
def open_whole(path):
    """A binary file to write to that takes its name only when all is written: readers see the old file or the new."""
    path = Path(os.path.realpath(path))  # a link stays a link, to the new file
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a terminal is written to as it is
        with open(path, "wb") as file:
            yield file
        return
    if path.is_dir():
        raise DataError(f"{path}: cannot be written, it is a folder; give a file's name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a name could outlive a power cut that its content does not
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's files are private; ours are like any other
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):  # that is of standard output
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def refuse_overwriting(inputs, outputs):
    """Raise UsageError if an output would replace an input or another output."""
    taken, places = {os.path.realpath(path) for path in inputs}, Counter(os.path.realpath(path) for path in outputs)
    for path in outputs:
        if os.path.realpath(path) in taken:
            raise UsageError(f"{path} would be written over, but it is one of the inputs; give another folder or name")
        if places[os.path.realpath(path)] > 1:
            raise UsageError(f"two outputs would go to {path}; give photos of different names, or another place")


def write_whole(path, data):
    """Write `data` (str or bytes) to `path`, whole or not at all. Raises DataError where it cannot be written."""
    with open_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def alone_in(folder):
    """Have a folder for oneself: a second run into it is refused, not mixed in. Raises UsageError, or DataError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (lock := FileLock(folder / ".lock", timeout=5)).acquire()  # a killed run's kernel takes a moment to follow it
    except Timeout:
        raise UsageError(f"{folder}: another run writes there; wait for it to end, or write elsewhere") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror})") from None
    try:
        yield folder
    finally:
        lock.release()


def table_text(columns, rows, header=True):
    """Rows as dictionaries -> CSV text with these columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def csv_header():
    """First line of the CSV of answers."""
    return ",".join(COLUMNS) + "\n"


def to_csv(name, face):
    """A line of the CSV: name, box, confidence, x0, y0, … x67, y67 in pixels of the photo; identity in clips, else empty."""
    text = io.StringIO()
    numbers = [*(f"{v:.2f}" for v in face.box), f"{face.confidence:.4f}", *(f"{v:.2f}" for v in face.points.ravel())]
    csv.writer(text, lineterminator="\n").writerow([name, *numbers, "" if face.identity is None else face.identity])
    return text.getvalue()


def rounded(rows, digits=2):
    """An array as nested lists of short numbers."""
    return np.round(np.asarray(rows, np.float64), digits).tolist()


def to_json(name, face):
    """A line of JSON: name, box, confidence, points as 68 pairs; what else is known: of each point, pose, identity."""
    row = {"name": name, "box": rounded(face.box), "confidence": round(float(face.confidence), 4),
           "points": rounded(face.points)}
    if face.point_confidence is not None:
        row["point_confidence"] = rounded(face.point_confidence, 3)
    if face.pose is not None:
        row["pose"] = {angle: round(getattr(face.pose, angle), 1) for angle in ("yaw", "pitch", "roll")}
    if face.identity is not None:
        row["identity"] = face.identity
    return json.dumps(row, ensure_ascii=False) + "\n"


NO_FACE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)  # what spoiled JSON can end in


def finite(values, *shape):
    """Nested lists of numbers -> float32 array of that shape. Raises one of NO_FACE."""
    with np.errstate(over="ignore"):
        array = np.float32(values).reshape(shape)
    if not (np.abs(array) <= FAR).all():
        raise ValueError("a number that is not finite, or a million pixels away")
    return array


def told(error):
    """An error in few words, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def read_json(path):
    """The rows of a file of JSON lines as dictionaries, with arrays box (4,) and points (68, 2). Raises DataError."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # no other sign ends a line of JSON
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append({**row, "box": finite(row["box"], 4), "points": finite(row["points"], 68, 2)})
        except NO_FACE as error:
            raise DataError(f"{path}: line {number} is no face ({told(error)}); pipeline.py --json writes such lines") from None
    return rows


# ---------------------------------------------------------------- files of answers: add(name, (height, width), faces)

class CsvAnswers:
    """The CSV of answers in an open binary file."""

    def __init__(self, file):
        self.file = file
        file.write(csv_header().encode())

    def add(self, name, size, faces):
        self.file.write("".join(to_csv(name, face) for face in faces).encode("utf-8", "surrogateescape"))

    def end(self):
        """Nothing more to write."""


class JsonAnswers(CsvAnswers):
    """JSON lines in an open binary file."""

    def __init__(self, file):
        self.file = file

    def add(self, name, size, faces):
        self.file.write("".join(to_json(name, face) for face in faces).encode("utf-8", "surrogateescape"))


class CocoAnswers:
    """COCO keypoints JSON in an open binary file: faces are written as they come, the list of images at the end.

    keypoints are x, y, v for each point: pixels of the photo, 0-based centres; v is 2 where the network is sure of the
    point (confidence at least 0.5), else 1.
    """

    def __init__(self, file):
        self.file, self.images, self.count = file, [], 0
        category = {"id": 1, "name": "face", "supercategory": "person", "keypoints": [str(i) for i in range(68)],
                    "skeleton": []}
        info = {"description": "faces found by Facial Keypoint Detection",
                "date_created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        file.write(f'{{"info": {json.dumps(info)}, "categories": {json.dumps([category])}, "annotations": ['.encode())

    def add(self, name, size, faces):
        self.images.append({"id": len(self.images) + 1, "file_name": name, "height": int(size[0]), "width": int(size[1])})
        for face in faces:
            sure = np.full(68, 2) if face.point_confidence is None else 1 + (np.asarray(face.point_confidence) >= 0.5)
            row = {"id": self.count + 1, "image_id": len(self.images), "category_id": 1, "iscrowd": 0, "num_keypoints": 68,
                   "bbox": rounded(face.box), "area": round(float(face.box[2] * face.box[3]), 2),
                   "segmentation": [rounded(box_polygon(face.box))],
                   "score": round(float(face.confidence), 4),
                   "keypoints": [v for point, s in zip(rounded(face.points), sure.tolist(), strict=True) for v in (*point, s)]}
            if face.identity is not None:
                row["track_id"] = face.identity
            text = (", " if self.count else "") + json.dumps(row)
            self.file.write(text.encode())
            self.count += 1

    def end(self):
        images = json.dumps(self.images, ensure_ascii=False)
        self.file.write(f'], "images": {images}}}\n'.encode("utf-8", "surrogateescape"))


def box_polygon(box):
    """A box (4,) as the polygon x0, y0, … of its corners: pycocotools makes masks of polygons."""
    left, top, width, height = (float(v) for v in box)
    return [left, top, left + width, top, left + width, top + height, left, top + height]


ANSWERS = {"csv": CsvAnswers, "json": JsonAnswers, "coco": CocoAnswers}


def read_coco(path):
    """COCO keypoints JSON -> {file name: list of (box (4,), points (68, 2), score)}. Raises DataError."""
    try:
        content = json.loads(read_text(path))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        faces = {name: [] for name in names.values()}
        for row in content["annotations"]:
            points = finite(row["keypoints"], 68, 3)[:, :2]
            faces[names[row["image_id"]]].append((finite(row["bbox"], 4), points, float(row.get("score", 1))))
    except NO_FACE as error:
        raise DataError(f"{path}: not COCO keypoints of 68-point faces ({told(error)}); pipeline.py --coco writes such "
                        "files") from None
    return faces


def read_text(path):
    """The text of a file; bytes in it that are no UTF-8 come back as they were when it is written. Raises DataError."""
    return read_bytes(path).decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")


# ---------------------------------------------------------------- .pts files and tables of boxes

class PtsAnswers:
    """A .pts file a face in a folder: NAME.pts for the first face of a photo, NAME-2.pts for the next."""

    def __init__(self, folder):
        self.folder, self.faces, self.owners = Path(folder), Counter(), {}

    def add(self, name, size, faces):
        for face in faces:
            self.faces[name] += 1
            number = f"-{self.faces[name]}" if self.faces[name] > 1 else ""
            inside = below(name)
            stems = itertools.chain((inside.stem, inside.name), (f"{inside.name}~{i}" for i in itertools.count(2)))
            paths = (self.folder / inside.with_name(f"{stem}{number}.pts") for stem in stems)
            # a.jpg and a.png: the second keeps its ending
            write_whole(next(path for path in paths if self.owners.setdefault(path, name) == name), to_pts(face.points))

    def end(self):
        pass


def below(name):
    """A photo's name as a path that stays below the folder it is put into."""
    return Path(*(part for part in Path(name).parts if part not in ("/", "..", Path(name).anchor)))


def to_pts(points):
    """Keypoints (68, 2), 0-based pixel centres -> text of a .pts file, which counts from 1."""
    rows = "\n".join(f"{x + 1:.6f} {y + 1:.6f}" for x, y in np.asarray(points, np.float64))
    return f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n"


def read_pts(text, where=".pts"):
    """Text of a .pts file (1-based) -> keypoints (68, 2) float32, 0-based. Raises DataError naming `where`."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    inside = text.partition("{")[2].partition("}")[0].split()
    try:
        points = finite([float(v) - 1 for v in inside], -1)
    except ValueError as error:
        raise DataError(f"{where}: {error}; between the braces stand 68 pairs of numbers") from None
    if points.size != 136:
        raise DataError(f"{where}: {points.size / 2:g} points between the braces, expected 68 pairs of numbers")
    points = points.reshape(68, 2)
    if np.linalg.norm(points[36] - points[45]) < 1e-3:
        raise DataError(f"{where}: outer eye corners coincide; look at points 37 and 46")
    return points


def read_boxes(path):
    """A CSV with columns name, left, top, width, height (tight boxes, pixels) -> list of (name, (4,) float32)."""
    try:
        table = csv.DictReader(io.StringIO(read_text(path)))
        heads, table = table.fieldnames or [], list(table)
    except csv.Error as error:
        raise DataError(f"{path}: not a table of comma-separated values ({error})") from None
    missing = [c for c in COLUMNS[:5] if c not in heads]
    if missing:
        raise DataError(f"{path}: column {', '.join(missing)} missing; expected name,left,top,width,height")
    rows = []
    for line, row in enumerate(table, start=2):
        try:
            box = np.array([float(row[c]) for c in COLUMNS[1:5]], np.float32)
        except (TypeError, ValueError):
            raise DataError(f"{path}: line {line}: left, top, width, height must be numbers") from None
        if not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
            raise DataError(f"{path}: line {line}: width and height must be above 0, all four finite")
        if np.abs(box).max() > FAR or box[2:].max() < 1:
            raise DataError(f"{path}: line {line}: a box a million pixels away or wide, or less than one, is a mistake")
        rows.append((row["name"], box))
    return rows
