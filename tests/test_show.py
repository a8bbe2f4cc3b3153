"""Pictures: drawn on copies, with the data they are given."""

import itertools
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from facial_keypoints.detector import Face
from facial_keypoints.drawing import draw_faces
from research.reporting.plots import (
    accuracy_against_time,
    bars,
    calibration_curve,
    contact_sheet,
    curves_together,
    heat_on,
)


@pytest.fixture(autouse=True)
def figures():
    plt.close("all")
    yield
    plt.close("all")


def test_faces_are_drawn_on_a_copy_at_their_points():
    image = np.zeros((100, 120, 3), np.uint8)
    points = np.random.default_rng(0).uniform(30, 70, (68, 2)).astype(np.float32)
    drawn = draw_faces(image, [Face(np.float32([30, 30, 40, 40]), points, 1.0)])
    assert (
        image.max() == 0
        and (drawn[points[:, 1].round().astype(int), points[:, 0].round().astype(int)] > 0)
        .any(1)
        .all()
    )
    assert drawn[:20].max() == 0


def test_a_calibrated_network_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    calibration_curve(confidence, np.where(rng.random(100_000) < confidence, 1.0, 50.0))
    line = plt.gcf().axes[0].lines[1]
    np.testing.assert_allclose(line.get_xdata(), line.get_ydata(), atol=0.03)


def test_bars_and_points_stand_where_they_should():
    axis = bars({"a": (1.0, 0.5, 1.5), "b": (-1.0, -2.0, 0.5)}, "gain").axes[0]
    assert [bar.get_width() for bar in axis.patches] == [1.0, -1.0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b"]
    axis = accuracy_against_time({"models5": (0.9, 4.0, 3.9, 4.1)}).axes[0]
    assert axis.get_xscale() == "log" and "models5" in [text.get_text() for text in axis.texts]


def test_names_of_neighbours_do_not_lie_on_one_another():
    times = {
        "narrow": 0.86,
        "cells and offsets": 0.91,
        "base": 1.07,
        "side 160": 1.29,
        "early stage": 1.43,
        "wide": 1.72,
        "heat maps": 2.04,
    }
    errors = (4.42, 4.46, 4.32, 4.2, 4.2, 4.23, 4.22)
    figure = accuracy_against_time(
        {
            name: (time, error, error, error)
            for (name, time), error in zip(times.items(), errors, strict=True)
        }
    )
    figure.canvas.draw()
    places = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(places, 2))


def test_runs_share_one_axis_and_heats_lie_on_their_pictures():
    rows = [
        {"epoch": "1", "training_loss": "0.5", "validation_nme": "9"},
        {"epoch": "2", "training_loss": "0.2", "validation_nme": "7"},
    ]
    curves_together({"a": rows, "b": rows[:1]})
    assert [line.get_label() for line in plt.gcf().axes[1].lines] == ["a", "b"]
    assert list(plt.gcf().axes[1].lines[0].get_ydata()) == [9, 7]
    heat_on([np.zeros((8, 8), np.float32)] * 2, [np.eye(8)] * 2, [(1, 2), (3, 4)], ["x", "y"])
    assert [axis.get_title() for axis in plt.gcf().axes] == ["x", "y"]


def test_a_sheet_of_nothing_is_nothing():
    contact_sheet([], np.zeros((0, 68, 2)))
    assert not plt.get_fignums()


def test_hidden_points_are_rings():
    points = np.stack(np.meshgrid(np.linspace(40, 360, 17), [60, 160, 260, 340]), -1).reshape(68, 2)
    face = Face(np.float32([40, 60, 320, 280]), points.astype(np.float32), 1.0)
    face.point_visibility = np.arange(68) % 2
    blank = np.zeros((400, 400, 3), np.uint8)
    face.layout = replace(face.layout, parts=())  # no lines
    drawn = draw_faces(blank, [face])
    centers = drawn[points[:, 1].astype(int), points[:, 0].astype(int), 0]
    np.testing.assert_array_equal(centers > 200, face.point_visibility == 1)
    assert all(drawn[y - 6 : y + 7, x - 6 : x + 7].max() > 200 for x, y in points.astype(int))
