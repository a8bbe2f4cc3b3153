"""Synthetic faces: the same for the same seed, exact keypoints, sizes like real ones, and a model
that gives nobody away."""

import zipfile

import numpy as np
import pytest
from conftest import one_line_error

from research.evaluation.prediction import predict_frames
from facial_keypoints.errors import DataError
from facial_keypoints.geometry import align_shapes
from facial_keypoints.layouts import load_layout
from facial_keypoints.images import read_image
from facial_keypoints.pose import head_pose
from research.synthetic import faces as synthetic_faces
from research.synthetic.appearance_model import (
    MODEL,
    SIDE,
    components,
    load_appearance,
    procrustes_mean,
)
from research.datasets import load_frames
from research.evaluation.metrics import point_errors
from research.networks.registry import find_weights, load_checkpoint
from research.synthetic.faces import (
    FRAMES,
    VIDEOS,
    draw_archive,
    draw_person,
    draw_scene,
    sample_archive,
)

FLIP_INDICES = load_layout().flip_indices


def test_a_seed_gives_the_same_faces_and_another_seed_others():
    (_, _, a, p), *_ = draw_person(0, 5)
    (_, _, b, q), *_ = draw_person(0, 5)
    (_, _, c, _), *_ = draw_person(1, 5)
    assert a.dtype == np.uint8 and a.shape[2] == 3
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(p, q)
    assert a.shape != c.shape or (a != c).any()


def test_the_archive_is_a_data_set_with_people_and_videos(tiny):
    assert len(tiny) == 16 * VIDEOS * FRAMES
    assert len(set(tiny.people)) == 16 and len(set(tiny.videos)) == 16 * VIDEOS
    assert (tiny.sides == "test").mean() == 1 / FRAMES
    for row in range(0, len(tiny), 9):
        height, width = tiny.image(row).shape[:2]
        center = tiny.points[row].mean(0)
        assert 0 < center[0] < width and 0 < center[1] < height


def test_frames_of_a_person_are_more_alike_than_those_of_others(tiny):
    upright = tiny.points - tiny.points.mean(1, keepdims=True)
    shapes = upright / np.linalg.norm(upright, axis=(1, 2), keepdims=True)
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=(2, 3))
    same = tiny.videos[:, None] == tiny.videos[None]
    assert distance[same].mean() < 0.8 * distance[~same].mean()


def test_labels_of_synthetic_faces_agree_with_a_real_network(tiny):
    """An independent check of 'exact': without bias in either direction beyond 2 % of the
    inter-ocular distance."""
    net, _ = load_checkpoint(find_weights("models4"))
    points = predict_frames(net, tiny)
    assert point_errors(points, tiny.points).mean() < 6
    unit = np.linalg.norm(tiny.points[:, 45] - tiny.points[:, 36], axis=1)[:, None, None]
    assert np.abs(((points - tiny.points) / unit).mean((0, 1))).max() < 0.02


def test_a_share_of_the_faces_is_turned_to_the_side():
    """Up to 90 degrees, in color; the other frames stay as they are."""
    frames = [
        [frame for person in range(4) for frame in draw_person(0, person, turned=turned)]
        for turned in (0, 0.5)
    ]
    same = [np.array_equal(one[2], other[2]) for one, other in zip(*frames, strict=True)]
    assert 0.25 < np.mean(same) < 0.75
    yaws = []
    for unchanged, (_, _, before, straight), (_, _, image, points) in zip(
        same, *frames, strict=True
    ):
        if unchanged:
            np.testing.assert_array_equal(points, straight)
            continue
        assert image.shape == (min(before.shape[:2]),) * 2 + (3,) and image.dtype == np.uint8
        assert (image[..., 0] != image[..., 2]).mean() > 0.5
        yaws.append(abs(head_pose(points).yaw))
    assert 10 < min(yaws) < 45 < max(yaws) < 110


def test_turned_faces_have_labels_that_a_real_network_agrees_with(tmp_path):
    draw_archive(tmp_path / "turned.zip", 6, bar=False, turned=1)
    frames = load_frames(str(tmp_path / "turned.zip"))
    net, _ = load_checkpoint(find_weights("models5"))
    errors = point_errors(predict_frames(net, frames), frames.points, "box-size").mean(1)
    assert np.median(errors) < 5


def test_turned_faces_are_drawn_by_one_command(command, tmp_path):
    """Archives of another share are another set."""
    options = ("research.synthetic.faces", "draw", "--people", 2, "--out", tmp_path)
    assert command(*options, "--turned", 0.5).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["drawn-0-turned-0.5-000000-000002.zip"]
    assert "belongs to another set" in one_line_error(command(*options), 1)
    assert command(*options, "--turned", 2).returncode == 2


def test_scenes_hold_the_faces_they_say():
    image, points = draw_scene(1, faces=4, width=640, height=480)
    assert image.shape == (480, 640, 3) and points.shape == (4, 68, 2)
    assert ((points.mean(1) > 0) & (points.mean(1) < [640, 480])).all()


def test_a_sheet_shows_one_frame_each(command, tmp_path):
    assert (
        command(
            "research.synthetic.faces", "sheet", "--people", 12, "--out", tmp_path / "s.png"
        ).returncode
        == 0
    )
    assert read_image(tmp_path / "s.png").shape == (240, 1200, 3)


def test_the_cache_is_drawn_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = sample_archive(people=2, seed=1)
    before = path.stat().st_mtime_ns
    assert sample_archive(people=2, seed=1) == path and path.stat().st_mtime_ns == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert len(load_frames(str(path))) == 16


def test_the_data_set_does_not_depend_on_the_clock(tmp_path, monkeypatch):
    synthetic_faces.draw_archive(tmp_path / "now.zip", 1, bar=False)
    monkeypatch.setattr(zipfile.time, "time", lambda: 0)  # a machine without a battery
    synthetic_faces.draw_archive(tmp_path / "then.zip", 1, bar=False)
    assert (tmp_path / "now.zip").read_bytes() == (tmp_path / "then.zip").read_bytes()


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(
        synthetic_faces, "__file__", str(tmp_path / "clone" / "research" / "synthetic" / "faces.py")
    )
    assert sample_archive(people=1, seed=2).parent == tmp_path / "clone" / "data"


def test_a_missing_model_is_reported(tmp_path):
    with pytest.raises(DataError, match="restore it by git checkout"):
        load_appearance(tmp_path / "none.npz")


def test_the_model_is_small_and_holds_statistics_only():
    assert MODEL.stat().st_size < 4 * 2**20
    model = load_appearance()
    people = 346
    for key, value in model.items():  # no array has a row for each training person or frame
        assert not {people, 2 * people, 3458, 3462, 6916, 6924} & set(value.shape), key


def test_procrustes_takes_out_place_scale_and_turn():
    shape = np.random.default_rng(0).normal(size=(68, 2))
    angle = 0.4
    turned = 3 * shape @ np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    ) + [5, -7]
    linear, offset = align_shapes(turned[None], shape)
    np.testing.assert_allclose(turned @ linear[0] + offset[0], shape, atol=1e-9)


def test_the_mean_of_mirrored_shapes_is_symmetric(tiny):
    shapes = tiny.points.astype(float)
    mean = procrustes_mean(np.concatenate([shapes, shapes[:, FLIP_INDICES] * [-1, 1]]))
    middle = (SIDE - 1) / 2
    mirrored = mean[FLIP_INDICES] * [-1, 1] + [2 * middle, 0]
    np.testing.assert_allclose(mean, mirrored, atol=0.02)


def test_components_find_the_modes_that_were_put_in():
    rng = np.random.default_rng(0)
    true, _ = np.linalg.qr(rng.normal(size=(200, 3)))
    data = (rng.normal(size=(4000, 3)) * [5, 3, 1]) @ true.T + rng.normal(size=(4000, 200)) * 0.01
    modes, scale, coefficients = components(data - data.mean(0), 3)
    np.testing.assert_allclose(scale, [5, 3, 1], rtol=0.05)
    np.testing.assert_allclose(np.abs(np.sum(modes * true.T, axis=1)), 1, atol=0.01)
    np.testing.assert_allclose(coefficients.std(0), 1, atol=0.02)


@pytest.mark.official
def test_the_model_can_be_built_again_and_gives_no_face_away(command, official_path, tmp_path):
    done = command(
        "scripts.build_appearance_model", "--data", official_path, "--out", tmp_path / "m.npz"
    )
    assert done.returncode == 0, done.stderr
    numbers = [
        float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("  ")
    ]
    assert numbers[0] >= numbers[1] > 0 and (tmp_path / "m.npz").stat().st_size < 4 * 2**20
