"""Labels in the formats of other data sets and label tools are read as their tools write them, and
bad ones are named."""

import json
import zipfile

import cv2
import numpy as np
import pytest
from conftest import write_labeled_photos

from facial_keypoints.detector import Face
from facial_keypoints.errors import DataError
from facial_keypoints.formats import YoloWriter
from facial_keypoints.geometry import tight_box
from facial_keypoints.layouts import load_layout
from research.labeling import label_audit, prelabel
from research.datasets import load_frames, split_frames
from research.data.completion import complete_points
from research.data.folders import load_folder
from research.data.readers import KAGGLE_COLUMNS


@pytest.fixture
def photos(tmp_path, tiny):
    """A folder of four photos with the 68 points of their faces in pixels: (folder, names, points
    (4, 68, 2))."""
    names = [f"img {i}.png" for i in range(4)]
    (tmp_path / "images").mkdir()
    for i, name in enumerate(names):
        cv2.imwrite(str(tmp_path / "images" / name), tiny.image(8 * i)[..., ::-1])
    return tmp_path, names, tiny.points[[0, 8, 16, 24]].astype(np.float64)


def check(frames, points, layout, tolerance=1e-3):
    assert frames.layout == load_layout(layout) and len(frames) == len(points)
    np.testing.assert_allclose(frames.points, points, atol=tolerance, equal_nan=True)
    assert frames.image(0).ndim == 3 and len(set(frames.people)) == len(points)


def test_wflw_lists(photos):
    folder, names, points = photos
    points = np.random.default_rng(0).uniform(10, 90, (4, 98, 2)).round(3)
    (folder / "WFLW_annotations").mkdir()
    for kind, rows in (("train", (0, 1, 2)), ("test", (3,))):
        lines = [
            " ".join([*(f"{v}" for v in points[i].ravel()), "1 2 3 4", "0 0 0 0 0 1", names[i]])
            for i in rows
        ]
        path = folder / "WFLW_annotations" / f"list_98pt_rect_attr_train_test_{kind}.txt"
        path.with_name(f"list_98pt_rect_attr_{kind}.txt").write_text("\n".join(lines) + "\n")
    frames = load_folder(folder)
    order = [*frames.sides].index("test")
    assert [*frames.sides].count("training") == 3
    check(frames, np.insert(points[:3], order, points[3], axis=0), "wflw98")
    bad = folder / "WFLW_annotations" / "list_98pt_rect_attr_test.txt"
    bad.write_text("1 2 3 img 0.png\n")
    with pytest.raises(DataError, match=r"_test\.txt: line 1: "):
        load_folder(folder)


def test_cofw_matrices(photos):
    h5py = pytest.importorskip("h5py", reason="optional: h5py reads .mat files of COFW")
    folder, _, _ = photos
    rng = np.random.default_rng(0)
    points, image = rng.uniform(1, 60, (2, 29, 2)), rng.integers(0, 255, (2, 70, 80, 3), np.uint8)
    with h5py.File(folder / "COFW_train_color.mat", "w") as file:
        table = np.concatenate([points[..., 0], points[..., 1], np.zeros((2, 29))], 1)
        file["phisTr"] = table.T
        cells = file.create_dataset("IsTr", (1, 2), h5py.ref_dtype)
        for i in range(2):
            file[f"image{i}"] = image[i].transpose(2, 1, 0)  # MATLAB's order
            cells[0, i] = file[f"image{i}"].ref
    frames = load_folder(folder)
    check(frames, points - 1, "cofw29")
    assert frames.image(0).shape == (70, 80, 3) and frames.kind == "cofw"
    (folder / "COFW_train_color.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="not a MATLAB file of COFW"):
        load_folder(folder)


def test_kaggle_tables_have_missing_points(tmp_path):
    rng = np.random.default_rng(0)
    pixels, points = rng.integers(0, 255, (3, 96, 96)), rng.uniform(5, 90, (3, 15, 2)).round(4)
    points[1, 2:10] = np.nan
    lines = [",".join([*KAGGLE_COLUMNS, "Image"])]
    for face, image in zip(points, pixels, strict=True):
        cells = ["" if np.isnan(v) else f"{v}" for v in face.ravel()]
        lines.append(",".join([*cells, " ".join(map(str, image.ravel()))]))
    (tmp_path / "training.csv").write_text("\n".join(lines) + "\n")
    for path in (tmp_path, tmp_path / "training.csv"):
        frames = load_folder(path)
        check(frames, points, "kaggle15")
        np.testing.assert_array_equal(frames.image(1)[..., 0], pixels[1])
        assert set(frames.digests()) and frames.boxes().shape == (3, 4)
    (tmp_path / "training.csv").write_text("\n".join([*lines[:2], lines[2][:-9]]) + "\n")
    with pytest.raises(DataError, match=r"row 2: \d+ pixels"):
        load_folder(tmp_path)


def coco(names, points, categories, visible=2, **more):
    return {
        "images": [{"id": 10 + i, "file_name": f"images/{name}"} for i, name in enumerate(names)],
        "categories": categories,
        "annotations": [
            {
                "id": i,
                "image_id": 10 + i,
                "category_id": 7,
                "keypoints": [
                    v for x, y in face for v in ((0, 0, 0) if np.isnan(x) else (x, y, visible))
                ],
                **more,
            }
            for i, face in enumerate(points.tolist())
        ],
    }


def test_coco_keypoints_of_any_number_with_visibility(photos):
    folder, names, _ = photos
    points = np.random.default_rng(0).uniform(5, 60, (4, 3, 2)).round(2)
    points[2, 1] = np.nan
    category = {
        "id": 7,
        "name": "cat face",
        "keypoints": ["left ear", "right ear", "nose"],
        "skeleton": [[1, 3], [3, 2]],
    }
    (folder / "person_keypoints_default.json").write_text(
        json.dumps(coco(names, points, [category]))
    )
    frames = load_folder(folder)
    assert frames.layout.keypoints == ("left ear", "right ear", "nose")
    assert frames.layout.skeleton() == [(0, 2), (2, 1)]
    np.testing.assert_allclose(frames.points, points, atol=1e-3)
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in folder.rglob("*"):
            if path.suffix in (".png", ".json"):
                archive.write(path, path.relative_to(folder))
    np.testing.assert_array_equal(load_folder(folder / "all.zip").points, frames.points)


def test_coco_wholebody_faces(photos):
    folder, names, points = photos
    content = coco(names, np.zeros((4, 17, 2)), [{"id": 7, "name": "person", "keypoints": ["x"]}])
    for row, face in zip(content["annotations"], points, strict=True):
        row |= {"face_valid": True, "face_kpts": [v for x, y in face.tolist() for v in (x, y, 1)]}
    content["annotations"][3]["face_valid"] = False
    (folder / "coco_wholebody_val.json").write_text(json.dumps(content))
    check(load_folder(folder), points[:3], "ibug68", 0.01)


def test_imglab_boxes_with_parts(photos):
    folder, names, points = photos
    rows = []
    for name, face in zip(names, points.round(1), strict=True):
        parts = "".join(
            f"<part name='{i:02d}' x='{x}' y='{y}'/>"
            for i, (x, y) in enumerate(face)
            if not (name == names[1] and i == 5)
        )
        rows.append(
            f"<image file='images/{name}'><box top='1' left='1' width='9' height='9'>"
            f"{parts}</box><box top='0' left='0' width='3' height='3' ignore='1'/></image>"
        )
    path = folder / "training_with_face_landmarks.xml"
    path.write_text(f"<dataset><images>{''.join(rows)}</images></dataset>")
    expected = points.round(1)
    expected[1, 5] = np.nan
    check(load_folder(folder), expected, "ibug68", 0.01)
    path.write_text("<!DOCTYPE d [<!ENTITY a 'b'>]><dataset/>")
    with pytest.raises(DataError, match="entities"):
        load_folder(folder)


def test_pts_files_may_have_any_number_of_points(photos):
    folder, names, _ = photos
    for i, name in enumerate(names):
        (folder / "images" / name).with_suffix(".pts").write_text(
            f"version: 1\nn_points: 2\n{{\n{i + 1} 5\n{i + 9} 7\n}}\n"
        )
    frames = load_folder(folder)
    assert frames.points.shape == (4, 2, 2) and frames.layout.name == "unnamed2"
    (folder / "images" / names[0]).with_suffix(".pts").write_text("{ 1 2 3 4 5 6 }")
    with pytest.raises(DataError, match="another number of points"):
        load_folder(folder)


@pytest.mark.parametrize(
    "text, said",
    [
        ("[1", "not JSON"),
        ('{"images": 5, "annotations": []}', "not COCO"),
        ("{}", "no training_"),
        ('{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2, 2]}]}', "of image 1"),
        (
            '{"images": [{"id": 1, "file_name": "gone.png"}], "annotations": '
            '[{"image_id": 1, "keypoints": [1, 2, 2]}]}',
            "gone.png is missing",
        ),
        ('{"images": [], "annotations": [{"keypoints": [1, 2]}]}', "triples"),
        ('{"images": [], "annotations": [{"keypoints": [1e9, 2, 2]}]}', "million"),
        (
            '[{"data": {"image": "img 0.png"}, "annotations": '
            '[{"result": [{"type": "keypointlabels"}]}]}]',
            "not COCO keypoints or Label Studio",
        ),
    ],
)
def test_bad_json_is_named_with_what_is_wrong(photos, text, said):
    folder = photos[0]
    (folder / "labels.json").write_text(text)
    with pytest.raises(DataError, match=rf"{said}"):
        load_folder(folder)


def test_a_layout_file_belongs_to_its_data(photos):
    folder, names, points = photos
    head = ",".join(["", *map(str, range(4))])
    (folder / "annotations.csv").write_text(
        "\n".join(
            [
                head,
                *(
                    ",".join([name, *map(str, face[[36, 45]].ravel())])
                    for name, face in zip(names, points, strict=True)
                ),
            ]
        )
        + "\n"
    )
    assert load_folder(folder).layout.name == "unnamed2"
    (folder / "layout.toml").write_text('name = "two"\nkeypoints = ["a", "b"]\n')
    assert load_folder(folder).layout.keypoints == ("a", "b")
    with pytest.raises(DataError, match="2 points per face, but layout ibug68 has 68"):
        load_folder(folder, layout="ibug68")


def test_missing_points_are_estimated_from_the_others(tiny):
    points = tiny.points.copy()
    points[::2, 60:] = np.nan
    found = complete_points(points, tiny.layout)
    length = tiny.lengths()[:, None]
    away = np.linalg.norm(found - tiny.points, axis=-1) / length
    assert (away[1::2] == 0).all() and away[::2, 60:].max() < 0.5 and away[::2, 60:].mean() < 0.1


# ---------------------------------------------------------------- label tools and back


def run(main, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    return main()


@pytest.mark.parametrize("file", ["coco.json", "label_studio.json", "imglab.xml"])
def test_predictions_for_label_tools_come_back_as_data(file, photos, monkeypatch, tmp_path_factory):
    folder, names, _ = photos
    (folder / "images" / "broken.png").write_text("no picture")
    out = tmp_path_factory.mktemp("out")
    assert run(prelabel.main, monkeypatch, folder / "images", "--out", out) == 1
    (folder / "images" / "broken.png").unlink()
    frames = load_frames(str(_beside(folder / "images", out / file)))
    assert frames.layout == load_layout() and 3 <= len(frames) <= 4
    content = json.loads((out / "coco.json").read_text())
    first = content["annotations"]
    expected = np.array([row["keypoints"] for row in first]).reshape(-1, 68, 3)[..., :2]
    np.testing.assert_allclose(frames.points, expected, atol=0.02)
    confidence = [
        min([row["score"] for row in first if row["image_id"] == image["id"]] or [-1])
        for image in content["images"]
    ]
    assert confidence == sorted(confidence), "the least confident first"


def _beside(folder, file):
    """A label file in a copy next to the photos."""
    target = folder / file.name
    target.write_bytes(file.read_bytes())
    return target


def test_the_most_doubtful_labels_are_written_first(tiny_zip, monkeypatch, tmp_path, capsys):
    frames = split_frames(load_frames(str(tiny_zip)), "person", "test")
    points = frames.points.copy()
    points[5] += 12  # one wrong label
    wrong = frames.names[5].split("/")[1]
    write_labeled_photos(tmp_path / "data", frames, points)
    run(label_audit.main, monkeypatch, tmp_path / "data", "--most", 3, "--out", tmp_path / "out")
    assert capsys.readouterr().out.splitlines()[0].endswith(f"test/{wrong}")
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert content["images"][0]["file_name"] == f"images/{wrong}"
    assert len(content["annotations"]) == 3


def test_corrected_tasks_of_label_studio_are_read(photos):
    """As its JSON export has them: the annotation counts, not the prediction; a point that was
    deleted is missing."""
    folder, names, _ = photos
    for name in names[:2]:
        cv2.imwrite(str(folder / "images" / name), np.zeros((50, 100, 3), np.uint8))

    def result(shift, labels):
        return [
            {
                "type": "keypointlabels",
                "original_width": 100,
                "original_height": 50,
                "value": {"x": 10 + shift, "y": 20.0 + 2 * i, "keypointlabels": [label]},
            }
            for i, label in enumerate(labels)
        ]

    tasks = [
        {
            "id": 1,
            "data": {"img": f"/data/upload/1/8b3c-{names[0]}"},
            "annotations": [{"result": result(0, ["tip", "left", "right"])}],
            "predictions": [{"result": result(40, ["tip"])}],
        },
        {
            "id": 2,
            "data": {"img": names[1]},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {"result": result(5, ["tip", "right"])},
            ],
        },
    ]
    (folder / "export.json").write_text(json.dumps(tasks))
    frames = load_folder(folder)
    assert frames.layout.keypoints == ("left", "right", "tip") and frames.kind == "label studio"
    np.testing.assert_allclose(frames.points[0], [[9.5, 10.5], [9.5, 11.5], [9.5, 9.5]], atol=1e-4)
    assert np.isnan(frames.points[1, 0]).all() and frames.points[1, 2, 0] == pytest.approx(14.5)
    for change, said in (
        ({"image_rotation": 90}, "rotated"),
        ({"original_height": 60}, "labeled on 100×60 pixels"),
        ({"value": {"x": 1, "y": 2, "keypointlabels": ["left"]}}, "'left' twice"),
    ):
        wrong = json.loads(json.dumps(tasks))
        wrong[0]["annotations"][0]["result"][0] |= change
        (folder / "export.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=said):
            load_folder(folder)


def coco_of(names, rows):
    """A COCO file of one photo for each row of keypoints (k, 2)."""
    return {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(len(rows))],
        "categories": [{"id": 1, "keypoints": names}],
        "annotations": [
            {"image_id": n, "category_id": 1, "keypoints": [v for x, y in row for v in (x, y, 2)]}
            for n, row in enumerate(rows)
        ],
    }


def test_labels_that_disagree_are_put_in_order_or_refused(tmp_path):
    for n in range(3):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.zeros((60, 90, 3), np.uint8))
    first = coco_of(["nose", "left eye", "right eye"], [[(1, 2), (30, 4), (5, 6)]])
    second = coco_of(["right eye", "nose", "left eye"], [[(50, 6), (7, 8), (9, 10)]])
    second["images"][0]["file_name"] = "1.png"

    def save(**files):
        for path in tmp_path.glob("*.json"):
            path.unlink()
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))

    save(a=first, b=second)
    frames = load_folder(tmp_path)
    np.testing.assert_array_equal(frames.points[1], [[7, 8], [9, 10], [50, 6]])
    other = coco_of(["a", "b", "c"], [[(1, 2), (30, 4), (5, 6)]])
    twice = json.loads(json.dumps(first))
    twice["images"] *= 2
    tasks = [
        {
            "data": {"image": "2.png"},
            "annotations": [
                {
                    "result": [
                        {
                            "type": "keypointlabels",
                            "original_width": 90,
                            "original_height": 60,
                            "value": {"x": x, "y": 20, "keypointlabels": [name]},
                        }
                        for x, name in ((10, "nose"), (50, "left eye"), (30, "right eye"))
                    ]
                }
            ],
        }
    ]
    for files, said in (
        ({"a": first, "b": other}, "other keypoints than the first"),
        ({"a": twice}, "two images have the id '0'"),
        ({"a": first, "b": tasks}, "two formats, a.json and b.json"),
    ):
        save(**files)
        with pytest.raises(DataError, match=said):
            load_folder(tmp_path)
    save(a=first)
    (tmp_path / "0.pts").write_text("version: 1\nn_points: 2\n{\n1 2\n3 4\n}\n")
    with pytest.raises(DataError, match="two formats"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        [{"data": {"image": "img 0.png"}, "annotations": [None]}],
        ["data"],
        {"images": [None], "annotations": [], "categories": []},
        {"images": [], "annotations": [], "categories": "x"},
        {"images": [], "annotations": [None], "categories": []},
        [{"data": [], "annotations": [{"result": [{"type": "keypointlabels"}]}]}],
        [
            {
                "data": {"image": "img 0.png"},
                "annotations": [
                    {
                        "result": [
                            {
                                "type": "keypointlabels",
                                "original_width": 9,
                                "original_height": 9,
                                "value": {"x": 1, "y": 2, "keypointlabels": []},
                            }
                        ]
                    }
                ],
            }
        ],
    ],
)
def test_values_of_other_types_are_named_with_their_file(content, photos):
    folder, _, _ = photos
    (folder / "labels.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"labels\.json|no training_frames"):
        load_folder(folder)


def test_yolo_labels_that_the_library_writes_are_read_again(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    writer, faces = YoloWriter(tmp_path), []
    for name, count in (("a.png", 2), ("b.jpg", 1), ("empty.png", 0)):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((120, 200, 3), np.uint8))
        here = []
        for points in rng.uniform(10, 110, (count, 68, 2)).astype(np.float32):
            here.append(Face(tight_box(points), points, 1.0, point_visibility=rng.random(68)))
        writer.write(name, (120, 200), here)
        faces += here
    writer.close()
    with pytest.raises(DataError, match=r"a.png has the same labels file"):
        writer.write("a.jpg", (120, 200), [])
    frames = load_folder(tmp_path)
    assert list(frames.names) == ["test/images/a.png", "test/images/a.png#2", "test/images/b.jpg"]
    np.testing.assert_allclose(frames.points, [face.points for face in faces], atol=2e-4)
    seen = np.array([face.point_visibility >= 0.5 for face in faces])
    np.testing.assert_array_equal(frames.visible, seen)
    assert frames.layout == load_layout()
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("[68, 3]", "[4, 3]"))
    with pytest.raises(DataError, match="flip_idx"):
        load_folder(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "labels" / "b.txt").write_text("0 1 2\n")
    with pytest.raises(DataError, match="b.txt: line 1: 3 numbers; 209 are needed"):
        load_folder(tmp_path)


def test_mat_files_read_nothing_outside_of_themselves(tmp_path):
    h5py = pytest.importorskip("h5py", reason="reading .mat files needs h5py")
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "COFW_test.mat", "w") as file:
        where = [(str(tmp_path / "secret"), 0, 8)]
        image = file.create_dataset("image", (1, 8), "uint8", external=where)
        file["phisT"] = np.zeros((87, 1))
        file["IsT"] = np.array([[image.ref]], h5py.ref_dtype)
    with pytest.raises(DataError, match="lie in another file"):
        load_folder(tmp_path)
