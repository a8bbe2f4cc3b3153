"""The face detector of `detector_architectures/pyramid.py`: its network, and the command that
trains it on annotated frames and writes the ONNX file."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm.auto import tqdm

from detector_architectures.pyramid import LARGEST, SMALLEST, STRIDE, UNIT, WEIGHTS
from facial_keypoints.command import SEED, bounded_number, run_command
from research.scaling.distributed import leave_errors_to_parent
from facial_keypoints.files import atomic_write
from facial_keypoints.geometry import rolled
from facial_keypoints.onnx_file import metadata_entry, digest, FORMAT
from research.datasets import add_part_flags, frames_of
from research.networks.export import EXPORTER, OPSET, without_notes
from research.networks.halving import halve
from research.networks.quantization import quiet
from research.face_detector.scenes import (
    LEAST_COVERED,
    MOST_COVERED,
    SIDE,
    FaceScenes,
    Placed,
)

CORE, RING = 0.35, 0.7  # of half a box: cells within CORE are a face, those beyond RING are not
# faces up to this factor smaller or larger than those to find are neither faces nor background
GRACE = 1.35
NEAR = 1.5  # of half a box: cells beyond it are away from a face, even from one that is covered
# Scenes in which the highest probability away from faces is between these are hard negatives. What
# the network is surer of is often a face without a label.
LEAST_FALSE, MOST_FALSE = 0.3, 0.9


class Separable(nn.Module):
    """A 3×3 convolution of each channel and a 1×1 convolution across channels (Howard et al.,
    MobileNets, 2017), next to a shortcut where the sizes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, dilation, dilation, inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + x if self.short else self.body(x))


class FaceNet(nn.Module):
    """Gray (n, 1, h, w) in [0, 1], h and w multiples of STRIDE -> (n, 7, h / STRIDE, w / STRIDE):
    for each cell the log odds of a face around it, and of that face the center (x, y) relative to
    the cell's in strides, log width and log height in UNIT, and cos and sin of the roll."""

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 112), depth: int = 8):
        super().__init__()
        a, b, c = widths
        self.body = nn.Sequential(
            nn.Conv2d(1, a, 3, 2, 1, bias=False),
            nn.BatchNorm2d(a),
            nn.ReLU(inplace=True),
            Separable(a, b, 2),
            Separable(b, b),
            Separable(b, b),
            Separable(b, c, 2),
            *[Separable(c, c) for _ in range(depth)],
        )
        self.head = nn.Conv2d(c, 7, 1)
        nn.init.constant_(self.head.bias, 0.0)
        self.head.bias.data[0] = -3.0  # few cells hold a face

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images - 0.5))


class Exported(nn.Module):
    """The network as it is exported: with the probability in place of the log odds."""

    def __init__(self, net: FaceNet):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.net(images)
        return torch.cat([maps[:, :1].sigmoid(), maps[:, 1:]], 1)


def cell_targets(placed: Placed, side: int = SIDE) -> np.ndarray:
    """Faces of a scene -> (9, cells, cells) float32: 1 for cells of a face, the six numbers of that
    face (see FaceNet), 1 for the cells that count, and 1 for those that are away from all faces."""
    cells = side // STRIDE
    targets = np.zeros((9, cells, cells), np.float32)
    targets[7:] = 1
    middle = np.arange(cells) * STRIDE + (STRIDE - 1) / 2
    grid = np.stack(np.meshgrid(middle, middle), -1)
    # the smallest last: it is the one in front
    for row in np.argsort(-placed.sizes.prod(1)):
        center, size, roll = placed.centers[row], placed.sizes[row], placed.rolls[row]
        covered, extent = placed.covered[row], np.sqrt(size.prod())
        away = grid - center
        upright = rolled(away.reshape(1, -1, 2), np.array([-roll]))[0].reshape(away.shape)
        distance = np.hypot(*np.moveaxis(upright / (size / 2), -1, 0))
        targets[8][distance < NEAR] = 0
        if covered > LEAST_COVERED or not SMALLEST / GRACE < extent < LARGEST * GRACE:
            continue
        targets[7][distance < RING] = 0
        if covered > MOST_COVERED or not SMALLEST <= extent <= LARGEST:
            targets[0][distance < RING] = 0
            continue
        core = distance < max(CORE, min(distance.min() * 1.01, RING))
        angle = np.radians(roll)
        targets[7][core] = targets[0][core] = 1
        targets[1:3, core] = -away[core].T / STRIDE
        targets[3:7, core] = np.array([*np.log(size / UNIT), np.cos(angle), np.sin(angle)])[:, None]
    return targets


def detector_loss(maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Focal loss (Lin et al., ICCV 2017) of faces and background, and the absolute errors of
    center, size and roll in the cells of faces; both per cell of a face."""
    face, counts = targets[:, 0], targets[:, 7]
    logits, number = maps[:, 0], face.sum().clamp(min=1)
    error = (logits.sigmoid() - face).abs()
    focal = error.square() * F.binary_cross_entropy_with_logits(logits, face, reduction="none")
    away = (maps[:, 1:] - targets[:, 1:7]).abs()
    scale = maps.new_tensor([1, 1, 2, 2, 1, 1])[:, None, None]
    return ((focal * counts).sum() + (away * scale * face[:, None]).sum() * 0.4) / number


class HardScenes:
    """Scenes in which the network saw a face where none is, to be seen again: hard negatives
    (Sung, Poggio, PAMI 1998; Shrivastava, Gupta, Girshick, CVPR 2016).

    size: number of scenes that are kept, the last ones, because the network changes
    """

    def __init__(self, size: int = 480):
        self.size = size
        self.images = torch.empty(0, 1, SIDE, SIDE)
        self.targets = torch.empty(0, 9, SIDE // STRIDE, SIDE // STRIDE)

    def add(self, maps: torch.Tensor, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Keep those of the scenes (n, 1, SIDE, SIDE) with a false face away from the true ones.

        maps: what the network says about them, as FaceNet; targets: as cell_targets
        """
        false = (maps[:, 0].detach().sigmoid() * targets[:, 8]).amax((1, 2))
        hard = (false >= LEAST_FALSE) & (false <= MOST_FALSE)
        self.images = torch.cat([self.images, images[hard]])[-self.size :]
        self.targets = torch.cat([self.targets, targets[hard]])[-self.size :]

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """At most `count` of them, by up to 15 % brighter or darker than before, and their
        targets."""
        rows = torch.randperm(len(self.images), generator=generator)[:count]
        light = 0.85 + 0.3 * torch.rand(len(rows), 1, 1, 1, generator=generator)
        return (self.images[rows] * light).clamp(0, 1), self.targets[rows]


class SceneStream(IterableDataset):
    """Endless batches of scenes: images (n, 1, SIDE, SIDE) in [0, 1] and targets of their cells."""

    def __init__(self, scenes: FaceScenes, batch: int, seed: int):
        self.scenes, self.batch, self.seed = scenes, batch, seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            some = [self.scenes(rng) for _ in range(self.batch)]
            yield (
                np.stack([image for image, _ in some])[:, None].astype(np.float32) / 255,
                np.stack([cell_targets(placed) for _, placed in some]),
            )


def train_detector(
    net: FaceNet,
    scenes: FaceScenes,
    steps: int,
    batch: int = 48,
    lr: float = 3e-3,
    seed: int = 0,
    workers: int = 1,
    bar: bool = True,
    negatives: int = 0,
) -> FaceNet:
    """Train a network on scenes for a number of steps -> the mean of its weights over the last
    steps (exponential). negatives: number of hard negatives that are added to each batch."""
    net = net.to(memory_format=torch.channels_last).train()
    mean = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    batches = DataLoader(
        SceneStream(scenes, batch, seed),
        None,
        num_workers=workers,
        worker_init_fn=leave_errors_to_parent,
    )
    shown, recent = tqdm(range(steps), "training", unit="step", disable=not bar), 0.0
    hard, generator = HardScenes(), torch.Generator().manual_seed(seed)
    for step, (images, targets) in zip(shown, batches, strict=False):
        if negatives:
            again, known = hard.draw(negatives, generator)
            images, targets = torch.cat([images, again]), torch.cat([targets, known])
        maps = net(images.to(memory_format=torch.channels_last))
        if negatives:
            hard.add(maps[:batch], images[:batch], targets[:batch])
        loss = detector_loss(maps, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        optimizer.step()
        rate.step()
        mean.update_parameters(net)
        recent = loss.item() if not step else 0.98 * recent + 0.02 * loss.item()
        shown.set_postfix(loss=f"{recent:.3f}", refresh=False)
    return mean.module.eval()


def export_detector(net: FaceNet, path: str | Path, trained_on: dict) -> None:
    """Write the network as an ONNX file: fp16 weights, metadata, a checksum."""
    example = torch.zeros(1, 1, 2 * STRIDE, 3 * STRIDE)
    height, width = (
        STRIDE * torch.export.Dim(name, min=1, max=4096) for name in ("rows", "columns")
    )
    with EXPORTER, quiet("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            Exported(net).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["images"],
            output_names=["cells"],
            dynamic_shapes=({2: height, 3: width},),
        )
    model = program.model_proto
    without_notes(model)
    halve(model, rounded_from=1)
    data = model.SerializeToString()
    atomic_write(
        path,
        data + metadata_entry({"format": FORMAT, "trained_on": trained_on, "sha256": digest(data)}),
    )


def textures() -> tuple[np.ndarray, ...]:
    """Gray photos of a building and of a flower, from scikit-learn."""
    from sklearn.datasets import load_sample_images

    return tuple(image.mean(-1).astype(np.uint8) for image in load_sample_images().images)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research.face_detector.training", description=__doc__
    )
    add_part_flags(parser, "sample", part="training")
    parser.add_argument(
        "--steps",
        type=bounded_number(int, 1),
        default=8000,
        help="of 48 scenes each (default: %(default)s)",
    )
    parser.add_argument(
        "--hard-negatives",
        type=bounded_number(int, 0),
        default=0,
        metavar="COUNT",
        help="scenes with a false face that are seen again, in each step (default: %(default)s)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=WEIGHTS,
        metavar="FILE",
        help="(default: that of the shipped detector)",
    )
    options = parser.parse_args()
    frames = frames_of(options)
    torch.manual_seed(options.seed)
    net = train_detector(
        FaceNet(),
        FaceScenes(frames, textures(), seed=options.seed),
        options.steps,
        seed=options.seed,
        negatives=options.hard_negatives,
    )
    export_detector(net, options.out, {"data": options.data, "split": options.split})
    print(
        f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB, trained on {len(frames)} "
        f"frames"
    )


if __name__ == "__main__":
    run_command(main)
