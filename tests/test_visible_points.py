"""Labels that say which points are visible: read, completed, split by photo, and scored."""

import json

import cv2
import numpy as np
import pytest
from conftest import LEFT_HALF, one_line_error, write_flagged

from data_load import FacialKeypointsDataset
from evaluate import visibility_metrics
from facial_keypoints.head import mean_head
from facial_keypoints.layouts import load_layout
from facial_keypoints.pose import rotation_of
from research.data import merlrav as merlrav_builder
from research.data.completion import MIN_RIGID, complete_points
from research.datasets import load_frames, split_frames
from research.data.folders import load_folder
from research.evaluation.metrics import box_errors, ranking_auc
from research.data.photo_groups import MAX_SIDE
from research.augmentation.transforms import FaceCrop


def head_at(yaw, pitch=0.0, roll=0.0):
    """The mean head as a distant camera sees it: (68, 2) in pixels, 60 between the eyes."""
    return 60 * (mean_head() @ rotation_of(yaw, pitch, roll).T)[:, :2] + 100


def write_pts(path, numbers):
    lines = "\n".join(f"{x} {y}" for x, y in numbers)
    path.write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")


@pytest.fixture
def flagged(tmp_path, tiny):
    """A folder with 12 photos and a COCO file like that of MERL-RAV; their points (12, 68, 2)."""
    points = write_flagged(tmp_path, tiny.select(np.arange(12)), "train.json")
    return tmp_path, points


def test_coco_flags_say_which_points_are_visible(flagged):
    folder, points = flagged
    frames = load_folder(folder)
    assert frames.layout == load_layout() and list(frames.pose[:2]) == ["frontal", "left"]
    assert (frames.visible[:, 0] == 0).all() and (frames.visible[:, 1] == 1).all()
    assert (frames.visible[1::2][:, LEFT_HALF] == 0).all()
    np.testing.assert_allclose(frames.points[:, 0], points[:, 0], atol=1e-3)  # occluded: a position
    assert np.isnan(frames.points[1::2][:, LEFT_HALF]).all()
    some = frames.select(np.array([1, 3]))
    assert some.visible.shape == (2, 68) and list(some.pose) == ["left", "left"]


def test_a_file_without_occluded_points_does_not_say_what_is_visible(flagged):
    folder, _ = flagged
    content = json.loads((folder / "train.json").read_text())
    for row in content["annotations"]:
        row["keypoints"][2] = 2
    (folder / "train.json").write_text(json.dumps(content))
    assert load_folder(folder).visible is None


def test_pts_files_with_the_signs_of_merl_rav(tmp_path, tiny):
    labels = tmp_path / "merl_rav_labels" / "lefthalf" / "trainset" / "labels"
    photos = tmp_path / "flickr" / "0"
    labels.mkdir(parents=True)
    photos.mkdir(parents=True)
    points = tiny.points[0].astype(np.float64).round(2)
    cv2.imwrite(str(photos / "image00007.jpg"), tiny.image(0)[..., ::-1])
    signed = points + 1
    signed[5] *= -1
    signed[LEFT_HALF] = -1
    for name in ("image00007.pts", "image00007_2.pts"):
        write_pts(labels / name, signed)
    frames = load_folder(tmp_path)
    assert len(frames) == 2 and set(frames.sides) == {"training"}
    assert set(frames.pose) == {"lefthalf"}
    np.testing.assert_allclose(frames.points[0, 5], points[5], atol=1e-3)
    assert frames.visible[0, 5] == 0 and frames.visible[0, 6] == 1
    assert np.isnan(frames.points[:, LEFT_HALF]).all() and (frames.visible[:, LEFT_HALF] == 0).all()
    assert len(set(frames.people)) == 1, "two faces of one photo"
    assert frames.image(1).shape == tiny.image(0).shape


@pytest.mark.parametrize("yaw", [-70, -40, 0, 40, 70])
def test_hidden_points_are_placed_by_a_head_in_three_dimensions(yaw):
    truth = head_at(yaw, 10, 20)
    points = truth.copy()
    points[LEFT_HALF] = np.nan
    found = complete_points(points[None].astype(np.float32), load_layout())[0]
    np.testing.assert_allclose(found, truth, atol=0.5)


def test_a_hidden_half_of_the_mouth_is_as_open_as_the_visible_one():
    truth = head_at(50)
    truth[[56, 57, 58, 65, 66, 67, 55, 59]] += (0, 12)  # the lower lip
    points = truth.copy()
    points[[54, 55, 56, 53, 52, 63, 64, 65]] = np.nan
    found = complete_points(points[None].astype(np.float32), load_layout())[0]
    assert np.abs(found - truth).max() < 2


def test_faces_with_few_labeled_points_are_completed_by_the_typical_face(tiny):
    points = tiny.points[:4].copy()
    points[0, MIN_RIGID - 2 :] = np.nan
    found = complete_points(points, tiny.layout)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[1:], points[1:])


def test_training_uses_estimated_positions_and_labeled_visibility(flagged):
    frames = load_folder(flagged[0])
    filled = frames.with_hidden_points()
    assert np.isfinite(filled.points).all()
    labeled = ~np.isnan(frames.points)
    np.testing.assert_array_equal(filled.points[labeled], frames.points[labeled])
    sample = FacialKeypointsDataset(filled, FaceCrop(64, mirror=True, empty=0.0))[1]
    assert sorted(sample["visible"]) == sorted(frames.visible[1])
    empty = FacialKeypointsDataset(filled, FaceCrop(64, empty=1.0))[1]
    assert np.isnan(empty["visible"]).all() and np.isnan(empty["keypoints"]).all()


def test_a_split_keeps_near_duplicates_and_neighbors_together(tmp_path, tiny):
    numbers = [100, 101, 104, 300, 500, 900]
    rng, images = np.random.default_rng(0), []
    for number in numbers:
        scene = cv2.resize(
            rng.integers(0, 255, (6, 6, 3), np.uint8), (120, 120), interpolation=cv2.INTER_CUBIC
        )
        images.append(
            scene if number != 900 else np.clip(images[3] * 0.9 + 8, 0, 255).astype(np.uint8)
        )
        assert max(images[-1].shape) <= MAX_SIDE
        cv2.imwrite(str(tmp_path / f"image{number:05d}.png"), images[-1])
        write_pts(tmp_path / f"image{number:05d}.pts", tiny.points[0] / 3)
    people = load_frames(str(tmp_path)).people
    assert people[0] == people[1] == people[2], "numbers of one photo"
    assert people[3] == people[5], "the same picture, darker"
    assert len(set(people)) == 3


@pytest.mark.official
def test_the_parts_of_merl_rav_share_no_photo(merlrav):
    parts = [split_frames(merlrav, "official", part) for part in ("training", "validation")]
    assert len(parts[0]) > 8000 and 900 < len(parts[1]) < 1300
    assert not {*parts[0].people} & {*parts[1].people}


def test_the_error_of_merl_rav_is_relative_to_the_box_of_labeled_points():
    truth = np.array([[[0, 0], [10, 0], [0, 40], [np.nan, np.nan]]])
    errors = box_errors(np.nan_to_num(truth) + (3, 4), truth)
    np.testing.assert_allclose(errors[0, :3], 100 * 5 / 20)
    assert np.isnan(errors[0, 3])


def test_a_ranking_is_scored_with_ties_counted_half():
    assert ranking_auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 1
    assert ranking_auc([0.5, 0.5, 0.5], [False, True, True]) == 0.5
    assert np.isnan(ranking_auc([0.5], [True]))


def test_visibility_is_scored_by_kind_and_errors_by_pose(flagged):
    frames = load_folder(flagged[0])
    points = frames.with_hidden_points().points + np.float32(1)
    perfect = visibility_metrics(points, frames.visible, frames)
    assert perfect["visibility_auc"] == [1, 1]
    assert perfect["poses"]["frontal"][0] == perfect["poses"]["profile"][0] == 6
    assert perfect["poses"]["all"][0] == 12 and "half profile" not in perfect["poses"]
    wrong = visibility_metrics(points, 1 - frames.visible, frames)
    assert wrong["visibility_auc"] == [0, 0]


@pytest.mark.official
def test_merl_rav_is_built_again_from_its_two_sources(tmp_path, merlrav):
    source = merlrav.store.path.with_name("merlrav_source")
    out = tmp_path / "built.zip"
    said = merlrav_builder.build(source / "test_codes", source / "merl_rav_labels", out)
    assert "40 faces, 16 of them for testing; 0 left out" in said
    built = load_frames(str(out))
    rows = [list(merlrav.names).index(name) for name in built.names]
    np.testing.assert_allclose(built.points, merlrav.points[rows], atol=0.06, equal_nan=True)
    np.testing.assert_array_equal(built.visible, merlrav.visible[rows])
    np.testing.assert_array_equal(built.pose, merlrav.pose[rows])
    assert (built.digests() == merlrav.select(np.array(rows)).digests()).all()


def test_a_folder_that_is_not_2dasl_is_refused_in_one_line(tmp_path, python):
    words = ["-m", "research.data.merlrav", tmp_path, tmp_path, "--out", tmp_path / "out.zip"]
    assert "not the test data of 2DASL" in one_line_error(python(words), 1)
    assert not (tmp_path / "out.zip").exists()
