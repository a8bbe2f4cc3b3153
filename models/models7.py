"""The fast network for photographs: models5 with finer feature maps, and the visibility of each
point."""

import torch
import torch.nn.functional as F
from torch import nn

from . import models5


class Net(models5.Net):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions."""

    label_width, loss_width = 0.02, 0.015  # people label finer than the grid of the official labels
    visibility_weight = 0.1  # of the visibility in the loss
    # of hidden points in the loss: people and the 3D head can only estimate their positions
    hidden_weight = 0.25

    def __init__(self, points: int = 68, side: int = 128, widths: tuple[int, int] = (64, 96),
                 depth: int = 2, features: int = 128, first: int = 16, fine: int = 2,
                 merge: bool = False):
        super().__init__(points, side, widths, depth, features)
        # two layers with a step of 2 pixels: a single layer with a step of 4 loses the eyelids
        self.stem = nn.Sequential(
            nn.Conv2d(1, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, widths[0] // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0] // 2),
            nn.ReLU(inplace=True),
        )
        self.depth, cells = depth, (side // 16) ** 2
        # more maps for each point, at twice the resolution
        self.fine = nn.Conv2d(widths[0], fine * points, 1) if fine else None
        self.merge = nn.Conv2d(widths[1], widths[0], 1) if merge else None
        self.mix = nn.Sequential(nn.Linear((4 + 4 * fine) * cells, features), nn.ReLU(inplace=True))
        self.seen = nn.Linear(features, 1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features of each point: (n, points, features)."""
        fine = self.stages[:self.depth](self.stem(images))
        coarse = self.stages[self.depth:](fine)
        maps = [self.maps(coarse).reshape(len(images), self.count, -1)]
        if self.merge is not None:
            # the coarse maps know which part of the face a fine cell belongs to (feature pyramid,
            # Lin et al., CVPR 2017)
            fine = F.relu(fine + F.interpolate(self.merge(coarse), scale_factor=2.0))
        if self.fine is not None:
            maps.append(self.fine(fine).reshape(len(images), self.count, -1))
        x = self.mix(torch.cat(maps, 2))
        return x + self.points(x.transpose(1, 2)).transpose(1, 2)

    def loss(self, images: torch.Tensor, targets: torch.Tensor,
             visible: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of the positions, and the cross-entropy of the visibility.

        visible (n, points): 1 for visible points, 0 for occluded or self-occluded ones, NaN where
        unknown.
        """
        features = self.features(images)
        logits = self.distributions(features)
        if visible is None:
            return self.position_loss(logits, targets)
        weights = torch.where(visible == 0, self.hidden_weight, 1.0)
        loss = self.position_loss(logits, targets, weights)
        odds, known = self.seen(features).squeeze(-1).float(), ~visible.isnan()
        return loss + self.visibility_weight * F.binary_cross_entropy_with_logits(
            odds[known], visible[known], reduction="sum") / max(int(known.sum()), 1)

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Targets (n, points, 2), confidence (n, points) and visibility (n, points).

        Visibility is the estimated probability that a point can be seen: that nothing covers it,
        and that it is not on the far side of the head.
        """
        features = self.features(images)
        mean, variance = self.moments(self.distributions(features))
        visibility = self.seen(features).squeeze(-1).float().sigmoid()
        return mean, self.confidence(variance), visibility
