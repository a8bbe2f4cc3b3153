"""Compare the web page with the library: whether faces and points are the same, the time until the
page is ready, for a photo and for a frame of the camera, and the bytes of a first visit. Needs
Playwright, Chromium and npm."""

import argparse
import gzip
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np

from facial_keypoints.detector import find_keypoints
from facial_keypoints.command import run_command
from facial_keypoints.errors import DataError
from facial_keypoints.formats import read_json
from facial_keypoints.geometry import overlap, tight_box
from facial_keypoints.images import files_below, read_image
from facial_keypoints.layouts import load_layout
from research import web_page
from research.synthetic.faces import draw_scene

BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VISITS = 5
SECONDS = 8  # of the camera
LARGE = (4000, 3000)  # pixels of the large photo
# how long the page does not draw, at most, in milliseconds
START_CLOCK = """() => {
    document.getElementById("status").textContent = "";
    let last = performance.now(), longest = 0, going = true;
    const tick = (now) => {
        longest = Math.max(longest, now - last);
        last = now;
        if (going) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    window.stopClock = () => { going = false; return longest; };
}"""
READY = "performance.getEntriesByName('ready')[0].startTime"


def find_browser():
    """The path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def camera_file(folder):
    """A file for Chromium's fake camera: 640×480, a face that moves."""
    photo = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    photo = cv2.resize(photo, (480, 562), interpolation=cv2.INTER_AREA)
    rng, frames = np.random.default_rng(0), []
    for step in range(120):
        matrix = cv2.getRotationMatrix2D((240, 240), 12 * np.sin(step / 19.1), 1)
        matrix[:, 2] += 80 + 40 * np.sin(step / 9.55), -20
        frame = cv2.warpAffine(photo, matrix, (640, 480), borderMode=cv2.BORDER_REPLICATE)
        frame = np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
        frames.append(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes())
    path = folder / "camera.mjpeg"
    path.write_bytes(b"".join(frames))
    return path


class Visit:
    """A page that is open in the browser, ready."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.goto(address)
        self.page.wait_for_selector("body[data-network]")

    def photo(self, path):
        """Give a photo -> {stage: milliseconds}, with the longest pause of the page meanwhile."""
        from playwright.sync_api import expect

        self.page.evaluate(START_CLOCK)
        self.page.set_input_files("#photo", path)
        expect(self.page.locator("#status")).to_contain_text("found", timeout=60_000)
        self.page.wait_for_timeout(300)
        names = self.page.locator("#times dt").all_inner_texts()
        times = self.page.locator("#times dd").all_inner_texts()
        return {
            **{name: float(time.split()[0]) for name, time in zip(names, times, strict=True)},
            "longest pause of the page": self.page.evaluate("window.stopClock()"),
        }

    def faces(self, folder):
        """The faces of the photo, as rows of its JSON file."""
        if self.page.is_disabled("#json"):
            return []
        with self.page.expect_download() as waiting:
            self.page.click("#json")
        waiting.value.save_as(folder / "faces.jsonl")
        return read_json(folder / "faces.jsonl")


def agreement(visit, paths, net, scratch):
    """Numbers of faces of Python and of the page, those that both have, and the mean distance of
    the points of each of these, in % of the layout's normalizing distance."""
    counts, distances = np.zeros(2, int), []
    for path in paths:
        visit.photo(path)
        rows, faces = visit.faces(scratch), find_keypoints(path, net=net, runtime="onnx")
        counts += len(faces), len(rows)
        boxes = np.array([tight_box(row["points"]) for row in rows]).reshape(-1, 4)
        for face in faces:
            shares = overlap(boxes, face.box)
            if len(rows) and shares.max() > 0.5:
                away = np.linalg.norm(rows[int(shares.argmax())]["points"] - face.points, axis=1)
                unit = float(load_layout().normalizer(face.points))
                distances.append(100 * away.mean() / unit)
    return counts, np.array(distances)


def first_visit(browser, address, folder):
    """Bytes of the files that a first visit loads: as they are, and compressed by gzip."""
    context, names = browser.new_context(), []
    context.on("response", lambda response: names.append(response.url))
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-network]")
    context.close()
    names = {name.removeprefix(address) or "index.html" for name in names}
    files = [(folder / name).read_bytes() for name in names if (folder / name).is_file()]
    return sum(map(len, files)), sum(min(len(gzip.compress(file, 9)), len(file)) for file in files)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--net", choices=web_page.MODELS, default=web_page.MODELS[0], help="(default: %(default)s)"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="a folder of photos for the agreement (default: synthetic scenes)",
    )
    parser.add_argument(
        "--large",
        type=Path,
        help="photo that is enlarged to 12 megapixels (default: a synthetic scene)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="only write a picture of the page: docs/images/web_page.jpg",
    )
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise DataError("Playwright is needed: pip install playwright") from None
    if find_browser() is None:
        raise DataError("Chromium is needed: apt install chromium, or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        if options.picture:
            take_picture(playwright.chromium, Path(scratch), options.picture)
        else:
            measure(playwright.chromium, Path(scratch), options)


def take_picture(chromium, scratch, path):
    """Write a picture of the page with the portrait of Grace Hopper."""
    browser = chromium.launch(executable_path=find_browser(), args=BROWSER_FLAGS)
    with web_page.served(web_page.build(scratch / "web")) as address:
        visit = Visit(browser, address)
        visit.page.set_viewport_size({"width": 1280, "height": 800})
        visit.photo(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
        visit.page.check("#layer-numbers")
        visit.page.click("#faces button")
        visit.page.evaluate("document.activeElement.blur()")
        visit.page.mouse.move(0, 0)
        visit.page.wait_for_timeout(500)
        visit.page.screenshot(path=path, type="jpeg", quality=82)
    browser.close()


# long: one visit of the page after another, whose results go into one table
def measure(chromium, scratch, options):
    folder = web_page.build(scratch / "web")
    flags = [
        *BROWSER_FLAGS,
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera_file(scratch)}",
    ]
    browser = chromium.launch(executable_path=find_browser(), args=flags)
    print(f"Chromium {browser.version}, headless, {options.net}")
    with web_page.served(folder) as address:
        size, packed = first_visit(browser, address, folder)
        print(f"first visit: {size / 1e6:.1f} MB, {packed / 1e6:.2f} MB compressed")
        ready = []
        for _ in range(VISITS):
            visit = Visit(browser, address)
            ready.append(visit.page.evaluate(READY))
            visit.context.close()
        print(
            f"ready after {statistics.median(ready):.0f} ms (median of {VISITS} visits, nothing "
            f"cached; {min(ready):.0f} to {max(ready):.0f})"
        )
        visit = Visit(browser, address, permissions=["camera"])
        if options.net != web_page.MODELS[0]:
            visit.page.check(f"input[value={options.net}]")
            visit.page.wait_for_selector(f"body[data-network={options.net}]")
        visit.page.wait_for_timeout(3000)  # the helper starts
        large = (
            read_image(options.large)
            if options.large
            else draw_scene(4, faces=8, width=1200, height=900)[0]
        )
        cv2.imwrite(
            str(scratch / "large.jpg"),
            cv2.resize(large, LARGE, interpolation=cv2.INTER_CUBIC)[..., ::-1],
        )
        for turn in ("first", "again"):
            times = visit.photo(scratch / "large.jpg")
            print(
                f"12 megapixels, {turn}: "
                + ", ".join(f"{name} {time:.0f} ms" for name, time in times.items())
                + f"; {visit.page.locator('#faces button').count()} faces"
            )
        if options.photos:
            paths = list(files_below(options.photos, (".jpg", ".jpeg", ".png", ".webp")))
        else:
            paths = []
            for seed in range(6):
                paths.append(scratch / f"scene{seed}.png")
                scene = draw_scene(seed, faces=5, width=960, height=720)[0]
                cv2.imwrite(str(paths[-1]), scene[..., ::-1])
        counts, distances = agreement(visit, paths, options.net, scratch)
        print(
            f"{len(paths)} pictures: {counts[0]} faces by Python, {counts[1]} by the page, "
            f"{len(distances)} the same; points differ by {distances.mean():.3f} %, worst face "
            f"{distances.max():.3f} % of the distance between the outer eye corners"
        )
        visit.page.click("#camera")
        visit.page.wait_for_timeout(4000)
        rates = []
        for _ in range(SECONDS):
            visit.page.wait_for_timeout(1000)
            rates.append(float(visit.page.get_attribute("body", "data-rate")))
        print(f"camera 640×480: {statistics.mean(rates):.1f} frames a second")
    browser.close()


if __name__ == "__main__":
    run_command(main)
