"""Uses of keypoints: poses of heads whose pose is known, openness, glasses that sit, faces that are
hidden."""

import cv2
import numpy as np
import pytest

from facial_keypoints.detector import KeypointDetector
from facial_keypoints.drawing import draw_axes
from facial_keypoints.effects import align_face, blur_face, wear_glasses
from facial_keypoints.layouts import load_layout
from facial_keypoints.head import affine_residual, mean_head
from facial_keypoints.pose import (
    angles_of,
    eye_openness,
    head_pose,
    mouth_openness,
    rotation_of,
    sight_rotation,
)
from scripts.measure_head import factorize, leveled, upright
from research.synthetic.faces import draw_scene
from detector_architectures import haar

FLIP_INDICES = load_layout().flip_indices


def project(shape, rotation, distance, focal, size=(480, 640), center=(0.0, 0.0)):
    """A head (68, 3) -> keypoints (68, 2) as a pinhole camera sees it."""
    seen = shape @ rotation.T + [*center, distance]
    return focal * seen[:, :2] / seen[:, 2:] + (np.array(size[::-1]) - 1) / 2


def seen_at(angles, place):
    """The rotation (3, 3) of a head at `place` (3,) whose angles are relative to the line of
    sight."""
    return sight_rotation(np.float64(place)) @ rotation_of(*angles)


def random_heads(n, seed=0):
    """Heads of other shapes than ours, in poses to ±30 degrees, before cameras of any focal length,
    with noise."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        shape = mean_head() * rng.normal(1, 0.06, 3) + rng.normal(0, 0.02, (68, 3))
        angles = rng.uniform(-30, 30, 3)
        focal = 640 * rng.uniform(0.7, 2.5)
        distance = focal / rng.uniform(40, 150)  # 40 to 150 px between the eyes
        place = rng.uniform(-0.2, 0.2, 2) * distance
        points = project(shape, seen_at(angles, (*place, distance)), distance, focal, center=place)
        yield angles, points + rng.normal(0, 0.015, (68, 2)) * focal / distance


def test_angles_and_rotations_are_inverses():
    rng = np.random.default_rng(0)
    for angles in rng.uniform(-80, 80, (50, 3)):
        rotation = rotation_of(*angles)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(angles_of(rotation), angles, atol=1e-9)


def test_the_signs_are_as_said():
    """Yaw > 0: the nose moves to the viewer's right; pitch > 0: down; roll > 0: the viewer's right
    eye moves down."""
    nose = [(rotation_of(*a) @ mean_head()[30])[:2] for a in ((20, 0, 0), (0, 20, 0))]
    assert nose[0][0] > 0.1 and nose[1][1] > (mean_head()[30])[1]
    assert (rotation_of(0, 0, 20) @ mean_head()[45])[1] > 0.1


def test_the_pose_of_the_mean_head_is_exact():
    for angles in ((0, 0, 0), (25, -10, 5), (-30, 30, -30)):
        points = project(mean_head(), seen_at(angles, (0.5, -0.4, 6)), 6, 900, center=(0.5, -0.4))
        pose = head_pose(points, (480, 640), focal=900)
        np.testing.assert_allclose((pose.yaw, pose.pitch, pose.roll), angles, atol=0.05)
        np.testing.assert_allclose(pose.translation, (0.5, -0.4, 6), atol=0.05)


def test_poses_of_other_heads_are_right_to_three_degrees():
    errors = []
    for angles, points in random_heads(200):
        pose = head_pose(points)
        errors.append(np.abs(np.array([pose.yaw, pose.pitch, pose.roll]) - angles))
    assert (np.median(errors, axis=0) < 3).all(), np.median(errors, axis=0)


def test_the_mean_head_comes_back_from_its_projections():
    rng = np.random.default_rng(0)
    points = np.stack(
        [
            project(mean_head(), rotation_of(*rng.uniform(-40, 40, 3)), 500, 500 * 50)
            for _ in range(200)
        ]
    )
    shape = factorize(points + rng.normal(0, 0.3, points.shape), FLIP_INDICES)
    np.testing.assert_allclose(shape, upright(mean_head()), atol=0.03)


def test_the_mean_head_is_leveled():
    rng = np.random.default_rng(0)
    poses = [rotation_of(*rng.uniform(-10, 10, 3)) for _ in range(100)]
    points = np.stack([project(mean_head(), pose, 500, 500 * 50) for pose in poses])
    np.testing.assert_allclose(leveled(upright(mean_head()), points), mean_head(), atol=0.05)


def test_the_pose_does_not_depend_on_the_position(hopper):
    """The same face in nine places of a wide frame, found anew in each."""
    image, detector = cv2.resize(hopper[1], (256, 300)), KeypointDetector()
    angles = []
    for left in (0, 320, 640):
        for top in (0, 150, 300):
            frame = np.full((600, 896, 3), 127, np.uint8)
            frame[top : top + 300, left : left + 256] = image
            (face,) = detector(frame)
            pose = head_pose(face.points)
            angles.append([pose.yaw, pose.pitch, pose.roll])
    assert (np.ptp(angles, axis=0) < 3).all(), np.ptp(angles, axis=0)
    assert (np.abs(angles) < 15).all(), "the portrait looks nearly into the camera"


def test_the_mean_head_is_symmetric_with_its_nose_in_front():
    head = mean_head()
    np.testing.assert_allclose(head[FLIP_INDICES] * [-1, 1, 1], head, atol=1e-3)
    assert head[30, 2] < head[[36, 45, 48, 54, 8], 2].min() and head[0, 2] > head[36, 2]
    assert np.linalg.norm(head[36] - head[45]) == pytest.approx(1, abs=1e-3)


def test_openness_grows_as_lids_and_lips_part():
    shut = mean_head()[:, :2].copy()
    shut[[41, 40, 47, 46]] = shut[[37, 38, 43, 44]]
    shut[[67, 66, 65]] = shut[[61, 62, 63]]
    assert eye_openness(shut).max() < 1e-6 and mouth_openness(shut) < 1e-6
    wide = shut.copy()
    wide[[41, 40, 47, 46, 67, 66, 65], 1] += 0.1
    assert (eye_openness(wide) > 0.3).all() and mouth_openness(wide) > 0.15
    np.testing.assert_allclose(
        eye_openness(np.stack([shut, wide * 7])), eye_openness(np.stack([shut, wide]))
    )


@pytest.fixture(scope="module")
def hopper_face(hopper):
    return hopper[1], KeypointDetector()(hopper[1])[0].points


def test_aligned_faces_have_level_eyes_at_their_place(hopper_face):
    image, points = hopper_face
    tilt = np.array([[0.94, -0.34], [0.34, 0.94]])
    face, inside = align_face(image, points @ tilt.T + 100, 128)
    assert face.shape == (128, 128, 3)
    left, right = inside[36:42].mean(0), inside[42:48].mean(0)
    np.testing.assert_allclose(right - left, (0.4 * 128, 0), atol=0.1)
    np.testing.assert_allclose((left + right) / 2, (63.5, 0.35 * 128), atol=0.1)


def test_glasses_darken_the_eyes_and_nothing_far_away(hopper_face):
    image, points = np.full_like(hopper_face[0], 200), hopper_face[1]
    worn = image.copy()
    wear_glasses(worn, points)
    eyes = points[[*range(36, 48)]].mean(0).astype(int)
    x, y = points[36:42].mean(0).astype(int)
    eye = np.s_[y - 3 : y + 4, x - 3 : x + 4]
    assert worn[eye].mean() < 0.7 * image[eye].mean()
    far = np.ones(image.shape[:2], bool)
    size = int(np.ptp(points, axis=0).max())
    far[max(eyes[1] - size, 0) : eyes[1] + size, max(eyes[0] - size, 0) : eyes[0] + size] = False
    np.testing.assert_array_equal(worn[far], image[far])


def test_blurred_faces_are_not_found_again(hopper, command, tmp_path):
    crowd, _ = draw_scene(seed=5, faces=8, width=1050, height=600)
    cv2.imwrite(str(tmp_path / "crowd.png"), crowd[..., ::-1])
    (tmp_path / "hopper.jpg").write_bytes(hopper[0].read_bytes())
    done = command("pipeline.py", tmp_path, "--draw", tmp_path / "hidden", "--style", "blur")
    assert done.stdout == "crowd.png: 8 faces\nhopper.jpg: 1 face\n", done.stderr
    lines = command("pipeline.py", tmp_path / "hidden").stdout.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "crowd.png: 0 faces",
        "hopper.jpg: 0 faces",
    ]


def test_a_hidden_face_is_not_found_again(hopper_face):
    image, points = hopper_face
    hidden = image.copy()
    blur_face(hidden, points)
    assert len(KeypointDetector(detector=haar.Detector())(hidden)) == 0
    assert np.abs(hidden.astype(int) - image).mean() > 2
    outside = points + [4 * np.ptp(points), 0]
    blur_face(hidden, outside)  # a face beyond the border is no reason to fail


def test_axes_are_drawn_at_the_nose(hopper_face):
    image, points = hopper_face
    drawn = image.copy()
    draw_axes(drawn, head_pose(points))
    changed = np.argwhere((drawn != image).any(-1))[:, ::-1]
    assert np.linalg.norm(changed - points[30], axis=1).min() < 4
    assert len(changed) > 50


def test_heads_look_like_heads_from_anywhere_and_noise_does_not():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rotation = rotation_of(*rng.uniform(-40, 40, 3))
        seen = (mean_head() @ rotation.T)[:, :2] * rng.uniform(10, 300) + rng.uniform(0, 999, 2)
        assert affine_residual(seen) < 1e-6
    noise = rng.normal(0, 1, (50, 68, 2))
    assert (affine_residual(noise) > 0.9).all()
    assert affine_residual(np.zeros((68, 2))) == 0
