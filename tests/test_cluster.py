"""Work on a Dask cluster: the same as here, also when a worker dies; and a line where no cluster
predictions."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import HOME, one_line_error, write_photo

from facial_keypoints.errors import DataError, UsageError
from research.scaling import dask_cluster
from research.scaling.dask_cluster import map_on_cluster


def test_without_dask_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="pip install"):
        next(map_on_cluster("tcp://127.0.0.1:9", "halving.halves", [1]))


distributed = pytest.importorskip("distributed", reason="optional: pip install 'dask[distributed]'")


TIMES = ("ms_per_face", "training_minutes")


@pytest.fixture
def cluster_of_two(tmp_path_factory):
    """A scheduler and two workers as their commands start them, in a folder of their own ->
    address, processes of workers, process of the scheduler."""
    home, free = (
        tmp_path_factory.mktemp("cluster"),
        {k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    place, started = home / "scheduler.json", []

    def start(*words):
        started.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "distributed.cli." + words[0],
                    "--scheduler-file",
                    place,
                    *words[1:],
                ],
                cwd=home,
                env=free,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    scheduler = start("dask_scheduler", "--port", "0", "--no-dashboard")
    workers = [
        start("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)
    ]
    try:
        address = until(lambda: place.exists() and json.loads(place.read_text())["address"])
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, workers, scheduler
    finally:
        for process in started:
            process.kill()
            process.wait()


def until(condition, seconds=60):
    """Wait for something to be true -> what it is."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def test_work_of_a_dead_worker_is_repeated_once(cluster_of_two, tmp_path, monkeypatch):
    """The work itself kills the first worker that gets item 5."""
    (tmp_path / "halving.py").write_text(f"""import os
def halves(number, *_):
    if number == 5:
        try:
            os.mkdir({str(tmp_path / "once")!r})
        except FileExistsError:
            pass
        else:
            os._exit(1)
    if number == 6:
        raise ValueError("six cannot be done")
    return number / 2
""")
    for name in ("research", "facial_keypoints"):
        (tmp_path / name).symlink_to(HOME / name)
    monkeypatch.setattr(dask_cluster, "HOME", tmp_path)
    ended = list(map_on_cluster(cluster_of_two[0], "halving.halves", iter(range(20))))
    assert (tmp_path / "once").exists()
    assert sorted(item for item, _, _ in ended) == list(range(20))
    assert all(
        prediction == item / 2 and not problem for item, prediction, problem in ended if item != 6
    )
    assert [problem for item, _, problem in ended if item == 6] == [
        "ValueError: six cannot be done"
    ]


@pytest.mark.slow
def test_a_sweep_on_a_cluster_gives_the_table_it_gives_here(
    cluster_of_two, command, grid, tmp_path
):
    """Two runs of notebook 2; a worker is killed while it does one of them."""
    address, workers, _ = cluster_of_two
    words = [word for word in grid.words if word != "models77"]

    def kill_one():
        until(lambda: list((tmp_path / "there").glob("*/.notebook*")), 200)
        workers[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    there = command("batch.py", *words, "--out", tmp_path / "there", "--scheduler", address)
    killer.join()
    assert there.returncode == 0 and workers[0].poll() is not None, there.stdout + there.stderr
    tables = []
    for folder in (grid.out, tmp_path / "there"):
        with open(folder / "table.csv", newline="") as file:
            tables.append(
                {
                    row["seed"]: {
                        key: row[key] for key in row if key not in (*TIMES, "run", "failed")
                    }
                    for row in csv.DictReader(file)
                    if row["net"] == "models2"
                }
            )
    assert tables[0] == tables[1] and len(tables[0]) == 2


def test_photos_are_annotated_on_a_cluster_as_here(cluster_of_two, command, tmp_path):
    """By the commands, from a relative folder, with a worker that is killed on the way."""
    pytest.importorskip("pyarrow", reason="optional: pip install pyarrow")
    import pyarrow.parquet

    address, workers, _ = cluster_of_two
    for i in range(12):
        write_photo(tmp_path / "photos" / f"{i:02d}.png", i)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no photo")

    def kill_one():
        until(lambda: list((tmp_path / "there").glob("part-*")))
        workers[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    rows = []
    for name, more in (("there", ("--scheduler", address)), ("here", ("--workers", 1))):
        place = os.path.relpath(tmp_path / "photos")
        done = command(
            "research.scaling.annotate", place, "--out", tmp_path / name, "--chunk", 1, *more
        )
        assert (
            done.returncode == 1
            and "bad.jpg" in done.stderr
            and "1 photos could not be annotated" in done.stderr
        ), done.stderr
        tables = [
            pyarrow.parquet.read_table(path) for path in (tmp_path / name).glob("part-*.parquet")
        ]
        rows.append(
            sorted((row["name"], row["face"]) for table in tables for row in table.to_pylist())
        )
    killer.join()
    assert rows[0] == rows[1] and len(rows[0]) >= 10 and workers[0].poll() is not None


def test_a_missing_scheduler_is_one_line(command, tmp_path):
    done = command(
        "batch.py",
        "--net",
        "models2",
        "--seed",
        "0",
        "1",
        "--out",
        tmp_path / "out",
        "--scheduler",
        "tcp://127.0.0.1:9",
    )
    assert "no Dask scheduler" in one_line_error(done, 1)


def test_work_ends_with_a_message_where_no_worker_is_left(cluster_of_two, monkeypatch):
    monkeypatch.setattr(dask_cluster, "MAX_WAIT", 2.0)
    address, workers, _ = cluster_of_two
    found = dask_cluster.map_on_cluster(address, "time.sleep", [0.01] + [5.0] * 20)
    assert next(found) == (0.01, None, "")
    for worker in workers:
        worker.kill()
    with pytest.raises(DataError, match="no workers; start some and run the command again"):
        list(found)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows stops no process")
def test_work_ends_with_a_message_where_the_scheduler_does_not_respond(cluster_of_two, monkeypatch):
    monkeypatch.setattr(dask_cluster, "MAX_WAIT", 2.0)
    address, _, scheduler = cluster_of_two
    found = dask_cluster.map_on_cluster(address, "time.sleep", [0.01] + [1.0] * 20)
    assert next(found) == (0.01, None, "")
    scheduler.send_signal(signal.SIGSTOP)
    with pytest.raises(DataError, match="does not respond; start it again and run the command"):
        list(found)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows stops no process")
def test_a_scheduler_that_stops_after_the_connection_is_reported(cluster_of_two, monkeypatch):
    monkeypatch.setattr(dask_cluster, "MAX_WAIT", 2.0)
    address, _, scheduler = cluster_of_two
    connected = dask_cluster.connect(address)
    monkeypatch.setattr(dask_cluster, "connect", lambda _: connected)
    scheduler.send_signal(signal.SIGSTOP)
    with pytest.raises(DataError, match="does not respond; start it again and run the command"):
        list(dask_cluster.map_on_cluster(address, "time.sleep", [0.01]))


def test_a_worker_with_other_code_is_refused(cluster_of_two, monkeypatch):
    monkeypatch.setattr(dask_cluster, "code_digest", lambda: "of another version")
    ((item, result, problem),) = dask_cluster.map_on_cluster(
        cluster_of_two[0], "time.sleep", [0.01]
    )
    assert (item, result) == (0.01, None) and "another version of the code" in problem
