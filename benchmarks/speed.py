"""Milliseconds per face for a given box, including the crop: every network in every installed
runtime, compared with dlib and MediaPipe.

With --busy: milliseconds per photo and per training step, on an idle machine and while other
processes use one core each.
"""

import argparse
import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.peers import dlib_on_boxes, mediapipe_predictor
from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.detector import KeypointDetector
from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box, to_points
from facial_keypoints.model import installed_runtimes
from research.networks.export import use_checkpoints, compile_net
from research.datasets import load_frames
from research.networks.contract import input_size
from research.networks.registry import autocast, find_weights, load_checkpoint, load_net, net_names
from research.synthetic.faces import draw_scene
from research.training.losses import chosen_loss, loss_of

import cv2
import numpy as np

# after research, which sets how PyTorch's threads wait
import torch


ROUNDS = 5  # interleaved, so that a slow moment of a shared machine affects all rows equally


def machine():
    """The processor, and the versions of Python, torch and OpenCV, in one line."""
    processor = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", processor)
    return (
        f"{name[1] if name else platform.processor() or platform.machine()}, {os.cpu_count()} "
        "cores; "
        f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV "
        f"{cv2.__version__}"
    )


def ours(run, side):
    """A function of gray photos and boxes -> keypoints, by a compiled network."""

    def predict(grays, boxes):
        matrices = np.stack([crop_matrix(box, side) for box in boxes])
        crops = np.stack(
            [crop_image(gray, matrix, side) for gray, matrix in zip(grays, matrices, strict=True)]
        )
        return to_points(run(crops[:, None].astype(np.float32) / 255)[0], matrices, side)

    return predict


def median_ms(predict, grays, boxes, batch, seconds):
    """Median time per face in milliseconds, over calls with `batch` faces each, for at least
    `seconds` seconds. The first quarter of the calls is warm-up."""
    times, begun, i = [], time.perf_counter(), 0
    while time.perf_counter() < begun + seconds or len(times) < 8:
        rows = [(i + k) % len(grays) for k in range(batch)]
        start = time.perf_counter()
        predict([grays[r] for r in rows], boxes[rows])
        times.append((time.perf_counter() - start) / batch)
        i += batch
    return 1000 * float(np.median(times[len(times) // 4 :]))


@contextlib.contextmanager
def busy_processes(count):
    """A context in which `count` processes use one core each."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def training_step(name, threads):
    """A function that makes one step of training on 32 random crops."""
    net = load_net(name).train()
    side, optimizer = input_size(net), torch.optim.AdamW(net.parameters())
    images, targets = torch.rand(32, 1, side, side), torch.rand(32, 68, 2)

    def step():
        torch.set_num_threads(threads)
        with autocast("cpu"):
            value = loss_of(net, images, targets, chosen_loss(net, name, "auto"))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def compare_busy(net, count, threads, seconds):
    """Print the milliseconds per photo and per training step, alone and with `count` other busy
    processes."""
    photo = draw_scene(0, faces=1, width=512, height=512)[0]
    work = {
        f"a photo of 512² pixels, {n} thread{'s' * (n > 1)}": partial(
            KeypointDetector(net, threads=n), photo
        )
        for n in threads
    }
    work |= {f"a training step, {n} thread{'s' * (n > 1)}": training_step(net, n) for n in threads}
    times = {}
    for processes in (0, count) * 3:  # alternating, since the speed of a shared machine changes
        with busy_processes(processes):
            for name, call in work.items():
                times.setdefault((name, processes), []).append(median_seconds(call, seconds / 3))
    print(
        f"\n{net}, OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', '')}; milliseconds, "
        "median\n"
        f"{'':<36} {'alone':>8} {f'with {count} busy':>16} {'ratio':>6}"
    )
    for name in work:
        alone, busy = (1000 * float(np.median(times[name, n])) for n in (0, count))
        print(f"{name:<36} {alone:>8.1f} {busy:>16.1f} {busy / alone:>6.2f}")


def median_seconds(call, seconds):
    """Median time of a call in seconds, over `seconds` seconds and at least three calls, after one
    call as warm-up."""
    call()
    times, begun = [], time.perf_counter()
    while time.perf_counter() < begun + seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def read_options() -> argparse.Namespace:
    """The options of the command."""
    use_checkpoints()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", help=f"of {', '.join(net_names())} (default: all)")
    parser.add_argument(
        "--threads",
        type=bounded_number(int, 1),
        nargs="+",
        default=[1, 2],
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=bounded_number(int, 1),
        default=1,
        help="faces at once (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=bounded_number(float, 0.1),
        default=2.0,
        help="duration of each measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--busy",
        type=bounded_number(int, 1),
        metavar="N",
        help="compare with N busy processes on the machine instead",
    )
    return parser.parse_args()


def main():
    options = read_options()
    print(machine())
    if options.busy:
        for net in options.nets or [DEFAULT_NET]:
            compare_busy(net, options.busy, options.threads, options.seconds)
        return
    frames = load_frames("sample")
    frames = frames.select(np.arange(0, len(frames), max(len(frames) // 64, 1)))
    grays = [cv2.cvtColor(frames.image(i), cv2.COLOR_RGB2GRAY) for i in range(len(frames))]
    boxes = tight_box(frames.points)
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        for name in options.nets or net_names():
            try:
                net, _ = load_checkpoint(find_weights(name))
            except (DataError, UsageError):  # the time does not depend on the weights
                net = load_net(name).eval()
            for runtime in installed_runtimes():
                compiled = compile_net(net, runtime, threads=threads)
                rows.append((name, runtime, threads, ours(compiled, input_size(net))))
    for name, make in (("dlib", dlib_on_boxes), ("MediaPipe face mesh", mediapipe_predictor)):
        try:
            rows.append((name, "its own", 1, make()))
        except UsageError as error:
            print(f"{name} is not measured: {error}")
    print(
        f"\n{'':<20} {'runtime':<10} {'threads':>7} {'ms / face':>10} {'/ dlib':>8}   (median, "
        f"batches of {options.batch})"
    )
    rounds = []
    for _ in range(ROUNDS):
        rounds.append([])
        for _, _, threads, predict in rows:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            rounds[-1].append(
                median_ms(predict, grays, boxes, options.batch, options.seconds / ROUNDS)
            )
    timed = [(*row[:3], ms) for row, ms in zip(rows, np.median(rounds, axis=0), strict=True)]
    unit = next((ms for name, *_, ms in timed if name == "dlib"), float("nan"))
    for name, runtime, threads, ms in timed:
        print(f"{name:<20} {runtime:<10} {threads:>7} {ms:>10.2f} {ms / unit:>8.2f}")


if __name__ == "__main__":
    run_command(main)
