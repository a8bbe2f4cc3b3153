"""Every file in models/ keeps the contract; checkpoints come back as they were, or say what is
wrong with them."""

import json
import os
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import moves_of_mirror_images

import models
from research import networks

from facial_keypoints.assets import DEFAULT_NET
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.layouts import load_layout
from research.checkpoints import save_checkpoint
from research.inspection import describe, feature_maps, saliency
from research.metrics import measure_slopes
from research.networks import (
    SAVED_MODELS, best_device, find_weights, input_size, load_checkpoint, load_net, net_class,
    net_names, parameter_count, predict, predict_targets, say_once,
)

FLIP_INDICES = load_layout().flip_indices

DATA = {"data": "sample", "kind": "sample", "split": "person", "labels": "published",
        "frames": ["training/A_00.jpg"]}


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
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert all(name.split(".")[0] in getattr(net, "optional", ()) for name in without)
    used = [p for p in net.parameters() if p.grad is not None]
    with torch.no_grad():
        length = torch.sqrt(sum(p.grad.square().sum() for p in used))
        for p in used:
            p -= 1e-3 * p.grad / length
    after = (net(images).view(-1, 68, 2) - targets).square().mean()
    assert after < before


@pytest.fixture
def details(face_targets):
    """A network of models5 with random details, and points of a face for two crops."""
    torch.manual_seed(0)
    net = load_net("models5").eval()
    net.add("details")
    return net.details.eval(), face_targets


def test_details_move_eyes_sideways_and_points_vertically(details):
    """Along the face, wherever it is turned to. An eye stays as high as it is on average, the mouth
    where it is between left and right."""
    part, points = details
    moved = part(torch.rand(2, 1, 128, 128), points) - points
    axes = part.place(points)[1]
    aside, down = (moved @ axes.mT).unbind(-1)
    assert torch.equal(moved[:, :36], torch.zeros(2, 36, 2)) and down.abs().max() > 0.001
    assert aside[:, 48:].abs().max() < 1e-6
    for rows in (slice(36, 42), slice(42, 48)):
        assert (aside[:, rows] - aside[:, rows].mean(1, keepdim=True)).abs().max() < 1e-6
        assert aside[:, rows].abs().min() > 1e-5 and down[:, rows].mean(1).abs().max() < 1e-6


def test_details_move_points_by_the_shares_of_their_parts(details, monkeypatch):
    """The upper lip's thickness and an eye's place to the side by shares of their own."""
    part, points = details
    centers, axes = part.place(points)
    old_across, before = part.coordinates(points, centers, axes).unbind(-1)
    wanted, sides = 0.1 * torch.randn(2, 32), 0.1 * torch.randn(2, 2)
    for rows in (slice(0, 6), slice(6, 12)):
        wanted[:, rows] -= wanted[:, rows].mean(1, keepdim=True)
    monkeypatch.setattr(part, "look", lambda *_: (wanted, sides))
    across, after = part.coordinates(part(torch.rand(2, 1, 128, 128), points), centers,
                                     axes).unbind(-1)
    lip = [point - 36 for point in (50, 51, 52, 61, 62, 63)]
    for rows, share in zip((range(6), range(6, 12), range(12, 32)), part.shares, strict=True):
        rows = [row for row in rows if row not in lip]
        torch.testing.assert_close(after[:, rows], torch.lerp(before, wanted, share)[:, rows])
    for lower, upper in ((61, 50), (62, 51), (63, 52)):
        thick, old, new = (heights[:, lower - 36] - heights[:, upper - 36]
                           for heights in (after, before, wanted))
        torch.testing.assert_close(thick, torch.lerp(old, new, part.lip_share))
    for eye in (0, 1):
        torch.testing.assert_close((across - old_across)[:, 6 * eye:6 * eye + 6],
                                   part.side_share * sides[:, eye:eye + 1].expand(2, 6))


def test_details_see_a_mirrored_eye_as_the_other_eye(details):
    one, two = moves_of_mirror_images(*details)
    torch.testing.assert_close(one[:, 36:48], two[:, 36:48], atol=1e-5, rtol=0)


def test_details_learn_how_far_eyes_are_open(details):
    """Dark ellipses of random heights: after some steps the heights follow them."""
    part, points = details

    class Full(type(part)):
        shares = (1.0, 1.0, 1.0)
    net, rng = Full(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)

    def crops(count):
        images, targets = np.full((count, 128, 128), 200, np.uint8), points[:1].repeat(count, 1, 1)
        for image, wanted in zip(images, targets, strict=True):
            scale = rng.uniform(0.2, 2)
            for rows in (slice(36, 42), slice(42, 48)):
                middle = wanted[rows].mean(0)
                wanted[rows, 1] = middle[1] + scale * (wanted[rows, 1] - middle[1])
                eye = np.rint((wanted[rows].numpy() + 1) * 64 - 0.5).astype(int)
                cv2.fillPoly(image, [eye], 20)
        return torch.from_numpy(images[:, None] / np.float32(255)), targets
    for _ in range(100):
        images, targets = crops(16)
        optimizer.zero_grad()
        net.loss(images, targets, points[:1].expand(16, -1, -1)).backward()
        optimizer.step()
    images, targets = crops(40)
    with torch.inference_mode():
        found = net.eval()(images, points[:1].expand(40, -1, -1))
    slope, alike = measure_slopes(found.numpy(), targets.numpy())["eye opening"]
    assert slope > 0.8 and alike > 0.9


@pytest.mark.parametrize("share", [1, 0.5, 0])
def test_the_loss_of_details_asks_for_a_slope_of_one(details, monkeypatch, share):
    """Predictions at `share` of the way from the mean heights to the true ones."""
    part, points = details
    points = points[:1].repeat(8, 1, 1)
    targets = points.clone()
    for rows in (slice(36, 42), slice(42, 48), slice(48, 68)):
        middle = targets[:, rows, 1].mean(1, keepdim=True)
        targets[:, rows, 1] = middle + (targets[:, rows, 1] - middle) * torch.rand(8, 1) * 2
    truth = part.coordinates(targets, *part.place(points))[..., 1]
    mean = truth.mean(0)
    monkeypatch.setattr(part, "look", lambda *_: (mean + share * (truth - mean),
                                                  torch.zeros(8, 2)))
    # of 32 heights, and nothing of 3 means and 2 sides
    error = 20 * (1 - share) * (truth - mean).abs().sum() / (8 * 37) + 0.15 * (1 - share) ** 2
    torch.testing.assert_close(part.loss(torch.rand(8, 1, 128, 128), targets, points), error,
                               atol=1e-5, rtol=1e-5)


def test_the_loss_of_details_counts_where_parts_are(details, monkeypatch):
    """An eye that is 0.1 of the axes to the right of its prediction, a mouth that is 0.05 lower."""
    part, points = details
    points = points[:1]
    centers, axes = part.place(points)
    targets = points.clone()
    targets[:, 36:42] += 0.1 * axes[:, :1]
    targets[:, 48:] += 0.05 * axes[:, 1:]
    heights = part.coordinates(points, centers, axes)[..., 1]
    monkeypatch.setattr(part, "look", lambda *_: (heights, torch.zeros(1, 2)))
    found = part.loss(torch.rand(1, 1, 128, 128), targets, points)
    torch.testing.assert_close(found, torch.tensor(20 * (0.1 + 0.05) / 37), atol=1e-5, rtol=1e-5)


def test_details_learn_with_all_digits_of_the_points(details, monkeypatch):
    """Also where the rest of the network computes in bfloat16."""
    part, points = details
    net = load_net("models5")
    net.details, seen = part, []
    loss = part.loss
    monkeypatch.setattr(part, "loss", lambda *given: seen.append((given, loss(*given)))
                        or seen[0][1])
    images = torch.rand(2, 1, 128, 128)
    with torch.autocast("cpu", torch.bfloat16):
        assert (images @ images).dtype == torch.bfloat16
        net.loss(images, points)
    (given, found), = seen
    assert torch.equal(found, loss(*given))


def test_details_learn_nothing_from_crops_without_a_face(details):
    """Not even where a batch has no others, or only one."""
    part, points = details
    loss = part.loss(torch.rand(2, 1, 128, 128), points * torch.nan, points)
    loss.backward()
    assert loss == 0 and all((p.grad == 0).all() for p in part.parameters())
    assert part.loss(torch.rand(1, 1, 128, 128), points[:1], points[:1]).isfinite()


def test_details_are_for_the_68_keypoints_alone():
    net = load_net("models5", "five")
    net.add("details")
    assert net.details is None


def test_models3_is_models1_with_dropout():
    count = [parameter_count(load_net(n)) for n in ("models1", "models3")]
    assert count[0] == count[1] > 54_000_000
    kinds = [{type(m).__name__ for m in load_net(n).modules()} for n in ("models1", "models3")]
    assert kinds[1] - kinds[0] == {"Dropout"}


def test_the_door_opens_both_ways():
    import models.models5
    from models import Net

    assert Net is models.models5.Net and isinstance(load_net(DEFAULT_NET), Net)
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
            self.face = torch.nn.Parameter(torch.stack([x - x[FLIP_INDICES], x + x[FLIP_INDICES]],
                                                       1) / 4)
            self.strength = strength

        def forward(self, images):
            half = images[..., images.shape[-1] // 2:].mean((1, 2, 3))
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
    yield "LFS", lambda: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid "
                                          b"sha256:0\n")
    yield "not a checkpoint", lambda: path.write_bytes(b"")
    yield "not a checkpoint", lambda: path.write_bytes(save(path).read_bytes()[:5000])
    yield "not a checkpoint", lambda: path.write_bytes(pickle.dumps(Hostile()))
    yield "not a checkpoint", lambda: torch.save({"net": "models4"}, path)
    yield "not a checkpoint", lambda: torch.save(Hostile(), path)
    yield "is missing", lambda: save(path,
                                     state={k: v for k, v in state.items() if k != "head.bias"})
    yield "is unknown", lambda: save(path, state={**state, "more": torch.zeros(1)})
    yield "another shape", lambda: save(path, state={**state, "head.bias": torch.zeros(3)})
    yield "not finite", lambda: save(path,
                                     state={**state, "head.bias": torch.full((136,), torch.nan)})
    def as_it_is(state):  # save_checkpoint would mend it
        torch.save({"net": "models4", "state_dict": state, "params": {}, "metrics": {},
                    "data": DATA}, path)
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
    yield "list of frames", lambda: save_checkpoint(path, "models4", state, {}, {},
                                                    {**DATA, "frames": 7})
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
    for age, folder in ((20, "models1-a"), (10, "grid/one/run"), (30, "models1-b"),
                        (0, "models2-c")):
        path = tmp_path / "runs" / folder
        path.mkdir(parents=True)
        (path / "params.json").write_text(json.dumps({"net": folder[:7] if "grid" not in folder
                                                      else "models1"}))
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
    "forward fails for images (2, 1, 224, 224)":
        "return torch.nn.functional.linear(images.flatten(1), torch.zeros(136, 7))",
    "torch.nn.Module": None,
}


@pytest.mark.parametrize("said", BROKEN_NETS)
def test_a_network_that_breaks_the_contract_is_named(said, tmp_path, monkeypatch):
    body = BROKEN_NETS[said]
    base = "torch.nn.Module" if body else "object"
    text = (f"import torch\nclass Net({base}):\n    def forward(self, images):\n"
            f"        {body or 'return images'}\n")
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
            return (prediction
                    + torch.stack([2 * images[:, 0, 3, 4], images[:, 0, 7, 1]],
                                  -1)[:, None]).flatten(1)

    heat = saliency(Net(), torch.rand(1, 16, 16), 5)
    assert heat.shape == (16, 16) and heat[3, 4] == 2 and heat[7, 1] == 1 and heat.sum() == 3
