"""Grids of papermill runs: parallel, resumable, gathered into one table and one figure."""

import contextlib
import csv
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import (
    PARSE_ERRORS,
    atomic_open,
    atomic_write,
    csv_text,
    read_text,
    short_message,
)
from research import HOME

METRICS = (
    "nme",
    "nme_low",
    "nme_high",
    "fr8",
    "auc8",
    "parameters",
    "ms_per_face",
    "training_minutes",
)
MOST = 10_000  # runs of one grid
PAPERMILL = """# run papermill, and end it when the parent process ends: its kernel ends
# with it, and the run can be started again
import os, runpy, threading, time
parent = os.getppid()
def follow():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=follow, daemon=True).start()
runpy.run_module("papermill", run_name="__main__")
"""


def read_grid(path: str | Path) -> dict[str, list]:
    """A YAML file of parameters, each with a value or a list of values -> {name: list of values}.
    Raises DataError."""
    import yaml

    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    # with tags such as !!int "" PyYAML's own constructors fail
    except (*PARSE_ERRORS, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({short_message(error)})") from None
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: a grid is a list of `name: value` or `name: [value, value]`")
    grid = {
        str(name): value if isinstance(value, list) else [value] for name, value in content.items()
    }
    for name, values in grid.items():
        if not values or not all(isinstance(value, (str, int, float, bool)) for value in values):
            raise DataError(
                f"{path}: {name} must be a number, a word, true or false, or a list of those"
            )
    return grid


def combinations(grid: dict[str, list]) -> dict[str, dict]:
    """{name: values} -> {title: {name: value}} for every combination; a title contains the
    parameters that have several values."""
    many, count = (
        [name for name, values in grid.items() if len(values) > 1],
        math.prod(map(len, grid.values())),
    )
    if count > MOST:
        raise UsageError(f"a grid of {count:,} runs; at most {MOST:,} are allowed")
    runs = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        runs[title_of({name: chosen[name] for name in many})] = chosen
    if len(runs) < count:
        raise UsageError("a value is given twice for one parameter of the grid")
    return runs


def title_of(chosen: dict) -> str:
    """The name of a run's folder: without path separators and unprintable characters; a long name
    is shortened and gets a hash."""
    title = ",".join(f"{name}={value}" for name, value in chosen.items()) or "one"
    legible = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in title)
    digest = hashlib.sha256(title.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return legible if len(legible.encode()) <= 200 else f"{legible[:40]}…{digest}"


def finished(folder: Path, parameters: dict) -> bool:
    """True if a run with exactly these parameters has succeeded in this folder."""
    try:
        return json.loads((folder / "done.json").read_text()) == parameters
    except (OSError, ValueError):
        return False


def as_yaml(parameters: dict) -> str:
    """Parameters as YAML text for papermill's option `-y`, which keeps their types."""
    import yaml

    return yaml.safe_dump(parameters, allow_unicode=True)


class Processes:
    """The running processes of a grid, to end all of them at once."""

    def __init__(self):
        self.lock, self.running, self.stopped = threading.Lock(), set(), False

    def run(self, words: Sequence[str], **options: Any) -> tuple[int, str]:
        """Run a command -> exit code, standard error as text. Raises CancelledError after
        `stop`."""
        with self.lock:
            if self.stopped:
                raise CancelledError
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
            )
            self.running.add(process)
        try:
            errors = self.wait_for(process)
        finally:
            with self.lock:
                self.running.discard(process)
        if self.stopped:
            raise CancelledError
        return process.returncode, errors

    def wait_for(self, process: subprocess.Popen) -> str:
        """Wait for a process -> its standard error as text. Raises CancelledError after `stop`,
        even if a kernel that the process started still keeps its pipes open."""
        while True:
            try:
                return process.communicate(timeout=1)[1]
            except subprocess.TimeoutExpired:
                if self.stopped:
                    raise CancelledError from None

    def stop(self) -> None:
        """End the running processes and start no more."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                end_with_children(process)


def end_with_children(process: subprocess.Popen) -> None:
    """Kill a process and all its children; a kernel is in another session than its parent."""
    import psutil  # comes with ipykernel

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


def run_one(
    notebook: Path, folder: Path, parameters: dict, threads: int, processes: Processes | None = None
) -> str:
    """Run a notebook with papermill in a separate process -> '' or an error message of one line."""
    folder = Path(folder)
    if finished(folder, parameters):
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    given = {**parameters, "folder": str(folder / "run"), "resume": True}
    # a name per process: the run of a lost worker may still write its own notebook
    part, target = folder / f".notebook-{os.getpid()}.ipynb", folder / "notebook.ipynb"
    try:
        code, errors = (processes or Processes()).run(
            [
                sys.executable,
                "-c",
                PAPERMILL,
                str(notebook),
                str(part),
                "-y",
                as_yaml(given),
                "--cwd",
                str(HOME),
                "--kernel",
                "python3",
                "--no-progress-bar",
            ],
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HOME)},
        )
    finally:
        if part.exists():
            os.replace(part, target)
    if code:
        lines = [line for line in errors.strip().splitlines() if line.strip()]
        return lines[-1] if lines else f"papermill ended with exit code {code}"
    atomic_write(folder / "done.json", json.dumps(parameters))
    return ""


def run_here(
    notebook: Path, runs: dict[str, dict], out: Path, workers: int, threads: int
) -> Iterator[tuple]:
    """Run combinations on this machine, `workers` at a time. Yields (title, '' or error message) in
    the order in which they end.

    When the caller stops (Ctrl-C), the running notebooks are ended and the waiting ones are not
    started.
    """
    processes, pool = Processes(), ThreadPoolExecutor(workers)
    try:
        waiting = {
            pool.submit(run_one, notebook, out / title, parameters, threads, processes): title
            for title, parameters in runs.items()
        }
        for future in as_completed(waiting):
            try:
                yield waiting[future], future.result()
            except (OSError, DataError) as error:  # its folder cannot be written to
                yield waiting[future], f"{type(error).__name__}: {error}"
    finally:
        processes.stop()
        pool.shutdown(cancel_futures=True)


def run_titled(work: tuple, notebook: Path, out: Path, threads: int) -> str:
    """`run_one` of (title, parameters), on a worker of a cluster."""
    title, parameters = work
    return run_one(notebook, Path(out) / title, parameters, threads)


def run_all(
    notebook: Path,
    runs: dict[str, dict],
    out: Path,
    workers: int,
    threads: int,
    bar: bool = True,
    scheduler: str | None = None,
) -> list[dict]:
    """Run all combinations, here or on a Dask cluster -> rows of OUT/table.csv, in the order of
    `runs`. The table is written again after each run."""
    rows: dict[str, dict] = {}
    ended: Any
    if scheduler:
        from research.scaling.dask_cluster import map_on_cluster

        ended = (
            (work[0], problem or result)
            for work, result, problem in map_on_cluster(
                scheduler,
                "research.scaling.sweep.run_titled",
                runs.items(),
                str(notebook),
                str(out),
                threads,
            )
        )
    else:
        ended = run_here(notebook, runs, out, workers, threads)
    with contextlib.closing(ended), tqdm(total=len(runs), unit="run", disable=not bar) as progress:
        for title, problem in ended:
            rows[title] = row_of(title, runs[title], problem, out)
            ordered = [rows[title] for title in runs if title in rows]
            atomic_write(
                out / "table.csv",
                csv_text(list(dict.fromkeys(name for row in ordered for name in row)), ordered),
            )
            progress.set_postfix(failed=sum(bool(row["failed"]) for row in ordered), refresh=False)
            progress.update()
            progress.write(f"{'failed' if problem else 'done'}: {title}", file=sys.stdout)
    return ordered


def row_of(title: str, parameters: dict, problem: str, out: Path) -> dict:
    """The row of a run in the table: its parameters, the error message or '', and its metrics if it
    succeeded."""
    row = {"run": title, **parameters, "failed": problem}
    path = out / title / "run" / "row.csv"
    if not problem and path.exists():
        with open(path, newline="") as file:
            result = next(csv.DictReader(file))
        row |= {name: result[name] for name in METRICS}
    return row


def compare(rows: Sequence[dict], out: Path) -> None:
    """Draw rows of the table, the best first, as OUT/comparison.png."""
    import matplotlib

    matplotlib.use("agg")
    from research.reporting.plots import bars

    errors = {
        row["run"]: tuple(float(row[k]) for k in ("nme", "nme_low", "nme_high")) for row in rows
    }
    figure = bars(dict(sorted(errors.items(), key=lambda item: tuple(item[1]))), "NME in %")
    with atomic_open(out / "comparison.png") as file:
        figure.savefig(file, dpi=110)
