"""What several tests share: small synthetic data sets, the official data where there is one,
commands as users run them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
from forked_python import ForkedPython
from hypothesis import HealthCheck, settings

# On a GPU the same seed does not give the same weights, bit by bit, as it does on the processor.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# How fast examples are made and tried depends on what else the machine does.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

HOME = Path(__file__).resolve().parents[1]
# not by the environment: kernels started by tests would show no pictures then
matplotlib.use("agg")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One process more than there are cores: some tests wait for other processes."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return len(cores) + 1


def pytest_collection_modifyitems(items):
    """Tests of minutes begin first, divided among the parallel processes, each of which begins with
    an equal share of all tests; those of the grid one after another in the first process."""
    grid = [item for item in items if "grid" in item.fixturenames]
    slow = [item for item in items if item.get_closest_marker("slow") and item not in grid]
    others = [item for item in items if item not in grid and item not in slow]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ordered, left = [], len(items)
    for process in range(processes):
        share = left // (processes - process)
        left -= share
        first = (grid if process == 0 else []) + slow[process::processes]
        fill = max(share - len(first), 0)
        ordered += [*first, *others[:fill]]
        others = others[fill:]
    items[:] = ordered + others


def contents(folder):
    """Files below a folder with the times of their last change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session", autouse=True)
def the_runs_of_the_user_stay_unchanged():
    """No test writes below runs/ of the checkout."""
    before = contents(HOME / "runs")
    yield
    assert contents(HOME / "runs") == before


@pytest.fixture(scope="session", autouse=True)
def commands_end_by_signals():
    """Commands do not inherit that signals are ignored, as under nohup or in the background of a
    script: a handler that does nothing is reset in a new program, unlike SIG_IGN."""
    for name in ("SIGINT", "SIGQUIT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """Work that several tests need, done once for all parallel processes: shared_folder(name, make)
    calls make(folder) if nobody has, and returns the folder."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, make):
        folder, done = base / f"shared-{name}", base / f"shared-{name}.done"
        with FileLock(base / f"shared-{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def tiny_zip(shared_folder):
    """A synthetic data set of 16 people, 128 frames, as a zip of the official layout."""
    from research.synthetic.faces import draw_archive

    return (
        shared_folder(
            "tiny", lambda folder: draw_archive(folder / "tiny.zip", people=16, seed=7, bar=False)
        )
        / "tiny.zip"
    )


@pytest.fixture(scope="session")
def grid(shared_folder, tiny_zip, python, kernels):
    """A grid of notebook 2: two seeds, and a network that does not exist. It is interrupted in its
    second run, and the same command called again.

    words: of the command, without --out; out: the folder it wrote to; interrupted, resumed: how
    the two calls ended (returncode, stderr, …).
    """
    words = [
        "--data",
        str(tiny_zip),
        "--net",
        "models2",
        "models77",
        "--seed",
        "0",
        "1",
        "--epochs",
        "1",
        "--batch_size",
        "32",
        "--threads",
        "1",
    ]

    def make(folder):
        out = folder / "grid"
        process = subprocess.Popen(
            [sys.executable, str(HOME / "batch.py"), *words, "--workers", "1", "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        until = time.monotonic() + 200
        while not list(out.glob("*seed=1/run/params.json")) and time.monotonic() < until:
            time.sleep(0.1)
        begun = time.monotonic()
        # to the command alone, as `kill -INT` does; a terminal sends it to all
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
        seconds = time.monotonic() - begun
        begun_runs = sorted(path.name for path in out.iterdir() if path.is_dir())
        inside = [sorted(map(str, out.glob("*seed=1/**/*")))]
        time.sleep(3)  # a kernel that had outlived its command would write on
        inside.append(sorted(map(str, out.glob("*seed=1/**/*"))))
        (folder / "interrupted.json").write_text(
            json.dumps(
                {
                    "returncode": process.returncode,
                    "stderr": text,
                    "seconds": seconds,
                    "runs": begun_runs,
                    "inside": inside,
                    "first": next(out.glob("*seed=0/run/checkpoint.pt")).stat().st_mtime_ns,
                }
            )
        )
        done = python(
            [HOME / "batch.py", *words, "--workers", "2", "--out", out],
            env={**os.environ, **kernels, "PYTHONPATH": str(HOME)},
        )
        (folder / "resumed.json").write_text(
            json.dumps(
                {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
            )
        )

    folder = shared_folder("grid", make)
    return SimpleNamespace(
        words=words,
        out=folder / "grid",
        **{
            name: SimpleNamespace(**json.loads((folder / f"{name}.json").read_text()))
            for name in ("interrupted", "resumed")
        },
    )


@pytest.fixture(scope="session")
def tiny(tiny_zip):
    """Its frames."""
    from research.datasets import load_frames

    return load_frames(str(tiny_zip))


@pytest.fixture(scope="session")
def hopper():
    """The photo of Grace Hopper that comes with matplotlib: (path, uint8 RGB)."""
    from matplotlib import cbook

    from facial_keypoints.images import read_image

    path = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    return path, read_image(path)


@pytest.fixture(scope="session")
def official_path():
    """The official data set, from FACIAL_KEYPOINTS_DATA or next to the repository; skips where
    there is none."""
    given = os.environ.get("FACIAL_KEYPOINTS_DATA")
    path = Path(given) if given else HOME.parent / "shared" / "data" / "train-test-data.zip"
    if not path.exists():
        pytest.skip("needs the official data set: set FACIAL_KEYPOINTS_DATA to its zip or folder")
    return path


@pytest.fixture(scope="session")
def forked():
    """Processes that need not import the large packages."""
    started = ForkedPython()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def python(forked):
    """Run a Python command: python(["pipeline.py", "--help"], cwd=…, env=…) -> finished process,
    as text."""
    return forked.run


@pytest.fixture(scope="session")
def kernels(forked, tmp_path_factory):
    """Variables of the environment with which notebooks run in forked kernels: for tests of what
    notebooks do, not of how kernels start and end."""
    return forked.kernels(tmp_path_factory.mktemp("jupyter"))


@pytest.fixture
def command(python):
    """Run one of our commands as a user would, a script of the root or a module of research/:
    command('pipeline.py', 'photo.jpg') -> finished process, as text. With variables of the
    environment it is a new process, as Python reads some of them only when it starts."""

    def call(script, *arguments, **variables):
        words = ["-m", script] if script.startswith(("research.", "scripts.")) else [HOME / script]
        words += arguments
        env = {**os.environ, "PYTHONPATH": str(HOME), **{k: str(v) for k, v in variables.items()}}
        if variables:
            return subprocess.run(
                [sys.executable, *map(str, words)],
                env=env,
                timeout=300,
                capture_output=True,
                text=True,
            )
        return python(words, env=env)

    return call


def write_photo(path, seed):
    """A synthetic photo with one face."""
    import cv2

    from research.synthetic.faces import draw_scene

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw_scene(seed, faces=1, width=200, height=200)[0][..., ::-1])


def write_labeled_photos(folder, frames, points=None, layout=""):
    """Frames as a data set of a user's own: images/ and annotations.csv with `points` (n, k, 2),
    theirs by default, where nan is an empty cell; layout: the text of layout.toml."""
    import cv2

    points = frames.points if points is None else points
    (folder / "images").mkdir(parents=True)
    lines = [",".join(["", *map(str, range(points[0].size))])]
    for row, face in enumerate(points):
        name = frames.names[row].split("/")[1]
        cv2.imwrite(str(folder / "images" / name), frames.image(row)[..., ::-1])
        lines.append(",".join([name, *("" if v != v else str(v) for v in face.ravel())]))
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    if layout:
        (folder / "layout.toml").write_text(layout)


def training_words(data, out, *more):
    """The words of a command that trains models4 for 4 epochs; later ones of `more` count."""
    words = ("--net", "models4", "--data", data, "--epochs", 4, "--batch-size", 16)
    return ("train.py", *words, "--device", "cpu", "--out", out, *more)


def one_line_error(process, code):
    """Assert that a command ended with `code` and one clear line, not a traceback -> that line."""
    assert process.returncode == code, process.stdout + process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    line = process.stderr.strip().splitlines()[-1]
    assert len(line) > 20
    return line


def copy_of_the_repository(folder):
    """What a clone would hold, without notebooks' outputs mattering: files that git knows, as they
    are now."""
    names = subprocess.run(
        ["git", "-C", str(HOME), "ls-files", "-co", "--exclude-standard", "-z"],
        capture_output=True,
        text=True,
    ).stdout.split("\0")[:-1]
    if not names:
        pytest.skip("needs a git checkout")
    for name in names:
        if (HOME / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HOME / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def launch():
    """A function that starts Chromium with more flags."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: make test-browser"
    )
    from benchmarks.browser import BROWSER_FLAGS, find_browser

    if find_browser() is None:
        pytest.skip("needs Chromium: install it, then make test-browser")
    with playwright.sync_playwright() as started:
        yield lambda *flags: started.chromium.launch(
            executable_path=find_browser(), args=[*BROWSER_FLAGS, *flags]
        )


@pytest.fixture
def face_targets():
    """Targets (2, 68, 2) of a face that is upright in one crop and rolled in the other."""
    import torch

    from facial_keypoints.layouts import load_layout

    shape = torch.tensor(load_layout().shape, dtype=torch.float32)
    shape = (shape - shape.mean(0)) / (shape - shape.mean(0)).abs().max() * 0.7
    turn = torch.tensor([[0.955, 0.296], [-0.296, 0.955]])
    return torch.stack([shape, shape @ turn + 0.1])


LEFT_HALF = [*range(9, 17), *range(22, 27), 34, 35, *range(42, 48)]  # of the person's face


def write_flagged(folder, frames, name):
    """Write frames as photos named like those of AFLW, and a COCO file like that of MERL-RAV: point
    0 is occluded, and LEFT_HALF is self-occluded in every second face. Returns the points."""
    import cv2
    import numpy as np

    from facial_keypoints.layouts import load_layout

    (folder / "images").mkdir(exist_ok=True)
    points, rows, images = frames.points.astype(np.float64).round(2), [], []
    first = len(list((folder / "images").iterdir()))
    for i, face in enumerate(points):
        image = f"images/image{400 + 10 * (first + i):05d}.jpg"
        cv2.imwrite(str(folder / image), frames.image(i)[..., ::-1])
        images.append({"id": i, "file_name": image})
        flags = np.full(68, 2)
        flags[0] = 1
        if i % 2:
            flags[LEFT_HALF] = 0
        keypoints = np.column_stack([np.where(flags[:, None] > 0, face, 0), flags])
        rows.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": keypoints.ravel().tolist(),
                "pose": "left" if i % 2 else "frontal",
            }
        )
    categories = [
        {"id": 1, "name": "face", "keypoints": list(load_layout().keypoints), "skeleton": []}
    ]
    (folder / name).write_text(
        json.dumps({"images": images, "annotations": rows, "categories": categories})
    )
    return points


@pytest.fixture(scope="session")
def merlrav():
    """The faces of MERL-RAV; skips where there are none."""
    from research.datasets import load_frames

    path = HOME.parent / "shared" / "data" / "merlrav.zip"
    if not path.exists():
        pytest.skip("needs merlrav.zip next to the repository (docs/data.md says how to build it)")
    return load_frames(str(path))
