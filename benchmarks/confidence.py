"""Calibration of confidence and visibility of points on corrupted images, and rejection of false
positives by the confidence of faces."""

import argparse
from functools import partial

import cv2
import numpy as np

from research.evaluation.prediction import check_leakage
from facial_keypoints.detector import KeypointDetector
from facial_keypoints.detectors import to_tight
from facial_keypoints.command import run_command
from facial_keypoints.errors import import_optional
from facial_keypoints.geometry import crop_image, crop_matrix, overlap, tight_box, to_points
from research.networks.export import use_checkpoints
from research.augmentation.transforms import negative_box
from research.augmentation.occlusions import ANYWHERE, ON_FACES, covered
from research.datasets import add_part_flags, frames_of
from research.augmentation.head_rotation import Head, random_view
from research.data.label_shift import match_label_convention
from research.evaluation.metrics import point_errors
from research.networks.contract import input_size
from research.networks.contract import calibration_of
from research.networks.registry import find_weights, load_checkpoint, predict, predict_all
from detector_architectures import haar
from benchmarks.robustness import CONDITIONS, as_batch, crops_under

# after research, which sets how PyTorch's threads wait
import torch

WHY = "this benchmark"  # needs scikit-learn, which is optional
RIGHT = 10  # a point is right if its error is at most this % of the inter-ocular distance
# The inter-ocular distance of a profile is nearly 0. For data with turned heads, errors are
# relative to this share of the square root of the area of the tight box, which is the
# inter-ocular distance of a frontal face.
EYES_PER_BOX = 0.6


def points_under(conditions, net, trained, frames):
    """Confidence (m,) and error (m,) in % of the inter-ocular distance of all labeled points of the
    frames, under all conditions."""
    confidences, errors = [], []
    for condition in conditions:
        crops, matrices, truth, _ = crops_under(condition, frames, input_size(net))
        parts = [predict(net, part) for part in crops.split(64)]
        targets, confidence = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        points = match_label_convention(
            frames, to_points(targets, matrices, input_size(net)), trained
        )
        error = (
            point_errors(points, truth)
            if frames.visible is None
            else point_errors(points, truth, "box-size") / EYES_PER_BOX
        )
        labeled = np.isfinite(error)
        confidences.append(confidence[labeled])
        errors.append(error[labeled])
    return np.concatenate(confidences), np.concatenate(errors)


def points_without_faces(net, frames):
    """Confidence (m,) of the points that a network predicts in crops next to the faces of frames,
    or of small parts of the faces, one for each frame. All of them are wrong."""
    crops, side, boxes = [], input_size(net), frames.boxes()
    for index in range(len(frames)):
        gray = cv2.cvtColor(frames.image(index), cv2.COLOR_RGB2GRAY)
        box = negative_box(boxes[index], gray.shape, np.random.default_rng(index))
        crops.append(crop_image(gray, crop_matrix(box, side), side))
    parts = [predict(net, part)[1] for part in as_batch(crops).split(64)]
    return torch.cat(parts).numpy().ravel()


def logit(chance):
    """Log odds of probabilities (…), which are clipped to 0.0001…0.9999."""
    chance = np.clip(chance, 1e-4, 1 - 1e-4)
    return np.log(chance / (1 - chance))


def logistic_regression(x, right):
    """(a, b) of right (n,) ~ logistic(a · x + b) for x (n,)."""
    linear = import_optional("sklearn.linear_model", WHY, "scikit-learn")
    fit = linear.LogisticRegression(C=1000).fit(x[:, None], right)
    return np.array([fit.coef_[0, 0], fit.intercept_[0]])


def recalibrated(confidence, right):
    """(a, b) of the logistic regression right ~ a · logit(confidence) + b; calibrated is (1, 0)."""
    return logistic_regression(logit(confidence), right)


def calibration(confidence, error, bins=10):
    """Rows (mean confidence, share of right points, mean error in %, count) of `bins` equal
    intervals of confidence."""
    group = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (
            confidence[group == g].mean(),
            np.mean(error[group == g] <= RIGHT),
            error[group == g].mean(),
            np.sum(group == g),
        )
        for g in range(bins)
        if (group == g).any()
    ]


def boxes_by_confidence(detector, frames):
    """Confidence of the faces at the true boxes (n,) of a detector, and at its false boxes (m,).

    True: IoU with the tight box above 0.4; false: below 0.15.
    """
    true, false, true_boxes = [], [], frames.boxes()
    for index in range(len(frames)):
        image = frames.image(index)
        boxes = to_tight(detector.detector.detect(image)[0], detector.detector.fit)
        for face, share in zip(
            detector.predict_boxes(image, boxes), overlap(boxes, true_boxes[index]), strict=True
        ):
            if share > 0.4 or share < 0.15:  # boxes between these limits are ignored
                (true if share > 0.4 else false).append(face.confidence)
    return np.array(true), np.array(false)


def rendered_views(frames, side):
    """Crops (n, 1, side, side) of the heads of frames, each turned to a random side, and which
    keypoints (n, 68) can be seen."""
    crops, seen = [], []
    for index in range(len(frames)):
        gray = cv2.cvtColor(frames.image(index), cv2.COLOR_RGB2GRAY)
        head = Head(gray, frames.points[index])
        view = random_view(head, np.random.default_rng(index))
        image, points, visible = head.turned(*view)
        crops.append(crop_image(image, crop_matrix(tight_box(points), side), side))
        seen.append(visible)
    return as_batch(crops), np.stack(seen)


def covered_crops(frames, side):
    """Crops (n, 1, side, side) of frames, each with a random cover, and which keypoints (n, 68) can
    be seen."""
    crops, seen = [], []
    for index in range(len(frames)):
        rng = np.random.default_rng(index)
        matrix = crop_matrix(tight_box(frames.points[index]), side)
        crop = crop_image(cv2.cvtColor(frames.image(index), cv2.COLOR_RGB2GRAY), matrix, side)
        points = frames.points[index] @ matrix[:, :2].T + matrix[:, 2]
        cover = (*ON_FACES, *ANYWHERE)[rng.integers(len(ON_FACES) + len(ANYWHERE))]
        crop, hidden = covered(crop, points, cover, rng)
        crops.append(crop)
        seen.append(~hidden)
    return as_batch(crops), np.stack(seen)


def labeled_crops(frames, side, of_head):
    """Crops (n, 1, side, side) of frames whose labels say which points are visible, and these
    (n, 68): 1 visible, 0 hidden by the head (`of_head`) or by something else, nan otherwise."""
    crops, *_ = crops_under("unchanged", frames, side)
    unplaced = np.isnan(frames.points).any(-1)
    other = (frames.visible == 0) & (unplaced != of_head)
    return crops, np.where(other, np.nan, frames.visible)


def print_visibility(net, frames):
    """Print how well the visibility of a network tells hidden from visible points."""
    score = import_optional("sklearn.metrics", WHY, "scikit-learn").roc_auc_score
    table = []
    kinds = (
        (("by the head", rendered_views), ("by covers", covered_crops))
        if frames.visible is None
        else (
            ("by the head", partial(labeled_crops, of_head=True)),
            ("by something else", partial(labeled_crops, of_head=False)),
        )
    )
    for kind, make in kinds:
        crops, seen = make(frames, input_size(net))
        visibility = torch.cat([predict_all(net, part)[2] for part in crops.split(64)]).numpy()
        known = np.isfinite(seen)
        visibility, seen = visibility[known], seen[known].astype(bool)
        table.append((visibility, seen))
        print(
            f"hidden {kind}: {100 * np.mean(~seen):.0f} % of the points; AUC "
            f"{score(seen, visibility):.3f}"
        )
    visibility, seen = map(np.concatenate, zip(*table, strict=True))
    print(f"{'visibility':>10} {'visible':>8} {'points':>8}")
    for row in calibration(visibility, np.where(seen, 0, 100)):
        print(f"{row[0]:>10.2f} {row[1]:>8.2f} {row[3]:>8}")


def main():
    use_checkpoints()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    add_part_flags(parser)
    parser.add_argument(
        "--allow-leak",
        action="store_true",
        help="measure on frames that the network was trained on",
    )
    options = parser.parse_args()
    net, content = load_checkpoint(find_weights(options.checkpoint))
    frames = frames_of(options)
    if not options.allow_leak:
        check_leakage(content, frames, options.checkpoint)
    confidence, error = points_under(CONDITIONS, net, content["data"], frames)
    nowhere = points_without_faces(net, frames)
    a, b = recalibrated(
        np.concatenate([confidence, nowhere]), np.append(error <= RIGHT, nowhere < 0)
    )
    print(
        f"{len(frames)} frames under {len(CONDITIONS)} conditions; right is within {RIGHT} % of "
        "the inter-ocular distance\n"
        f"and as many crops without a face, with a mean confidence of {nowhere.mean():.2f}: "
        f"right points ~ logistic({a:.2f} · logit(confidence) {b:+.2f}); 1 and 0 if calibrated"
        "\n\n"
        f"{'confidence':>10} {'right':>7} {'error %':>8} {'points':>8}"
    )
    for row in calibration(confidence, error):
        print(f"{row[0]:>10.2f} {row[1]:>7.2f} {row[2]:>8.1f} {row[3]:>8}")
    if calibration_of(net):
        middle = net.even_odds * np.exp(b / (a * net.steepness))
        print(
            f"calibrated: even_odds, steepness = {middle:.3f}, {a * net.steepness:.2f}; now "
            f"{net.even_odds}, {net.steepness}"
        )
    area = import_optional("sklearn.metrics", WHY, "scikit-learn").roc_auc_score(
        error <= RIGHT, confidence
    )
    print(f"a right point is more confident than a wrong one in {100 * area:.1f} % of the pairs")

    if predict_all(net, torch.zeros(1, 1, input_size(net), input_size(net)))[2] is not None:
        print()
        print_visibility(net, frames)

    detector = KeypointDetector(
        options.checkpoint, haar.Detector(1.05, 1, portraits=False), "cpu", 0
    )
    true, false = boxes_by_confidence(detector, frames)
    print(
        f"\nHaar, scaleFactor 1.05, minNeighbors 1: {len(true)} true, {len(false)} false boxes\n"
        f"{'at least':>10} {'true kept':>10} {'false kept':>11}"
    )
    for limit in np.arange(0.1, 0.95, 0.1):
        kept = [
            100 * np.mean(values >= limit) if len(values) else float("nan")
            for values in (true, false)
        ]
        print(f"{limit:>10.1f} {kept[0]:>10.1f} {kept[1]:>11.1f}")


if __name__ == "__main__":
    run_command(main)
