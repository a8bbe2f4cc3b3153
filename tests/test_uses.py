"""Uses of keypoints: poses of heads whose pose is known, openness, glasses that sit, faces that are
hidden."""

import cv2
import numpy as np
import pytest

from facial_keypoints.alignment import ARCFACE, align_face
from facial_keypoints.arrays import stack, to_supervision
from facial_keypoints.detector import Face, KeypointDetector
from facial_keypoints.drawing import draw_axes
from facial_keypoints.effects import blur_face, wear_glasses
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.layouts import convert_points, load_layout
from facial_keypoints.openness import (
    EYE_OPEN,
    EYE_SHUT,
    LEFT_EYE,
    LIPS,
    MOUTH_OPEN,
    MOUTH_SHUT,
    RIGHT_EYE,
    BlinkCounter,
    eyes_open,
    mouth_open,
)
from facial_keypoints.head import affine_residual, mean_head
from facial_keypoints.pose import (
    angles_of,
    head_pose,
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


def head_with(eyes=0.0, mouth=0.0):
    """The mean head (68, 3) with lids and inner lips that are so far apart, in inter-ocular
    distances."""
    head = mean_head().copy()
    for pairs, gap in ((RIGHT_EYE, eyes), (LEFT_EYE, eyes), (LIPS, mouth)):
        for above, below in pairs:
            middle = (head[above] + head[below]) / 2
            head[above], head[below] = middle - [0, gap / 2, 0], middle + [0, gap / 2, 0]
    return head


@pytest.mark.parametrize("yaw", [0, 40, 70])
@pytest.mark.parametrize("pitch", [-20, 0, 20])
def test_openness_is_that_of_the_head_whichever_way_it_is_turned(yaw, pitch):
    """0 for the gap of closed eyes, 1 for that of the median open eye."""
    turn = rotation_of(yaw, pitch, 15)
    for value, gap in ((0, EYE_SHUT), (1, EYE_OPEN)):
        seen = (head_with(gap, MOUTH_SHUT) @ turn.T)[:, :2] * 80 + 300
        assert eyes_open(seen) == pytest.approx(np.full(2, value), abs=0.15)
        assert mouth_open(seen) == pytest.approx(0, abs=0.02)
    seen = (head_with(EYE_OPEN, MOUTH_OPEN) @ turn.T)[:, :2] * 80
    assert mouth_open(seen) == pytest.approx(1, abs=0.15)
    both = eyes_open(np.stack([seen, 3 * seen]))
    np.testing.assert_allclose(both[0], both[1])


def test_other_layouts_have_openness_where_they_have_lids_and_lips():
    seen = head_with(EYE_OPEN, 0.3)[:, :2] * 100
    wflw = convert_points(seen, "ibug68", "wflw98")
    assert np.isnan(eyes_open(seen[:5], "five")).all() and np.isnan(mouth_open(seen[:5], "five"))
    face = Face(
        np.zeros(4), seen, 1.0, point_visibility=np.r_[np.ones(42), np.zeros(6), np.ones(20)]
    )
    assert face.eyes_open[0] == pytest.approx(1, abs=0.01) and np.isnan(face.eyes_open[1])
    assert face.mouth_open == pytest.approx(mouth_open(seen))
    assert wflw.shape == (98, 2)


def test_blinks_are_counted_once_and_long_closures_are_no_blinks():
    counter, rate = BlinkCounter(), 25
    rng = np.random.default_rng(0)
    openness = np.ones(40 * rate)
    for start in (2, 5, 9.5):  # three blinks of 0.2 s
        openness[int(start * rate) : int((start + 0.2) * rate)] = 0
    openness[20 * rate : 23 * rate] = 0.1  # asleep
    noisy = openness[:, None] + rng.normal(0, 0.1, (len(openness), 2))
    ended = [counter(eyes, frame / rate) for frame, eyes in enumerate(noisy)]
    assert counter.blinks == sum(ended) == 3
    assert counter.closed_share() == pytest.approx((openness < 0.5).mean(), abs=0.01)
    assert not counter(np.full(2, np.nan), 41) and counter.blinks == 3
    with pytest.raises(UsageError):
        BlinkCounter(closed=0.5, opened=0.4)


@pytest.fixture(scope="module")
def hopper_face(hopper):
    return hopper[1], KeypointDetector()(hopper[1])[0].points


def test_aligned_faces_have_their_points_at_the_template(hopper_face):
    image, points = hopper_face
    turn = np.array([[0.94, -0.34], [0.34, 0.94]])
    turned = cv2.warpAffine(image, np.column_stack([turn, [150, 0]]), (700, 700))
    seen = points @ turn.T + [150, 0]
    for side in (112, 224):
        crop, matrix = align_face(turned, seen, side)
        assert crop.shape == (side, side, 3)
        five = convert_points(seen @ matrix[:, :2].T + matrix[:, 2], "ibug68", "five")
        away = np.linalg.norm(five - ((ARCFACE + 0.5) * side / 112 - 0.5), axis=1)
        assert away.max() < 0.06 * side
    _, matrix = align_face(turned, seen, 128, "eyes")
    inside = seen @ matrix[:, :2].T + matrix[:, 2]
    right, left = inside[36:42].mean(0), inside[42:48].mean(0)
    np.testing.assert_allclose(left - right, (0.4 * 128, 0), atol=0.1)
    np.testing.assert_allclose((left + right) / 2, (63.5, 0.35 * 128), atol=0.1)


def test_a_crop_of_ffhq_is_the_quadrangle_of_its_program(hopper_face):
    """The formula as FFHQ's download program has it, with corners instead of a matrix."""
    image, points = hopper_face
    eyes = (points[36:42].mean(0) + points[42:48].mean(0)) / 2
    across = points[42:48].mean(0) - points[36:42].mean(0)
    down = (points[48] + points[54]) / 2 - eyes
    x = across - np.flipud(down) * [-1, 1]
    x *= max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8) / np.hypot(*x)
    y, center = np.flipud(x) * [-1, 1], eyes + 0.1 * down
    _, matrix = align_face(image, points, 256, "ffhq")
    corners = np.stack([center - x - y, center + x - y, center + x + y, center - x + y])
    inside = corners @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(
        inside, np.array([[0, 0], [256, 0], [256, 256], [0, 256]]) - 0.5, atol=1e-3
    )


def test_crops_beyond_the_border_are_black_or_mirrored(hopper_face):
    image, points = hopper_face
    cut = image[: int(points[33, 1])]
    low = np.s_[-8:, 100:150]
    assert align_face(cut, points, 256, "arcface")[0][-2:, 100:150].max() == 0
    assert align_face(cut, points, 256, "ffhq")[0][low].min() >= 0
    assert align_face(cut, points, 256, "ffhq")[0][low].max() > 20
    for template in ("arcface", "ffhq", "eyes"):
        with pytest.raises(DataError, match="coincide"):
            align_face(image, np.full((68, 2), 50.0), 112, template)
    with pytest.raises(UsageError, match="arcface, ffhq, eyes"):
        align_face(image, points, 112, "passport")
    face = Face(np.zeros(4), points, 1.0)
    crop, matrix = face.aligned(image)
    assert crop.shape == (112, 112, 3) and matrix.shape == (2, 3)


def test_faces_are_stacked_and_go_to_other_packages(hopper_face):
    face = Face(np.arange(4.0), hopper_face[1], 0.9, point_confidence=np.full(68, 0.8))
    arrays = stack([face, face])
    assert arrays.boxes.shape == (2, 4) and arrays.points.shape == (2, 68, 2)
    assert arrays.confidence.shape == (2,) and np.isnan(arrays.visibility).all()
    assert [len(array) for array in stack([])] == [0] * 6
    other = Face(np.zeros(4), np.zeros((5, 2)), 1.0, layout=load_layout("five"))
    with pytest.raises(UsageError, match="one layout"):
        stack([face, other])
    pytest.importorskip("supervision", reason="needs supervision")
    found = to_supervision([face])
    np.testing.assert_allclose(found.xy[0], face.points)
    assert len(to_supervision([])) == 0


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
