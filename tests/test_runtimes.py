"""Every runtime gives the points that plain PyTorch gives; what is not installed is named."""

import importlib.util
import itertools
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import HOME, one_line_error

from data_load import FacialKeypointsDataset
from facial_keypoints.defaults import RUNTIMES
from facial_keypoints.detector import KeypointDetector
from facial_keypoints import model
from facial_keypoints.alignment import align_face
from facial_keypoints.drawing import draw_spreads
from facial_keypoints.errors import UsageError
from facial_keypoints.geometry import tight_box
from facial_keypoints.images import to_gray
from facial_keypoints.model import choose_runtime, installed_runtimes, load_model
from research.networks import registry as networks
from research.augmentation.occlusions import covered, face_mask, sunglasses, thing
from research.networks.export import compile_net, to_onnx
from research.networks.contract import input_size
from research.networks.registry import find_weights, load_checkpoint, load_net, predict
from research.augmentation.transforms import evaluation_transform

NAMES = [
    path.stem for path in sorted(networks.SAVED_MODELS.glob("models*.pt")) if "-" not in path.stem
]
EXPORTED = [path.stem for path in sorted(networks.SAVED_MODELS.glob("models*.onnx"))]


def skip_unless_installed(runtime):
    if runtime not in installed_runtimes():
        pytest.skip(f"optional: pip install {' '.join(RUNTIMES[runtime])}")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_runtime_reports_nothing_to_its_makers(runtime, hopper, tmp_path):
    """Those that report keep a number of the machine, or reports that were not sent yet, in the
    home folder. They keep quiet where `CI` is set."""
    skip_unless_installed(runtime)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not name.startswith(("ORT_", "XDG_"))
    }
    script = (
        "import sys\nfrom facial_keypoints import find_keypoints\n"
        f"print(len(find_keypoints(sys.argv[1], runtime={runtime!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, hopper[0]],
        capture_output=True,
        text=True,
        cwd=HOME,
        env=kept | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0 and done.stdout == "1\n", done.stderr
    assert not list(tmp_path.rglob("*"))


def difference(net, run, frames):
    """Largest distance between a runtime's points and PyTorch's, in pixels of the crop, and the
    largest and the mean difference of the confidences."""
    side = input_size(net)
    dataset = FacialKeypointsDataset(frames, evaluation_transform(side))
    n = 8
    crops = np.stack([dataset[i]["image"] for i in range(n)])
    targets, confidence = predict(net, torch.from_numpy(crops))
    own = run(crops)
    assert (
        own[0].shape == (n, 68, 2)
        and own[1].shape == (n, 68)
        and own[0].dtype == own[1].dtype == np.float32
    )
    assert np.array_equal(run(crops[:1])[0].shape, (1, 68, 2))  # batches of any size
    unsure = np.abs(own[1] - confidence.numpy())
    return np.abs(own[0] - targets.numpy()).max() * side / 2, unsure.max(), unsure.mean()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gives_the_same_points(runtime, tiny):
    """models4 has no confidence of its own: its graph has the mirrored crop in it."""
    skip_unless_installed(runtime)
    net, _ = load_checkpoint(find_weights("models4"))
    pixels, confidence, _ = difference(net, compile_net(net, runtime, threads=1, exact=True), tiny)
    assert pixels < 0.05 and confidence < 0.01


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_shipped_models_give_the_points_of_their_checkpoints(runtime, name, tiny):
    skip_unless_installed(runtime)
    net, _ = load_checkpoint(find_weights(name.removesuffix("-int8")))
    pixels, largest, mean = difference(net, load_model(name, runtime), tiny)
    if name.endswith("-int8"):  # activations in steps of 1/255 of their range
        assert pixels < 2 and mean < 0.02
    elif runtime == "onnx":
        assert pixels < 0.05 and largest < 0.02
    else:  # OpenVINO takes bfloat16 where that is fast; the confidence of unsure points is steep
        assert pixels < 0.5 and largest < 0.06 and mean < 0.01


@pytest.mark.parametrize("weights", NAMES)
def test_pytorch_with_fused_layers_moves_no_point_far(weights, tiny):
    net, _ = load_checkpoint(find_weights(weights))
    assert difference(net, compile_net(net, exact=True), tiny)[0] < 0.05
    # bfloat16, which has eight bits, where it is fast
    assert difference(net, compile_net(net), tiny)[0] < 0.5


def test_shipped_models_are_small():
    assert set(EXPORTED) == {"models5", "models7", "models8", "models8-int8"}
    for path in networks.SAVED_MODELS.iterdir():
        assert path.stat().st_size <= 8e6, path.name


def test_runtimes_that_are_not_installed_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "openvino" in name else find(name)
    )
    assert installed_runtimes() == ["onnx", "torch"] and choose_runtime("auto") == "onnx"
    with pytest.raises(UsageError, match="pip install openvino"):
        choose_runtime("openvino")
    with pytest.raises(UsageError, match="auto or one of"):
        choose_runtime("abacus")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match="pip install onnxscript"):
        to_onnx(load_net("models4"))


def test_the_export_command(command, tmp_path, tiny):
    path = tmp_path / "net.onnx"
    done = command("models.py", "export", "models4", "--onnx", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"written: {path}\n" and not done.stderr, (
        "the exporter's own lines are not shown"
    )
    net, _ = load_checkpoint(find_weights("models4"))
    model = load_model(path, "onnx")
    assert model.side == 112 and difference(net, model, tiny)[0] < 0.05
    assert "no network" in one_line_error(
        command("models.py", "export", "models77", "--onnx", path), 2
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_signals_do_no_harm_once_networks_are_gone(runtime):
    """OpenVINO 2026.4 left a stack for signals that was freed, and Ctrl-C or a process's end was a
    crash."""
    skip_unless_installed(runtime)
    script = f"""
import os, signal, models
from facial_keypoints.model import load_model
one, two = (load_model("models5", {runtime!r}) for _ in range(2))
del one
del two
signal.signal(signal.SIGUSR1, lambda *_: print("alive", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOME)
    assert done.returncode == 0 and done.stdout == "alive\n", done.stderr


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_models_give_a_visibility_where_they_were_trained_for_it(runtime, tmp_path, hopper):
    """The same in every runtime; models without it, such as models4, give None."""
    skip_unless_installed(runtime)
    with_it, without = load_net("models7").eval(), load_net("models4").eval()
    torch.nn.init.normal_(with_it.seen.weight)
    crops = np.random.default_rng(0).random((2, 1, with_it.input_size, with_it.input_size))
    crops = crops.astype(np.float32)
    expected = with_it.predict(torch.from_numpy(crops))[2].detach().numpy()
    run = compile_net(with_it, runtime, threads=1, exact=True)
    np.testing.assert_allclose(run(crops)[2], expected, atol=1e-4)
    assert expected.std() > 0.01 and ((0 <= expected) & (expected <= 1)).all()
    found = compile_net(without, runtime, threads=1)(crops[..., :112, :112].copy())
    assert [values is None for values in found] == [False, False, True, True]
    face = KeypointDetector("models4", detector=None, runtime="torch").predict_boxes(
        hopper[1], [[200, 100, 120, 120]]
    )[0]
    assert face.point_visibility is None


def test_the_default_model_knows_which_points_are_hidden(hopper):
    """Sunglasses, a mask and a large thing, drawn over a real face."""
    face = KeypointDetector()(hopper[1])[0]
    assert (face.point_visibility > 0.5).mean() > 0.9
    picture, matrix = align_face(to_gray(hopper[1]), face.points, 160, "eyes")
    points = (face.points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    alone, right = KeypointDetector(detector=None), []
    for cover, seed in itertools.product((sunglasses, face_mask, thing), range(4)):
        drawn, hidden = covered(picture, points, cover, np.random.default_rng(seed))
        seen = alone.predict_boxes(drawn, [tight_box(points)])[0].point_visibility
        right.append(np.mean((seen < 0.5) == hidden))
        assert hidden.any() or cover is thing
    assert min(right) > 0.7 and np.mean(right) > 0.8


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(hopper, command):
    """Never a silent fallback to the CPU."""
    assert KeypointDetector().device == "cpu" == KeypointDetector(device="cpu").device
    line = one_line_error(
        command("facial_keypoints/__main__.py", hopper[0], "--device", "directml"), 2
    )
    assert "ONNX Runtime has cpu" in line and "onnxruntime-directml" in line


def test_a_runtime_that_falls_back_is_refused(monkeypatch):
    """ONNX Runtime takes the CPU where a driver is missing; here, the session says so."""
    runtime = model.onnx_runtime()
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(model.Checkpoints, "load", None)
    with pytest.raises(UsageError, match="device cuda: ONNX Runtime cannot use it"):
        KeypointDetector("models7", device="cuda")


def test_spreads_are_those_of_the_network_in_pixels_of_the_photo(hopper):
    """Twice as large in a photo of twice the size, and turned with the face."""
    face = KeypointDetector()(hopper[1])[0]
    assert face.point_spread.shape == (68, 2) and (face.point_spread > 0).all()
    detector, box = KeypointDetector(detector=None), tight_box(face.points)
    large = cv2.resize(hopper[1], None, fx=2, fy=2)
    near, far = (
        detector.predict_boxes(image, [box * scale])[0].point_spread
        for image, scale in ((hopper[1], 1), (large, 2))
    )
    assert np.median(far / near) == pytest.approx(2, abs=0.2)
    gray = to_gray(hopper[1])
    upright = detector.predict_crops([gray], box[None], np.zeros(1))
    assert upright.spread.shape == (1, 68, 2) and upright.visibility.shape == (1, 68)
    drawn = draw_spreads(hopper[1], [face])
    assert (drawn != hopper[1]).any(2).sum() > 300


def test_runtimes_give_the_outputs_that_a_network_has():
    crops = np.zeros((1, 1, 128, 128), np.float32)
    found = load_model("models5")(crops)
    assert found.visibility is None and found.spread.shape == (1, 68, 2)
