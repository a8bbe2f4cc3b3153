"""Training in several processes, on several GPUs and nodes, by Hugging Face accelerate."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Sampler

from facial_keypoints.errors import DataError, UsageError, import_optional
from research.networks.registry import best_device

WHY = "training on several processes"  # needs accelerate


def process_group(device: str = "auto") -> "SingleProcess":
    """The processes that train together: one process, or those that `accelerate launch` or a
    notebook (`launch`) started."""
    world = os.environ.get("WORLD_SIZE") or "1"
    if not world.isdecimal():
        raise UsageError(
            f"the environment variable WORLD_SIZE is {world[:40]!r}, not a number; "
            "unset it, or use accelerate launch"
        )
    return MultiProcess(device) if int(world) > 1 else SingleProcess(device)


def print_rank_zero(*words: object) -> None:
    """Print in the first process only."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(*words)


def launch(processes: int, train: Callable, *arguments: object, **named: object) -> Any:
    """Call `train` from a notebook in several processes, one per GPU. Without GPUs, it is called
    once, in this process.

    Several processes on a CPU would be forks of the kernel, whose libraries already have threads.
    `accelerate launch` starts new processes instead.
    """
    if processes == 1 or not torch.cuda.is_available():
        return train(*arguments, **named)
    import_optional("accelerate", WHY).notebook_launcher(
        functools.partial(train, *arguments, **named), num_processes=processes
    )


class SingleProcess:
    """One process."""

    rank, world = 0, 1

    def __init__(self, device: str):
        self.device = best_device(device)

    main = property(lambda self: self.rank == 0)

    def batches(self, sampler: Sampler, size: int) -> Sampler:
        """Batches of row numbers for this process; `size` is the batch size over all processes."""
        return torch.utils.data.BatchSampler(sampler, size, drop_last=False)

    def wrap(self, module: Any) -> Any:
        """A module whose gradients are the mean over all processes."""
        return module

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        return value


class MultiProcess(SingleProcess):
    """Processes started by accelerate. Each computes its part of every batch; only the first one
    writes files."""

    def __init__(self, device: str):
        cpu = device == "cpu" or not torch.cuda.is_available()
        # train.py sets precision and compilation itself
        self.accelerator = import_optional("accelerate", WHY).Accelerator(
            cpu=cpu, mixed_precision="no", dynamo_backend="no"
        )
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes

    def batches(self, sampler: Sampler, size: int) -> Sampler:
        return DistributedBatchSampler(sampler, size, self.rank, self.world)

    def wrap(self, module: Any) -> Any:
        return self.accelerator.prepare(module)

    def mean(self, value: float) -> float:
        return self.accelerator.reduce(
            torch.tensor([float(value)], device=self.device), "mean"
        ).item()


class DistributedBatchSampler(torch.utils.data.Sampler):
    """The rows of each batch that one process computes.

    Over all processes, every row occurs once. All processes have the same number of batches, and
    the rows are divided evenly among the batches: with fewer rows than processes in the last batch,
    some processes would wait forever.
    """

    def __init__(self, sampler: Any, size: int, rank: int, world: int):
        if size < world or len(sampler) < world:
            raise UsageError(
                f"batches of {size} of {len(sampler)} frames cannot be shared by {world} processes"
            )
        self.sampler, self.size, self.rank, self.world = sampler, size, rank, world

    def __len__(self):
        return max(min(-(-len(self.sampler) // self.size), len(self.sampler) // self.world), 1)

    def __iter__(self):
        for batch in np.array_split(np.fromiter(self.sampler, int), len(self)):
            yield batch[self.rank :: self.world].tolist()


class PeerFailureHandler:
    """A context that reports the end of another process in one line that says what to do.

    The remaining processes notice it by an error of the connection, or by the SIGTERM that the
    launcher sends them. A thread handles the signal, because the main thread may be blocked in a
    library call.
    """

    def __init__(self, team: "SingleProcess", folder: Path):
        self.team, self.line = (
            team,
            f"another process of this training ended; continue with --resume --out {folder}",
        )

    def __enter__(self):
        if self.team.world > 1 and threading.current_thread() is threading.main_thread():
            reported, tell = os.pipe()
            os.set_blocking(tell, False)
            signal.signal(signal.SIGTERM, lambda *_: None)
            # the signal is written to the pipe even while the main thread is blocked
            signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
            threading.Thread(target=self.wait, args=(reported,), daemon=True).start()
        return self

    def wait(self, reported: Any) -> None:
        while os.read(reported, 1)[0] != signal.SIGTERM:
            pass
        print(f"error: {self.line}", file=sys.stderr, flush=True)
        os._exit(1)

    def __exit__(self, kind, error, trace):
        if (
            self.team.world > 1
            and isinstance(error, RuntimeError)
            and any(
                word in str(error)
                for word in (
                    "onnection closed",
                    "onnection reset",
                    "Broken pipe",
                    "imed out",
                    "NCCL",
                )
            )
        ):
            raise DataError(self.line) from None


class TimedLoader:
    """The batches of a loader; `seconds` is the total time spent waiting for them."""

    def __init__(self, loader: DataLoader):
        self.loader, self.seconds = loader, 0.0

    def __iter__(self):
        batches, start = iter(self.loader), time.perf_counter()
        for batch in batches:
            self.seconds += time.perf_counter() - start
            yield batch
            start = time.perf_counter()


class LossModule(torch.nn.Module):
    """A module whose output is the loss of a network: gradients are averaged over the processes
    only if the loss is computed by the wrapped module."""

    def __init__(self, net: torch.nn.Module, loss: Callable):
        super().__init__()
        self.net, self.loss = net, loss

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        return self.loss(images, targets, visible)


def leave_errors_to_parent(_: int) -> None:
    """In a process that loads data (`worker_init_fn`): ignore SIGHUP and SIGQUIT, which a terminal
    sends to all processes of a command, and print nothing when the command ends before it has
    taken a tensor that waits here. The command says why it ends, and then ends this process; other
    errors in this process are raised in the command by PyTorch."""
    sys.excepthook = lambda *_: None  # called only by the thread that hands tensors over
    for name in ("SIGHUP", "SIGQUIT"):
        if hasattr(signal, name):  # Windows has neither
            signal.signal(getattr(signal, name), signal.SIG_IGN)
