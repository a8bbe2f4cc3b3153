"""The library in empty environments with other builds of its dependencies: each finds the faces of
a group photo. Needs a package registry; what cannot be had is skipped with its reason."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
NEEDED = ("numpy", "tqdm", "pytest")


def minor_of(path):
    """13 of …/python3.13."""
    return int(Path(path).name.removeprefix("python3."))


def works(path):
    """True if a Python runs: a shim of pyenv may not."""
    done = subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True)
    return done.returncode == 0


def pythons() -> list[str]:
    """This Python, and the newest other one that is installed, on the path or by pyenv."""
    found = [shutil.which(f"python3.{minor}") for minor in range(20, sys.version_info.minor, -1)]
    kept = Path(sys.base_prefix).parent.glob("3.*/bin/python3.[1-9]*[0-9]")
    newer = [str(path) for path in kept if minor_of(path) > sys.version_info.minor]
    newest = sorted(newer, key=minor_of, reverse=True)
    others = [path for path in [*found, *newest] if path and works(path)]
    return [sys.executable, *others[:1]]


def install(python, *words):
    """pip install into an environment; skips what the registry does not have."""
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
    )
    missing = re.search(
        r"(No matching distribution found for .*|Could not find a version.*)", done.stderr
    )
    if done.returncode and missing:
        pytest.skip(missing[1])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def environment(tmp_path):
    """A function that makes an empty environment with a Python."""

    def make(python=sys.executable):
        subprocess.run([python, "-m", "venv", tmp_path / "env"], check=True)
        return tmp_path / "env" / "bin" / "python"

    return make


def library_test(python, folder):
    """The tests of the library, as the sdist carries them, away from the clone."""
    for name in ("tests/test_library.py", "docs/images/front.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOME / name, folder / name)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_library.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-1000:]


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_pip_install_finds_faces(python, environment, tmp_path):
    new = environment(python)
    install(new, str(HOME), "pytest")
    library_test(new, tmp_path / "away")


@pytest.mark.parametrize(
    "builds",
    [
        ("opencv-python-headless", "onnxruntime"),
        ("opencv-contrib-python-headless<5", "onnxruntime"),
        ("opencv-python-headless", "onnxruntime-openvino"),
    ],
    ids=lambda builds: "+".join(builds),
)
def test_other_builds_take_the_place_of_the_plain_ones(builds, environment, tmp_path):
    new = environment()
    install(new, "--no-deps", str(HOME))
    install(new, *NEEDED, *builds)
    library_test(new, tmp_path / "away")


def test_openvino_runs_the_networks(environment, tmp_path):
    new = environment()
    install(new, f"{HOME}[openvino]", "pytest")
    library_test(new, tmp_path / "away")
    code = (
        "from facial_keypoints import KeypointDetector; d = KeypointDetector(runtime='openvino'); "
        f"assert len(d({str(HOME / 'docs/images/front.jpg')!r})) > 25"
    )
    subprocess.run([new, "-c", code], check=True, cwd=tmp_path)
