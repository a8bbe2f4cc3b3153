"""Things drawn in front of faces, with their masks."""

import numpy as np
import pytest

from research.augmentation.occlusions import ANYWHERE, ON_FACES, covered, half
from research.augmentation.transforms import Augment, FaceCrop, occlude

COVERS = (*ON_FACES, *ANYWHERE, half)


@pytest.fixture(scope="module")
def crop(tiny):
    """A gray crop of 96 pixels a side and its keypoints."""
    sample = FaceCrop(96)(
        {
            "image": tiny.image(0)[..., 1].copy(),
            "keypoints": tiny.points[0],
            "visible": np.ones(68, np.float32),
        }
    )
    return sample["image"], sample["keypoints"]


@pytest.mark.parametrize("cover", COVERS, ids=lambda f: f.__name__)
def test_covers_hide_the_points_under_their_mask_and_change_nothing_else(cover, crop):
    image, points = crop
    shares = []
    for seed in range(30):
        mask, levels = cover(image, points, np.random.default_rng(seed))
        assert mask.shape == levels.shape == image.shape and 0 <= mask.min() <= mask.max() <= 1
        drawn, hidden = covered(image, points, cover, np.random.default_rng(seed))
        assert drawn.dtype == np.uint8 and (drawn[mask == 0] == image[mask == 0]).all()
        inside = np.rint(points).astype(int)
        there = ((inside >= 0) & (inside < 96)).all(1)
        under = mask[inside[there, 1], inside[there, 0]] > 0.5
        assert (hidden[there] == under).all() and not hidden[~there].any()
        shares.append(hidden.mean())
    assert 0.02 < np.mean(shares) < 0.7


def test_glasses_hide_eyes_and_masks_hide_mouths(crop):
    image, points = crop
    sunglasses, face_mask = ON_FACES[1:3]
    hidden = covered(image, points, sunglasses, np.random.default_rng(0))[1]
    assert hidden[36:48].all() and not hidden[48:].any()
    hidden = covered(image, points, face_mask, np.random.default_rng(0))[1]
    assert hidden[48:].all() and not hidden[17:28].any()


def test_augmentation_marks_what_it_hides(crop):
    image, points = crop
    shares, rng = [], np.random.default_rng(0)
    for _ in range(200):
        sample = {"image": image, "keypoints": points, "visible": np.ones(68, np.float32)}
        shares.append(1 - Augment(hard=0.25)(sample, rng)["visible"].mean())
        assert (sample["visible"] == 1).all()  # the input is not changed
    assert 0.2 < np.mean(np.array(shares) > 0) < 0.5


@pytest.mark.parametrize("missing", [slice(0, 1), slice(None)])
def test_crops_without_all_points_get_covers_that_need_none(missing, crop):
    image, points = crop
    points = points.copy()
    points[missing] = np.nan
    for cover in COVERS:
        sample = {"keypoints": points, "visible": 1 + 0 * points[:, 0]}
        drawn, changed = occlude(image, sample, cover, np.random.default_rng(3))
        assert drawn.shape == image.shape and (drawn != image).any()
        for one in (sample, changed):
            assert np.isnan(one["visible"][missing]).all()
        assert (sample["visible"][~np.isnan(sample["visible"])] == 1).all()  # not changed


@pytest.mark.parametrize("cover", COVERS, ids=lambda f: f.__name__)
def test_covers_on_pictures_in_color_hide_the_same(cover, crop):
    image, points = crop
    gray, hidden = covered(image, points, cover, np.random.default_rng(1))
    color, also = covered(np.dstack([image] * 3), points, cover, np.random.default_rng(1))
    assert color.shape == (96, 96, 3) and (hidden == also).all()
    np.testing.assert_array_equal(color[..., 1], gray)
