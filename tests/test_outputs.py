"""No output replaces an input, another output, or labels that people may have corrected."""

import shutil

import cv2
import pytest
from conftest import one_line_error

from facial_keypoints.paths import SAVED_MODELS
from research.synthetic.faces import draw_scene

OUTPUTS = ("--csv", "--json", "--coco", "--without-faces")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), draw_scene(1, faces=1, width=240, height=200)[0][..., ::-1])
    return path


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", ["photo", "boxes", "model"])
def test_no_output_replaces_an_input(output, kind, photo, tmp_path, command):
    inputs = {name: tmp_path / name for name in ("photo.png", "boxes.csv", "own.onnx")}
    shutil.copy(photo, inputs["photo.png"])
    inputs["boxes.csv"].write_text("name,left,top,width,height\nphoto.png,60,60,80,80\n")
    shutil.copy(SAVED_MODELS / "models5.onnx", inputs["own.onnx"])
    before = {name: path.read_bytes() for name, path in inputs.items()}
    target = {"photo": "photo.png", "boxes": "boxes.csv", "model": "own.onnx"}[kind]
    words = [inputs["photo.png"], "--boxes", inputs["boxes.csv"], "--net", inputs["own.onnx"]]
    done = command("pipeline.py", *words, output, inputs[target])
    assert "is one of the inputs" in one_line_error(done, 2)
    assert {name: path.read_bytes() for name, path in inputs.items()} == before


@pytest.mark.parametrize("first", OUTPUTS)
@pytest.mark.parametrize("second", OUTPUTS)
def test_two_outputs_never_share_a_place(first, second, photo, tmp_path, command):
    if first >= second:
        return
    same = tmp_path / "same"
    done = command("pipeline.py", photo, first, same, second, same)
    assert "two outputs would go to" in one_line_error(done, 2) and not same.exists()
    done = command("pipeline.py", photo, first, "-", second, "-")
    said = one_line_error(done, 2)
    assert "standard output takes one" in said or "takes the name of a file" in said


@pytest.mark.parametrize("file", OUTPUTS)
@pytest.mark.parametrize("folder", ["--pts", "--yolo", "--align"])
def test_a_file_and_a_folder_never_share_a_name(file, folder, photo, tmp_path, command):
    same = tmp_path / "same"
    done = command("pipeline.py", photo, file, same, folder, same)
    assert "name of a file and of a folder" in one_line_error(done, 2) and not same.exists()


def test_labels_are_replaced_only_on_request(photo, tmp_path, python):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photo, folder)
    words = ["-m", "research.labeling.prelabel", folder, "--out", folder]
    assert python(words).returncode == 0
    (folder / "coco.json").write_text("corrected")
    assert "may hold corrected labels" in one_line_error(python(words), 2)
    assert (folder / "coco.json").read_text() == "corrected"
    assert python([*words, "--overwrite"]).returncode == 0
    words = ["-m", "research.labeling.label_audit", folder / "coco.json", "--out", folder]
    before = (folder / "coco.json").read_bytes()
    for more in ([], ["--overwrite"]):
        assert one_line_error(python([*words, *more]), 2)
    assert (folder / "coco.json").read_bytes() == before
