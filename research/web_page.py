"""The web page: build the folder to publish from `web/`, the exported models and the constants of
the library; serve it."""

import argparse
import contextlib
import functools
import hashlib
import http.server
import importlib.metadata
import inspect
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector_architectures import pyramid
from facial_keypoints import (
    detector,
    drawing,
    effects,
    face_model,
    head,
    images,
    layouts,
    openness,
    pose,
    tracking,
)
from facial_keypoints.defaults import DEFAULT_NET, MIN_CONFIDENCE
from facial_keypoints.paths import SAVED_MODELS, layout_names
from facial_keypoints.command import run_command
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.onnx_file import FORMAT, KEY, METADATA_FIELD
from research import HOME
from research.synthetic.faces import draw_scene

SOURCES = HOME / "web"
FOLDER = HOME / "runs" / "web"  # the built page
PACKAGES = HOME / "data" / "npm"  # what npm brought
MODELS = (DEFAULT_NET, "models8")
# synthetic scenes: file, faces, size, seed
EXAMPLES = (
    ("one.jpg", 1, (512, 512), 11),
    ("four.jpg", 4, (900, 600), 5),
    ("eight.jpg", 8, (1200, 800), 23),
)
# A camera is searched for faces of at least this share of the longer side of the frame, to be fast
CAMERA_SHARE = 1 / 10
# Photos with more pixels are refused: browsers cannot hold them in a canvas
MAX_PIXELS = 100_000_000
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".onnx": "application/octet-stream",
}
# npm packages: version and sha256 of the archive
NPM = {
    "onnxruntime-web": (
        "1.30.0",
        "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    ),
    "onnxruntime-common": (  # of the example for Node
        "1.30.0",
        "7906c439e0d3e0f4048caa23b64cdfadc0f455c377f579ce1ab2a4b778f07d5f",
    ),
    "typescript": ("5.9.3", "10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3"),
    "axe-core": ("4.11.0", "39bed7d72308f6d620789c169d699bfd7e8da80f65b545821a6b2215c3e83107"),
}


def npm_package(name: str) -> Path:
    """The folder of an npm package of a fixed version, downloaded by `npm pack` if it is not there
    yet. Raises DataError if npm is missing, or if the archive is not the one whose hash is in
    `NPM`."""
    version, expected = NPM[name]
    target = PACKAGES / f"{name}-{version}"
    if target.is_dir():
        return target
    if shutil.which("npm") is None:
        raise DataError(
            f"npm is needed for {name} {version}: install Node.js "
            "(apt install npm, brew install node)"
        )
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PACKAGES) as scratch:
        done = subprocess.run(
            ["npm", "pack", f"{name}@{version}", "--silent"],
            cwd=scratch,
            capture_output=True,
            text=True,
            shell=sys.platform == "win32",
        )
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            raise DataError(
                f"npm pack {name}@{version} failed: {(done.stderr or done.stdout).strip()[-300:]}"
            )
        found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
        if found != expected:
            raise DataError(
                f"{name} {version}: the archive that npm brought has the sha256 "
                f"{found}, not {expected}"
            )
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        with contextlib.suppress(OSError):  # another process was faster
            (Path(scratch) / "package").rename(target)
    return target


def search_values(search: pyramid.Detector) -> dict:
    """What a face detector searches, see `Search` in `web/pyramid.js`."""
    return {
        "minScore": search.min_score,
        "least": pyramid.LEAST,
        "share": search.share,
        "portrait": {
            "side": pyramid.PORTRAIT,
            "share": pyramid.PORTRAIT_SHARE,
            "minScore": pyramid.PORTRAIT_SCORE,
        }
        if search.portraits
        else None,
    }


def searches(first: Any) -> list[dict]:
    """The settings of all that the library tries with a detector, in order."""
    tried: Any = detector.KeypointDetector(detector=first).searches()
    return [search_values(search) for search, _ in tried]


class CameraDetector(pyramid.Detector):
    """The default detector for cameras: large faces only, no fallback."""

    share = CAMERA_SHARE
    fallback = None


def tracker_values() -> dict:
    """The default settings of the tracker and of its filter."""

    def defaults(function, *names):
        parameters = inspect.signature(function).parameters
        return {name: parameters[name].default for name in names}

    return {
        **defaults(tracking.Tracker, "every", "max_missed"),
        "doubled": tracking.DOUBLED_OVERLAP,
        "same": tracking.SAME_OVERLAP,
        "filter": defaults(
            tracking.OneEuroFilter, "cutoff", "slope", "own_slope", "derivative_cutoff"
        ),
    }


# long: the table of all values that the page shares with the library
def settings() -> dict:
    """Everything that the page must have in common with the library."""
    return {
        "models": [
            {
                "name": name,
                "file": f"{name}.onnx",
                "bytes": (SAVED_MODELS / f"{name}.onnx").stat().st_size,
            }
            for name in MODELS
        ],
        "modelFile": {"key": KEY, "format": FORMAT, "metadataField": METADATA_FIELD},
        "minConfidence": MIN_CONFIDENCE,
        "refine": {
            "steps": detector.KeypointDetector.refinement_steps,
            "minConfidence": detector.MIN_REFINE_CONFIDENCE,
            "maxLoss": detector.MAX_REFINE_LOSS,
            "box": detector.BOX_TOLERANCE,
            "roll": detector.ROLL_TOLERANCE,
        },
        "duplicate": detector.DUPLICATE_OVERLAP,
        "known": detector.KNOWN_OVERLAP,
        "shape": {
            "largest": head.MAX_SHAPE_RESIDUAL,
            "points": head.MIN_SHAPE_POINTS,
            "jaw": head.JAW_MIDDLE,
        },
        "pose": {
            "points": head.MIN_HEAD_POINTS,
            "rigid": pose.RIGID,
            "distance": pose.DISTANCE,
            "start": drawing.NOSE_TIP,
            "length": drawing.AXIS_LENGTH,
        },
        "openness": {
            "rightEye": openness.RIGHT_EYE,
            "leftEye": openness.LEFT_EYE,
            "lips": openness.LIPS,
            "hidden": openness.HIDDEN_EYE,
            "eye": [openness.EYE_SHUT, openness.EYE_OPEN],
            "mouth": [openness.MOUTH_SHUT, openness.MOUTH_OPEN],
        },
        "eyeCorners": head.OUTER_EYE_CORNERS,
        "head": head.mean_head().tolist(),
        "layouts": [layouts.load_layout(name).to_dict() for name in layout_names()],
        "defaultLayout": layouts.DEFAULT_LAYOUT,
        "pyramid": {
            "file": pyramid.WEIGHTS.name,
            "stride": pyramid.STRIDE,
            "smallest": pyramid.SMALLEST,
            "largest": pyramid.LARGEST,
            "unit": pyramid.UNIT,
            "same": pyramid.SAME_OVERLAP,
            "step": pyramid.STEP,
        },
        "searches": searches(pyramid.Detector()),
        "camera": searches(CameraDetector(portraits=False)),
        "tracker": tracker_values(),
        "glasses": {"corners": effects.GLASSES_CORNERS},
        "colors": {
            "regions": drawing.REGION_COLORS,
            "others": drawing.OTHER_COLORS,
            "axes": drawing.AXIS_COLORS,
        },
        "maxPixels": MAX_PIXELS,
        "maxBytes": images.MAX_BYTES,
        "maxPoints": layouts.MAX_POINTS,
        "examples": [
            {"file": file, "text": f"{faces} face{'s' * (faces > 1)}"}
            for file, faces, _, _ in EXAMPLES
        ],
        "repository": repository(),
        "onnxruntime": {
            "bytes": (npm_package("onnxruntime-web") / "dist" / RUNTIME_FILES[-1]).stat().st_size
        },
    }


def face_model_values() -> dict:
    """The morphable face, see `FaceModel` in `web/face_model.js`."""
    model = face_model.face_model()

    def flat(values):
        return np.round(values, 5).ravel().tolist()

    return {
        "names": model.names,
        "identities": len(model.identity),
        "noise": flat(model.noise),
        "mean": flat(model.mean),
        "modes": flat(np.concatenate([model.identity, model.expressions])),
        "meshMean": flat(model.mesh_mean),
        "meshModes": flat(np.concatenate([model.mesh_identity, model.mesh_expressions])),
        "triangles": model.triangles.tolist(),
        "fit": {
            "steps": face_model.STEPS,
            "pivots": face_model.PIVOTS,
            "weight": face_model.EXPRESSION_WEIGHT,
            "ridge": face_model.RIDGE,
            "hidden": face_model.HIDDEN_WEIGHT,
            "least": face_model.MIN_FIT_POINTS,
            "distance": pose.DISTANCE,
        },
    }


def compact(values: Any) -> str:
    """Plain values as JSON without spaces; whole numbers without decimal point."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    return json.dumps(plain(values), separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def build(folder: Path = FOLDER) -> Path:
    """Build the page into a folder, which is replaced as a whole. Raises DataError, UsageError."""
    ours = all((folder / name).exists() for name in ("index.html", "licenses.txt", "onnxruntime"))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not ours):
        raise UsageError(
            f"{folder}: not empty and not a page that was built before; name another folder"
        )
    runtime = npm_package("onnxruntime-web")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        page = Path(scratch) / "page"
        shutil.copytree(SOURCES, page)
        (page / "onnxruntime").mkdir()
        for name in RUNTIME_FILES:
            shutil.copy(runtime / "dist" / name, page / "onnxruntime")
        for name in MODELS:
            shutil.copy(SAVED_MODELS / f"{name}.onnx", page)
        values = settings()
        shutil.copy(pyramid.WEIGHTS, page)
        (page / "settings.json").write_text(compact(values), encoding="utf-8")
        (page / "face_model.json").write_text(compact(face_model_values()), encoding="utf-8")
        write_pictures(page)
        write_licenses(page)
        if folder.exists():
            shutil.rmtree(folder)
        page.rename(folder)
    return folder


def write_pictures(page: Path) -> None:
    """Write the examples, synthetic people, and the sunglasses."""
    for file, faces, (width, height), seed in EXAMPLES:
        scene = draw_scene(seed, faces=faces, width=width, height=height)[0]
        cv2.imwrite(str(page / file), scene[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    glasses = cv2.cvtColor(effects.glasses_image(), cv2.COLOR_RGBA2BGRA)
    cv2.imwrite(str(page / "sunglasses.png"), glasses)


def write_licenses(page: Path) -> None:
    """Write the licenses of what the page contains: they must come with it."""
    installed = importlib.metadata.distribution("onnxruntime")
    runtime = Path(str(installed.locate_file("onnxruntime/LICENSE"))).read_text(encoding="utf-8")
    parts = {
        "Facial Keypoint Detection": (HOME / "LICENSE").read_text(encoding="utf-8"),
        "ICT-FaceKit (face_model.json)": (HOME / "NOTICE").read_text(encoding="utf-8"),
        f"ONNX Runtime {NPM['onnxruntime-web'][0]} (onnxruntime/)": runtime,
    }
    text = "\n\n".join(
        f"{title}\n{'=' * len(title)}\n\n{text.strip()}" for title, text in parts.items()
    )
    (page / "licenses.txt").write_text(text + "\n", encoding="utf-8")


def repository() -> str:
    """The address of the repository, from pyproject.toml."""
    with open(HOME / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["urls"]["Homepage"]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the page with the right types, without a line for each request."""

    protocol_version = "HTTP/1.1"  # one connection for many files
    extensions_map = {  # noqa: RUF012 - as in its base class
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        **TYPES,
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of visitors that leave in the middle of a file."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def start_server(folder: Path = FOLDER, port: int = 0) -> Server:
    """A server of a folder on this machine only, not running yet; port 0: a free one. Raises
    UsageError if the port is taken."""
    try:
        return Server(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used ({error.strerror}); name another with --port"
        ) from None


def serve_in_thread(folder: Path) -> Server:
    """A server of a folder that runs in a thread."""
    server = start_server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextlib.contextmanager
def served(folder: Path = FOLDER) -> Iterator[str]:
    """Serve a folder -> its address."""
    server = serve_in_thread(folder)
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@functools.cache
def serve_once() -> int:
    """Build and serve the page until this process ends -> the port. Raises DataError."""
    return serve_in_thread(build()).server_port


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m research.web_page", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="FOLDER", help="(default: runs/web)"
    )
    parser.add_argument("--serve", action="store_true", help="serve it until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    options = parser.parse_args()
    folder = build(options.out)
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {total / 1e6:.1f} MB, ready to publish")
    if options.serve:
        server = start_server(folder, options.port)
        print(f"http://localhost:{server.server_port}/ (Ctrl-C ends)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        server.server_close()


if __name__ == "__main__":
    run_command(main)
