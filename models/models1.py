"""The original network: four convolutions, three linear layers, no dropout; 54 M parameters."""

import torch
from torch import nn


class Net(nn.Module):
    """Gray (n, 1, 224, 224) in [0, 1] -> targets (n, 2 * points)."""

    input_size = 224

    def __init__(self, points: int = 68):
        super().__init__()
        layers, channels = [], 1
        for width in (32, 64, 128, 256):  # 224 -> 110 -> 53 -> 24 -> 10
            layers += [
                nn.Conv2d(channels, width, 5),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(width),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(256 * 10 * 10, 2000),
            nn.ReLU(),
            nn.Linear(2000, 1000),
            nn.ReLU(),
            nn.Linear(1000, 2 * points),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.features(images), 1))
