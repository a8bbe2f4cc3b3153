"""The three notebooks: run by papermill from any folder, refuse unknown parameters, and show what
they say (nbval)."""

import os
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from conftest import HOME, copy_of_the_repository, write_labeled_photos

import batch
from batch import run_notebook
from facial_keypoints.errors import DataError

NOTEBOOKS = [HOME / "notebooks" / name for name in batch.NOTEBOOKS]
OWN_KEYPOINTS = HOME / "notebooks" / batch.OWN_KEYPOINTS
SOLUTIONS = [HOME / "notebooks" / "solutions" / name for name in batch.NOTEBOOKS]


def title(path):
    """Names of parametrized tests: 1, 2, 3; solutions of 1, 2, 3."""
    return ("solutions-" if path.parent.name == "solutions" else "") + path.stem[0]


SMALL = {"1": {"audit_epochs": 1}, "2": {"epochs": 1, "batch_size": 64}}


@pytest.fixture
def forked_kernels(kernels, monkeypatch):
    """Notebooks run in forked kernels."""
    for name, value in kernels.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("forked_kernels")
def test_a_parameter_that_does_not_exist_fails_the_run(tmp_path):
    with pytest.raises(DataError, match="did you mean"):
        run_notebook(NOTEBOOKS[2], tmp_path, {"detecter": "haar"}, bar=False)


@pytest.mark.usefixtures("forked_kernels")
def test_papermill_finds_the_project_from_any_folder(python, tmp_path):
    done = python(["-m", "papermill", NOTEBOOKS[2], "out.ipynb"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.official
@pytest.mark.usefixtures("forked_kernels")
@pytest.mark.parametrize("notebook", NOTEBOOKS[:2], ids=title)
def test_papermill_runs_on_the_official_data(notebook, official_path, tmp_path, monkeypatch):
    monkeypatch.setenv("FACIAL_KEYPOINTS_DATA", str(official_path))
    given = {"data": "official", **SMALL[notebook.name[0]]}
    if notebook.name[0] == "2":  # the smallest network, for an epoch of the whole set
        given |= {"folder": str(tmp_path / "run"), "net": "models4"}
    run_notebook(notebook, tmp_path, given, bar=False)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_kernels")
@pytest.mark.parametrize("notebook", NOTEBOOKS[:2], ids=title)
def test_notebooks_take_photos_with_other_keypoints(notebook, tiny, tmp_path):
    """Four points with names of one's own, of which some are missing, and a layout file."""
    points = tiny.points[:, [36, 45, 48, 54]]
    points[::9, 3] = np.nan
    data = tmp_path / "data"
    write_labeled_photos(
        data,
        tiny,
        points,
        'name = "mine"\nkeypoints = ["a", "b", "c", "d"]\nmirror = [[0, 1], [2, 3]]\n'
        'crop_scale = 2.0\n[[parts]]\nname = "mouth"\npoints = [2, 3]\n',
    )
    given = {"data": str(data), **SMALL[notebook.name[0]]}
    if notebook.name[0] == "2":
        given["folder"] = str(tmp_path / "run")
    run_notebook(notebook, tmp_path, given, bar=False)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_kernels")
@pytest.mark.parametrize("notebook", [*NOTEBOOKS, OWN_KEYPOINTS, *SOLUTIONS], ids=title)
def test_outputs_are_what_the_cells_print(notebook, python, tmp_path):
    """Strict nbval, in a copy: notebook 2 writes below runs/. Numbers with a unit depend on the
    processor; the sanitizer takes them out, and the cells check their bounds."""
    home = copy_of_the_repository(tmp_path / "clone")
    done = python(
        [
            "-m",
            "pytest",
            "--nbval",
            "--nbval-kernel-name",
            "python3",
            "-q",
            "-p",
            "no:cacheprovider",
            "--nbval-sanitize-with",
            home / "tests" / "nbval_sanitize.cfg",
            home / notebook.relative_to(HOME),
        ],
        cwd=home,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(home)},
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, OWN_KEYPOINTS, *SOLUTIONS], ids=title)
def test_cells_have_outputs_and_no_errors(notebook):
    content = nbformat.read(notebook, 4)
    codes = [cell for cell in content.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in codes), "without outputs nbval compares nothing"
    assert not any(output.output_type == "error" for cell in codes for output in cell.outputs)
    assert not [cell for cell in codes if "nbval-ignore-output" in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=title)
def test_notebooks_have_the_agreed_parts(notebook):
    cells = nbformat.read(notebook, 4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert "colab-badge" in texts[0] and "You will learn" in texts[0]
    assert texts[-2].startswith("## What you can do now")
    assert texts[-1].startswith("## Exercises") and texts[-1].count("\n1. ") == 1
    assert "\n3. " in texts[-1] and "(solutions/" in texts[-1]
    printed = next(
        output.text
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert printed.startswith("Python ") and "PyTorch" in printed and "device" in printed
    parameters = next(cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert all("# @param {type: " in line for line in parameters.source.splitlines())


def test_notebooks_together_stay_small():
    assert sum(path.stat().st_size for path in [*NOTEBOOKS, OWN_KEYPOINTS, *SOLUTIONS]) < 6 * 10**6


FAKE_PIP = """
import os, sys
print("pip", *sys.argv[1:], "in", os.getcwd())
"""


def test_the_first_cell_installs_the_project_on_colab(tmp_path):
    """In a bare folder, with google.colab and pip faked and the address led to this repository;
    twice, as after a restart. All notebooks begin with the same cell."""
    first = {
        next(cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code")
        for notebook in [*NOTEBOOKS, OWN_KEYPOINTS, *SOLUTIONS]
    }
    assert len(first) == 1
    cells = list(first)
    assert len(cells[0].splitlines()) <= 6
    bare, fake, origin = tmp_path / "content", tmp_path / "fake", tmp_path / "origin"
    bare.mkdir()
    for module in ("google/colab/__init__.py", "pip/__init__.py"):
        (fake / module).parent.mkdir(parents=True)
        (fake / module).write_text("")
    (fake / "pip" / "__main__.py").write_text(FAKE_PIP)
    copy_of_the_repository(origin)
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"],
    ):
        subprocess.run(["git", *words], cwd=origin, check=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(fake),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/hhosseinian/Face_Recognition",
    }
    script = "\n".join(
        [
            "import google.colab",
            *cells,
            "import data_load, os",
            "print(data_load.__file__, os.getcwd())",
        ]
    )
    (bare / "cell.ipy").write_text(script)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "IPython", "--no-banner", "cell.ipy"],
            cwd=bare,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "Error" not in done.stdout + done.stderr, (
            done.stdout + done.stderr
        )
        home = bare / "Face_Recognition"
        assert f"pip install --quiet --editable . onnx onnxscript in {home}" in done.stdout
        assert done.stdout.split()[-1] == str(home)
