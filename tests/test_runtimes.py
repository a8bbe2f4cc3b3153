"""Every runtime gives the points that plain PyTorch gives; what is not installed is named."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import HOME, one_line_error

import models
import runtimes
from data_load import FacialKeypointsDataset, evaluation_transform
from errors import UsageError

WEIGHTS = [path.stem for path in sorted(models.WEIGHTS.glob("models*.pt")) if "-" not in path.stem]


def difference(net, run, frames):
    """Largest distance between a runtime's points and PyTorch's, in pixels of the crop, and of the confidences."""
    side = models.input_size(net)
    dataset = FacialKeypointsDataset(frames, evaluation_transform(side))
    n = 8
    crops = np.stack([dataset[i]["image"] for i in range(n)])
    targets, confidence = models.predict(net, torch.from_numpy(crops))
    own = run(crops)
    assert own[0].shape == (n, 68, 2) and own[1].shape == (n, 68) and own[0].dtype == own[1].dtype == np.float32
    assert np.array_equal(run(crops[:1])[0].shape, (1, 68, 2))  # batches of any size
    return np.abs(own[0] - targets.numpy()).max() * side / 2, np.abs(own[1] - confidence.numpy()).max()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_every_runtime_gives_the_same_points(weights, runtime, tiny):
    if runtime not in runtimes.present():
        pytest.skip(f"optional: pip install {' '.join(runtimes.RUNTIMES[runtime])}")
    net, _ = models.load_checkpoint(models.find_weights(weights))
    pixels, confidence = difference(net, runtimes.compile_net(net, runtime, threads=1, exact=True), tiny)
    assert pixels < 0.05 and confidence < 0.01


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_quickest_way_moves_no_point_far(weights, tiny):
    """It may take bfloat16, which has eight bits."""
    net, _ = models.load_checkpoint(models.find_weights(weights))
    run = runtimes.compile_net(net)
    assert run.runtime == runtimes.present()[0]
    assert difference(net, run, tiny)[0] < 0.5


def test_runtimes_that_are_not_there_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "onnx" in name or "openvino" in name else find(name))
    assert runtimes.present() == ["torch"] and runtimes.choose("auto", torch.device("cpu")) == "torch"
    with pytest.raises(UsageError, match="pip install onnxruntime onnx"):
        runtimes.choose("onnx", torch.device("cpu"))
    with pytest.raises(UsageError, match="auto or one of"):
        runtimes.choose("abacus", torch.device("cpu"))
    with pytest.raises(UsageError, match="pip install onnx"):
        runtimes.to_onnx(models.load_net("models4"))


def test_the_export_command(command, tmp_path, tiny):
    path = tmp_path / "net.onnx"
    done = command("models.py", "export", "models4", "--onnx", path)
    if "onnx" not in runtimes.present():
        assert "pip install onnx" in one_line_error(done, 2) if not importlib.util.find_spec("onnx") else done.returncode == 0
        return
    assert done.returncode == 0, done.stderr
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["targets", "confidence"]
    net, _ = models.load_checkpoint(models.find_weights("models4"))
    pixels, _ = difference(net, lambda images: tuple(session.run(None, {"images": images})), tiny)
    assert pixels < 0.05
    assert "no network" in one_line_error(command("models.py", "export", "models77", "--onnx", path), 2)


@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_signals_do_no_harm_once_networks_are_gone(runtime, tmp_path):
    """OpenVINO 2026.4 left a stack for signals that was freed, and Ctrl-C or a process's end was a crash."""
    if runtime not in runtimes.present():
        pytest.skip(f"optional: pip install {' '.join(runtimes.RUNTIMES[runtime])}")
    script = f"""
import os, signal, sys, models, runtimes
net = models.load_net("models5").eval()
one, two = (runtimes.compile_net(net, {runtime!r}, threads=1) for _ in range(2))
del one
del two
signal.signal(signal.SIGUSR1, lambda *_: print("alive", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOME)
    assert done.returncode == 0 and done.stdout == "alive\n", done.stderr


def test_openvino_tells_nobody_of_its_use():
    """Its own converter, which is used where onnx is not installed, sends what it did to its makers."""
    pytest.importorskip("openvino", reason="optional: pip install openvino")
    script = """
import importlib.util, sys, models, runtimes
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "onnx" else find(name, *rest)
runtimes.compile_net(models.load_net("models5").eval(), "openvino", threads=1)
assert "openvino.tools.ovc.convert_impl" in sys.modules and sys.modules["openvino_telemetry"] is None
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOME)
    assert done.returncode == 0, done.stderr
