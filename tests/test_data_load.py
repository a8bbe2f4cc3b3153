"""Splits that do not leak, labels with their shift taken out, samples that do not depend on the
workers."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_load import EpochSampler, FacialKeypointsDataset
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import crop_matrix, tight_box
from research.datasets import load_frames, person_digit, shared_between_sides, split_frames
from research.data.label_shift import label_shift
from research.augmentation.transforms import evaluation_transform, training_transform


@pytest.mark.parametrize("split", ["official", "person"])
def test_parts_are_disjoint_and_make_up_the_whole(tiny, split):
    parts = {
        part: set(split_frames(tiny, split, part).names)
        for part in ("training", "validation", "test")
    }
    assert sum(map(len, parts.values())) == len(tiny) and set.union(*parts.values()) == set(
        tiny.names
    )
    assert (
        set(split_frames(tiny, split, "all-training").names)
        == parts["training"] | parts["validation"]
    )


def test_person_split_follows_the_hash_and_shares_nobody(tiny):
    # its sha256 ends in …07d; as a whole number it ends in 7
    assert person_digit("Abdel_Aziz_Al-Hakim") == 7
    for part, digits in (("test", {0, 1}), ("validation", {2}), ("training", set(range(3, 10)))):
        assert {person_digit(p) for p in split_frames(tiny, "person", part).people} <= digits
    assert shared_between_sides(tiny, "person") == {"people": 0, "videos": 0, "frames": 0}
    assert shared_between_sides(tiny, "official")["people"] == 16


def test_official_split_is_as_published_without_copies(tiny):
    assert (split_frames(tiny, "official", "test").sides == "test").all()
    copied = tiny.select(np.arange(len(tiny)))
    test_row, training_row = (
        np.flatnonzero(tiny.sides == "test")[0],
        np.flatnonzero(tiny.sides == "training")[0],
    )
    copied.paths[training_row] = copied.paths[test_row]
    left = split_frames(copied, "official", "all-training").names
    assert (
        tiny.names[training_row] not in left and len(left) == (tiny.sides == "training").sum() - 1
    )


def test_wrong_names_are_refused(tiny):
    for call in (
        lambda: split_frames(tiny, "other"),
        lambda: split_frames(tiny, "person", "rest"),
        lambda: load_frames("sample", "best"),
    ):
        with pytest.raises(UsageError, match="must be one of"):
            call()
    with pytest.raises(DataError, match="no such data set"):
        load_frames("/nowhere/at/all")
    only_test = tiny.select(tiny.sides == "test")
    with pytest.raises(
        DataError, match="no training frames; this data set has no training side: split 'person'"
    ):
        split_frames(only_test, "official", "training")
    with pytest.raises(
        DataError,
        match="no training frames; it divides 1 people by their names: more people are needed",
    ):
        split_frames(
            tiny.select([person_digit(name) < 2 for name in tiny.people]).select([0]),
            "person",
            "training",
        )


def test_a_set_without_sides_can_be_trained_on_and_scored_whole(tiny):
    own = tiny.select(np.arange(len(tiny)))
    own.names = np.array([f"test/{name.split('/')[1]}" for name in tiny.names])
    assert len(split_frames(own, "person", "training")) > 0 and len(
        split_frames(own, "official", "all")
    ) == len(own)
    assert not own.has_sides and tiny.has_sides


def test_the_shift_grows_with_the_face_size():
    points = np.zeros((2, 68, 2), np.float32)
    points[:, 45, 0] = 50, 100
    np.testing.assert_allclose(label_shift(points).ravel(), [0.48 + 0.94, 0.48 + 1.88], rtol=1e-5)


def test_only_official_labels_are_corrected(tiny_zip):
    corrected, published = (
        load_frames(str(tiny_zip), labels) for labels in ("corrected", "published")
    )
    np.testing.assert_array_equal(corrected.points, published.points)
    assert corrected.labels == "published"


@pytest.mark.official
def test_official_splits_have_the_known_sizes(official_path, monkeypatch):
    monkeypatch.setenv("FACIAL_KEYPOINTS_DATA", str(official_path))
    published, corrected = load_frames("official", "published"), load_frames("official")
    assert [
        len(split_frames(published, "official", p)) for p in ("training", "validation", "test")
    ] == [3143, 315, 770]
    assert [
        len(split_frames(published, "person", p)) for p in ("training", "validation", "test")
    ] == [3039, 385, 808]
    assert shared_between_sides(published, "person") == {"people": 0, "videos": 0, "frames": 0}
    assert shared_between_sides(published, "official") == {
        "people": 347,
        "videos": 769,
        "frames": 0,
    }
    assert (published.labels, corrected.labels) == ("published", "corrected")
    np.testing.assert_allclose(
        published.points - corrected.points,
        np.broadcast_to(label_shift(published.points), published.points.shape),
        atol=1e-4,
    )
    by_path = load_frames(str(official_path))
    assert by_path.labels == "corrected"  # recognized by what it holds, too
    np.testing.assert_array_equal(by_path.points, corrected.points)


def test_samples_are_the_same_for_any_number_of_workers(tiny):
    dataset = FacialKeypointsDataset(tiny, training_transform(32), gray=True, seed=3)
    sampler = EpochSampler(len(dataset), seed=3)
    batches = []
    for workers in (0, 2):
        sampler.epoch = 1
        batches.append(list(DataLoader(dataset, 16, sampler=sampler, num_workers=workers)))
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["keypoints"], b["keypoints"])


def test_epochs_differ_and_every_row_comes_once_in_each(tiny):
    dataset = FacialKeypointsDataset(tiny, training_transform(32), gray=True)
    sampler = EpochSampler(len(dataset))
    first = list(sampler)
    sampler.epoch = 1
    second = list(sampler)
    assert sorted(first) == list(range(len(tiny))) and sorted(
        i - len(tiny) for i in second
    ) == list(range(len(tiny)))
    assert [i - len(tiny) for i in second] != first
    assert not torch.equal(dataset[0]["image"], dataset[len(tiny)]["image"])


def test_samples_have_the_original_keys_and_iteration_ends(tiny):
    dataset = FacialKeypointsDataset(tiny.select(np.arange(3)))
    samples = list(dataset)
    assert len(samples) == 3 and set(samples[0]) == {"image", "keypoints", "visible", "row"}
    assert samples[0]["image"].dtype == np.uint8 and samples[0]["keypoints"].shape == (68, 2)


def test_command_prints_the_splits_and_refuses_what_is_not_there(command, tiny_zip):
    from conftest import one_line_error

    done = command("data_load.py", "--data", tiny_zip)
    assert (
        done.returncode == 0
        and "shared between test and the rest: 0 people, 0 videos, 0 frames" in done.stdout
    )
    assert "/no/such.zip" in one_line_error(command("data_load.py", "--data", "/no/such.zip"), 1)
    one_line_error(command("data_load.py", "--dta", "sample"), 2)


def test_later_epochs_may_have_other_transforms(tiny):
    def named(name):
        return lambda sample, rng: {**sample, "by": name}

    dataset = FacialKeypointsDataset(
        tiny, named("wide"), schedule=[(3, named("gentle")), (5, named("fine"))]
    )
    n = len(dataset)
    assert [dataset[epoch * n + 1]["by"] for epoch in range(6)] == ["wide"] * 3 + ["gentle"] * 2 + [
        "fine"
    ]


def test_given_boxes_are_cropped_around(tiny):
    boxes = tight_box(tiny.points) + np.float32([3, -2, 4, 4])
    dataset = FacialKeypointsDataset(tiny, evaluation_transform(64), boxes=boxes)
    np.testing.assert_allclose(dataset[5]["matrix"], crop_matrix(boxes[5], 64), rtol=1e-5)
