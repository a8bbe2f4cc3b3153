"""Whatever is fed to a reader, the outcome is a result or one of our errors that names the
file; `make fuzz` tries harder."""

import copy
import importlib.util
import io
import json
import os
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from batch import parameters_of, parse
from facial_keypoints import images
from facial_keypoints.paths import LAYOUTS
from facial_keypoints.detectors import detector_names, load_detector
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import pts_text, read_boxes, read_coco, read_json, read_pts
from facial_keypoints.images import read_image
from facial_keypoints.layouts import read_layout
from facial_keypoints.onnx_file import FORMAT, digest, metadata_entry, read_model_file
from facial_keypoints.video import VideoReader
from research.data import download as download_module
from research.scaling.annotate import footer_of, write_chunk
from research.synthetic.appearance_model import load_appearance
from research.data.download import download
from research.data.folders import load_folder
from research.data.tables import read_table
from research.networks.registry import find_weights, load_checkpoint, net_class, net_names
from research.reporting.notebook import check_parameters
from research.data.readers import KAGGLE_COLUMNS
from research.scaling.sweep import read_grid
from research.training.runs import load_training_state
from test_sources import POINTS, csv_of, picture

CASES = int(os.environ.get("FUZZ_CASES", 25))  # of each reader; make fuzz asks for thousands
PHOTO = Image.fromarray(
    cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8), (60, 44))
)


def encoded(form, mode="RGB", **options):
    file = io.BytesIO()
    PHOTO.convert(mode).save(file, form, **options)
    return file.getvalue()


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for side, names in (("training", ["A_00.jpg", "B_00.jpg"]), ("test", ["A_01.jpg"])):
            made.writestr(f"{side}_frames_keypoints.csv", csv_of(POINTS[: len(names)], names))
            for name in names:
                made.writestr(f"{side}/{name}", picture())
    return file.getvalue()


def checkpoint():
    file = io.BytesIO()
    small = {"head.bias": torch.zeros(136), "count": torch.tensor(3)}
    torch.save(
        {
            "net": "models4",
            "state_dict": small,
            "params": {},
            "metrics": {},
            "data": {"split": "person"},
        },
        file,
    )
    return file.getvalue()


def drawn_model():
    file = io.BytesIO()
    np.savez_compressed(
        file,
        **{
            key: np.zeros((2, 3), np.float32)
            for key in (
                "shape_modes",
                "shape_modes_peak",
                "texture_modes",
                "texture_modes_peak",
                "triangles",
            )
        },
    )
    return file.getvalue()


def clip():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.avi")
        film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for _ in range(3):
            film.write(np.full((48, 64, 3), 90, np.uint8))
        film.release()
        return path.read_bytes()


def every_image(path):
    frames = load_folder(path)
    return [frames.image(row) for row in range(len(frames))]


def state():
    file = io.BytesIO()
    torch.save(
        {
            "history": [{"epoch": 1.0}],
            "best": {"nme": 4.0},
            "params": {},
            "data": {},
            "state": {"net": {}},
        },
        file,
    )
    return file.getvalue()


def exported():
    """A model file of a version number and the metadata alone."""
    data = bytes([8, 10])
    values = {
        "format": FORMAT,
        "net": "models5",
        "side": 128,
        "points": 68,
        "crop_scale": 1.25,
        "shift": [0.0, 0.0],
    }
    return data + metadata_entry({**values, "sha256": digest(data)})


def annotations():
    with tempfile.TemporaryDirectory() as folder:
        write_chunk(
            Path(folder),
            ["a.jpg"],
            [("a.jpg", 0, [0, 0, 1, 1], 0.9, [0.0] * 136, [1.0] * 68)],
            {},
            {},
        )
        return next(Path(folder).glob("*.parquet")).read_bytes()


FACE = (
    '{"name": "a.jpg", "box": [1, 2, 3, 4], "confidence": 0.5, "points": '
    + str([[1.0, 2.0]] * 68)
    + "}\n"
).encode()
COCO = (
    '{"categories": [], "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": '
    '[{"image_id": 1, "bbox": [1, 2, 3, 4],'
    ' "keypoints": ' + str([1.0, 2.0, 2] * 68) + "}]}"
).encode()
STUDIO = (
    b'[{"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "keypointlabels", '
    b'"original_width": 9, "original_height": 9, "value": {"x": 1, "y": 2, "keypointlabels": '
    b'["tip"]}}]}]}]'
)
IMGLAB = (
    b"<dataset><images><image file='a.jpg'><box><part name='0' x='1' y='2'/><part name='1' "
    b"x='3' y='4'/></box></image></images></dataset>"
)
KAGGLE = (
    ",".join([*KAGGLE_COLUMNS, "Image"])
    + "\n"
    + ",".join(map(str, range(30)))
    + ","
    + " ".join(["7"] * 96**2)
    + "\n"
).encode()
READERS = {  # name: (ending, files to corrupt, what reads a path)
    "image": (
        ".jpg",
        [
            encoded("JPEG"),
            encoded("JPEG", "CMYK"),
            encoded("PNG"),
            encoded("PNG", "P"),
            encoded("WEBP"),
            encoded("BMP"),
            encoded("TIFF"),
            encoded("TIFF", compression="tiff_lzw"),
            encoded("GIF"),
        ],
        read_image,
    ),
    "clip": (".avi", [clip()], lambda path: list(VideoReader(path))),
    "table": (
        ".csv",
        [csv_of(POINTS, ["A_00.jpg", "B_00.jpg", "C_00.jpg"]).encode()],
        lambda path: read_table(path.read_bytes(), str(path)),
    ),
    "pts": (
        ".pts",
        [pts_text(POINTS[0]).encode()],
        lambda path: read_pts(path.read_bytes(), str(path)),
    ),
    "boxes": (
        ".csv",
        [b"name,left,top,width,height\na.jpg,1,2,30,40\nb.jpg,1.5,2,3e1,4\n"],
        read_boxes,
    ),
    "json": (".json", [FACE * 2], read_json),
    "coco": (".json", [COCO], read_coco),
    "layout": (
        ".toml",
        [(LAYOUTS / "five.toml").read_bytes(), (LAYOUTS / "mediapipe478.toml").read_bytes()],
        read_layout,
    ),
    "labels": (".json", [COCO, STUDIO], load_folder),
    "imglab": (".xml", [IMGLAB], load_folder),
    "kaggle": (
        ".csv",
        [KAGGLE],
        lambda path: load_folder(path.rename(path.with_name("training.csv"))),
    ),
    "archive": (".zip", [archive()], every_image),
    "checkpoint": (".pt", [checkpoint()], load_checkpoint),
    "exported model": (".onnx", [exported()], read_model_file),
    "broken run": (".pt", [state()], lambda path: load_training_state(path, {}, {}, {})),
    "grid": (".yaml", [b"net: [models4, models5]\nlr: [0.001, 0.01]\nseed: 3\n"], read_grid),
    "drawn model": (".npz", [drawn_model()], load_appearance.__wrapped__),
    "notebook": (
        ".ipynb",
        [
            b'{"cells": [{"cell_type": "code", "id": "a", "metadata": {"tags": '
            b'["parameters"]}, "outputs": [],'
            b' "execution_count": null, "source": "a = 1"}], "metadata": '
            b'{"kernelspec": {"name": "python3",'
            b' "language": "python"}}, "nbformat": 4, "nbformat_minor": 5}'
        ],
        parameters_of,
    ),
}
if importlib.util.find_spec("pyarrow"):  # optional
    READERS["annotations"] = (".parquet", [annotations()], footer_of)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["set", "cut", "add", "end", "twice"]),
        st.binary(max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def corrupt(data, edits):
    """Bytes after some edits: overwritten, cut out, put in, cut off, or doubled at places given as
    shares of the length."""
    for share, action, more in edits:
        at = int(share * len(data))
        data = {
            "set": data[:at] + more + data[at + len(more) :],
            "cut": data[:at] + data[at + 1 + len(more) :],
            "add": data[:at] + more + data[at:],
            "end": data[:at],
            "twice": data[:at] + data[at // 2 :],
        }[action]
    return data


def reported(function, *arguments, name=None):
    """Call a reader: a result, or our error in one line that names what it was given."""
    try:
        return function(*arguments)
    except (DataError, UsageError) as error:
        assert name is None or name in str(error), error
        assert "\n" not in str(error).strip() or "could not be downloaded" in str(error), error
        assert len(str(error)) < 1000


@pytest.mark.parametrize("reader", READERS)
def test_corrupted_files_are_read_or_refused(reader, monkeypatch, tmp_path):
    # else a corrupted size is honestly decoded, in seconds
    monkeypatch.setattr(images, "MAX_PIXELS", 300_000)
    ending, files, read = READERS[reader]
    path = tmp_path / f"corrupted{ending}"

    @settings(
        max_examples=CASES,
        deadline=10_000,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.builds(corrupt, st.sampled_from(files), EDITS), st.binary(max_size=200)))
    def try_it(data):
        path.write_bytes(data)
        result = reported(read, path, name="corrupted")
        if reader == "image" and result is not None:
            assert result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3
        if reader in ("table", "pts") and result is not None:
            points = result[1] if reader == "table" else result
            missing = np.isnan(points).any(-1)  # empty cells: both coordinates of a point
            assert (np.isnan(points).all(-1) == missing).all() and (
                reader == "table" or not missing.any()
            )
            assert (np.abs(points[~missing]) <= 1e6).all()

    try_it()


OTHERS = [None, True, -1, 0, 7, 1e400, float("nan"), 10**400, "", "x", "1", [], [[]], {}, {"id": 1}]
TREES = {  # structured files: (name of the file, content, reader of its path)
    "coco labels": ("a.json", json.loads(COCO), load_folder),
    "label studio": ("a.json", json.loads(STUDIO), load_folder),
    "coco": ("a.json", json.loads(COCO), read_coco),
    "json": ("a.json", json.loads(FACE.splitlines()[0]), read_json),
    "yolo": (
        "data.yaml",
        {
            "train": "images",
            "kpt_shape": [2, 3],
            "flip_idx": [1, 0],
            "kpt_names": {"0": ["a", "b"]},
        },
        load_folder,
    ),
    "grid": ("a.yaml", {"net": ["models4", "models5"], "lr": [0.001, 0.01], "seed": 3}, read_grid),
}
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.sampled_from(["replace", "delete", "double", "nest", "reverse"]),
        st.sampled_from(OTHERS),
    ),
    min_size=1,
    max_size=4,
)


def places_of(tree, found=None):
    """All (container, key) of a tree of dictionaries and lists that is not nested too deeply."""
    found = [] if found is None else found
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        found.append((tree, key))
        if isinstance(tree[key], (dict, list)):
            places_of(tree[key], found)
    return found


def changed(tree, changes):
    """A copy of a tree in which values are of other types, gone, doubled, nested or reversed."""
    tree = copy.deepcopy(tree)
    for number, action, other in changes:
        places = places_of(tree)
        if not places:
            break
        container, key = places[number % len(places)]
        value = container[key]
        if action == "delete":
            del container[key]
        elif action == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(value))
        elif action == "reverse" and isinstance(value, list):
            value.reverse()
        else:
            container[key] = [value] if action == "nest" else copy.deepcopy(other)
    return tree


@pytest.mark.parametrize("kind", TREES)
def test_values_of_other_types_are_read_or_refused(kind, tmp_path):
    """Not bytes, but values: a number where a list is expected, a key that is gone, ..."""
    name, tree, read = TREES[kind]
    folder = tmp_path / "changed"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for image in ("a.jpg", "images/a.png"):  # of the size that the task of Label Studio names
        cv2.imwrite(str(folder / image), np.zeros((9, 9, 3), np.uint8))
    if kind == "yolo":
        (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.4 0.4 0.2 0.3 2 0.7 0.8 1\n")

    @settings(max_examples=CASES, deadline=10_000, suppress_health_check=list(HealthCheck))
    @given(CHANGES)
    def try_it(changes):
        (folder / name).write_text(json.dumps(changed(tree, changes)))
        reported(read, folder if read is load_folder else folder / name, name="changed")

    try_it()


ODD = [
    "../models4",
    "models4.py",
    "models/models4",
    "models4\0",
    "",
    ".",
    "__init__",
    "haar\n",
    "os",
    "models4-person/../../x",
]
WORDS = st.one_of(st.text(max_size=40), st.sampled_from(ODD))


@settings(max_examples=CASES)
@given(WORDS)
def test_names_that_are_not_present_are_reported(word):
    for find, known in ((net_class, net_names()), (load_detector, detector_names())):
        if word not in known:
            with pytest.raises(UsageError, match="present are"):
                find(word)
    reported(find_weights, word)


@settings(max_examples=CASES)
@given(
    st.lists(
        st.text(max_size=30) | st.from_regex(r"[a-z]{1,5}=.{0,20}", fullmatch=True), max_size=4
    )
)
def test_parameters_are_read_or_reported(pairs):
    for name, value in (reported(parse, pairs) or {}).items():
        assert any(pair.startswith(f"{name}=") for pair in pairs)
        reported(
            check_parameters,
            {"x": value, "In": ["x = 0.5  # @param", f"# Parameters\nx = {value!r}"]},
        )


class Response(io.BytesIO):
    """What a server might say."""

    def __init__(self, body, status, length, breaks):
        super().__init__(body)
        self.status, self.headers, self.breaks = (
            status,
            {} if length is None else {"Content-Length": str(length)},
            breaks,
        )

    def read(self, size=-1):
        if self.breaks and self.tell() >= len(self.getvalue()) // 2:
            raise ConnectionResetError("went away")
        return super().read(size)


@settings(max_examples=CASES)
@given(
    st.binary(min_size=1, max_size=300),
    st.lists(
        st.tuples(
            st.binary(max_size=300),
            st.sampled_from([200, 206]),
            st.none() | st.integers(0, 600),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_nothing_half_written_is_taken_for_a_whole_download(wanted, predictions):
    """Servers that break off, send error pages with status 200, or lie about the length."""

    def check(path):
        if path.read_bytes() != wanted:
            raise DataError(f"{path.name}: not what is wanted")

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        target = Path(folder, "set.zip")
        for body, status, length, breaks, honest in predictions:
            body = wanted if honest else body
            reply = partial(Response, body, status, length, breaks)
            patch.setattr(download_module, "urlopen", lambda *_, reply=reply, timeout: reply())
            reported(
                download,
                ["http://x/set.zip"],
                target,
                check,
                "the set",
                "Fetch it by hand.",
                name="set.zip",
            )
            assert not target.exists() or target.read_bytes() == wanted
