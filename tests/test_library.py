"""The library alone, as it is installed: needs pytest, and nothing else of the repository."""

import subprocess
import sys
from pathlib import Path

import numpy as np

import facial_keypoints
from facial_keypoints import KeypointDetector, find_keypoints, stack

GROUP = Path(__file__).resolve().parents[1] / "docs" / "images" / "front.jpg"


def test_faces_of_a_group_photo_are_found():
    faces = find_keypoints(GROUP)
    assert len(faces) > 25
    arrays = stack(faces)
    assert arrays.points.shape == (len(faces), 68, 2) and np.isfinite(arrays.points).all()
    assert (arrays.confidence >= 0.5).all() and (arrays.visibility >= 0).all()
    assert np.mean(np.isfinite([face.mouth_open for face in faces])) == 1


def test_the_network_for_products_is_there():
    assert len(find_keypoints(GROUP, net="models5")) > 25


def test_the_command_writes_a_table(tmp_path):
    table = tmp_path / "points.csv"
    words = [sys.executable, "-m", "facial_keypoints", str(GROUP), "--csv", str(table)]
    subprocess.run(words, check=True, capture_output=True)
    assert (
        table.read_text().splitlines()[0].startswith("name,left,top,width,height,confidence,x0,y0")
    )


def test_a_crop_is_aligned():
    face = KeypointDetector()(GROUP)[0]
    crop, matrix = face.aligned(GROUP)
    assert crop.shape == (112, 112, 3) and matrix.shape == (2, 3)


def test_public_names_are_there():
    assert all(hasattr(facial_keypoints, name) for name in facial_keypoints.__all__)
