"""Keypoint layouts: what their files must hold, conversions between them, drawings."""

import dataclasses
import json

import numpy as np
import pytest

from facial_keypoints.paths import layout_names
from facial_keypoints.detector import Face
from facial_keypoints.drawing import draw_faces, draw_layout
from facial_keypoints.alignment import align_face
from facial_keypoints.effects import blur_face, face_box, refuse_style, wear_glasses
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import coco_category
from facial_keypoints.geometry import tight_box
from facial_keypoints.head import box_fit, has_shape_score, mean_head, roll_angle, shape_score
from facial_keypoints.detectors import to_tight
from facial_keypoints.layouts import (
    Layout,
    conversion_matrix,
    convert_points,
    layout_from,
    load_layout,
    unnamed_layout,
)
from facial_keypoints.openness import eyes_open
from facial_keypoints.pose import has_pose, head_pose
from facial_keypoints.tracking import OneEuroFilter

SIZES = {
    "ibug68": 68,
    "wflw98": 98,
    "lapa106": 106,
    "cofw29": 29,
    "aflw19": 19,
    "kaggle15": 15,
    "five": 5,
    "mediapipe478": 478,
}
MIRRORED = [name for name in SIZES if name != "mediapipe478"]
OWN = {
    "name": "own",
    "keypoints": ["a", "b", "c"],
    "mirror": [["a", "b"]],
    "parts": [{"name": "line", "points": ["0-2"]}],
    "normalization": {"name": "width", "start": [0], "end": ["b"]},
}


def test_the_layouts_have_the_agreed_sizes():
    assert {name: len(load_layout(name)) for name in layout_names()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_a_layout_survives_json(name):
    layout = load_layout(name)
    assert layout_from(json.loads(json.dumps(layout.to_dict())), "x") == layout


@pytest.mark.parametrize("name", MIRRORED)
def test_mirror_pairs_swap_left_and_right(name):
    layout = load_layout(name)
    flip = layout.flip_indices
    assert (flip[flip] == np.arange(len(layout))).all()
    sides = {"left": "right", "right": "left"}
    for index, keypoint in enumerate(layout.keypoints):
        words = [sides.get(word, word) for word in keypoint.split()]
        if not words[-1].isdecimal():
            assert layout.keypoints[flip[index]] == " ".join(words)
    shape = np.array(layout.shape)
    np.testing.assert_allclose(shape[flip] * [-1, 1], shape, atol=0.06)


@pytest.mark.parametrize("name", MIRRORED)
def test_left_is_the_side_of_the_person(name):
    shape = np.array(load_layout(name).shape)
    for index, keypoint in enumerate(load_layout(name).keypoints):
        if keypoint.startswith(("left eye", "left brow", "left mouth")):
            assert shape[index, 0] > 0, keypoint


@pytest.mark.parametrize("name", SIZES)
def test_every_keypoint_is_in_one_part_at_least(name):
    layout = load_layout(name)
    inside = {index for part in layout.parts for index in part.points}
    assert name == "mediapipe478" or inside == set(range(len(layout)))
    assert {"eyes", "nose", "mouth"} <= layout.regions.keys()
    for a, b in layout.skeleton():
        assert a != b and {a, b} <= inside


@pytest.mark.parametrize(
    "change, said",
    [
        ({"keypoints": ["a", "a"]}, "two keypoints have the name 'a'"),
        ({"keypoints": 0}, "1 to 2000"),
        ({"keypoints": "abc"}, "list of names"),
        ({"keypoints": ["a\nb"]}, "on one line"),
        ({"name": ""}, "`name`"),
        ({"mirror": [["a", "b"], ["b", "c"]]}, "each keypoint is in one pair"),
        ({"mirror": [["a", "a"]]}, "each keypoint is in one pair"),
        ({"mirror": [[0]]}, "no pair"),
        ({"mirror": [[0, 7]]}, "no keypoint 7"),
        ({"mirror": [[0, "z"]]}, "'z' is no keypoint"),
        ({"parts": [{"name": "p", "points": [0, 3]}]}, "part 'p': there is no keypoint 3"),
        ({"parts": [{"name": "p", "points": []}]}, "no keypoints"),
        ({"parts": [{"name": "p", "points": [0]}] * 2}, "two parts"),
        ({"parts": [{"name": "p", "points": [0], "open": True}]}, "unknown key 'open'"),
        ({"normalization": {"name": "n", "start": [0]}}, "name, start and end"),
        ({"normalization": {"name": "n", "start": [0], "end": [0]}}, "same keypoints"),
        ({"crop_scale": 9}, "from 0.5 to 5"),
        ({"shape": [[0, 0]]}, "3 pairs"),
        ({"shape": [[0, 0], [1, 1], [float("nan"), 0]]}, "3 pairs"),
        ({"colour": 1}, "'colour'"),
        ({"names": {"5": "x"}}, "'5' is no index"),
    ],
)
def test_a_wrong_layout_is_named_with_what_is_wrong(change, said):
    with pytest.raises(DataError, match=f"own.toml: .*{said}"):
        layout_from({**OWN, **change}, "own.toml")


def test_a_file_of_ones_own_may_use_names_numbers_and_ranges(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\nkeypoints = 4\nmirror = [[0, 3]]\n[names]\n1 = "tip"\n'
        '[[parts]]\nname = "line"\npoints = ["0-1", 3, "tip"]\nclosed = true\n'
    )
    layout = load_layout(path)
    assert layout.keypoints == ("0", "tip", "2", "3") and layout.mirror == (3, 1, 2, 0)
    assert layout.part("line").points == (0, 1, 3, 1)
    with pytest.raises(UsageError, match="its parts are: line"):
        layout.part("nose")
    path.write_text("name = ")
    with pytest.raises(DataError, match="own.toml: not a TOML file"):
        load_layout(path)
    with pytest.raises(UsageError, match="present are .*ibug68"):
        load_layout("ibug69")


def test_without_normalization_the_diagonal_of_the_box_is_the_unit():
    layout = unnamed_layout(3)
    assert layout.normalizer(np.array([[0, 0], [3, 4.0], [1, 1]])) == pytest.approx(5)
    with pytest.raises(UsageError, match="no mirror pairs"):
        layout.flip_indices  # noqa: B018


# ---------------------------------------------------------------- conversions


@pytest.mark.parametrize("target", SIZES)
@pytest.mark.parametrize("source", SIZES)
def test_conversions_are_weighted_means_of_the_source(source, target):
    weights = conversion_matrix(load_layout(source), load_layout(target))
    known = ~np.isnan(weights).any(1)
    assert weights.shape == (SIZES[target], SIZES[source])
    np.testing.assert_allclose(weights[known].sum(1), 1)
    assert (weights[known] >= 0).all()


@pytest.mark.parametrize("source", ["wflw98", "lapa106", "mediapipe478"])
def test_rich_layouts_give_all_68_points(source):
    assert not np.isnan(conversion_matrix(load_layout(source), load_layout())).any()


@pytest.mark.parametrize("middle", ["wflw98", "lapa106", "mediapipe478"])
def test_to_a_finer_layout_and_back_moves_points_little(middle, tiny):
    """Named points stay; others are interpolated twice, between neighbors that are near."""
    there = convert_points(tiny.points, "ibug68", middle)
    back = convert_points(there, middle, "ibug68")
    length = load_layout().normalizer(tiny.points)[:, None]
    away = np.linalg.norm(back - tiny.points, axis=-1) / length
    named = [i for i, name in enumerate(load_layout().keypoints) if not name[-1].isdecimal()]
    assert np.isfinite(away).all() and away[:, named].max() < 1e-5 and away.mean() < 0.02


def test_five_points_are_eye_centers_nose_tip_and_mouth_corners():
    points = np.random.default_rng(0).random((2, 68, 2))
    five = convert_points(points, "ibug68", "five")
    expected = np.stack(
        [
            points[:, 36:42].mean(1),
            points[:, 42:48].mean(1),
            points[:, 30],
            points[:, 48],
            points[:, 54],
        ],
        1,
    )
    np.testing.assert_allclose(five, expected, atol=1e-6)


def test_a_missing_point_spoils_only_what_is_made_of_it():
    points = np.random.default_rng(0).random((68, 2))
    points[36] = np.nan  # the outer corner of the right eye
    found = convert_points(points, "ibug68", "wflw98")
    layout = load_layout("wflw98")
    missing = {layout.keypoints[i] for i in np.flatnonzero(np.isnan(found).any(1))}
    always = {
        "left pupil",
        "right pupil",
        *(f"{side} lower brow {i}" for side in ("left", "right") for i in range(1, 5)),
    }
    assert missing - always == {"right eye outer corner", "right eye 2", "right eye 8"}


def test_points_of_another_number_are_refused():
    with pytest.raises(UsageError, match="wflw98 has 98 keypoints"):
        convert_points(np.zeros((68, 2)), "wflw98", "ibug68")


# ---------------------------------------------------------------- use


@pytest.mark.parametrize("name", ["wflw98", "cofw29", "five", "kaggle15", "mediapipe478"])
def test_pose_and_roll_are_those_of_the_68_points(name):
    layout = load_layout(name)
    turn = np.radians(12)
    seen = (
        mean_head()[:, :2]
        @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        * 80
        + 200
    )
    points = convert_points(seen, "ibug68", layout)
    assert has_pose(layout) and roll_angle(seen) == pytest.approx(12, abs=0.1)
    assert head_pose(points, layout=layout).roll == pytest.approx(12, abs=1)
    known = np.where(np.isnan(points), 0, points)  # a network has no missing points
    assert roll_angle(known, layout) == pytest.approx(12, abs=0.1)


def test_the_shape_score_needs_enough_points():
    noise = np.random.default_rng(0).random((3, 98, 2))
    assert has_shape_score("wflw98") and (shape_score(noise, load_layout("wflw98")) == 0).all()
    assert (
        not has_shape_score("five") and (shape_score(noise[:, :5], load_layout("five")) == 1).all()
    )


def test_uses_say_which_points_a_layout_lacks():
    image, layout = np.zeros((90, 90, 3), np.uint8), unnamed_layout(7)
    points = np.random.default_rng(0).uniform(20, 70, (7, 2))
    with pytest.raises(UsageError, match="no outer eye corners"):
        wear_glasses(image, points, layout)
    with pytest.raises(UsageError, match="unnamed7 has no eyes, nose"):
        align_face(image, points, layout=layout)
    with pytest.raises(UsageError, match="head pose needs"):
        head_pose(points, layout=layout)
    assert np.isnan(eyes_open(points, layout)).all()
    blur_face(image, points, layout)


def test_the_box_of_a_face_is_about_that_of_its_68_points():
    head = mean_head()[:, :2] * 100 + 300
    for name in ("five", "kaggle15", "cofw29"):
        points = convert_points(head, "ibug68", name)
        box = tight_box(points[~np.isnan(points).any(1)])
        np.testing.assert_allclose(
            face_box(box[None, :2] + np.array([[0, 0], [1, 1]]) * box[2:], name),
            tight_box(head),
            atol=0.1,
        )
        np.testing.assert_allclose(to_tight(tight_box(head)[None], box_fit(name))[0], box, atol=0.1)


def test_faces_give_parts_and_names():
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    face = Face(np.zeros(4), points, 1.0)
    np.testing.assert_array_equal(face.part("left eye"), points[42:48])
    np.testing.assert_array_equal(face.named()["nose tip"], points[30])
    with pytest.raises(UsageError, match="no part 'ear'.*left eye"):
        face.part("ear")


def test_coco_categories_have_names_and_a_skeleton_from_1():
    for name in SIZES:
        category = coco_category(load_layout(name))
        edges = np.array(category["skeleton"])
        assert len(category["keypoints"]) == SIZES[name]
        assert edges.min() >= 1 and edges.max() <= SIZES[name]


def test_smoothing_takes_any_layout():
    for layout in (load_layout("five"), unnamed_layout(3)):
        smooth = OneEuroFilter(layout=layout)
        points = np.random.default_rng(0).random((len(layout), 2)) * 50
        for second in range(4):
            assert smooth(points, second / 30).shape == points.shape


@pytest.mark.parametrize("name", SIZES)
def test_layouts_and_faces_are_drawn(name):
    layout = load_layout(name)
    drawn = draw_layout(layout, 400)
    assert drawn.dtype == np.uint8 and (drawn != 255).any(-1).mean() > 0.005
    points = np.random.default_rng(0).uniform(10, 90, (len(layout), 2)).astype(np.float32)
    face = Face(np.float32([10, 10, 80, 80]), points, 1.0, layout=layout)
    assert draw_faces(np.zeros((100, 100, 3), np.uint8), [face]).any()


def test_a_layout_without_known_positions_is_listed():
    layout = Layout("own", ("tip", "left", "right"))
    assert (draw_layout(layout, 300) != 255).any()


def test_layouts_compare_by_content_and_can_be_keys():
    layout = load_layout("five")
    same = layout_from(layout.to_dict(), "x")
    assert same == layout and hash(same) == hash(layout) and same is not layout
    assert dataclasses.replace(layout, keypoints=("a",) * 5) != layout


def test_the_command_lists_shows_and_draws_layouts(command, tmp_path):
    done = command("pipeline.py", "layouts")
    assert done.returncode == 0 and all(name in done.stdout for name in SIZES)
    done = command("pipeline.py", "layouts", "five", "--draw", tmp_path / "five.png")
    assert done.returncode == 0 and (tmp_path / "five.png").stat().st_size > 1000
    assert "  2  nose tip" in command("pipeline.py", "layouts", "five").stdout
    done = command("pipeline.py", "layouts", "six")
    assert done.returncode == 2 and "no layout 'six'" in done.stderr


def test_layout_files_that_would_take_all_memory_are_refused(tmp_path):
    path = tmp_path / "l.toml"
    for text, said in (
        ("a" + ".a" * 50_000 + " = 1", "more than 20 parts"),
        (
            'name = "a"\nkeypoints = 2000\n[[parts]]\nname = "p"\npoints = ['
            + '"0-1999", ' * 9000
            + "]",
            "more than 10,000 keypoints",
        ),
        ('name = "a"\nkeypoints = 4\n[names]\n"' + "1" * 5000 + '" = "x"', "is no index"),
        ('name = "a"\nkeypoints = 1\nshape = [[1' + "0" * 400 + ", 0]]", "pairs of numbers"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            load_layout(path)


def test_heads_are_hidden_only_where_the_layout_tells_where_they_are():
    refuse_style("blur", load_layout("wflw98"))
    with pytest.raises(UsageError, match="style blur"):
        refuse_style("blur", unnamed_layout(20))
