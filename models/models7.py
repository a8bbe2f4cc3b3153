"""The fast network for photographs: models5 with a second look at each point, and visibility."""

import torch
import torch.nn.functional as F
from torch import nn

from . import models5

REACH = 2  # the second look sees (2 * REACH + 1)² cells of 4×4 pixels around each point
STEP = 0.1  # scale of the corrections, in units of targets
BORDER = 0.2  # width, in cells, of the zone between two cells in which the window slides


class SecondLook(nn.Module):
    """Corrections of predicted points by the feature maps near them, which have four times the
    resolution of the last maps: an open eye is 4 pixels high, a cell of the last maps 16.

    Cascaded regression with shape-indexed features, as in Cao, Wei, Wen and Sun, CVPR 2012.
    """

    def __init__(self, points: int, grid: int, channels: int, features: int, hidden: int):
        super().__init__()
        self.grid, self.side, self.reach = grid, grid + 2 * REACH, 2 * REACH + 2
        self.near = nn.Linear(channels * (2 * REACH + 1) ** 2, hidden)
        self.context = nn.Linear(features + 2, hidden)
        self.identity = nn.Parameter(torch.zeros(points, hidden))
        self.move = nn.Linear(hidden, 2)
        nn.init.zeros_(self.move.weight)  # begin without corrections
        nn.init.zeros_(self.move.bias)
        steps = torch.arange(self.reach)
        self.register_buffer(
            "around", (steps[:, None] * self.side + steps).flatten(), persistent=False
        )

    def forward(
        self, maps: torch.Tensor, features: torch.Tensor, points: torch.Tensor
    ) -> torch.Tensor:
        """Maps (n, channels, grid, grid), features (n, k, features) and targets (n, k, 2) ->
        corrections of the targets (n, k, 2)."""
        middle = (self.grid - 1) / 2
        position = points * (self.grid / 2)  # in cells from the middle: precise in 16 bits, too
        low = (position + middle).floor().clamp(0, self.grid - 2)
        offset = position - (low - middle)
        # the nearest cell, but continuous: rounding errors of a runtime move no point far
        slide = ((offset - 0.5) / BORDER + 0.5).clamp(0, 1)
        column, row = low.long().unbind(-1)
        rows = (row * self.side + column)[..., None] + self.around
        # one row of values for each cell, with a border of zeros: an index instead of a slower
        # interpolation everywhere; the offset from the cell tells the rest
        values = F.pad(maps, (REACH,) * 4).permute(0, 2, 3, 1).flatten(0, 2)
        image = torch.arange(maps.shape[0], device=rows.device)[:, None, None]
        near = values[rows + image * self.side**2].unflatten(2, (self.reach, self.reach))
        x, y = slide.to(near.dtype)[..., None, None, None].unbind(2)
        near = near[:, :, :-1] + y * (near[:, :, 1:] - near[:, :, :-1])
        near = (near[:, :, :, :-1] + x * (near[:, :, :, 1:] - near[:, :, :, :-1])).flatten(2)
        context = torch.cat([features, (offset - slide).to(features.dtype)], -1)
        hidden = F.relu(self.near(near) + self.context(context) + self.identity)
        return STEP * self.move(hidden).float()


class Net(models5.Net):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions, corrected."""

    label_width, loss_width = 0.02, 0.015  # people label finer than the grid of the official labels
    # between the fits with and without crops that show no face (benchmarks/confidence.py)
    even_odds, steepness = 0.08, 1.3
    visibility_weight = 0.1  # of the visibility in the loss
    # of hidden points in the loss: people and the 3D head can only estimate their positions
    hidden_weight = 0.25

    def __init__(
        self,
        points: int = 68,
        side: int = 112,
        widths: tuple[int, int] = (64, 128),
        depth: int | tuple[int, ...] = 2,
        features: int = 128,
        first: int = 16,
        hidden: int = 96,
    ):
        super().__init__(points, side, widths, depth, features)
        early = widths[0] // 2
        # two layers with a step of 2 pixels: a single layer with a step of 4 loses the eyelids
        self.stem = nn.Sequential(
            nn.Conv2d(1, first, 5, 2, 2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, early, 3, 2, 1, bias=False),
            nn.BatchNorm2d(early),
            nn.ReLU(inplace=True),
        )
        self.look = SecondLook(points, side // 4, early, features, hidden)
        self.seen = nn.Linear(features, 1)

    def looked(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The early feature maps (n, channels, side / 4, side / 4), and the features of each point
        (n, points, features)."""
        early = self.stem(images)
        return early, self.point_features(self.stages(early))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.predict(images)[0].flatten(1)

    def loss(
        self, images: torch.Tensor, targets: torch.Tensor, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of the distributions, of the corrected points, and of the visibility.

        visible (n, points): 1 for visible points, 0 for occluded or self-occluded ones, NaN where
        unknown.
        """
        early, features = self.looked(images)
        logits = self.distributions(features)
        if visible is None:
            visible = torch.full_like(targets[..., 0], torch.nan)
        weights = torch.where(visible == 0, self.hidden_weight, 1.0)
        mean, variance = self.moments(logits)
        points = mean.detach() + self.look(early, features, mean.detach())
        odds, known = self.seen(features).squeeze(-1).float(), ~visible.isnan()
        visibility = F.binary_cross_entropy_with_logits(
            odds[known], visible[known], reduction="sum"
        ) / max(int(known.sum()), 1)
        return (
            self.position_loss(logits, targets, weights)
            + self.robust_loss(points, variance, targets, weights)
            + self.visibility_weight * visibility
        )

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Targets (n, points, 2), confidence (n, points), visibility (n, points) and spreads
        (n, points, 2), the standard deviations of the distributions in units of targets.

        Visibility is the estimated probability that a point can be seen: that nothing covers it,
        and that it is not on the far side of the head.
        """
        early, features = self.looked(images)
        mean, variance = self.moments(self.distributions(features))
        visibility = self.seen(features).squeeze(-1).float().sigmoid()
        points = mean + self.look(early, features, mean)
        return points, self.confidence(variance), visibility, variance.sqrt()
