"""The public names are typed: for type checkers, and for the completion of editors."""

import pytest

SCRIPT = """
from pathlib import Path

import numpy as np

import facial_keypoints
from facial_keypoints import Face, KeypointDetector, convert_points, find_keypoints

reveal_type(find_keypoints("photo.jpg"))
reveal_type(find_keypoints([Path("a.jpg"), np.zeros((9, 9), np.uint8)]))
face = find_keypoints("photo.jpg", net="models5", min_confidence=0.6)[0]
reveal_type(face.points)
reveal_type(face.pose)
reveal_type(face.part("left eye"))
reveal_type(KeypointDetector())
reveal_type(convert_points(face.points, "ibug68", "five"))
wrong: int = face.points
find_keypoints("photo.jpg", confidence=3)
find_keypoints(3)
"""
TYPES = (
    "list[facial_keypoints.detector.Face]",
    "list[list[facial_keypoints.detector.Face]]",
    "numpy.ndarray",
    "facial_keypoints.pose.Pose | None",
    "numpy.ndarray",
    "facial_keypoints.detector.KeypointDetector",
    "numpy.ndarray",
)


@pytest.mark.slow
def test_mypy_knows_the_public_names(tmp_path, python):
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = python(
        ["-m", "mypy", "--cache-dir", tmp_path / "cache", "--config-file", "", "mine.py"],
        cwd=tmp_path,
    )
    revealed = [line for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(TYPES), done.stdout + done.stderr
    for line, expected in zip(revealed, TYPES, strict=True):
        assert f'"{expected}' in line.replace("builtins.", "")
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert {line.split(":")[1] for line in errors} == {"17", "18", "19"}, done.stdout


def test_an_editor_completes_faces_and_options():
    jedi = pytest.importorskip("jedi", reason="optional: jedi comes with Jupyter")
    source = (
        "from facial_keypoints import find_keypoints, KeypointDetector\n"
        "faces = find_keypoints('photo.jpg')\nfaces[0]."
    )
    names = {found.name for found in jedi.Script(source).complete(3, len("faces[0]."))}
    assert {"points", "box", "confidence", "pose", "part", "named"} <= names
    (signature,) = jedi.Script(
        "from facial_keypoints import KeypointDetector\nKeypointDetector("
    ).get_signatures(2, len("KeypointDetector("))
    assert "min_confidence" in [parameter.name for parameter in signature.params]


def test_dir_lists_the_public_names():
    import facial_keypoints

    assert set(facial_keypoints.__all__) < set(dir(facial_keypoints))
    assert "importlib" not in dir(facial_keypoints)
