"""The fast default network: residual blocks, then one distribution per point and axis (SimCC)."""

import torch
import torch.nn.functional as F
from torch import nn

# number of bins per axis; they cover -REACH to REACH in units of targets, the crop -1 to 1
BINS, REACH = 144, 1.3
BELOW_NOSE, EYES = 33, 36  # keypoints of ibug68; from EYES on they are those of eyes and mouth
LEAST = 0.042  # sqrt(variance in x + variance in y), in targets, below which the confidence is 1


class Block(nn.Module):
    """Two 3×3 convolutions next to a shortcut (He, Zhang, Ren, Sun, CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Visibility(nn.Sequential):
    """Feature maps (n, channels, grid, grid) -> logits (n, points): the log odds that a point can
    be seen."""

    def __init__(self, points: int, channels: int, grid: int, kept: int = 12):
        super().__init__(nn.Conv2d(channels, kept, 1), nn.ReLU(inplace=True), nn.Flatten(),
                         nn.Linear(kept * grid * grid, points))


class Details(nn.Module):
    """Corrects the points of eyes and mouth by what patches of the crop around them show: the
    height of each point, and the horizontal position of each eye.

    A cell of the last feature maps is 16 pixels wide; an eye is open by 4. The patch of the left
    eye is mirrored, so that one layer fits both eyes. Lengths are in units of the axes (`place`). A
    height is measured down the second axis, from the mean of the predicted points of its part.

    Means and differences are products with small constant matrices: one fast operation each.
    """

    parts = (6, 6, 20)  # points of the right eye, the left eye and the mouth, from EYES on
    mirrored = (3, 2, 1, 0, 5, 4)  # points of an eye in the order of the other eye
    # upper and lower points whose distance says how far eyes, lips and mouth are open
    openings = ((37, 41), (38, 40), (43, 47), (44, 46), (51, 62), (66, 57), (62, 66))
    lip = ((50, 61), (51, 62), (52, 63))  # upper and lower edge of the upper lip
    # half the width and height of the patch of each part, in units of `axes`
    reach = ((0.42, 0.28), (-0.42, 0.28), (0.72, 0.48))
    # share of the difference between patch and prediction by which points move: heights of each
    # part, thickness of the upper lip, horizontal position of the eyes. Larger shares make the NME
    # on the labels worse (docs/ablation.md)
    shares, lip_share, side_share = (0.5, 0.5, 0.3), 0.6, 0.3
    height, width = 32, 48  # of a patch, in samples

    def __init__(self):
        super().__init__()
        channels = 15  # with 16, models5.onnx is larger than 1.7 MB
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True),
            nn.Conv2d(24, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True),
            nn.Conv2d(24, channels, 1), nn.ReLU(inplace=True), nn.Flatten())
        kept = channels * (self.height // 8) * (self.width // 8)
        self.eye = nn.Linear(kept, self.parts[0] + 1)  # heights, and the horizontal position
        self.mouth = nn.Linear(kept, self.parts[2])
        members = torch.block_diag(*(torch.ones(1, count) for count in self.parts))  # (3, 32)
        means = members / members.sum(1, keepdim=True)
        points = torch.eye(EYES + sum(self.parts))[:, BELOW_NOSE:]
        centers = means @ points[EYES:]
        # the nose, from between the eyes, in units of their distance seen from the front
        nose = 1.25 * (points[BELOW_NOSE] - centers[:2].mean(0))
        opened, lip = (points[torch.tensor(pairs), EYES - BELOW_NOSE:].diff(dim=1).squeeze(1)
                       for pairs in (self.openings, self.lip))
        share = torch.tensor(self.shares) @ members
        placing = torch.zeros(len(self.parts), 4, 5)
        for part, (wide, high) in enumerate(self.reach):
            for row, (column, value) in enumerate(((part, 1), (3, wide), (4, high))):
                placing[part, row, column] = value
        for name, value in (
                # points from BELOW_NOSE on -> means of the parts, between the eyes, along the nose
                ("summary", torch.stack([*centers, centers[1] - centers[0], nose])),  # (5, 35)
                ("opened", opened), ("means", means),  # (7, 32), (3, 32)
                ("members", members.T),  # (32, 3)
                # of d, the heights of the patches minus those of the points, points move down by
                # share * d - d @ deviations @ corrections: `deviations` gives the mean of each
                # eye, and the thickness of the upper lip at three places; `corrections` keep the
                # mean, and give the thickness its own share: (32,), (32, 5), (5, 32)
                ("share", share), ("deviations", torch.cat([means[:2], lip]).T),
                ("corrections", torch.cat([members[:2] * share,
                                           (self.shares[2] - self.lip_share) / 2 * lip])),
                ("sideways", self.side_share * members[:2]),  # (2, 32)
                # (x, y) -> itself, and turned by a quarter: (x, y, -y, x)
                ("quarter", torch.tensor([[1.0, 0, 0, 1], [0, 1, -1, 0]])),
                # centers and axes -> for each part a center, the steps right and down, and zeros
                ("placing", placing.flatten(0, 1)),  # (12, 5)
                ("columns", self.steps(self.width)), ("rows", self.steps(self.height))):
            self.register_buffer(name, value, persistent=False)

    def steps(self, size: int) -> torch.Tensor:
        """For each of `size` equal cells between -1 and 1: 1 and its center, (size, 2)."""
        centers = (torch.arange(size) + 0.5) / size * 2 - 1
        return torch.stack([torch.ones(size), centers], 1)

    def place(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets (n, 68, 2) -> the means of the parts (n, 3, 2), and the axes of the face (n, 2,
        2), the first from the right to the left eye, the second down. Both are as long as the
        distance between the eyes seen from the front: in turned heads, 1.25 times the nose."""
        summary = self.summary @ points[:, BELOW_NOSE:]
        centers, across, nose = summary[:, :3], summary[:, 3], summary[:, 4]
        length = across.norm(dim=-1, keepdim=True)
        seen = torch.maximum(length, nose.norm(dim=-1, keepdim=True))
        across = across / length.clamp_min(1e-6) * seen
        return centers, (across @ self.quarter).unflatten(-1, (2, 2))

    def coordinates(self, points: torch.Tensor, centers: torch.Tensor,
                    axes: torch.Tensor) -> torch.Tensor:
        """How far along both axes the points of the parts are from the centers: (n, 32, 2), in
        units of `axes`. The points are (n, 68, 2)."""
        return self.along(points[:, EYES:] - self.members @ centers, axes)

    def along(self, away: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
        """Vectors (n, k, 2) -> their coordinates along both axes, in units of these."""
        return away @ axes.mT / axes[:, :1].square().sum(-1, keepdim=True).clamp_min(1e-12)

    def sample(self, images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Crops (n, 1, side, side) -> patches (n * patches, 1, height, width) of mean 0 and
        variance 1 with the values at places (n, patches * height, width, 2)."""
        patches = F.grid_sample(images.float(), places, padding_mode="border",
                                align_corners=False).view(-1, 1, self.height, self.width)
        return F.instance_norm(patches, eps=1e-3)

    def look(self, images: torch.Tensor, centers: torch.Tensor,
             axes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops (n, 1, side, side), centers and axes (`place`) -> heights (n, 32) of the points,
        and how far each eye is from its center along the first axis (n, 2), as patches show them.
        """
        lines = (self.placing @ torch.cat([centers, axes], 1)).unflatten(1, (-1, 2, 2))
        lines = (self.columns @ lines).flatten(3)  # (n, 3, 2, 2 * width)
        places = (self.rows @ lines).view(-1, len(self.parts) * self.height, self.width, 2)
        kept = self.trunk(self.sample(images, places)).unflatten(0, (-1, len(self.parts)))
        right, left = (0.3 * self.eye(kept[:, :2])).unbind(1)
        mouth = 0.3 * self.mouth(kept[:, 2])
        return (torch.cat([right[:, :-1], left[:, self.mirrored], mouth], 1),
                torch.cat([right[:, -1:], -left[:, -1:]], 1))

    def forward(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Crops and predicted points (n, 68, 2) -> corrected points (n, 68, 2)."""
        centers, axes = self.place(points)
        heights, sides = self.look(images, centers, axes)
        away = heights - self.coordinates(points, centers, axes)[..., 1]
        away = self.share * away - away @ self.deviations @ self.corrections
        moves = torch.stack([sides @ self.sideways, away], -1) @ axes
        return torch.cat([points[:, :EYES], points[:, EYES:] + moves], 1)

    def loss(self, images: torch.Tensor, targets: torch.Tensor,
             points: torch.Tensor) -> torch.Tensor:
        """The loss of what the patches show, against targets (n, 68, 2). The patches are placed by
        the predictions `points` (n, 68, 2), as in `forward`. Faces with missing points (NaN) are
        left out.

        The first term is the mean absolute error of 37 values of each face, in units of 5 % of the
        axes: 32 heights, each minus the mean height of its part; these 3 means (`forward` does not
        use those of the eyes); the horizontal positions of the 2 eyes. The second term is 0.15
        times the mean of (1 - slope)²; `slope` is that of the predicted `openings` on the true ones
        in this batch. Without it, uncertain openings are predicted too close to their mean.
        """
        known = ~targets.isnan().any(2).any(1)
        images, targets, points = images[known], targets[known], points[known]
        centers, axes = self.place(points)
        heights, sides = self.look(images, centers, axes)
        horizontal, wanted = self.coordinates(targets, centers, axes).unbind(-1)
        away = heights - wanted
        middle = away @ self.means.T
        errors = torch.cat([away - middle @ self.members.T, middle,
                            sides - horizontal @ self.means[:2].T], 1)
        error = 20 * errors.abs().sum() / max(errors.numel(), 1)
        if len(targets) < 2:
            return error
        return error + self.slope_loss(heights @ self.opened.T, wanted @ self.opened.T)

    def slope_loss(self, opened: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The second term of `loss`, of the predicted and the true `openings` (n, 7)."""
        truth = truth - truth.mean(0)
        slope = (opened * truth).sum(0) / truth.square().sum(0).clamp_min(1e-8)
        return 0.15 * (1 - slope).square().mean()


class Net(nn.Module):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions."""

    # share of negative crops (without a face) in training; their label: all bins equally likely
    empty = 0.06
    # standard deviation of the label distributions, in units of targets: about half a step of the
    # coarse grid on which the official labels lie
    label_width = 0.03
    # sqrt(variance in x + variance in y) minus LEAST at which the confidence is 0.5, and the
    # steepness of the curve; fitted by benchmarks/confidence.py
    even_odds, steepness = 0.118, 1.63
    # parts that a checkpoint may lack; without `seen`, the network predicts no visibility. A new
    # network has no `details`: `add` makes them, for `train.py --only details`
    optional = ("seen", "details")

    def __init__(self, points: int = 68, side: int = 128, widths: tuple[int, ...] = (64, 128),
                 depth: int = 2, features: int = 128):
        super().__init__()
        self.count = points
        self.input_size, grid, stride = side, side // 16, 16 // 2 ** len(widths)
        # a large stride in the first layer, because feature maps of high resolution cost much time
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0] // 2, 2 * stride, stride, stride // 2, bias=False),
            nn.BatchNorm2d(widths[0] // 2),
            nn.ReLU(inplace=True),
        )
        stages, inputs = [], widths[0] // 2
        for outputs in widths:  # 32 -> 16 -> 8 pixels a side
            stages += [Block(inputs, outputs, 2)] + [Block(outputs, outputs, 1)
                                                     for _ in range(depth - 1)]
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.maps = nn.Conv2d(inputs, 4 * points, 1)  # four maps for each point
        self.mix = nn.Sequential(nn.Linear(4 * grid * grid, features), nn.ReLU(inplace=True))
        # combines the features of all points: the others help to locate an occluded one
        self.points = nn.Linear(points, points)
        self.axes = nn.Linear(features, 2 * BINS)
        self.seen: Visibility | None = Visibility(points, inputs, grid)
        self.details: Details | None = None
        self.register_buffer("bins", torch.linspace(-REACH, REACH, BINS), persistent=False)

    def add(self, part: str) -> None:
        """Make an optional part that this network does not have yet."""
        if part == "details" and self.count == 68:
            self.details = Details()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The feature maps of the last stage: (n, channels, grid, grid)."""
        return self.stages(self.stem(images))

    def features(self, encoded: torch.Tensor) -> torch.Tensor:
        """Features of each point: (n, points, features)."""
        x = self.maps(encoded)
        # (n, 4 × points, 8, 8) -> (n, points, features)
        x = self.mix(x.reshape(-1, self.count, self.mix[0].in_features))
        return x + self.points(x.transpose(1, 2)).transpose(1, 2)

    def distributions(self, features: torch.Tensor) -> torch.Tensor:
        """Features -> logits (n, points, 2, BINS): for each point one distribution over x and one
        over y (Li et al., ECCV 2022)."""
        return self.axes(features).view(-1, self.count, 2, BINS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, _ = self.moments(self.distributions(self.features(self.encode(images))))
        return self.detailed(images, mean).flatten(1)

    def detailed(self, images: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Targets (n, points, 2), with eyes and mouth looked at again where `details` are there."""
        return mean if self.details is None else self.details(images, mean)

    def loss(self, images: torch.Tensor, targets: torch.Tensor,
             visible: torch.Tensor | None = None) -> torch.Tensor:
        """Images (n, 1, side, side) and targets (n, points, 2) -> the loss of the batch:
        cross-entropy with Gaussian label distributions, plus a robust loss on the means.

        Points with a large standard deviation get a smaller weight in the second term, as in STAR
        (Zhou et al., CVPR 2023). Crops without a face have NaN targets only: their distributions
        are trained to be uniform, and the second term ignores them. Single missing points of a
        face, NaN as well, are ignored by both.

        With `details`, their loss is added. Its gradient stops at the predictions, so it trains
        the details alone.

        visible (n, points): 1 for points that can be seen, 0 for hidden ones, NaN where unknown;
        adds the cross-entropy of the visibility. Its gradient stops before the feature maps.
        """
        encoded = self.encode(images)
        logits = self.distributions(self.features(encoded)).float()
        missing = targets.isnan().any(-1)
        labeled, empty = ~missing, missing.all(1, keepdim=True).expand_as(missing)
        used = labeled | empty
        mean, variance = self.moments(logits)
        distance = (mean - targets)[labeled].abs() * self.scale(variance[labeled].detach())
        loss = 0.1 * self.cross_entropy(logits[used], targets[used]) + self.penalty(
            distance).sum() / max(distance.numel(), 1)
        if self.details is not None:
            # in float32: bfloat16 rounds coordinates to 0.4 %
            with torch.autocast(images.device.type, enabled=False):
                loss = loss + self.details.loss(images, targets, mean.detach())
        if visible is None or self.seen is None:
            return loss
        odds, known = self.seen(encoded.detach()).float(), ~visible.isnan()
        return loss + F.binary_cross_entropy_with_logits(
            odds[known], visible[known], reduction="sum") / max(int(known.sum()), 1)

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
        """Cross-entropy of the distributions with labels of `label_width`."""
        wanted = (-0.5 * ((targets[...,
                                   None] - self.bins) / self.label_width).square()).softmax(-1)
        return -(wanted.nan_to_num(1 / len(self.bins)) * F.log_softmax(logits, -1)).sum(-1).mean()

    def penalty(self, distance: torch.Tensor) -> torch.Tensor:
        """Robust loss: quadratic near the label, because the true position inside a quantization
        cell is unknown; logarithmic for large distances."""
        return 0.5 * torch.log1p((distance / 0.03).square())

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Targets (n, points, 2), confidence (n, points), and visibility (n, points) where the
        network was trained for it.

        Confidence is the estimated probability that the error of a point is below 10 % of the
        inter-ocular distance. It decreases as the standard deviation of the distributions grows.
        benchmarks/confidence.py measures its calibration. Visibility is the estimated probability
        that a point can be seen: that nothing covers it, and that it is not on the far side of the
        head.
        """
        encoded = self.encode(images)
        mean, variance = self.moments(self.distributions(self.features(encoded)))
        mean, deviation = self.detailed(images, mean), variance.sum(-1).sqrt()
        sure = 1 / (1 + ((deviation - LEAST).clamp_min(0) / self.even_odds) ** self.steepness)
        if self.seen is None:
            return mean, sure
        return mean, sure, self.seen(encoded).float().sigmoid()
