"""The notebooks: run by papermill from any folder, refuse unknown parameters, and show what they
say (nbval)."""

import ast
import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from conftest import HOME, copy_of_the_repository, write_labeled_photos

import batch
from batch import run_notebook
from facial_keypoints.errors import DataError
from research.teaching.exercises import CHECKS

NOTEBOOKS = [HOME / "notebooks" / name for name in batch.NOTEBOOKS]
FIVE_MINUTES = HOME / "notebooks" / batch.FIVE_MINUTES
LABELS = HOME / "notebooks" / batch.LABELS
LESSONS = [HOME / "notebooks" / name for name in batch.SOLVED]
SOLUTIONS = [HOME / "notebooks" / "solutions" / name for name in batch.SOLVED]
ALL = [FIVE_MINUTES, *LESSONS, *SOLUTIONS]


def title(path):
    """Names of parametrized tests: 1, 2, 3; solutions of 1, 2, 3."""
    return ("solutions-" if path.parent.name == "solutions" else "") + path.stem[0]


SMALL = {"1": {}, "2": {"epochs": 1, "batch_size": 64}, "5": {"audit_epochs": 1}}


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
@pytest.mark.parametrize("notebook", [*NOTEBOOKS[:2], LABELS], ids=title)
def test_papermill_runs_on_the_official_data(notebook, official_path, tmp_path, monkeypatch):
    monkeypatch.setenv("FACIAL_KEYPOINTS_DATA", str(official_path))
    given = {"data": "official", **SMALL[notebook.name[0]]}
    if notebook.name[0] == "2":  # the smallest network, for an epoch of the whole set
        given |= {"folder": str(tmp_path / "run"), "net": "models4"}
    run_notebook(notebook, tmp_path, given, bar=False)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_kernels")
@pytest.mark.parametrize("notebook", [*NOTEBOOKS[:2], LABELS], ids=title)
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
@pytest.mark.parametrize("notebook", ALL, ids=title)
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


@pytest.mark.parametrize("notebook", ALL, ids=title)
def test_cells_have_outputs_and_no_errors(notebook):
    content = nbformat.read(notebook, 4)
    codes = [cell for cell in content.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in codes), "without outputs nbval compares nothing"
    assert not any(output.output_type == "error" for cell in codes for output in cell.outputs)
    assert not [cell for cell in codes if "nbval-ignore-output" in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("notebook", LESSONS, ids=title)
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


@pytest.mark.parametrize("notebook", [FIVE_MINUTES, *LESSONS], ids=title)
def test_a_notebook_is_a_lesson(notebook):
    """Tests of it are in tests/, not in its cells."""
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "code":
            tree = ast.parse(TransformerManager().transform_cell(cell.source))
            assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_each_exercise_has_a_solution_that_is_right():
    for lesson, solution in zip(LESSONS, SOLUTIONS, strict=True):
        asked = re.findall(r'check\("(\w+)"', nbformat.read(lesson, 4).cells[-1].source)
        printed = "".join(texts_of(solution))
        assert len(asked) == 3 and set(asked) <= set(CHECKS)
        assert re.findall(r"^(\w+): right", printed, re.M) == asked


def texts_of(notebook):
    """The printed texts and the tables, as plain text, of a stored notebook."""
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            yield output.get("text") or output.get("data", {}).get("text/plain", "")


def numbers(notebook, row, unit="%"):
    """The numbers with a unit in the first printed row that begins with a text."""
    lines = [line for text in texts_of(notebook) for line in text.splitlines()]
    line = next(line for line in lines if line.startswith(row))
    return [float(value) for value in re.findall(rf"(-?\d+(?:\.\d+)?) ?{unit}", line)]


def test_the_first_notebook_shows_no_leakage_and_exact_round_trips():
    lines = [line for text in texts_of(NOTEBOOKS[0]) for line in text.splitlines()]
    leaks = [line for line in lines if line.startswith("person ")]
    assert all(line.split()[-1] == "0" for line in leaks) and len(leaks) == 2
    assert any(line == "same image: True  same keypoints: True" for line in lines)
    assert any(line == "largest error of the round trip below 0.01 px: True" for line in lines)


def test_each_network_of_the_second_notebook_beats_the_one_before():
    names = ("mean shape", "regression", "distributions", "models5, this run")
    errors = [numbers(NOTEBOOKS[1], name)[0] for name in names]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 8 < 15 < errors[0]
    nme, low, high, _ = numbers(NOTEBOOKS[1], "models5, this run")
    assert low < nme < high


def test_the_third_notebook_finds_rejects_and_smooths():
    lines = [line.split() for text in texts_of(NOTEBOOKS[2]) for line in text.splitlines()]
    assert ["haar", "1", "6", "0", "0"] in lines and ["pyramid", "1", "6", "1", "1"] in lines
    assert ["29", "faces"] in lines
    assert numbers(NOTEBOOKS[2], "accepted")[0] > 90 and numbers(NOTEBOOKS[2], "rejected")[0] < 20
    assert numbers(NOTEBOOKS[2], "smoothed")[0] < numbers(NOTEBOOKS[2], "raw")[0]


def test_forty_photos_are_enough_in_the_fourth_notebook():
    assert numbers(HOME / "notebooks" / batch.OWN_KEYPOINTS, "all")[0] < 4


def test_the_fifth_notebook_measures_the_shift_that_was_added():
    for size in ("small", "median", "large"):
        measured, added = numbers(LABELS, size, "px")
        assert abs(measured - added) < added / 4
    bounds = [numbers(LABELS, name)[0] for name in ("pixels", "cells", "both")]
    assert bounds == sorted(bounds) and bounds[-1] < 3


def test_notebooks_together_stay_small():
    assert sum(path.stat().st_size for path in ALL) < 10**7


FAKE_PIP = """
import os, sys
print("pip", *sys.argv[1:], "in", os.getcwd())
"""


def test_the_first_cell_installs_the_project_on_colab(tmp_path):
    """In a bare folder, with google.colab and pip faked and the address led to this repository;
    twice, as after a restart. All notebooks begin with the same cell."""
    first = {
        next(cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code")
        for notebook in [*LESSONS, *SOLUTIONS]
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
