"""The table of results: rows that come back, a README that is made from them."""

import numpy as np
import pytest

import models
import results
from data_load import split_frames
from errors import DataError
from evaluate import score


@pytest.fixture(scope="module")
def row(tiny):
    frames = split_frames(tiny, "official", "test")
    net, content = models.load_checkpoint(models.find_weights("models4"))
    return results.result_row("models4", net, content, frames, score(models.find_weights("models4"), frames)[0])


def test_a_row_has_all_columns_and_is_appended_to_ones_own_table(row, tmp_path):
    assert set(row) == set(results.COLUMNS)
    for _ in range(2):
        results.append(row, tmp_path / "run", tmp_path / "runs" / "results.csv")
    rows = results.read(tmp_path / "runs" / "results.csv")
    assert len(rows) == 2 and float(rows[1]["nme"]) == row["nme"] and rows[0]["split"] == "official"
    assert results.read(tmp_path / "run" / "row.csv") == rows[:1]


def test_the_readme_gets_the_table_between_its_markers_and_nothing_else_changes(row, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- results: make results -->\nold\n<!-- /results -->\nafter\n")
    results.write_readme([row], path)
    text = path.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    assert f"| {row['nme']:.2f} |" in text
    path.write_text("no markers")
    with pytest.raises(DataError, match="markers"):
        results.write_readme([row], path)


def test_the_committed_readme_shows_the_committed_table():
    assert results.markdown(results.read()) in (results.HOME / "README.md").read_text()


def test_all_shipped_weights_are_in_the_table_with_a_card_and_small():
    rows = results.read()
    files = sorted(models.WEIGHTS.glob("models*.pt"))
    assert {path.stem for path in files} == {r["weights"] for r in rows}
    assert sum(path.stat().st_size for path in files) < 30e6
    for path in files:
        assert path.stat().st_size < 8e6 and path.with_suffix(".md").exists()
        labels = {r["labels"] for r in rows if r["weights"] == path.stem}
        assert labels == {"published", "corrected"}


def test_shipping_halves_precision_and_keeps_the_answers(tmp_path, monkeypatch):
    source = models.find_weights("models4")
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    results.ship(source, "models4-copy")
    image = np.random.default_rng(0).random((1, 1, 112, 112), np.float32)
    a, b = (models.answer(models.load_checkpoint(p)[0], image) for p in (source, tmp_path / "models4-copy.pt"))
    np.testing.assert_allclose(a, b, atol=5e-3)
