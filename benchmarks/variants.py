"""What the ablation puts in the place of parts of models5: losses, labels and heads of the
literature."""

import research.passive_threads  # noqa: F401 - before PyTorch
import torch
import torch.nn.functional as F
from torch import nn

from models import models5
from train import wing_penalty


class Base(models5.Net):
    """models5 before its last step: a distance counts the same for a sure point and for a doubtful
    one."""

    def scale(self, variance):
        """What distances count for."""
        return 1


class Star(models5.Net):
    """Distances in units of the spread, as STAR has them (Zhou et al., CVPR 2023), here along x and
    y."""

    def scale(self, variance):
        """What distances count for."""
        return super().scale(variance) ** 2


class Logarithm(Base):
    """The logarithmic distance, as first tries had it: steepest where the label is."""

    def penalty(self, distance):
        """Cost of distances in targets."""
        return torch.log1p(distance / 0.02)


class Flat(Base):
    """Nothing to pay within 0.02 in targets, three quarters of half a cell of the grid,
    logarithmic from there on."""

    def penalty(self, distance):
        """Cost of distances in targets."""
        return torch.log1p((distance - 0.02).clamp_min(0) / 0.02)


class Wing(Base):
    """Logarithmic up to a tenth of the crop, then linear: Feng et al., CVPR 2018, equation 5, over
    its width."""

    def penalty(self, distance):
        """Cost of distances in targets."""
        return wing_penalty(distance) / 0.2


class SoftWing(Base):
    """Linear within two pixels of 256, then logarithmic: Lin et al., TIP 2021, over the second of
    its widths."""

    def penalty(self, distance):
        """Cost of distances in targets."""
        near, width, curvature = (pixels / 128 for pixels in (2, 20, 0.5))
        jump = near / width - torch.log1p(torch.tensor(near / curvature))
        return torch.where(distance < near, distance / width,
                           torch.log1p(distance / curvature) + jump)


class FacesAlone(Base):
    """Trained without crops that show no face."""

    empty = 0.0


class Sharper(Base):
    """Labels half as wide: a quarter of a cell."""

    label_width = 0.015


class Blunter(Base):
    """Labels twice as wide: a whole cell."""

    label_width = 0.06


class HeatMaps(Base):
    """A map of 32×32 places for each point, with labels that know parts of places (DARK, Zhang et
    al., CVPR 2020).

    The mean is the prediction (Sun et al., ECCV 2018). Rows and columns of a map are summed, so
    that all else is as in models5.
    """

    label_width = 2 / 32

    def __init__(self):
        super().__init__()
        del self.maps, self.mix, self.points, self.axes
        self.heat = nn.Sequential(
            # 8 -> 16
            nn.Upsample(scale_factor=2), nn.Conv2d(128, 96, 3, padding=1), nn.ReLU(inplace=True),
            # 16 -> 32
            nn.Upsample(scale_factor=2), nn.Conv2d(96, 64, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(64, 68, 1))
        self.bins = torch.linspace(-1, 1, 65)[1::2]

    def distributions(self, images):
        """Logits (n, 68, 2, 32) of the sums over rows and over columns."""
        maps = self.heat(self.stages(self.stem(images))).float()
        return torch.stack([maps.logsumexp(2), maps.logsumexp(3)], 2)


class Cells(Base):
    """For each point the cell of 8×8 that it lies in, and where in that cell: PIPNet without its
    neighbours (Jin, Liao, Shao, IJCV 2021).
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
        """Scores (n, 68, 64) of the cells, and for each cell where its point would lie (n, 68, 64,
        2)."""
        scores, x, y = (
            self.maps(self.stages(self.stem(images))).float().reshape(-1, 3, 68, 64).unbind(1)
        )
        return scores, self.centers + torch.stack([x, y], -1) / 8  # in halves of cells

    def loss(self, images, targets):
        """Cross-entropy of the cells, and the distance of what the true cell says. Crops without a
        face teach nothing."""
        face = ~targets.isnan().flatten(1).any(1)
        scores, places = self.cells(images)
        scores, places, targets = scores[face], places[face], targets[face]
        column, row = ((targets + 1) * 4).long().clamp(0, 7).unbind(-1)
        true = row * 8 + column
        cross_entropy = F.cross_entropy(scores.transpose(1, 2), true)
        return 0.1 * cross_entropy + self.penalty((self.at(places, true) - targets).abs()).mean()

    @staticmethod
    def at(places, cell):
        """The places (n, 68, 64, 2) of one cell (n, 68) for each point."""
        return places.gather(2, cell[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)

    def predict(self, images):
        """Targets (n, 68, 2) and the chance (n, 68) of the likeliest cell."""
        scores, places = self.cells(images)
        return self.at(places, scores.argmax(-1)), scores.softmax(-1).amax(-1)

    def forward(self, images):
        return self.predict(images)[0].flatten(1)
