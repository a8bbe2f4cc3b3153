"""The benchmarks measure what they say: conditions move points with their pixels, calibration finds
what was put in."""

import inspect

import numpy as np
import pytest
import torch
from conftest import moves_of_mirror_images, one_line_error

from facial_keypoints.detector import Face
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box
from research.networks import forward_with_confidence
from benchmarks import details, robustness, variants
from benchmarks.confidence import calibration, recalibrated
from benchmarks.pipeline import under_moved_boxes


@pytest.mark.parametrize("name", ["few pixels", "rolled 45°"])
def test_conditions_move_points_and_pixels_alike(name):
    """A bright disc on the first keypoint is found where the moved keypoint says."""
    y, x = np.mgrid[:240, :200]
    points = np.random.default_rng(0).uniform((40, 60), (160, 180), (68, 2)).astype(np.float32)
    image = (255 * np.exp(-((x - points[0, 0]) ** 2
                            + (y - points[0, 1]) ** 2) / 200)).astype(np.uint8)
    moved, new = robustness.CONDITIONS[name](image, points, np.random.default_rng(1))
    weights = moved.astype(float) ** 2
    y, x = np.mgrid[:moved.shape[0], :moved.shape[1]]
    center = [(x * weights).sum() / weights.sum(), (y * weights).sum() / weights.sum()]
    np.testing.assert_allclose(center, new[0], atol=0.3)


@pytest.mark.parametrize("name", robustness.ALL_CONDITIONS)
def test_conditions_give_crops_with_the_face_in_them(name, tiny):
    crops, matrices, truth, visible = robustness.crops_under(name, tiny.select(np.arange(6)), 64)
    assert visible.all() == ("rendered" not in name) and visible.mean() > 0.5
    assert crops.shape == (6, 1, 64, 64) and 0 <= crops.min() and crops.max() <= 1
    for matrix, points in zip(matrices, truth, strict=True):
        inside = points @ matrix[:, :2].T + matrix[:, 2]
        assert ((inside > -16) & (inside < 80)).all()
    if name == "unchanged":
        gray = tiny.image(0) @ np.array([0.299, 0.587, 0.114])
        crop = crop_image(gray.round().astype(np.uint8), crop_matrix(tight_box(tiny.points[0]), 64),
                          64)
        assert np.abs(crops[0, 0].numpy() * 255 - crop).mean() < 1


def test_boxes_that_miss_miss_by_fifteen_percent(tiny):
    frames = tiny.select(np.arange(6))
    matrices = [robustness.crops_under(name, frames, 64)[1]
                for name in ("unchanged", "boxes 15 % off")]
    moved = np.linalg.norm(matrices[0][:, :, 2] - matrices[1][:, :, 2], axis=1)
    np.testing.assert_allclose(moved, 0.15 * 64 / 1.25, rtol=1e-3)


VARIANTS = dict(inspect.getmembers(variants, inspect.isclass))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_learn_a_batch_with_a_crop_without_a_face(name):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net, images = VARIANTS[name](), torch.rand(4, 1, 128, 128, generator=generator)
    targets = torch.rand(4, 68, 2, generator=generator) * 1.6 - 0.8
    targets[3] = torch.nan
    optimizer, losses = torch.optim.Adam(net.parameters(), 3e-4), []
    for _ in range(6):
        losses.append(net.loss(images, targets))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert torch.isfinite(torch.stack(losses)).all() and losses[-1] < losses[0]
    predictions, confidence, *_ = forward_with_confidence(net.eval(), images)
    assert predictions.shape == (4, 68, 2) and ((confidence >= 0) & (confidence <= 1)).all()
    assert net(images).shape == (4, 136)


@pytest.mark.parametrize("name", ["Logarithm", "Flat", "Wing", "SoftWing"])
def test_costs_rise_with_the_distance_and_do_not_jump(name):
    distance = torch.linspace(0, 1, 20_001)
    steps = VARIANTS[name]().penalty(distance).diff()
    assert (steps >= 0).all() and steps.max() < 0.01


def test_calibration_finds_what_was_put_in():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 0.95, 50_000)
    right = rng.random(50_000) < confidence
    np.testing.assert_allclose(recalibrated(confidence, right), [1, 0], atol=0.05)
    doubled = 1 / (1 + (1 / confidence - 1) ** 2)  # twice the logit: overconfident
    np.testing.assert_allclose(recalibrated(doubled, right), [0.5, 0], atol=0.05)
    for mean, share, _, count in calibration(confidence, np.where(right, 0, 50)):
        assert abs(mean - share) < 4 * np.sqrt(mean * (1 - mean) / count)


def test_boxes_that_move_nothing_move_no_points(tiny):
    class Detector:
        """Predictions where it is asked to, wherever that is; or always the same."""
        def __init__(self, steady):
            self.steady = steady

        def predict_boxes(self, image, boxes):
            place = np.zeros(2) if self.steady else boxes[0, :2]
            return [Face(boxes[0], np.random.default_rng(0).random((68, 2)) * 50 + place, 1.0)]

    frames = tiny.select(np.arange(9))
    assert (under_moved_boxes(Detector(True), frames) == 0).all() and (
        under_moved_boxes(Detector(False), frames) > 1
    ).all()


@pytest.fixture
def heat_maps(face_targets):
    """Details by heat maps with random weights, and points of a face for two crops."""
    torch.manual_seed(0)
    return details.HeatMapDetails().eval(), face_targets


def test_heat_maps_move_points_by_their_shares(heat_maps, monkeypatch):
    """Parts as wholes, points within them to the side and in height, and the upper lip."""
    part, points = heat_maps
    together, aside, height, eyes, lip = part.moved
    placed = part.place(points)
    before = part.coordinates(points, *placed)
    wanted = before + 0.1 * torch.randn(before.shape)
    monkeypatch.setattr(part, "look", lambda *_: wanted)
    moved = part(torch.rand(2, 1, 128, 128), points)
    assert torch.equal(moved[:, :17], points[:, :17])
    found = part.coordinates(moved, *placed) - before
    lips = [part.points.index(point) for pair in part.lip for point in pair]
    for start, stop in part.ranges:
        away = (wanted - before)[:, start:stop]
        torch.testing.assert_close(found[:, start:stop].mean(1), together * away.mean(1))
        down = eyes if stop - start == 6 else height
        apart = (away - away.mean(1, keepdim=True)) * torch.tensor([aside, down])
        rows = [row for row in range(start, stop) if row not in lips]
        torch.testing.assert_close((found[:, start:stop] - found[:, start:stop].mean(
            1, keepdim=True))[:, [row - start for row in rows]],
            apart[:, [row - start for row in rows]])
    for upper, lower in zip(lips[::2], lips[1::2], strict=True):
        thicker = ((wanted - before)[:, lower] - (wanted - before)[:, upper])[:, 1]
        torch.testing.assert_close(found[:, lower, 1] - found[:, upper, 1], lip * thicker)


def test_heat_maps_see_a_mirrored_side_as_the_other(heat_maps):
    one, two = moves_of_mirror_images(*heat_maps)
    for rows in (slice(17, 27), slice(36, 48)):
        torch.testing.assert_close(one[:, rows], two[:, rows], atol=1e-5, rtol=0)
        assert one[:, rows].abs().max() > 0.001


def test_heat_maps_learn_nothing_from_crops_without_a_face(heat_maps):
    part, points = heat_maps
    loss = part.loss(torch.rand(2, 1, 128, 128), points * torch.nan, points)
    loss.backward()
    assert loss == 0 and all((p.grad == 0).all() for p in part.parameters())


def test_variants_of_details_are_trained_and_measured(tiny, tiny_zip, tmp_path, monkeypatch,
                                                      capsys):
    monkeypatch.setattr("train.labels_by_dlib", lambda frames, *_: frames)
    monkeypatch.setattr("sys.argv", ["details.py", "as shipped", "heat maps", "the same, points "
                                     "move more", "--net", "models5", "--epochs", "1", "--data",
                                     str(tiny_zip), "--out", str(tmp_path)])
    details.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("models5 ")]
    assert [row[8:40].strip() for row in rows] == ["without", "as shipped", "heat maps",
                                                   "the same, points move more"]
    nme = [float(row[41:].split()[0]) for row in rows]
    # hardly trained: heat maps move points, and by larger shares farther away
    assert len(set(nme)) == 4 and 0 < nme[0] < nme[2] < nme[3] < 15
    assert "21,112" in rows[2] and "21,112" in rows[3]  # one training for both
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 2


def test_names_are_checked_before_data(command):
    for script in ("robustness", "confidence"):
        assert "no network" in one_line_error(command(f"benchmarks/{script}.py", "models77"), 2)
