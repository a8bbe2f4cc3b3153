"""Parameters of notebooks: unknown names and wrong types are errors before anything runs."""

import pytest
from conftest import HOME, one_line_error

import batch
from errors import UsageError


def test_unknown_and_mistyped_parameters_are_refused():
    kinds = {"epochs": int, "lr": float, "resume": bool, "data": str}
    good = {"epochs": 3, "lr": 1, "resume": False, "data": "sample", "In": ["x = 1", "# Parameters\nepochs = 3\n"]}
    batch.check_parameters(good, **kinds)
    with pytest.raises(UsageError, match="did you mean epochs"):
        batch.check_parameters({**good, "In": ["# Parameters\nepoch = 5\n"]}, **kinds)
    for wrong in ({"resume": "true"}, {"lr": "1e-3"}, {"epochs": 2.0}, {"epochs": True}, {"lr": True}, {"data": 3}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            batch.check_parameters({**good, **wrong}, **kinds)


def test_values_are_read_as_what_they_are():
    assert batch.parse(["a=1", "b=0.5", "c=true", "d=models4", "e='3'", "f=x=y", "g=False"]) == {
        "a": 1, "b": 0.5, "c": True, "d": "models4", "e": "3", "f": "x=y", "g": False}
    with pytest.raises(UsageError, match="name=value"):
        batch.parse(["epochs"])


def test_every_notebook_declares_parameters_with_types_and_help():
    import papermill

    for name in batch.NOTEBOOKS:
        for parameter, row in papermill.inspect_notebook(str(HOME / "notebooks" / name)).items():
            assert row["inferred_type_name"] in ("str", "int", "float", "bool"), (name, parameter)
            assert len(row["help"]) > 10, (name, parameter)


def test_the_command_refuses_unknown_parameters_before_anything_runs(command, tmp_path):
    done = command("batch.py", "epoch=5", "--out", tmp_path / "runs")
    assert "did you mean epochs" in one_line_error(done, 2) and not (tmp_path / "runs").exists()
