"""Checks of the exercises of the notebooks: `check(name, …)` says whether a solution is right, or
gives a hint."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from facial_keypoints.errors import UsageError
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box, to_targets
from facial_keypoints.images import to_gray
from facial_keypoints.pose import head_pose


PATIENCE = 60  # seconds: those of a slow machine that were ten


def check(name: str, solution: Any) -> None:
    """Print "right", with the score where there is one, or a hint."""
    if name not in CHECKS:
        raise UsageError(f"no exercise {name!r}; there are {', '.join(CHECKS)}")
    try:
        hint, score = CHECKS[name](solution)
    except Exception as error:  # of the reader's own code
        hint, score = f"it raises {type(error).__name__}: {error}", ""
    print(f"{name}: {'right' if not hint else f'not yet: {hint}'}{f' ({score})' if score else ''}")


def marked_sample() -> dict:
    """An image with one white pixel where all keypoints are."""
    image = np.zeros((40, 30), np.uint8)
    image[7, 12] = 255
    return {"image": image, "keypoints": np.full((68, 2), (12.0, 7.0))}


def follows(sample: dict) -> bool:
    """True if the white pixel is where the keypoints are."""
    x, y = np.round(sample["keypoints"][0]).astype(int)
    image = sample["image"]
    return 0 <= y < image.shape[0] and 0 <= x < image.shape[1] and image[y, x] == 255


def check_flip(transform: type) -> tuple[str, str]:
    sample = marked_sample()
    flipped = transform()(sample)
    if flipped["image"][40 - 1 - 7, 12] != 255:
        return "the image is not upside down: row 0 becomes the last row", ""
    if not follows(flipped):
        return "row y becomes row height - 1 - y, for the keypoints too", ""
    return "" if follows(sample) else "the sample that was given has changed: copy it", ""


def check_crop(crop: Callable) -> tuple[str, str]:
    found = crop(marked_sample(), 5, 2, 20)
    if found["image"].shape != (20, 20):
        return "the crop is not 20×20 pixels", ""
    return "" if follows(found) else "the first axis of an image is y, of a point x", ""


def check_yaw(estimate: Callable) -> tuple[str, str]:
    from research.datasets import load_frames

    points = load_frames("sample").points[::5]
    true = np.array([head_pose(face).yaw for face in points])
    guessed = np.array([float(estimate(face)) for face in points])
    score = abs(np.corrcoef(true, guessed)[0, 1])
    hint = "where is the nose between the two sides of the face?"
    return ("" if score > 0.95 else hint), f"correlation {score:.2f}, to beat: 0.95"


def check_wing(loss: Callable) -> tuple[str, str]:
    from research.training.losses import wing

    rng = torch.Generator().manual_seed(0)
    for scale in (0.01, 0.3, 2):
        a, b = (torch.randn(5, 68, 2, generator=rng) * scale for _ in range(2))
        if not torch.isclose(loss(a, b), wing(a, b), rtol=1e-3):
            return f"wrong for errors of about {scale}: a logarithm below 0.2, a line above", ""
    return "", ""


def check_nme(nme: Callable) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 68, 2)) * 20 * np.array([1, 2, 5, 9])[:, None, None]
    errors = rng.normal(size=truth.shape)
    eyes = np.linalg.norm(truth[:, 36] - truth[:, 45], axis=1)
    wanted = 100 * (np.linalg.norm(errors, axis=2).mean(1) / eyes).mean()
    found = float(np.mean(nme(truth + errors, truth)))
    hint = "each face has its own eye distance: divide before you average over faces"
    return ("" if abs(found - wanted) < 1e-6 * wanted else hint), ""


def check_small(build: Callable) -> tuple[str, str]:
    """build() -> a trained network for crops of 64 pixels."""
    from research.datasets import load_frames, split_frames
    from research.evaluation.metrics import point_errors
    from research.networks.registry import parameter_count, predict_all

    start = time.perf_counter()
    network = build()
    if (seconds := time.perf_counter() - start) > PATIENCE:
        return f"it took {seconds:.0f} seconds", ""
    test, side = split_frames(load_frames("sample"), "person", "test"), 64
    matrices = [crop_matrix(box, side) for box in tight_box(test.points)]
    crops = np.stack(
        [crop_image(to_gray(test.image(row)), m, side) for row, m in enumerate(matrices)]
    )
    images = torch.from_numpy(crops[:, None].astype(np.float32) / 255)
    truth = to_targets(test.points, np.stack(matrices), side)
    error = point_errors(predict_all(network, images)[0].numpy(), truth)
    count = parameter_count(network)
    score = f"{error.mean():.1f} %, {count:,} parameters"
    if count >= 200_000:
        return "too many parameters: which layer has most of them?", score
    return ("" if error.mean() < 7 else "a second block, smaller batches?"), score


def check_blinks(count: Callable) -> tuple[str, str]:
    cases = [
        ([1.0] * 10, 0, "open eyes do not blink"),
        ([1.0, 0.1, 1.0, 0.9, 0.0, 0.0, 1.0], 2, "two blinks: one of one frame, one of two"),
        ([1.0, 0.3, 0.4, 0.3, 1.0], 1, "noise near the limit counts twice: use two limits"),
    ]
    return next((hint for values, wanted, hint in cases if count(values) != wanted), ""), ""


def check_back(to_photo: Callable) -> tuple[str, str]:
    points = np.random.default_rng(0).uniform(40, 200, (68, 2)).astype(np.float32)
    box = tight_box(points)
    targets = to_targets(points, crop_matrix(box, 112), 112)
    away = np.abs(np.asarray(to_photo(targets, box)) - points).max()
    hint = "the crop is 1.25 times the longer side of the box, and centered on it"
    return ("" if away < 0.6 else hint), f"largest error {away:.1f} px"


def check_smooth(smooth: Callable) -> tuple[str, str]:
    """A point that rests, moves and rests, with noise of 1 px, 30 frames per second."""
    place = np.interp(np.arange(180), [0, 80, 100, 180], [0, 0, 60, 60])
    true = np.column_stack([place, 0 * place])
    seen = true + np.random.default_rng(0).normal(size=true.shape)
    found = np.asarray(smooth(seen, 30))
    error = np.sqrt(np.square(found - true).sum(1).mean() / 2)
    hint = "smooth more while the point rests, and less while it moves"
    return ("" if error < 0.65 else hint), f"error {error:.2f} px, raw 1.0, to beat: 0.65"


def check_layout(path: Any) -> tuple[str, str]:
    from facial_keypoints.layouts import load_layout

    layout = load_layout(path)
    if len(layout) != 4:
        return f"it has {len(layout)} keypoints, not 4", ""
    sides = [name for name in layout.keypoints if "left" in name or "right" in name]
    flipped = [layout.keypoints[row] for row in layout.flip_indices]
    for name, other in zip(layout.keypoints, flipped, strict=True):
        if name in sides and name == other:
            return f"a mirrored image swaps {name!r} with its partner: add it to mirror", ""
    return "" if sides else "name the side of the person: left …, right …", ""


def check_coco(keypoints: Callable) -> tuple[str, str]:
    points = np.array([[1.5, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    found = list(keypoints(points))
    if len(found) != 9:
        return "COCO wants three numbers for each point: x, y, visibility", ""
    if not np.isfinite(found).all() or found[3:6] != [0, 0, 0]:
        return "a missing point is 0, 0, 0", ""
    return ("" if found[:3] == [1.5, 2.0, 2] else "a visible point has the visibility 2"), ""


def check_few(nme: float) -> tuple[str, str]:
    hint = "more epochs cost little with twenty photos"
    return ("" if 0.5 < nme < 4 else hint), f"{nme:.1f} %, to beat: 4.0 %"


def check_bound(bound: Callable) -> tuple[str, str]:
    """bound(cell) -> the mean distance of a point from the center of its square cell."""
    for cell in (1.0, 5.8):
        found = float(bound(cell))
        if abs(found / cell - 0.3826) > 0.02:
            return f"{found:.2f} for a cell of {cell}: draw points in the cell, and measure", ""
    return "", ""


def check_shift(measure: Callable) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    predictions = rng.normal(size=(50, 68, 2)) * 20
    labels = predictions + np.array([1.0, -0.5]) + rng.normal(size=predictions.shape)
    x, y = measure(labels, predictions)
    hint = "a shift has a direction: average the differences, not their sizes"
    return ("" if abs(x - 1) < 0.1 and abs(y + 0.5) < 0.1 else hint), ""


def planted_labels() -> tuple[np.ndarray, np.ndarray]:
    """Labels (200, 68, 2) and predictions of the same faces, of very different sizes; ten faces
    have a wrong label."""
    return _planted()[:2]


def _planted():
    from research.datasets import load_frames

    rng = np.random.default_rng(0)
    shapes = load_frames("sample").points[:200].astype(np.float64)
    shapes *= rng.uniform(0.3, 3, (len(shapes), 1, 1))
    size = np.linalg.norm(shapes[:, 36] - shapes[:, 45], axis=1)[:, None, None]
    predictions = shapes + rng.normal(size=shapes.shape) * 0.03 * size
    wrong = rng.choice(len(shapes), 10, replace=False)
    labels = shapes.copy()
    labels[wrong, 48:] += 0.12 * size[wrong] * rng.choice([-1, 1], (10, 1, 1))
    return labels, predictions, set(wrong.tolist())


def check_doubtful(rows: Any) -> tuple[str, str]:
    """rows: the 15 most doubtful faces of planted_labels()."""
    found = len(_planted()[2] & {int(row) for row in list(rows)[:15]})
    hint = "large faces have large errors in pixels: divide by the eye distance"
    return ("" if found >= 9 else hint), f"{found} of 10 among 15, to beat: 8"


CHECKS: dict[str, Callable] = {
    "flip": check_flip,
    "crop": check_crop,
    "yaw": check_yaw,
    "wing": check_wing,
    "nme": check_nme,
    "small": check_small,
    "blinks": check_blinks,
    "back": check_back,
    "smooth": check_smooth,
    "layout": check_layout,
    "coco": check_coco,
    "few": check_few,
    "bound": check_bound,
    "shift": check_shift,
    "doubtful": check_doubtful,
}
