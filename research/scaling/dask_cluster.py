"""Functions mapped over a Dask cluster.

Why more than Client.map: millions of photos do not fit into one graph of futures, a photo that
kills its worker would be tried again on every other worker, and a worker with other code would
give other keypoints without a word.
"""

import contextlib
import functools
import hashlib
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any

from facial_keypoints.errors import DataError, import_optional
from research import HOME

MAX_WAIT = 40.0  # seconds to wait for a worker, or for a scheduler that does not respond


@functools.cache
def code_digest() -> str:
    """A digest of the code of the library and of `research`, as it was at the first call."""
    digest = hashlib.sha256()
    for path in sorted(
        path for name in ("facial_keypoints", "research") for path in (HOME / name).glob("*.py")
    ):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def connect(address: str) -> Any:
    """A client of the cluster at `address` (tcp://HOST:PORT). Raises UsageError if Dask is missing,
    DataError if no scheduler responds.

    The project must have the same path on all workers, for example on a shared disk.
    """
    distributed = import_optional("distributed", "a cluster", "'dask[distributed]'")
    if not os.environ.get("FACIAL_KEYPOINTS_VERBOSE"):  # Dask logs tracebacks at ERROR
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout=10)
    except (TimeoutError, OSError, ValueError) as error:
        raise DataError(
            f"{address}: no Dask scheduler responds there ({str(error) or type(error).__name__})"
        ) from None


class Watch:
    """Watches a cluster in a thread of its own until its client is closed.

    threads: of all workers, at the last response of the scheduler; 1 before the first. If for
    MAX_WAIT seconds there are none, or no response, `lost` is set to the reason and the client is
    closed. This cancels its pending futures.
    """

    def __init__(self, client: Any):
        self.client, self.lost, self.threads = client, "", 1
        with contextlib.suppress(TimeoutError):  # the thread asks again
            self.threads = self.count()
        threading.Thread(target=self.run, daemon=True).start()

    def count(self) -> int:
        """Threads of all workers. Raises TimeoutError if the scheduler does not respond."""
        found = self.client.sync(self.client.scheduler.ncores, callback_timeout=MAX_WAIT / 4)
        return sum(found.values())

    def run(self) -> None:
        last = time.monotonic()
        while self.client.status == "running":
            time.sleep(1)
            lost = "there are no workers; start some"
            try:
                self.threads = self.count()
                last = time.monotonic() if self.threads else last
            except TimeoutError:
                lost = "the Dask scheduler does not respond; start it again"
            except Exception:  # closed meanwhile, or the scheduler is gone
                continue
            if time.monotonic() - last > MAX_WAIT:
                self.lost = lost
                with contextlib.suppress(Exception):  # a scheduler that does not respond to this
                    self.client.close(timeout=5)


# long: what can happen to a cluster is handled in one loop, in the order in which it happens
def map_on_cluster(
    address: str, function: str, items: Iterable, *arguments: object
) -> Iterator[tuple]:
    """Yield (item, result, '') or (item, None, error message) in the order in which they finish.
    The number of items may be unlimited.

    function: 'MODULE.NAME' of this project, called as function(item, *arguments). Only enough
    items are sent to keep the workers busy. The items of a dead worker are repeated on another one;
    Dask gives up on an item after several workers have died while they ran it. If the code of a
    worker differs from that of this process, its item gets an error message. Raises DataError if
    the scheduler is gone, or if it does not respond or has no worker for MAX_WAIT seconds, and what
    `connect` raises.
    """

    # nested, because such a function is sent with its code: a worker cannot import this module
    # before the folder of the project is on its path
    def far(function, *words):
        import importlib
        import sys

        if home not in sys.path:
            sys.path.insert(0, home)
        there = importlib.import_module("research.scaling.dask_cluster")
        if getattr(there, "code_digest", str)() != digest:
            raise RuntimeError(
                f"a worker has another version of the code, {there.__file__}; "
                "copy this project there and start the worker again"
            )
        module, _, name = function.rpartition(".")
        return getattr(importlib.import_module(module), name)(*words)

    home, digest, items, waiting = str(HOME), code_digest(), iter(items), {}
    with connect(address) as client:
        from distributed import as_completed

        watch = Watch(client)
        if not watch.threads:
            print(
                f"{address}: no workers yet; start them: `dask worker {address}`", file=sys.stderr
            )

        def send(room):
            for item in itertools.islice(items, room):
                future = client.submit(far, function, item, *arguments, pure=False)
                waiting[future.key] = item
                yield future

        def room():  # workers may have come or gone
            return max(max(2 * watch.threads, 1) - len(waiting), 0)

        ready = as_completed(send(room()))
        for future in ready:
            item = waiting.pop(future.key)
            try:
                result, problem = future.result(), ""
            except Exception as error:  # any error of the function or of Dask
                if watch.lost or isinstance(error, CancelledError):
                    lost = watch.lost or "the Dask scheduler is gone; start it"
                    raise DataError(
                        f"{address}: {lost} and run the command again: finished work is kept"
                    ) from None
                result, problem = None, f"{type(error).__name__}: {error}"
            yield item, result, problem
            for more in send(room()):
                ready.add(more)
