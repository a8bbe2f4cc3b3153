"""Faces fitted in three dimensions: pose, expressions, identity; and what is sent to avatars."""

import argparse
import json
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facial_keypoints import KeypointDetector, UsageError
from facial_keypoints.avatar import VmcWriter, head_quaternion
from facial_keypoints.drawing import draw_heads
from facial_keypoints.face_model import Person, face_model, fit_3d
from facial_keypoints.layouts import convert_points, load_layout
from facial_keypoints.options import address
from facial_keypoints.pose import DISTANCE, rotation_of
from facial_keypoints.tracking import Tracker


def seen(expressions=None, angles=(0, 0, 0), identity=None, scale=80, place=(300, 200)):
    """Keypoints (68, 2) in pixels of a face of the model."""
    model = face_model()
    values = np.array([(expressions or {}).get(name, 0) for name in model.names])
    person = np.zeros(len(model.identity)) if identity is None else identity
    shape = model.mean + model.modes @ np.concatenate([person, values])
    placed = shape @ rotation_of(*angles).T + [0, 0, DISTANCE]
    return scale * DISTANCE * placed[:, :2] / placed[:, 2:] + place


def test_a_neutral_face_has_no_expression():
    fit = fit_3d(seen())
    assert max(fit.expressions.values()) < 0.05 and fit.residual < 0.002
    assert abs(fit.pose.yaw) < 0.5 and abs(fit.pose.pitch) < 1.5 and abs(fit.pose.roll) < 0.2


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 5, -10), (-30, -10, 20)])
def test_an_expression_and_a_pose_are_found(angles):
    fit = fit_3d(seen({"jawOpen": 0.7, "mouthSmileLeft": 0.6, "mouthSmileRight": 0.6}, angles))
    assert fit.expressions["jawOpen"] == pytest.approx(0.7, abs=0.2)
    assert fit.expressions["mouthSmileLeft"] == pytest.approx(0.6, abs=0.3)
    found = (fit.pose.yaw, fit.pose.pitch, fit.pose.roll)
    np.testing.assert_allclose(found, angles, atol=3)


def test_one_eye_closes():
    expressions = fit_3d(seen({"eyeBlinkLeft": 1.0})).expressions
    assert expressions["eyeBlinkLeft"] > 0.5 and expressions["eyeBlinkRight"] < 0.15


def test_the_fitted_points_lie_on_the_given_ones():
    points = seen({"jawOpen": 0.5}, (20, 0, 10))
    fit = fit_3d(points)
    away = np.linalg.norm(fit.project(fit.points) - points, axis=1)
    assert away.mean() < 0.01 * 80


def test_size_and_place_in_the_photo_do_not_matter():
    wanted = {"mouthPucker": 0.8}
    small, large = (
        fit_3d(seen(wanted, (15, 5, 0), scale=scale, place=place))
        for scale, place in ((20, (30, 30)), (400, (2000, 900)))
    )
    np.testing.assert_allclose(small.points, large.points, atol=1e-4)
    assert small.expressions == pytest.approx(large.expressions, abs=1e-3)


def test_a_mirrored_face_has_the_expressions_of_the_other_side():
    points = seen({"mouthSmileLeft": 0.8, "browOuterUpRight": 0.7}, (10, 0, 0))
    mirrored = points[load_layout().flip_indices] * [-1, 1]
    swapped = {
        name.replace("Left", "-").replace("Right", "Left").replace("-", "Right"): value
        for name, value in fit_3d(points).expressions.items()
    }
    assert fit_3d(mirrored).expressions == pytest.approx(swapped, abs=0.05)


def test_the_axes_are_right_handed_in_inter_ocular_distances():
    points = fit_3d(seen()).points
    assert np.linalg.norm(points[45] - points[36]) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose((points[36] + points[45]) / 2, 0, atol=0.02)
    assert (
        points[30, 2] < points[36, 2] < points[0, 2]
    )  # nose tip, eye, ear: z away from the viewer
    assert points[8, 1] > points[30, 1] > 0 and points[45, 0] > 0


@given(st.integers(0, 10_000), st.floats(0, 60))
@settings(max_examples=60, deadline=None)
def test_any_points_give_values_within_bounds(seed, noise):
    points = seen() + np.random.default_rng(seed).normal(size=(68, 2)) * noise
    fit = fit_3d(points)
    assert all(0 <= value <= 1 for value in fit.expressions.values())
    assert np.isfinite(fit.points).all() and np.isfinite(fit.identity).all()


def test_frames_of_one_person_share_the_identity():
    rng = np.random.default_rng(1)
    identity = rng.normal(size=len(face_model().identity))
    frames = [
        seen({"jawOpen": rng.uniform(), "mouthSmileLeft": rng.uniform()}, identity=identity)
        + rng.normal(size=(68, 2))
        for _ in range(30)
    ]
    person = Person()
    alone = np.array([fit_3d(points).neutral for points in frames])[15:]
    shared = np.array([fit_3d(points, person=person).neutral for points in frames])[15:]
    assert shared.std(0).mean() < 0.3 * alone.std(0).mean()


def test_hidden_points_count_little():
    points, visibility = seen(), np.ones(68)
    moved = points.copy()
    moved[:8] += 15
    visibility[:8] = 0
    assert np.abs(fit_3d(moved, visibility).points - fit_3d(points).points)[17:].max() < 0.03


def test_missing_points_and_other_layouts():
    points = seen({"jawOpen": 0.6})
    points[:17] = np.nan
    assert fit_3d(points).expressions["jawOpen"] == pytest.approx(0.6, abs=0.25)
    wflw = convert_points(seen({"jawOpen": 0.6}), "ibug68", "wflw98")
    assert fit_3d(wflw, layout="wflw98").expressions["jawOpen"] > 0.3
    with pytest.raises(UsageError, match="12 visible keypoints"):
        fit_3d(np.zeros((5, 2)), layout="five")


def test_a_tracked_face_has_a_person(hopper):
    tracker = Tracker(KeypointDetector())
    faces = [tracker(hopper[1], second / 25)[0] for second in range(3)]
    assert faces[0].person is faces[2].person
    faces[2].fit_3d()
    assert faces[0].person.frames == 1


def test_a_head_is_drawn_where_the_face_is(hopper):
    faces = KeypointDetector()(hopper[1])
    drawn = draw_heads(hopper[1], faces)
    changed = np.argwhere((drawn != hopper[1]).any(-1))
    left, top, width, height = faces[0].box
    middle = changed.mean(0)[::-1]
    assert left < middle[0] < left + width and top < middle[1] < top + height
    assert len(changed) > 0.1 * width * height


def test_json_has_expressions_where_asked(hopper, tmp_path):
    rows = []
    for words in ([], ["--expressions"]):
        target = tmp_path / "faces.json"
        command = [sys.executable, "-m", "facial_keypoints", str(hopper[0]), "--json", str(target)]
        subprocess.run([*command, *words], check=True, capture_output=True)
        rows.append(json.loads(target.read_text().splitlines()[0]))
    assert "expressions" not in rows[0]
    assert set(rows[1]) - set(rows[0]) == {"expressions", "points_3d"}
    assert set(rows[1]["expressions"]) == set(face_model().names)
    assert np.shape(rows[1]["points_3d"]) == (68, 3)


@pytest.mark.parametrize("text", ["39539", "host:", "host:x", ":39539", "h:0", "h:70000", "h:1e3"])
def test_an_address_is_checked(text):
    with pytest.raises(argparse.ArgumentTypeError, match="HOST:PORT"):
        address(text)
    assert address("127.0.0.1:39539") == ("127.0.0.1", 39539)


def test_a_program_receives_expressions_and_the_head(hopper):
    osc_bundle = pytest.importorskip("pythonosc.osc_bundle", reason="python-osc is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        writer = VmcWriter("127.0.0.1", receiver.getsockname()[1])
        faces = KeypointDetector()(hopper[1])
        writer.write("frame", hopper[1].shape[:2], faces)
        writer.close()
        messages = [(m.address, m.params) for m in osc_bundle.OscBundle(receiver.recv(65536))]
    values = dict(params for name, params in messages if name == "/VMC/Ext/Blend/Val")
    expected = faces[0].fit_3d().expressions
    assert set(values) == {name[0].upper() + name[1:] for name in expected}
    assert values["JawOpen"] == pytest.approx(expected["jawOpen"], abs=1e-6)
    bone = next(params for name, params in messages if name == "/VMC/Ext/Bone/Pos")
    assert bone[0] == "Head" and np.linalg.norm(bone[4:]) == pytest.approx(1)
    assert messages[-1][0] == "/VMC/Ext/Blend/Apply"


@pytest.mark.parametrize(
    "angles, axis",
    # Unity, left-handed, seen from the avatar: to its left is about -y, down about x
    [((30, 0, 0), (0, -1, 0)), ((0, 30, 0), (1, 0, 0)), ((0, 0, 30), (0, 0, 1))],
)
def test_the_head_of_an_avatar_turns_as_the_person_does(angles, axis):
    quaternion = np.array(head_quaternion(rotation_of(*angles)))
    quaternion *= np.sign(quaternion[3])
    expected = np.append(np.sin(np.radians(15)) * np.array(axis), np.cos(np.radians(15)))
    np.testing.assert_allclose(quaternion, expected, atol=1e-6)
