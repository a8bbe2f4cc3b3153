"""The examples in other languages give the points of the test vector."""

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import HOME

from facial_keypoints.errors import DataError
from facial_keypoints.paths import SAVED_MODELS
from research import web_page

sys.path.append(str(HOME / "scripts"))
import test_vector

EXAMPLES = HOME / "examples"
VECTOR = json.loads((EXAMPLES / "vector.json").read_text())
WORDS = [
    *(str(EXAMPLES / VECTOR["photo"]),),
    *(f"{value:g}" for value in VECTOR["box"]),
    *(str(VECTOR["side"]), str(VECTOR["crop_scale"])),
]
NETWORK = str(SAVED_MODELS / VECTOR["net"])
COMPILER = shutil.which("g++")


def points_of(text):
    return np.array([[float(word) for word in line.split()] for line in text.splitlines()])


def test_the_vector_is_that_of_the_library():
    photo, values = test_vector.vector()
    assert (EXAMPLES / "photo.pgm").read_bytes() == photo
    np.testing.assert_allclose(VECTOR["points"], values["points"], atol=0.01)
    assert VECTOR["confidence"] == pytest.approx(values["confidence"], abs=1e-3)
    exact = ("photo", "net", "box", "side", "crop_scale", "matrix", "crop_crc32")
    assert {key: values[key] for key in exact} == {key: VECTOR[key] for key in exact}


@pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")
def test_the_crop_in_cpp_has_the_same_bytes(tmp_path):
    subprocess.run(
        [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "keypoints.cpp", "-o"]
        + [tmp_path / "keypoints", "-Wno-unused-function", "-Wno-unused-parameter"],
        cwd=EXAMPLES / "cpp",
        check=True,
    )
    done = subprocess.run([tmp_path / "keypoints", *WORDS], capture_output=True, check=True)
    head, crop = done.stdout.split(b"255\n", 1)
    assert zlib.crc32(crop) == VECTOR["crop_crc32"]
    failed = subprocess.run(
        [tmp_path / "keypoints", tmp_path / "no.pgm", *WORDS[1:]], capture_output=True, text=True
    )
    assert failed.returncode == 1 and "not a PGM" in failed.stderr


@pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")
def test_the_program_in_cpp_gives_the_points(tmp_path):
    package = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    home = Path(package.__file__).parent
    library = next((home / "libs").glob("libopenvino.so*"))
    words = [f"-I{home / 'include'}", str(library), f"-Wl,-rpath,{home / 'libs'}"]
    subprocess.run(
        [COMPILER, "-std=c++17", "-O1", "-DOPENVINO", "keypoints.cpp", *words, "-o"]
        + [tmp_path / "keypoints"],
        cwd=EXAMPLES / "cpp",
        check=True,
    )
    done = subprocess.run(
        [tmp_path / "keypoints", *WORDS, NETWORK], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(points_of(done.stdout), VECTOR["points"], atol=0.2)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_program_in_node_gives_the_points(tmp_path):
    try:
        packages = {
            name: web_page.npm_package(name) for name in ("onnxruntime-web", "onnxruntime-common")
        }
    except DataError as error:
        pytest.skip(str(error))
    for folder in ("examples/node", "web"):
        shutil.copytree(HOME / folder, tmp_path / folder)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").mkdir()
    for name, package in packages.items():  # copies: Node resolves links
        shutil.copytree(package, tmp_path / "node_modules" / name)
    done = subprocess.run(
        ["node", "examples/node/keypoints.mjs", *WORDS, NETWORK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(points_of(done.stdout), VECTOR["points"], atol=0.02)
