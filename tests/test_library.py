"""The library alone, as it is installed: needs pytest, and nothing else of the repository."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np

import facial_keypoints
from facial_keypoints import KeypointDetector, find_keypoints, stack
from facial_keypoints.geometry import crop_image, crop_matrix

GROUP = Path(__file__).resolve().parents[1] / "docs" / "images" / "front.jpg"
CROPS = 1922284594  # checksum of the crops below


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


def test_every_opencv_makes_the_same_crops():
    rows, columns = np.mgrid[:300, :400]
    image = ((rows * columns // 7 + 3 * rows) % 256).astype(np.uint8)
    crops = [
        crop_image(image, crop_matrix((left, 60, 90, side), 128, angle=angle), 128)
        for left, side, angle in ((80, 100, 0), (70, 60, 25), (-40, 120, -70), (300, 260, 5))
    ]
    # the third leaves the image, the last is shrunk by area averages first
    assert zlib.crc32(np.stack(crops)) == CROPS


def test_public_names_are_there():
    assert all(hasattr(facial_keypoints, name) for name in facial_keypoints.__all__)
