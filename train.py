"""The training loop; notebook 2 and the command both call it."""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from data_load import (
    AUGMENTATIONS,
    CACHE_BYTES,
    EpochSampler,
    FacialKeypointsDataset,
    Frames,
    add_data_flags,
    evaluation_transform,
    load_frames,
    split_frames,
    training_transform,
)
from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import DataError, UsageError
from models import (
    DEFAULT_NET,
    checked_net,
    empty_share,
    find_weights,
    input_size,
    layout_of,
    load_net,
    net_class,
    predict_targets,
    save_checkpoint,
)
from research.evaluation.metrics import face_errors, point_errors
from research.networks.registry import autocast, channels_last, has_bfloat16
from research.scaling.distributed import (
    LossModule,
    PeerFailureHandler,
    SingleProcess,
    TimedLoader,
    leave_errors_to_parent,
    print_rank_zero,
    process_group,
)
from research.training.losses import LOSSES, chosen_loss, loss_of, nonfinite_samples
from research.training.optimization import OPTIMIZERS, ema_update, one_cycle
from research.training.preparation import Prepared, prepare_training, training_layout
from research.training.runs import (
    begin_records,
    claim_folder,
    diverged,
    load_training_state,
    report_epoch,
    run_folder,
    save_training_state,
    tensorboard_writer,
)
from research.training.settings import Settings, setting

# after research, which sets how PyTorch's threads wait
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

# (share of the epochs, augmentation from there on): the last epochs train on crops like those at
# inference.
AUGMENTATION_SCHEDULE = ((0.6, "medium"), (0.8, "weak"))


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


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """All settings that determine the weights of a training run, except the frames. Raises
    UsageError for invalid values."""

    net: str = setting(DEFAULT_NET, "name of a network in models/")
    epochs: int = setting(60, "passes over the training frames", above=0)
    batch_size: int = setting(32, "samples in a step", above=0)
    lr: float = setting(0.002, "highest learning rate of the one-cycle schedule", above=0)
    loss: str = setting(
        "auto",
        "auto: the network's own, else wing; the others are for networks without their own",
        choices=("auto", *LOSSES),
    )
    optimizer: str = setting("adamw", "of the weights", choices=tuple(OPTIMIZERS))
    augment: str = setting(
        "strong",
        "how strongly images are changed; strong: also low light, motion blur and an occluded "
        "half; simple: without drawn hands, glasses, masks and hair",
        choices=tuple(AUGMENTATIONS),
    )
    # pairs (share of the epochs, augmentation): used from that share on
    schedule: tuple = AUGMENTATION_SCHEDULE
    seed: int = setting(0, "of all random choices", low=0, high=2**32 - 1)
    # 16 bits where the device is fast at it: bfloat16, or float16 on older GPUs
    bfloat16: bool = True
    turned: float = setting(
        0.0, "share of the samples with heads turned to a yaw of 15 to 90 degrees", low=0, high=1
    )
    hidden: str = setting(
        "estimated",
        "positions of self-occluded points, which people do not label: estimated by a 3D head, or "
        "ignored in the loss",
        choices=("estimated", "ignored"),
    )
    init: str = setting("", "a checkpoint to start from, also of another network or layout")
    teacher: str = setting("", "a trained network whose predictions refine the labels")

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
    team = process_group(device)
    alone = claim_folder(folder, (config.init, config.teacher), resume or overwrite, team.main)
    with PeerFailureHandler(team, folder), alone:
        torch.manual_seed(config.seed)
        layout = training_layout(training)
        net = checked_net(build(), config.net, layout) if build else load_net(config.net, layout)
        prepared = prepare_training(net, training, config.init, config.teacher, config.hidden)
        run = TrainingRun(
            team, config, net, prepared, validation, workers, compiled, bar and team.main
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
        prepared: Prepared,
        validation: Frames | None,
        workers: int | None,
        compiled: bool,
        bar: bool,
    ):
        self.team, self.config, self.bar = team, config, bar
        self.layout = layout_of(net)
        self.loss = chosen_loss(net, config.net, config.loss)
        self.params = config.record(self.loss)
        training, self.data, self.minutes_before = prepared.frames, prepared.data, prepared.minutes
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
        self.schedule = one_cycle(self.optimizer, config.lr, steps)
        half = config.bfloat16 and team.device.type == "cuda" and not has_bfloat16("cuda")
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=half)
        losses: Any = LossModule(
            self.net,
            lambda images, targets, visible: loss_of(self.net, images, targets, self.loss, visible),
        )
        self.losses = team.wrap(torch.compile(losses) if compiled else losses)

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
            begin_records(folder, self.params, history, self.net)
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
        training_transform, input_size(net), empty=empty_share(net), layout=layout_of(net)
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


def read_options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description="Train a network of models/ and keep the weights with the lowest validation NME"
    )
    TrainingConfig.add_flags(parser)
    add_data_flags(parser)
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, … (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=bounded_number(int, 0),
        help="processes that load data (default: 1 for a folder of archives, else 0)",
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
    return parser.parse_args()


def main() -> None:
    options = read_options()

    init = str(options.init and find_weights(options.init))
    config = TrainingConfig.from_flags(options, init=init)
    net_class(options.net)
    frames = load_frames(options.data, options.labels, options.layout)
    part = "all" if options.all else "all-training" if options.final else "training"
    training = split_frames(frames, options.split, part)
    validation = (
        None if options.final or options.all else split_frames(frames, options.split, "validation")
    )
    words = {
        "published": options.labels == "published",
        "final": options.final,
        "all": options.all,
        f"seed{options.seed}": options.seed,
    }
    name = "-".join([options.net, Path(options.data).stem, options.split])
    name += "".join(f"-{word}" for word, on in words.items() if on)
    folder = Path(options.out or run_folder(name, options.resume or options.overwrite))
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
    nmes = [row["validation_nme"] for row in history if "validation_nme" in row]
    minutes = sum(row["seconds"] for row in history) / 60
    lowest = f", lowest validation NME {min(nmes):.2f} %" if nmes else ""
    print_rank_zero(f"{minutes:.1f} minutes{lowest}")
    layout = f" --layout {options.layout}" if options.layout else ""
    print_rank_zero(
        f"trained on all frames of {options.data}; evaluate {path} on other data"
        if options.all
        else "evaluate it once, after model selection: "
        f"python evaluate.py {path} --data {options.data} --split {options.split}{layout}"
    )


if __name__ == "__main__":
    run_command(main)
