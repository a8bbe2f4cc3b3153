"""A trained network run as fast as this machine can: by OpenVINO or ONNX Runtime where installed, else frozen PyTorch."""

import contextlib
import copy
import ctypes
import functools
import importlib.util
import io
import os
import sys
import threading
import warnings

import numpy as np
import passive_threads  # noqa: F401 - before PyTorch
import torch

import models
from errors import UsageError
from formats import refuse_overwriting, write_whole

RUNTIMES = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnx"), "torch": ()}  # quickest first: what each needs


class Predictor(torch.nn.Module):
    """`models.predict` as one graph: crops (n, 1, side, side) -> targets (n, 68, 2) and confidence (n, 68)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return models.targets_and_confidence(self.net, images)


def present():
    """The runtimes that are installed, the quickest first."""
    return [name for name, needed in RUNTIMES.items() if all(map(importlib.util.find_spec, needed))]


def choose(wanted, device):
    """'auto' -> the quickest that is installed, PyTorch on a GPU. Raises UsageError for one that is not there."""
    if wanted == "auto":
        return present()[0] if device.type == "cpu" else "torch"
    if wanted not in RUNTIMES:
        raise UsageError(f"runtime must be auto or one of {', '.join(RUNTIMES)}, not {wanted!r}")
    if wanted not in present():
        raise UsageError(f"runtime {wanted!r} needs what is not installed: pip install {' '.join(RUNTIMES[wanted])}")
    if wanted != "torch" and device.type != "cpu":
        raise UsageError(f"runtime {wanted!r} runs on the CPU here, not on {device}; give --device cpu or runtime torch")
    return wanted


def compile_net(net, runtime="auto", device="cpu", threads=0, exact=False):
    """A function of crops (n, 1, side, side), float32 arrays in [0, 1] -> targets (n, 68, 2), confidence (n, 68).

    The function may be called from several threads at once. threads: how many processor threads one call uses; 0 leaves
    that to the runtime. exact: float32 throughout; else bfloat16 where the
    processor is quick at it, which moves points by some hundredths of a pixel of the crop.
    """
    device = torch.device(device)
    runtime = choose(runtime, device)
    make = {"openvino": _openvino, "onnx": _onnx, "torch": _torch}[runtime]
    run = make(Predictor(net).eval(), models.input_size(net), device, threads, exact)
    run.runtime = runtime
    return run


@contextlib.contextmanager
def _quiet():
    """Tracing warns of its coming end; the pinned release has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _example(side, device="cpu"):
    return torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0)).to(device)


class _ThreadLimit:
    """PyTorch's number of threads, lowered for some calls and put back after the last of them.

    Calls from several threads overlap: the number to put back is the one before the first.
    """

    def __init__(self):
        self.lock, self.calls, self.before = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def limit(self, threads):
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


_TORCH_THREADS = _ThreadLimit()


def _torch(predictor, side, device, threads, exact):
    low = not exact and models.has_bfloat16(device.type)
    if device.type != "cpu":
        graph = predictor
    else:
        example = _example(side).contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if low else contextlib.nullcontext()
        with EXPORT, _quiet(), torch.no_grad(), autocast:  # frozen: batch norms become part of the convolutions before them
            own = Predictor(copy.deepcopy(predictor.net)).eval().to(memory_format=torch.channels_last)
            graph = torch.jit.freeze(torch.jit.trace(own, example, check_trace=False))
            graph = torch.jit.optimize_for_inference(graph) if low else graph  # in float32 it slows images laid out like these

    def run(images):
        limit = _TORCH_THREADS.limit(threads) if threads else contextlib.nullcontext()
        with limit, torch.inference_mode(), models.autocast(device, low and device.type != "cpu"):
            targets, confidence = graph(torch.from_numpy(np.ascontiguousarray(images)).to(device))
        return targets.float().cpu().numpy(), confidence.float().cpu().numpy()
    return run


EXPORT = threading.Lock()  # PyTorch's exporter keeps its state in globals


def to_onnx(net):
    """A network as an ONNX model (bytes): input 'images' (n, 1, side, side), outputs 'targets' and 'confidence'."""
    if not importlib.util.find_spec("onnx"):
        raise UsageError("exporting needs a package that is not installed: pip install onnx")
    buffer = io.BytesIO()
    with EXPORT, _quiet(), torch.no_grad():
        torch.onnx.export(Predictor(net).eval(), (_example(models.input_size(net)),), buffer, dynamo=False, opset_version=17,
                          input_names=["images"], output_names=["targets", "confidence"],
                          dynamic_axes={name: {0: "n"} for name in ("images", "targets", "confidence")})
    return buffer.getvalue()


def _onnx(predictor, side, device, threads, exact):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(to_onnx(predictor.net), options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(["targets", "confidence"], {"images": np.ascontiguousarray(images)}))


@contextlib.contextmanager
def _signals_as_before():
    """Keep the thread's stack for signals: OpenVINO sets one of its own with each network, and the former when that goes.

    Networks that go in the order they came leave a stack that is not there any more, and the next signal, Ctrl-C or the
    end of another process, ends Python.
    """
    if os.name != "posix":
        yield
        return
    stack, change = ctypes.create_string_buffer(64), ctypes.CDLL(None).sigaltstack  # larger than any system's stack_t
    change(None, stack)
    try:
        yield
    finally:
        change(stack, None)


def _openvino(predictor, side, device, threads, exact):
    sys.modules.setdefault("openvino_telemetry", None)  # its converter tells its makers of each use; without this, nothing
    import openvino

    if importlib.util.find_spec("onnx"):  # a second quicker than its own conversion
        model = openvino.Core().read_model(to_onnx(predictor.net))
    else:
        with EXPORT, _quiet(), torch.no_grad():
            model = openvino.convert_model(predictor, example_input=_example(side), input=[-1, 1, side, side])
    settings = {"PERFORMANCE_HINT": "LATENCY"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    settings["ENABLE_CPU_PINNING"] = False  # several processes would all take the first core
    if exact:
        settings["INFERENCE_PRECISION_HINT"] = "f32"

    compiling, requests = threading.Lock(), threading.local()

    @functools.cache
    def compiled(single):
        """A model for single faces, the commonest call, is a tenth quicker than one for any number."""
        model.reshape([1 if single else -1, 1, side, side])
        return openvino.Core().compile_model(model, "CPU", settings)

    def request(single):
        """This thread's own request: a request holds the tensors of one call."""
        if single not in requests.__dict__:
            with compiling, _signals_as_before():
                requests.__dict__[single] = compiled(single).create_infer_request()
        return requests.__dict__[single]

    def run(images):
        images, ready = np.ascontiguousarray(images), request(len(images) == 1)
        ready.set_input_tensor(0, openvino.Tensor(images, shared_memory=True))
        ready.infer()
        return tuple(ready.get_output_tensor(i).data.copy() for i in (0, 1))
    request(True)
    return run


def export(weights, path):
    """Write a network's weights as an ONNX model, whole or not at all."""
    source = models.find_weights(weights)
    refuse_overwriting([source], [path])
    net, _ = models.load_checkpoint(source)
    write_whole(path, to_onnx(net))
