"""Answers come back as they were written, and files are whole or not there."""

import csv
import io
import json

import numpy as np
import pytest

from errors import DataError
from formats import COLUMNS, csv_header, open_whole, read_boxes, read_pts, to_csv, to_json, to_pts, write_whole
from pipeline import Face

FACE = Face(np.float32([1.5, 2, 30, 40]), np.random.default_rng(0).uniform(0, 900, (68, 2)).astype(np.float32), 0.8125)


def test_csv_has_the_promised_columns_and_survives_awkward_names():
    name = 'a "b", c\n.jpg'
    row = next(csv.DictReader(io.StringIO(csv_header() + to_csv(name, FACE))))
    assert list(row) == COLUMNS == ["name", "left", "top", "width", "height", "confidence"] + [
        f"{axis}{i}" for i in range(68) for axis in "xy"]
    assert row["name"] == name and float(row["confidence"]) == pytest.approx(0.8125)
    points = np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(68)])
    np.testing.assert_allclose(points, FACE.points, atol=0.006)


def test_json_lines_hold_the_same():
    row = json.loads(to_json("ü.jpg", FACE))
    assert row["name"] == "ü.jpg" and row["box"] == [1.5, 2, 30, 40]
    np.testing.assert_allclose(row["points"], FACE.points, atol=0.006)


def test_pts_round_trip_and_faults():
    np.testing.assert_allclose(read_pts(to_pts(FACE.points)), FACE.points, atol=1e-4)
    for text, said in (("", "0 points"), ("{ 1 2 }", "1 points"), ("{ a b }", "could not convert"),
                       (to_pts(np.zeros((68, 2))), "coincide"),
                       (to_pts(FACE.points).replace("\n}", " nan nan\n}"), "69 points")):
        with pytest.raises(DataError, match=said):
            read_pts(text, "x.pts")


@pytest.mark.parametrize("text, said", [
    ("name,left,top\n", "width, height missing"), ("name,left,top,width,height\na,1,2,x,4\n", "line 2"),
    ("name,left,top,width,height\na,1,2,3\n", "line 2"), ("name,left,top,width,height\na,1,2,0,4\n", "above 0"),
    ("name,left,top,width,height\na,nan,2,3,4\n", "finite"), ("name,left,top,width,height\na,1e30,2,3,4\n", "million"),
    ("name,left,top,width,height\na,1,2,3," + "4" * 200_000, "not a table"),
])
def test_bad_boxes_are_told_with_their_line(tmp_path, text, said):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_boxes(tmp_path / "b.csv")


def test_boxes_keep_their_order_and_more_columns_do_not_matter(tmp_path):
    (tmp_path / "b.csv").write_text("kind,name,left,top,width,height\nx,b,1,2,3,4\ny,a,5,6,7,8.5\n")
    rows = read_boxes(tmp_path / "b.csv")
    assert [name for name, _ in rows] == ["b", "a"] and rows[1][1].tolist() == [5, 6, 7, 8.5]


def test_a_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "deep" / "x.txt"
    write_whole(target, "old")
    with pytest.raises(RuntimeError), open_whole(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_whole(tmp_path / "file" / "x", "text")
