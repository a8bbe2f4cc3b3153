"""Transforms: pixels and points move together, crops and their inverse are exact, bytes are
normalized once."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facial_keypoints.errors import DataError
from facial_keypoints.layouts import load_layout
from facial_keypoints.geometry import (
    crop_image,
    crop_matrix,
    tight_box,
    to_points,
    to_targets,
    warp,
)
from research.augmentation.corruptions import CORRUPTIONS
from research.augmentation.transforms import (
    Augment,
    Compose,
    FaceCrop,
    Normalize,
    RandomCrop,
    Rescale,
    ToTensor,
    data_transform,
    training_transform,
)

FLIP_INDICES = load_layout().flip_indices


def blob_image(points, height, width, sigma=2.0):
    """A float picture with a round spot at each of a few points; its centroid is the point."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points]
    )


def centroid(picture):
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    weight = picture.astype(float)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def sample_with(point, height, width):
    picture = (255 * blob_image([point], height, width, 3.0)[0]).astype(np.uint8)
    points = np.tile(np.float32(point), (68, 1))
    # the box of the "face"
    points[0], points[16] = (width * 0.2, height * 0.2), (width * 0.8, height * 0.8)
    return {"image": picture, "keypoints": points}


sizes = st.integers(90, 200)
inner = st.floats(0.42, 0.58)


@settings(max_examples=40)
@given(sizes, sizes, inner, inner, st.integers(80, 300))
def test_rescale_moves_pixels_and_points_alike(height, width, u, v, target):
    sample = sample_with((u * width, v * height), height, width)
    scaled = Rescale(target)(sample)
    assert min(scaled["image"].shape) == target
    np.testing.assert_allclose(centroid(scaled["image"]), scaled["keypoints"][5], atol=0.25)


@settings(max_examples=40)
@given(
    sizes,
    sizes,
    inner,
    inner,
    st.floats(-45, 45),
    st.floats(0.7, 1.4),
    st.booleans(),
    st.integers(60, 160),
)
def test_face_crop_moves_pixels_and_points_alike(height, width, u, v, angle, zoom, mirror, side):
    sample = sample_with((u * width, v * height), height, width)
    matrix = crop_matrix(tight_box(sample["keypoints"]), side, zoom, angle, (0.03, -0.02), mirror)
    picture = crop_image(sample["image"], matrix, side)
    expected = ((to_targets(sample["keypoints"], matrix, side) + 1) * side - 1) / 2
    np.testing.assert_allclose(centroid(picture), expected[5], atol=0.3)


@settings(max_examples=100)
@given(
    st.floats(-500, 3000),
    st.floats(-500, 3000),
    st.floats(5, 2000),
    st.floats(5, 2000),
    st.floats(-180, 180),
    st.booleans(),
    st.integers(16, 256),
)
def test_targets_and_points_are_exact_inverses(left, top, width, height, angle, mirror, side):
    points = (
        np.random.default_rng(0)
        .uniform((left, top), (left + width, top + height), (68, 2))
        .astype(np.float32)
    )
    matrix = crop_matrix((left, top, width, height), side, 1.1, angle, (0.1, 0), mirror)
    back = to_points(to_targets(points, matrix, side), matrix, side)
    np.testing.assert_allclose(back, points, atol=1e-3 * max(1, np.abs(points).max() / 100))


def test_the_edges_of_the_crop_are_minus_one_and_one():
    # 1.25 × 80 = 100: one crop pixel is one image pixel
    matrix = crop_matrix((10, 20, 80, 80), 100)
    corners = (
        np.array([[0.0, 10.0], [99.0, 109.0]]) + 0.5 * np.array([[-1, -1], [1, 1]]) + [0.5, 0.5]
    )
    np.testing.assert_allclose(to_targets(corners, matrix, 100), [[-1, -1], [1, 1]], atol=1e-6)


def test_a_large_photo_is_reduced_without_aliasing():
    point = np.array([1234.0, 987.0])
    image = (255 * blob_image([point], 1800, 2400, 40.0)[0]).astype(np.uint8)
    matrix = crop_matrix((700, 350, 1000, 1000), 96)
    crop = crop_image(image, matrix, 96)
    np.testing.assert_allclose(centroid(crop), matrix[:, :2] @ point + matrix[:, 2], atol=0.1)
    # fine stripes, which plain sampling would turn into wide ones
    image[::3], image[1::3], image[2::3] = 255, 0, 0
    crop = crop_image(image, matrix, 96)
    assert 70 < crop.min() and crop.max() < 100


def test_a_crop_outside_of_the_image_is_black():
    image = np.full((50, 50, 3), 255, np.uint8)
    crop = crop_image(image, crop_matrix((-25, 5, 40, 40), 64), 64)
    assert (crop[:, 0] == 0).all() and (crop[30, -1] == 255).all()
    assert not crop_image(image, crop_matrix((500, 500, 40, 40), 64), 64).any()


def test_boxes_without_area_are_refused():
    nan = float("nan")
    for box in ((0, 0, 0, 0), (0, 0, nan, 5), (nan, 0, 5, 5), (0, 0, 5, nan)):
        with pytest.raises(DataError, match="holds no face"):
            crop_matrix(box, 64)


def test_mirroring_twice_is_identity():
    assert (FLIP_INDICES[FLIP_INDICES] == np.arange(68)).all()
    points = np.random.default_rng(1).normal(size=(68, 2))
    once = points[FLIP_INDICES] * [-1, 1]
    np.testing.assert_array_equal(once[FLIP_INDICES] * [-1, 1], points)


def test_mirroring_renames_points_so_that_anatomy_stays(tiny):
    """The right eye of a mirrored face is still at the viewer's left, so 36 stays left of 45."""
    sample = {"image": np.zeros((300, 300), np.uint8), "keypoints": tiny.points[0]}
    for i in range(20):
        points = FaceCrop(64, mirror=True)(sample, np.random.default_rng(i))["keypoints"]
        assert (
            points[36, 0] < points[45, 0]
            and points[0, 0] < points[16, 0]
            and points[48, 0] < points[54, 0]
        )


@given(st.integers(4, 60), st.integers(4, 60), st.data())
def test_random_crop_fits_equal_sizes_and_reaches_every_offset(height, width, data):
    new_height, new_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    image = np.arange(height * width).reshape(height, width) % 251
    sample = {"image": image.astype(np.uint8), "keypoints": np.float32([[0, 0]] * 68)}
    crop = RandomCrop((new_height, new_width))(sample, np.random.default_rng(0))
    assert crop["image"].shape == (new_height, new_width)
    left, top = (-crop["keypoints"][0]).astype(int)
    np.testing.assert_array_equal(
        crop["image"], sample["image"][top : top + new_height, left : left + new_width]
    )


def test_random_crop_uses_every_offset():
    sample = {"image": np.zeros((5, 5), np.uint8), "keypoints": np.zeros((68, 2), np.float32)}
    offsets = {
        tuple(RandomCrop(4)(sample, np.random.default_rng(i))["keypoints"][0]) for i in range(60)
    }
    assert offsets == {(0, 0), (0, -1), (-1, 0), (-1, -1)}
    with pytest.raises(ValueError, match="does not fit"):
        RandomCrop(6)(sample)


def test_normalize_refuses_a_second_division():
    white = {
        "image": np.full((4, 8, 3), 255, np.uint8),
        "keypoints": np.float32([[-0.5, -0.5], [7.5, 3.5]]),
    }
    done = Normalize()(white)
    assert (
        done["image"].shape == (4, 8)
        and done["image"].dtype == np.float32
        and done["image"].max() == 1
    )
    np.testing.assert_allclose(done["keypoints"], [[-1, -1], [1, 1]])
    with pytest.raises(ValueError, match="divided by 255 twice"):
        Normalize()(done)


def test_the_original_chain_gives_a_224_tensor_and_targets(tiny):
    sample = {"image": tiny.image(0), "keypoints": tiny.points[0]}
    done = data_transform(sample, np.random.default_rng(0))
    assert done["image"].shape == (1, 224, 224) and done["image"].dtype == torch.float32
    assert done["keypoints"].shape == (68, 2) and done["keypoints"].dtype == torch.float32
    assert sample["image"].dtype == np.uint8  # the sample given is left as it was


def test_augmentation_changes_pixels_alone_and_keeps_them_bytes(tiny):
    gray = FaceCrop(64)({"image": tiny.image(0)[..., 0], "keypoints": tiny.points[0]})
    seen = set()
    for i in range(60):
        done = Augment()(gray, np.random.default_rng(i))
        assert done["image"].dtype == np.uint8 and done["image"].shape == (64, 64)
        np.testing.assert_array_equal(done["keypoints"], gray["keypoints"])
        seen.add(done["image"].tobytes())
    assert len(seen) > 55


def test_chance_is_handed_in(tiny):
    sample = {"image": tiny.image(0)[..., 0].copy(), "keypoints": tiny.points[0]}
    chain = Compose([training_transform(48)])
    a, b, c = (chain(sample, np.random.default_rng(s))["image"] for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_to_tensor_puts_channels_first():
    done = ToTensor()(
        {"image": np.zeros((3, 5, 2), np.float32), "keypoints": np.zeros((68, 2), np.float32)}
    )
    assert done["image"].shape == (2, 3, 5)


@pytest.mark.parametrize("hardship", CORRUPTIONS, ids=lambda f: f.__name__)
def test_every_corruption_changes_the_image(hardship, tiny):
    gray = FaceCrop(96)({"image": tiny.image(0)[..., 0], "keypoints": tiny.points[0]})["image"]
    for seed in range(20):
        worn = hardship(gray, np.random.default_rng(seed))
        assert worn.shape == gray.shape and worn.dtype == np.uint8
        assert np.abs(worn.astype(int) - gray).mean() > 1


def test_wild_jitter_is_wider_but_has_bounds():
    sample = {
        "image": np.zeros((80, 80), np.uint8),
        "keypoints": np.random.default_rng(0).uniform(20, 60, (68, 2)),
    }
    angles = {}
    for wild in (0.0, 1.0):
        crop = FaceCrop(32, angle=18, wild=wild)
        matrices = [crop(sample, np.random.default_rng(seed))["matrix"] for seed in range(400)]
        angles[wild] = np.degrees([np.arctan2(m[0, 1], m[0, 0]) for m in matrices])
    assert np.abs(angles[1.0]).max() < 54.1 and np.std(angles[1.0]) > 1.4 * np.std(angles[0.0])


def test_negative_crops_have_no_targets(tiny):
    crop, shares = FaceCrop(64, empty=1.0), []
    for index in range(100):
        sample = {"image": tiny.image(index), "keypoints": tiny.points[index]}
        empty = crop(sample, np.random.default_rng(index))
        assert np.isnan(empty["keypoints"]).all()
        inside = np.abs(to_targets(tiny.points[index], empty["matrix"], 64)) < 0.8
        shares.append(inside.all(1).mean())
    assert np.mean(shares) < 0.15 and np.max(shares) < 0.7
    assert not np.isnan(FaceCrop(64)(sample, np.random.default_rng(0))["keypoints"]).any()


@pytest.mark.skipif(cv2.__version__ >= "5", reason="OpenCV 5 rounds differently")
@given(st.floats(-4, 4), st.floats(-180, 180), st.floats(-1e5, 1e5), st.floats(-300, 300))
@settings(max_examples=60, deadline=None)
def test_the_crop_has_the_integers_of_opencv_4(zoom, angle, left, top):
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    matrix = crop_matrix((left, top, 80, 90), 64, zoom=2**zoom, angle=angle)
    expected = cv2.warpAffine(image, matrix, (64, 64))
    np.testing.assert_array_equal(warp(image, matrix, (64, 64)), expected)
