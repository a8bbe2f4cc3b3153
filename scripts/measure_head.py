"""The mean head in 3D, measured from annotated frames by factorization."""

import argparse

import numpy as np

from facial_keypoints.command import run_command
from facial_keypoints.files import atomic_write
from facial_keypoints.head import HEAD_FILE
from facial_keypoints.layouts import load_layout
from facial_keypoints.pose import head_pose, rotation_of
from research.datasets import load_frames, split_frames


def factorize(points: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """Keypoints (n, 68, 2) of many heads in many poses -> one mean head (68, 3), in the coordinates
    of `head.mean_head`.

    Points of a rigid body under weak perspective have rank 3 (Tomasi and Kanade, IJCV 1992). The
    two rows of each camera have equal length and are orthogonal, which determines the shape up to a
    rotation. swap (68,): indices of the mirrored points, because a head is taken as symmetric.
    """
    points = np.concatenate([points, points[:, swap] * [-1, 1]]).astype(np.float64)
    centered = points - points.mean(1, keepdims=True)
    centered /= np.sqrt(np.square(centered).sum((1, 2), keepdims=True))
    left, values, right = np.linalg.svd(
        centered.transpose(0, 2, 1).reshape(-1, points.shape[1]), full_matrices=False
    )
    rows = (left[:, :3] * values[:3]).reshape(-1, 2, 3)

    def products(a, b):  # of the entries of a symmetric Q in a Q b
        return np.stack(
            [
                a[:, 0] * b[:, 0],
                a[:, 0] * b[:, 1] + a[:, 1] * b[:, 0],
                a[:, 0] * b[:, 2] + a[:, 2] * b[:, 0],
                a[:, 1] * b[:, 1],
                a[:, 1] * b[:, 2] + a[:, 2] * b[:, 1],
                a[:, 2] * b[:, 2],
            ],
            1,
        )

    first, second = rows[:, 0], rows[:, 1]
    lengths = products(first, first), products(second, second)
    design = np.concatenate(
        [lengths[0] - lengths[1], products(first, second), (lengths[0] + lengths[1]).sum(0)[None]]
    )
    a, b, c, d, e, f = np.linalg.lstsq(design, np.eye(len(design))[-1] * 2 * len(rows), rcond=None)[
        0
    ]
    scales, axes = np.linalg.eigh([[a, b, c], [b, d, e], [c, e, f]])
    shape = upright((np.linalg.inv(axes * np.sqrt(np.maximum(scales, 1e-9))) @ right[:3]).T)
    shape[:, 2] *= np.sign(shape[36, 2] - shape[30, 2])  # the nose is nearer than the eyes
    shape = (shape + shape[swap] * [-1, 1, 1]) / 2
    return shape / np.linalg.norm(shape[36] - shape[45])


def upright(shape: np.ndarray) -> np.ndarray:
    """Rotate and move a head (68, 3): eyes at the origin, x along eyes, jaw and mouth, nose bridge
    (27) and chin (8) at the same depth z."""
    x = shape[45] - shape[36] + shape[16] - shape[0] + shape[54] - shape[48]
    x /= np.linalg.norm(x)
    y = shape[8] - shape[27]
    y -= y @ x * x
    y /= np.linalg.norm(y)
    shape = shape @ np.stack([x, y, np.cross(x, y)], 1)
    return shape - shape[[36, 39, 42, 45]].mean(0)


def leveled(shape: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rotate a head (68, 3) in pitch, so that the median pitch of frontal faces is 0.

    points (n, 68, 2): keypoints of the faces; a face with a yaw within 15 degrees is frontal.
    """
    poses = [head_pose(face, model=shape) for face in points]
    pitch = np.median([pose.pitch for pose in poses if abs(pose.yaw) < 15])
    return shape @ rotation_of(0, pitch, 0).T


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the mean head in 3D from annotated frames, by factorization."
    )
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    frames = split_frames(load_frames(parser.parse_args().data), "official", "all-training")
    shape = leveled(factorize(frames.points, load_layout().flip_indices), frames.points)
    rows = [",".join(f"{value:.4f}" for value in row) for row in shape]
    atomic_write(HEAD_FILE, "\n".join(["x,y,z", *rows, ""]))
    print(f"written: {HEAD_FILE.name}, a head measured from {len(frames)} frames")


if __name__ == "__main__":
    run_command(main)
