"""Training shared by processes: every row once, the first alone writes, a lost one is reported and
the run goes on."""

import csv
import os
import signal
import subprocess
import sys
import time
import types

import pytest
from conftest import HOME, training_words
from hypothesis import given
from hypothesis import strategies as st

from data_load import EpochSampler
from facial_keypoints.errors import UsageError
from research.scaling.distributed import DistributedBatchSampler, launch


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 5))
def test_processes_leave_nothing_out_and_double_nothing(length, size, world):
    sampler = EpochSampler(length, seed=1)
    if size < world or length < world:
        with pytest.raises(UsageError, match="cannot be shared"):
            DistributedBatchSampler(sampler, size, 0, world)
        return
    shares = [list(DistributedBatchSampler(sampler, size, rank, world)) for rank in range(world)]
    assert sorted(row for share in shares for batch in share for row in batch) == list(
        range(length)
    )
    assert len({len(share) for share in shares}) == 1 and all(
        batch for share in shares for batch in share
    )
    assert all(
        len(share) == len(DistributedBatchSampler(sampler, size, 0, world)) for share in shares
    )


def test_a_notebook_launches_one_process_per_gpu(monkeypatch):
    asked = []
    fake = types.SimpleNamespace(
        notebook_launcher=lambda function, num_processes: asked.append((function(), num_processes))
    )
    monkeypatch.setitem(sys.modules, "accelerate", fake)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert launch(2, max, 1, 5) == 5 and not asked
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    launch(2, max, 1, 5)
    assert asked == [(5, 2)]


def launched(tiny_zip, out, epochs, *more):
    """Two processes on the CPU, as a user launches them."""
    pytest.importorskip("accelerate", reason="optional: pip install accelerate")
    words = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        *map(str, training_words(tiny_zip, out, "--epochs", epochs, *more)),
    ]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HOME,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def nme(folder):
    with open(folder / "curves.csv", newline="") as file:
        return [float(row["validation_nme"]) for row in csv.DictReader(file)]


def test_two_processes_train_as_one_does(tiny_zip, tmp_path, command):
    process = launched(tiny_zip, tmp_path / "two", 4)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("minutes") == 1, "only the first process tells"
    found = sorted(
        path.name.split(".")[0] for path in (tmp_path / "two").iterdir() if path.name[0] != "."
    )
    assert found in (
        ["checkpoint", "curves", "last", "params"],
        ["checkpoint", "curves", "events", "last", "params"],
    )
    done = command(*training_words(tiny_zip, tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    one, two = nme(tmp_path / "one"), nme(tmp_path / "two")
    assert len(one) == len(two) == 4 and abs(one[-1] - two[-1]) < 0.15 * one[-1]


@pytest.mark.slow
def test_a_lost_process_is_reported_and_resumed(tiny_zip, tmp_path):
    process = launched(tiny_zip, tmp_path / "run", 12)
    until = time.time() + 120
    while not (tmp_path / "run" / "last.pt").exists():
        assert time.time() < until and process.poll() is None
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "continue with --resume" in err, err[-3000:]
    before = len(nme(tmp_path / "run"))
    assert 0 < before < 12
    process = launched(tiny_zip, tmp_path / "run", 12, "--resume")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and len(nme(tmp_path / "run")) == 12, err
