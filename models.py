"""The door to the networks: find them by file name, build them, ask them for keypoints, keep their weights."""

import argparse
import contextlib
import importlib
import inspect
import io
import json
import os
import pickle
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import passive_threads  # noqa: F401 - before PyTorch
import torch

from errors import DataError, UsageError, run
from formats import told, write_whole
from transforms import SWAP

# With a path of its own this module is a package too: `import models.models4` and `from models import Net` both work.
__path__ = [str(Path(__file__).with_suffix(""))]

DEFAULT = "models5"
WEIGHTS = Path(__file__).resolve().parent / "saved_models"
RUNS = Path("runs")  # where train.py writes, below the folder it is called in
INPUT_SIZE = 224  # side of a network's input when its file does not say


def names():
    """The networks present: names of files models/models#.py, in the order of their numbers."""
    found = [file.stem for file in Path(__path__[0]).glob("models*.py")]
    return sorted(found, key=lambda name: (int("".join(re.findall(r"\d+", name)) or 0), name))


def net_class(name):
    """Class Net of models/<name>.py. Raises UsageError for a name that is not present."""
    if name not in names():
        raise UsageError(f"no network {name!r}; present are {', '.join(names())} (files in models/)")
    module = importlib.import_module(f"models.{name}")
    if not hasattr(module, "Net"):
        raise UsageError(f"models/{name}.py has no class Net")
    return module.Net


def load_net(name):
    """An untrained network by name, e.g. 'models4'. Raises UsageError if the class does not follow the contract."""
    try:
        net = net_class(name)()
    except TypeError as error:
        raise UsageError(f"models/{name}.py: Net() cannot be made: {error}") from None
    return checked(net, name)


def checked(net, name):
    """A network, after a forward pass on two black crops. Raises UsageError that says how it breaks the contract."""
    if not isinstance(net, torch.nn.Module):
        raise UsageError(f"models/{name}.py: class Net must inherit from torch.nn.Module")
    side, was = input_size(net), net.training
    try:
        with torch.inference_mode():
            output = net.eval()(torch.zeros(2, 1, side, side))
    except Exception as error:  # whatever a layer raises for input it cannot take
        raise UsageError(f"models/{name}.py: forward fails for images (2, 1, {side}, {side}), the size that "
                         f"Net.input_size sets ({INPUT_SIZE} if absent): {told(error)}") from None
    finally:
        net.train(was)
    as_points(output, net)
    return net


def as_points(output, net):
    """The output of a network's forward, (n, 136) -> targets (n, 68, 2). Raises UsageError for another shape."""
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or output[0].numel() != 136:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UsageError(f"{type(net).__module__.replace('.', '/')}.py: forward returns {found} for "
                         "images (n, 1, side, side); (n, 136) is needed, x and y of 68 points")
    return output.reshape(-1, 68, 2)


def __getattr__(name):
    if name == "Net":  # `from models import Net` is the default network
        return net_class(DEFAULT)
    raise AttributeError(f"module 'models' has no attribute {name!r}")


def input_size(net):
    """Side of the square gray input of a network."""
    return getattr(net, "input_size", INPUT_SIZE)


def best_device(wanted="auto"):
    """'auto' -> the GPU if there is one, else the CPU; anything else as torch names it."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=wanted).cpu()
        return torch.device(wanted)
    except Exception as error:  # each kind of device has complaints of its own
        raise UsageError(f"device {wanted!r} cannot be used here ({told(error)}); try auto or cpu") from None


@cache
def has_bfloat16(kind):
    """True where bfloat16 is fast: GPUs since 2020, CPUs with AVX512-BF16 or AMX. Elsewhere it only loses digits."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return kind == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def autocast(device, on=True):
    """A context for arithmetic in 16 bits: bfloat16 where the device is fast at it, else fp16 on GPUs; nothing elsewhere."""
    kind = torch.device(device).type
    if not on or not (has_bfloat16(kind) or kind == "cuda"):
        return contextlib.nullcontext()
    return torch.autocast(kind, torch.bfloat16 if has_bfloat16(kind) else torch.float16)


def answer(net, images):
    """Crops (n, 1, side, side) float32 in [0, 1] -> targets (n, 68, 2) float32 on the CPU: the plain answer."""
    with torch.inference_mode():
        net.eval()
        images = torch.as_tensor(images).to(next(net.parameters()).device)
        targets = net.predict(images)[0] if hasattr(net, "predict") else net(images)
        return as_points(targets, net).float().cpu()


def predict(net, images):
    """Crops (n, 1, side, side) float32 in [0, 1] -> targets (n, 68, 2) and confidence (n, 68) in 0…1, on the CPU."""
    with torch.inference_mode():
        net.eval()
        targets, confidence = targets_and_confidence(net, torch.as_tensor(images).to(next(net.parameters()).device))
        return targets.cpu(), confidence.cpu()


def targets_and_confidence(net, images):
    """What `predict` answers, as a graph that can be traced and exported.

    A network without `predict` of its own is asked twice, the second time about the mirrored crop: where the two
    answers differ it does not know. Confidence falls to 1/e at a difference of 10 % of the inter-ocular distance.
    """
    if hasattr(net, "predict"):
        targets, confidence = net.predict(images)
        return as_points(targets, net).float(), confidence.float()
    targets = as_points(net(images), net).float()
    mirrored = as_points(net(images.flip(-1)), net).float()[:, torch.from_numpy(SWAP).to(images.device)]
    mirrored = mirrored * torch.tensor([-1.0, 1.0], device=images.device)
    inter_ocular = (targets[:, 36] - targets[:, 45]).norm(dim=-1)[:, None].clamp_min(1e-6)
    return targets, torch.exp(-(targets - mirrored).norm(dim=-1) / (0.1 * inter_ocular))


# ---------------------------------------------------------------- checkpoints

KEYS = {"net": str, "state_dict": dict, "params": dict, "metrics": dict, "data": dict}


def plain(value):
    """Reduce to what `torch.load(weights_only=True)` reads: tensors, dict, list, str, int, float, bool, None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return str(value)


def save_checkpoint(path, net, state_dict, params, metrics, data, half=False, **more):
    """Write a checkpoint whole or not at all. `half=True` stores weights as fp16, for files that are shipped."""
    state = {k: (v.half() if half and v.is_floating_point() else v).cpu().clone() for k, v in state_dict.items()}
    content = {"net": net, "state_dict": state, "params": params, "metrics": metrics, "data": data, **more}
    buffer = io.BytesIO()
    torch.save(plain(content), buffer)
    write_whole(path, buffer.getvalue())


def read_checkpoint(path):
    """A checkpoint as a dictionary: net, state_dict, params, metrics, data. Raises DataError that names the file."""
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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(f"{path}: not a checkpoint of this project (objects in it that are more than tensors, or none at all, "
                        "and are never unpickled); train.py writes such") from None
    except Exception as error:  # a damaged or hostile file can raise anything
        raise DataError(f"{path}: not a checkpoint of this project ({told(error)}); train.py writes such") from None
    wrong = [k for k, kind in KEYS.items() if not isinstance(content, dict) or not isinstance(content.get(k), kind)]
    if wrong:
        raise DataError(f"{path}: not a checkpoint of this project ({', '.join(wrong)} missing); train.py writes such")
    frames = content["data"].get("frames") or []
    if not isinstance(frames, list) or not all(isinstance(name, str) for name in frames):
        raise DataError(f"{path}: not a checkpoint of this project (its list of frames is none); train.py writes such")
    return content


def load_checkpoint(path, device="cpu"):
    """A trained network, ready to predict, and its checkpoint's dictionary."""
    content = read_checkpoint(path)
    if content["net"] not in names():
        raise DataError(f"{path}: weights of network {content['net']!r}, which is not in models/")
    net = load_net(content["net"])
    fill(net, content["state_dict"], path)
    return net.to(device).eval(), content


def fill(net, state, path):
    """Put weights into a network; one clear message if they are not its own or not finite."""
    own = net.state_dict()
    strange = [k for k, v in state.items() if not isinstance(k, str) or not is_plain(v)
               or (k in own and v.is_floating_point() != own[k].is_floating_point())]
    if strange:
        raise DataError(f"{path}: weights of another kind: {strange[0]} is no plain tensor of its kind ({len(strange)} such)")
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if state[k].shape != own[k].shape)
    for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", shapes)):
        if keys:
            raise DataError(f"{path}: weights of another network: {keys[0]} is {what} ({len(keys)} such tensors)")
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if not all(torch.isfinite(v).all() for v in state.values()):
        raise DataError(f"{path}: weights that are not finite; the file comes from a failed training")
    net.load_state_dict(state)


def is_plain(value):
    """True for tensors as checkpoints of ours hold them: dense, here, of ordinary numbers."""
    return (isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
            and value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64))


def find_weights(wanted):
    """A network's name (or models4-person, …) -> its file of weights; a path -> that path.

    Shipped weights come first; for a network without them it is the newest run below runs/, which is said on standard
    error. Raises DataError or UsageError that says what to do.
    """
    wanted = str(wanted)
    if os.sep in wanted or "/" in wanted or wanted.endswith(".pt"):
        return Path(wanted)
    path = WEIGHTS / f"{wanted}.pt"
    if path.exists():
        return path
    if wanted in names():
        path = newest_run(wanted)
        if path is None:
            raise DataError(f"{wanted} has no weights in {WEIGHTS.name}/ and no run in {RUNS}/; "
                            f"train it: python train.py --net {wanted}")
        say_once(f"{wanted}: weights of the newest run, {path}")
        return path
    raise UsageError(f"no network {wanted!r}; present are {', '.join(names())}, or give the path of a checkpoint (.pt)")


def newest_run(name, runs=None):
    """The checkpoint that was written last of all training runs of a network below runs/, or None."""
    found = []
    for path in (runs or RUNS).glob("**/params.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # not a run of ours
            checkpoint = path.with_name("checkpoint.pt")
            if json.loads(path.read_text()).get("net") == name:
                found.append((checkpoint.stat().st_mtime_ns, checkpoint))
    return max(found)[1] if found else None


@cache
def say_once(text):
    """Print a line on standard error, the first time only."""
    print(text, file=sys.stderr)


def describe(net):
    """Rows (layer, kind, output shape, parameters, multiply-adds) for one crop, by a pass with hooks."""
    rows, handles = [], []

    def note(name, layer):
        def hook(layer, inputs, output):
            weights = sum(p.numel() for p in layer.parameters())
            each = layer.weight[0].numel() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) else 0
            rows.append((name, type(layer).__name__, tuple(output.shape[1:]), weights, each * output[0].numel()))
        return layer.register_forward_hook(hook)

    for name, layer in net.named_modules():
        if not list(layer.children()):
            handles.append(note(name, layer))
    was, side = net.training, input_size(net)
    try:
        with torch.inference_mode():
            net.eval()(torch.zeros(1, 1, side, side, device=next(net.parameters()).device))
    finally:
        net.train(was)
        for handle in handles:
            handle.remove()
    return rows


def feature_maps(net, image):
    """What a network sees at each stage of one crop (1, side, side): {layer: (c, h, w)}, the last layer of each size."""
    found, handles = {}, []

    def note(name):
        def hook(layer, inputs, output):
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                found[tuple(output.shape[2:])] = (name, output[0].float().cpu())
        return hook

    for name, layer in net.named_modules():
        if name:
            handles.append(layer.register_forward_hook(note(name)))
    try:
        answer(net, torch.as_tensor(image)[None])
    finally:
        for handle in handles:
            handle.remove()
    return dict(found.values())


def first_kernels(net):
    """Weights of a network's first convolution: (filters, height, width)."""
    layer = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    return layer.weight.detach().float().cpu()[:, 0]


def saliency(net, image, point):
    """How much each pixel of a crop (1, side, side) moves one point: (side, side), the length of the gradient of x and y.

    Simonyan, Vedaldi, Zisserman, ICLR workshop 2014.
    """
    pixels = image[None].detach().clone().requires_grad_()
    with torch.enable_grad():
        place = net.eval()(pixels).view(68, 2)[point]
        slopes = [torch.autograd.grad(value, pixels, retain_graph=True)[0][0, 0] for value in place]
    return torch.stack(slopes).norm(dim=0)


def parameter_count(net):
    """Number of trained parameters."""
    return sum(p.numel() for p in net.parameters())


def accepts_loss(net):
    """True if a network brings a loss of its own."""
    return inspect.ismethod(getattr(net, "loss", None))


# ---------------------------------------------------------------- command

def main():
    import runtimes

    parser = argparse.ArgumentParser(description="Write a trained network as an ONNX model.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("export", help="crops (n, 1, side, side) in [0, 1] -> targets (n, 68, 2), confidence (n, 68)")
    command.add_argument("weights", help="a network's name or a checkpoint")
    command.add_argument("--onnx", required=True, metavar="FILE", help="where to write the model")
    options = parser.parse_args()
    runtimes.export(options.weights, options.onnx)
    print(f"written: {options.onnx}")


if __name__ == "__main__":
    run(main)
