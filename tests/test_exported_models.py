"""Exported models describe themselves; what is damaged or not ours is refused with its name and a
cure."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
import venv

import numpy as np
import pytest
import torch
from conftest import HOME, one_line_error

from facial_keypoints import onnx_file
from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.detector import KeypointDetector
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import CROP_SCALE, tight_box
from facial_keypoints.head import inter_ocular
from facial_keypoints.layouts import layout_from, load_layout
from facial_keypoints.model import Checkpoints, Model, find_model, load_model
from facial_keypoints.onnx_file import digest, encoded, metadata_entry, read_metadata, varint
from research.networks.export import export_checkpoint
from research.networks.halving import rounded_to_bfloat16
from research.synthetic.faces import draw_scene

SHIPPED = SAVED_MODELS / "models5.onnx"


def without_metadata(data):
    kept = [
        data[start:end]
        for number, start, end in onnx_file.fields_of(data)
        if number != onnx_file.METADATA_FIELD
    ]
    return b"".join(kept)


def test_a_shipped_model_says_what_its_user_needs():
    values = read_metadata(SHIPPED.read_bytes())
    assert (
        values["net"] == "models5" and values["side"] == 128 and values["crop_scale"] == CROP_SCALE
    )
    assert (
        values["points"] == 68
        and layout_from(values["layout"], SHIPPED) == load_layout()
        and values["version"]
        and values["shift"] == [0.0, 0.0]
    )
    assert set(values["calibration"]) == {"even_odds", "steepness"}


def test_weights_are_rounded_as_bfloat16_rounds():
    values = np.concatenate(
        [
            np.random.default_rng(0).normal(0, 0.1, 10_000),
            [0, -0.0, 1, -1, 1 + 2**-8, 1 + 3 * 2**-8],
        ]
    ).astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(rounded_to_bfloat16(values), expected)


def test_integers_of_8_bits_keep_the_points_and_the_confidence(tmp_path):
    path = tmp_path / "small.onnx"
    export_checkpoint("models7", path, int8=True)
    whole, small = KeypointDetector("models7"), KeypointDetector(path)
    assert path.stat().st_size < 0.75 * (SAVED_MODELS / "models7.onnx").stat().st_size
    for seed in range(3):
        photo, points = draw_scene(100 + seed, faces=4, width=600, height=500)
        boxes = tight_box(points)
        faces, others = (detector.predict_boxes(photo, boxes) for detector in (whole, small))
        for face, other in zip(faces, others, strict=True):
            away = np.linalg.norm(face.points - other.points, axis=1).mean()
            assert away < 0.015 * inter_ocular(face.points)
            assert abs(face.confidence - other.confidence) < 0.05
        # both reject places without a face
        empty = boxes + [boxes[0, 2] * 0.9, boxes[0, 3] * 0.9, 0, 0]
        for detector in (whole, small):
            assert np.mean([face.confidence for face in detector.predict_boxes(photo, empty)]) < 0.5


def test_the_shipped_model_of_8_bits_is_that_of_its_network():
    whole, small = (
        read_metadata((SAVED_MODELS / f"{name}.onnx").read_bytes())
        for name in ("models8", "models8-int8")
    )
    assert whole.pop("sha256") != small.pop("sha256")
    assert whole == small


def test_what_a_visitor_loads_compresses():
    """A first visit of the page should stay within 5.3 MB; onnxruntime-web takes 3.7 of them."""
    pyramid = SHIPPED.parents[1] / "detector_architectures" / "pyramid.onnx"
    assert sum(len(gzip.compress(file.read_bytes())) for file in (SHIPPED, pyramid)) < 1.55e6


def test_onnx_reads_the_same_metadata():
    onnx = pytest.importorskip("onnx", reason="optional: pip install onnx")
    entries = {entry.key: entry.value for entry in onnx.load(SHIPPED).metadata_props}
    assert json.loads(entries[onnx_file.KEY]) == read_metadata(SHIPPED.read_bytes())
    onnx.checker.check_model(onnx.load(SHIPPED))


def test_integers_of_any_length_come_back():
    for value in (0, 1, 127, 128, 300, 2**31, 2**63):
        assert varint(encoded(value) + b"x", 0) == (value, len(encoded(value)))
    for wrong in (b"", b"\x80", b"\xff" * 11):
        with pytest.raises(ValueError):
            varint(wrong, 0)


def test_metadata_of_any_kind_comes_back():
    values = {"a": "ü" * 300, "b": [1.5, None], "c": {"d": True}}
    data = without_metadata(SHIPPED.read_bytes())
    assert read_metadata(data) == {} and read_metadata(data + metadata_entry(values)) == values
    assert digest(data + metadata_entry(values)) == digest(data)


def test_every_flipped_bit_is_found(tmp_path):
    data, path, chance = (
        bytearray(SHIPPED.read_bytes()),
        tmp_path / "flipped.onnx",
        random.Random(0),
    )
    for _ in range(60):
        place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        data[place] ^= bit
        path.write_bytes(data)
        try:
            values = load_model(path).path and read_metadata(bytes(data))
        except DataError as error:
            assert "flipped.onnx" in str(error)
        else:  # in a part of the metadata that says nothing about the numbers
            before = read_metadata(SHIPPED.read_bytes())
            assert all(
                values[key] == before[key] for key in ("side", "crop_scale", "points", "sha256")
            )
        data[place] ^= bit


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda data: b"", "metadata"),
        (lambda data: b"not a model at all", "damaged or not an ONNX file"),
        (lambda data: data[:1000], "damaged or not an ONNX file"),
        (without_metadata, "without the metadata"),
        (lambda data: without_metadata(data) + metadata_entry({"format": 99}), "another version"),
        (
            lambda data: without_metadata(data) + metadata_entry({"format": 1, "side": "128"}),
            "side",
        ),
        (
            lambda data: (
                without_metadata(data) + metadata_entry({**read_metadata(data), "sha256": "0"})
            ),
            "checksum",
        ),
        (
            lambda data: (
                without_metadata(data) + metadata_entry({**read_metadata(data), "crop_scale": 2.0})
            ),
            "made for crops",
        ),
        (
            lambda data: metadata_entry({**read_metadata(data), "sha256": digest(b"")}),
            "cannot load",
        ),
    ],
    ids=[
        "empty",
        "text",
        "cut off",
        "no metadata",
        "version",
        "type",
        "checksum",
        "crop",
        "no graph",
    ],
)
def test_what_is_no_exported_model_is_refused(make, said, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(make(SHIPPED.read_bytes()))
    with pytest.raises(DataError, match=r"bad\.onnx") as error:
        load_model(path, "onnx")
    assert said in str(error.value)


def test_models_are_found_by_name_or_path(monkeypatch):
    assert find_model("models5") == SHIPPED and find_model(SHIPPED) == SHIPPED
    monkeypatch.setattr(Checkpoints, "find", None)
    for net in ("models4", "runs/x.pt", "models77"):
        with pytest.raises(UsageError, match=r"present are models5, models7, models8"):
            find_model(net)


def test_predictions_that_are_not_finite_name_the_file():
    broken = Model(
        SHIPPED,
        128,
        lambda crops: (np.full((len(crops), 68, 2), np.nan), np.ones((len(crops), 68))),
        "onnx",
    )
    with pytest.raises(DataError, match=r"models5\.onnx: predictions that are not finite"):
        KeypointDetector(broken).predict_boxes(np.zeros((50, 50, 3), np.uint8), [[5, 5, 30, 30]])


def test_a_model_of_shifted_labels_is_corrected(tiny):
    points = tiny.points[:3]
    model = Model(SHIPPED, 128, None, "onnx", shift=(0.5, 0.02))
    length = inter_ocular(points)[:, None]
    np.testing.assert_allclose(
        model.correct(points)[..., 1], points[..., 1] - 0.5 - 0.02 * length, atol=1e-4
    )
    np.testing.assert_array_equal(model.correct(points)[..., 0], points[..., 0])


LIBRARY_ALONE = """
import sys
before = set(sys.modules)
from facial_keypoints import find_keypoints
faces = find_keypoints(sys.argv[1])
heavy = {"torch", "pandas", "matplotlib", "IPython", "papermill", "PIL", "research", "models"}
assert not heavy & {name.partition(".")[0] for name in set(sys.modules) - before}
print(len(faces), faces[0].points.shape)
"""


def test_the_library_runs_without_pytorch_and_the_research_side(hopper, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY_ALONE, str(hopper[0])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(HOME), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 (68, 2)\n"


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, facial_keypoints; "
        "print({'cv2', 'numpy', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOME)
    assert done.stdout == "set()\n", done.stderr


def test_the_wheel_finds_a_face_without_pytorch(hopper, tmp_path):
    """Built and installed as pip does; its four dependencies are borrowed from this environment,
    nothing else of it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, HOME],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("facial_keypoints-*.whl")
    assert wheel.stat().st_size < 4e6
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for name in (
        "numpy",
        "numpy.libs",
        "cv2",
        "opencv_python.libs",
        "onnxruntime",
        "tqdm",
        "flatbuffers",
        "google",
        "packaging",
        "sympy",
        "mpmath",
        "coloredlogs",
        "humanfriendly",
    ):
        for folder in map(type(tmp_path), sys.path):
            if folder.name == "site-packages" and (folder / name).exists():
                (borrowed / name).symlink_to(folder / name)
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    python = tmp_path / "env" / "bin" / "python"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*words):
        return subprocess.run(
            [python, *words], capture_output=True, text=True, cwd=tmp_path, env=alone
        )

    done = call("-m", "facial_keypoints", hopper[0], "--csv", "-")
    assert done.returncode == 0 and "grace_hopper.jpg,1" in done.stdout, done.stderr
    script = (
        "import sys; from facial_keypoints import find_keypoints; "
        "print(len(find_keypoints(sys.argv[1])))"
    )
    done = call("-c", script, hopper[0])
    assert done.stdout == "1\n", done.stderr
    refused = call("-m", "facial_keypoints", hopper[0], "--net", "models4")
    assert "present are models5, models7, or give an .onnx file" in one_line_error(refused, 2)
    assert call("-c", "import torch").returncode != 0


def altered(tmp_path, change):
    """A model whose graph or metadata were changed, with a valid checksum."""
    import onnx

    data = SHIPPED.read_bytes()
    values, graph = read_metadata(data), onnx.load_from_string(data)
    del graph.metadata_props[:]
    change(graph, values)
    data = graph.SerializeToString()
    path = tmp_path / "own.onnx"
    path.write_bytes(data + metadata_entry({**values, "sha256": digest(data)}))
    return path


def rename_output(graph, values):
    for node in graph.graph.node:
        node.output[:] = ["other" if name == "confidence" else name for name in node.output]
    graph.graph.output[1].name = "other"


def multiply_output(factor, name):
    def change(graph, values):
        from onnx import TensorProto, helper

        for node in graph.graph.node:
            node.output[:] = [f"{name}_" if output == name else output for output in node.output]
        graph.graph.initializer.append(
            helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
        )
        graph.graph.node.append(helper.make_node("Mul", [f"{name}_", "factor"], [name]))

    return change


def set_value(**more):
    return lambda graph, values: values.update(more)


@pytest.mark.parametrize(
    "change, said",
    [
        (rename_output, "cannot run it"),
        (multiply_output(1e20, "targets"), "targets outside of"),
        (multiply_output(1e4, "confidence"), "confidence outside of"),
        (multiply_output(float("nan"), "targets"), "not finite"),
        (set_value(side=96), "cannot run it"),
        (set_value(shift=[1e30, 0.0]), "a shift of"),
        (set_value(fit="all"), "a fit that is not"),
        (set_value(fit=[0, 0, -1, 1]), "a fit that is not"),
    ],
    ids=["names", "far points", "confidence", "nan", "side", "shift", "fit", "negative fit"],
)
def test_a_model_that_lies_is_refused_when_it_is_loaded(change, said, tmp_path, hopper, command):
    path = altered(tmp_path, change)
    with pytest.raises(DataError, match=said):
        load_model(path)
    out = tmp_path / "out.csv"
    done = command("pipeline.py", hopper[0], "--net", path, "--csv", out)
    assert said in one_line_error(done, 1) and not out.exists()


def test_the_networks_are_listed_with_their_terms(command):
    done = command("facial_keypoints/__main__.py", "models")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "(fast)" in lines["models7"] and "non-commercial" in lines["models7"]
    assert "MIT" in lines["models5"] and " 68 " in lines["models5"] and " MB " in lines["models5"]


def test_the_description_of_the_package_has_whole_addresses():
    from scripts.package_readme import with_addresses

    text = with_addresses((HOME / "README.md").read_text())
    places = re.findall(r"\]\(([^)]+)\)", text)
    assert places and all(place.startswith("https://") for place in places)
    assert with_addresses("[a](#b) ![c](d.png)").startswith("[a](#b) ![c](https://raw.")


def test_version_changelog_and_citation_agree():
    from facial_keypoints import __version__

    citation = (HOME / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    newest = re.search(r"^## (\S+)", (HOME / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest == __version__
    recipe = (HOME / ".github" / "conda-forge" / "meta.yaml").read_text()
    assert f'{{% set version = "{__version__}" %}}' in recipe


def test_the_folder_for_a_hub_has_models_and_their_terms(command, tmp_path):
    done = command("scripts/hub.py", tmp_path / "hub", "--without-space")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "hub" / "models"
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n") and "pipeline_tag: keypoint-detection" in card
    assert {"LICENSE", "NOTICE", "models5.onnx", "models7.onnx"} <= set(os.listdir(folder))
    for path in folder.glob("*.onnx"):
        assert f"| {path.name} |" in card
    line = one_line_error(command("scripts/hub.py", tmp_path / "hub"), 2)
    assert "exists already" in line
