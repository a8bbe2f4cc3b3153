"""Scaling: training in several processes, data sets larger than memory, annotation of many photos;
the results are rows of a table."""

import argparse
import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
from tqdm import tqdm

from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write, csv_text
from research import HOME
from research.datasets import load_frames, split_frames
from facial_keypoints.files import csv_rows
from research.evaluation.results import current_commit, put_tables
from research.synthetic.faces import FRAMES, VIDEOS, draw_scene, draw_shards
from research.training.runs import read_history
from benchmarks.speed import machine


PAGE = HOME / "docs" / "scaling.md"
TABLE = Path(__file__).with_name("scaling.csv")
COLUMNS = ("what", "setting", "figure", "value", "unit", "date", "commit", "machine")


class Rows:
    """Measurements: each is printed and added to a CSV table."""

    def __init__(self, table):
        self.table = table
        self.about = {
            "date": datetime.date.today().isoformat(),
            "commit": current_commit(),
            "machine": machine(),
        }

    def add(self, what, setting, figure, value, unit):
        """Add one row. It replaces an earlier row of the same machine and day."""
        row = {
            "what": what,
            "setting": setting,
            "figure": figure,
            "value": f"{value:.4g}",
            "unit": unit,
            **self.about,
        }
        print(f"{what:<12} {setting:<28} {figure:<32} {value:>10.4g} {unit}", flush=True)
        kept = csv_rows(self.table, optional=True)
        same = ("what", "setting", "figure", "date", "machine")
        kept = [other for other in kept if any(other[key] != row[key] for key in same)]
        atomic_write(self.table, csv_text(COLUMNS, [*kept, row]))

    def tell(self):
        """Write the table in docs/scaling.md, with the newest row of each figure."""
        newest = {tuple(row[key] for key in COLUMNS[:3]): row for row in csv_rows(self.table)}
        lines = ["| what | setting | quantity | | on |", "| --- | --- | --- | ---: | --- |"]
        lines += [
            f"| {r['what']} | {r['setting']} | {r['figure']} | {r['value']} {r['unit']} | "
            f"{r['date']} |"
            for r in newest.values()
        ]
        put_tables(
            PAGE,
            scaling="\n".join(
                [*lines, "", f"Newest rows: {list(newest.values())[-1]['machine']}."]
            ),
        )


def call(*words, every=None, **environment):
    """Run a command of the project -> (seconds, memory in bytes of it and its children).

    The memory is an array with one value every `every` seconds, empty without `every`. Measuring it
    slows the command down a little, so it is done only where memory is of interest.
    """
    start, seen, done = time.perf_counter(), [], threading.Event()
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=HOME,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def watch():
        while every and not done.wait(every):
            seen.append(resident(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise DataError(
            f"{' '.join(map(str, words))} ended with {process.returncode}:\n{output[-2000:]}"
        )
    return time.perf_counter() - start, np.array(seen)


def resident(pid):
    """Memory in bytes of a process and its children. Shared memory is divided among the processes
    that share it (PSS), on Linux; elsewhere it is counted in each process (RSS)."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = one.memory_full_info()
                total += getattr(memory, "pss", memory.rss)  # only Linux reports PSS
    return total


# long: a list of measurements, each a call with its settings
def training(rows, options):
    """Compare one process and two with the same global batch size: validation NME, frames per
    second, share of the time spent waiting for data."""
    count = len(split_frames(load_frames(options.data, "corrected"), "person", "training"))
    several = (
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    )
    cores = os.cpu_count() or 1
    for setting, words, threads in (
        ("one process", (), cores),
        ("one process, a loader", (), cores),
        ("two processes", several, max(cores // 2, 1)),
    ):
        out = options.out / setting.replace(" ", "-").replace(",", "")
        loaders = ("--workers", "1") if "loader" in setting else ()
        epochs = options.epochs if not loaders else 3
        shutil.rmtree(out, ignore_errors=True)
        call(
            *words,
            "train.py",
            "--net",
            options.net,
            "--data",
            options.data,
            "--epochs",
            epochs,
            "--out",
            out,
            "--device",
            options.device,
            *loaders,
            OMP_NUM_THREADS=str(threads),
        )
        history = read_history(out)
        setting = f"{options.net}, {setting}"
        rows.add(
            "training",
            setting,
            "frames a second",
            count / np.median([row["seconds"] for row in history]),
            "1/s",
        )
        rows.add(
            "training",
            setting,
            "waited for data",
            100 * np.mean([row["waited"] for row in history]),
            "%",
        )
        if not loaders:
            best = min(row["validation_nme"] for row in history)
            rows.add("training", setting, f"validation NME, {epochs} epochs", best, "%")


def archives(rows, options):
    """Measure the memory of one epoch on 3,000 and on many synthetic frames, read as a stream."""
    each, few = VIDEOS * FRAMES, {}
    for people in (3000 // each, options.people):
        folder = options.out / f"drawn-{people}"
        start, there = time.perf_counter(), folder.exists()
        draw_shards(folder, people)
        if not there:
            rows.add(
                "archives",
                f"{people * each} synthetic frames",
                "drawing",
                time.perf_counter() - start,
                "s",
            )
        for workers, loader in enumerate(("no loader", "a loader")):
            out = options.out / f"run-{people}-{workers}"
            shutil.rmtree(out, ignore_errors=True)
            _, seen = call(
                "train.py",
                "--net",
                options.net,
                "--data",
                folder,
                "--epochs",
                1,
                "--out",
                out,
                "--device",
                "cpu",
                "--workers",
                workers,
                every=2,
            )
            setting, most, epoch = (
                f"{people * each} synthetic frames, {loader}",
                seen.max() / 1e6,
                read_history(out)[0],
            )
            rows.add("archives", setting, "most resident memory", most, "MB")
            rows.add("archives", setting, "waited for data", 100 * epoch["waited"], "%")
            rows.add("archives", setting, "one epoch", epoch["seconds"], "s")
            if workers in few:
                rows.add(
                    "archives", setting, "more than for 3000 frames", most - few[workers], "MB"
                )
            few[workers] = most


def make_photos(folder, count, scenes=200, side=300):
    """Make `count` photos of one face each, with different positions and brightness -> the folders,
    with a thousand photos each. Existing photos are kept."""
    drawn = None
    for i in tqdm(
        range(count), desc="drawing photos", unit="photo", disable=not sys.stderr.isatty()
    ):
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        if path.exists():
            continue
        if drawn is None:
            drawn = [
                draw_scene(seed, faces=1, width=side + 20, height=side + 20)[0]
                for seed in range(min(scenes, count))
            ]
        rng = np.random.default_rng(i)
        x, y = rng.integers(0, 21, 2)
        image = cv2.convertScaleAbs(
            drawn[i % len(drawn)][y : y + side, x : x + side], alpha=rng.uniform(0.6, 1.3)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
    return sorted(path for path in folder.iterdir() if path.is_dir())


# long: a list of measurements, each a call with its settings
def photos(rows, options):
    """Measure photos per second in one process and on all cores, memory over many photos, and the
    time that a million photos would take."""
    folders = make_photos(options.out / "photos", options.count)
    cores, speeds, starts = os.cpu_count() or 1, {}, {}
    few = folders[: max(len(folders) // 12, 1)]
    count, spent = sum(1 for folder in few for _ in folder.iterdir()), {}
    for _ in range(3):
        for workers in (1, cores):  # alternating: the load of the machine changes
            for kind, places, chunk in (
                ("start", sorted(few[0].iterdir())[:cores], 1),
                ("all", few, 100),
            ):
                shutil.rmtree(out := options.out / "few", ignore_errors=True)
                seconds = call(
                    "-m",
                    "research.scaling.annotate",
                    *places,
                    "--out",
                    out,
                    "--workers",
                    workers,
                    "--chunk",
                    chunk,
                )[0]
                spent.setdefault((workers, kind), []).append(seconds)
    for workers in (1, cores):
        starts[workers], whole = (np.median(spent[workers, kind]) for kind in ("start", "all"))
        speeds[workers] = (count - cores) / (whole - starts[workers])
        setting = f"{workers} process{'es' * (workers > 1)}"
        rows.add("photos", setting, "photos a second", speeds[workers], "1/s")
        rows.add("photos", setting, "start", starts[workers], "s")
    rows.add(
        "photos",
        f"{cores} processes",
        "speedup over one process",
        speeds[cores] / speeds[1],
        "times",
    )
    out = options.out / "all"
    shutil.rmtree(out, ignore_errors=True)
    seconds, seen = call(
        "-m", "research.scaling.annotate", *folders, "--out", out, "--workers", cores, every=2
    )
    setting = f"{options.count} photos"
    rows.add("photos", setting, "photos a second", options.count / seconds, "1/s")
    rows.add(
        "photos",
        setting,
        "speedup over one process",
        options.count / (seconds - starts[cores]) / speeds[1],
        "times",
    )
    for share in (0.2, 0.6, 1.0):
        part = seen[int(len(seen) * (share - 0.1)) : max(int(len(seen) * share) - 1, 1)]
        rows.add("photos", setting, f"resident memory at {share:.0%}", np.median(part) / 1e6, "MB")
    rows.add(
        "photos", setting, "a million photos here", 1e6 * seconds / options.count / 3600, "hours"
    )
    rows.add(
        "photos",
        setting,
        "a million photos, work",
        1e6 * seconds / options.count / 3600 * cores,
        "core hours",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("training", "archives", "photos"), nargs="+")
    parser.add_argument("--net", default="models5", help="(default: %(default)s)")
    parser.add_argument(
        "--data", default="official", help="data set of training (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="device of training (default: %(default)s)")
    parser.add_argument(
        "--epochs",
        type=bounded_number(int, 1),
        default=20,
        help="epochs of training (default: %(default)s)",
    )
    parser.add_argument(
        "--people",
        type=bounded_number(int, 1),
        default=12_500,
        help=f"people in all, {VIDEOS * FRAMES} frames each (default: %(default)s)",
    )
    parser.add_argument(
        "--count", type=bounded_number(int, 1), default=50_000, help="photos (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/scaling"), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--table",
        type=Path,
        default=TABLE,
        help="rows of other days are kept (default: %(default)s)",
    )
    options = parser.parse_args()
    options.out = options.out.resolve()
    rows = Rows(options.table)
    for what in options.what:
        {"training": training, "archives": archives, "photos": photos}[what](rows, options)
    if options.table == TABLE:
        rows.tell()


if __name__ == "__main__":
    run_command(main)
