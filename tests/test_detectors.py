"""Every file in detector_architectures/ keeps the contract; the default finds drawn and real
faces."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from facial_keypoints.detectors import detector_names, from_landmarks, load_detector, to_tight
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import overlap, tight_box
from facial_keypoints.head import yaw_estimate
from detector_architectures import haar, yunet


@pytest.mark.parametrize("name", detector_names())
def test_every_detector_gives_boxes_and_scores(name, hopper):
    _, image = hopper
    try:
        detector = load_detector(name)
    except DataError as error:
        assert name in ("yunet", "mediapipe")
        pytest.skip(f"optional: {error}")
    for picture in (image, image[..., 1].copy()):
        boxes, scores, rolls = detector.detect(picture)
        assert (
            boxes.shape == (len(boxes), 4)
            and boxes.dtype == np.float32
            and scores.shape == (len(boxes),)
        )
        assert ((scores >= 0) & (scores <= 1)).all()
        assert rolls is None or rolls.shape == scores.shape
    nothing, *_ = detector.detect(np.zeros((60, 60, 3), np.uint8))
    assert len(nothing) == (name == "whole")


def test_optional_detectors_say_in_one_line_what_they_need(monkeypatch, tmp_path):
    monkeypatch.setenv("YUNET_ONNX", str(tmp_path / "none.onnx"))
    with pytest.raises(DataError, match=r"python -m detector_architectures\.yunet"):
        load_detector("yunet")
    (tmp_path / "none.onnx").write_bytes(b"other weights")
    with pytest.raises(DataError, match="sha256"):
        load_detector("yunet")
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions", None)
    with pytest.raises(DataError, match="pip install mediapipe"):
        load_detector("mediapipe")


class BrightSpot(torch.nn.Module):
    """In the form of YuNet: sure of a face at the 8-pixel cell that is bright, with five landmarks
    around it."""

    def forward(self, image):
        outputs = []
        for stride in (8, 16, 32):
            bright = torch.nn.functional.avg_pool2d(image, stride).mean(1, keepdim=True) / 255
            # (1, cells, 1)
            sure = (bright if stride == 8 else 0 * bright).flatten(2).transpose(1, 2)
            # in cells: eyes, nose, corners of the mouth
            landmarks = torch.tensor([-2.0, -2, 2, -2, 0, 0, -1.5, 2, 1.5, 2])
            outputs.append(
                (
                    sure,
                    sure,
                    0 * sure.expand(-1, -1, 4) + 1,
                    0 * sure.expand(-1, -1, 10) + landmarks,
                )
            )
        return tuple(output for kind in zip(*outputs, strict=True) for output in kind)


@pytest.mark.filterwarnings("ignore")  # of tracing, which is as it should be here
@pytest.mark.parametrize("size", [(320, 320), (200, 330), (1300, 2600)])
def test_yunet_boxes_are_in_pixels_of_the_photo(size, tmp_path, monkeypatch):
    """With a network of its form in the place of its weights, which cannot be fetched
    everywhere."""
    pytest.importorskip("onnx", reason="optional: pip install onnx")
    path = tmp_path / "spot.onnx"
    torch.onnx.export(
        BrightSpot(),
        (torch.zeros(1, 3, 320, 320),),
        str(path),
        dynamo=False,
        opset_version=11,
        input_names=["input"],
        dynamic_axes={"input": [2, 3]},
        output_names=[
            f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)
        ],
    )
    monkeypatch.setenv("YUNET_ONNX", str(path))
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    image, scale = np.zeros((*size, 3), np.uint8), max(max(size) / 1280, 1)
    top, left, cell = round(80 * scale), round(160 * scale), round(8 * scale)
    image[top : top + cell, left : left + cell] = 255
    boxes, scores, _ = load_detector("yunet").detect(image)
    assert len(boxes) == 1 and scores[0] > 0.9
    np.testing.assert_allclose(boxes[0, :2] + boxes[0, 2:] / 2, (left, top), atol=1.5 * cell)
    assert 4 * cell < boxes[0, 2] < 12 * cell


def test_five_landmarks_give_the_box_of_the_68(tiny):
    """To a tenth of its size on faces that look ahead, however they are tilted."""
    ahead = np.abs(yaw_estimate(tiny.points)) < 0.1
    turn = np.array([[0.9, -0.44], [0.44, 0.9]])
    for points in (tiny.points[ahead], tiny.points[ahead] @ turn.T):
        five = np.stack(
            [
                points[:, 36:42].mean(1),
                points[:, 42:48].mean(1),
                *points[:, [30, 48, 54]].swapaxes(0, 1),
            ],
            1,
        )
        boxes, truth = from_landmarks(five), tight_box(points)
        shares = [overlap(box[None], true)[0] for box, true in zip(boxes, truth, strict=True)]
        assert np.median(shares) > 0.8


def test_haar_finds_exactly_one_face_on_the_portrait(hopper):
    boxes, *_ = load_detector("haar").detect(hopper[1])
    assert len(boxes) == 1
    eyes = haar.find_parts(hopper[1], boxes[0])
    assert len(eyes) >= 1 and (eyes[:, 1] > boxes[0, 1]).all()


def test_haar_finds_synthetic_faces_and_its_fit_is_tight(tiny):
    detector = load_detector("haar")
    overlaps = []
    for row in range(0, len(tiny), 2):
        truth = tight_box(tiny.points[row])
        boxes = to_tight(detector.detect(tiny.image(row))[0], detector.fit)
        low, high = (
            np.maximum(boxes[:, :2], truth[:2]),
            np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:2] + truth[2:]),
        )
        both = np.clip(high - low, 0, None).prod(1)
        overlaps.append(max(both / (boxes[:, 2:].prod(1) + truth[2:].prod() - both), default=0))
    overlaps = np.array(overlaps)
    assert (overlaps > 0.5).mean() > 0.85 and np.median(overlaps) > 0.75


def test_boxes_of_large_photos_are_in_their_pixels(hopper):
    large = cv2.resize(hopper[1], None, fx=4, fy=4)
    small, big = (
        max(load_detector("haar").detect(image)[0], key=lambda box: box[2])
        for image in (hopper[1], large)
    )
    np.testing.assert_allclose(big / 4, small, atol=0.1 * small[2])


def test_profile_boxes_are_mirrored_back(monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (80, 120), dtype=np.uint8)
    detector = load_detector("haar_profile")

    class OneCorner:
        def detectMultiScale3(self, gray, *arguments, **options):
            return np.array([[5, 6, 20, 30]]), None, np.array([1.0])

    monkeypatch.setattr(haar, "load_cascade", lambda file: OneCorner())
    boxes, _ = detector.search(image, 1.1)
    assert sorted(boxes.tolist()) == [[5, 6, 20, 30], [95, 6, 20, 30]]


def test_a_profile_that_is_found_once_is_a_box(monkeypatch):
    class OneSide:
        def __init__(self):
            self.calls = 0

        def detectMultiScale3(self, gray, *arguments, **options):
            self.calls += 1
            found = self.calls == 1  # not in the mirrored image
            return np.array([[5, 6, 20, 30]])[:found], None, np.array([-1.0])[:found]

    one_side = OneSide()
    monkeypatch.setattr(haar, "load_cascade", lambda file: one_side)
    boxes, weights = load_detector("haar_profile").search(np.zeros((80, 120), np.uint8), 1.1)
    assert boxes.tolist() == [[5, 6, 20, 30]] and weights.tolist() == [-1.0]


@pytest.mark.parametrize("name", ["haar", "haar_alt2", "haar_profile"])
def test_an_opencv_without_cascades_is_reported_with_its_cure(name):
    """As OpenCV 5, in a process of its own: the class is missing before anything is imported."""
    script = (
        "import sys, cv2; del cv2.CascadeClassifier; "
        "from facial_keypoints.errors import DataError; "
        "from facial_keypoints.detectors import load_detector\n"
        "try: load_detector(sys.argv[1])\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True)
    assert "opencv-python>=4.10,<5" in done.stdout, done.stderr


def test_names_must_be_present():
    for name in ("yolo", "../haar", "__init__"):
        with pytest.raises(UsageError, match="present are haar"):
            load_detector(name)


def test_the_fit_moves_and_scales():
    box = to_tight(np.float32([[10, 20, 100, 200]]), (0.1, -0.1, 0.5, 0.25))
    np.testing.assert_allclose(box, [[60 + 10 - 25, 120 - 20 - 25, 50, 50]])
    assert to_tight(np.zeros((0, 4), np.float32), (0, 0, 1, 1)).shape == (0, 4)
