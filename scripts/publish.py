"""Publish weights: copy a checkpoint to saved_models/, score all published weights, write their
model cards and the tables."""

import argparse
import inspect
import re
from pathlib import Path


from evaluate import score
from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import atomic_write
from facial_keypoints.layouts import load_layout
from research import HOME
from research.networks.checkpoints import read_checkpoint, save_checkpoint
from research.networks.export import export_checkpoint, milliseconds_per_face
from research.datasets import LABELS, SPLITS, load_frames, split_frames
from research.networks.contract import has_own_loss, input_size
from research.networks.registry import (
    SAVED_MODELS,
    load_checkpoint,
    load_net,
    net_class,
    parameter_count,
)
from facial_keypoints.files import csv_rows
from facial_keypoints.paths import PHOTOGRAPHS, PUBLISHED
from research.evaluation.results import (
    comparison_table,
    markdown_table,
    photograph_table,
    put_tables,
    replace_rows,
    result_row,
    results_csv,
    summary_table,
)
from research.data.photo_groups import is_aflw
from research.networks.terms import terms_of

# after research, which sets how PyTorch's threads wait
import torch

UNSHIPPED = SAVED_MODELS / "unshipped.csv"  # results of networks without published weights
README, RESULTS = HOME / "README.md", HOME / "docs" / "results.md"
CARD = """# {weights}

{line}

| | |
| --- | --- |
| network | `models/{net}.py`, {parameters:,} parameters, gray crops of {side}×{side} pixels |
| trained on | {count:,} frames of the {data} data set, {split} split, labels {labels} |
| training | {params}; {minutes:.0f} minutes |
| file | {size:.1f} MB, fp16, a dictionary for `torch.load(weights_only=True)` |
| terms of the weights | {terms} |

{table}

**Limitations.** {limits} It predicts 68 points, not identity or emotion; do not use it to make
decisions about people.
"""


# what the training data do not show, by their kind
LIMITS = {
    "official": """Trained on {people} people in news videos of the early 2000s, most of them men
and politicians, at low resolution, hardly any with a yaw above 30 degrees. Not tested on children,
on people with facial differences, or on masks.""",
    "merlrav": """Trained on crops of 120 pixels of photographs from Flickr. Who is in them is not
known: results for groups of people were not measured. The labels of a face are shifted by about
1.5 % of the distance between the eyes, in a random direction. Positions of points on the far side
of the head are estimates.""",
}


INT8 = ("models8",)  # also exported with 8-bit integers, which halve its time


def write_card(weights, table):
    """The card of shipped weights, next to them, with a table of results."""
    path = SAVED_MODELS / f"{weights}.pt"
    net, content = load_checkpoint(path)
    line = inspect.getmodule(net_class(content["net"])).__doc__.splitlines()[0]
    data = content["data"]
    params = {k: v for k, v in content["params"].items() if v not in ("", None)}
    if has_own_loss(net):
        del params["loss"]  # it has its own
    photographs = data.get("kind") == "merlrav"
    frames = [name for name in data["frames"] if is_aflw([name]) == photographs]
    people = {name.rsplit("/", 1)[-1].rsplit("_", 1)[0] for name in frames}
    atomic_write(
        path.with_suffix(".md"),
        CARD.format(
            weights=weights,
            line=line,
            net=content["net"],
            parameters=parameter_count(net),
            side=input_size(net),
            count=len(frames),
            data=data["data"],
            terms=terms_of(data),
            limits=LIMITS["merlrav" if photographs else "official"].format(people=len(people)),
            split=data["split"],
            labels=data["labels"],
            params=", ".join(f"{k.replace('_', ' ')} {v}" for k, v in params.items()),
            minutes=content["metrics"].get("minutes", float("nan")),
            size=path.stat().st_size / 1e6,
            table=table,
        ),
    )


def ship(checkpoint, weights):
    """Store a checkpoint in saved_models/ as fp16, and, if it is named like its network, also as an
    ONNX file for the library."""
    if not re.fullmatch(r"models\d+(-\w+)?", weights):
        raise UsageError(
            f"weights are named after their network, models4 or models4-person say, not {weights!r}"
        )
    _, content = load_checkpoint(checkpoint)
    # where they came from, without the folders of one machine
    origins = {
        name: "/".join(Path(content["params"][name]).parts[-2:])
        for name in ("init", "teacher")
        if content["params"].get(name)
    }
    data = content["data"] | {"data": Path(content["data"]["data"]).name}
    save_checkpoint(
        SAVED_MODELS / f"{weights}.pt",
        content["net"],
        content["state_dict"],
        content["params"] | origins,
        content["metrics"],
        data,
        content["layout"],
        half=True,
    )
    if "-" not in weights:  # the library runs these; others are only for comparison
        export_checkpoint(SAVED_MODELS / f"{weights}.pt", SAVED_MODELS / f"{weights}.onnx")
    if weights in INT8:
        target = SAVED_MODELS / f"{weights}-int8.onnx"
        export_checkpoint(SAVED_MODELS / f"{weights}.pt", target, int8=True)


def average(first, second, share, out):
    """Write a checkpoint of the weights of a network before and after fine-tuning, averaged: the
    second's count `share`, in 0…1.

    It keeps most of what either is better at (Wortsman et al., Robust fine-tuning of zero-shot
    models, CVPR 2022). The second must come from the first. Parts that the first does not have are
    the second's.
    """
    (_, before), (_, after) = load_checkpoint(first), load_checkpoint(second)
    if before["net"] != after["net"] or before["layout"] != after["layout"]:
        raise UsageError(f"{first} and {second} are weights of different networks")
    if before["data"].get("split") != after["data"].get("split"):
        raise UsageError(f"{first} and {second} were trained on different splits")
    state = {}
    for name, value in after["state_dict"].items():
        old = before["state_dict"].get(name, value)
        mixed = torch.lerp(old.float(), value.float(), share)
        state[name] = mixed if value.is_floating_point() else value
    frames = sorted({*(before["data"].get("frames") or []), *(after["data"].get("frames") or [])})
    minutes = after["metrics"].get("minutes", 0.0)  # with those of the first, where it came from
    save_checkpoint(
        out,
        after["net"],
        state,
        after["params"] | {"averaged": share},
        {"minutes": minutes},
        after["data"] | {"frames": frames},
        after["layout"],
    )


def scored(path, weights, data, milliseconds=None):
    """The rows of results of one checkpoint, on the test part of the split it was trained with:
    with published labels, then with corrected ones."""
    net, content = load_checkpoint(path)
    minutes = content["metrics"].get("minutes", 0.0)
    if content["data"].get("split") not in SPLITS or not isinstance(minutes, (int, float)):
        raise DataError(
            f"{path}: does not say on which split it was trained, or for how long; "
            "train.py writes complete checkpoints"
        )
    rows, milliseconds = [], milliseconds or milliseconds_per_face(net, runtime="onnx")[0]
    own = content["layout"] != load_layout()  # the shift of published labels is known for ibug68
    for labels in LABELS[:1] if own else LABELS[::-1]:
        frames = load_frames(data, labels, content["layout"] if own else None)
        frames = split_frames(frames, content["data"]["split"], "test")
        rows.append(result_row(weights, net, content, frames, score(path, frames)[0], milliseconds))
        print(
            f"{weights}, {frames.split} split, labels {frames.labels}: NME {rows[-1]['nme']:.2f} %"
        )
    return rows


def record(checkpoint, data):
    """Store the results and the curves of a network whose weights are not published. They replace
    earlier ones of the same network and split."""
    content = read_checkpoint(checkpoint)
    name = f"{content['net']} (no weights)"
    rows = replace_rows(
        csv_rows(UNSHIPPED, optional=True),
        scored(checkpoint, name, data),
        "weights",
        "split",
    )
    atomic_write(UNSHIPPED, results_csv(rows))
    curves = checkpoint.with_name("curves.csv")
    if curves.exists():
        atomic_write(
            SAVED_MODELS / f"curves-{content['net']}-{content['data']['split']}.csv",
            curves.read_bytes(),
        )


def write(data, keep_times=False):
    """Score the shipped weights that learned from official frames: their cards, results.csv, the
    tables of README and docs. The cards and tables of the others show photographs.csv.
    keep_times: times per face stay as results.csv has them, from another machine."""
    contents = {path: read_checkpoint(path) for path in sorted(SAVED_MODELS.glob("models*.pt"))}
    shipped = {
        path: content["net"]
        for path, content in contents.items()
        if content["data"].get("kind") == "official"
    }
    rows = csv_rows(UNSHIPPED, optional=True)
    if keep_times:
        times = {row["net"]: float(row["ms_per_face"]) for row in csv_rows(PUBLISHED)}
    else:
        nets = {row["net"]: load_net(row["net"]).eval() for row in rows}  # one time a network
        nets |= {net: load_checkpoint(path)[0] for path, net in shipped.items()}
        times = dict(
            zip(nets, milliseconds_per_face(*nets.values(), runtime="onnx", rounds=5), strict=True)
        )
    for row in rows:
        row["ms_per_face"] = round(float(times[row["net"]]), 2)
    for path, net in shipped.items():
        own = scored(path, path.stem, data, times[net])
        write_card(path.stem, markdown_table(own))
        rows += own
    rows.sort(key=lambda row: (row["split"], row["labels"], row["net"]), reverse=True)
    atomic_write(PUBLISHED, results_csv(rows))
    put_tables(RESULTS, summary=summary_table(rows), results=markdown_table(rows))
    write_photographs([path for path in contents if path not in shipped])


def write_photographs(paths):
    """Cards of the weights for photographs, and the tables of README and docs, from the rows that
    benchmarks/photographs.py stored."""
    rows = [row for row in csv_rows(PHOTOGRAPHS) if row["part"] == "test"]
    for path in paths:
        own = [row for row in rows if row["weights"] == path.stem]
        write_card(path.stem, photograph_table(own))
    put_tables(RESULTS, photographs=photograph_table(rows))
    put_tables(README, comparison=comparison_table(rows, csv_rows(PUBLISHED)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "write",
        help="score all shipped weights: results.csv, their cards, "
        "tables of README and docs/results.md",
    )
    command.add_argument("--data", default="official", help="(default: %(default)s)")
    command.add_argument(
        "--keep-times",
        action="store_true",
        help="keep the times per face of results.csv: they are of another machine",
    )
    command = commands.add_parser(
        "ship", help="store a trained checkpoint under saved_models/ in half precision"
    )
    command.add_argument("checkpoint", type=Path)
    command.add_argument(
        "weights", help="name of the file without .pt, e.g. models4 or models4-person"
    )
    command = commands.add_parser(
        "average", help="average the weights before and after fine-tuning"
    )
    command.add_argument("first", type=Path)
    command.add_argument("second", type=Path)
    command.add_argument(
        "--share",
        type=bounded_number(float, 0, 1),
        default=0.7,
        help="of the second (default: %(default)s)",
    )
    command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser(
        "record", help="keep the rows and curves of a network too large to ship, without weights"
    )
    command.add_argument("checkpoint", type=Path)
    command.add_argument("--data", default="official", help="(default: %(default)s)")
    options = parser.parse_args()
    if options.command == "ship":
        ship(options.checkpoint, options.weights)
    elif options.command == "average":
        average(options.first, options.second, options.share, options.out)
    elif options.command == "record":
        record(options.checkpoint, options.data)
    else:
        write(options.data, options.keep_times)


if __name__ == "__main__":
    run_command(main)
