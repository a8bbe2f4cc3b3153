"""The training loop; notebook 2 and the command both call it."""

import argparse
import contextlib
import csv
import inspect
import io
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from data_load import CACHE_BYTES, EpochSampler, FacialKeypointsDataset
from evaluate import predict_frames, predict_in_self_crops
from facial_keypoints.assets import DEFAULT_NET
from facial_keypoints.errors import (
    SEED,
    DataError,
    UsageError,
    bounded_number,
    leave_errors_to_parent,
    run_command,
)
from facial_keypoints.files import atomic_write, csv_text, refuse_overwriting
from facial_keypoints.layouts import Layout, load_layout
from research.networks.checkpoints import (
    is_plain,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    to_builtins,
    verify_archive,
)
from research.datasets import LABELS, SPLITS, load_frames, person_digit, split_frames
from research.scaling.distributed import (
    SingleProcess,
    LossModule,
    PeerFailureHandler,
    TimedLoader,
    print_rank_zero,
    process_group,
)
from research.data.completion import mean_of_shapes
from research.data.frames import Frames
from research.labeling.label_audit import residual_shift
from research.data.label_shift import match_label_convention
from research.scaling.locks import lock_folder
from research.evaluation.metrics import face_errors, point_errors
from research.networks.registry import (
    as_points,
    autocast,
    channels_last,
    checked_net,
    find_weights,
    has_bfloat16,
    has_own_loss,
    input_size,
    layout_of,
    load_checkpoint,
    load_net,
    net_class,
    net_names,
    predict_targets,
)
from research.networks.terms import sources_of
from research.networks.transfer import measured_fit, transfer_weights
from research.augmentation.transforms import AUGMENTATIONS, evaluation_transform, training_transform

# after research, which sets how PyTorch's threads wait
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader


def wing_penalty(
    distance: torch.Tensor, width: float = 0.2, curvature: float = 0.04
) -> torch.Tensor:
    """The wing loss (Feng et al., CVPR 2018, equation 5) of distances in units of targets:
    logarithmic up to `width`, linear above."""
    offset = width - width * math.log1p(width / curvature)
    return torch.where(
        distance < width, width * torch.log1p(distance / curvature), distance - offset
    )


def wing(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean wing loss of predictions, of the same shape as the targets."""
    return wing_penalty((predictions - targets).abs()).mean()


LOSSES: dict[str, Callable] = {
    "wing": wing,
    "smooth-l1": lambda predictions, targets: F.smooth_l1_loss(predictions, targets, beta=0.05),
    "l1": F.l1_loss,
    "mse": F.mse_loss,
}
OPTIMIZERS: dict[str, Callable] = {
    "adamw": lambda parameters, lr: torch.optim.AdamW(
        parameters, lr, weight_decay=0.05, fused=True
    ),
    "adam": torch.optim.Adam,
    "sgd": lambda parameters, lr: torch.optim.SGD(
        parameters, lr, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
}
HIDDEN = ("estimated", "ignored")
# (share of the epochs, augmentation from there on): the last epochs train on crops like those at
# inference.
AUGMENTATION_SCHEDULE = ((0.6, "gentle"), (0.8, "fine"))
# of curves.csv; validation_nme in %; waited: share of `seconds` spent waiting for data
CURVE_COLUMNS = (
    "epoch",
    "lr",
    "training_loss",
    "validation_loss",
    "validation_nme",
    "seconds",
    "waited",
)


def loss_of(
    net: torch.nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    loss: str,
    visible: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of a batch: the network's own for 'own', else `loss` on its predictions. visible (n,
    k): for networks whose own loss takes it."""
    if loss == "own":
        own: Any = net.loss
        if "visible" in inspect.signature(own).parameters:
            return own(images, targets, visible)
        return own(images, targets)
    predictions, labeled = as_points(net(images), net).float(), ~targets.isnan()
    if labeled.all():
        return LOSSES[loss](predictions, targets)
    return LOSSES[loss](predictions[labeled], targets[labeled])


def chosen_loss(net: torch.nn.Module, net_name: str, loss: str) -> str:
    """The loss that a network is trained with: 'auto' is the network's own, or wing for networks
    without one.

    Raises UsageError for another loss where the network has its own: it would have no effect.
    """
    own = has_own_loss(net)
    if loss == "auto":
        return "own" if own else "wing"
    if own:
        raise UsageError(
            f"{net_name} has a loss of its own (models/{net_name}.py), so loss "
            f"{loss!r} has no effect; give "
            "'auto', or a network without one: "
            + ", ".join(name for name in net_names() if not hasattr(net_class(name), "loss"))
        )
    return loss


def validation_loader(frames: Frames, side: int, batch_size: int) -> DataLoader:
    """Batches of frames as evaluation sees them, made once if they fit in memory."""
    crops: Any = FacialKeypointsDataset(frames, evaluation_transform(side, frames.layout))
    if 4 * side * side * len(crops) <= CACHE_BYTES:
        crops = list(crops)
    return DataLoader(crops, batch_size)


def validate(
    net: torch.nn.Module,
    batches: Iterable[dict],
    loss: str,
    bfloat16: bool = False,
    normalizer: str = "layout",
) -> tuple[float, float]:
    """Loss and NME (%) of a network on batches of crops (n, 1, side, side) and targets (n, k, 2).
    normalizer: of the errors, as in `metrics.normalizer_length`."""
    net.eval()
    layout = layout_of(net)
    total, errors, device = 0.0, [], next(net.parameters()).device
    with torch.inference_mode(), autocast(device, bfloat16):
        for batch in batches:
            x, y = batch["image"], batch["keypoints"]
            total += loss_of(net, x.to(device), y.to(device), loss).item() * len(x)
            predictions = predict_targets(net, x).numpy()
            errors.append(face_errors(point_errors(predictions, y.numpy(), normalizer, layout)))
    errors = np.concatenate(errors)
    return total / len(errors), float(errors.mean())


def ema_update(averaged: Any, current: Any, steps: int | torch.Tensor) -> None:
    """Exponential moving average of the weights. The decay is (1 + steps) / (10 + steps), at most
    0.998: with a constant decay, the random initial weights would still matter at the end of short
    runs."""
    keep = min(0.998, (1 + float(steps)) / (10 + float(steps)))
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(averaged, current, 1 - keep)
    else:  # counters of batch norms
        torch._foreach_copy_(averaged, current)


@dataclass(frozen=True)
class TrainingConfig:
    """All settings that determine the weights of a training run, except the frames. Raises
    UsageError for invalid values.

    net: the name of a file in models/
    lr: the highest learning rate of the one-cycle schedule
    loss: 'auto' (the network's own loss, else wing); or, for networks without a loss of their own,
        one of LOSSES
    augment: one of AUGMENTATIONS, until `schedule` gives another
    schedule: pairs (share of the epochs, augmentation): from that share on, this augmentation is
        used instead
    bfloat16: compute in 16 bits where the device is fast at it: bfloat16, or float16 on older GPUs
    turned: share of the samples, 0…1, whose heads are turned to a yaw of 15 to 90 degrees
        (`research.augmentation.head_rotation`)
    hidden: self-occluded points, which have no labeled position: 'estimated' by a 3D head
        (`research.data.completion`), or 'ignored' in the loss of the positions
    init: a checkpoint to start from, of any network and layout (`research.networks.transfer`)
    teacher: a checkpoint whose predictions refine the labels (`refine_labels`)
    """

    net: str = DEFAULT_NET
    epochs: int = 60
    batch_size: int = 32
    lr: float = 0.002
    loss: str = "auto"
    optimizer: str = "adamw"
    augment: str = "hard"
    schedule: tuple = AUGMENTATION_SCHEDULE
    seed: int = 0
    bfloat16: bool = True
    turned: float = 0.0
    hidden: str = "estimated"
    init: str = ""
    teacher: str = ""

    def __post_init__(self):
        for name, kind in (("epochs", int), ("batch_size", int), ("lr", float)):
            value, limit = getattr(self, name), 1e9 if kind is int else float("inf")
            fits = isinstance(value, (kind, int)) and not isinstance(value, bool)
            if not fits or not 0 < value < limit:
                raise UsageError(
                    f"{name} must be a number above 0 of type {kind.__name__}, not "
                    f"{str(value)[:40]!r}"
                )
        if not 0 <= self.turned <= 1:
            raise UsageError(f"turned must be a share in 0…1, not {self.turned}")
        for name, known in (
            ("loss", ("auto", *LOSSES)),
            ("optimizer", OPTIMIZERS),
            ("augment", AUGMENTATIONS),
            ("hidden", HIDDEN),
        ):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )

    def record(self, loss: str) -> dict:
        """The configuration as it is stored with the weights; loss: the one that is used."""
        schedule = ", ".join(f"{kind} from {share:.0%}" for share, kind in self.schedule)
        return asdict(self) | {
            "loss": loss,
            "schedule": schedule,
            "init": str(self.init),
            "teacher": str(self.teacher),
        }


def train(
    config: TrainingConfig,
    training: Frames,
    validation: Frames | None,
    folder: str | Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    bar: bool = True,
    build: Callable[[], torch.nn.Module] | None = None,
    compiled: bool = False,
) -> tuple[Path, list[dict]]:
    """Train a network on frames and keep the weights with the lowest NME on `validation`. Without
    validation frames, or with turned heads, the weights of the last epoch are kept.

    Writes into `folder`: checkpoint.pt (these weights, a moving average), last.pt (all that
    `resume=True` needs to end with the same weights as an uninterrupted run), curves.csv and
    params.json. Under `accelerate launch` the processes share each batch, and only the first
    one writes files. Returns the path of checkpoint.pt and the rows of curves.csv.

    workers: number of processes that load data; by default one for frames in several archives, else
        none
    resume, overwrite: go on with the run that `folder` holds, or replace it
    build: makes the network, instead of the file that `config.net` names
    compiled: use torch.compile, which is faster on GPUs and needs a compiler

    Raises UsageError for a folder that holds an earlier run, unless `resume` or `overwrite` is
    given, and DataError if the loss or the weights are no longer finite.
    """
    folder = Path(folder)
    refuse_overwriting(
        [find_weights(given) for given in (config.init, config.teacher) if given],
        [folder / "checkpoint.pt"],
    )
    team = process_group(device)
    alone = lock_folder(folder) if team.main else contextlib.nullcontext()
    with PeerFailureHandler(team, folder), alone:
        if team.main and not (resume or overwrite):
            refuse_earlier_run(folder)
        torch.manual_seed(config.seed)
        layout = with_shape(training)
        net = checked_net(build(), config.net, layout) if build else load_net(config.net, layout)
        run = TrainingRun(
            team, config, net, training, validation, workers, compiled, bar and team.main
        )
        last = folder / "last.pt"
        history, best = run.load(last) if resume and last.exists() else ([], {"nme": float("inf")})
        if team.mean(len(history)) != len(history):
            raise UsageError(
                f"{folder} does not hold the same last.pt on all machines; copy it, "
                "or write to a shared disk"
            )
        return run.run_epochs(folder, history, best)


class TrainingRun:
    """A training run: the network, its training state, its batches and its records."""

    def __init__(
        self,
        team: SingleProcess,
        config: TrainingConfig,
        net: torch.nn.Module,
        training: Frames,
        validation: Frames | None,
        workers: int | None,
        compiled: bool,
        bar: bool,
    ):
        self.team, self.config, self.bar = team, config, bar
        self.layout = layout_of(net)
        self.loss = chosen_loss(net, config.net, config.loss)
        self.params = config.record(self.loss)
        self.sources = {training.kind}
        training, known = self.prepare(net, training)
        self.data: dict[str, Any] = {
            "data": training.data,
            "kind": training.kind,
            "sources": sorted(self.sources),
            "split": training.split,
            "labels": training.labels,
            "frames": known,
        }
        if self.layout != load_layout():
            self.data["fit"] = measured_fit(training)
        self.names, side = training.names, input_size(net)
        self.net = channels_last(net, team.device)
        self.averaged = AveragedModel(self.net, multi_avg_fn=ema_update, use_buffers=True)
        self.sampler = EpochSampler(len(training), config.seed, training.shards)
        workers = int(training.shards.any()) if workers is None else workers
        self.loader = DataLoader(
            training_dataset(config, training, net, bar),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_errors_to_parent,
            batch_sampler=team.batches(self.sampler, config.batch_size),
        )
        self.validation = validation and validation_loader(validation, side, config.batch_size)
        # the eyes of a profile are near each other: the box is a steadier unit for such data
        self.normalizer = "layout" if training.visible is None else "box-size"
        self.optimizer = OPTIMIZERS[config.optimizer](list(self.net.parameters()), config.lr)
        steps = config.epochs * len(self.loader)
        self.schedule = OneCycleLR(
            self.optimizer, config.lr, total_steps=steps, pct_start=max(0.2, min(2 / steps, 0.9))
        )
        half = config.bfloat16 and team.device.type == "cuda" and not has_bfloat16("cuda")
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=half)
        losses: Any = LossModule(
            self.net,
            lambda images, targets, visible: loss_of(self.net, images, targets, self.loss, visible),
        )
        self.losses = team.wrap(torch.compile(losses) if compiled else losses)

    def prepare(self, net: torch.nn.Module, training: Frames) -> tuple[Frames, Sequence[str]]:
        """Load the `init` weights and apply the teacher, if given. Returns the training frames, and
        the names of all frames that influenced the weights (used by the leakage check)."""
        known: Any = training.names
        if self.config.hidden == "estimated":
            training = with_hidden_points(training)
        self.minutes_before = 0.0  # training time of the `init` weights
        if self.config.init:
            first = read_checkpoint(self.config.init)
            minutes = first["metrics"].get("minutes")
            self.minutes_before = minutes if isinstance(minutes, (int, float)) else 0.0
            for line in transfer_weights(net, first, self.config.init):
                print_rank_zero(line)
            known = sorted({*(first["data"].get("frames") or []), *known})
            self.sources |= {*sources_of(first["data"])}
        if self.config.teacher:
            training, learned = refine_labels(training, self.config.teacher)
            known = sorted({*(learned.get("frames") or []), *known})
            self.sources |= {*sources_of(learned)}
        return training, known

    @property
    def parts(self) -> dict:
        """The objects whose states last.pt holds."""
        return {
            name: getattr(self, name)
            for name in ("net", "averaged", "optimizer", "schedule", "scaler")
        }

    def load(self, path: Path) -> tuple[list[dict], dict]:
        """Put the state of an interrupted run back -> its history and its best epoch."""
        return load_training_state(path, self.parts, self.params, self.data)

    def run_epochs(self, folder: Path, history: list[dict], best: dict) -> tuple[Path, list[dict]]:
        """Train from the epoch after `history` to the last -> the path of checkpoint.pt, and the
        history of all epochs."""
        if self.team.main:
            atomic_write(folder / "params.json", json.dumps(self.params))
            if history:  # the run may have been killed between last.pt and curves.csv
                atomic_write(folder / "curves.csv", csv_text(CURVE_COLUMNS, history))
        board = tensorboard_writer(folder) if self.team.main else None
        for epoch in range(len(history), self.config.epochs):
            start = time.perf_counter()
            loss, waited = train_one_epoch(self, epoch, folder)
            row = {
                "epoch": epoch + 1,
                "lr": self.optimizer.param_groups[0]["lr"],
                "training_loss": loss,
            }
            if self.validation:
                row["validation_loss"], row["validation_nme"] = validate(
                    self.averaged.module,
                    self.validation,
                    self.loss,
                    self.config.bfloat16,
                    self.normalizer,
                )
            row["seconds"] = time.perf_counter() - start
            row["waited"] = waited / row["seconds"]
            history.append(row)
            # validation frames have few turned heads: they cannot select an epoch for these
            if not self.validation or self.config.turned or row["validation_nme"] < best["nme"]:
                best = {"nme": row.get("validation_nme", float("nan")), "epoch": epoch + 1}
                self.save(folder / "checkpoint.pt", best, history)
            if self.team.main:
                save_training_state(folder, self.parts, history, best, self.params, self.data)
            report_epoch(row, self.config.epochs, self.bar, board)
        return folder / "checkpoint.pt", history

    def save(self, path: Path, best: dict, history: list[dict]) -> None:
        """Write the averaged weights as a checkpoint, in the first process alone."""
        if self.team.main:
            minutes = sum(row["seconds"] for row in history) / 60 + self.minutes_before
            metrics = {"validation_nme": best["nme"], "epoch": best["epoch"], "minutes": minutes}
            params = {name: value for name, value in self.params.items() if name != "net"}
            save_checkpoint(
                path,
                self.config.net,
                self.averaged.module.state_dict(),
                params,
                metrics,
                self.data,
                self.layout,
            )


def with_hidden_points(frames: Frames) -> Frames:
    """Frames with estimated positions of the points that are labeled as hidden, but without a
    position."""
    if frames.visible is None:
        return frames
    unplaced = (np.isnan(frames.points).any(-1) & (frames.visible == 0))[..., None]
    return replace(frames, points=np.where(unplaced, frames.complete(), frames.points))


def with_shape(frames: Frames) -> Layout:
    """The layout of frames; if it has no shape, with the mean shape of these faces."""
    shape = mean_of_shapes(frames.points)
    if frames.layout.shape or frames.layout == load_layout() or np.isnan(shape).any():
        return frames.layout
    return replace(
        frames.layout, shape=tuple((round(float(x), 4), round(float(y), 4)) for x, y in shape)
    )


def train_one_epoch(run: TrainingRun, epoch: int, folder: Path) -> tuple[float, float]:
    """One pass over the training frames -> the mean loss, and for how many seconds the loop waited
    for data.

    Raises DataError if the loss or the weights are no longer finite. It names frames if single
    frames are the cause.
    """
    config, device, total = run.config, run.team.device, 0.0
    run.sampler.epoch = epoch
    # same dropout masks, whether or not the run was interrupted before this epoch
    torch.manual_seed(config.seed * 100_003 + epoch)
    run.net.train()
    batches = TimedLoader(
        tqdm(
            run.loader,
            desc=f"epoch {epoch + 1}/{config.epochs}",
            unit="batch",
            leave=False,
            disable=not run.bar,
        )
    )
    for batch in batches:
        images = batch["image"].to(device, memory_format=torch.channels_last)
        targets = batch["keypoints"].to(device)
        with autocast(device, config.bfloat16):
            loss = run.losses(images, targets, batch["visible"].to(device))
        if not torch.isfinite(loss):
            wrong = nonfinite_samples(run.net, images, targets, run.loss)
            names = run.names[batch["row"].numpy()[wrong]]
            raise DataError(diverged(f"the loss is {loss.item()}", epoch, config.lr, folder, names))
        run.optimizer.zero_grad()
        run.scaler.scale(loss).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.averaged.update_parameters(run.net)
        run.schedule.step()
        total += loss.item() * len(images)
    # the last step of the epoch can make weights infinite, and no loss is computed after it
    if not all(torch.isfinite(weights).all() for weights in run.net.parameters()):
        raise DataError(diverged("the weights are not finite", epoch, config.lr, folder))
    return run.team.mean(total * run.team.world) / len(run.names), batches.seconds


def training_dataset(
    config: TrainingConfig, training: Frames, net: torch.nn.Module, bar: bool = True
) -> FacialKeypointsDataset:
    """Augmented crops of the training frames, with the schedule of augmentation."""
    transform = partial(
        training_transform, input_size(net), empty=getattr(net, "empty", 0.0), layout=layout_of(net)
    )
    later = [(round(share * config.epochs), transform(kind)) for share, kind in config.schedule]
    return FacialKeypointsDataset(
        training,
        transform(config.augment),
        gray=True,
        seed=config.seed,
        schedule=later,
        turned=config.turned,
        bar=bar,
    )


def refuse_earlier_run(folder: str | Path) -> None:
    """Raise UsageError if a folder holds the weights of an earlier run."""
    for name in ("checkpoint.pt", "last.pt"):
        if (Path(folder) / name).exists():
            raise UsageError(
                f"{folder} holds an earlier run ({name}): go on with it by --resume, "
                "write to another folder by "
                "--out, or replace it by --overwrite"
            )


def new_folder(base: str | Path) -> Path:
    """The first of BASE, BASE-2, BASE-3, … that holds no run."""
    return next(folder for folder in numbered(base) if not holds_run(folder))


def newest_folder(base: str | Path) -> Path:
    """The last of BASE, BASE-2, BASE-3, … before the first folder without a run; BASE if BASE
    itself has no run."""
    folders = list(itertools.takewhile(holds_run, numbered(base)))
    return folders[-1] if folders else Path(base)


def numbered(base: str | Path) -> Iterator[Path]:
    """BASE, BASE-2, BASE-3, …"""
    yield Path(base)
    yield from (Path(f"{base}-{number}") for number in itertools.count(2))


def holds_run(folder: Path) -> bool:
    """True if a training run has written to a folder."""
    return (folder / "params.json").exists()


def small_net(layout: str | Layout = "ibug68") -> torch.nn.Module:
    """A smaller version of models5 for label audits, which train two networks: half the channels,
    on crops of half the side."""
    layout = load_layout(layout)
    net = net_class("models5")(len(layout), side=64, widths=(32, 64), features=64)
    return checked_net(net, "models5", layout)


def measure_shift(
    frames: Frames, epochs: int, folder: str | Path, bar: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Train with mirroring on labels as they are -> the mean offset (n, 2) of the labels of each
    face from the predictions, and the predictions (n, k, 2), both in pixels.

    The network is also trained on the mirror image of every face, with mirrored labels. A shift to
    the right in one is a shift to the left in the other, so the network learns x without the shift.
    The mean difference between labels and predictions is the shift. The people are divided into two
    halves, and each half is predicted by the network trained on the other half, because a network
    can memorize the shifted labels of the faces it was trained on. Predictions are averaged over
    the crop and its mirror image, because a network that is not trained to the end has a shift of
    its own. Crop jitter stays on in all epochs, because a crop centered exactly on the labels has
    the same shift as the labels. y offsets do not show a shift that all labels share.
    """
    half = np.array([person_digit(person) % 2 for person in frames.people], bool)
    if half.all() or not half.any():
        raise DataError(
            f"{frames.data}: too few people to divide them into two halves, one for "
            "training and one for measuring"
        )
    # without drawn covers, which small networks do not learn in so few epochs
    config = TrainingConfig(
        "models5", epochs, batch_size=16, augment="plain", schedule=((0.6, "mild"),)
    )
    predictions = np.empty_like(frames.points)
    for side in (False, True):
        path, _ = train(
            config,
            frames.select(half == side),
            None,
            Path(folder) / f"half{side:d}",
            build=partial(small_net, frames.layout),
            bar=bar,
        )
        net = small_net(frames.layout)
        load_weights(net, read_checkpoint(path)["state_dict"], path)
        predictions[half != side] = predict_in_self_crops(
            net, frames.select(half != side), steps=8, mirrored=True
        )
    return residual_shift(frames.points, predictions), predictions


def refine_labels(frames: Frames, teacher: str | Path) -> tuple[Frames, dict]:
    """Knowledge distillation: replace each label by the mean of the label and the prediction of the
    teacher network. Returns the frames, and the `data` of the teacher's checkpoint.

    Quantized labels are noisy, and a larger network averages this noise out. The predictions are
    averaged over each crop and its mirror image, and moved by the shift that these labels have.
    """
    net, content = load_checkpoint(find_weights(teacher))
    predictions = match_label_convention(
        frames, predict_frames(net, frames, mirrored=True), content["data"]
    )
    frames = frames.select(np.arange(len(frames)))
    frames.points = (frames.points + predictions.astype(np.float32)) / 2
    return frames, content["data"]


def nonfinite_samples(
    net: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor, loss: str
) -> np.ndarray:
    """Rows of a batch whose loss, computed alone, is not finite. Empty if the batch has more than
    one row and all are such: then the weights are the cause, not a sample."""
    with torch.inference_mode():
        net.eval()
        values = [
            loss_of(net, images[i : i + 1], targets[i : i + 1], loss).item()
            for i in range(len(images))
        ]
    wrong = np.flatnonzero(~np.isfinite(values))
    return wrong if len(wrong) < len(values) or len(values) == 1 else wrong[:0]


def diverged(problem: str, epoch: int, lr: float, folder: Path, names: Sequence[str] = ()) -> str:
    """The message for a loss or weights that are not finite."""
    kept = f"; the last good state is {folder / 'last.pt'}" if (folder / "last.pt").exists() else ""
    cure = (
        f"look at {', '.join(names[:3])}"
        if len(names)
        else f"lower --lr (now {lr:g}) or look at the data"
    )
    return f"{problem} in epoch {epoch + 1}: {cure}{kept}"


def save_training_state(
    folder: Path, parts: dict, history: list[dict], best: dict, params: dict, data: dict
) -> None:
    """Write last.pt and curves.csv, each atomically."""
    state = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save(
        to_builtins({"history": history, "best": best, "params": params, "data": data})
        | {"state": state},
        buffer,
    )
    atomic_write(folder / "last.pt", buffer.getvalue())
    atomic_write(folder / "curves.csv", csv_text(CURVE_COLUMNS, history))


def load_training_state(
    path: Path, parts: dict, params: dict, data: dict
) -> tuple[list[dict], dict]:
    """Restore the state of an interrupted run from last.pt -> (rows of curves.csv, its best epoch).

    Raises DataError if the file is damaged, UsageError if it is of a run with other parameters or
    data.
    """
    verify_archive(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        before = {**saved["params"], **saved["data"]}
        states = {name: saved["state"][name] for name in parts}
        history, best = saved["history"], saved["best"]
        if not (
            is_plain([before, history, best])
            and isinstance(best["nme"], float)
            and all(
                row.keys() <= set(CURVE_COLUMNS)
                and all(isinstance(value, (int, float)) for value in row.values())
                and {"epoch", "seconds"} <= row.keys()
                for row in history
            )
        ):
            raise TypeError("values of other types")
    except Exception as error:
        raise DataError(
            f"{path}: cannot be resumed from ({type(error).__name__}); delete it to begin again"
        ) from None
    changed = [k for k, v in to_builtins({**params, **data}).items() if before.get(k) != v]
    if changed:
        raise UsageError(
            f"{path} is of a run with another {', '.join(changed)}; give the same, or another --out"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(states[name])
    except Exception as error:  # each part complains in its own way
        raise DataError(
            f"{path}: of another network or machine ({type(error).__name__}: "
            f"{str(error)[:200]}); delete it to "
            "begin again"
        ) from None
    return history, best


def read_history(folder: str | Path) -> list[dict]:
    """The rows of a run's curves.csv, as `train` returns them."""
    with open(Path(folder) / "curves.csv", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def tensorboard_writer(folder: Path) -> Any:
    """A TensorBoard writer when that is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)


def report_epoch(row: dict, epochs: int, bar: bool, board: Any) -> None:
    """Print one line for an epoch, and write its learning rate, losses and NME to TensorBoard."""
    if bar:
        tqdm.write(
            f"epoch {row['epoch']:>3}/{epochs}  training loss {row['training_loss']:.4f}"
            + (
                f"  validation loss {row['validation_loss']:.4f}"
                f"  NME {row['validation_nme']:5.2f} %"
                if "validation_nme" in row
                else ""
            )
            + f"  {row['seconds']:.0f} s, {100 * row['waited']:.0f} % waiting for data"
        )
    for key in CURVE_COLUMNS[1:-2] if board else ():
        if key in row:
            board.add_scalar(key, row[key], row["epoch"])
    if board:
        board.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train a network of models/. The weights with "
        "the lowest validation NME are kept, with "
        "--turned those of the last epoch."
    )
    parser.add_argument(
        "--net", default=DEFAULT_NET, help="name of a network in models/ (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        default="sample",
        help="sample, official, or a folder, zip or file of labels (default: %(default)s)",
    )
    parser.add_argument(
        "--layout", help="keypoint layout, a name or a .toml file (default: the data's own)"
    )
    parser.add_argument("--split", default="person", choices=SPLITS, help="(default: %(default)s)")
    parser.add_argument(
        "--labels",
        default="corrected",
        choices=LABELS,
        help="labels of the official data: published, or corrected for their shift "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=int, default=TrainingConfig.epochs, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=TrainingConfig.batch_size, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--lr",
        type=float,
        default=TrainingConfig.lr,
        help="highest learning rate (default: %(default)s)",
    )
    parser.add_argument(
        "--loss",
        default=TrainingConfig.loss,
        choices=["auto", *LOSSES],
        help="auto: the network's own, else wing; the others are for networks without their own",
    )
    parser.add_argument(
        "--optimizer",
        default=TrainingConfig.optimizer,
        choices=OPTIMIZERS,
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--augment",
        default=TrainingConfig.augment,
        choices=AUGMENTATIONS,
        help="how strongly images are changed: fine, gentle, mild, plain or hard; "
        "hard adds low light, motion blur and an occluded half "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--turned",
        type=bounded_number(float, 0, 1),
        default=TrainingConfig.turned,
        help="share of the samples with heads turned to a yaw of 15 to 90 "
        "degrees (default: %(default)s)",
    )
    parser.add_argument(
        "--hidden",
        default=TrainingConfig.hidden,
        choices=HIDDEN,
        help="positions of self-occluded points, which people do not label: "
        "estimated by a 3D head, or ignored in the loss "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, … (default: %(default)s)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=bounded_number(int, 0),
        help="processes that load data (default: 1 for a folder of archives, else 0)",
    )
    parser.add_argument(
        "--init",
        metavar="CHECKPOINT",
        help="start from these weights, also those of another layout",
    )
    parser.add_argument(
        "--teacher",
        metavar="CHECKPOINT",
        help="a trained network whose predictions refine the labels",
    )
    parser.add_argument(
        "--compile", action="store_true", help="use torch.compile: faster on GPUs, needs a compiler"
    )
    parser.add_argument(
        "--final",
        action="store_true",
        help="after model selection: train on the validation frames too, and keep "
        "the weights of the last epoch",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="train on all frames, test frames too, and keep the weights of the "
        "last epoch: for small sets of your own, evaluated on other data",
    )
    parser.add_argument(
        "--threads",
        type=bounded_number(int, 1),
        help="processor threads that PyTorch uses (default: one per core)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, or with the newest of this network, data and split",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run in --out, or the newest of this network, data and split",
    )
    parser.add_argument(
        "--out",
        help="folder to write to (default: runs/NET-DATA-SPLIT, with -published, "
        "-final, -all and -seedN where given, then -2, -3, …)",
    )
    options = parser.parse_args()

    config = TrainingConfig(
        options.net,
        options.epochs,
        options.batch_size,
        options.lr,
        options.loss,
        options.optimizer,
        options.augment,
        seed=options.seed,
        turned=options.turned,
        hidden=options.hidden,
        init=str(find_weights(options.init)) if options.init else "",
        teacher=options.teacher or "",
    )
    net_class(options.net)
    frames = load_frames(options.data, options.labels, options.layout)
    part = "all" if options.all else "all-training" if options.final else "training"
    training = split_frames(frames, options.split, part)
    validation = (
        None if options.final or options.all else split_frames(frames, options.split, "validation")
    )
    words = (
        ("published", options.labels == "published"),
        ("final", options.final),
        ("all", options.all),
        (f"seed{options.seed}", options.seed),
    )
    kind = "".join(f"-{word}" for word, on in words if on)
    base = f"runs/{options.net}-{Path(options.data).stem}-{options.split}{kind}"
    folder = Path(
        options.out or (newest_folder if options.resume or options.overwrite else new_folder)(base)
    )
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.resume and not (folder / "last.pt").exists():
        print_rank_zero(f"nothing to resume in {folder}: a new run begins")
    print_rank_zero(
        f"{options.net} on {len(training)} frames, {len(validation or ())} for validation, "
        f"{len(training.layout)} keypoints ({training.layout.name}), labels {training.labels}; "
        f"writing to {folder}"
    )
    path, history = train(
        config,
        training,
        validation,
        folder,
        device=options.device,
        workers=options.workers,
        resume=options.resume,
        overwrite=options.overwrite,
        compiled=options.compile,
    )
    best = min((row["validation_nme"] for row in history if "validation_nme" in row), default=None)
    minutes = sum(row["seconds"] for row in history) / 60
    print_rank_zero(
        f"{minutes:.1f} minutes" + (f", lowest validation NME {best:.2f} %" if best else "")
    )
    layout = f" --layout {options.layout}" if options.layout else ""
    print_rank_zero(
        f"trained on all frames of {options.data}; evaluate {path} on other data"
        if options.all
        else "evaluate it once, after model selection: "
        f"python evaluate.py {path} --data {options.data} --split {options.split}{layout}"
    )


if __name__ == "__main__":
    run_command(main)
