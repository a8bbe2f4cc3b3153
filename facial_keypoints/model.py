"""A model: crops of faces -> keypoints and confidence, by ONNX Runtime or OpenVINO."""

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facial_keypoints.defaults import ALIASES, DEFAULT_NET, PROVIDERS, RUNTIMES
from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import short_message
from facial_keypoints.head import box_fit, vertical_shift
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.onnx_file import read_model_file

Predict = Callable[[np.ndarray], tuple[Any, ...]]
MAX_TARGET = 100.0  # half sides of the crop; points farther away are a mistake
LIMITS = {"targets": (-MAX_TARGET, MAX_TARGET), "spread": (0.0, MAX_TARGET)}
OUTPUTS = (
    "targets",
    "confidence",
    "visibility",
    "spread",
)  # of a model, by their names in its file


class Prediction(NamedTuple):
    """What a model says of n crops: targets (n, k, 2), confidence (n, k) in 0…1, visibility (n, k)
    in 0…1, and spread (n, k, 2), standard deviations in units of targets; the last two None for
    models that do not give them."""

    targets: np.ndarray
    confidence: np.ndarray
    visibility: np.ndarray | None = None
    spread: np.ndarray | None = None


class Model:
    """A model that is ready to run: `model(crops)`; may be shared by threads.

    crops: (n, 1, side, side) float32 in [0, 1] -> Prediction, float32. path: its file; side: of its
    input in pixels; runtime: what runs it, on `device`; layout: of its k keypoints; shift: (pixels,
    share of the inter-ocular distance) by which its points are too low, learned from shifted
    labels; fit: from the tight box of the keypoints of ibug68 to that of its own keypoints (see
    `detectors.to_tight`).
    """

    def __init__(
        self,
        path: Path,
        side: int,
        predict: Predict,
        runtime: str,
        layout: str | Layout = "ibug68",
        shift: tuple[float, float] = (0.0, 0.0),
        fit: Sequence[float] | None = None,
    ):
        self.source: tuple | None = None  # what `load_model` was called with
        self.device = "cpu"  # where it really runs
        self.path, self.side, self.predict, self.runtime = path, side, predict, runtime
        self.layout, self.shift = load_layout(layout), shift
        self.fit = tuple(fit or box_fit(self.layout))

    def __call__(self, crops: np.ndarray) -> Prediction:
        try:
            found = Prediction(*self.predict(crops))
        except Exception as error:  # each runtime has errors of its own, also for lack of memory
            raise DataError(
                f"{self.path}: {self.runtime} cannot run it ({short_message(error)})"
            ) from None
        self.check(found, len(crops))
        return found

    def check(self, found: Prediction, count: int) -> None:
        """Raise DataError for predictions of `count` crops with other shapes than those of the
        layout, or with impossible values."""
        shape = (count, len(self.layout))
        for name, values in found._asdict().items():
            wanted = (*shape, 2) if name in ("targets", "spread") else shape
            if values is None:
                continue
            if values.shape != wanted or values.dtype.kind != "f":
                raise DataError(
                    f"{self.path}: its {name} are {values.dtype} {values.shape}, not float "
                    f"{wanted}; export it again"
                )
            if not np.isfinite(values).all():
                raise DataError(
                    f"{self.path}: predictions that are not finite; the weights are "
                    "broken, train them again"
                )
            low, high = LIMITS.get(name, (-0.01, 1.01))
            if values.min(initial=0) < low or values.max(initial=0) > high:
                raise DataError(
                    f"{self.path}: {name} outside of {low:g} to {high:g}; export it again"
                )

    def __reduce__(self) -> tuple:
        """Loaded anew in another process (spawn)."""
        if self.source is None:
            raise TypeError("only a model from load_model can go to another process")
        module = Checkpoints.load.__module__ if Checkpoints.load is not None else None
        return _load_again, (module, *self.source)

    def correct(self, points: np.ndarray) -> np.ndarray:
        """Points (n, k, 2) in pixels without the shift of the labels that the model learned."""
        pixels, share = self.shift
        if not (pixels or share):
            return points
        return points - vertical_shift(points, pixels, share)


class Checkpoints:
    """How PyTorch checkpoints are found and loaded: set by `research.networks.export`, which
    `models` imports."""

    find: Callable | None = None  # name or path -> path of a checkpoint
    load: Callable | None = None  # (path, runtime, device, threads) -> Model


def needs_pytorch(net: str | os.PathLike, runtime: str = "auto", device: str = "auto") -> bool:
    """True if a model is a checkpoint, or is to run in PyTorch: then `models` is imported first."""
    if runtime == "torch" or exported_file(net) is None:
        return True
    return device not in ("auto", "cpu") and device not in onnx_devices()


def onnx_devices() -> list[str]:
    """The devices that the installed ONNX Runtime can use."""
    present = onnx_runtime().get_available_providers()
    return [name for name, provider in PROVIDERS.items() if provider in present]


def exported_file(net: str | os.PathLike) -> Path | None:
    """The ONNX file that a name or path stands for, or None."""
    if is_path(net):
        return Path(net) if str(net).lower().endswith(".onnx") else None
    path = SAVED_MODELS / f"{ALIASES.get(str(net), net)}.onnx"
    return path if path.is_file() else None


def is_path(net: str | os.PathLike) -> bool:
    """True for a path, False for a name."""
    if isinstance(net, os.PathLike):
        return True
    return "/" in net or os.sep in net or net.endswith((".pt", ".onnx"))


def find_model(
    net: str | os.PathLike = DEFAULT_NET, runtime: str = "auto", device: str = "auto"
) -> Path:
    """The file of a model by name or path. Raises UsageError or DataError that says what to do."""
    if not isinstance(net, (str, os.PathLike)):
        raise UsageError(
            f"net must be the name of a model, a path or a Model, not {type(net).__name__}"
        )
    exported = exported_file(net)
    if exported is not None and not needs_pytorch(net, runtime, device):
        return exported
    if Checkpoints.find is not None:
        return Checkpoints.find(net)
    clone = "in a clone of the repository with PyTorch: python pipeline.py, or import models first"
    if exported is not None and runtime == "torch":
        raise UsageError(f"runtime torch works {clone}")
    if exported is not None:
        raise UsageError(
            f"device {device!r}: ONNX Runtime has {', '.join(onnx_devices())} here. Install "
            "onnxruntime-gpu for cuda, onnxruntime-directml for directml, in place of onnxruntime. "
            f"PyTorch's devices work {clone}"
        )
    present = ", ".join(sorted(path.stem for path in SAVED_MODELS.glob("*.onnx")))
    raise UsageError(
        f"no exported model {str(net)!r}; present are {present}, or give an .onnx file. "
        f"Checkpoints work {clone}"
    )


def installed_runtimes() -> list[str]:
    """The runtimes that are installed."""
    return [name for name, needed in RUNTIMES.items() if all(map(importlib.util.find_spec, needed))]


def choose_runtime(wanted: str) -> str:
    """'auto' -> 'onnx', which the library requires. Raises UsageError for a runtime that is not
    installed."""
    if wanted == "auto":
        return next(iter(RUNTIMES))
    if wanted not in RUNTIMES:
        raise UsageError(f"runtime must be auto or one of {', '.join(RUNTIMES)}, not {wanted!r}")
    if wanted not in installed_runtimes():
        raise UsageError(
            f"runtime {wanted!r} requires a package: pip install {' '.join(RUNTIMES[wanted])}"
        )
    return wanted


def load_model(
    net: str | os.PathLike = DEFAULT_NET,
    runtime: str = "auto",
    device: str = "auto",
    threads: int = 1,
) -> Model:
    """A model by name, path of an .onnx file, or (where `models` is imported) checkpoint.

    runtime, device: as in `KeypointDetector`; threads: for one call, 0 for as many as the runtime
    chooses. Raises UsageError or DataError.
    """
    model = _load(find_model(net, runtime, device), net, runtime, device, threads)
    model.source = (net, runtime, device, threads)
    return model


def _load_again(module, *source):
    """A model in a process that has not imported the `module` that loads checkpoints."""
    if module is not None:
        importlib.import_module(module)
    return load_model(*source)


def _load(path, net, runtime, device, threads):
    if Checkpoints.load is not None and needs_pytorch(net, runtime, device):
        return Checkpoints.load(path, runtime, device, threads)
    data, values = read_model_file(path)
    layout = values["layout"]
    if values["crop_scale"] != layout.crop_scale:
        raise DataError(
            f"{path}: made for crops of {values['crop_scale']} times the box, but its "
            f"layout says {layout.crop_scale}; export it again"
        )
    runtime = choose_runtime(runtime)
    place = "cpu" if device == "auto" else device
    if runtime == "openvino" and place != "cpu":
        raise UsageError(
            f"runtime openvino runs on the CPU here, not on {device}; give runtime onnx"
        )
    predict = compile_onnx(data, values["side"], runtime, threads, path, device=place)
    pixels, share = values["shift"]
    model = Model(
        path, values["side"], predict, runtime, layout, (pixels, share), values.get("fit")
    )
    model.device = place
    model(np.zeros((2, 1, model.side, model.side), np.float32))  # a model that lies says so here
    return model


def compile_onnx(
    data: bytes,
    side: int,
    runtime: str,
    threads: int = 1,
    where: str | os.PathLike = "model",
    exact: bool = False,
    device: str = "cpu",
) -> Predict:
    """An ONNX model (bytes) as a function of crops; exact: float32 throughout, else bfloat16 where
    that is fast; device: of ONNX Runtime, one of PROVIDERS."""
    try:
        if runtime == "openvino":
            return _openvino(data, side, threads, exact)
        return _onnxruntime(data, threads, device)
    except UsageError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise DataError(
            f"{where}: {runtime} cannot load it ({' '.join(str(error).split())[:200]})"
        ) from None


@functools.cache
def onnx_runtime() -> Any:
    """The module onnxruntime, which reports to nobody."""
    # versions from 1.29 on report each session to their makers, unless this is set at their import
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # on Windows, and where it was imported before
    return onnxruntime


def onnx_session(data: bytes, threads: int = 1, device: str = "cpu") -> Any:
    """An ONNX model (bytes) as an inference session of ONNX Runtime. Raises UsageError where it
    does not run on the device: by itself, ONNX Runtime would take the CPU without a word."""
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = (
        threads,
        1,
        3,
    )
    # waiting threads sleep
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = PROVIDERS[device]
    session = onnxruntime.InferenceSession(
        data, options, providers=list(dict.fromkeys([wanted, PROVIDERS["cpu"]]))
    )
    if session.get_providers()[0] != wanted:
        raise UsageError(f"device {device}: ONNX Runtime cannot use it here; is its driver there?")
    return session


def _onnxruntime(data, threads, device):
    session = onnx_session(data, threads, device)
    present = {output.name for output in session.get_outputs()}
    wanted = [name for name in OUTPUTS if name in present or name in ("targets", "confidence")]

    def run(images):
        found = session.run(wanted, {"images": np.ascontiguousarray(images)})
        return in_order(dict(zip(wanted, found, strict=True)))

    return run


def in_order(found: dict[str, np.ndarray]) -> tuple[np.ndarray | None, ...]:
    """Arrays by their names in OUTPUTS -> in that order, None where there is none."""
    return tuple(found.get(name) for name in OUTPUTS)


@contextlib.contextmanager
def _signals_as_before():
    """Keep the signal stack of the thread.

    OpenVINO replaces it when it creates a model, and restores the previous pointer when it frees
    the model. If models are freed in the order of their creation, that pointer is invalid, and the
    next signal (Ctrl-C, the end of another process) crashes Python.
    """
    if os.name != "posix":
        yield
        return
    # larger than any system's stack_t
    stack, change = ctypes.create_string_buffer(64), ctypes.CDLL(None).sigaltstack
    change(None, stack)
    try:
        yield
    finally:
        change(stack, None)


def _openvino(data, side, threads, exact):
    sys.modules.setdefault("openvino_telemetry", None)  # it would report each use to its makers
    import openvino

    model = openvino.Core().read_model(data)
    settings = {"PERFORMANCE_HINT": "LATENCY"} | (
        {"INFERENCE_NUM_THREADS": threads} if threads else {}
    )
    settings["ENABLE_CPU_PINNING"] = False  # several processes would all take the first core
    if exact:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    names = [output.any_name for output in model.outputs]
    compiling, requests = threading.Lock(), threading.local()

    @functools.cache
    def compiled(single):
        """A model for single faces, the commonest call, is a tenth faster than one for any
        number."""
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
        return in_order({name: ready.get_tensor(name).data.copy() for name in names})

    request(True)
    return run
