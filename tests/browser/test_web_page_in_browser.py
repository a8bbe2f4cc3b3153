"""The web page in a real browser: it gives what the library gives, on photos and in the camera, and
says what is wrong."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from firefox import Firefox, find_firefox
from PIL import Image

from detector_architectures import pyramid
from facial_keypoints import KeypointDetector, find_keypoints
from facial_keypoints.formats import read_json
from facial_keypoints.geometry import rotated_copy
from facial_keypoints.head import inter_ocular
from facial_keypoints.images import read_image
from facial_keypoints.onnx_file import METADATA_FIELD, digest, fields_of, metadata_entry
from facial_keypoints.onnx_file import read_metadata
from facial_keypoints.pose import head_pose
from facial_keypoints.tracking import Tracker
from research import web_page
from research.synthetic.faces import draw_scene

RATE = 30  # frames per second of the camera
ALLOWED = 0.1  # mean distance of the points from those of Python, % of the inter-ocular distance


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return web_page.build(tmp_path_factory.mktemp("page") / "web")


@pytest.fixture(scope="module")
def address(built):
    with web_page.served(built) as address:
        yield address


@pytest.fixture(scope="module")
def clip(hopper):
    """Frames of a camera: a face that moves and turns, with noise.

    In none of them does the box of the last crop differ from the new one by almost exactly the
    tolerance: there one runtime would make a new crop, and the other not.
    """
    photo = cv2.resize(hopper[1], (480, 562), interpolation=cv2.INTER_AREA)
    rng, frames = np.random.default_rng(0), []
    for step in range(40):
        matrix = cv2.getRotationMatrix2D((240, 240), 12 * np.sin(step / 10), 1)
        matrix[:, 2] += 80 + 40 * np.sin(step / 8), -20 + 15 * np.cos(step / 7)
        frame = cv2.warpAffine(photo, matrix, (640, 480), borderMode=cv2.BORDER_REPLICATE)
        frames.append(np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def browser(launch, clip, tmp_path_factory):
    """A browser whose camera shows the clip, forwards and backwards."""
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    camera.write_bytes(
        b"".join(
            cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in [*clip, *clip[::-1]]
        )
    )
    browser = launch(
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}"
    )
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser, address, **options):
    """The page, ready. A request to another site or an unexpected error fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(20_000)
    page, requests, errors = context.new_page(), [], []
    context.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("body[data-network=models7]")
    yield page
    assert not errors
    assert [url for url in requests if not url.startswith((address, "blob:"))] == []
    assert any(url.endswith("models7.onnx") for url in requests)
    context.close()


@pytest.fixture(scope="module")
def page(browser, address):
    """One page for all tests that leave it as it is."""
    with opened(browser, address) as page:
        yield page


@pytest.fixture
def new_page(browser, address):
    with opened(browser, address) as page:
        yield page


def status(page, pattern):
    """Wait for a status that matches a pattern."""
    end = time.monotonic() + 20
    while not re.search(pattern, text := page.inner_text("#status"), re.DOTALL):
        assert time.monotonic() < end, f"the status is {text!r}, not {pattern!r}"
        time.sleep(0.03)
    return text


def give(page, path, pattern=r"\bface"):
    """Choose a photo, and wait until the page has said what is in it."""
    page.evaluate("document.getElementById('status').textContent = ''")
    page.set_input_files("#photo", path)
    return status(page, f"{pattern}.*")


def saved(page, button, tmp_path):
    """The file that a button saves."""
    with page.expect_download() as waiting:
        page.click(button)
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def furthest(rows, faces):
    """The largest mean distance of points of the page from those of Python, in % of the
    inter-ocular distance; the faces must be the same."""
    assert len(rows) == len(faces)
    for row, face in zip(rows, faces, strict=True):
        assert abs(row["confidence"] - face.confidence) < 0.002
        np.testing.assert_allclose(row["box"], face.box, atol=1)
    return max(
        (
            100
            * np.linalg.norm(row["points"] - face.points, axis=1).mean()
            / inter_ocular(face.points)
            for row, face in zip(rows, faces, strict=True)
        ),
        default=0,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory, hopper):
    """Photos of several kinds: a portrait, a group, a small one, one that lies on its side, one of
    a head that is rolled."""
    folder = tmp_path_factory.mktemp("photos")
    group = folder / "group.jpg"
    cv2.imwrite(str(group), draw_scene(4, faces=6, width=1100, height=800)[0][..., ::-1])
    small = folder / "small.png"
    cv2.imwrite(str(small), draw_scene(6, faces=2, width=300, height=200)[0][..., ::-1])
    side = folder / "side.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(np.rot90(hopper[1]).copy()).save(side, exif=exif, quality=92)
    rolled = folder / "rolled.png"
    matrix, size = rotated_copy(hopper[1].shape[:2], -40)
    cv2.imwrite(str(rolled), cv2.warpAffine(hopper[1], matrix, size)[..., ::-1])
    return [hopper[0], group, small, side, rolled]


def test_the_points_are_those_of_python(page, photos, tmp_path):
    for photo in photos:
        faces = find_keypoints(photo, runtime="onnx")
        assert faces
        give(page, photo, f"^{len(faces)} faces? found")
        rows = read_json(saved(page, "#json", tmp_path))
        assert furthest(rows, faces) < ALLOWED
        for row, face in zip(rows, faces, strict=True):
            pose = head_pose(face.points)
            assert abs(row["pose"]["yaw"] - pose.yaw) < 0.3
            assert row["names"] == list(face.layout.keypoints)
            eyes = [row.get(f"{side}_eye_open", np.nan) for side in ("right", "left")]
            np.testing.assert_allclose(eyes, face.eyes_open, atol=0.05)
            assert abs(row["mouth_open"] - face.mouth_open) < 0.02
            np.testing.assert_allclose(row["point_visibility"], face.point_visibility, atol=0.02)


def test_the_fitted_head_is_that_of_python(new_page, photos, tmp_path):
    page = new_page
    page.check("#layer-head")
    faces = find_keypoints(photos[0], runtime="onnx")
    give(page, photos[0], "found")
    (row,) = read_json(saved(page, "#json", tmp_path))
    fit = faces[0].fit_3d()
    assert row["expressions"] == pytest.approx(fit.expressions, abs=0.02)
    np.testing.assert_allclose(row["points_3d"], fit.points, atol=0.01)
    smile = page.locator("#bars meter").nth(list(fit.expressions).index("mouthSmileLeft"))
    shown = smile.evaluate("meter => meter.value")
    assert shown == pytest.approx(row["expressions"]["mouthSmileLeft"], abs=1e-3)
    before = page.evaluate("document.getElementById('head').toDataURL()")
    page.focus("#head")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.getElementById('head').toDataURL()") != before
    page.uncheck("#layer-head")
    assert page.is_hidden("#expression")
    (row,) = read_json(saved(page, "#json", tmp_path))
    assert "expressions" not in row


def test_pointing_at_a_keypoint_says_what_it_is(page, photos):
    face = find_keypoints(photos[0], runtime="onnx")[0]
    give(page, photos[0], "found")
    box = page.locator("#view").bounding_box()
    height, width = read_image(photos[0]).shape[:2]
    scale = min(box["width"] / width, box["height"] / height)
    corner = (
        box["x"] + box["width"] / 2 - width * scale / 2,
        box["y"] + (box["height"] / 2 - height * scale / 2),
    )
    x, y = (
        start + (float(v) + 0.5) * scale for start, v in zip(corner, face.points[30], strict=True)
    )
    page.mouse.move(x, y)
    seen = 100 * face.point_visibility[30]
    found = re.fullmatch(
        r"30 nose tip · confidence (\d+) % · visible (\d+) %", page.inner_text("#tip")
    )
    assert found and abs(int(found[2]) - seen) < 2
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    assert page.is_hidden("#tip")


def test_the_files_are_those_of_the_command(page, photos, tmp_path):
    faces = find_keypoints(photos[1], runtime="onnx")
    give(page, photos[1], "found")
    lines = saved(page, "#csv", tmp_path).read_text().splitlines()
    columns = lines[0].split(",")
    assert columns[:6] == ["name", "left", "top", "width", "height", "confidence"]
    assert columns[6:8] == ["x0", "y0"] and columns[-4:] == [
        "identity",
        "right_eye_open",
        "left_eye_open",
        "mouth_open",
    ]
    assert len(lines) == 1 + len(faces) and lines[1].startswith("group.jpg,")
    drawing = read_image(saved(page, "#png", tmp_path))
    photo = read_image(photos[1])
    assert drawing.shape == photo.shape
    changed = np.abs(drawing.astype(int) - photo).max(2) > 60
    left, top, width, height = faces[0].box.astype(int)
    assert changed[top : top + height, left : left + width].mean() > 0.02
    assert changed[:20].mean() < 0.01
    code = page.inner_text("#python")
    assert 'find_keypoints("group.jpg")' in code
    compile(code, "page", "exec")


def test_the_clip_is_followed_as_in_python(new_page, clip):
    """By models5. Each box comes from the last points, so that small differences of runtimes grow:
    with models7 and models8 by some pixels on these blurred faces, also in Python."""
    page = new_page
    detector = web_page.CameraDetector(portraits=False)
    tracker = Tracker(KeypointDetector("models5", detector=detector, runtime="onnx"))
    page.set_input_files("#own", web_page.SAVED_MODELS / "models5.onnx")
    page.wait_for_selector("body[data-network='models5.onnx']")
    page.route(
        "**/frame*.png",
        lambda route: route.fulfill(
            body=cv2.imencode(
                ".png", clip[int(re.search(r"frame(\d+)", route.request.url)[1])][..., ::-1]
            )[1].tobytes(),
            content_type="image/png",
        ),
    )
    found = page.evaluate(
        """async ([count, rate]) => {
        const {worker} = await import("/start.js"), found = [];
        for (let i = 0; i < count; i++) {
            const blob = await (await fetch(`frame${i}.png`)).blob();
            const bitmap = await createImageBitmap(blob);
            const {faces} = await worker.call("frame", [bitmap, i / rate], {transfer: [bitmap]});
            found.push(faces.map((face) => ({...face, points: [...face.points]})));
        }
        return found;
    }""",
        [len(clip), RATE],
    )
    for number, (frame, rows) in enumerate(zip(clip, found, strict=True)):
        faces = tracker(frame, number / RATE)
        assert len(faces) == 1
        for row in rows:
            row["points"] = np.reshape(row["points"], (-1, 2))
        assert furthest(rows, faces) < ALLOWED
        assert [row["identity"] for row in rows] == [face.identity for face in faces]


def test_the_types_fit():
    compiler = web_page.npm_package("typescript") / "bin" / "tsc"
    words = [
        "--noEmit",
        "--allowJs",
        "--checkJs",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "--lib",
        "es2023,dom,dom.iterable,dom.asynciterable",
    ]
    done = subprocess.run(
        ["node", compiler, *words, *sorted(web_page.SOURCES.glob("*.js"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("search", [0, 1, 2])
def test_every_box_is_that_of_python(page, hopper, search):
    detector = (
        pyramid.Detector(),
        pyramid.Detector(portraits=False),
        web_page.CameraDetector(portraits=False),
    )[search]
    scenes = [
        draw_scene(seed, faces=faces, width=width, height=height)[0]
        for seed, faces, (width, height) in (
            (1, 3, (640, 480)),
            (4, 1, (300, 280)),
            (2, 5, (1501, 1100)),
        )
    ]
    for image in (*scenes, hopper[1]):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found = page.evaluate(
            """async ([text, width, height, search]) => {
            const {findFaces} = await import("/pyramid.js");
            const {startSearch} = await import("/runtime.js");
            const {fetchBytes, loadSettings} = await import("/settings.js");
            const {searches, camera, pyramid} = await loadSettings();
            window.ort ??= await import("/onnxruntime/ort.wasm.min.mjs");
            window.ort.env.wasm.numThreads = 1;
            const run = await startSearch(window.ort, await fetchBytes(pyramid.file));
            const data = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            return findFaces({width, height, data}, [...searches, ...camera][search], pyramid, run);
        }""",
            [base64.b64encode(gray).decode(), *gray.shape[::-1], search],
        )
        boxes, scores, rolls = detector.detect(gray)
        assert len(found) == len(boxes) > 0
        np.testing.assert_allclose([face["box"] for face in found], boxes, atol=0.01)
        np.testing.assert_allclose([face["score"] for face in found], scores, atol=1e-3)
        np.testing.assert_allclose([face["angle"] for face in found], rolls, atol=0.1)


def test_the_camera_is_followed(browser, address):
    with opened(browser, address, permissions=["camera"]) as page:
        follow_the_camera(page)


def follow_the_camera(page):
    page.click("#camera")
    status(page, "The camera is on")
    page.wait_for_selector("body[data-rate]:not([data-rate='0.0'])")
    time.sleep(2)
    assert float(page.get_attribute("body", "data-rate")) > 3
    assert page.locator("#faces button").inner_text().startswith("1 ·")
    assert "VideoCapture" in page.inner_text("#python")
    compile(page.inner_text("#python"), "page", "exec")
    page.check("input[value=models8]")  # another network meanwhile
    page.wait_for_selector("body[data-network=models8]")
    page.click("#camera")
    status(page, "The camera is off")
    assert page.is_enabled("#json")
    assert page.evaluate("document.getElementById('stage').className").startswith("filled")


def test_a_refused_camera_is_explained(page):
    page.click("#camera")
    assert "Allow it" in status(page, "The camera is not allowed")
    assert page.is_enabled("#camera")


def test_no_camera_is_explained(page):
    page.evaluate("""() => {
        navigator.mediaDevices.getUserMedia = async () => {
            throw new DOMException("", "NotFoundError");
        };
    }""")
    page.click("#camera")
    status(page, "No camera was found")
    page.evaluate("() => { delete navigator.mediaDevices.getUserMedia; }")


def png_of_size(side):
    """A small file that says it holds side × side pixels."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_bad_files_are_named_and_lose_nothing(page, photos, tmp_path):
    give(page, photos[0], "^1 face found")
    good = Path(photos[0]).read_bytes()
    for name, data, says in (
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"no picture at all", "damaged"),
        ("cut.png", png_of_size(64)[:60], "damaged"),
        ("header.jpg", good[:300], "damaged"),
        ("huge.png", png_of_size(20_000), "Shrink the picture"),
        ("none.onnx", b"no network", "damaged or not an ONNX file"),
        ("cut.onnx", (web_page.SAVED_MODELS / "models5.onnx").read_bytes()[:500_000], "damaged"),
    ):
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#own" if name.endswith("onnx") else "#photo", tmp_path / name)
        assert says in status(page, f"^{re.escape(name)}: "), name
        assert page.locator("#status.failure").count() == 1
    assert page.locator("#faces button").count() == 1  # of the photo before
    assert page.is_checked("input[value=models7]")
    give(page, photos[0], "^1 face found")


def test_a_photo_without_faces_is_an_answer(page, tmp_path):
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 300, 3), 128, np.uint8))
    give(page, blank, "^No face found")
    assert page.is_disabled("#json") and page.is_enabled("#png")


def renamed_model(path, names):
    """Write models5 with other names of its keypoints."""
    data = (web_page.SAVED_MODELS / "models5.onnx").read_bytes()
    values = read_metadata(data)
    body = b"".join(
        data[start:end] for number, start, end in fields_of(data) if number != METADATA_FIELD
    )
    values["layout"] = {
        "name": "mine",
        "keypoints": names,
        "crop_scale": 1.25,
        "source": "",
        "parts": [{"name": "first ten", "points": list(range(10)), "closed": False, "region": ""}],
    }
    values["sha256"] = digest(body)
    path.write_bytes(body + metadata_entry(values))
    return path


def test_a_network_of_ones_own_with_its_own_layout(new_page, photos, tmp_path):
    page = new_page
    give(page, photos[0], "^1 face found")
    path = renamed_model(tmp_path / "mine.onnx", [f"spot {i}" for i in range(68)])
    page.set_input_files("#own", path)
    page.wait_for_selector("body[data-network='mine.onnx']")
    status(page, "^1 face found")  # the photo is predicted anew
    (row,) = read_json(saved(page, "#json", tmp_path))
    (face,) = find_keypoints(photos[0], runtime="onnx", net=path)
    assert row["layout"] == "mine" and row["names"][3] == "spot 3"
    np.testing.assert_allclose(row["points"], face.points, atol=0.2)
    assert 'net="mine.onnx"' in page.inner_text("#python")
    page.check("#layer-glasses")
    assert "outer eye corners" in status(page, "^The layout mine")


def test_another_network_is_loaded_when_it_is_chosen(new_page, photos, tmp_path):
    page = new_page
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    give(page, photos[0], "^1 face found")
    assert not any("models8" in url for url in requests)
    page.check("input[value=models8]")
    page.wait_for_selector("body[data-network=models8]")
    status(page, "^1 face found")
    rows = read_json(saved(page, "#json", tmp_path))
    assert furthest(rows, find_keypoints(photos[0], runtime="onnx", net="models8")) < ALLOWED


def test_it_works_by_keyboard_alone(new_page):
    page = new_page
    page.keyboard.press("Tab")
    reached = []
    while "photo" not in reached[1:]:  # once around
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.innerText")
        )
        if reached[-1] == "1 face":
            page.keyboard.press("Enter")
            status(new_page, "^1 face found")
        if reached[-1] == "view":
            page.keyboard.press("+")
            page.wait_for_selector("#stage.zoomed")
            page.keyboard.press("0")
            page.wait_for_selector("#stage:not(.zoomed)")
        if reached[-1] == "layer-numbers":
            page.keyboard.press("Space")
            assert page.is_checked("#layer-numbers")
        page.keyboard.press("Tab")
    assert {"photo", "camera", "view", "layer-points", "own", "json", "copy"} <= set(reached)


def test_layers_change_the_picture(new_page, photos):
    page = new_page
    give(page, photos[0], "^1 face found")
    pictures = {page.evaluate("document.getElementById('view').toDataURL()")}
    for layer in ("numbers", "parts", "box", "confidence", "pose", "glasses", "blur"):
        page.check(f"#layer-{layer}")
        page.wait_for_timeout(120)
        pictures.add(page.evaluate("document.getElementById('view').toDataURL()"))
    assert len(pictures) == 8


def test_a_photo_is_dropped_or_pasted(page, photos):
    for kind, transfer in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate("document.getElementById('status').textContent = ''")
        page.evaluate(
            """([text, kind, transfer]) => {
            const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "given.png", {type: "image/png"}));
            const make = kind === "drop" ? DragEvent : ClipboardEvent;
            document.dispatchEvent(new make(kind, {[transfer]: data, bubbles: true}));
        }""",
            [base64.b64encode(photos[2].read_bytes()).decode(), kind, transfer],
        )
        status(page, "faces? found")


def delayed(page, pattern, seconds):
    """Reply to requests later."""

    def reply(route):
        time.sleep(seconds)
        route.continue_()

    page.route(pattern, reply)


def test_the_last_choice_of_a_network_counts(new_page, photos, tmp_path):
    """models8 comes late, models7 is chosen meanwhile, and a photo is opened."""
    page = new_page
    delayed(page, "**/models8.onnx", 1)
    page.check("input[value=models8]")
    page.check("input[value=models7]")
    give(page, photos[0], "^1 face found")
    page.wait_for_selector("body[data-network=models7]")
    assert page.is_checked("input[value=models7]")
    give(page, photos[0], "^1 face found")
    rows = read_json(saved(page, "#json", tmp_path))
    assert furthest(rows, find_keypoints(photos[0], runtime="onnx")) < ALLOWED


def test_the_page_works_without_its_helper(browser, built, photos, tmp_path):
    folder = shutil.copytree(built, tmp_path / "web", ignore=shutil.ignore_patterns("helper.js"))
    page = browser.new_page()
    with web_page.served(folder) as address:
        page.goto(address)
        page.wait_for_selector("body[data-network=models7]")
        give(page, photos[1], "found")
        rows = read_json(saved(page, "#json", tmp_path))
    assert furthest(rows, find_keypoints(photos[1], runtime="onnx")) < ALLOWED
    page.close()


def test_a_blurred_face_stays_blurred_when_it_is_large(page, photos):
    give(page, photos[0], "^1 face found")
    page.check("#layer-blur")
    page.uncheck("#layer-points")
    page.click("#faces button")
    for _ in range(12):
        page.click("#larger")
    page.wait_for_timeout(400)
    shot = cv2.imdecode(np.frombuffer(page.locator("#view").screenshot(), np.uint8), 0)
    (top, low), (left, right) = ((size // 3, 2 * size // 3) for size in shot.shape)
    middle = shot[top:low, left:right]
    assert np.abs(np.diff(middle.astype(int), axis=1)).max() < 12  # no edge is left
    page.uncheck("#layer-blur")
    page.check("#layer-points")
    page.click("#whole")


def test_an_old_browser_is_told(browser, address):
    page = browser.new_page()
    page.add_init_script("delete globalThis.OffscreenCanvas")
    page.goto(address)
    assert "OffscreenCanvas" in status(page, "too old")
    page.close()


def test_a_broken_connection_is_told(browser, address):
    page = browser.new_page()
    page.route("**/*.wasm", lambda route: route.abort())
    page.goto(address)
    status(page, "could not be loaded.*connection")
    page.close()


def test_it_is_accessible(page, photos):
    axe = web_page.npm_package("axe-core") / "axe.min.js"
    give(page, photos[1], "found")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(axe.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_width(page, photos, width, tmp_path):
    page.set_viewport_size({"width": width, "height": 844})
    give(page, photos[0], "found")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot = page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    assert cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR).std() > 20
    canvas = json.loads(
        page.evaluate("JSON.stringify(document.getElementById('view').getBoundingClientRect())")
    )
    assert canvas["width"] > 0.55 * width and canvas["bottom"] < 844


@pytest.mark.skipif(find_firefox() is None, reason="needs Firefox")
def test_firefox_gives_the_same(address, photos, tmp_path):
    browser = Firefox(tmp_path)
    try:
        browser.goto(address)
        browser.wait_for("document.body.dataset.network")
        browser.choose_file("#photo", photos[1])
        browser.wait_for("document.getElementById('status').textContent.includes('found')")
        browser.evaluate("""(() => {
            const create = URL.createObjectURL;
            URL.createObjectURL = (blob) => {
                blob.text().then((text) => { window.saved = text; });
                return create(blob);
            };
            document.getElementById("json").click();
        })()""")
        browser.wait_for("window.saved")
        (tmp_path / "faces.jsonl").write_text(browser.evaluate("window.saved"))
    finally:
        browser.close()
    expected = find_keypoints(photos[1], runtime="onnx")
    assert furthest(read_json(tmp_path / "faces.jsonl"), expected) < ALLOWED
