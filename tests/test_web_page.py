"""What the web page is built from, without a browser: `make test-browser` tests the page itself."""

import hashlib
import io
import json
import os
import tarfile
import urllib.request

import pytest

from facial_keypoints import detector, layouts
from facial_keypoints.errors import DataError, UsageError
from research import web_page
from research.reporting import notebook


def fake_npm(folder, monkeypatch, archive):
    """Make `npm pack` bring an archive; a Python script in place of npm."""
    (folder / "archive").write_bytes(archive)
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\ncp {folder / 'archive'} package.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=os.pathsep)
    monkeypatch.setattr(web_page, "PACKAGES", folder / "packages")


def archive_of(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return data.getvalue()


def runtime_archive():
    return archive_of({f"dist/{name}": name.encode() for name in web_page.RUNTIME_FILES})


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that brings a small archive with the right hash."""
    archive = runtime_archive()
    monkeypatch.setitem(
        web_page.NPM, "onnxruntime-web", ("1.2.3", hashlib.sha256(archive).hexdigest())
    )
    fake_npm(tmp_path, monkeypatch, archive)


def test_the_folder_holds_all_that_is_published(npm, tmp_path):
    folder = web_page.build(tmp_path / "page")
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {
        "index.html",
        "settings.json",
        "models7.onnx",
        "models8.onnx",
        "licenses.txt",
        "pyramid.onnx",
        "sunglasses.png",
        *(f"onnxruntime/{name}" for name in web_page.RUNTIME_FILES),
    } <= names
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["refine"]["maxLoss"] == detector.MAX_REFINE_LOSS
    assert len(settings["head"]) == 68 and len(settings["searches"]) == 2
    for values in settings["layouts"]:
        assert layouts.layout_from(values, "settings") == layouts.load_layout(values["name"])
    assert all((folder / example["file"]).is_file() for example in settings["examples"])
    text = (folder / "licenses.txt").read_text()
    assert "MIT License" in text and "Microsoft" in text
    assert web_page.build(folder) == folder  # again, over itself


def test_a_folder_with_other_files_is_not_replaced(npm, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not a page that was built"):
        web_page.build(tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_an_archive_with_another_hash_is_refused(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, archive_of({"index.js": b"something else"}))
    with pytest.raises(DataError, match="sha256"):
        web_page.npm_package("onnxruntime-web")
    assert not list((tmp_path / "packages").iterdir())


def test_a_missing_npm_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(web_page, "PACKAGES", tmp_path / "packages")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm is needed"):
        web_page.npm_package("axe-core")
    monkeypatch.setattr(notebook, "has_front_end", lambda: True)
    web_page.serve_once.cache_clear()
    notebook.live_camera()
    assert "npm is needed" in capsys.readouterr().out


def test_live_camera_is_silent_without_a_front_end(capsys):
    notebook.live_camera()
    assert capsys.readouterr().out == ""


def test_files_are_served_with_their_types(tmp_path):
    for name in ("a.js", "b.wasm", "c.mjs"):
        (tmp_path / name).write_text("x")
    with web_page.served(tmp_path) as address:
        types = [
            urllib.request.urlopen(address + name).headers["Content-Type"]
            for name in ("a.js", "b.wasm", "c.mjs")
        ]
    assert types == ["text/javascript", "application/wasm", "text/javascript"]


def test_a_port_that_is_taken_is_reported(tmp_path):
    with web_page.served(tmp_path) as address:
        port = int(address.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(UsageError, match="--port"):
            web_page.start_server(tmp_path, port)


def test_camera_frames_are_searched_for_large_faces(hopper):
    camera = web_page.CameraDetector(portraits=False)
    assert camera.fallback is None
    boxes, _, _ = camera.detect(hopper[1])
    assert len(boxes) and boxes[:, 2].min() > web_page.CAMERA_SHARE * max(hopper[1].shape[:2])
