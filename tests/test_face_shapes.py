"""Faces of other shapes: pictures and keypoints move alike, and features move on their own."""

import cv2
import numpy as np
import pytest

from facial_keypoints.errors import UsageError
from research.face_shapes import ReshapeFace, moved_image, reshaped
from research.metrics import FACE_MEASURES, face_measures
from research.transforms import FaceCrop, training_transform
from train import TrainingConfig


@pytest.fixture(scope="module")
def sample(tiny):
    """A gray crop of a face and its keypoints."""
    gray = cv2.cvtColor(tiny.image(0), cv2.COLOR_RGB2GRAY)
    return FaceCrop(256)({"image": gray, "keypoints": tiny.points[0]})


@pytest.mark.parametrize("index", [8, 19, 33, 37, 48, 57])
def test_keypoints_move_with_their_pixels(sample, index):
    """A bright disc on a keypoint is found where the keypoint has moved to."""
    points, rng = sample["keypoints"], np.random.default_rng(index)
    y, x = np.mgrid[:256, :256]
    away = (x - points[index, 0]) ** 2 + (y - points[index, 1]) ** 2
    disc = (255 * np.exp(-away / 3)).astype(np.uint8)
    for _ in range(5):
        image, moved = moved_image(disc, points, reshaped(points, rng))
        weights = (image / 255.0) ** 12  # of the brightest pixels: the disc may be distorted
        center = [(x * weights).sum() / weights.sum(), (y * weights).sum() / weights.sum()]
        np.testing.assert_allclose(center, moved[index], atol=1)


def test_points_come_where_they_are_wanted_and_the_rim_stays(sample):
    points, rng = sample["keypoints"], np.random.default_rng(1)
    wanted = reshaped(points, rng)
    image, moved = moved_image(sample["image"], points, wanted)
    assert image.shape == sample["image"].shape and image.dtype == np.uint8
    assert np.abs(moved - wanted).mean() < 0.3 and np.abs(moved - points).max() > 2
    same, still = moved_image(sample["image"], points, points)
    np.testing.assert_array_equal(same, sample["image"])
    np.testing.assert_allclose(still, points, atol=1e-3)
    corners = np.s_[::255, ::255]
    assert np.abs(image[corners].astype(int) - sample["image"][corners]).max() <= 3


def test_every_distance_changes_on_its_own(sample):
    rng = np.random.default_rng(2)
    faces = np.stack([reshaped(sample["keypoints"], rng) for _ in range(300)])
    lengths = np.log(np.stack(list(face_measures(faces).values())))
    assert (lengths.std(1) > 0.04).all(), dict(zip(FACE_MEASURES, lengths.std(1), strict=True))
    alike = np.abs(np.corrcoef(lengths) - np.eye(len(lengths)))
    assert np.nanmax(alike) < 0.75
    unmoved = faces[:, 27:31]  # the bridge of the nose
    assert np.ptp(unmoved, axis=0).max() < 1e-6


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_rolled_or_mirrored_face_changes_in_its_own_directions(sample, mirrored):
    points = sample["keypoints"].astype(np.float64)
    matrix = 1.7 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    if mirrored:
        matrix = matrix @ np.diag([-1, 1])
    first = reshaped(points, np.random.default_rng(3))
    second = reshaped(points @ matrix.T, np.random.default_rng(3))
    np.testing.assert_allclose(second, first @ matrix.T, atol=1e-4)


def test_only_the_asked_share_and_whole_faces_change(sample):
    changed = [ReshapeFace(0.3)(sample, np.random.default_rng(i)) is not sample
               for i in range(300)]
    assert 60 < sum(changed) < 120
    some = {**sample, "keypoints": sample["keypoints"].copy()}
    some["keypoints"][3] = np.nan
    assert ReshapeFace(1.0)(some) is some
    eyes = {**sample, "keypoints": sample["keypoints"][36:41]}
    assert ReshapeFace(1.0, "five")(eyes) is eyes


def test_the_same_generator_gives_the_same_sample(tiny):
    raw = {"image": cv2.cvtColor(tiny.image(0), cv2.COLOR_RGB2GRAY), "keypoints": tiny.points[0]}
    first, again = (training_transform(64, reshaped=1.0)(dict(raw), np.random.default_rng(5))
                    for _ in range(2))
    assert (first["image"] == again["image"]).all()
    assert (first["keypoints"] == again["keypoints"]).all()


def test_a_share_is_between_0_and_1():
    with pytest.raises(UsageError, match="reshaped must be a share in 0…1, not 1.5"):
        TrainingConfig(reshaped=1.5)
