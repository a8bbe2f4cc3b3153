"""A compact residual network that answers with distributions over places (SimCC): quick, and it knows how sure it is."""

import torch
import torch.nn.functional as F
from torch import nn

BINS, REACH = 144, 1.3  # places on each axis, and how far they reach: beyond the crop's edges at -1 and 1
WIDTH = 0.03  # standard deviation of a label in targets: about half a cell of the lattice that the labels lie on


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He, Zhang, Ren, Sun, CVPR 2016)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Net(nn.Module):
    """Gray (n, 1, 112, 112) in [0, 1] -> targets (n, 136): the means of the distributions."""

    input_size = 112

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(  # 56 -> 28 -> 14 -> 7 pixels a side
            Block(16, 32, 2), Block(32, 32, 1),
            Block(32, 64, 2), Block(64, 64, 1),
            Block(64, 128, 2), Block(128, 128, 1),
        )
        self.maps = nn.Conv2d(128, 4 * 68, 1)  # four 7×7 maps a point
        self.mix = nn.Sequential(nn.Linear(4 * 49, 128), nn.ReLU(inplace=True))
        self.points = nn.Linear(68, 68)  # each point hears the others: a hidden one is told by the rest
        self.axes = nn.Linear(128, 2 * BINS)
        self.register_buffer("places", torch.linspace(-REACH, REACH, BINS), persistent=False)

    def distributions(self, images):
        """Logits (n, 68, 2, BINS): for each point one distribution over x and one over y (Li et al., ECCV 2022)."""
        x = self.maps(self.stages(self.stem(images)))
        x = self.mix(x.flatten(1).view(len(x), 68, -1))
        x = x + self.points(x.transpose(1, 2)).transpose(1, 2)
        return self.axes(x).view(len(x), 68, 2, BINS)

    def forward(self, images):
        return (self.distributions(images).float().softmax(-1) @ self.places).flatten(1)

    def loss(self, images, targets):
        """Cross-entropy with labels as wide as what is known of them, and the logarithmic distance of the means."""
        logits = self.distributions(images).float()
        wanted = (-0.5 * ((targets[..., None] - self.places) / WIDTH).square()).softmax(-1)
        surprise = -(wanted * F.log_softmax(logits, -1)).sum(-1).mean()
        distance = (logits.softmax(-1) @ self.places - targets).abs()
        return 0.1 * surprise + torch.log1p(distance / 0.02).mean()

    def predict(self, images):
        """Targets (n, 68, 2) and confidence (n, 68): 1 for a needle, falling with the spread of the distributions."""
        chance = self.distributions(images).float().softmax(-1)
        mean = chance @ self.places
        spread = (chance @ self.places.square() - mean.square()).clamp_min(0).sum(-1).sqrt()
        return mean, torch.exp(-spread / 0.2)
