"""The label audit finds what was put in: a shift, a grid, a lower bound."""

import numpy as np
import pytest

from research.labeling.label_audit import fit_shift, grid_pitch, lower_bounds


def test_a_known_shift_is_read_off_its_residuals():
    rng = np.random.default_rng(0)
    length = rng.uniform(20, 120, 3000)
    offset = 0.56 + 0.014 * length + length * rng.normal(0, 0.02, 3000)
    (constant, share), spread = fit_shift(offset, length)
    assert abs(constant - 0.56) < 3 * spread[0] < 0.3 and abs(share - 0.014) < 3 * spread[1] < 0.01


def test_a_quantization_grid_is_found():
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
