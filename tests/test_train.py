"""Training learns, repeats itself, goes on where it was broken, and stops when numbers stop being
numbers."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HOME, one_line_error

import train as module
from research.evaluation.prediction import predict_frames
from facial_keypoints.errors import DataError, UsageError
from research.networks.checkpoints import load_weights, read_checkpoint
from research.datasets import split_frames
from research.networks.registry import find_weights, load_checkpoint, load_net
from research.training.losses import LOSSES, loss_of, nonfinite_samples, wing
from research.training.optimization import ema_update
from train import TrainingConfig, train
from research.training.runs import diverged, report_epoch
from research.training.distillation import refine_labels

FIELDS = {field.name for field in dataclasses.fields(TrainingConfig)}


def train_net(net, training, validation, folder, **options):
    """`train` with the options of a configuration and of a run together."""
    config = TrainingConfig(
        net, **{name: value for name, value in options.items() if name in FIELDS}
    )
    return train(
        config,
        training,
        validation,
        folder,
        **{k: v for k, v in options.items() if k not in FIELDS},
    )


OPTIONS = {"epochs": 2, "batch_size": 16, "bfloat16": False, "bar": False}


@pytest.fixture
def parts(tiny):
    return split_frames(tiny, "official", "training"), split_frames(tiny, "official", "validation")


def weights(path):
    return read_checkpoint(path)["state_dict"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_brings_the_error_down_and_writes_what_it_says(parts, tmp_path):
    path, history = train_net("models4", *parts, tmp_path, **{**OPTIONS, "epochs": 8})
    assert history[-1]["validation_nme"] < 0.7 * history[0]["validation_nme"]
    content = read_checkpoint(path)
    assert content["metrics"]["validation_nme"] == min(r["validation_nme"] for r in history)
    assert (
        content["data"]["frames"] == list(parts[0].names) and content["data"]["split"] == "official"
    )
    rows = list(csv.DictReader(open(tmp_path / "curves.csv")))
    assert [int(r["epoch"]) for r in rows] == list(range(1, 9)) and float(
        rows[0]["training_loss"]
    ) > 0


def test_same_seed_same_weights_for_any_number_of_workers(parts, tmp_path):
    a, _ = train_net("models4", *parts, tmp_path / "a", **OPTIONS)
    b, _ = train_net("models4", *parts, tmp_path / "b", workers=1, **OPTIONS)
    c, _ = train_net("models4", *parts, tmp_path / "c", workers=2, **OPTIONS)
    d, _ = train_net("models4", *parts, tmp_path / "d", seed=1, **OPTIONS)
    assert (
        equal(weights(a), weights(b))
        and equal(weights(a), weights(c))
        and not equal(weights(a), weights(d))
    )


def test_a_broken_run_goes_on_to_the_same_end(parts, tmp_path, monkeypatch):
    """models2 has dropout, so chance inside the network is put back as well."""
    options = {**OPTIONS, "epochs": 3, "resume": True}
    whole, history = train_net("models2", *parts, tmp_path / "whole", **options)
    report = report_epoch
    monkeypatch.setattr(
        module,
        "report_epoch",
        lambda row, *rest: 1 / 0 if row["epoch"] == 2 else report(row, *rest),
    )
    with pytest.raises(ZeroDivisionError):  # the plug is pulled after the second epoch
        train_net("models2", *parts, tmp_path / "broken", **options)
    monkeypatch.setattr(module, "report_epoch", report)
    resumed, again = train_net("models2", *parts, tmp_path / "broken", **options)
    assert equal(weights(whole), weights(resumed))
    assert [r["validation_nme"] for r in history] == [r["validation_nme"] for r in again]
    before = (tmp_path / "broken" / "params.json").read_bytes()
    with pytest.raises(UsageError, match="another lr"):
        train_net("models2", *parts, tmp_path / "broken", lr=0.5, **options)
    assert (tmp_path / "broken" / "params.json").read_bytes() == before, (
        "what is refused leaves no trace"
    )
    with pytest.raises(DataError, match="of another network"):  # its file was changed since
        train_net(
            "models2", *parts, tmp_path / "broken", build=lambda: load_net("models4"), **options
        )
    parts[0].labels = "corrected"
    with pytest.raises(UsageError, match="another labels"):
        train_net("models2", *parts, tmp_path / "broken", **options)
    (tmp_path / "broken" / "last.pt").write_bytes(
        (tmp_path / "broken" / "checkpoint.pt").read_bytes()
    )
    with pytest.raises((DataError, UsageError), match=r"last\.pt"):
        train_net("models2", *parts, tmp_path / "broken", **options)


def test_training_goes_on_from_given_weights(parts, tmp_path):
    _, start = train_net(
        "models4",
        *parts,
        tmp_path / "a",
        **{**OPTIONS, "epochs": 1, "lr": 1e-6},
        init=find_weights("models4"),
    )
    assert start[0]["validation_nme"] < 8  # the shipped weights know faces already
    seen = read_checkpoint(tmp_path / "a" / "checkpoint.pt")["data"]["frames"]
    first = read_checkpoint(find_weights("models4"))["data"]["frames"]
    # what the first weights had seen is not forgotten
    assert set(seen) == set(first) | set(parts[0].names)
    with pytest.raises(DataError, match="no layer in common"):
        train_net("models2", *parts, tmp_path / "b", **OPTIONS, init=find_weights("models4"))


def test_a_teacher_moves_labels_halfway(parts):
    training, _ = parts
    better, learned = refine_labels(training, "models4")
    net, content = load_checkpoint(find_weights("models4"))
    predictions = predict_frames(net, training, mirrored=True)
    np.testing.assert_allclose(better.points, (training.points + predictions) / 2, atol=1e-3)
    assert learned["data"] == content["data"] and list(better.names) == list(training.names)


def test_what_a_teacher_saw_counts_as_seen(parts, tmp_path):
    path, _ = train_net(
        "models4", *parts, tmp_path, **{**OPTIONS, "epochs": 1, "teacher": "models4"}
    )
    content = read_checkpoint(path)
    assert set(read_checkpoint(find_weights("models4"))["data"]["frames"]) < set(
        content["data"]["frames"]
    )
    assert content["params"]["teacher"] == "models4"


def test_a_network_learns_to_doubt_what_is_no_face():
    """Crops without a face have targets NaN: the loss is finite, and least when the prediction is
    spread out."""
    torch.manual_seed(0)
    net, nothing = load_net("models7"), torch.full((2, 68, 2), torch.nan)
    images = torch.rand(2, 1, net.input_size, net.input_size)
    loss = net.loss(images, nothing, torch.full((2, 68), torch.nan))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in net.parameters())
    sure = {**net.state_dict(), "axes.bias": 30 * torch.eye(288)[[40, 200]].sum(0)}
    net.load_state_dict(sure)
    assert net.loss(images, nothing) > loss


def test_without_validation_the_last_epoch_is_kept(parts, tmp_path):
    path, history = train_net("models4", parts[0], None, tmp_path, **OPTIONS)
    assert "validation_nme" not in history[0] and read_checkpoint(path)["metrics"]["epoch"] == 2


def test_a_loss_that_is_not_a_number_stops_the_run(parts, tmp_path):
    with pytest.raises(DataError, match="lower --lr"):
        train_net("models4", *parts, tmp_path, **OPTIONS, lr=1e30, optimizer="sgd")


def test_the_sample_that_breaks_a_loss_is_named():
    class Net(torch.nn.Module):
        def loss(self, images, targets):
            return images.flatten(1).mean(1).log().mean()  # of a black picture it is no number

    assert len(nonfinite_samples(Net(), torch.zeros(1, 1, 8, 8), torch.zeros(1, 68, 2), "own")) == 1
    images, targets = torch.ones(4, 1, 8, 8), torch.zeros(4, 68, 2)
    images[2] = 0
    assert nonfinite_samples(Net(), images, targets, "own").tolist() == [2]
    assert len(nonfinite_samples(Net(), 0 * images, targets, "own")) == 0, (
        "where all are, it is the weights"
    )
    assert "look at training/A_00.jpg" in diverged(
        float("nan"), 3, 0.001, Path("none"), ["training/A_00.jpg"]
    )
    assert "lower --lr" in diverged(float("nan"), 3, 0.001, Path("none"))


def test_a_training_that_meets_such_a_sample_names_it(parts, tmp_path):
    class Net(torch.nn.Module):
        input_size = 16

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            return self.weight.expand(len(images), 136)

        def loss(self, images, targets):
            # of a white picture it is no number
            return self.weight * (0.8 - images.flatten(1).mean(1)).sqrt().mean()

    image, white = parts[0].image, 5
    parts[0].image = lambda row: 0 * image(row) + 255 if row == white else image(row)
    with pytest.raises(DataError, match=f"look at {parts[0].names[white]}"):
        train_net(
            "models4", parts[0], None, tmp_path, **OPTIONS, build=Net, augment="weak", schedule=()
        )


def test_a_network_may_bring_its_own_loss():
    class Own(torch.nn.Linear):
        def loss(self, images, targets):
            return self(images).sum() * 0 + 7

    assert loss_of(Own(2, 2), torch.ones(1, 2), None, "own").item() == 7


def test_a_loss_without_effect_is_refused(parts, tmp_path):
    with pytest.raises(UsageError, match="has a loss of its own"):
        train_net("models5", *parts, tmp_path / "a", **OPTIONS, loss="mse")
    for net, loss, recorded in (
        ("models5", "auto", "own"),
        ("models4", "auto", "wing"),
        ("models4", "l1", "l1"),
    ):
        folder = tmp_path / f"{net}-{loss}"
        path, _ = train_net(net, *parts, folder, **{**OPTIONS, "epochs": 1}, loss=loss)
        assert json.loads((folder / "params.json").read_text())["loss"] == recorded
        assert read_checkpoint(path)["params"]["loss"] == recorded


def test_an_earlier_run_is_never_replaced_unasked(parts, tmp_path):
    options = {**OPTIONS, "epochs": 1}
    path, _ = train_net("models4", *parts, tmp_path, **options)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="holds an earlier run"):
        train_net("models4", *parts, tmp_path, **options, lr=0.01)
    assert path.read_bytes() == before
    train_net("models4", *parts, tmp_path, **options, lr=0.01, overwrite=True)
    assert path.read_bytes() != before


def test_each_call_of_the_command_gets_a_folder_of_its_own(
    command, tiny_zip, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("train.py", "--net", "models4", "--data", tiny_zip, "--epochs", 1)
    # the last one goes on with the second
    for more in ((), ("--lr", 0.01), ("--resume", "--lr", 0.01)):
        done = command(*words, *more)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "models4-tiny-person",
        "models4-tiny-person-2",
    ]
    assert "holds an earlier run" in one_line_error(
        command(*words, "--out", "runs/models4-tiny-person"), 2
    )
    done = command(*words, "--overwrite")
    assert done.returncode == 0 and "runs/models4-tiny-person-2" in done.stdout


def test_losses_are_zero_at_the_truth_and_grow_with_the_error():
    truth = torch.zeros(1, 68, 2)
    for loss in LOSSES.values():
        values = [loss(truth + e, truth).item() for e in (0.0, 0.01, 0.1, 0.5, 2.0)]
        assert values[0] == 0 and values == sorted(values) and len(set(values)) == 5
    # no step where the pieces meet
    joint = [wing(truth + 0.2 + e, truth).item() for e in (-1e-4, 1e-4)]
    assert joint[1] - joint[0] < 5e-4


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"epochs": True},
        {"batch_size": -1},
        {"lr": float("nan")},
        {"lr": "0.1"},
        {"loss": "best"},
        {"optimizer": "magic"},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong, parts, tmp_path):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        train_net("models4", *parts, tmp_path, **{**OPTIONS, **wrong})


def test_the_command_trains_resumes_and_refuses(command, tiny_zip, tmp_path):
    arguments = (
        "--net",
        "models4",
        "--data",
        tiny_zip,
        "--split",
        "person",
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
    )
    done = command("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "lowest validation NME" in done.stdout and (tmp_path / "run" / "checkpoint.pt").exists()
    done = command(
        "evaluate.py", tmp_path / "run" / "checkpoint.pt", "--data", tiny_zip, "--split", "official"
    )
    assert "allow-leak" in one_line_error(done, 1)
    for extra, code in (
        (("--net", "models77"), 2),
        (("--epochs", "0"), 2),
        (("--data", "/no/data"), 1),
        (("--lr", "x"), 2),
        (("--seed", "-1"), 2),
        (("--workers", "-1"), 2),
        (("--data", tiny_zip, "--out", tiny_zip), 1),
    ):
        one_line_error(command("train.py", *extra), code)


def test_the_mean_of_a_running_average_is_quick_at_first():
    value = torch.zeros(1)
    for step in range(50):
        ema_update([value], [torch.ones(1)], torch.tensor(step))
    assert value.item() > 0.99 and np.isfinite(value.item())


def test_a_network_starts_from_the_layers_that_it_shares_with_another(parts, tmp_path, capsys):
    options = {**OPTIONS, "epochs": 1}
    first, _ = train_net("models5", *parts, tmp_path / "first", **options)
    second, _ = train_net(
        "models7", *parts, tmp_path / "second", init=str(first), **{**options, "lr": 1e-9}
    )
    assert "tensors have the same name and shape and are copied" in capsys.readouterr().out
    before, after = weights(first), weights(second)
    name = "stages.0.body.0.weight"
    torch.testing.assert_close(before[name], after[name], atol=1e-4, rtol=0)
    assert "seen.weight" in after.keys() - before.keys()
    other, _ = train_net("models2", *parts, tmp_path / "other", **options)
    with pytest.raises(DataError, match="no layer in common"):
        train_net("models7", *parts, tmp_path / "third", init=str(other), **options)


def test_parts_of_earlier_versions_are_left_out(parts, tmp_path, capsys):
    path, _ = train_net("models5", *parts, tmp_path / "run", **{**OPTIONS, "epochs": 1})
    content = read_checkpoint(path)
    state = content["state_dict"] | {"seen.0.weight": torch.zeros(12, 128, 1, 1)}
    net = load_net("models5")
    load_weights(net, state, path)
    assert "from an earlier version; its parts seen are not used" in capsys.readouterr().err
    assert equal(dict(net.state_dict()), content["state_dict"])


def test_with_turned_heads_the_last_epoch_is_kept(parts, tmp_path):
    path, history = train_net("models5", *parts, tmp_path, **{**OPTIONS, "epochs": 2}, turned=0.5)
    metrics = read_checkpoint(path)["metrics"]
    assert metrics["epoch"] == 2 and metrics["validation_nme"] == history[1]["validation_nme"]


def test_a_changed_network_is_named_and_its_source_is_kept(parts, tmp_path):
    """A checkpoint of a run, after somebody edited the file of the network."""
    path, _ = train(TrainingConfig("models4", epochs=1), parts[0], None, tmp_path, bar=False)
    source = (HOME / "models" / "models4.py").read_text()
    assert (tmp_path / "network.py").read_text() == source
    content = read_checkpoint(path)
    state = {name: value for name, value in content["state_dict"].items() if "bias" not in name}
    with pytest.raises(DataError, match=r"has changed since this run: .*network\.py is as it was"):
        load_weights(load_net("models4"), state, path)
