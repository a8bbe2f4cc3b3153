"""Folders of training runs: what they hold, the state to resume from, curves, reports."""

import contextlib
import csv
import inspect
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
import torch

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import atomic_write, csv_text, refuse_overwriting
from research.networks.checkpoints import SOURCE, is_plain, to_builtins, verify_archive
from research.networks.registry import find_weights
from research.scaling.locks import lock_folder

# of curves.csv; validation_nme in %; waited: share of `seconds` spent waiting for data
CURVE_COLUMNS = (
    "epoch",
    "lr",
    "training_loss",
    "validation_loss",
    "validation_nme",
    "seconds",
    "waited",
)


def refuse_earlier_run(folder: str | Path) -> None:
    """Raise UsageError if a folder holds the weights of an earlier run."""
    for name in ("checkpoint.pt", "last.pt"):
        if (Path(folder) / name).exists():
            raise UsageError(
                f"{folder} holds an earlier run ({name}): go on with it by --resume, "
                "write to another folder by "
                "--out, or replace it by --overwrite"
            )


def run_folder(name: str, again: bool) -> Path:
    """The folder of a run that names none: the first of runs/NAME, runs/NAME-2, … that holds no
    run. again: the last one before that folder, which is to be resumed or replaced; runs/NAME if
    that holds none."""
    earlier = list(itertools.takewhile(holds_run, numbered(Path("runs") / name)))
    folders = itertools.islice(numbered(Path("runs") / name), max(len(earlier) - again, 0), None)
    return next(folders)


def numbered(base: str | Path) -> Iterator[Path]:
    """BASE, BASE-2, BASE-3, …"""
    yield Path(base)
    yield from (Path(f"{base}-{number}") for number in itertools.count(2))


def holds_run(folder: Path) -> bool:
    """True if a training run has written to a folder."""
    return (folder / "params.json").exists()


def save_training_state(
    folder: Path, parts: dict, history: list[dict], best: dict, params: dict, data: dict
) -> None:
    """Write last.pt and curves.csv, each atomically."""
    state = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save(
        to_builtins({"history": history, "best": best, "params": params, "data": data})
        | {"state": state},
        buffer,
    )
    atomic_write(folder / "last.pt", buffer.getvalue())
    atomic_write(folder / "curves.csv", csv_text(CURVE_COLUMNS, history))


def load_training_state(
    path: Path, parts: dict, params: dict, data: dict
) -> tuple[list[dict], dict]:
    """Restore the state of an interrupted run from last.pt -> (rows of curves.csv, its best epoch).

    Raises DataError if the file is damaged, UsageError if it is of a run with other parameters or
    data.
    """
    verify_archive(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        before = {**saved["params"], **saved["data"]}
        states = {name: saved["state"][name] for name in parts}
        history, best = saved["history"], saved["best"]
        if not (
            is_plain([before, history, best])
            and isinstance(best["nme"], float)
            and all(
                row.keys() <= set(CURVE_COLUMNS)
                and all(isinstance(value, (int, float)) for value in row.values())
                and {"epoch", "seconds"} <= row.keys()
                for row in history
            )
        ):
            raise TypeError("values of other types")
    except Exception as error:
        raise DataError(
            f"{path}: cannot be resumed from ({type(error).__name__}); delete it to begin again"
        ) from None
    changed = [k for k, v in to_builtins({**params, **data}).items() if before.get(k) != v]
    if changed:
        raise UsageError(
            f"{path} is of a run with another {', '.join(changed)}; give the same, or another --out"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(states[name])
    except Exception as error:  # each part complains in its own way
        raise DataError(
            f"{path}: of another network or machine ({type(error).__name__}: "
            f"{str(error)[:200]}); delete it to "
            "begin again"
        ) from None
    return history, best


def read_history(folder: str | Path) -> list[dict]:
    """The rows of a run's curves.csv, as `train` returns them."""
    with open(Path(folder) / "curves.csv", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def diverged(problem: str, epoch: int, lr: float, folder: Path, names: Sequence[str] = ()) -> str:
    """The message for a loss or weights that are not finite."""
    kept = f"; the last good state is {folder / 'last.pt'}" if (folder / "last.pt").exists() else ""
    cure = (
        f"look at {', '.join(names[:3])}"
        if len(names)
        else f"lower --lr (now {lr:g}) or look at the data"
    )
    return f"{problem} in epoch {epoch + 1}: {cure}{kept}"


def tensorboard_writer(folder: Path) -> Any:
    """A TensorBoard writer when that is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)


def report_epoch(row: dict, epochs: int, bar: bool, board: Any) -> None:
    """Print one line for an epoch, and write its learning rate, losses and NME to TensorBoard."""
    if bar:
        tqdm.write(
            f"epoch {row['epoch']:>3}/{epochs}  training loss {row['training_loss']:.4f}"
            + (
                f"  validation loss {row['validation_loss']:.4f}"
                f"  NME {row['validation_nme']:5.2f} %"
                if "validation_nme" in row
                else ""
            )
            + f"  {row['seconds']:.0f} s, {100 * row['waited']:.0f} % waiting for data"
        )
    for key in CURVE_COLUMNS[1:-2] if board else ():
        if key in row:
            board.add_scalar(key, row[key], row["epoch"])
    if board:
        board.flush()


@contextlib.contextmanager
def claim_folder(
    folder: Path, started_from: Sequence[str], replace: bool, main: bool
) -> Iterator[None]:
    """A context in which a run has its folder for itself. Raises UsageError for a folder that holds
    an earlier run, unless `replace`, or the weights that the run starts from.

    main: false in the processes of a team that write no files.
    """
    refuse_overwriting(
        [find_weights(given) for given in started_from if given], [folder / "checkpoint.pt"]
    )
    with lock_folder(folder) if main else contextlib.nullcontext():
        if main and not replace:
            refuse_earlier_run(folder)
        yield


def begin_records(
    folder: Path, params: dict, history: list[dict], net: torch.nn.Module | None = None
) -> None:
    """Write params.json, the source of the network, and curves.csv of a resumed run: it may have
    been killed between last.pt and curves.csv."""
    atomic_write(folder / "params.json", json.dumps(params))
    source = inspect.getsourcefile(type(net)) if net is not None else None
    if source and Path(source).is_file():
        atomic_write(folder / SOURCE, Path(source).read_bytes())
    if history:
        atomic_write(folder / "curves.csv", csv_text(CURVE_COLUMNS, history))
