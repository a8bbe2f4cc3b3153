"""The table of results: rows, files, Markdown."""

import contextlib
import datetime
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
import torch

from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write, csv_text
from research import HOME
from research.datasets import SPLITS
from research.networks.export import milliseconds_per_face
from research.data.frames import Frames
from research.evaluation.metrics import REGIONS
from research.networks.registry import parameter_count

COMPARED = {  # rows of the comparison, and what they are called there
    "models8": "**accurate** (`models8`)",
    "models7": "**fast** (`models7`, default)",
    "models5": "**any use** (`models5`)",
    "mediapipe": "MediaPipe Face Landmarker",
    "dlib": "dlib",
}
PHOTOGRAPH_COLUMNS = (
    "weights",
    "part",
    "faces",
    "found",
    "frontal",
    "half_profile",
    "profile",
    "nme_box",
    "auc7",
    "visible",
    "occluded",
    "nme",
    "debiased",
    "eye_slope",
    "lip_slope",
    "mouth_slope",
    "auc_self_occluded",
    "auc_occluded",
    "parameters",
    "megabytes",
    "milliseconds",
    "use",
)
NUMBERS = ("nme", "nme_low", "nme_high", "nme_debiased", "nme_own", "fr8", "fr10", "auc8")
RESULT_COLUMNS = (
    "weights",
    "net",
    "data",
    "split",
    "labels",
    "n",
    *NUMBERS,
    *REGIONS,
    "parameters",
    "ms_per_face",
    "epochs",
    "training_minutes",
    "date",
    "commit",
)


def current_commit() -> str:
    """The short hash of the commit that is checked out; '' outside a repository or without git."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(
            ["git", "-C", str(HOME), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
    return ""


def result_row(
    weights: str | Path,
    net: torch.nn.Module,
    content: dict,
    frames: Frames,
    metrics: dict,
    milliseconds: float | None = None,
) -> dict:
    """One row of the table of results, a dictionary with the keys RESULT_COLUMNS. `milliseconds`
    per face are measured if not given."""
    numbers = {k: round(metrics.get(k, float("nan")), 3) for k in NUMBERS}
    return {
        "weights": weights,
        "net": content["net"],
        "data": frames.data,
        "split": frames.split,
        "labels": frames.labels,
        "n": metrics["n"],
        **numbers,
        **{k: round(v, 3) for k, v in metrics["regions"].items() if k in REGIONS},
        "parameters": parameter_count(net),
        "ms_per_face": round(float(milliseconds or milliseconds_per_face(net)[0]), 2),
        "epochs": content["params"].get("epochs", ""),
        "training_minutes": round(float(content["metrics"].get("minutes", float("nan"))), 1),
        "date": datetime.date.today().isoformat(),
        "commit": current_commit(),
    }


def results_csv(rows: Sequence[dict], header: bool = True) -> str:
    """Rows as CSV text."""
    return csv_text(RESULT_COLUMNS, rows, header)


def append_result(row: dict, folder: str | Path) -> None:
    """Write the row of a run to FOLDER/row.csv, and append it to results.csv next to that folder
    (runs/results.csv), in place of an equal row of another day or commit.

    Parallel runs can call this at the same time. Raises DataError for a table with other columns.
    """
    path = Path(folder).parent / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        before = path.read_text() if path.exists() else ""
        if before and before.partition("\n")[0].split(",") != list(RESULT_COLUMNS):
            raise DataError(f"{path}: other columns than those of this version; rename the file")
        text = results_csv([row], header=False)
        lines = [line for line in before.splitlines(True) if not same_run(line, text)]
        atomic_write(path, "".join(lines or [results_csv([])]) + text)
    atomic_write(Path(folder) / "row.csv", results_csv([row]))


def same_run(line: str, other: str) -> bool:
    """True if two lines of results are of the same weights, with the same scores."""
    measured = RESULT_COLUMNS.index("parameters")
    return line.split(",")[:measured] == other.split(",")[:measured]


def replace_rows(rows: Sequence[dict], new: Sequence[dict], *columns: str) -> list[dict]:
    """Rows with new ones in the places of those with the same values in `columns`; others are
    added at the end."""

    def groups(rows):
        found: dict[tuple, list[dict]] = {}
        for row in rows:
            found.setdefault(tuple(row[column] for column in columns), []).append(row)
        return found

    return [row for group in (groups(rows) | groups(new)).values() for row in group]


def markdown_lines(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table of cells; the columns after the first `texts` are numbers."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    lines.insert(1, "|" + " --- |" * texts + " ---: |" * (len(heads) - texts))
    return "\n".join(lines)


def markdown_table(rows: Sequence[dict]) -> str:
    """Rows -> a Markdown table."""
    heads = (
        "weights",
        "split",
        "labels",
        "NME %",
        "95 % interval",
        "self-predicted crops",
        "FR@8 %",
        "AUC@8",
        "parameters",
        "ms per face",
        "training min",
    )
    cells = []
    for r in rows:
        n = {
            name: float(r[name])
            for name in (*NUMBERS, "parameters", "ms_per_face", "training_minutes")
        }
        cells.append(
            (
                r["weights"],
                r["split"],
                r["labels"],
                f"{n['nme']:.2f}",
                f"{n['nme_low']:.2f}–{n['nme_high']:.2f}",
                f"{n['nme_own']:.2f}",
                f"{n['fr8']:.1f}",
                f"{n['auc8']:.1f}",
                f"{n['parameters'] / 1e6:.2f} M",
                f"{n['ms_per_face']:.1f}",
                f"{n['training_minutes']:.0f}",
            )
        )
    return markdown_lines(heads, cells, texts=3)


def summary_table(rows: Sequence[dict]) -> str:
    """Rows -> a short Markdown table with one line per network, the lowest NME first: published
    labels, both splits."""
    of = {(r["net"], r["split"]): r for r in rows if r["labels"] == "published"}
    nets = sorted(
        {net for net, _ in of},
        key=lambda net: min(float(of[net, s]["nme"]) for s in SPLITS if (net, s) in of),
    )
    heads = (
        "network",
        "NME %",
        "self-predicted crops",
        "unseen people",
        "NME above 8 %",
        "parameters",
        "ms per face",
    )
    cells = []
    for net in nets:
        official, person = (of.get((net, split), {}) for split in SPLITS)
        row = official or person
        errors = [
            f"{float(value):.2f}" if value else ""
            for value in (official.get("nme"), official.get("nme_own"), person.get("nme"))
        ]
        cells.append(
            (
                f"`{net}`",
                *errors,
                f"{float(row['fr8']):.1f} %",
                f"{int(row['parameters']) / 1e6:.1f} M",
                f"{float(row['ms_per_face']):.1f}",
            )
        )
    return markdown_lines(heads, cells)


def photograph_table(rows: Sequence[dict]) -> str:
    """Rows of PHOTOGRAPHS -> a Markdown table."""
    heads = {
        "weights": "",
        "frontal": "frontal",
        "half_profile": "half profile",
        "profile": "profile",
        "nme_box": "all",
        "auc7": "AUC@7",
        "visible": "visible points",
        "occluded": "occluded points",
        "nme": "NME",
        "debiased": "debiased",
        "eye_slope": "eye slope",
        "lip_slope": "lip slope",
        "found": "faces found %",
    }
    _, *columns = heads
    cells = [
        [
            row["weights"],
            *(
                f"{float(row[column]):.{1 if column in ('auc7', 'found') else 2}f}"
                for column in columns
            ),
        ]
        for row in rows
    ]
    return markdown_lines([*heads.values()], cells)


def comparison_table(photographs: Sequence[dict], frames: Sequence[dict]) -> str:
    """Rows of PHOTOGRAPHS (of the test part) and of PUBLISHED -> a Markdown table of networks and
    other projects: errors, size, time and use."""
    official = {
        row["weights"]: f"{float(row['nme']):.2f}"
        for row in frames
        if (row["split"], row["labels"]) == ("official", "published")
    }
    cells = [
        [
            COMPARED.get(row["weights"], row["weights"]),
            *(f"{float(row[column]):.2f}" for column in ("nme_box", "frontal", "profile")),
            official.get(row["weights"], ""),
            f"{float(row['found']):.0f}",
            f"{float(row['eye_slope']):.2f}",
            f"{float(row['megabytes']):.1f}",
            f"{float(row['milliseconds']):.1f}",
            row["use"],
        ]
        for row in photographs
        if row["weights"] in COMPARED
    ]
    heads = [
        "",
        "all photographs",
        "frontal",
        "profile",
        "video frames",
        "found %",
        "eyelids",
        "MB",
        "ms",
        "weights may be used for",
    ]
    return markdown_lines(heads, cells)


def put_tables(path: str | Path, **tables: str) -> None:
    """Replace the Markdown tables between the markers <!-- NAME: … --> and <!-- /NAME --> of a
    page."""
    path = Path(path)
    text = path.read_text()
    for name, table in tables.items():
        found = re.search(f"<!-- {name}: [^>]*-->\n(.*?)<!-- /{name} -->", text, re.S)
        if not found:
            raise DataError(f"{path}: the markers of the table {name!r} are missing")
        text = f"{text[: found.start(1)]}{table}\n{text[found.end(1) :]}"
    atomic_write(path, text)
