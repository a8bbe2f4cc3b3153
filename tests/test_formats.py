"""Predictions come back as they were written, and files are written atomically."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from facial_keypoints.detector import Face
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_open, atomic_write
from facial_keypoints.formats import (
    WRITERS,
    PtsWriter,
    csv_columns,
    csv_line,
    json_line,
    pts_text,
    read_boxes,
    read_coco,
    read_json,
    read_pts,
)

FACE = Face(
    np.float32([1.5, 2, 30, 40]),
    np.random.default_rng(0).uniform(0, 900, (68, 2)).astype(np.float32),
    0.8125,
)


def test_csv_has_the_promised_columns_and_survives_awkward_names():
    name = 'a "b", c\n.jpg'
    header = ",".join(csv_columns()) + "\n"
    row = next(csv.DictReader(io.StringIO(header + csv_line(name, FACE))))
    assert (
        list(row)
        == csv_columns()
        == ["name", "left", "top", "width", "height", "confidence"]
        + [f"{axis}{i}" for i in range(68) for axis in "xy"]
        + ["identity", "right_eye_open", "left_eye_open", "mouth_open"]
    )
    assert row["identity"] == "" and ",3," in csv_line(name, replace(FACE, identity=3))
    assert row["name"] == name and float(row["confidence"]) == pytest.approx(0.8125)
    points = np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(68)])
    np.testing.assert_allclose(points, FACE.points, atol=0.006)


def test_json_lines_hold_the_same():
    row = json.loads(json_line("ü.jpg", FACE))
    assert row["name"] == "ü.jpg" and row["box"] == [1.5, 2, 30, 40]
    np.testing.assert_allclose(row["points"], FACE.points, atol=0.006)


def test_files_of_predictions_are_read_back(tmp_path):
    """JSON lines with all that is known of a face, and COCO keypoints, for photos with two, no and
    one face."""
    rng = np.random.default_rng(1)
    known = replace(FACE, point_confidence=rng.random(68), identity=3)
    hidden = replace(known, point_visibility=rng.random(68))
    photos = [
        ("a.jpg", (600, 900), [FACE, known]),
        ("ü/b.jpg", (50, 60), []),
        ("c.jpg", (70, 80), [hidden]),
    ]
    for kind in ("json", "coco"):
        with atomic_open(tmp_path / kind) as file:
            predictions = WRITERS[kind](file)
            for photo in photos:
                predictions.write(*photo)
            predictions.close()
    rows = read_json(tmp_path / "json")
    assert [row["name"] for row in rows] == ["a.jpg", "a.jpg", "c.jpg"]
    assert (
        "identity" not in rows[0]
        and rows[1]["identity"] == 3
        and all(set(row["pose"]) == {"yaw", "pitch", "roll"} for row in rows)
    )
    np.testing.assert_allclose(rows[1]["point_confidence"], known.point_confidence, atol=6e-4)
    np.testing.assert_allclose(rows[2]["points"], FACE.points, atol=0.006)
    assert "point_visibility" not in rows[1]
    np.testing.assert_allclose(rows[2]["point_visibility"], hidden.point_visibility, atol=6e-4)
    coco = read_coco(tmp_path / "coco")
    assert {name: len(faces) for name, faces in coco.items()} == {
        "a.jpg": 2,
        "ü/b.jpg": 0,
        "c.jpg": 1,
    }
    box, points, score = coco["a.jpg"][1]
    np.testing.assert_allclose(box, FACE.box)
    np.testing.assert_allclose(points, FACE.points, atol=0.006)
    assert score == pytest.approx(0.8125)
    content = json.loads((tmp_path / "coco").read_text())
    assert content["info"]["date_created"] and content["annotations"][1]["track_id"] == 3
    assert content["annotations"][0]["segmentation"] == [[1.5, 2, 31.5, 2, 31.5, 42, 1.5, 42]]
    flags = np.array([row["keypoints"] for row in content["annotations"]]).reshape(3, 68, 3)[..., 2]
    np.testing.assert_array_equal(
        flags,
        [np.full(68, 2), 1 + (known.point_confidence >= 0.5), 1 + (hidden.point_visibility >= 0.5)],
    )
    assert content["images"][1] == {"id": 2, "file_name": "ü/b.jpg", "height": 50, "width": 60}


ENDLESS, HUGE = "[" * 100_000, json.dumps({"box": [10**400, 0, 1, 1], "points": [0] * 136})
# finite, but not in the numbers that we use
BEYOND = json.dumps({"box": [0, 0, 1, 1], "points": [1e39] * 136})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"images": [], "annotations": [{}]}',
        '{"name": "x"}',
        "\x00",
        ENDLESS,
        HUGE,
        BEYOND,
    ],
)
def test_files_without_predictions_are_named(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        read_coco(tmp_path / "x.json")
    if text:
        with pytest.raises(DataError, match=r"x\.json: line 1"):
            read_json(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "none")


def test_pts_round_trip_and_faults():
    np.testing.assert_allclose(read_pts(pts_text(FACE.points)), FACE.points, atol=1e-4)
    for text, said in (
        ("", "0 points"),
        ("{ 1 2 3 }", "1.5 points"),
        ("{ a b }", "could not convert"),
        ("{" + " 1e39" * 136 + "}", "not finite"),
        (pts_text(FACE.points).replace("\n}", " nan nan\n}"), "not finite"),
        (pts_text(FACE.points).replace("\n}", " 1 1\n}"), "69 points"),
    ):
        with pytest.raises(DataError, match=said):
            read_pts(text, "x.pts")


def test_pts_files_of_photos_with_equal_names_differ(tmp_path):
    predictions, faces = (
        PtsWriter(tmp_path),
        [replace(FACE, points=FACE.points + i) for i in range(4)],
    )
    predictions.write("a.jpg", (50, 60), faces[:1])
    predictions.write("a.png", (50, 60), faces[1:2])
    predictions.write("../b/c.jpg", (50, 60), [])
    predictions.write("../b/c.jpg", (50, 60), faces[2:3])  # rows of one photo may stand apart
    predictions.write("../b/c.jpg", (50, 60), faces[3:])
    predictions.close()
    found = {
        path.relative_to(tmp_path).as_posix(): read_pts(path.read_text())
        for path in tmp_path.rglob("*.pts")
    }
    assert set(found) == {"a.pts", "a.png.pts", "b/c.pts", "b/c-2.pts"}
    for name, face in zip(("a.pts", "a.png.pts", "b/c.pts", "b/c-2.pts"), faces, strict=True):
        np.testing.assert_allclose(found[name], face.points, atol=1e-4)


@pytest.mark.parametrize(
    "text, said",
    [
        ("name,left,top\n", "width, height missing"),
        ("name,left,top,width,height\na,1,2,x,4\n", "line 2"),
        ("name,left,top,width,height\na,1,2,3\n", "line 2"),
        ("name,left,top,width,height\na,1,2,0,4\n", "above 0"),
        ("name,left,top,width,height\na,nan,2,3,4\n", "finite"),
        ("name,left,top,width,height\na,1e30,2,3,4\n", "million"),
        ("name,left,top,width,height\na,1,2,3," + "4" * 200_000, "not a table"),
        ("n" * 200_000 + ",left\n", "not a table"),
    ],
)
def test_bad_boxes_are_reported_with_their_line(tmp_path, text, said):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_boxes(tmp_path / "b.csv")


def test_boxes_keep_their_order_and_more_columns_do_not_matter(tmp_path):
    (tmp_path / "b.csv").write_text("kind,name,left,top,width,height\nx,b,1,2,3,4\ny,a,5,6,7,8.5\n")
    rows = read_boxes(tmp_path / "b.csv")
    assert [name for name, _ in rows] == ["b", "a"] and rows[1][1].tolist() == [5, 6, 7, 8.5]


def test_a_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "deep" / "x.txt"
    atomic_write(target, "old")
    with pytest.raises(RuntimeError), atomic_open(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        atomic_write(tmp_path / "file" / "x", "text")
