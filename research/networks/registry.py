"""Networks by name: built, checked, run, and loaded with their weights."""

import contextlib
import inspect
import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
import numpy as np

from facial_keypoints.defaults import ALIASES
from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import short_message
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.plugins import plugin_class
from research.networks.contract import as_points, checked_net, layout_of, own_predict
from research.networks.checkpoints import load_weights, read_checkpoint

NETS = Path(__file__).resolve().parents[2] / "models"
RUNS = Path("runs")  # where train.py writes, below the folder it is called in


def net_names() -> list[str]:
    """The networks present: names of files models/models#.py, in the order of their numbers."""
    found = [file.stem for file in NETS.glob("models*.py")]
    return sorted(found, key=lambda name: (int("".join(re.findall(r"\d+", name)) or 0), name))


def net_class(name: str) -> type:
    """Class Net of models/<name>.py. Raises UsageError for a name that is not present."""
    return plugin_class("network", name, net_names(), "models", "models", "Net")


def load_net(name: str, layout: str | Layout = "ibug68") -> torch.nn.Module:
    """An untrained network by name, e.g. 'models4', for the keypoints of a layout. Raises
    UsageError if the class does not follow the contract."""
    kind, layout = net_class(name), load_layout(layout)
    takes_points = "points" in inspect.signature(kind).parameters
    if not takes_points and len(layout) != len(load_layout()):
        raise UsageError(
            f"models/{name}.py: its number of points cannot be set; for the "
            f"{len(layout)} keypoints of layout {layout.name} write "
            "`def __init__(self, points=68)` and use `points`"
        )
    try:
        net = kind(points=len(layout)) if takes_points else kind()
    except TypeError as error:
        raise UsageError(f"models/{name}.py: Net() cannot be made: {error}") from None
    return checked_net(net, name, layout)


def best_device(wanted: str = "auto") -> torch.device:
    """'auto' -> the GPU if there is one, else the CPU; anything else as torch names it."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=wanted).cpu()
        return torch.device(wanted)
    except Exception as error:  # each kind of device has complaints of its own
        raise UsageError(
            f"device {wanted!r} cannot be used here ({short_message(error)}); try auto or cpu"
        ) from None


@cache
def has_bfloat16(kind: str) -> bool:
    """True where bfloat16 is fast: GPUs since 2020, CPUs with AVX512-BF16 or AMX. Elsewhere it only
    loses digits."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return kind == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def autocast(device: str | torch.device, on: bool = True) -> contextlib.AbstractContextManager:
    """A context for arithmetic in 16 bits: bfloat16 where the device is fast at it, else fp16 on
    GPUs; nothing elsewhere."""
    kind = torch.device(device).type
    if not on or not (has_bfloat16(kind) or kind == "cuda"):
        return contextlib.nullcontext()
    return torch.autocast(kind, torch.bfloat16 if has_bfloat16(kind) else torch.float16)


def channels_last(net: torch.nn.Module, device: str | torch.device) -> torch.nn.Module:
    """A network on a device, with its weights in the layout that convolutions are fastest with."""
    return net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def predict_targets(net: torch.nn.Module, images: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Crops (n, 1, side, side) float32 in [0, 1] -> targets (n, k, 2) float32 on the CPU: the
    plain prediction."""
    with torch.inference_mode():
        net.eval()
        images = torch.as_tensor(images).to(next(net.parameters()).device)
        own = own_predict(net)
        targets = own(images)[0] if own else net(images)
        return as_points(targets, net).float().cpu()


def predict(
    net: torch.nn.Module, images: torch.Tensor | np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (n, 1, side, side) float32 in [0, 1] -> targets (n, k, 2) and confidence (n, k) in
    0…1, on the CPU."""
    targets, confidence, *_ = predict_all(net, images)
    return targets, confidence


def predict_all(net: torch.nn.Module, images: torch.Tensor | np.ndarray) -> tuple[Any, ...]:
    """As `predict`, then the visibility (n, k) in 0…1 and the spreads (n, k, 2) in units of
    targets, each None where the network does not give it."""
    with torch.inference_mode():
        net.eval()
        images = torch.as_tensor(images).to(next(net.parameters()).device)
        found = forward_with_confidence(net, images)
        return tuple(None if values is None else values.cpu() for values in found)


def forward_with_confidence(net: torch.nn.Module, images: torch.Tensor) -> tuple[Any, ...]:
    """The result of `predict_all`, as a graph that can be traced and exported.

    A network without a `predict` method predicts the crop and its mirror image: the more the two
    predictions differ, the lower the confidence. It falls to 1/e at a difference of 10 % of the
    normalization distance of the layout. Without mirror pairs it is 1.
    """
    own = own_predict(net)
    if own:
        targets, *rest = own(images)
        rest = [None if values is None else values.float() for values in rest]
        return as_points(targets, net).float(), *rest, *[None] * (3 - len(rest))
    targets, layout = as_points(net(images), net).float(), layout_of(net)
    if not layout.mirror:
        return targets, torch.ones_like(targets[..., 0]), None, None
    mirrored = as_points(net(images.flip(-1)), net).float()[
        :, torch.tensor(layout.mirror, device=images.device)
    ]
    mirrored = mirrored * torch.tensor([-1.0, 1.0], device=images.device)
    length = normalizer(targets, layout)[:, None].clamp_min(1e-6)
    return targets, torch.exp(-(targets - mirrored).norm(dim=-1) / (0.1 * length)), None, None


def normalizer(targets: torch.Tensor, layout: Layout) -> torch.Tensor:
    """`Layout.normalizer` for tensors (n, k, 2) -> (n,)."""
    if layout.normalization is None:
        return (targets.amax(1) - targets.amin(1)).norm(dim=-1)
    start, end = (
        targets[:, list(rows)].mean(1)
        for rows in (layout.normalization.start, layout.normalization.end)
    )
    return (start - end).norm(dim=-1)


def load_checkpoint(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[torch.nn.Module, dict]:
    """A trained network, ready to predict, and its checkpoint's dictionary."""
    content = read_checkpoint(path)
    if content["net"] not in net_names():
        raise DataError(f"{path}: weights of network {content['net']!r}, which is not in models/")
    net = load_net(content["net"], content["layout"])
    load_weights(net, content["state_dict"], path)
    return net.to(device).eval(), content


def find_weights(wanted: str | Path) -> Path:
    """A network's name (or models4-person, …) -> its file of weights; a path -> that path.

    Shipped weights come first; for a network without them it is the newest run below runs/, which
    is said on standard error. Raises DataError or UsageError that says what to do.
    """
    wanted = ALIASES.get(str(wanted), str(wanted))
    if os.sep in wanted or "/" in wanted or wanted.endswith(".pt"):
        return Path(wanted)
    path = SAVED_MODELS / f"{wanted}.pt"
    if path.exists():
        return path
    if wanted in net_names():
        newest = newest_run(wanted)
        if newest is None:
            raise DataError(
                f"{wanted} has no weights in {SAVED_MODELS.name}/ and no run in "
                f"{RUNS}/; train it: python train.py --net {wanted}"
            )
        say_once(f"{wanted}: weights of the newest run, {newest}")
        return newest
    raise UsageError(
        f"no network {wanted!r}; present are {', '.join(net_names())}, or give the "
        "path of a checkpoint (.pt)"
    )


def newest_run(name: str, runs: Path | None = None) -> Path | None:
    """The checkpoint that was written last of all training runs of a network below runs/, or
    None."""
    found = []
    for path in (runs or RUNS).glob("**/params.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # not a run of ours
            checkpoint = path.with_name("checkpoint.pt")
            if json.loads(path.read_text()).get("net") == name:
                found.append((checkpoint.stat().st_mtime_ns, checkpoint))
    return max(found)[1] if found else None


@cache
def say_once(text: str) -> None:
    """Print a line on standard error, the first time only."""
    print(text, file=sys.stderr)


def parameter_count(net: torch.nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in net.parameters())
