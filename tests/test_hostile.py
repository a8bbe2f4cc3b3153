"""What strangers' files and careless hands did to the commands once, command by command, and must
not do again."""

import functools
import io
import os
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from conftest import HOME, one_line_error, write_photo
from PIL import Image
from test_sources import POINTS, csv_of, picture

from batch import parse
from scripts.publish import scored
from research.evaluation.prediction import check_leakage
from evaluate import score
from facial_keypoints import images
from facial_keypoints.detector import Face, KeypointDetector
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import (
    PtsWriter,
    json_line,
    pts_text,
    read_boxes,
    read_coco,
    read_json,
    read_pts,
)
from facial_keypoints.images import read_image
from facial_keypoints.video import VideoReader, VideoWriter
from research.scaling.annotate import annotate_chunk, list_names
from research.networks.checkpoints import read_checkpoint, save_checkpoint
from research.datasets import load_frames, split_frames
from research.scaling.distributed import process_group
from research.data.folders import load_folder
from research.data.tables import read_table
from research.evaluation.metrics import point_errors
from research.networks.registry import find_weights, load_checkpoint
from research.scaling.sweep import as_yaml, read_grid
from train import TrainingConfig, train
from research.training.runs import load_training_state


@pytest.fixture(scope="module")
def clip_bytes(tmp_path_factory):
    """A film of twenty noisy frames."""
    path, rng = tmp_path_factory.mktemp("clip") / "a.avi", np.random.default_rng(0)
    with VideoWriter(path, 10) as film:
        for _ in range(20):
            film.write(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    return path.read_bytes()


@pytest.fixture
def edited(tmp_path):
    """A function of what to do with a checkpoint's content -> the path of the checkpoint after
    it."""

    def edit(change):
        content = read_checkpoint(find_weights("models5"))
        content["layout"] = content["layout"].to_dict()
        change(content)
        torch.save(content, tmp_path / "edited.pt")
        return tmp_path / "edited.pt"

    return edit


# ---------------------------------------------------------------- photos and clips


def test_a_folder_of_traps_costs_no_answer_and_each_is_reported(command, tmp_path, clip_bytes):
    write_photo(tmp_path / "in/good.jpg", 3)
    (tmp_path / "in/broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in/loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "in/cut.avi").write_bytes(clip_bytes[: len(clip_bytes) // 2])
    bad = [b"broken.jpg", b"loop.jpg", b"cut.avi", b"pipe.jpg", b"pipe.mp4", b"\xff.avi"]
    os.mkfifo(tmp_path / "in/pipe.jpg")
    os.mkfifo(tmp_path / "in/pipe.mp4")
    with open(os.fsencode(tmp_path / "in") + b"/\xff.avi", "wb") as file:
        file.write(clip_bytes)
    done = command(
        "pipeline.py", tmp_path / "in", "--csv", tmp_path / "out.csv", PYTHONIOENCODING="ascii"
    )
    one_line_error(done, 1)
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == len(bad) == len(done.stderr.splitlines())
    assert any("of 20 frames" in line for line in failed) and any(
        r"\udcff.avi" in line and "rename" in line for line in failed
    )
    assert (tmp_path / "out.csv").read_text().count("good.jpg") == 1


def test_a_clip_that_is_whole_is_not_called_cut(tmp_path, clip_bytes):
    for share, cut in ((1, False), (0.5, True)):
        (tmp_path / "a.avi").write_bytes(clip_bytes[: int(share * len(clip_bytes))])
        clip = VideoReader(tmp_path / "a.avi")
        assert len(list(clip)) == clip.count and clip.cut is cut


@pytest.mark.parametrize(
    "form, known",
    [
        ("PNG", True),
        ("GIF", True),
        ("PPM", True),
        ("ICO", False),
        ("JPEG2000", False),
        ("PFM", False),
    ],
)
def test_formats_that_may_come_out_wrong_are_refused(form, known):
    file, image = io.BytesIO(), Image.fromarray(np.full((20, 30, 3), 200, np.uint8))
    if form == "PFM":
        image.convert("F").save(file, "PPM")
    else:
        image.save(file, form)
    if known:
        assert np.abs(read_image(file.getvalue()).astype(int) - 200).max() <= 2
    else:
        with pytest.raises(DataError, match="known format|32-bit"):
            read_image(file.getvalue())


def test_boxes_that_no_photo_or_no_face_can_have_are_reported(command, tmp_path, clip_bytes):
    write_photo(tmp_path / "a.jpg", 3)
    write_photo(tmp_path / "b.jpg", 4)
    (tmp_path / "c.avi").write_bytes(clip_bytes)
    (tmp_path / "boxes.csv").write_text(
        "name,left,top,width,height\na.jpg,50,50,90,90\nc.avi,1,2,30,40\n"
    )
    done = command(
        "pipeline.py",
        tmp_path / "a.jpg",
        tmp_path / "b.jpg",
        tmp_path / "c.avi",
        "--boxes",
        tmp_path / "boxes.csv",
        "--csv",
        tmp_path / "out.csv",
    )
    assert "c.avi: boxes are taken for photos" in one_line_error(done, 1)
    assert "b.jpg" in done.stderr and "have no row in" in done.stderr
    (tmp_path / "boxes.csv").write_text("name,left,top,width,height\na.jpg,50,50,1e-9,1e-30\n")
    with pytest.raises(DataError, match="line 2.*at least 1 pixel"):
        read_boxes(tmp_path / "boxes.csv")


def test_every_photo_keeps_its_own_pts_files(tmp_path):
    predictions = PtsWriter(tmp_path)
    names = ["x.jpg", "x.png", "x.png.jpg", "x-2.jpg", "../x.jpg", "a/../../x.jpg"]
    for number, name in enumerate(names):
        points = np.random.default_rng(number).uniform(0, 90, (2, 68, 2)).astype(np.float32)
        predictions.write(name, (90, 90), [Face(np.zeros(4), face, 1.0) for face in points])
    texts = {path.read_text() for path in tmp_path.rglob("*.pts")}
    assert len(texts) == 2 * len(names)


# ---------------------------------------------------------------- where predictions go


def test_outputs_never_replace_inputs(command, tmp_path, tiny_zip, tiny):
    write_photo(tmp_path / "a.jpg", 3)
    own = tmp_path / "checkpoint.pt"
    own.write_bytes(find_weights("models5").read_bytes())
    before = own.read_bytes()
    assert "one of the inputs" in one_line_error(
        command("pipeline.py", tmp_path / "a.jpg", "--net", own, "--csv", own), 2
    )
    with pytest.raises(UsageError, match="overwritten"):
        train(TrainingConfig("models5", epochs=1, init=str(own)), tiny, None, tmp_path)
    assert "overwritten" in one_line_error(command("models.py", "export", own, "--onnx", own), 2)
    assert own.read_bytes() == before


@pytest.mark.parametrize("option", ["--csv", "--json", "--pts", "--draw", "--boxes", ""])
def test_names_of_unset_variables_are_refused(command, tmp_path, option):
    words = ["photo.jpg", option, ""] if option else [""]
    assert "unset shell variable" in one_line_error(command("pipeline.py", *words), 2)


def test_an_output_that_is_a_folder_is_refused_first(command, tmp_path):
    write_photo(tmp_path / "a.jpg", 3)
    done = command("pipeline.py", tmp_path / "a.jpg", "--csv", tmp_path)
    assert "it is a folder" in one_line_error(done, 1) and "a.jpg:" not in done.stdout


def test_work_continues_when_the_reader_closes_the_pipe(tmp_path):
    """`… | head -1` takes its line and leaves; what the call is for, and what it tells by its exit
    code, stay the same."""
    for name in "ab":
        write_photo(tmp_path / f"{name}.jpg", 3)
    (tmp_path / "bad.jpg").write_bytes(b"no")
    words = [
        sys.executable,
        "-u",
        HOME / "pipeline.py",
        *sorted(tmp_path.glob("*.jpg")),
        "--csv",
        tmp_path / "out.csv",
    ]
    call = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    call.stdout.close()
    assert b"bad.jpg" in call.stderr.read() and call.wait(100) == 1
    assert (tmp_path / "out.csv").read_text().count("\n") == 3
    closed = subprocess.run(
        " ".join(map(repr, map(str, words))) + " >&-", shell=True, capture_output=True, text=True
    )
    one_line_error(closed, 1)


# ---------------------------------------------------------------- tables, lists, JSON


def test_numbers_beyond_any_picture_are_mistakes(tmp_path):
    far = POINTS[:1] * np.float32(1e15)
    with pytest.raises(DataError, match="line 2.*million pixels"):
        read_table(csv_of(far, ["A_00.jpg"]).encode(), "far.csv")
    with pytest.raises(DataError, match="far.pts.*million pixels"):
        read_pts(pts_text(far[0]), "far.pts")
    with pytest.raises(DataError, match="no numbers"):
        point_errors(np.full((1, 68, 2), np.nan), POINTS[:1])


def test_endless_names_do_not_take_the_memory(tmp_path):
    with pytest.raises(DataError, match="more than 500 characters"):
        read_table(csv_of(POINTS[:2], ["A_00.jpg", "B" * 3_000_000]).encode(), "long.csv")
    with zipfile.ZipFile(tmp_path / "long.zip", "w") as archive:
        archive.writestr(
            "x" * 60_000 + "/training_frames_keypoints.csv", csv_of(POINTS[:1], ["A_00.jpg"])
        )
        archive.writestr("x" * 60_000 + "/training/A_00.jpg", picture())
    with pytest.raises(DataError, match="long.zip.*more than 500 characters"):
        load_folder(tmp_path / "long.zip")
    with open(tmp_path / "sparse.txt", "wb") as file:
        file.truncate(10**13)  # takes no room on the disk
    for read in (read_json, read_coco, read_boxes, read_grid):
        with pytest.raises(DataError, match="sparse.txt.*at most"):
            read(tmp_path / "sparse.txt")


def test_signs_that_end_lines_elsewhere_are_part_of_names(tmp_path):
    names = ["a\u2028b.jpg", "a\x85b.jpg", "a\x0bb.jpg", "a\x1cb.jpg"]
    face = Face(np.ones(4), POINTS[0], 1.0)
    (tmp_path / "a.json").write_text(
        "".join(json_line(name, face) for name in names), encoding="utf-8"
    )
    assert [row["name"] for row in read_json(tmp_path / "a.json")] == names
    (tmp_path / "list.txt").write_text(
        "\r\n".join(str(tmp_path / name) for name in names) + "\r\n \r\n", encoding="utf-8"
    )
    assert [os.path.basename(name) for name in list_names([tmp_path / "list.txt"])] == names


def test_lists_with_invalid_addresses_are_reported(tmp_path):
    (tmp_path / "list.txt").write_text("http://[x/a.jpg\n/there/a.jpg\n")
    assert list(list_names([tmp_path / "list.txt"])) == ["http://[x/a.jpg", "/there/a.jpg"]
    pytest.importorskip("fsspec", reason="optional: pip install fsspec")
    rows, bad = annotate_chunk(["http://[x/a.jpg"], "models5", "haar", 0.5)
    assert not rows and "\n" not in bad["http://[x/a.jpg"] and len(bad["http://[x/a.jpg"]) < 500


# ---------------------------------------------------------------- checkpoints


def test_weights_that_answer_nonsense_are_reported_not_written(edited, tiny_zip, tmp_path):
    # finite, not for long
    path = edited(lambda c: c["state_dict"].update({"axes.weight": torch.full((288, 128), 1e38)}))
    with pytest.raises(DataError, match="edited.pt.*broken"):
        KeypointDetector(path, detector=None).predict_boxes(
            np.full((99, 99, 3), 90, np.uint8), [[10, 10, 60, 60]]
        )
    frames = split_frames(load_frames(str(tiny_zip)), "person", "test")
    with pytest.raises(DataError, match="edited.pt.*broken"):
        score(path, frames, allow_leak=True)


def test_checkpoints_made_by_hand_are_reported_in_one_line(edited, tiny_zip, tmp_path):
    whole = edited(
        lambda c: c["state_dict"].update({k: v.long() for k, v in c["state_dict"].items()})
    )
    with pytest.raises(DataError, match="another kind"):
        load_checkpoint(whole)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(DataError, match="never unpickled") as error:
        read_checkpoint(tmp_path / "module.pt")
    assert str(error.value).isprintable()
    bare = edited(lambda c: c.update(data={}))
    with pytest.raises(DataError, match="edited.pt.*on which split"):
        scored(bare, "x", str(tiny_zip))


@pytest.mark.parametrize("part", ["params", "metrics", "data"])
@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3),
        [torch.zeros(2)],
        {"deep": {"deeper": torch.ones(1)}},
        {1: 2},
        functools.reduce(lambda inner, _: [inner], range(60), 0),
    ],
)
def test_checkpoints_hold_text_and_numbers_next_to_the_weights(part, value, edited):
    with pytest.raises(DataError, match="edited.pt: not a checkpoint of this project"):
        read_checkpoint(edited(lambda c: c[part].update(extra=value)))


@pytest.mark.parametrize(
    "change",
    [
        {"history": 3},
        {"history": [3]},
        {"history": [{"epoch": torch.ones(1), "seconds": 1.0}]},
        {"history": [{"epoch": "one", "seconds": 1.0}]},
        {"history": [{}]},
        {"best": 3.0},
        {"best": {"nme": "low"}},
        {"best": {}},
        {"params": []},
        {"params": {"lr": torch.ones(2)}},
        {"data": None},
        {"state": []},
        {"state": {"net": torch.ones(2)}},
    ],
)
def test_a_state_made_by_hand_is_not_resumed_from(change, tmp_path):
    states = {name: torch.nn.Linear(2, 2).state_dict() for name in ("net", "averaged")}
    whole = {
        "history": [{"epoch": 1, "seconds": 0.1}],
        "best": {"nme": 5.0, "epoch": 1},
        "params": {"lr": 0.1, "loss": "wing"},
        "data": {"frames": []},
        "state": states,
    }
    parts = {name: torch.nn.Linear(2, 2) for name in states}
    torch.save(whole, tmp_path / "last.pt")
    load_training_state(tmp_path / "last.pt", parts, whole["params"], whole["data"])
    torch.save(whole | change, tmp_path / "last.pt")
    with pytest.raises(DataError, match="last.pt: cannot be resumed from"):
        load_training_state(tmp_path / "last.pt", parts, whole["params"], whole["data"])


def test_a_long_list_of_frames_takes_the_room_of_its_letters(edited, tiny_zip):
    path = edited(
        lambda c: c["data"].update(
            frames=["x" * 3_000_000] + [f"training/{i}.jpg" for i in range(20_000)]
        )
    )
    frames = split_frames(load_frames(str(tiny_zip)), "person", "test")
    check_leakage(read_checkpoint(path), frames, path)


# ---------------------------------------------------------------- parameters


def test_parameters_reach_notebooks_as_they_were_given(tmp_path):
    import yaml

    given = {"lr": 0.00001, "data": "set\U0001f600.zip", "odd": "a: [b", "seed": 3, "bar": False}
    assert yaml.safe_load(as_yaml(given)) == given
    assert parse(["lr=1j", "epochs={1,2}", "x=" + "-" * 20_000 + "1"]) == {
        "lr": "1j",
        "epochs": "{1,2}",
        "x": "-" * 20_000 + "1",
    }


def test_a_parameter_is_not_taken_for_another_ones_value(command):
    assert "put it first" in one_line_error(command("batch.py", "--net", "models4", "epochs=1"), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--epochs", "1" + "0" * 400),
        ("--batch-size", "1" + "0" * 400),
        ("--workers", "9" * 300),
        ("--device", "hpu"),
    ],
)
def test_numbers_and_devices_that_no_machine_has(command, arguments, tmp_path):
    assert (
        len(one_line_error(command("train.py", "--epochs", 1, *arguments, "--out", tmp_path), 2))
        < 700
    )


def test_an_audit_asks_for_what_it_needs_before_it_trains(command, tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr(
            "training_frames_keypoints.csv", csv_of(POINTS[:2], ["A_00.jpg", "A_01.jpg"])
        )
        archive.writestr("test_frames_keypoints.csv", csv_of(POINTS[:1], ["B_00.jpg"]))
        for name, form in (
            ("training/A_00.jpg", "JPEG"),
            ("training/A_01.jpg", "PNG"),
            ("test/B_00.jpg", "BMP"),
        ):
            archive.writestr(name, picture(form))
    assert "too few people" in one_line_error(
        command("benchmarks/label_quality.py", "--data", tmp_path / "one.zip", "--epochs", 1), 1
    )
    assert "name ends in" in one_line_error(
        command("benchmarks/label_quality.py", "--doubtful", tmp_path / "x.xyz"), 2
    )
    assert "is not from" in one_line_error(
        command("benchmarks/label_quality.py", "--shift", "nan", "nan"), 2
    )


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    from research.synthetic.faces import VERSION, sample_archive

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "facial-keypoints" / f"sample-v{VERSION}-2-0.zip"
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 and no more")
    assert sample_archive(people=2) == path and len(load_frames(str(path))) == 16


# ---------------------------------------------------------------- second round


def test_a_flipped_bit_in_weights_is_found(tmp_path):
    """PyTorch itself reads such files with changed weights."""
    content = read_checkpoint(find_weights("models4"))
    whole = tmp_path / "whole.pt"
    save_checkpoint(whole, "models4", content["state_dict"], {}, {}, content["data"])
    data, rng = whole.read_bytes(), np.random.default_rng(0)
    read_checkpoint(whole)
    changed = 0
    for place in rng.integers(2000, len(data) - 20_000, 25):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "flipped.pt").write_bytes(flipped)
        try:
            found = read_checkpoint(tmp_path / "flipped.pt")["state_dict"]
        except DataError as error:
            changed += "flipped.pt" in str(error)
            continue
        # between the parts of the archive there is padding
        assert all(
            torch.equal(found[key], content["state_dict"][key].float().to(found[key].dtype))
            for key in found
        )
    assert changed > 20


def test_control_characters_do_not_reach_the_terminal(command, tmp_path):
    name = "\x1b]0;title\x07\nfailed: forged\r\x9b2J\u202e.jpg"
    (tmp_path / name).write_text("no picture")
    write_photo(tmp_path / "good\x1b[31m.png", 3)
    done = command("pipeline.py", tmp_path, "--csv", tmp_path / "out.csv")
    printed = done.stdout + done.stderr
    assert done.returncode == 1 and not any(ord(c) < 32 and c != "\n" for c in printed)
    assert not {"\x7f", "\x9b", "\u202e"} & {*printed} and "\\x1b" in printed
    assert not any(line.startswith("failed: forged") for line in printed.splitlines())
    assert "good\x1b[31m.png" in (tmp_path / "out.csv").read_text(), "files keep the true name"


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "name,left,top,width,height\na.jpg,1,5,2,5,30,5,40,5\n",
            "line 2: more cells than columns",
        ),
        ("name,left,top,width,height,left\na.jpg,1,2,30,40,5\n", "column left is in it twice"),
        (
            "name,left,top,width,height," + ",".join(map(str, range(10**5))) + "\na,1,2,3,4\n",
            "columns, at most",
        ),
    ],
)
def test_boxes_that_could_be_read_in_two_ways_are_refused(text, said, tmp_path):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DataError, match=f"boxes.csv: .*{said}"):
        read_boxes(tmp_path / "boxes.csv")


@pytest.mark.parametrize(
    "head, line, said",
    [
        ("0,1,2,3", "1,5,2,5,3,5,4,5", "line 2: 9 cells for 5 columns"),
        ("0,1,1", "1,2,3", "column 1 is in it twice"),
        (",".join(map(str, range(10**5))), "1", "columns, at most"),
    ],
)
def test_tables_that_could_be_read_in_two_ways_are_refused(head, line, said):
    with pytest.raises(DataError, match=f"t.csv: .*{said}"):
        read_table(f"name,{head}\na.jpg,{line}\n".encode(), "t.csv")


def test_archives_with_an_entry_twice_or_of_the_future_are_refused(tmp_path):
    path = tmp_path / "v.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a.pts", "b")
        archive.writestr("a.pts", "c")
    with pytest.raises(DataError, match="a.pts is in it twice"):
        load_folder(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 6] = 255  # the version that is needed to extract it
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"v\.zip: a damaged zip archive"):
        load_folder(path)


def test_a_damaged_pillow_image_is_a_data_error(hopper):
    image = Image.open(io.BytesIO(hopper[0].read_bytes()[:3000]))
    with pytest.raises(DataError, match="Pillow cannot decode it"):
        KeypointDetector(detector=None).predict_boxes(image, [[0, 0, 50, 50]])


def test_paths_of_a_thousand_folders_are_one_line(command, tmp_path):
    write_photo(tmp_path / "photo.png", 3)
    done = command("pipeline.py", tmp_path / "photo.png", "--csv", tmp_path / ("x/" * 2000 + "y"))
    assert "cannot be written" in one_line_error(done, 1)


def test_a_pipe_that_takes_the_place_of_a_photo_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "photo.png")
    monkeypatch.setattr(images, "size_of", lambda path: 1000)  # it was a file a moment ago
    with pytest.raises(DataError, match=r"photo\.png: cannot be read .*not a file"):
        read_image(tmp_path / "photo.png")


def test_a_current_folder_that_was_deleted_is_named(hopper, tmp_path):
    done = subprocess.run(
        [
            "sh",
            "-c",
            'mkdir gone && cd gone && rmdir ../gone && exec "$@"',
            "sh",
            sys.executable,
            "-P",
            HOME / "pipeline.py",
            hopper[0],
            "--csv",
            "out.csv",
            "--runtime",
            "onnx",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert "the current folder was deleted" in one_line_error(done, 1)


@pytest.mark.parametrize(
    "text", ['lr: !!int ""', "lr: !!bool x", "lr: !!timestamp x", 'lr: !!float ""']
)
def test_yaml_tags_that_fail_are_named(text, tmp_path):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(DataError, match="grid.yaml: cannot be read as YAML"):
        read_grid(tmp_path / "grid.yaml")


def test_a_world_size_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(UsageError, match="WORLD_SIZE"):
        process_group("cpu")
