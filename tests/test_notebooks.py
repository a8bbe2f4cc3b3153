"""The three notebooks: run by papermill from any folder, refuse unknown parameters, and show what
they say (nbval)."""

import csv
import os
import re
import subprocess
import sys
import textwrap

import nbformat
import pytest
from conftest import HOME, copy_of_the_repository

import batch
from batch import run_notebook
from facial_keypoints.errors import DataError

NOTEBOOKS = [HOME / "notebooks" / name for name in batch.NOTEBOOKS]
SMALL = {"1": {"audit_epochs": 1}, "2": {"epochs": 1, "batch_size": 16}, "3": {}}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem[:1])
def test_papermill_runs_each_notebook_with_parameters(notebook, tiny_zip, tmp_path):
    given = dict(SMALL[notebook.name[0]])
    if notebook.name[0] != "3":
        given["data"] = str(tiny_zip)
    if notebook.name[0] == "2":
        given |= {"folder": str(tmp_path / "run"), "net": "models2"}
    run_notebook(notebook, tmp_path, given, bar=False)
    page = (tmp_path / notebook.with_suffix(".html").name).read_text()
    assert "data:image/png" in page and (tmp_path / notebook.name).exists()


def test_a_parameter_that_does_not_exist_fails_the_run(tmp_path):
    with pytest.raises(DataError, match="did you mean"):
        run_notebook(NOTEBOOKS[2], tmp_path, {"detecter": "haar"}, bar=False)


def test_papermill_finds_the_project_from_any_folder(python, tmp_path):
    done = python(["-m", "papermill", NOTEBOOKS[2], "out.ipynb"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.official
@pytest.mark.parametrize("notebook", NOTEBOOKS[:2], ids=lambda path: path.stem[:1])
def test_papermill_runs_on_the_official_data(notebook, official_path, tmp_path, monkeypatch):
    monkeypatch.setenv("FACIAL_KEYPOINTS_DATA", str(official_path))
    given = {"data": "official", **SMALL[notebook.name[0]]}
    if notebook.name[0] == "2":
        given |= {"folder": str(tmp_path / "run"), "batch_size": 64}
    run_notebook(notebook, tmp_path, given, bar=False)


@pytest.mark.slow
def test_outputs_are_what_the_cells_print(tmp_path):
    """Strict nbval over the three committed notebooks, in a copy: notebook 2 writes below runs/."""
    home = copy_of_the_repository(tmp_path / "clone")
    done = subprocess.run([sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q",
                           "-p", "no:cacheprovider",
                           *(str(home / "notebooks" / path.name) for path in NOTEBOOKS)],
                          cwd=home, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(home)})
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem[:1])
def test_notebooks_are_told_as_agreed(notebook):
    content = nbformat.read(notebook, 4)
    kinds = [cell.cell_type for cell in content.cells]
    assert kinds[:3] == ["markdown", "code", "code"] and "colab-badge" in content.cells[0].source
    assert any("parameters" in cell.metadata.get("tags", []) for cell in content.cells)
    codes = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(len(cell.source.splitlines()) <= 24 for cell in codes)
    assert any(cell.outputs for cell in codes), "without outputs nbval compares nothing"
    assert not any(output.output_type == "error" for cell in codes for output in cell.outputs)
    ignored = [cell for cell in codes if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert len(ignored) <= 2


def test_notebooks_together_stay_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 6 * 2**20


def test_a_network_swapped_in_as_the_readme_tells_trains_and_gets_its_row(tiny_zip, tmp_path):
    """models9.py is the README's own text; papermill trains it for two epochs by name."""
    home = copy_of_the_repository(tmp_path / "clone")
    block = re.search(r"Write `models/models9\.py`.*?```python\n(.*?)```",
                      (HOME / "README.md").read_text(), re.S)[1]
    (home / "models" / "models9.py").write_text(textwrap.dedent(block))
    notebook = home / "notebooks" / NOTEBOOKS[1].name
    done = subprocess.run([sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-p",
                           "net", "models9", "-p",
                           "epochs", "2", "-p", "data", str(tiny_zip), "--no-progress-bar"],
                           cwd=home, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(home)})
    assert done.returncode == 0, done.stderr[-3000:]
    rows = list(csv.DictReader((home / "runs" / "results.csv").open()))
    assert (
        [row["net"] for row in rows] == ["models9"]
        and float(rows[0]["nme"]) > 0
        and rows[0]["epochs"] == "2"
    )


FAKE_PIP = """
import os, sys
print("pip", *sys.argv[1:], "in", os.getcwd())
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem[:1])
def test_on_colab_the_first_cell_fetches_and_installs_the_project(notebook, tmp_path):
    """In a bare folder, with google.colab and pip faked and the address led to this repository;
    twice, as after a restart."""
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells
             if cell.cell_type == "code"][:1]
    assert len(cells[0].splitlines()) <= 6
    bare, fake, origin = tmp_path / "content", tmp_path / "fake", tmp_path / "origin"
    bare.mkdir()
    for module in ("google/colab/__init__.py", "pip/__init__.py"):
        (fake / module).parent.mkdir(parents=True)
        (fake / module).write_text("")
    (fake / "pip" / "__main__.py").write_text(FAKE_PIP)
    copy_of_the_repository(origin)
    for words in (["init", "-q", "-b", "main"], ["add", "-A"],
                  ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=origin, check=True)
    environment = {**os.environ, "PYTHONPATH": str(fake), "GIT_CONFIG_COUNT": "1",
                   "GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf",
                   "GIT_CONFIG_VALUE_0": "https://github.com/hhosseinian/Face_Recognition"}
    script = "\n".join(["import google.colab", *cells, "import data_load, os",
                        "print(data_load.__file__, os.getcwd())"])
    (bare / "cell.ipy").write_text(script)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-m", "IPython", "--no-banner", "cell.ipy"],
                              cwd=bare, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0 and "Error" not in done.stdout + done.stderr, (
            done.stdout + done.stderr
        )
        home = bare / "Face_Recognition"
        assert f"pip install --quiet --editable . in {home}" in done.stdout
        assert done.stdout.split()[-1] == str(home)
