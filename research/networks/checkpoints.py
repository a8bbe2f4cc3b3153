"""Checkpoints: written atomically, read without unpickling, checked."""

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facial_keypoints.defaults import DEFAULT_LAYOUT
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write, short_message
from facial_keypoints.layouts import Layout, layout_from, load_layout


SOURCE = "network.py"  # in the folder of a run: the file of its network
# parts of models5 and models6 in earlier versions
FORMER_PARTS = ("seen", "details")
KEYS = {"net": str, "state_dict": dict, "params": dict, "metrics": dict, "data": dict}


def to_builtins(value: Any) -> Any:
    """Convert to the types that `torch.load(weights_only=True)` accepts: tensors, dict, list, str,
    int, float, bool, None."""
    if isinstance(value, dict):
        return {str(k): to_builtins(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_builtins(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_builtins(value.tolist())
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return str(value)


def is_plain(value: Any, depth: int = 16) -> bool:
    """True for str, int, float, bool, None, and lists and dicts of them with str keys, nested at
    most `depth` times: what we write next to the weights."""
    if isinstance(value, dict):
        return depth > 0 and all(
            isinstance(key, str) and is_plain(one, depth - 1) for key, one in value.items()
        )
    if isinstance(value, list):
        return depth > 0 and all(is_plain(one, depth - 1) for one in value)
    return value is None or isinstance(value, (bool, int, float, str))


def save_checkpoint(
    path: str | Path,
    net: str,
    state_dict: dict,
    params: dict,
    metrics: dict,
    data: dict,
    layout: str | Layout = "ibug68",
    half: bool = False,
    **more: object,
) -> None:
    """Write a checkpoint atomically. layout: of the keypoints; half: store the weights as fp16, for
    files that are shipped."""
    state = {
        k: (v.half() if half and v.is_floating_point() else v).cpu().clone()
        for k, v in state_dict.items()
    }
    content = {
        "net": net,
        "state_dict": state,
        "params": params,
        "metrics": metrics,
        "data": data,
        "layout": load_layout(layout).to_dict(),
        **more,
    }
    buffer = io.BytesIO()
    torch.save(to_builtins(content), buffer)
    atomic_write(path, buffer.getvalue())


def verify_archive(path: str | Path) -> None:
    """Compare the checksums in a file of `torch.save` with its content: PyTorch does not, and would
    read flipped bits as other weights. Raises DataError that names the damaged part."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive can raise any exception
        raise DataError(
            f"{path}: not a checkpoint of this project, or damaged "
            f"({short_message(error)}); train.py writes checkpoints"
        ) from None
    if damaged:
        raise DataError(
            f"{path}: damaged, the checksum of {damaged} does not match; copy the file "
            "again, or train again"
        )


def read_checkpoint(path: str | Path) -> dict:
    """A checkpoint as a dictionary: net, state_dict, params, metrics, data, layout (a Layout;
    ibug68 for files without one, from earlier versions). Raises DataError with the file's name."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: a Git LFS pointer, not weights; run `git lfs pull`")
    verify_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path}: not a checkpoint of this project (damaged, or with objects "
            "other than tensors, which are never unpickled); train.py writes "
            "checkpoints"
        ) from None
    except Exception as error:  # a damaged or hostile file can raise anything
        raise DataError(
            f"{path}: not a checkpoint of this project ({short_message(error)}); "
            "train.py writes checkpoints"
        ) from None
    wrong = [
        k
        for k, kind in KEYS.items()
        if not isinstance(content, dict) or not isinstance(content.get(k), kind)
    ]
    if wrong:
        raise DataError(
            f"{path}: not a checkpoint of this project ({', '.join(wrong)} missing); "
            "train.py writes checkpoints"
        )
    odd = [k for k in ("params", "metrics", "data", "layout") if not is_plain(content.get(k))]
    if odd:
        raise DataError(
            f"{path}: not a checkpoint of this project ({odd[0]} has other values than "
            "text and numbers); train.py writes checkpoints"
        )
    frames = content["data"].get("frames") or []
    if not isinstance(frames, list) or not all(isinstance(name, str) for name in frames):
        raise DataError(
            f"{path}: not a checkpoint of this project (its list of frames is "
            "not a list of names); train.py writes checkpoints"
        )
    content["layout"] = layout_from(content.get("layout", DEFAULT_LAYOUT), path)
    return content


def changed_network(path: Path) -> str:
    """A hint for the checkpoint of a run that has kept the file of its network; '' for others."""
    source = path.with_name(SOURCE)
    if not source.is_file():
        return ""
    return f"; the file of the network has changed since this run: {source} is as it was then"


def load_weights(net: torch.nn.Module, state: dict, path: str | Path) -> None:
    """Load weights into a network. Weights of FORMER_PARTS that it does not have are left out, and
    standard error says so. Raises DataError if the weights do not fit the network or are not
    finite."""
    own = net.state_dict()
    former = {
        name
        for name in state.keys() - own.keys()
        if isinstance(name, str) and name.split(".")[0] in FORMER_PARTS
    }
    if former:
        parts = ", ".join(sorted({name.split(".")[0] for name in former}))
        print(f"{path}: from an earlier version; its parts {parts} are not used", file=sys.stderr)
        state = {name: value for name, value in state.items() if name not in former}
    strange = [
        k
        for k, v in state.items()
        if not isinstance(k, str)
        or not is_dense_tensor(v)
        or (k in own and v.is_floating_point() != own[k].is_floating_point())
    ]
    if strange:
        raise DataError(
            f"{path}: weights of another kind: {strange[0]} is not a plain tensor "
            f"of the expected type ({len(strange)} such tensors)"
        )
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if state[k].shape != own[k].shape)
    for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", shapes)):
        if keys:
            raise DataError(
                f"{path}: weights of another network: {keys[0]} is {what} ({len(keys)} "
                f"such tensors){changed_network(Path(path))}"
            )
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if not all(torch.isfinite(v).all() for v in state.values()):
        raise DataError(
            f"{path}: weights that are not finite; the file comes from a failed training"
        )
    net.load_state_dict(state)


def is_dense_tensor(value: Any) -> bool:
    """True for tensors as in our checkpoints: dense, on the CPU, of a common floating type or
    int64."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype
        in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
    )
