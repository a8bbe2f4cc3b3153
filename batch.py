"""papermill runs of the three notebooks, in order, with parameters; the results are notebooks and
HTML pages."""

import argparse
import ast
import base64
import io
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from facial_keypoints.command import bounded_number, printable, run_command
from facial_keypoints.errors import DataError, UsageError
from research import HOME
from research.reporting.notebook import unknown_parameter

NOTEBOOKS = (
    "1. Load and Visualize Data.ipynb",
    "2. Define the Network Architecture.ipynb",
    "3. Facial Keypoint Detection, Complete Pipeline.ipynb",
)
FIVE_MINUTES = "0. Five Minutes.ipynb"
OWN_KEYPOINTS = "4. Your Own Keypoints.ipynb"
LABELS = "5. How Good Are the Labels.ipynb"
# not part of `make run`
OTHERS = (FIVE_MINUTES, OWN_KEYPOINTS, LABELS)
SOLVED = (*NOTEBOOKS, OWN_KEYPOINTS, LABELS)  # have solutions of their exercises
FIXED = {"folder", "resume"}  # parameters of notebook 2 that a grid sets itself
PLACES = {"photo", "data", "net", "folder"}  # parameters that may be paths
# Hide messages of kernels: a warning about local TCP, and an error when they are stopped. Errors of
# cells are in the notebook.
QUIET = ["--log-level=CRITICAL"]


def parameters_of(notebook: Path) -> dict:
    """The parameters of a notebook, {name: default}, as papermill reads them. Raises DataError with
    the name of the file."""
    import papermill

    try:
        return {
            name: row["default"] for name, row in papermill.inspect_notebook(str(notebook)).items()
        }
    except Exception as error:  # JSON, nbformat and papermill raise many kinds of errors
        raise DataError(
            f"{notebook}: not a notebook that papermill reads "
            f"({type(error).__name__}); "
            f"restore it by git checkout"
        ) from None


def run_notebook(notebook: Path, folder: Path, parameters: dict, bar: bool = True) -> Path:
    """Run one notebook and write it to `folder`, as a notebook and as an HTML page -> the path of
    the notebook. Raises DataError with the error of the cell."""
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from nbconvert import HTMLExporter

    from facial_keypoints.files import atomic_write

    # the earlier notebook is kept until the new one is complete
    target, part = folder / notebook.name, folder / f".{notebook.name}"
    try:
        papermill.execute_notebook(
            str(notebook),
            str(part),
            parameters,
            progress_bar=bar,
            cwd=str(HOME),
            kernel_name="python3",
            extra_arguments=QUIET,
        )
        os.replace(part, target)
    except papermill.PapermillExecutionError as error:
        os.replace(part, target)
        raise DataError(
            f"{notebook.name}: {error.ename}: {error.evalue} (the notebook up to "
            f"this cell: {target})"
        ) from None
    except (DeadKernelError, NoSuchKernel) as error:
        raise DataError(
            f"{notebook.name}: the kernel died or does not exist ({error}); is there enough memory?"
        ) from None
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); is the disk full?"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    page, _ = HTMLExporter().from_filename(str(target))
    atomic_write(target.with_suffix(".html"), page)
    return target


def smaller(png: str) -> str:
    """A base64 PNG reduced to 240 colors, a third of the size. The colors of points are exact: they
    have entries of their own in the palette."""
    from PIL import Image, ImageColor

    from facial_keypoints.drawing import OTHER_COLORS

    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    exact = [(0, 0, 0), (255, 255, 255), *map(ImageColor.getrgb, OTHER_COLORS)]
    palette = image.quantize(240 - len(exact)).getpalette() or []
    colors = Image.new("P", (1, 1))
    colors.putpalette([*palette[: 3 * (240 - len(exact))], *(v for rgb in exact for v in rgb)])
    file = io.BytesIO()
    image.quantize(palette=colors, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def refresh(notebook: Path) -> None:
    """Run a notebook with its default parameters and store the outputs in it, for comparison
    by nbval; no times and versions in its metadata."""
    import nbformat
    from nbclient import NotebookClient

    from facial_keypoints.files import atomic_write

    content = nbformat.read(notebook, 4)
    NotebookClient(
        content, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}
    ).execute()
    for cell in content.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    content.metadata = {
        "kernelspec": content.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    atomic_write(notebook, nbformat.writes(content) + "\n")


def parse(pairs: Sequence[str]) -> dict:
    """['name=value', …] -> a dictionary. A value that is a Python literal (bool, int, float, str)
    is converted, another one is text. Raises UsageError."""
    parameters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{pair!r} is not name=value")
        try:
            parameters[name] = {"true": True, "false": False}.get(value.lower())
            parameters[name] = (
                ast.literal_eval(value) if parameters[name] is None else parameters[name]
            )
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parameters[name] = value
        if not isinstance(parameters[name], (bool, int, float, str)):
            parameters[name] = value
    return parameters


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command, without the parameters of a grid."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Run the three notebooks in order by papermill; or notebook 2 over a grid of "
        "parameters.",
        epilog="a grid: --NAME VALUE VALUE … for any parameters of notebook 2, e.g. --net models4 "
        "models5 --seed 0 1 2",
    )
    parser.add_argument(
        "parameters",
        nargs="*",
        metavar="NAME=VALUE",
        help="parameters of the notebooks, e.g. epochs=20; "
        "each is passed to the notebooks that have it",
    )
    parser.add_argument("--out", type=Path, help="(default: runs/latest; runs/grid for a grid)")
    parser.add_argument(
        "--grid", metavar="FILE", help="a YAML file of `name: value` or `name: [value, value]`"
    )
    parser.add_argument(
        "--workers",
        type=bounded_number(int, 1),
        default=max((os.cpu_count() or 1) // 2, 1),
        help="runs of a grid at once (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=bounded_number(int, 1),
        help="threads of each run of a grid (default: cores / workers)",
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="scheduler of a Dask cluster for the runs of a grid"
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="instead, update the outputs in notebooks/ and notebooks/solutions/",
    )
    return parser


def main() -> int:
    parser = command_parser()
    notebooks = [HOME / "notebooks" / name for name in NOTEBOOKS]
    known = {notebook: parameters_of(notebook) for notebook in notebooks}
    group = parser.add_argument_group("parameters of a grid")
    for name in filter(lambda name: name not in FIXED, known[notebooks[1]]):
        group.add_argument(
            f"--{name}", nargs="+", metavar="VALUE", dest=f"grid {name}", help=argparse.SUPPRESS
        )
    options = parser.parse_args()

    if options.refresh:
        others = [*OTHERS, *(f"solutions/{name}" for name in SOLVED)]
        for notebook in [*notebooks, *(HOME / "notebooks" / name for name in others)]:
            refresh(notebook)
        return 0
    lists = {
        name[5:]: words
        for name, words in vars(options).items()
        if name.startswith("grid ") and words
    }
    for name, words in lists.items():
        for word in words:
            if "=" in word and word.partition("=")[0] in known[notebooks[1]]:
                raise UsageError(
                    f"{word!r} follows --{name} and would be one of its values; put it first"
                )
        lists[name] = [parse([f"value={word}"])["value"] for word in words]
    given = parse(options.parameters)
    given = {name: placed(name, value) for name, value in given.items()}
    if lists or options.grid:
        return run_grid(notebooks[1], known[notebooks[1]], given, lists, options)
    return run_in_order(known, given, options.out or Path("runs/latest"))


def placed(name: str, value: object) -> object:
    """The value of a parameter; a path becomes absolute, because the notebooks run in the folder of
    the repository."""
    path = name in PLACES and (name == "folder" or os.path.exists(str(value)))
    return os.path.abspath(str(value)) if path else value


def run_in_order(known: dict[Path, dict], given: dict, out: Path) -> int:
    """Run the notebooks, {path: parameters}, one after another, each with the given parameters that
    it has."""
    from research.scaling.locks import lock_folder

    refuse_unknown(given, sorted({name for names in known.values() for name in names}))
    with lock_folder(out):
        return run_each(known, given, out)


def run_each(known: dict[Path, dict], given: dict, out: Path) -> int:
    """The work of `run_in_order`, after the folder is locked."""
    from research.reporting.report import write

    seconds = {}
    row = HOME / str(given.get("folder", known[list(known)[1]]["folder"]).strip("\"'")) / "row.csv"
    before = file_version(row)
    for notebook in known:
        start = time.perf_counter()
        print(notebook.stem, flush=True)
        mine = {name: value for name, value in given.items() if name in known[notebook]}
        target = run_notebook(notebook, out, mine, sys.stderr.isatty())
        seconds[target] = time.perf_counter() - start
        print(f"  done in {seconds[target]:.0f} s", flush=True)
    own = row if file_version(row) not in (None, before) else None
    print(
        f"\nSummary, with links to the notebooks as HTML pages: {write(out, seconds, given, own)}"
    )
    return 0


def file_version(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew: its inode and time, whatever the clock says; None
    if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def run_grid(
    notebook: Path,
    known: dict[str, dict],
    given: dict,
    lists: dict[str, list],
    options: argparse.Namespace,
) -> int:
    """Run notebook 2 for all combinations; finished runs are not repeated. Returns 1 if any
    failed."""
    from research.scaling.sweep import combinations, compare, finished, read_grid, run_all
    from research.scaling.locks import lock_folder

    chosen = {
        **(read_grid(options.grid) if options.grid else {}),
        **{k: [v] for k, v in given.items()},
        **lists,
    }
    refuse_unknown(chosen, sorted(known.keys() - FIXED))
    # in a fixed order: earlier runs are recognized by their titles
    chosen = {
        name: [placed(name, value) for value in chosen[name]] for name in known if name in chosen
    }
    runs, out = combinations(chosen), options.out or Path("runs/grid")
    threads = options.threads or max((os.cpu_count() or 1) // options.workers, 1)
    print(
        f"{len(runs)} runs, {options.scheduler or f'{options.workers} at once'}, into {out}",
        flush=True,
    )
    with lock_folder(out):
        try:
            rows = run_all(
                notebook,
                runs,
                out.resolve(),
                options.workers,
                threads,
                sys.stderr.isatty(),
                options.scheduler,
            )
        except KeyboardInterrupt:
            done = sum(finished(out / title, parameters) for title, parameters in runs.items())
            print(
                f"stopped: {done} of {len(runs)} runs are done; the same command runs the others",
                file=sys.stderr,
            )
            return 130
        good = [row for row in rows if "nme" in row]
        if good:
            compare(good, out)
    return report_grid(rows, out)


def report_grid(rows: Sequence[dict], out: Path) -> int:
    """Print the runs of a grid, the best first, and those that failed -> 1 if any failed."""
    good = [row for row in rows if "nme" in row]
    for row in sorted(good, key=lambda row: float(row["nme"])):
        print(
            f"  {row['run']:<40} NME {float(row['nme']):6.2f} "
            f"({float(row['nme_low']):.2f}–{float(row['nme_high']):.2f})"
        )
    failed = {row["run"]: row["failed"] for row in rows if row["failed"]}
    for title, reason in failed.items():
        print(f"failed: {printable(f'{title}: {reason}')}", file=sys.stderr)
    print(
        f"{len(rows) - len(failed)} of {len(rows)} runs succeeded; the table: {out / 'table.csv'}"
    )
    return 1 if failed else 0


def refuse_unknown(given: dict, known: Iterable[str]) -> None:
    """Raise UsageError for a parameter that no notebook has, before anything runs."""
    for name in given:
        if name not in known:
            raise UsageError(unknown_parameter(name, known))


if __name__ == "__main__":
    run_command(main)
