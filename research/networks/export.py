"""Networks in other runtimes: exported to ONNX files that describe themselves, or run in
PyTorch."""

import contextlib
import copy
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from facial_keypoints import __version__
from facial_keypoints.errors import UsageError, import_optional
from facial_keypoints.files import atomic_write, refuse_overwriting
from facial_keypoints.head import box_fit
from facial_keypoints.model import (
    OUTPUTS,
    in_order,
    Checkpoints,
    Model,
    choose_runtime,
    compile_onnx,
    Predict,
)
from facial_keypoints.onnx_file import FORMAT, digest, metadata_entry
from research.data.label_shift import learned_shift
from research.networks.contract import input_size
from research.networks.contract import calibration_of
from research.networks.halving import halve
from research.networks.quantization import calibration_crops, quiet, to_int8
from research.networks.registry import (
    autocast,
    best_device,
    channels_last,
    find_weights,
    forward_with_confidence,
    load_checkpoint,
)
from research.networks.terms import terms_of

OPSET = 18
EXPORTER = threading.Lock()  # PyTorch's exporter keeps its state in globals


class Predictor(torch.nn.Module):
    """`networks.predict_all` as one graph: crops (n, 1, side, side) -> those of OUTPUTS that the
    network gives."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            values for values in forward_with_confidence(self.net, images) if values is not None
        )


def outputs_of(net: torch.nn.Module, images: torch.Tensor) -> list[str]:
    """Those of OUTPUTS that a network gives."""
    found = forward_with_confidence(net.eval(), images)
    return [name for name, values in zip(OUTPUTS, found, strict=True) if values is not None]


def to_onnx(net: torch.nn.Module, half: bool = False) -> bytes:
    """A network as an ONNX model (bytes): input 'images' (n, 1, side, side), outputs those of
    OUTPUTS that it gives.

    half: weights are stored as fp16, and computed with as float32. Raises UsageError where a
    package is missing.
    """
    for module in ("onnx", "onnxscript"):
        import_optional(module, "exporting to ONNX")
    example = torch.rand(
        2, 1, input_size(net), input_size(net), generator=torch.Generator().manual_seed(0)
    )
    with EXPORTER, quiet("torch.onnx"), torch.no_grad():
        outputs = outputs_of(net, example)
        program = torch.onnx.export(
            Predictor(net).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    model: Any = program.model_proto  # type: ignore[union-attr]
    without_notes(model)
    if half:
        halve(model)
    return model.SerializeToString()


def without_notes(model: Any) -> None:
    """Remove what the exporter notes of Python's stack, in place: it names places of one
    machine."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, model):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del graph.value_info[:]


def export_checkpoint(checkpoint: str | Path, path: str | Path, int8: bool = False) -> None:
    """Write a trained network as an ONNX file that describes itself: fp16 weights, or 8-bit
    integers, metadata, a checksum."""
    source = find_weights(checkpoint)
    refuse_overwriting([source], [path])
    net, content = load_checkpoint(source)
    layout = content["layout"]
    if int8:
        crops = calibration_crops(input_size(net), layout.crop_scale)
        data = to_int8(to_onnx(net), crops)
    else:
        data = to_onnx(net, half=True)
    values = {
        "format": FORMAT,
        "version": __version__,
        "net": content["net"],
        "side": input_size(net),
        "points": len(layout),
        "layout": layout.to_dict(),
        "crop_scale": layout.crop_scale,
        "shift": learned_shift(content["data"]),
        "fit": learned_fit(content),
        "calibration": calibration_of(net),
        "license": terms_of(content["data"]),
        "trained_on": {key: content["data"].get(key, "") for key in ("data", "split", "labels")},
        "sha256": digest(data),
    }
    atomic_write(path, data + metadata_entry(values))


def learned_fit(content: dict) -> list[float]:
    """From the tight box of ibug68's keypoints to that of a checkpoint's layout: as training
    measured it, else by the mean head."""
    return list(content["data"].get("fit") or box_fit(content["layout"]))


def fused(net: torch.nn.Module) -> torch.nn.Module:
    """A copy of a network in which batch norms are part of the convolutions directly before
    them."""
    net = copy.deepcopy(net).eval()
    for sequence in [module for module in net.modules() if isinstance(module, torch.nn.Sequential)]:
        pairs = zip(list(sequence), list(sequence)[1:], strict=False)
        for place, (layer, following) in enumerate(pairs):
            if isinstance(layer, torch.nn.Conv2d) and isinstance(following, torch.nn.BatchNorm2d):
                sequence[place] = fuse_conv_bn_eval(layer, following)
                sequence[place + 1] = torch.nn.Identity()
    return net


class ThreadLimit:
    """PyTorch's number of threads, lowered for some calls and put back after the last of them.

    Calls from several threads overlap: the number to put back is the one before the first.
    """

    def __init__(self):
        self.lock, self.calls, self.before = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def limit(self, threads: int) -> Iterator[None]:
        with self.lock:
            self.before = self.before if self.calls else torch.get_num_threads()
            self.calls += 1
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            with self.lock:
                self.calls -= 1
                torch.set_num_threads(self.before)


TORCH_THREADS = ThreadLimit()


def run_in_pytorch(
    net: torch.nn.Module, device: str = "cpu", threads: int = 0, exact: bool = False
) -> Predict:
    """A network as a function of crops, arrays in and out; threads: 0 for PyTorch's own number."""
    place = torch.device(device)
    graph = Predictor(channels_last(fused(net), place)).eval()
    side = input_size(net)
    with torch.inference_mode():
        names = outputs_of(net, torch.zeros(1, 1, side, side, device=next(net.parameters()).device))

    def run(images):
        limit = TORCH_THREADS.limit(threads) if threads else contextlib.nullcontext()
        with limit, torch.inference_mode(), autocast(device, not exact):
            crops = torch.from_numpy(np.ascontiguousarray(images)).to(
                device, memory_format=torch.channels_last
            )
            found = graph(crops)
        arrays = [values.float().cpu().numpy() for values in found]
        return in_order(dict(zip(names, arrays, strict=True)))

    return run


def compile_net(
    net: torch.nn.Module,
    runtime: str = "torch",
    device: str = "cpu",
    threads: int = 0,
    exact: bool = False,
) -> Predict:
    """A function of crops (n, 1, side, side), float32 arrays in [0, 1] -> targets (n, k, 2),
    confidence (n, k).

    The function may be called from several threads. threads: for one call, 0 for as many as the
    runtime chooses. exact:
    float32 throughout; else bfloat16 where the processor is fast at it, which moves points by
    hundredths of a pixel of the crop.
    """
    if runtime == "torch":
        return run_in_pytorch(net, device, threads, exact)
    if torch.device(device).type != "cpu":
        raise UsageError(
            f"runtime {runtime!r} runs on the CPU here, not on {device}; give "
            "--device cpu or runtime torch"
        )
    runtime = choose_runtime(runtime)
    return compile_onnx(to_onnx(net), input_size(net), runtime, threads, exact=exact)


def load_checkpoint_model(
    path: str | Path, runtime: str = "auto", device: str = "auto", threads: int = 1
) -> Model:
    """A checkpoint as a model of the library: in PyTorch by default, else exported on the fly."""
    device, runtime = (
        str(best_device(device)),
        ("torch" if runtime == "auto" else choose_runtime(runtime)),
    )
    net, content = load_checkpoint(path, device)
    predict = compile_net(net, runtime, device, threads)
    pixels, share = learned_shift(content["data"])
    model = Model(
        Path(path),
        input_size(net),
        predict,
        runtime,
        content["layout"],
        (pixels, share),
        learned_fit(content),
    )
    model.device = device
    return model


def milliseconds_per_face(
    *nets: torch.nn.Module, runtime: str = "torch", rounds: int = 1, repeats: int = 60
) -> np.ndarray:
    """Median times (len(nets),) of one crop on one thread of the CPU, by a runtime.

    Measurements are interleaved, `rounds` times: a slow moment of a shared machine affects all
    networks.
    """
    ready, rng = [], np.random.default_rng(0)
    for net in nets:
        side = input_size(net)
        ready.append(
            (compile_net(net, runtime, threads=1), rng.random((1, 1, side, side), np.float32))
        )
    times = np.empty((rounds, len(nets), repeats))
    for turn in times:
        for (predict, image), row in zip(ready, turn, strict=True):
            for i in range(repeats):
                start = time.perf_counter()
                predict(image)
                row[i] = time.perf_counter() - start
    return 1000 * np.median(np.median(times[..., repeats // 4 :], -1), 0)


def use_checkpoints() -> None:
    """Let the library take checkpoints of PyTorch as well. Importing this module does it too, as a
    spawned process needs it."""
    Checkpoints.find, Checkpoints.load = find_weights, load_checkpoint_model


use_checkpoints()
