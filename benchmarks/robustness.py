"""NME under low light, blur, compression, low resolution, roll and occlusion, with shifted boxes,
and of turned heads."""

import argparse
from pathlib import Path

import cv2
import numpy as np

from research.evaluation.prediction import check_leakage
from facial_keypoints.command import run_command
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box, to_points
from facial_keypoints.head import inter_ocular
from facial_keypoints.pose import head_pose
from research.augmentation.corruptions import darken, jpeg, sharpen
from research.datasets import add_part_flags, frames_of
from research.augmentation.head_rotation import Head
from research.data.label_shift import match_label_convention
from research.evaluation.metrics import point_errors
from research.networks.contract import input_size
from research.networks.registry import find_weights, load_checkpoint, predict_targets

# after research, which sets how PyTorch's threads wait
import torch


# Each function: gray image (h, w) uint8, keypoints (68, 2) in pixels, random generator -> image,
# keypoints. Sizes are relative to the size of the face.


def dark(image, points, rng):
    """Low light: 12 % of the brightness, with sensor noise."""
    return darken(image, 0.12, 2 * rng.standard_normal(image.shape)), points


def blurred(image, points, rng):
    """Gaussian blur with a sigma of 6 % of the inter-ocular distance."""
    return cv2.GaussianBlur(image, (0, 0), 0.06 * inter_ocular(points)), points


def compressed(image, points, rng):
    """JPEG of quality 10."""
    return jpeg(image, 10), points


def few_pixels(image, points, rng):
    """Low resolution: the longer side of the tight box has 32 pixels."""
    scale = 32 / tight_box(points)[2:].max()
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ratio = np.array(small.shape[1::-1]) / image.shape[1::-1]
    return small, ((points + 0.5) * ratio - 0.5).astype(np.float32)


def rolled_crop(image, points, rng):
    """Roll of 45 degrees to a random side, on a canvas that contains the whole image."""
    side = int(np.ceil(np.hypot(*image.shape)))
    matrix = cv2.getRotationMatrix2D(
        tuple((np.array(image.shape[1::-1]) - 1) / 2), 45 * rng.choice([-1, 1]), 1
    )
    matrix[:, 2] += (side - np.array(image.shape[1::-1])) / 2
    return cv2.warpAffine(image, matrix, (side, side)), (
        points @ matrix[:, :2].T + matrix[:, 2]
    ).astype(np.float32)


def half_occluded(image, points, rng):
    """Occlusion: gray in all pixels left of, right of or below the center of the tight box."""
    left, top, width, height = tight_box(points).round().astype(int)
    x, y = max(left + width // 2, 0), max(top + height // 2, 0)
    image = image.copy()
    image[[np.s_[:, :x], np.s_[:, x:], np.s_[y:]][rng.integers(3)]] = 128
    return image, points


def sharp_and_large(image, points, rng):
    """Four times the resolution per axis, with sharpened edges and halos, as in photos of good
    cameras."""
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    return sharpen(large, 2, 4), 4 * points + 1.5


def unchanged(image, points, rng):
    """The frame itself."""
    return image, points


def rendered(yaw):
    """A condition: the head turned to a yaw in degrees, to the side to which it is turned already.
    Its third result (68,) is False for points that the head hides."""

    def condition(image, points, rng):
        head = Head(image, points)
        return head.turned(yaw * (1 if head.yaw > 0 else -1), 0)

    return condition


CONDITIONS = {
    "unchanged": unchanged,
    "sharp and large": sharp_and_large,
    "dark": dark,
    "blurred": blurred,
    "compressed": compressed,
    "few pixels": few_pixels,
    "rolled 45°": rolled_crop,
    "half occluded": half_occluded,
    "boxes 15 % off": unchanged,
}
# Of visible points, in % of the square root of the area of the tight box: the inter-ocular distance
# of a profile is nearly 0.
TURNED_HEADS = {
    "yaw above 20°": unchanged,
    "rendered, yaw 30°": rendered(30),
    "rendered, yaw 60°": rendered(60),
    "rendered, yaw 90°": rendered(90),
}
ALL_CONDITIONS = CONDITIONS | TURNED_HEADS


def as_batch(crops):
    """Gray crops (side, side) uint8 -> a tensor (n, 1, side, side) in [0, 1]."""
    return torch.from_numpy(np.stack(crops)[:, None]).float() / 255


def crops_under(condition, frames, side, seed=0):
    """Frames under a condition -> crops (n, 1, side, side) in [0, 1], matrices (n, 2, 3), keypoints
    (n, 68, 2) in pixels (nan where a label is missing), and which of these are visible (n, 68)."""
    crops, matrices, truth, visible = [], [], [], []
    complete, missing = frames.complete(), np.isnan(frames.points)
    for index in range(len(frames)):
        rng = np.random.default_rng((seed, index))
        gray = cv2.cvtColor(frames.image(index), cv2.COLOR_RGB2GRAY)
        gray, points, *seen = ALL_CONDITIONS[condition](gray, complete[index], rng)
        box = tight_box(points)
        if condition.startswith("boxes"):
            turn = rng.uniform(0, 2 * np.pi)
            box[:2] += 0.15 * box[2:].max() * np.array([np.cos(turn), np.sin(turn)])
        matrix = crop_matrix(box, side)
        crops.append(crop_image(gray, matrix, side))
        matrices.append(matrix)
        truth.append(np.where(missing[index], np.nan, points))
        visible.append(seen[0] if seen else np.ones(len(points), bool))
    return as_batch(crops), np.stack(matrices), np.stack(truth), np.stack(visible)


def errors_under(condition, net, trained, frames):
    """NME (n,) in % of a network on frames under a condition."""
    if condition == "yaw above 20°":
        frames = frames.select([abs(head_pose(points).yaw) > 20 for points in frames.complete()])
    crops, matrices, truth, visible = crops_under(condition, frames, input_size(net))
    targets = torch.cat([predict_targets(net, part) for part in crops.split(64)])
    points = to_points(targets.numpy(), matrices, input_size(net))
    errors = point_errors(
        match_label_convention(frames, points, trained),
        truth,
        "box-size" if condition in TURNED_HEADS or frames.visible is not None else "layout",
    )
    return np.nanmean(np.where(visible, errors, np.nan), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    add_part_flags(parser)
    parser.add_argument(
        "--allow-leak",
        action="store_true",
        help="measure on frames that the network was trained on",
    )
    options = parser.parse_args()
    nets = [load_checkpoint(find_weights(name)) for name in options.checkpoints]
    frames = frames_of(options)
    for name, (_, content) in zip(options.checkpoints, nets, strict=True):
        if not options.allow_leak:
            check_leakage(content, frames, name)
    print(
        f"{frames.data}, {options.split} split, {options.part}: {len(frames)} frames, labels "
        f"{frames.labels}; "
        "mean NME % (share above 10 %)"
    )
    print(f"{'':<20}" + "".join(f"{Path(name).stem:>18}" for name in options.checkpoints))
    # labeled photographs show turned heads themselves
    for condition in ALL_CONDITIONS if frames.visible is None else CONDITIONS:
        cells = []
        for net, content in nets:
            nme = errors_under(condition, net, content["data"], frames)
            cells.append(f"{nme.mean():9.2f} ({100 * np.mean(nme > 10):4.1f})")
        print(f"{condition:<20}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    run_command(main)
