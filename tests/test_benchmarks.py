"""The benchmarks measure what they say: conditions move points with their pixels, calibration finds
what was put in."""

import inspect

import numpy as np
import pytest
import torch
from conftest import one_line_error

from facial_keypoints.detector import Face
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box
from research.networks.registry import forward_with_confidence
from benchmarks import robustness, variants
from benchmarks.confidence import calibration, recalibrated
from benchmarks.whole_images import under_moved_boxes


@pytest.mark.parametrize("name", ["few pixels", "rolled 45°"])
def test_conditions_move_points_and_pixels_alike(name):
    """A bright disc on the first keypoint is found where the moved keypoint says."""
    y, x = np.mgrid[:240, :200]
    points = np.random.default_rng(0).uniform((40, 60), (160, 180), (68, 2)).astype(np.float32)
    image = (255 * np.exp(-((x - points[0, 0]) ** 2 + (y - points[0, 1]) ** 2) / 200)).astype(
        np.uint8
    )
    moved, new = robustness.CONDITIONS[name](image, points, np.random.default_rng(1))
    weights = moved.astype(float) ** 2
    y, x = np.mgrid[: moved.shape[0], : moved.shape[1]]
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
        crop = crop_image(
            gray.round().astype(np.uint8), crop_matrix(tight_box(tiny.points[0]), 64), 64
        )
        assert np.abs(crops[0, 0].numpy() * 255 - crop).mean() < 1


def test_boxes_that_miss_miss_by_fifteen_percent(tiny):
    frames = tiny.select(np.arange(6))
    matrices = [
        robustness.crops_under(name, frames, 64)[1] for name in ("unchanged", "boxes 15 % off")
    ]
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


def test_names_are_checked_before_data(command):
    for script in ("robustness", "confidence"):
        assert "no network" in one_line_error(command(f"benchmarks/{script}.py", "models77"), 2)
