"""Where frames come from: every kind of picture, every layout, the download, and what is said of
bad ones."""

import functools
import http.server
import io
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import threading
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from conftest import HOME
from PIL import Image, ImageOps

from facial_keypoints import images
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import pts_text
from facial_keypoints.images import read_image
from research.data import stores as stores_module
from research.data.download import download
from research.data.folders import load_folder
from research.data.official import check_official, load_official
from research.data.stores import Store
from research.data.tables import read_table

RGB = np.zeros((20, 30, 3), np.uint8)
RGB[:10, :15], RGB[10:, 15:] = (250, 20, 30), (20, 30, 240)

SAID = ("the set", "Fetch it by hand.")


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "form, mode",
    [
        ("PNG", "RGB"),
        ("JPEG", "RGB"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "CMYK"),
    ],
)
def test_reader_gives_upright_rgb_bytes_whatever_the_file(form, mode):
    image = Image.fromarray(RGB)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    data = encoded(image, form, **({"quality": 95} if form in ("JPEG", "WEBP") else {}))
    image = read_image(data)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8
    close = 40 if form in ("JPEG", "WEBP") else 3
    for y, x in ((4, 6), (15, 23)):
        assert np.abs(image[y, x].astype(int) - RGB[y, x]).max() <= close


def test_gray_and_16_bit_files_become_three_bytes_a_pixel():
    ramp = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    _, png = cv2.imencode(".png", ramp)
    _, tiff = cv2.imencode(".tiff", ramp)
    for data in (png, tiff):
        image = read_image(data.tobytes())
        assert image.dtype == np.uint8 and image.shape == (20, 30, 3)
        assert (
            np.abs(image[..., 0].astype(int) - ramp // 256).max() <= 1
            and (image[..., 0] == image[..., 2]).all()
        )


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_rotation_is_applied(form, turned):
    exif = Image.Exif()
    exif[274] = turned
    data = encoded(
        Image.fromarray(RGB), form, exif=exif, **({"quality": 100} if form != "TIFF" else {})
    )
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = read_image(data)
    assert image.shape == upright.shape == ((20, 30, 3) if turned < 5 else (30, 20, 3))
    assert np.abs(image.astype(int) - upright)[3:-3, 3:-3].mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_are_pictures_too(size):
    assert read_image(encoded(Image.new("RGB", size, "red"), "PNG")).shape == (*size[::-1], 3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_read(form):
    first, second = (Image.new("RGB", (30, 20), color) for color in ("red", "blue"))
    image = read_image(encoded(first, form, save_all=True, append_images=[second]))
    assert image.shape == (20, 30, 3) and image[..., 0].min() > 240 and image[..., 2].max() < 20


def test_numbers_without_a_white_are_refused():
    ramp = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    ramp[3, 3] = np.nan
    for image in (ramp, (np.nan_to_num(ramp) * 70_000).astype(np.int32)):
        with pytest.raises(DataError, match="32-bit"):
            read_image(encoded(Image.fromarray(image), "TIFF"))


def test_awkward_names_and_links_are_read_and_folders_are_not(tmp_path):
    data = encoded(Image.fromarray(RGB), "PNG")
    for name in ("ü ñ 顔 😀.jpg", "x" * 240 + ".png", "-rf.jpg", "a;b&c$(d).jpg", "no ending"):
        (tmp_path / name).write_bytes(data)
        assert (read_image(tmp_path / name) == RGB).all()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "no ending")
    assert (read_image(tmp_path / "link.jpg") == RGB).all()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "x.jpg").mkdir()
    for name in ("loop.jpg", "dangling.jpg", "x.jpg", "y" * 300 + ".jpg", "zero\0.jpg"):
        with pytest.raises(DataError, match=re.escape(name[:9])):
            read_image(str(tmp_path / name))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "not a picture"),
        (b"hello", "not a picture"),
        (encoded(Image.fromarray(RGB), "PNG")[:60], ""),
        (b"GIF89a", ""),
    ],
)
def test_damaged_pictures_are_named(tmp_path, content, said):
    path = tmp_path / "broken ü.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken ü.jpg") as error:
        read_image(path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "form, options",
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_images_are_read_in_part_or_refused(form, options, share):
    """Decoders differ in whether half a picture is one; none may end otherwise than in a picture of
    its size or our error."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    data = encoded(noise, form, **options)
    try:
        assert read_image(data[: int(share * len(data))]).shape == (90, 120, 3)
    except DataError as error:
        assert "picture" in str(error)


def test_missing_pictures_folders_and_pipes_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "none.png", tmp_path, tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(DataError, match=str(path)):
            read_image(path)


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(100_000_000_000)  # a hole: it takes no room
    with pytest.raises(DataError, match="100,000,000,000 bytes, at most"):
        read_image(tmp_path / "x.jpg")


def test_a_huge_picture_is_refused_before_decoding(monkeypatch):
    def header(width, height):
        """A PNG of some hundred bytes that says it is of this size."""
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(100))),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )

    with pytest.raises(DataError, match="60000×60000 pixels.*shrink"):
        read_image(header(60_000, 60_000))
    monkeypatch.setattr(images, "MAX_PIXELS", 500)
    with pytest.raises(DataError, match="30×20"):
        read_image(encoded(Image.fromarray(RGB), "PNG"))
    monkeypatch.setenv("FACIAL_KEYPOINTS_MAX_PIXELS", "600")
    assert read_image(encoded(Image.fromarray(RGB), "PNG")).shape == RGB.shape
    monkeypatch.setenv("FACIAL_KEYPOINTS_MAX_PIXELS", "10" * 10)
    with pytest.raises(DataError, match="larger than OpenCV decodes"):
        read_image(header(60_000, 60_000))
    monkeypatch.setenv("FACIAL_KEYPOINTS_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="'many', not a number"):
        read_image(encoded(Image.fromarray(RGB), "PNG"))


# ---------------------------------------------------------------- tables and layouts

HEADER = "," + ",".join(map(str, range(136)))
POINTS = np.random.default_rng(0).uniform(20, 80, (3, 68, 2)).astype(np.float32)


def csv_of(points, names):
    return (
        "\n".join(
            [
                HEADER,
                *(",".join([n, *map(str, p.ravel())]) for n, p in zip(names, points, strict=True)),
            ]
        )
        + "\n"
    )


def picture(form="JPEG", mode="RGB"):
    return encoded(Image.new(mode, (100, 90)), form)


@pytest.fixture
def layout(tmp_path):
    """A folder in the official layout: a JPEG, an RGBA PNG under a .jpg name, and one test
    frame."""
    folder = tmp_path / "set"
    for side, names in (("training", ["A_00.jpg", "B_00.jpg"]), ("test", ["A_00.jpg"])):
        (folder / side).mkdir(parents=True)
        points = POINTS[:2] if side == "training" else POINTS[2:]
        (folder / f"{side}_frames_keypoints.csv").write_text(csv_of(points, names))
        for name in names:
            (folder / side / name).write_bytes(
                picture("PNG", "RGBA") if name[0] == "B" else picture()
            )
    return folder


def zipped(folder, path, below=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, below + file.relative_to(folder).as_posix())
    return path


def test_folder_zip_and_zip_with_a_folder_of_its_own_read_alike(layout, tmp_path):
    for path in (
        layout,
        zipped(layout, tmp_path / "a.zip"),
        zipped(layout, tmp_path / "b.zip", "P1-master/data/"),
    ):
        frames = load_folder(path)
        assert list(frames.names) == ["training/A_00.jpg", "training/B_00.jpg", "test/A_00.jpg"]
        np.testing.assert_allclose(frames.points, POINTS, rtol=1e-6)
        assert frames.image(1).shape == (90, 100, 3)
        assert list(frames.people) == ["A", "B", "A"] and list(frames.videos) == [
            "A_0",
            "B_0",
            "A_0",
        ]


def test_annotations_beside_images_are_all_test_rows(layout):
    shutil.copytree(layout / "training", layout / "new" / "images")
    shutil.copy(layout / "training_frames_keypoints.csv", layout / "new" / "annotations.csv")
    frames = load_folder(layout / "new")
    assert list(frames.sides) == ["test", "test"] and frames.image(0).shape == (90, 100, 3)
    assert not frames.has_sides and load_folder(layout).has_sides


def test_a_table_may_have_any_number_of_points_and_empty_cells():
    for points in (1, 15, 67, 98):
        head = ",".join(["name", *map(str, range(2 * points))])
        line = ",".join(["a.jpg", *map(str, range(2 * points))])
        missing = ",".join(["b.jpg", "", "", *map(str, range(2 * points - 2))])
        _, found = read_table(f"{head}\n{line}\n{missing}\n".encode(), "t.csv")
        np.testing.assert_array_equal(found[0], np.arange(2 * points).reshape(points, 2))
        assert np.isnan(found[1, 0]).all() and np.isfinite(found[1, 1:]).all()


@pytest.mark.parametrize(
    "head, line, said",
    [
        ("0,1,2", "1,2,3", "column 3 missing"),
        ("0,1,3", "1,2,3", "column 2 missing"),
        ("x,y", "1,2", "column 0 missing"),
        ("0,1", "1,", "line 2 .*column 1: ''"),
        ("0,1", "1,two", "line 2 .*'two' is not a number"),
    ],
)
def test_tables_with_half_points_are_refused(head, line, said):
    with pytest.raises(DataError, match=rf"t\.csv: .*{said}"):
        read_table(f"name,{head}\na.jpg,{line}\n".encode(), "t.csv")


def test_photos_not_named_after_people_are_each_their_own(layout):
    (layout / "own" / "images").mkdir(parents=True)
    for scheme, people in (
        (("me_00.jpg", "you_00.jpg"), ["me", "you"]),
        (("IMG_00.jpg", "IMG_01.jpg"), 2),
        (("me_00.jpg", "photo.jpg"), 2),
    ):
        for name in scheme:
            (layout / "own" / "images" / name).write_bytes(picture("JPEG"))
        lines = (layout / "training_frames_keypoints.csv").read_text().splitlines()
        rows = [
            ",".join([name, *line.split(",")[1:]])
            for name, line in zip(("", *scheme), lines, strict=True)
        ]
        (layout / "own" / "annotations.csv").write_text("\n".join(rows))
        found = list(load_folder(layout / "own").people)
        assert found == people if isinstance(people, list) else len(set(found)) == people


def test_pts_files_count_from_one(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "one.png").write_bytes(picture("PNG"))
    (tmp_path / "x" / "one.pts").write_text(pts_text(POINTS[0]))
    frames = load_folder(tmp_path / "x")
    np.testing.assert_allclose(frames.points[0], POINTS[0], atol=1e-4)
    first = (tmp_path / "x" / "one.pts").read_text().split("{")[1].split()[0]
    assert float(first) == pytest.approx(POINTS[0, 0, 0] + 1, abs=1e-4)
    (tmp_path / "x" / "two.pts").write_text(pts_text(POINTS[0]))
    with pytest.raises(DataError, match=r"two\.pts: no image next to it"):
        load_folder(tmp_path / "x")


@pytest.mark.parametrize(
    "corrupt, said",
    [
        (lambda t: t.replace(",57,", ",", 1), "57"),
        (lambda t: t.replace(str(POINTS[1, 3, 0]), "abc"), r"line 3 \(B\), column 6: 'abc'"),
        (lambda t: t.replace(str(POINTS[1, 3, 0]), ""), "line 3"),
        (lambda t: t.replace(str(POINTS[1, 3, 0]), "inf"), "line 3"),
        (lambda t: t.replace("\nB,", "\nA,"), "A occurs twice"),
        (lambda t: "", "not a table"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(corrupt, said):
    with pytest.raises(DataError, match=said):
        read_table(corrupt(csv_of(POINTS, ["A", "B", "C"])).encode(), "x.csv")


def test_wrong_places_are_reported(tmp_path, layout):
    for path, said in ((tmp_path / "nothing", "no such folder"), (tmp_path, "")):
        if path == tmp_path:
            (tmp_path / "empty").mkdir()
            path, said = tmp_path / "empty", "no training_frames_keypoints.csv"
        with pytest.raises(DataError, match=said):
            load_folder(path)
    (tmp_path / "no.zip").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="or a complete zip"):
        load_folder(tmp_path / "no.zip")
    (layout / "training" / "B_00.jpg").unlink()
    with pytest.raises(DataError, match=r"training/B_00\.jpg"):
        load_folder(layout)


def test_damaged_zips_are_reported(layout, tmp_path):
    good = zipped(layout, tmp_path / "a.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        start = archive.getinfo("training/A_00.jpg").header_offset
    (tmp_path / "member.zip").write_bytes(good[: start + 60] + b"\0" * 40 + good[start + 100 :])
    (tmp_path / "directory.zip").write_bytes(good.replace(b"PK\x01\x02", b"XX\x01\x02"))
    for name in ("member.zip", "directory.zip"):
        with pytest.raises(DataError, match=name):
            load_folder(tmp_path / name).image(0)


def test_names_that_leave_the_data_are_refused(layout):
    table = layout / "training_frames_keypoints.csv"
    table.write_text(table.read_text().replace("B_00.jpg", "../../B_00.jpg"))
    with pytest.raises(DataError):
        load_folder(layout).image(1)
    for name in ("../other.txt", "/etc/passwd", "a/../../b"):
        with pytest.raises(DataError, match="outside"):
            Store(layout).read(name)


def test_bombs_are_refused_before_they_are_unpacked(layout, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for table in ("training_frames_keypoints.csv", "test_frames_keypoints.csv"):
            archive.write(layout / table, table)
        for name in ("training/A_00.jpg", "training/B_00.jpg", "test/A_00.jpg"):
            archive.writestr(name, bytes(3_000_000))
    assert (tmp_path / "bomb.zip").stat().st_size < 30_000
    frames = load_folder(tmp_path / "bomb.zip")
    monkeypatch.setattr(stores_module, "MAX_BYTES", 2_000_000)
    with pytest.raises(DataError, match="3,000,000 bytes unpacked"):
        frames.image(0)
    monkeypatch.setattr(stores_module, "MAX_FILES", 4)
    with pytest.raises(DataError, match="5 files in it"):
        load_folder(tmp_path / "bomb.zip")


def test_links_in_an_archive_lead_nowhere(layout, tmp_path):
    path = zipped(layout, tmp_path / "a.zip")
    link = zipfile.ZipInfo("training/A_00.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    (tmp_path / "b.zip").write_bytes(path.read_bytes())
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.zip", "w") as new:
        for name in old.namelist():
            new.writestr(
                *((link, "/etc/passwd") if name == link.filename else (name, old.read(name)))
            )
    with pytest.raises(DataError, match="A_00.jpg.*not a picture"):
        load_folder(tmp_path / "b.zip").image(0)


# ---------------------------------------------------------------- the download


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves one folder, with ranges; breaks off once after `broken` bytes if that is set;
    `chunked` breaks in a chunk."""

    broken = None
    protocol_version = "HTTP/1.1"
    asked = []  # noqa: RUF012 (shared on purpose)

    def do_GET(self):
        data = (self.directory_path / self.path.lstrip("/")).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        type(self).asked.append(start)
        if start >= len(data):
            self.send_error(416)
            return
        if "chunked" in self.path:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"400\r\nonly a part")
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", "abc" if "odd" in self.path else str(len(data) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        end = self.broken or len(data)
        type(self).broken = None
        self.wfile.write(data[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    kind = type("OneServer", (Server,), {"directory_path": tmp_path, "asked": [], "broken": None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield kind, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    kind, address = server
    content = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "set.zip").write_bytes(content)
    kind.broken = 100_000
    target = tmp_path / "data" / "set.zip"
    with pytest.raises(DataError, match="Fetch it by hand"):
        download([address + "set.zip"], target, lambda path: None, *SAID)
    assert not target.exists()
    download([address + "set.zip"], target, lambda path: None, *SAID)
    assert target.read_bytes() == content and kind.asked == [0, 100_000]


def test_wrong_lengths_and_read_only_folders_are_reported(server, tmp_path):
    _, address = server
    (tmp_path / "odd.zip").write_bytes(b"whole")
    download([address + "odd.zip"], tmp_path / "data" / "odd.zip", lambda path: None, *SAID)
    assert (tmp_path / "data" / "odd.zip").read_bytes() == b"whole"
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written there.*Fetch it by hand"):
        download([address + "odd.zip"], tmp_path / "file" / "odd.zip", lambda path: None, *SAID)


def test_a_full_disk_leaves_a_part_that_is_gone_on_with(server, tmp_path):
    pytest.importorskip(
        "resource", reason="needs limits on the size of files, which Windows has not"
    )
    kind, address = server
    (tmp_path / "set.zip").write_bytes(np.random.default_rng(0).bytes(300_000))
    target = tmp_path / "data" / "set.zip"
    text = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from research.data.download import download\nfrom facial_keypoints.command import "
        "run_command\nfrom pathlib import Path\n"
        f"run_command(lambda: download([{address + 'set.zip'!r}], Path({str(target)!r}), lambda "
        f"path: None, *{SAID!r}))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=HOME)
    assert (
        done.returncode == 1
        and "Traceback" not in done.stderr
        and "Fetch it by hand" in done.stderr
    ), done.stderr
    assert not target.exists()
    download([address + "set.zip"], target, lambda path: None, *SAID)
    assert (
        target.read_bytes() == (tmp_path / "set.zip").read_bytes()
        and kind.asked[0] == 0 < kind.asked[1] <= 100_000
    )


def test_a_download_that_is_no_archive_is_refused(server, tmp_path, layout):
    kind, address = server
    (tmp_path / "error.html").write_text("<html>sorry</html>")
    zipped(layout, tmp_path / "good.zip")
    target = tmp_path / "data" / "set.zip"

    def check(path):
        assert len(load_folder(path)) == 3

    download([address + "error.html", address + "good.zip"], target, check, *SAID)
    assert len(load_folder(target)) == 3
    assert [path for path in target.parent.iterdir() if path.suffix != ".lock"] == [target]
    (tmp_path / "chunked").write_text("any")
    with pytest.raises(DataError, match="IncompleteRead"):
        download([address + "chunked"], tmp_path / "data" / "third.zip", check, *SAID)
    with pytest.raises(DataError, match="Fetch it by hand"):
        download([address + "error.html"], tmp_path / "data" / "other.zip", check, *SAID)


def test_official_comes_from_the_named_place_and_must_be_whole(layout, monkeypatch):
    monkeypatch.setenv("FACIAL_KEYPOINTS_DATA", str(layout))
    assert load_official().kind == "official"
    shutil.copytree(layout / "test", layout / "other" / "images")
    shutil.copy(layout / "test_frames_keypoints.csv", layout / "other" / "annotations.csv")
    monkeypatch.setenv("FACIAL_KEYPOINTS_DATA", str(layout / "other"))
    # its labels have no shift to take out
    with pytest.raises(DataError, match="not in the layout of the official set"):
        load_official()
    with pytest.raises(DataError, match="2 training rows, expected 3462"):
        check_official(layout)


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path):
    photos = tmp_path / "elsewhere"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(photos)
    (photos / "up").symlink_to(data)
    assert stores_module.Store(data).names() == ["images/a.jpg"]
