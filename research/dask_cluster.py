"""Functions mapped over a Dask cluster."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from facial_keypoints.errors import DataError, import_optional

HOME = Path(__file__).resolve().parents[1]


def connect(address: str) -> Any:
    """A client of the cluster at `address` (tcp://HOST:PORT). Raises UsageError if Dask is missing,
    DataError if no scheduler responds.

    The project must have the same path on all workers, for example on a shared disk.
    """
    distributed = import_optional("distributed", "a cluster", "'dask[distributed]'")
    try:
        return distributed.Client(address, timeout=10)
    except (TimeoutError, OSError, ValueError) as error:
        raise DataError(f"{address}: no Dask scheduler responds there "
                        f"({str(error) or type(error).__name__})") from None


def map_on_cluster(address: str, function: str, items: Iterable,
                   *arguments: object) -> Iterator[tuple]:
    """Yield (item, result, '') or (item, None, error message) in the order in which they finish.
    The number of items may be unlimited.

    function: 'MODULE.NAME' of this project, called as function(item, *arguments). Only as many
    items are sent as keep the workers busy. The items of a dead worker are repeated on another one;
    Dask gives up an item after several workers have died with it.
    """
    # a nested function is pickled by value: the workers need not import this module first
    def far(function, *words):
        import importlib
        import sys

        if home not in sys.path:
            sys.path.insert(0, home)
        module, _, name = function.rpartition(".")
        return getattr(importlib.import_module(module), name)(*words)

    home, items, waiting = str(HOME), iter(items), {}
    with connect(address) as client:
        from distributed import as_completed

        if not client.nthreads():
            print(f"{address}: no workers yet; start them: `dask worker {address}`",
                  file=sys.stderr)

        def send(room):
            for item in itertools.islice(items, room):
                future = client.submit(far, function, item, *arguments, pure=False)
                waiting[future.key] = item
                yield future

        def room():  # workers may have come or gone
            return max(max(2 * sum(client.nthreads().values()), 1) - len(waiting), 0)

        ready = as_completed(send(room()))
        for future in ready:
            item = waiting.pop(future.key)
            try:
                result, problem = future.result(), ""
            except CancelledError:
                raise DataError(f"{address}: the Dask scheduler is gone; run the command again: "
                                "finished work is kept") from None
            except Exception as error:  # any error of the function or of Dask
                result, problem = None, f"{type(error).__name__}: {error}"
            yield item, result, problem
            for more in send(room()):
                ready.add(more)
