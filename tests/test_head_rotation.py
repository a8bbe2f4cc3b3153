"""Frames with their heads turned: pictures and keypoints move alike, hidden points are known."""

import threading
import time

import cv2
import numpy as np
import pytest
import torch

from data_load import FacialKeypointsDataset
from facial_keypoints.errors import UsageError
from facial_keypoints.geometry import align_shapes
from facial_keypoints.head import shape_score
from facial_keypoints.layouts import convert_points, load_layout, unnamed_layout
from facial_keypoints.pose import angles_of, head_pose
from research.augmentation.head_rotation import (
    MAX_PITCH,
    MAX_YAW,
    MIN_YAW,
    Head,
    TurnedViews,
    random_view,
)
from research.augmentation.transforms import training_transform
from train import TrainingConfig

LEFT_EYE, RIGHT_EYE = range(36, 42), range(42, 48)


@pytest.fixture(scope="module")
def frame(tiny):
    """A gray frame of a head that looks ahead, and its keypoints."""
    yaws = [abs(head_pose(points).yaw) for points in tiny.points]
    row = int(np.argmin(yaws))
    return cv2.cvtColor(tiny.image(row), cv2.COLOR_RGB2GRAY), tiny.points[row]


def test_a_head_turned_to_where_it_looks_is_as_it_was(frame):
    head = Head(*frame)
    yaw, pitch, _ = angles_of(head.rotation)
    image, points, visible = head.turned(yaw, pitch)
    inner = np.s_[30:-30, 30:-30]
    assert np.abs(image[inner].astype(int) - head.image[inner]).mean() < 3
    assert np.linalg.norm(points - head.points, axis=1).max() < 4  # the hidden jaw may move
    assert np.linalg.norm(points[17:] - head.points[17:], axis=1).max() < 2
    assert visible[17:].all()


@pytest.mark.parametrize("index", [27, 33, 45, 54])
def test_keypoints_move_with_their_pixels(frame, index):
    """A bright disc on a keypoint is found where the keypoint has moved to."""
    _, points = frame
    y, x = np.mgrid[: frame[0].shape[0], : frame[0].shape[1]]
    size = np.ptp(points[:, 1]) / 25
    away = (x - points[index, 0]) ** 2 + (y - points[index, 1]) ** 2
    disc = (255 * np.exp(-away / (2 * size**2))).astype(np.uint8)
    image, moved, _ = Head(disc, points).turned(-35, 5)
    weights = image.astype(float) ** 3
    y, x = np.mgrid[: len(image), : len(image)]
    center = [(x * weights).sum() / weights.sum(), (y * weights).sum() / weights.sum()]
    np.testing.assert_allclose(center, moved[index], atol=2.5)


@pytest.mark.parametrize("yaw", [-75, -50, 50, 75])
def test_the_far_side_of_a_turned_head_is_hidden(frame, yaw):
    _, points, visible = Head(*frame).turned(yaw, 0)
    near, far = (LEFT_EYE, RIGHT_EYE) if yaw > 0 else (RIGHT_EYE, LEFT_EYE)
    outer, far_jaw = (45, range(10, 16)) if yaw > 0 else (36, range(1, 7))
    assert visible[list(near)].all() and not visible[outer]
    assert not visible[list(far_jaw)].any()
    assert visible[35 if yaw < 0 else 31]  # the near nostril
    # its points lie on the outline of the cheek, beyond the corner of the mouth
    corner = points[54 if yaw > 0 else 48, 0]
    assert ((points[list(far_jaw)[1:4], 0] - corner) * np.sign(yaw) > -3).all()


@pytest.mark.parametrize("yaw, pitch", [(-40, 0), (25, 15), (40, -20), (0, 20)])
def test_the_pose_of_a_turned_head_is_the_one_asked_for(frame, yaw, pitch):
    _, points, _ = Head(*frame).turned(yaw, pitch)
    pose = head_pose(points)
    # head_pose has a camera at a finite distance, and takes the ends of the jaw as rigid
    assert abs(pose.yaw - yaw) < 9 and abs(pose.pitch - pitch) < 6 and abs(pose.roll) < 4


def test_a_mirrored_head_turned_the_other_way_is_the_mirror_image(frame):
    image, points = frame
    flip = load_layout().flip_indices
    width = image.shape[1] - 1
    mirrored = (points * [-1, 1] + [width, 0])[flip].astype(np.float32)
    one, two = Head(image, points), Head(np.ascontiguousarray(image[:, ::-1]), mirrored)
    (_, a, seen_a), (_, b, seen_b) = one.turned(60, 10), two.turned(-60, 10)
    np.testing.assert_allclose(a, (b * [-1, 1] + [one.side - 1, 0])[flip], atol=1.5)
    assert (seen_a == seen_b[flip]).mean() > 0.9


def test_profiles_are_heads(frame):
    """The shape score does not reject a profile, whose far jaw is on the visible outline."""
    for yaw in (-90, -60, 60, 90):
        assert shape_score(Head(*frame).turned(yaw, 0)[1][None])[0] > 0.95


def test_views_are_to_the_side_to_which_a_head_is_turned(frame):
    image, points = Head(*frame).turned(30, 0)[:2]
    head, rng = Head(image, points), np.random.default_rng(0)
    views = np.array([random_view(head, rng) for _ in range(100)])
    assert (views[:, 0] >= MIN_YAW).all() and (views[:, 0] <= MAX_YAW).all()
    assert np.abs(views[:, 1]).max() <= MAX_PITCH and np.ptp(views[:, 0]) > 50


def test_views_depend_on_the_seed_alone(tiny):
    frames = tiny.select(np.arange(2))
    one, two, other = (TurnedViews(frames, seed, bar=False) for seed in (1, 1, 2))
    draws = [views(1, np.random.default_rng(0)) for views in (one, two, other)]
    assert all(np.array_equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not np.array_equal(draws[0][1], draws[2][1])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_dataset_turns_heads_on_the_threads_of_pytorch(tiny, monkeypatch, threads):
    """`--threads` sets these."""
    used, render = set(), TurnedViews.render

    def slow(self, row):
        used.add(threading.get_ident())
        time.sleep(0.05)
        return render(self, row)

    monkeypatch.setattr(TurnedViews, "render", slow)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    FacialKeypointsDataset(tiny.select(np.zeros(8, int)), gray=True, turned=0.5, bar=False)
    assert len(used) == threads


def test_a_dataset_turns_the_share_that_is_asked_for(tiny):
    frames = tiny.select(np.arange(4))
    none = FacialKeypointsDataset(frames, gray=True, bar=False)
    some = FacialKeypointsDataset(frames, gray=True, turned=0.5, bar=False)
    assert all((sample["visible"] != 0).all() for sample in none)
    turned = [some[i]["image"].shape == (192, 192) for i in range(400)]
    assert 0.4 < np.mean(turned) < 0.6
    sample = next(some[i] for i in range(400) if turned[i])
    assert set(np.unique(sample["visible"])) == {0, 1}
    crop = training_transform(64)(sample, np.random.default_rng(0))
    assert crop["image"].shape == (1, 64, 64) and crop["visible"].shape == (68,)


def test_what_cannot_be_turned_is_refused(tiny):
    gap = tiny.select(np.arange(2))
    gap.points = gap.points.copy()
    gap.points[1, 5] = np.nan
    with pytest.raises(UsageError, match="keypoints are missing"):
        TurnedViews(gap, bar=False)
    with pytest.raises(UsageError, match="too few keypoints"):
        Head(np.zeros((99, 99), np.uint8), tiny.points[0, :9], layout=unnamed_layout(9))
    with pytest.raises(UsageError, match="turned must be from 0 to 1"):
        TrainingConfig(turned=1.5)


def test_another_layout_turns_as_its_points_do(frame):
    image, points = frame
    fewer = convert_points(points[None], "ibug68", "five")[0]
    whole = Head(image, points).turned(40, 0)[1]
    some = Head(image, fewer, layout="five").turned(40, 0)[1]
    wanted = convert_points(whole[None], "ibug68", "five")
    linear, offset = align_shapes(wanted, some)
    away = np.linalg.norm(wanted[0] @ linear[0] + offset[0] - some, axis=1)
    assert len(some) == 5 and away.max() < 0.1 * np.ptp(some, axis=0).max()
