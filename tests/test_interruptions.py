"""Runs that are killed, run into a full disk, or meet another run: nothing is lost, and the end is
the same."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import current_process, resource_sharer
from multiprocessing.connection import Client

import pytest
import torch
from conftest import HOME, one_line_error, training_words

from batch import NOTEBOOKS
from facial_keypoints.errors import UsageError
from research.scaling.distributed import leave_errors_to_parent
from facial_keypoints.files import atomic_write, csv_text
from research.networks.checkpoints import read_checkpoint
from research.scaling.locks import lock_folder
from research.networks.registry import load_checkpoint
from research.training.runs import CURVE_COLUMNS

resource = pytest.importorskip(
    "resource", reason="needs limits on the size of files, which Windows has not"
)


def start(script, *arguments, **more):
    """A command in the background, in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, str(HOME / script), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def kill(process):
    """As the plug would: the process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def weights(folder):
    return read_checkpoint(folder / "checkpoint.pt")["state_dict"]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(tiny_zip, tmp_path, command):
    begun = time.monotonic()
    assert command(*training_words(tiny_zip, tmp_path / "whole")).returncode == 0
    whole, moment = time.monotonic() - begun, random.Random(time.time())
    for _ in range(3):
        process = start(*training_words(tiny_zip, tmp_path / "killed", "--resume"))
        try:
            process.wait(moment.uniform(0.3, 0.9) * whole)
        except subprocess.TimeoutExpired:
            kill(process)
    done = command(*training_words(tiny_zip, tmp_path / "killed", "--resume"))
    assert done.returncode == 0, done.stderr
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.skipif(
    int(os.environ.get("FUZZ_CASES", 0)) < 1000,
    reason="takes a minute and a half: make fuzz runs it",
)
def test_a_batch_killed_on_its_way_ends_with_the_same_table(tiny_zip, tmp_path, command):
    words = [
        "batch.py",
        "--net",
        "models2",
        "--data",
        tiny_zip,
        "--epochs",
        "1",
        "--batch_size",
        "32",
        "--seed",
        "0",
        "1",
        "--workers",
        "1",
        "--out",
    ]
    tables = []
    for name in ("whole", "killed"):
        if name == "killed":
            process = start(*words, tmp_path / name)
            until = time.monotonic() + 200
            while not list((tmp_path / name).glob("*/done.json")) and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(3)  # the second run is on its way
            kill(process)
            with open(tmp_path / name / "table.csv", newline="") as file:
                assert len(list(csv.DictReader(file))) == 1, "the table grows with the runs"
        done = command(*words, tmp_path / name)
        assert done.returncode == 0, done.stderr
        with open(tmp_path / name / "table.csv", newline="") as file:
            tables.append(
                [{**row, "ms_per_face": "", "training_minutes": ""} for row in csv.DictReader(file)]
            )
    assert tables[0] == tables[1] and len(tables[0]) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT"])
def test_a_terminal_that_closes_ends_a_training_and_the_processes_that_load_its_data(
    name, tiny_zip, tmp_path
):
    """The terminal sends the signal to all of them."""
    words = training_words(tiny_zip, tmp_path / "run", "--workers", 2, "--epochs", 1000)
    process = start(*words)
    until = time.monotonic() + 100
    while not (tmp_path / "run" / "last.pt").exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert "DataLoader worker" not in said and "stopped" in said, said


class LeavesATensor(torch.utils.data.Dataset):
    """Makes the thread that hands tensors over to the command fail in `row` 0, as it does when the
    command ends too early: it is asked for a tensor that it does not have."""

    def __len__(self):
        return 2

    def __getitem__(self, row):
        if row == 0:
            address, _ = resource_sharer._resource_sharer.register(lambda *_: None, lambda: None)
            with Client(address, authkey=current_process().authkey) as line:
                line.send((-1, os.getpid()))
            time.sleep(0.5)
        return row


@pytest.mark.parametrize("quiet", [True, False])
def test_a_process_that_loads_data_leaves_errors_to_the_command(quiet, capfd):
    batches = torch.utils.data.DataLoader(
        LeavesATensor(), num_workers=1, worker_init_fn=leave_errors_to_parent if quiet else None
    )
    assert [int(rows) for rows in batches] == [0, 1]
    assert ("KeyError: -1" in capfd.readouterr().err) == (not quiet)


@pytest.mark.slow
def test_ctrl_c_stops_a_grid_and_says_how_to_go_on(grid):
    """The first interrupt ends the running notebook and starts none of those that wait."""
    stopped = grid.interrupted
    assert stopped.returncode == 130 and stopped.seconds < 30
    assert "stopped: 1 of 4 runs are done; the same command runs the others" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.runs == ["net=models2,seed=0", "net=models2,seed=1"]
    assert stopped.inside[0] == stopped.inside[1], "its kernel has ended too"


def no_more_than(size):
    """What a child process calls first: files that grow beyond `size` bytes are refused, as on a
    full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_leaves_the_last_good_files(tiny_zip, tmp_path, command):
    out = tmp_path / "run"
    words = list(training_words(tiny_zip, out))
    words[words.index("--epochs") + 1] = 40
    process = start(*words)
    until = time.monotonic() + 120
    while not (out / "last.pt").exists() and time.monotonic() < until:
        time.sleep(0.1)
    kill(process)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name[0] != "."}
    process = start(*words, "--resume", preexec_fn=no_more_than(100_000))
    _, said = process.communicate(timeout=120)
    assert (
        process.returncode == 1
        and "cannot be written" in said.splitlines()[-1]
        and "Traceback" not in said
    ), said
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.name[0] != "."}
    # killed between the state and the curve, it first writes the curve that the state has
    history = torch.load(out / "last.pt", weights_only=True)["history"]
    assert after == before | {"curves.csv": csv_text(CURVE_COLUMNS, history).encode()}
    load_checkpoint(out / "checkpoint.pt")


SMALL_DISK = """mount -t tmpfs -o size=60k none "$1" && cp -r "$2"/. "$1" || exit 99
small=$1 seen=$3; shift 3; "$@"; code=$?; cp -r "$small"/. "$seen"; exit $code"""


@pytest.mark.parametrize("script", ["train.py", "batch.py", "pipeline.py"])
def test_a_small_disk_that_fills_keeps_what_was_there(script, tiny_zip, hopper, tmp_path):
    """A tmpfs of 60 kB, mounted where only the command sees it; what it holds in the end is copied
    out and looked at."""
    small, before, after = (tmp_path / name for name in ("small", "before", "after"))
    for folder in (small, before, after):
        folder.mkdir()
    names = ["checkpoint.pt", *NOTEBOOKS, hopper[0].name]
    for name in names:
        (before / name).write_text("what was there\n")
    words = {
        "train.py": training_words(tiny_zip, small, "--overwrite"),
        "batch.py": ("batch.py", "--out", small),
        "pipeline.py": ("pipeline.py", hopper[0], "--draw", small),
    }[script]
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", small], capture_output=True
    ).returncode:
        pytest.skip("a disk of one's own may not be mounted here")
    done = subprocess.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-c",
            SMALL_DISK,
            "sh",
            small,
            before,
            after,
            sys.executable,
            HOME / words[0],
            *map(str, words[1:]),
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert str(small) in one_line_error(done, 1)
    assert all((after / name).read_text() == "what was there\n" for name in names)
    left = {path.name for path in after.rglob("*") if path.is_file()} - {*names, ".lock"}
    assert left <= {"params.json", "network.py"}, "nothing half written stays behind"


def test_output_files_are_written_atomically(hopper, tmp_path):
    for name in ("predictions.csv", "drawn"):
        (tmp_path / "predictions.csv").write_text("what was there\n")
        words = ["--csv", tmp_path / name] if name != "drawn" else ["--draw", tmp_path / name]
        process = start("pipeline.py", hopper[0], *words, preexec_fn=no_more_than(50))
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1 and "Traceback" not in said and "written" in said, said
        assert (tmp_path / "predictions.csv").read_text() == "what was there\n"
        assert not list(tmp_path.glob("drawn/*"))


def test_a_failed_atomic_write_leaves_no_file(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "old")
    with pytest.raises(TypeError):
        atomic_write(path, 3)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_runs_into_one_folder_do_not_mix(tiny_zip, tmp_path):
    with lock_folder(tmp_path / "run"):
        with pytest.raises(UsageError, match="another run"), lock_folder(tmp_path / "run"):
            pass
        # at once: each waits some seconds for the other run
        refused = [
            start(*training_words(tiny_zip, tmp_path / "run")),
            start(
                "batch.py",
                "--net",
                "models2",
                "--seed",
                "0",
                "1",
                "--data",
                tiny_zip,
                "--out",
                tmp_path / "run",
            ),
            start("batch.py", "--out", tmp_path / "run"),
        ]
        for process in refused:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 2 and "another run" in said, said
            assert len(said.splitlines()) == 1
    with lock_folder(tmp_path / "run"):
        assert not (tmp_path / "run" / "params.json").exists()
