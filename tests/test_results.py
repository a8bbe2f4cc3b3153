"""The table of results: rows that come back, a README that is made from them."""

import numpy as np
import pytest
import torch

from scripts import publish
from scripts.publish import HOME, average, record, ship, write
from evaluate import score
from facial_keypoints.errors import DataError, UsageError
from research.networks import registry as networks
from research.networks.checkpoints import read_checkpoint, save_checkpoint
from research.datasets import split_frames
from research.networks.registry import SAVED_MODELS, find_weights, load_checkpoint, predict_targets
from facial_keypoints.files import csv_rows
from facial_keypoints.paths import PUBLISHED
from facial_keypoints.paths import PHOTOGRAPHS
from research.evaluation.results import (
    RESULT_COLUMNS,
    append_result,
    comparison_table,
    markdown_table,
    photograph_table,
    put_tables,
    result_row,
    summary_table,
)


@pytest.fixture(scope="module")
def row(tiny):
    frames = split_frames(tiny, "official", "test")
    net, content = load_checkpoint(find_weights("models4"))
    return result_row("models4", net, content, frames, score(find_weights("models4"), frames)[0])


def test_a_row_has_all_columns_and_is_appended_to_ones_own_table(row, tmp_path):
    assert set(row) == set(RESULT_COLUMNS)
    for name in ("one", "two", "one"):  # scored again: its row is replaced
        append_result({**row, "weights": name}, tmp_path / "runs" / name)
    rows = csv_rows(tmp_path / "runs" / "results.csv")
    assert len(rows) == 2 and float(rows[1]["nme"]) == row["nme"] and rows[0]["split"] == "official"
    assert [found["weights"] for found in rows] == ["two", "one"]
    assert csv_rows(tmp_path / "runs" / "one" / "row.csv") == rows[1:]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "results.csv").write_text("weights,nme\nmine,4\n")
    with pytest.raises(DataError, match="other columns"):
        append_result(row, tmp_path / "old" / "run")
    assert csv_rows(tmp_path / "old" / "results.csv") == [{"weights": "mine", "nme": "4"}]


def test_tables_are_put_between_their_markers_only(row, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(
        "before\n<!-- summary: make results -->\nold\n<!-- /summary -->\nbetween\n"
        "<!-- results: make results -->\nold\n<!-- /results -->\nafter\n"
    )
    put_tables(path, summary=summary_table([row]), results=markdown_table([row]))
    text = path.read_text()
    assert (
        text.startswith("before\n<!--")
        and text.endswith("-->\nafter\n")
        and "old" not in text
        and "\nbetween\n" in text
    )
    assert f"| {row['nme']:.2f} |" in text
    path.write_text("no markers")
    with pytest.raises(DataError, match="markers"):
        put_tables(path, summary=summary_table([row]), results=markdown_table([row]))


def test_the_committed_pages_show_the_committed_table():
    rows = csv_rows(PUBLISHED)
    photographs = [row for row in csv_rows(PHOTOGRAPHS) if row["part"] == "test"]
    assert comparison_table(photographs, rows) in (HOME / "README.md").read_text()
    for table in (summary_table(rows), markdown_table(rows), photograph_table(photographs)):
        assert table in (HOME / "docs" / "results.md").read_text()


def test_the_summary_has_a_line_a_network_the_best_first(row):
    rows = [
        {**row, "net": net, "nme": nme, "nme_own": nme + 1, "split": split, "labels": "published"}
        for net, nme, split in (("a", 5, "official"), ("b", 4, "official"), ("b", 4.5, "person"))
    ]
    lines = summary_table(rows).splitlines()[2:]
    assert [line.split(" | ")[:4] for line in lines] == [
        ["| `b`", "4.00", "5.00", "4.50"],
        ["| `a`", "5.00", "6.00", ""],
    ]


def test_all_shipped_weights_have_a_card_and_a_row():
    rows, photographs = csv_rows(PUBLISHED), csv_rows(PHOTOGRAPHS)
    files = sorted(SAVED_MODELS.glob("models*.pt"))
    assert {path.stem for path in files} == {
        r["weights"] for r in rows if "no weights" not in r["weights"]
    } | {"models7", "models8"}
    assert sum(path.stat().st_size for path in files) < 30e6
    for path in files:
        assert path.stat().st_size < 8e6 and path.with_suffix(".md").exists()
        labels = {r["labels"] for r in rows if r["weights"] == path.stem}
        if path.stem in ("models7", "models8"):
            parts = {r["part"] for r in photographs if r["weights"] == path.stem}
            assert parts == {"test"} and not labels
        else:
            assert labels == {"published", "corrected"}


def test_shipping_halves_precision_and_keeps_predictions(tmp_path, monkeypatch):
    source = find_weights("models4")
    for module in (networks, publish):
        monkeypatch.setattr(module, "SAVED_MODELS", tmp_path)
    ship(source, "models4-copy")
    image = np.random.default_rng(0).random((1, 1, 112, 112), np.float32)
    a, b = (
        predict_targets(load_checkpoint(p)[0], image)
        for p in (source, tmp_path / "models4-copy.pt")
    )
    np.testing.assert_allclose(a, b, atol=5e-3)


def test_networks_too_large_to_ship_keep_their_rows(tiny_zip, tmp_path, monkeypatch):
    source = tmp_path / "run" / "checkpoint.pt"
    content = read_checkpoint(find_weights("models4"))
    save_checkpoint(
        source, "models4", content["state_dict"], {}, {}, {**content["data"], "frames": []}
    )
    source.with_name("curves.csv").write_text("epoch\n1\n")
    for module in (networks, publish):
        monkeypatch.setattr(module, "SAVED_MODELS", tmp_path)
    monkeypatch.setattr(publish, "UNSHIPPED", tmp_path / "unshipped.csv")
    for _ in range(2):  # the second time in place of the first
        record(source, str(tiny_zip))
    rows = csv_rows(tmp_path / "unshipped.csv")
    # published and corrected labels, alike here
    assert [row["weights"] for row in rows] == ["models4 (no weights)"] * 2
    assert (tmp_path / f"curves-models4-{content['data']['split']}.csv").read_text() == "epoch\n1\n"


def test_writing_scores_all_weights_and_times_each_network(tiny_zip, tmp_path, monkeypatch):
    content = read_checkpoint(find_weights("models4"))
    for module in (networks, publish):
        monkeypatch.setattr(module, "SAVED_MODELS", tmp_path)
    for weights, split in (("models4", "official"), ("models4-person", "person")):
        save_checkpoint(
            tmp_path / f"{weights}.pt",
            "models4",
            content["state_dict"],
            {},
            {},
            {**content["data"], "split": split, "frames": []},
        )
    for name in ("PUBLISHED", "UNSHIPPED", "README", "RESULTS"):
        monkeypatch.setattr(publish, name, tmp_path / name)
    pages = {publish.README: ["comparison"], publish.RESULTS: ["summary", "results", "photographs"]}
    for page, names in pages.items():
        page.write_text("".join(f"<!-- {n}: -->\n<!-- /{n} -->\n" for n in names))
    write(str(tiny_zip))
    rows = csv_rows(publish.PUBLISHED)
    # two kinds of labels, alike here
    assert sorted(row["weights"] for row in rows) == ["models4"] * 2 + ["models4-person"] * 2
    assert len({row["ms_per_face"] for row in rows}) == 1
    assert markdown_table(rows) in publish.RESULTS.read_text()
    assert (
        markdown_table([row for row in rows if row["weights"] == "models4"])
        in (tmp_path / "models4.md").read_text()
    )


def test_averaged_weights_lie_between_and_know_the_frames_of_both(tmp_path):
    first = find_weights("models4")
    content = read_checkpoint(first)
    second = tmp_path / "second.pt"
    moved = {
        name: value.float() + 1 if value.is_floating_point() else value
        for name, value in content["state_dict"].items()
    }
    save_checkpoint(
        second,
        "models4",
        moved,
        {"lr": 0.1},
        {"minutes": 2.0},
        {**content["data"], "frames": ["training/new.jpg"]},
    )
    average(first, second, 0.25, tmp_path / "mixed.pt")
    mixed = read_checkpoint(tmp_path / "mixed.pt")
    for name, value in mixed["state_dict"].items():
        if value.is_floating_point():
            before = content["state_dict"][name].float()
            torch.testing.assert_close(value, before + 0.25, atol=2e-3, rtol=0)
    assert {"training/new.jpg", *content["data"]["frames"]} == set(mixed["data"]["frames"])
    assert mixed["params"] == {"lr": 0.1, "averaged": 0.25}
    with pytest.raises(UsageError, match="different networks"):
        average(find_weights("models5"), second, 0.5, tmp_path / "none.pt")
    with pytest.raises(UsageError, match="different splits"):
        average(find_weights("models4-person"), second, 0.5, tmp_path / "none.pt")
    assert not (tmp_path / "none.pt").exists()


def test_shipped_weights_name_no_folder_of_one_machine(tmp_path, monkeypatch):
    content = read_checkpoint(find_weights("models4"))
    save_checkpoint(
        tmp_path / "run.pt",
        "models4",
        content["state_dict"],
        {"init": "/somewhere/runs/first/checkpoint.pt", "teacher": "models6"},
        {},
        content["data"],
    )
    for module in (networks, publish):
        monkeypatch.setattr(module, "SAVED_MODELS", tmp_path)
    ship(tmp_path / "run.pt", "models4-copy")
    params = read_checkpoint(tmp_path / "models4-copy.pt")["params"]
    assert params == {"init": "first/checkpoint.pt", "teacher": "models6"}
