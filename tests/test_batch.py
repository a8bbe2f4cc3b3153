"""Parameters of notebooks: unknown names and wrong types are errors before anything runs."""

import base64
import io
import ast
import csv
import re

import nbformat
import cv2
import numpy as np
import pytest
from PIL import Image, ImageColor
from conftest import HOME, one_line_error

from facial_keypoints.drawing import OTHER_COLORS
from batch import smaller
from batch import NOTEBOOKS, parse, placed, run_notebook
from facial_keypoints.errors import DataError, UsageError
from research.reporting.notebook import check_parameters
from research.scaling.sweep import combinations, read_grid


def test_unknown_and_mistyped_parameters_are_refused():
    cell = "epochs = 8  # @param\nlr = 0.1  # @param\nresume = False\ndata = 'sample'\n"
    good = {
        "epochs": 3,
        "lr": 1,
        "resume": False,
        "data": "sample",
        "In": ["x = 1", cell, "# Parameters\nepochs = 3\n"],
    }
    check_parameters(good)
    with pytest.raises(UsageError, match="did you mean epochs"):
        check_parameters({**good, "In": [cell, "# Parameters\nepoch = 5\n"]})
    for wrong in (
        {"resume": "true"},
        {"lr": "1e-3"},
        {"epochs": 2.0},
        {"epochs": True},
        {"lr": True},
        {"data": 3},
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            check_parameters({**good, **wrong})


def test_values_are_read_as_what_they_are():
    assert parse(["a=1", "b=0.5", "c=true", "d=models4", "e='3'", "f=x=y", "g=False"]) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "models4",
        "e": "3",
        "f": "x=y",
        "g": False,
    }
    with pytest.raises(UsageError, match="name=value"):
        parse(["epochs"])


def test_every_notebook_declares_parameters_with_types_and_help():
    """Types are those of the forms that Colab shows."""
    import papermill

    kinds = {"string": str, "integer": int, "number": float, "boolean": bool}
    for name in NOTEBOOKS:
        for parameter, row in papermill.inspect_notebook(str(HOME / "notebooks" / name)).items():
            form, text = re.fullmatch(r'@param \{type: "(\w+)"\} (.+)', row["help"]).groups()
            default = ast.literal_eval(row["default"])
            assert type(default) is kinds[form], (name, parameter)
            assert len(text) > 10, (name, parameter)


def test_a_grid_is_every_combination_named_by_what_differs():
    runs = combinations({"net": ["models4", "models5"], "lr": [0.001], "seed": [0, 1]})
    assert list(runs) == [
        "net=models4,seed=0",
        "net=models4,seed=1",
        "net=models5,seed=0",
        "net=models5,seed=1",
    ]
    assert runs["net=models5,seed=1"] == {"net": "models5", "lr": 0.001, "seed": 1}
    with pytest.raises(UsageError, match="given twice"):
        combinations({"seed": [1, 1]})
    with pytest.raises(UsageError, match="at most"):
        combinations({"seed": list(range(200)), "lr": list(range(200))})
    for title in combinations({"data": ["x" * 300, "/a\0b/" + "顔" * 100], "seed": [0, 1]}):
        assert len(title.encode()) <= 255 and title.isprintable() and "/" not in title


def test_paths_are_meant_from_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.zip").write_bytes(b"")
    assert (
        placed("data", "my.zip") == str(tmp_path / "my.zip")
        and placed("data", "sample") == "sample"
    )
    assert placed("folder", "new") == str(tmp_path / "new") and placed("loss", "my.zip") == "my.zip"


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "a grid is"),
        ("- 1", "a grid is"),
        ("a: {b: c}", "a must be"),
        ("a: []", "a must be"),
        ("a: [1", "as YAML"),
        ("a: !!python/object:os.system x", "as YAML"),
        ("a: " + "[" * 100_000, "as YAML"),
        ("a: 2001-99-99", "as YAML"),
        ("a: " + "9" * 5000, "as YAML"),
    ],
)
def test_files_that_are_no_grid_are_named(text, said, tmp_path):
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        read_grid(tmp_path / "g.yaml")
    assert "g.yaml" in str(error.value)


@pytest.mark.slow
def test_a_grid_runs_resumes_and_reports_what_failed(grid):
    """Two seeds, and a network that does not exist; each call does only what is not done."""
    done = grid.resumed
    assert done.returncode == 1 and "2 of 4 runs succeeded" in done.stdout, (
        done.stdout + done.stderr
    )
    assert "failed: net=models77,seed=0" in done.stderr and "no network 'models77'" in done.stderr
    with open(grid.out / "table.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert (
        len(rows) == 4
        and float(rows["net=models2,seed=1"]["nme"]) > 0
        and rows["net=models77,seed=1"]["failed"]
    )
    assert (grid.out / "comparison.png").stat().st_size > 1000
    assert len(list(grid.out.glob("*/run/checkpoint.pt"))) == 2
    first = grid.out / "net=models2,seed=0" / "run" / "checkpoint.pt"
    assert first.stat().st_mtime_ns == grid.interrupted.first, "what is done is not done again"


def test_kernels_say_nothing_about_themselves(tmp_path, capfd):
    notebook = tmp_path / "one.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('the cell ran')")]),
        notebook,
    )
    (tmp_path / "out").mkdir()
    run_notebook(notebook, tmp_path / "out", {}, bar=False)
    assert "the cell ran" in (tmp_path / "out" / "one.ipynb").read_text()
    assert "IPKernelApp" not in "".join(capfd.readouterr())


def test_the_command_refuses_unknown_parameters_first(command, tmp_path):
    done = command("batch.py", "epoch=5", "--out", tmp_path / "runs")
    assert "did you mean epochs" in one_line_error(done, 2)
    assert "--epoch" in one_line_error(
        command("batch.py", "--epoch", "5", "6", "--out", tmp_path / "runs"), 2
    )
    assert not (tmp_path / "runs").exists()


def test_stored_pictures_keep_the_colors_of_points_exactly():
    base = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 255, (90, 200, 3), np.uint8), (0, 0), 4
    )
    colors = [ImageColor.getrgb(color) for color in OTHER_COLORS]
    for i, color in enumerate(colors):
        base[10:13, 20 * i + 5 : 20 * i + 8] = color
    data = smaller(base64.b64encode(cv2.imencode(".png", base[..., ::-1])[1].tobytes()).decode())
    stored = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert [tuple(stored[11, 20 * i + 6]) for i in range(len(colors))] == colors
    assert np.abs(stored.astype(int) - base).mean() < 4
