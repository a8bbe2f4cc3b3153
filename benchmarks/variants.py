"""Variants of models5 for the ablation: losses, label widths and output heads from the
literature."""

from models import models5
from research.training.losses import wing_penalty

# after research, which sets how PyTorch's threads wait
import torch
import torch.nn.functional as F
from torch import nn


class Base(models5.Net):
    """models5 without loss weights: a distance has the same weight for a confident and for an
    uncertain point."""

    def scale(self, variance):
        """Weight of each distance in the loss."""
        return 1


class Star(models5.Net):
    """Distances divided by the standard deviation, as in STAR (Zhou et al., CVPR 2023), but along x
    and y."""

    def scale(self, variance):
        """Weight of each distance in the loss."""
        return super().scale(variance) ** 2


class Logarithm(Base):
    """A logarithmic loss, from an early version of models5: steepest at the label."""

    def penalty(self, distance):
        """Loss of distances in targets."""
        return torch.log1p(distance / 0.02)


class Flat(Base):
    """Loss 0 up to a distance of 0.02 in targets, which is about 3/8 of a cell of the quantization
    grid, and logarithmic above."""

    def penalty(self, distance):
        """Loss of distances in targets."""
        return torch.log1p((distance - 0.02).clamp_min(0) / 0.02)


class Wing(Base):
    """Wing loss: logarithmic up to a tenth of the crop, then linear. Feng et al., CVPR 2018,
    equation 5, divided by its width."""

    def penalty(self, distance):
        """Loss of distances in targets."""
        return wing_penalty(distance) / 0.2


class SoftWing(Base):
    """Soft Wing loss: linear up to 2 pixels in a crop of 256 pixels, then logarithmic. Lin et al.,
    TIP 2021, divided by the larger of its two widths."""

    def penalty(self, distance):
        """Loss of distances in targets."""
        near, width, curvature = (pixels / 128 for pixels in (2, 20, 0.5))
        jump = near / width - torch.log1p(torch.tensor(near / curvature))
        return torch.where(
            distance < near, distance / width, torch.log1p(distance / curvature) + jump
        )


class FacesAlone(Base):
    """Trained without crops that show no face."""

    empty = 0.0


class Sharper(Base):
    """Label distributions half as wide: about a quarter of a cell of the quantization grid."""

    label_width = 0.015


class Blunter(Base):
    """Label distributions twice as wide: about one cell of the quantization grid."""

    label_width = 0.06


class HeatMaps(Base):
    """A heat map of 32×32 cells for each point, with sub-cell label positions (DARK, Zhang et al.,
    CVPR 2020).

    The prediction is the mean of the map (Sun et al., ECCV 2018). The map is summed over rows and
    over columns, so everything else is the same as in models5.
    """

    label_width = 2 / 32

    def __init__(self):
        super().__init__()
        del self.maps, self.mix, self.points, self.axes
        self.heat = nn.Sequential(
            # 8 -> 16
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 96, 3, padding=1),
            nn.ReLU(inplace=True),
            # 16 -> 32
            nn.Upsample(scale_factor=2),
            nn.Conv2d(96, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 68, 1),
        )
        self.bins = torch.linspace(-1, 1, 65)[1::2]

    def features(self, images):
        """The heat maps (n, 68, 32, 32)."""
        return self.heat(self.encode(images)).float()

    def distributions(self, maps):
        """Logits (n, 68, 2, 32) of the sums over rows and over columns."""
        return torch.stack([maps.logsumexp(2), maps.logsumexp(3)], 2)


class Cells(Base):
    """PIPNet without its neighbors (Jin, Liao, Shao, IJCV 2021): classify in which cell of an 8×8
    grid each point is, and regress its offset in the cell.
    """

    def __init__(self):
        super().__init__()
        del self.mix, self.points, self.axes
        self.maps = nn.Conv2d(128, 3 * 68, 1)
        grid = torch.linspace(-1, 1, 17)[1::2]
        self.register_buffer(
            "centers", torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).reshape(64, 2)
        )

    def cells(self, images):
        """Scores (n, 68, 64) of the cells, and for each cell the position of the point if it is in
        that cell (n, 68, 64, 2), in targets."""
        scores, x, y = (
            self.maps(self.stages(self.stem(images))).float().reshape(-1, 3, 68, 64).unbind(1)
        )
        return scores, self.centers + torch.stack([x, y], -1) / 8  # offsets in units of half a cell

    def loss(self, images, targets):
        """Cross-entropy of the cells, plus the loss of the position that the true cell predicts.
        Negative crops are ignored."""
        face = ~targets.isnan().flatten(1).any(1)
        scores, places = self.cells(images)
        scores, places, targets = scores[face], places[face], targets[face]
        column, row = ((targets + 1) * 4).long().clamp(0, 7).unbind(-1)
        true = row * 8 + column
        cross_entropy = F.cross_entropy(scores.transpose(1, 2), true)
        return 0.1 * cross_entropy + self.penalty((self.at(places, true) - targets).abs()).mean()

    @staticmethod
    def at(places, cell):
        """Positions (n, 68, 2) at one cell (n, 68) per point, from positions (n, 68, 64, 2)."""
        return places.gather(2, cell[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)

    def predict(self, images):
        """Targets (n, 68, 2) and the probability (n, 68) of the most probable cell."""
        scores, places = self.cells(images)
        return self.at(places, scores.argmax(-1)), scores.softmax(-1).amax(-1)

    def forward(self, images):
        return self.predict(images)[0].flatten(1)
