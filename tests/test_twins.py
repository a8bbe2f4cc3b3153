"""The same content by two ways gives the same faces."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facial_keypoints import KeypointDetector, find_keypoints
from facial_keypoints.images import read_image
from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.tracking import Tracker
from research.synthetic.faces import draw_scene


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A PNG, which every reader decodes alike."""
    path = tmp_path_factory.mktemp("twins") / "scene.png"
    cv2.imwrite(str(path), draw_scene(3, faces=3, width=500, height=400)[0][..., ::-1])
    return path


def numbers(faces):
    return np.array([[face.confidence, *face.points.ravel()] for face in faces])


WAYS = {
    "text": str,
    "path": Path,
    "bytes": lambda path: path.read_bytes(),
    "array": read_image,
    "view that is not contiguous": lambda path: np.asfortranarray(read_image(path)),
    "reversed twice": lambda path: cv2.imread(str(path))[..., ::-1],
}


@pytest.mark.parametrize("way", WAYS, ids=WAYS)
def test_every_kind_of_photo_gives_the_same_faces(way, photo):
    expected = numbers(find_keypoints(photo))
    np.testing.assert_array_equal(numbers(find_keypoints(WAYS[way](photo))), expected)


def test_pillow_gives_the_same_faces(photo):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    with image.open(io.BytesIO(photo.read_bytes())) as opened:
        np.testing.assert_array_equal(
            numbers(find_keypoints(opened)), numbers(find_keypoints(photo))
        )


def test_names_and_files_of_networks_are_twins(photo, tmp_path):
    expected = numbers(find_keypoints(photo, net="models5"))
    copy = shutil.copy(SAVED_MODELS / "models5.onnx", tmp_path / "mine.onnx")
    for net in (SAVED_MODELS / "models5.onnx", str(copy), Path(copy)):
        np.testing.assert_array_equal(numbers(find_keypoints(photo, net=net)), expected)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=7), st.integers(1, 4))
def test_lists_threads_and_single_photos_are_twins(seeds, threads):
    """Batches compute in another order: the last digits may differ."""
    scenes = {seed: draw_scene(seed, faces=2, width=320, height=260)[0] for seed in set(seeds)}
    detector = KeypointDetector()
    alone = {seed: numbers(detector(scene)) for seed, scene in scenes.items()}
    together = find_keypoints([scenes[seed] for seed in seeds])
    with ThreadPoolExecutor(threads) as pool:
        parallel = list(pool.map(lambda seed: numbers(detector(scenes[seed])), seeds))
    for seed, listed, found in zip(seeds, together, parallel, strict=True):
        np.testing.assert_allclose(numbers(listed), alone[seed], atol=0.01)
        np.testing.assert_array_equal(found, alone[seed])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_the_first_frame_of_a_clip_is_a_photo(seed):
    scene = draw_scene(seed, faces=2, width=360, height=300)[0]
    detector = KeypointDetector()
    photo, frame = detector(scene), Tracker(detector)(scene, 0.0)
    assert len(photo) == len(frame)
    np.testing.assert_array_equal(numbers(frame), numbers(photo))
