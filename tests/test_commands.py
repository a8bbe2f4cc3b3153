"""What every command does: ends cleanly by signals, keeps quiet, goes past what fails."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import HOME

from facial_keypoints.errors import DataError
from facial_keypoints.images import read_image
from facial_keypoints.predict_files import list_photos

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def hidden_files(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT"])
def test_a_signal_removes_temporary_files(name, tmp_path, hopper):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(200):
        shutil.copy(hopper[0], photos / f"{number}.jpg")
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "facial_keypoints", photos, "--csv", out / "points.csv"],
        cwd=HOME,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not hidden_files(out) and time.monotonic() < until:
        time.sleep(0.02)
    assert hidden_files(out)  # the table is being written
    process.send_signal(getattr(signal, name))
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + getattr(signal, name)
    assert error.strip().splitlines()[-1] == "stopped" and "Traceback" not in error
    assert list(out.iterdir()) == []


@posix
def test_ignored_signals_stay_ignored():
    code = (
        "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from facial_keypoints.command import run_command;"
        "run_command(lambda: os.kill(os.getpid(), signal.SIGHUP) or 7)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=HOME).returncode == 7


@posix
def test_children_end_by_signals_as_before():
    code = (
        "import os, signal; from facial_keypoints.command import run_command\n"
        "def main():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(3)\n"
        "    return os.WTERMSIG(os.waitpid(child, 0)[1])\n"
        "run_command(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == signal.SIGTERM and done.stderr == ""


def damaged_photos(folder, hopper):
    """Photos about which libjpeg and libpng print lines."""
    folder.mkdir()
    data = open(hopper[0], "rb").read()
    png = cv2.imencode(".png", np.zeros((60, 60, 3), np.uint8))[1].tobytes()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(data[:20000] + bytes(500) + data[20500:])
        (folder / f"{number}.png").write_bytes(png[:60] + b"\xff" * 30 + png[90:])
    return folder


@posix
def test_libraries_do_not_print_between_our_lines(tmp_path, hopper):
    words = [sys.executable, "-m", "facial_keypoints", damaged_photos(tmp_path / "photos", hopper)]
    lines = {}
    for verbose in ("", "1"):
        done = subprocess.run(
            words,
            cwd=HOME,
            capture_output=True,
            text=True,
            env={**os.environ, "FACIAL_KEYPOINTS_VERBOSE": verbose},
        )
        lines[verbose] = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith("failed: ") for line in lines[""])
    assert len(lines["1"]) > len(lines[""])  # else this test says nothing


def test_a_folder_that_cannot_be_listed_is_one_failure(tmp_path, hopper, monkeypatch, capfd):
    from facial_keypoints.__main__ import main

    for name in ("open", "secret"):
        (tmp_path / name).mkdir()
        shutil.copy(hopper[0], tmp_path / name / "photo.jpg")
    listed = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main([str(tmp_path), "--csv", str(tmp_path / "points.csv")]) == 1
    assert "secret: cannot be listed (Permission denied)" in capfd.readouterr().err
    with open(tmp_path / "points.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["open/photo.jpg"]
    with pytest.raises(DataError, match="cannot be listed"):
        list_photos([tmp_path / "secret"], [])


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg"])
def test_names_are_no_formulas_in_a_spreadsheet(name, tmp_path, hopper):
    from facial_keypoints.__main__ import main

    (tmp_path / "photos").mkdir()
    shutil.copy(hopper[0], tmp_path / "photos" / name)
    for options, expected in (((), name), (("--spreadsheet",), f"'{name}")):
        main([str(tmp_path / "photos"), "--csv", str(tmp_path / "out.csv"), *options])
        with open(tmp_path / "out.csv", newline="") as file:
            assert [row["name"] for row in csv.DictReader(file)] == [expected]


def test_a_photo_without_enough_memory_is_one_failure(tmp_path, hopper, monkeypatch, capfd):
    from facial_keypoints.__main__ import main

    for name in ("a.jpg", "b.jpg"):
        shutil.copy(hopper[0], tmp_path / name)
    decode, calls = cv2.imdecode, []

    def imdecode(*arguments):
        calls.append(1)
        if len(calls) == 1:
            error = cv2.error("Failed to allocate")
            error.code = cv2.Error.StsNoMem
            raise error
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    assert main([str(tmp_path), "--csv", str(tmp_path / "points.csv")]) == 1
    assert "a.jpg: not enough memory" in capfd.readouterr().err
    with open(tmp_path / "points.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["b.jpg"]
    calls.clear()
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.jpg")
