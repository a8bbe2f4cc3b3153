"""The table of results: a row a model, the shipped weights with their cards, and the table in the README."""

import argparse
import contextlib
import csv
import datetime
import inspect
import os
import re
import subprocess
from pathlib import Path

from filelock import FileLock  # comes with PyTorch

import models
from data_load import LABELS, SPLITS, load_frames, split_frames
from errors import DataError, UsageError, run
from evaluate import REGIONS, milliseconds_per_face, score
from formats import table_text, write_whole

HOME = Path(__file__).resolve().parent
PUBLISHED = models.WEIGHTS / "results.csv"
UNSHIPPED = models.WEIGHTS / "unshipped.csv"  # rows of networks too large or too weak to ship
README = HOME / "README.md"
NUMBERS = ("nme", "nme_low", "nme_high", "nme_debiased", "nme_own", "fr8", "fr10", "auc8")
COLUMNS = ("weights", "net", "data", "split", "labels", "n", *NUMBERS, *REGIONS, "parameters", "ms_per_face", "epochs",
           "training_minutes", "date", "commit")
CARD = """# {weights}

{line}

| | |
| --- | --- |
| network | `models/{net}.py`, {parameters:,} parameters, gray crops of {side}×{side} pixels |
| trained on | {count:,} frames of the {data} data set, {split} split, labels {labels} |
| training | {params}; {minutes:.0f} minutes |
| file | {size:.1f} MB, fp16, a plain dictionary for `torch.load(weights_only=True)` |
| licence of the weights | MIT, as the code; the frames they were learned from were published for research |

{table}

**Limits.** Learned from {people} people in news videos of the early 2000s, most of them men and politicians, at low
resolution. Not tested on children, on people with facial differences, on masks, or on profiles beyond about 60 degrees.
It places 68 points and says nothing of who somebody is or feels; do not use it to decide about people.
"""


def commit():
    """The commit that is checked out, or '' outside a repository and where there is no git."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["git", "-C", str(HOME), "rev-parse", "--short", "HEAD"], capture_output=True,
                              text=True).stdout.strip()
    return ""


def result_row(weights, net, content, frames, metrics, milliseconds=None):
    """One row of the table of results as a dictionary of COLUMNS; `milliseconds` a face are measured if not given."""
    numbers = {k: round(metrics.get(k, float("nan")), 3) for k in NUMBERS}
    return {
        "weights": weights, "net": content["net"], "data": frames.data, "split": frames.split, "labels": frames.labels,
        "n": metrics["n"], **numbers, **{k: round(v, 3) for k, v in metrics["regions"].items()},
        "parameters": models.parameter_count(net),
        "ms_per_face": round(float(milliseconds or milliseconds_per_face(net)[0]), 2),
        "epochs": content["params"].get("epochs", ""),
        "training_minutes": round(float(content["metrics"].get("minutes", float("nan"))), 1),
        "date": datetime.date.today().isoformat(), "commit": commit(),
    }


def to_csv(rows, header=True):
    """Rows as CSV text."""
    return table_text(COLUMNS, rows, header)


def append(row, folder):
    """Write the row of a run to FOLDER/row.csv, and add it to results.csv next to that folder (runs/results.csv).

    Parallel runs may do so at once. A table of an earlier version, with other columns, is renamed to results.old.csv.
    """
    path = Path(folder).parent / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        before = path.read_text() if path.exists() else ""
        if before and before.partition("\n")[0].split(",") != list(COLUMNS):
            os.replace(path, path.with_suffix(".old.csv"))
            before = ""
        write_whole(path, before + to_csv([row], header=not before))
    write_whole(Path(folder) / "row.csv", to_csv([row]))


def read(path=PUBLISHED):
    """Rows of a table of results as dictionaries of text."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def markdown(rows):
    """Rows -> a Markdown table."""
    heads = ("weights", "split", "labels", "NME %", "95 % interval", "own crops", "FR@8 %", "AUC@8", "parameters", "ms a face",
             "training min")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- |" + " ---: |" * (len(heads) - 3)]
    for r in rows:
        n = {name: float(r[name]) for name in (*NUMBERS, "parameters", "ms_per_face", "training_minutes")}
        cells = (r["weights"], r["split"], r["labels"], f"{n['nme']:.2f}", f"{n['nme_low']:.2f}–{n['nme_high']:.2f}",
                 f"{n['nme_own']:.2f}", f"{n['fr8']:.1f}", f"{n['auc8']:.1f}", f"{n['parameters'] / 1e6:.2f} M",
                 f"{n['ms_per_face']:.1f}", f"{n['training_minutes']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows):
    """Rows -> a short Markdown table, a line a network: published labels, both splits, the best first."""
    of = {(r["net"], r["split"]): r for r in rows if r["labels"] == "published"}
    nets = sorted({net for net, _ in of}, key=lambda net: min(float(of[net, s]["nme"]) for s in SPLITS if (net, s) in of))
    heads = ("network", "NME %, official split", "in its own crops", "people it never saw", "faces above 8 %", "parameters",
             "ms a face")
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for net in nets:
        official, person = (of.get((net, split), {}) for split in SPLITS)
        row = official or person
        errors = [f"{float(value):.2f}" if value else "" for value in
                  (official.get("nme"), official.get("nme_own"), person.get("nme"))]
        lines.append(f"| `{net}` | {' | '.join(errors)} | {float(row['fr8']):.1f} % | {int(row['parameters']) / 1e6:.1f} M | "
                     f"{float(row['ms_per_face']):.1f} |")
    return "\n".join(lines)


def put_tables(path, **tables):
    """Put Markdown tables between a page's markers <!-- NAME: … --> and <!-- /NAME -->."""
    text = path.read_text()
    for name, table in tables.items():
        text, found = re.subn(f"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text,
                              flags=re.S)
        if not found:
            raise DataError(f"{path}: the markers of the table {name!r} are missing")
    write_whole(path, text)


def write_card(weights, rows):
    """The card of shipped weights, beside them."""
    path = models.WEIGHTS / f"{weights}.pt"
    net, content = models.load_checkpoint(path)
    line = inspect.getmodule(models.net_class(content["net"])).__doc__.splitlines()[0]
    data = content["data"]
    params = {k: v for k, v in content["params"].items() if v not in ("", None)}
    if models.accepts_loss(net):
        del params["loss"]  # it has its own
    if "teacher" in params:
        params["teacher"] = "an earlier network"
    names = [name.rsplit("/", 1)[-1].rsplit("_", 1)[0] for name in data["frames"]]
    write_whole(path.with_suffix(".md"), CARD.format(
        weights=weights, line=line, net=content["net"], parameters=models.parameter_count(net),
        side=models.input_size(net), count=len(names), people=len(set(names)), data=data["data"], split=data["split"],
        labels=data["labels"], params=", ".join(f"{k.replace('_', ' ')} {v}" for k, v in params.items()),
        minutes=content["metrics"].get("minutes", float("nan")), size=path.stat().st_size / 1e6, table=markdown(rows)))


def ship(checkpoint, weights):
    """Store a checkpoint of one's own under saved_models/ as fp16."""
    if not re.fullmatch(r"models\d+(-\w+)?", weights):
        raise UsageError(f"weights are named after their network, models4 or models4-person say, not {weights!r}")
    _, content = models.load_checkpoint(checkpoint)
    models.save_checkpoint(models.WEIGHTS / f"{weights}.pt", content["net"], content["state_dict"], content["params"],
                           content["metrics"], content["data"], half=True)


def scored(path, weights, data, milliseconds=None):
    """The rows of one checkpoint on the test part of the split it was trained with: published labels, then corrected."""
    net, content = models.load_checkpoint(path)
    minutes = content["metrics"].get("minutes", 0.0)
    if content["data"].get("split") not in SPLITS or not isinstance(minutes, (int, float)):
        raise DataError(f"{path}: does not say on which split it was trained, or for how long; train.py writes such")
    rows, milliseconds = [], milliseconds or milliseconds_per_face(net)[0]
    for labels in LABELS[::-1]:
        frames = split_frames(load_frames(data, labels), content["data"]["split"], "test")
        rows.append(result_row(weights, net, content, frames, score(path, frames)[0], milliseconds))
        print(f"{weights}, {frames.split} split, labels {frames.labels}: NME {rows[-1]['nme']:.2f} %")
    return rows


def record(checkpoint, data):
    """Keep the rows and the curves of a network whose weights are not shipped; later ones of its kind take their place."""
    content = models.read_checkpoint(checkpoint)
    name = f"{content['net']} (no weights)"
    kept = read(UNSHIPPED) if UNSHIPPED.exists() else []
    rows = scored(checkpoint, name, data)
    kept = [row for row in kept if (row["weights"], row["split"]) != (name, content["data"]["split"])]
    write_whole(UNSHIPPED, to_csv(kept + rows))
    curves = checkpoint.with_name("curves.csv")
    if curves.exists():
        write_whole(models.WEIGHTS / f"curves-{content['net']}-{content['data']['split']}.csv", curves.read_bytes())


def write(data):
    """Score all shipped weights: their cards, the table of results and the README's."""
    shipped = {path: models.read_checkpoint(path)["net"] for path in sorted(models.WEIGHTS.glob("models*.pt"))}
    rows = read(UNSHIPPED) if UNSHIPPED.exists() else []
    nets = sorted({*shipped.values(), *(row["net"] for row in rows)})
    times = milliseconds_per_face(*(models.load_net(net).eval() for net in nets), rounds=5)
    times = dict(zip(nets, times, strict=True))  # one a network, whatever it learned
    for row in rows:
        row["ms_per_face"] = round(float(times[row["net"]]), 2)
    for path, net in shipped.items():
        own = scored(path, path.stem, data, times[net])
        write_card(path.stem, own)
        rows += own
    rows.sort(key=lambda row: (row["split"], row["labels"], row["net"]), reverse=True)
    write_whole(PUBLISHED, to_csv(rows))
    put_tables(README, summary=summary(rows), results=markdown(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("write", help="score all shipped weights: results.csv, their cards, README's table")
    command.add_argument("--data", default="official", help="(default: %(default)s)")
    command = commands.add_parser("ship", help="store a trained checkpoint under saved_models/ in half precision")
    command.add_argument("checkpoint", type=Path)
    command.add_argument("weights", help="name of the file without .pt, e.g. models4 or models4-person")
    command = commands.add_parser("record", help="keep the rows and curves of a network too large to ship, without weights")
    command.add_argument("checkpoint", type=Path)
    command.add_argument("--data", default="official", help="(default: %(default)s)")
    options = parser.parse_args()
    if options.command == "ship":
        ship(options.checkpoint, options.weights)
    elif options.command == "record":
        record(options.checkpoint, options.data)
    else:
        write(options.data)


if __name__ == "__main__":
    run(main)
