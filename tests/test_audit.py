"""The label audit finds what was put in: a shift, a lattice, a floor."""

import numpy as np
import pytest

from facial_keypoints.geometry import inter_ocular
from research.datasets import load_frames, split_frames
from research.label_audit import fit_shift, grid_pitch, lower_bounds, trusted
from train import measure_shift

def test_a_known_shift_is_read_off_its_residuals():
    rng = np.random.default_rng(0)
    length = rng.uniform(20, 120, 3000)
    offset = 0.56 + 0.014 * length + length * rng.normal(0, 0.02, 3000)
    (constant, share), spread = fit_shift(offset, length)
    assert abs(constant - 0.56) < 3 * spread[0] < 0.3 and abs(share - 0.014) < 3 * spread[1] < 0.01


@pytest.mark.slow
def test_a_shift_put_into_drawn_faces_comes_out(tmp_path):
    """The whole measurement: two trainings under mirroring, answers that settle, the fit."""
    frames = split_frames(load_frames("sample", "published"), "official", "all-training")
    length = inter_ocular(frames.points)
    put = 1 + 0.04 * length
    frames.points = frames.points + put[:, None, None].astype(np.float32)
    offset, answers = measure_shift(frames, 25, tmp_path, bar=False)
    known = trusted(frames, offset, answers)
    (constant, share), _ = fit_shift(offset[known, 0], length[known])
    middle = np.median(length)
    assert constant + share * middle == pytest.approx(1 + 0.04 * middle, abs=0.3)
    small, large = (np.median(group) for group in np.array_split(np.sort(length), 2))
    # it grows with the face
    assert constant + share * large - (constant + share * small) > 0.02 * (large - small)


def test_a_lattice_is_found_and_noise_has_none():
    rng = np.random.default_rng(0)
    for pitch in (2.3, 3.1, 5.7):
        values = np.round(rng.uniform(0, 150, 68) / pitch) * pitch + 0.4
        found, strength = grid_pitch(values)
        assert found == pytest.approx(pitch, rel=0.02) and strength > 0.95
    assert grid_pitch(rng.uniform(0, 150, 68))[1] < 0.6


def test_the_floor_of_rounding_is_what_geometry_says():
    """The mean length of a vector that is uniform in a unit square around 0 is 0.3826."""
    points = np.random.default_rng(0).uniform(0, 200, (400, 68, 2)).astype(np.float32)
    points[:, 45] = points[:, 36] + [100, 0]
    floor = lower_bounds(points, 5.0)
    assert floor["pixels"] == pytest.approx(0.3826, rel=0.05) and floor["cells"] == pytest.approx(
        5 * 0.3826, rel=0.05
    )
    assert floor["both"] > floor["cells"]

