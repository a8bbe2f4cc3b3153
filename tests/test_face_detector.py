"""The face detector with a network of its own: its training scenes, its targets, and what the
shipped weights find."""

import cv2
import numpy as np
import pytest
import torch

from detector_architectures import pyramid
from detector_architectures.pyramid import LARGEST, SMALLEST, STRIDE, UNIT, Detector, levels
from facial_keypoints.detectors import load_detector
from facial_keypoints.errors import DataError
from facial_keypoints.geometry import overlap
from facial_keypoints.head import level_boxes
from research.face_detector.training import (
    FaceNet,
    HardScenes,
    cell_targets,
    detector_loss,
    export_detector,
)
from research.face_detector.scenes import SIDE, Canvas, FaceScenes, Placed, placing
import itertools


def placed(center, size, roll=0.0, covered=0.0):
    return Placed(
        np.array([center], float), np.array([size], float), np.array([roll]), np.array([covered])
    )


def test_targets_of_a_cell_give_the_face_back():
    face = placed((61.0, 49.0), (30.0, 36.0), roll=25.0)
    targets = cell_targets(face)
    rows, columns = np.nonzero(targets[0])
    assert len(rows) and targets[7, rows, columns].all()
    x, y, width, height, cos, sin = targets[1:7, rows, columns]
    centers = STRIDE * np.stack([columns + x, rows + y], -1) + (STRIDE - 1) / 2
    np.testing.assert_allclose(centers, np.broadcast_to(face.centers, centers.shape), atol=1e-4)
    np.testing.assert_allclose(UNIT * np.exp([width[0], height[0]]), face.sizes[0], rtol=1e-5)
    np.testing.assert_allclose(np.degrees(np.arctan2(sin, cos)), 25, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "covered", "faces", "counts"),
    [
        (SMALLEST - 1, 0.0, False, False),
        (LARGEST + 1, 0.0, False, False),
        (8.0, 0.0, False, True),
        (30.0, 0.5, False, False),
        (30.0, 0.9, False, True),
        (30.0, 0.3, True, True),
    ],
)
def test_what_is_nearly_a_face_does_not_count(size, covered, faces, counts):
    targets = cell_targets(placed((60.0, 60.0), (size, size), covered=covered))
    middle = int(60 // STRIDE)
    assert targets[0].any() == faces and bool(targets[7, middle, middle]) == counts


def test_what_is_pasted_over_a_face_covers_it():
    canvas = Canvas()
    canvas.add_face(np.array([64.0, 64.0]), np.array([40.0, 40.0]), 30.0)
    assert canvas.placed().covered[0] == 0
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[:, :64] = 1
    canvas.paste(np.full((10, 10), 7, np.float32), placing(np.zeros(2), np.zeros(2), 1, 0), mask)
    assert 0.4 < canvas.placed().covered[0] < 0.6
    assert (canvas.image[:, :64] == 7).all() and not canvas.image[:, 64:].any()


def test_scenes_depend_on_the_seed_alone_and_hold_faces(tiny):
    scenes = FaceScenes(tiny.select(np.arange(6)), bar=False)
    found = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        found.append([scenes(rng) for _ in range(20)])
    for (one, faces), (other, _) in zip(*found, strict=True):
        assert one.shape == (SIDE, SIDE) and one.dtype == np.uint8 and (one == other).all()
        assert ((faces.covered >= 0) & (faces.covered <= 1)).all()
    assert any(cell_targets(faces)[0].any() for _, faces in found[0])


def test_the_network_learns_and_is_exported(tiny, tmp_path, monkeypatch):
    from research.face_detector.training import train_detector

    torch.manual_seed(0)
    scenes = FaceScenes(tiny.select(np.arange(8)), turned=0, bar=False)
    rng = np.random.default_rng(1)
    some = [scenes(rng) for _ in range(16)]
    images = torch.from_numpy(np.stack([image for image, _ in some])[:, None]).float() / 255
    targets = torch.from_numpy(np.stack([cell_targets(faces) for _, faces in some]))
    net = FaceNet((8, 16, 24), depth=2)
    before = detector_loss(net(images), targets).item()
    net = train_detector(net, scenes, steps=40, batch=8, workers=0, bar=False, negatives=2)
    assert detector_loss(net(images), targets).item() < before
    export_detector(net, tmp_path / "own.onnx", {"data": "sample"})
    monkeypatch.setattr(pyramid, "WEIGHTS", tmp_path / "own.onnx")
    session = Detector().session
    for size in ((SIDE, SIDE), (40, 200), (STRIDE, STRIDE)):
        image = torch.rand(1, 1, *size)
        cells = session.run(["cells"], {"images": image.numpy()})[0]
        maps = net(image).detach()
        maps[:, 0] = maps[:, 0].sigmoid()
        assert np.abs(cells - maps.numpy()).max() < 0.02  # weights are stored as fp16
    data = bytearray((tmp_path / "own.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "own.onnx").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        Detector()


def test_scenes_with_a_false_face_are_seen_again():
    cells = SIDE // STRIDE
    images = torch.rand(5, 1, SIDE, SIDE)
    targets = torch.zeros(5, 9, cells, cells)
    targets[:, 7:] = 1
    maps = torch.full((5, 7, cells, cells), -5.0)
    maps[1:, 0, 3, 5] = 1.0
    targets[2, 8, 3, 5] = 0  # near a face
    maps[3, 0, 8, 8] = 5.0  # probably a face without a label
    targets[4, 8] = 0  # faces everywhere
    hard = HardScenes(size=3)
    assert len(hard.draw(8, torch.Generator())[0]) == 0
    hard.add(maps, images, targets)
    again, known = hard.draw(8, torch.Generator().manual_seed(0))
    assert len(known) == 1 and (known == targets[1]).all()
    light = again[0] / images[1]
    assert 0.84 <= light.min() and light.max() <= 1.16 and again.max() <= 1
    for _ in range(4):  # only the last ones are kept
        hard.add(maps, images, targets)
    assert len(hard.images) == len(hard.targets) == 3
    assert len(hard.draw(2, torch.Generator())[1]) == 2


def test_no_face_is_expected_near_a_covered_one():
    clear = cell_targets(placed((60.0, 60.0), (40.0, 30.0), covered=0.9))[8]
    assert not clear[7, 5:10].any() and clear[0].all() and clear[7, 0] and clear[7, -1]


def test_the_fallback_searches_for_more_with_the_same_network():
    first = Detector()
    fallback = first.fallback
    assert fallback.session is first.session and not fallback.portraits
    assert fallback.fallback is None and first.portraits


def test_levels_reach_from_the_smallest_face_to_the_largest():
    gray = np.zeros((301, 500), np.uint8)
    sizes = [(level.shape, ratio) for level, ratio in levels(gray, 0.8)]
    assert all(side % STRIDE == 0 for shape, _ in sizes for side in shape)
    ratios = [ratio[0] for _, ratio in sizes]
    assert abs(ratios[0] - 0.8) < 0.01 and 500 * ratios[-1] <= LARGEST * 1.02
    assert all(1.8 < a / b < 2.2 for a, b in itertools.pairwise(ratios))


@pytest.mark.parametrize("angle", [0, 40, -60])
@pytest.mark.parametrize("scale", [0.3, 1, 2.5])
def test_the_shipped_weights_find_a_real_face_with_its_roll(hopper, angle, scale):
    _, image = hopper
    from facial_keypoints.detector import KeypointDetector

    (face,) = KeypointDetector()(image)
    box, roll = level_boxes(face.points[None])
    center = tuple((np.array(image.shape[1::-1]) - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, -angle, scale)
    size = np.array(image.shape[1::-1]) * scale
    matrix[:, 2] += (size - 1) / 2 - center
    turned = cv2.warpAffine(image, matrix, size.astype(int).tolist(), flags=cv2.INTER_AREA)
    boxes, scores, rolls = load_detector("pyramid").detect(turned)
    middle = matrix @ [*(box[0, :2] + box[0, 2:] / 2), 1]
    expected = np.concatenate([middle - box[0, 2:] * scale / 2, box[0, 2:] * scale])
    shares = overlap(boxes, expected)
    best = shares.argmax()
    assert shares[best] > 0.6 and scores[best] > 0.5
    assert abs((rolls[best] - roll[0] - angle + 180) % 360 - 180) < 15
