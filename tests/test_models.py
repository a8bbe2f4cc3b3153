"""Every file in models/ keeps the contract; checkpoints come back as they were, or say what is
wrong with them."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from research.networks import registry as networks

from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.layouts import load_layout
from research.networks.checkpoints import save_checkpoint
from research.networks.inspection import describe, feature_maps, saliency
from research.networks.contract import input_size
from research.networks.registry import (
    SAVED_MODELS,
    best_device,
    find_weights,
    load_checkpoint,
    load_net,
    net_class,
    net_names,
    parameter_count,
    predict,
    predict_targets,
    say_once,
)

FLIP_INDICES = load_layout().flip_indices

DATA = {
    "data": "sample",
    "kind": "sample",
    "split": "person",
    "labels": "published",
    "frames": ["training/A_00.jpg"],
}


def save(path, net="models4", state=None, **more):
    state = load_net(net).state_dict() if state is None else state
    save_checkpoint(path, net, state, {"lr": np.float64(0.1)}, {"nme": 1.5}, DATA, **more)
    return path


@pytest.mark.parametrize("name", net_names())
def test_every_network_predicts_136_targets_and_reloads(name, tmp_path):
    torch.manual_seed(0)
    net = load_net(name).eval()
    side = input_size(net)
    images = torch.rand(2, 1, side, side)
    with torch.inference_mode():
        assert net(images).shape == (2, 136)
    targets, confidence = predict(net, images)
    assert targets.shape == (2, 68, 2) and confidence.shape == (2, 68)
    assert targets.dtype == confidence.dtype == torch.float32
    assert ((confidence >= 0) & (confidence <= 1)).all()
    again, content = load_checkpoint(save(tmp_path / "a.pt", name, net.state_dict()))
    assert torch.equal(predict_targets(again, images), targets)
    assert content["net"] == name and content["data"] == DATA and content["params"] == {"lr": 0.1}


@pytest.mark.parametrize("name", net_names())
def test_every_network_learns_from_a_step(name):
    torch.manual_seed(0)
    net = load_net(name).eval()
    images, targets = torch.rand(2, 1, input_size(net), input_size(net)), torch.rand(2, 68, 2)
    before = (net(images).view(-1, 68, 2) - targets).square().mean()
    before.backward()
    without = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is None}
    assert without <= {"seen"}, "only the visibility does not change the points"
    used = [p for p in net.parameters() if p.grad is not None]
    with torch.no_grad():
        length = torch.sqrt(sum(p.grad.square().sum() for p in used))
        for p in used:
            p -= 1e-3 * p.grad / length
    after = (net(images).view(-1, 68, 2) - targets).square().mean()
    assert after < before


def test_models3_is_models1_with_dropout():
    count = [parameter_count(load_net(n)) for n in ("models1", "models3")]
    assert count[0] == count[1] > 54_000_000
    kinds = [{type(m).__name__ for m in load_net(n).modules()} for n in ("models1", "models3")]
    assert kinds[1] - kinds[0] == {"Dropout"}


def test_the_door_opens_both_ways():
    import models.models7
    from models import Net

    assert Net is models.models7.Net and isinstance(load_net(DEFAULT_NET), Net)
    assert pickle.loads(pickle.dumps(Net)) is Net
    for name in ("models99", "../models4", "train"):
        with pytest.raises(UsageError, match="present are models1"):
            load_net(name)


def test_a_file_dropped_into_models_is_found(tmp_path, monkeypatch):
    (tmp_path / "models9.py").write_text("from torch import nn\nclass Net(nn.Linear):\n    pass\n")
    (tmp_path / "models10.py").write_text("x = 1\n")
    monkeypatch.setattr(models, "__path__", [str(tmp_path)])
    monkeypatch.setattr(networks, "NETS", tmp_path)
    assert net_names() == ["models9", "models10"]
    assert net_class("models9").__name__ == "Net"
    with pytest.raises(UsageError, match="no class Net"):
        net_class("models10")


def test_confidence_is_agreement_with_the_mirrored_crop():
    class Mirrors(torch.nn.Module):
        """Predictions with a fixed symmetric face, moved by the mean of the crop's right half:
        wrong when mirrored."""

        def __init__(self, strength):
            super().__init__()
            x = torch.randn(68, generator=torch.Generator().manual_seed(0))
            self.face = torch.nn.Parameter(
                torch.stack([x - x[FLIP_INDICES], x + x[FLIP_INDICES]], 1) / 4
            )
            self.strength = strength

        def forward(self, images):
            half = images[..., images.shape[-1] // 2 :].mean((1, 2, 3))
            return (self.face + self.strength * half[:, None, None]).reshape(-1, 136)

    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = 1
    steady, unsure = (predict(Mirrors(s), image)[1] for s in (0.0, 0.3))
    torch.testing.assert_close(steady, torch.ones(1, 68))
    assert (unsure < steady).all()


def test_half_precision_is_stored_and_read_back_as_float(tmp_path):
    whole, half = save(tmp_path / "a.pt"), save(tmp_path / "b.pt", half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert next(load_checkpoint(half)[0].parameters()).dtype == torch.float32


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def broken(path):
    state = load_net("models4").state_dict()
    yield "no such checkpoint", lambda: None
    yield (
        "LFS",
        lambda: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    )
    yield "not a checkpoint", lambda: path.write_bytes(b"")
    yield "not a checkpoint", lambda: path.write_bytes(save(path).read_bytes()[:5000])
    yield "not a checkpoint", lambda: path.write_bytes(pickle.dumps(Hostile()))
    yield "not a checkpoint", lambda: torch.save({"net": "models4"}, path)
    yield "not a checkpoint", lambda: torch.save(Hostile(), path)
    yield (
        "is missing",
        lambda: save(path, state={k: v for k, v in state.items() if k != "head.bias"}),
    )
    yield "is unknown", lambda: save(path, state={**state, "more": torch.zeros(1)})
    yield "another shape", lambda: save(path, state={**state, "head.bias": torch.zeros(3)})
    yield (
        "not finite",
        lambda: save(path, state={**state, "head.bias": torch.full((136,), torch.nan)}),
    )

    def as_it_is(state):  # save_checkpoint would mend it
        torch.save(
            {"net": "models4", "state_dict": state, "params": {}, "metrics": {}, "data": DATA}, path
        )

    yield "plain tensor", lambda: as_it_is({**state, 7: torch.zeros(1)})
    yield "plain tensor", lambda: as_it_is({**state, "head.bias": torch.zeros(136).to_sparse()})
    yield "plain tensor", lambda: as_it_is({**state, "head.bias": torch.zeros(136, device="meta")})
    yield (
        "plain tensor",
        lambda: save(
            path, state={**state, "head.bias": torch.full((136,), torch.nan, dtype=torch.complex64)}
        ),
    )
    yield (
        "not finite",
        lambda: save(
            path, state={**state, "head.bias": torch.full((136,), 1e300, dtype=torch.float64)}
        ),
    )
    yield (
        "list of frames",
        lambda: save_checkpoint(path, "models4", state, {}, {}, {**DATA, "frames": 7}),
    )
    yield "not in models/", lambda: save_checkpoint(path, "../evil", state, {}, {}, DATA)


@pytest.mark.parametrize("case", range(18))
def test_a_bad_checkpoint_is_named_and_never_unpickled(case, tmp_path):
    path = tmp_path / "bad.pt"
    said, make = list(broken(path))[case]
    make()
    with pytest.raises(DataError, match=r"bad\.pt") as error:
        load_checkpoint(path)
    assert said in str(error.value)


def test_weights_are_found_by_name_or_path():
    assert find_weights("models4") == SAVED_MODELS / "models4.pt"
    assert str(find_weights("runs/x.pt")) == "runs/x.pt"
    with pytest.raises(UsageError, match="no network"):
        find_weights("modelsX")


def test_a_trained_network_is_found_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no run in runs"):
        find_weights("models1")
    for age, folder in (
        (20, "models1-a"),
        (10, "grid/one/run"),
        (30, "models1-b"),
        (0, "models2-c"),
    ):
        path = tmp_path / "runs" / folder
        path.mkdir(parents=True)
        (path / "params.json").write_text(
            json.dumps({"net": folder[:7] if "grid" not in folder else "models1"})
        )
        (path / "checkpoint.pt").write_bytes(b"")
        os.utime(path / "checkpoint.pt", (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "params.json").write_text("[")
    say_once.cache_clear()
    for _ in range(2):
        assert find_weights("models1") == Path("runs/grid/one/run/checkpoint.pt")
    assert (
        capsys.readouterr().err
        == "models1: weights of the newest run, runs/grid/one/run/checkpoint.pt\n"
    )


BROKEN_NETS = {
    "(2, 10)": "return images.flatten(1)[:, :10]",
    "forward fails for images (2, 1, 224, 224)": (
        "return torch.nn.functional.linear(images.flatten(1), torch.zeros(136, 7))"
    ),
    "torch.nn.Module": None,
}


@pytest.mark.parametrize("said", BROKEN_NETS)
def test_a_network_that_breaks_the_contract_is_named(said, tmp_path, monkeypatch):
    body = BROKEN_NETS[said]
    base = "torch.nn.Module" if body else "object"
    text = (
        f"import torch\nclass Net({base}):\n    def forward(self, images):\n"
        f"        {body or 'return images'}\n"
    )
    (tmp_path / "models9.py").write_text(text)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setattr(networks, "NETS", tmp_path)
    monkeypatch.delitem(sys.modules, "models.models9", raising=False)
    with pytest.raises(UsageError, match="models9.py") as error:
        load_net("models9")
    assert said in str(error.value)
    sys.modules.pop("models.models9", None)


def test_layers_are_described_with_shapes_and_work():
    rows = describe(load_net("models4"))
    assert rows[0] == ("stem.0", "Conv2d", (16, 56, 56), 400, 400 * 56 * 56)
    assert rows[-1][:3] == ("head", "Linear", (136,))
    assert sum(row[3] for row in rows) == parameter_count(load_net("models4"))
    maps = feature_maps(load_net("models4"), torch.rand(1, 112, 112))
    assert [m.shape[-1] for m in maps.values()] == [56, 28, 14, 7]


def test_unusable_devices_are_refused():
    with pytest.raises(UsageError, match="cannot be used"):
        best_device("cuda:77" if torch.cuda.is_available() else "cuda")
    assert best_device("cpu").type == "cpu"


def test_saliency_finds_the_pixels_that_an_answer_comes_from():
    """A network whose point 5 has its x from one pixel and its y from another."""

    class Net(torch.nn.Module):
        def forward(self, images):
            prediction = torch.zeros(len(images), 68, 2) + 0 * images.sum()
            return (
                prediction + torch.stack([2 * images[:, 0, 3, 4], images[:, 0, 7, 1]], -1)[:, None]
            ).flatten(1)

    heat = saliency(Net(), torch.rand(1, 16, 16), 5)
    assert heat.shape == (16, 16) and heat[3, 4] == 2 and heat[7, 1] == 1 and heat.sum() == 3
