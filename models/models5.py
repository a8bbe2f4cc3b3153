"""The fast default network: residual blocks, then one distribution per point and axis (SimCC)."""

import torch
import torch.nn.functional as F
from torch import nn

# number of bins per axis; they cover -REACH to REACH in units of targets, the crop -1 to 1
BINS, REACH = 144, 1.3
LEAST = 0.042  # sqrt(variance in x + variance in y), in targets, below which the confidence is 1


class Block(nn.Module):
    """Two 3×3 convolutions next to a shortcut (He, Zhang, Ren, Sun, CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Net(nn.Module):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions."""

    # share of negative crops (without a face) in training; their label: all bins equally likely
    empty = 0.06
    # standard deviation of the label distributions, in units of targets: about half a step of the
    # coarse grid on which the official labels lie
    label_width = 0.03
    # distance at which the robust loss turns from quadratic to logarithmic, in units of targets
    loss_width = 0.03
    # sqrt(variance in x + variance in y) minus LEAST at which the confidence is 0.5, and the
    # steepness of the curve; fitted by benchmarks/confidence.py
    even_odds, steepness = 0.118, 1.63

    def __init__(
        self,
        points: int = 68,
        side: int = 128,
        widths: tuple[int, ...] = (64, 128),
        depth: int | tuple[int, ...] = 2,
        features: int = 128,
    ):
        super().__init__()
        depths = (depth,) * len(widths) if isinstance(depth, int) else depth
        self.count = points
        self.input_size, grid, stride = side, side // 16, 16 // 2 ** len(widths)
        # a large stride in the first layer, because feature maps of high resolution cost much time
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0] // 2, 2 * stride, stride, stride // 2, bias=False),
            nn.BatchNorm2d(widths[0] // 2),
            nn.ReLU(inplace=True),
        )
        stages, inputs = [], widths[0] // 2
        for outputs, blocks in zip(widths, depths, strict=True):  # 32 -> 16 -> 8 pixels a side
            stages += [Block(inputs, outputs, 2)]
            stages += [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.maps = nn.Conv2d(inputs, 4 * points, 1)  # four maps for each point
        self.mix = nn.Sequential(nn.Linear(4 * grid * grid, features), nn.ReLU(inplace=True))
        # combines the features of all points: the others help to locate an occluded one
        self.points = nn.Linear(points, points)
        self.axes = nn.Linear(features, 2 * BINS)
        self.register_buffer("bins", torch.linspace(-REACH, REACH, BINS), persistent=False)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The feature maps of the last stage: (n, channels, grid, grid)."""
        return self.stages(self.stem(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images -> features of each point: (n, points, features)."""
        return self.point_features(self.encode(images))

    def point_features(self, encoded: torch.Tensor) -> torch.Tensor:
        """The last feature maps -> features of each point: (n, points, features)."""
        x = self.maps(encoded)
        # (n, 4 × points, 8, 8) -> (n, points, features)
        x = self.mix(x.reshape(-1, self.count, self.mix[0].in_features))
        return x + self.points(x.transpose(1, 2)).transpose(1, 2)

    def distributions(self, features: torch.Tensor) -> torch.Tensor:
        """Features -> logits (n, points, 2, BINS): for each point one distribution over x and one
        over y (Li et al., ECCV 2022)."""
        return self.axes(features).view(-1, self.count, 2, BINS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, _ = self.moments(self.distributions(self.features(images)))
        return mean.flatten(1)

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, side, side) and targets (n, points, 2) -> the loss of the batch."""
        return self.position_loss(self.distributions(self.features(images)), targets)

    def position_loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (n, points, 2, BINS) and targets (n, points, 2) -> cross-entropy with Gaussian
        label distributions, plus a robust loss on the means; weights (n, points): of the points.

        Points with a large standard deviation get a smaller weight in the second term, as in STAR
        (Zhou et al., CVPR 2023). Crops without a face have NaN targets only: their distributions
        are trained to be uniform, and the second term ignores them. Single missing points of a
        face, NaN as well, are ignored by both.
        """
        logits, missing = logits.float(), targets.isnan().any(-1)
        labeled, empty = ~missing, missing.all(1, keepdim=True).expand_as(missing)
        used = labeled | empty
        if weights is None:
            weights = torch.ones_like(targets[..., 0])
        mean, variance = self.moments(logits)
        cross_entropy = self.cross_entropy(logits[used], targets[used]) * weights[used]
        return self.robust_loss(mean, variance, targets, weights) + 0.1 * cross_entropy.mean()

    def robust_loss(
        self,
        points: torch.Tensor,
        variance: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """The robust loss of predicted points (n, k, 2) whose distributions have these variances
        (n, k, 2); weights (n, k)."""
        labeled = ~targets.isnan().any(-1)
        distance = (points - targets)[labeled].abs() * self.scale(variance[labeled].detach())
        return (self.penalty(distance).mean(-1) * weights[labeled]).sum() / max(len(distance), 1)

    def moments(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of the distributions in units of targets, and variances in their squares."""
        chance = logits.float().softmax(-1)
        mean = (chance * self.bins).sum(-1)
        # not the mean of the squares minus the squared mean: OpenVINO computes products in bfloat16
        # where that is fast, and the small difference of large numbers would lose all its digits
        return mean, (chance * (self.bins - mean[..., None]).square()).sum(-1)

    def scale(self, variance: torch.Tensor) -> torch.Tensor:
        """Weight of each distance in the loss: sqrt(label_width / standard deviation).

        The variance is detached by the caller, so only the cross-entropy trains it. Without the
        square root, results are better on clear faces and worse on occluded ones.
        """
        return (self.label_width**2 / variance.clamp_min(1e-4)) ** 0.25

    def cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (m,) of the distributions (m, 2, BINS) with labels (m, 2) of
        `label_width`."""
        distance = (targets[..., None] - self.bins) / self.label_width
        wanted = (-0.5 * distance.square()).softmax(-1)
        return -(wanted.nan_to_num(1 / len(self.bins)) * F.log_softmax(logits, -1)).sum(-1).mean(-1)

    def penalty(self, distance: torch.Tensor) -> torch.Tensor:
        """Robust loss: quadratic near the label, because the true position inside a quantization
        cell is unknown; logarithmic for large distances."""
        return 0.5 * torch.log1p((distance / self.loss_width).square())

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Targets (n, points, 2), confidence (n, points), None for the visibility, and spreads
        (n, points, 2), the standard deviations of the distributions in units of targets."""
        mean, variance = self.moments(self.distributions(self.features(images)))
        return mean, self.confidence(variance), None, variance.sqrt()

    def confidence(self, variance: torch.Tensor) -> torch.Tensor:
        """Variances (n, points, 2) -> the estimated probability (n, points) that the error of a
        point is below 10 % of the inter-ocular distance.

        It decreases as the standard deviation grows. benchmarks/confidence.py fits the curve and
        measures its calibration.
        """
        excess = (variance.sum(-1).sqrt() - LEAST).clamp_min(0)
        return 1 / (1 + (excess / self.even_odds) ** self.steepness)
