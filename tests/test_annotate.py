"""Annotation of many photos: every face once, whatever dies; bad photos reported; a second call
does what is missing."""

import http.server
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import HOME, one_line_error, write_photo

from research.scaling import annotate
from research.scaling.annotate import chunk_size, chunks_of, annotate_here, list_names, read

pytest.importorskip("pyarrow", reason="optional: pip install pyarrow")
import pyarrow.parquet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photos with a face each, some in folders of folders, and one that is no photo."""
    home = tmp_path_factory.mktemp("photos")
    for i in range(12):
        write_photo(home / ("a" if i % 2 else "b/c") / f"{i:02d}.png", i)
    (home / "a" / "bad.jpg").write_bytes(b"no photo")
    (home / "notes.txt.bak").write_text("not a photo")
    return home


def rows(out):
    tables = [pyarrow.parquet.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def keys(out):
    """(name, face) of all rows, none of them twice."""
    found = [(row["name"], row["face"]) for row in rows(out)]
    assert len(set(found)) == len(found)
    return set(found)


def test_a_second_call_does_what_is_missing(folder, command, tmp_path):
    out = tmp_path / "out"
    done = command(
        "research.scaling.annotate", folder / "a", "--out", out, "--chunk", 3, "--workers", 1
    )
    assert (
        done.returncode == 1
        and "bad.jpg" in done.stderr
        and "7 photos to do, 0 done before" in done.stdout
    )
    first = keys(out)
    again = command("research.scaling.annotate", folder, "--out", out, "--chunk", 3, "--workers", 2)
    assert "7 photos to do, 6 done before" in again.stdout and "bad.jpg" in again.stderr, (
        "what has no prediction is tried again"
    )
    assert first < keys(out) and len({name for name, _ in keys(out)}) >= 10
    assert all(
        len(row["points"]) == 136 and len(row["box"]) == 4 and len(row["point_confidence"]) == 68
        for row in rows(out)
    )
    other = command("research.scaling.annotate", folder, "--out", out, "--net", "models4")
    assert "another --out" in one_line_error(other, 2)


def test_small_jobs_are_divided_among_the_workers():
    for photos, workers, size in ((300, 2, 10), (3, 2, 1), (10**6, 8, 500), (1, 64, 1)):
        assert chunk_size(photos, workers) == size


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(folder, command, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begun = time.monotonic()
    command("research.scaling.annotate", folder, "--out", whole, "--chunk", 2, "--workers", 1)
    spent = time.monotonic() - begun
    for _ in range(2):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "research.scaling.annotate",
                str(folder),
                "--out",
                str(broken),
                "--chunk",
                "2",
                "--workers",
                "1",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(random.uniform(0.3, 1) * spent)
        process.send_signal(signal.SIGKILL)
        process.wait()
    command("research.scaling.annotate", folder, "--out", broken, "--chunk", 5, "--workers", 2)
    assert sorted(map(str, rows(broken))) == sorted(map(str, rows(whole))), (
        "to the last digit, by two workers as by one"
    )


def test_a_full_disk_keeps_what_is_done(folder, command, tmp_path):
    resource = pytest.importorskip(
        "resource", reason="needs limits on the size of files, which Windows has not"
    )
    out = tmp_path / "out"
    assert (
        command("research.scaling.annotate", folder / "b", "--out", out, "--workers", 1).returncode
        == 0
    )
    before = {path.name: path.read_bytes() for path in out.glob("part-*")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "research.scaling.annotate",
            str(folder / "a"),
            "--out",
            str(out),
            "--workers",
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert "cannot be written" in one_line_error(done, 1)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name[0] != "."} == before


def test_new_weights_of_the_same_name_start_a_new_annotation(folder, command, tmp_path):
    weights = tmp_path / "mine.pt"
    weights.write_bytes((HOME / "saved_models" / "models4.pt").read_bytes())
    words = [
        "research.scaling.annotate",
        folder / "a" / "01.png",
        "--out",
        tmp_path / "out",
        "--net",
        weights,
        "--workers",
        1,
    ]
    assert command(*words).returncode == 0
    weights.write_bytes((HOME / "saved_models" / "models5.pt").read_bytes())
    assert "another --out" in one_line_error(command(*words), 2)


def deadly(names, *arguments):
    """What takes its process with it at one photo, as one that is too large would."""
    if any(name.endswith("05.png") for name in names):
        os.kill(os.getpid(), signal.SIGKILL)
    return annotate_chunk(names, *arguments)


annotate_chunk = annotate.annotate_chunk


def test_a_photo_that_kills_its_process_is_found(folder, monkeypatch):
    monkeypatch.setattr(annotate, "annotate_chunk", deadly)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HOME), str(HOME / "tests")]))
    names = [name for name in list_names([folder]) if not name.endswith(".jpg")]
    ended = list(annotate_here(chunks_of(names, 4), ("models5", "haar", 0.5), 2))
    assert sorted(name for chunk, _, _ in ended for name in chunk) == sorted(names)
    bad = {name: reason for _, _, wrong in ended for name, reason in wrong.items()}
    assert (
        len(bad) == 1 and next(iter(bad)).endswith("05.png") and "died" in next(iter(bad.values()))
    )
    assert len({row[0] for _, found, _ in ended for row in found}) >= 9


def test_two_runs_into_one_folder_do_not_mix(folder, command, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        done = command("research.scaling.annotate", folder, "--out", tmp_path / "out")
    assert "another run" in one_line_error(done, 2)


def test_lists_globs_and_addresses_name_photos(folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder}/b\n\n{folder}/a/01.png\n")
    names = list(list_names([listed, f"{folder}/a/*.png", f"{folder}/a/01.png"]))
    assert len(names) == 12 and len(set(names)) == 12
    listed.write_text(
        f"{folder}/gone[1].png\nhttp://127.0.0.1:9/photo/123\nhttp://127.0.0.1:9/a.jpg?size=2\n"
    )
    assert len(list(list_names([listed]))) == 3, (
        "what a list names and is not there is reported when it is read"
    )
    pytest.importorskip("fsspec", reason="optional: pip install fsspec")
    with pytest.raises(annotate.DataError, match="cannot be read"):
        read("http://127.0.0.1:9/photo/123")
    found = list(list_names([f"file://{folder}/a"]))
    assert len(found) == 7 and read(
        next(name for name in found if name.endswith("03.png"))
    ).shape == (200, 200, 3)
    with pytest.raises(annotate.DataError, match="no such photo"):
        list(list_names([tmp_path / "none"]))


class BadServer(http.server.BaseHTTPRequestHandler):
    """A web server that lies about lengths, breaks off, sends other things, or says nothing."""

    protocol_version = "HTTP/1.1"
    photo = b""

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        kind, photo = self.path.strip("/").removesuffix(".png"), self.photo
        self.close_connection = True
        if kind == "silent":
            time.sleep(5)
        elif kind == "garbage":
            self.wfile.write(b"\0\1 not a protocol\r\n\r\n")
        elif kind in ("error", "missing"):
            self.send_error({"error": 500, "missing": 404}[kind])
        elif kind != "closed":
            body = {"short": photo[:100], "page": b"<html>sorry</html>", "empty": b""}
            length = {"short": len(photo), "negative": -5, "endless": 10**15}
            self.send_response(302 if kind in ("circle", "file") else 200)
            self.send_header("Location", {"file": "file:///etc/passwd"}.get(kind, self.path))
            self.send_header("Content-Length", length.get(kind, len(body.get(kind, photo))))
            self.send_header("Content-Encoding", "gzip" if kind == "packed" else "identity")
            self.end_headers()
            self.wfile.write(b"" if head else body.get(kind, photo))

    def log_message(self, *arguments):
        pass


def test_web_servers_that_lie_are_reported_and_cost_no_other_photo(folder, monkeypatch):
    pytest.importorskip("fsspec", reason="optional: pip install fsspec")
    pytest.importorskip("aiohttp", reason="optional: pip install aiohttp")
    monkeypatch.setattr(annotate, "SILENT", 1)
    photo = (folder / "a" / "01.png").read_bytes()
    kinds = [
        "good",
        "short",
        "page",
        "empty",
        "negative",
        "endless",
        "circle",
        "file",
        "packed",
        "garbage",
        "error",
        "missing",
        "closed",
        "silent",
    ]
    handler = type("Handler", (BadServer,), {"photo": photo})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        names = [f"http://127.0.0.1:{server.server_port}/{kind}.png" for kind in kinds]
        rows, bad = annotate.annotate_chunk([*names, names[0]], "models5", "pyramid", 0.5)
        server.shutdown()
    assert [row[0] for row in rows] == [names[0]] * 2 and list(bad) == names[1:]
    assert "500" in bad[names[kinds.index("error")]] and "404" in bad[names[kinds.index("missing")]]
    assert "too slow" in bad[names[-1]]
    assert all("\n" not in reason for reason in bad.values())
