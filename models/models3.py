"""The original network with dropout, which rises from 10 % to 60 % with depth."""

import torch
from torch import nn


class Net(nn.Module):
    """Gray (n, 1, 224, 224) in [0, 1] -> targets (n, 2 * points). models1 is the same
    without dropout."""

    input_size = 224

    def __init__(self, points: int = 68):
        super().__init__()
        layers, channels = [], 1
        # 224 -> 110 -> 53 -> 24 -> 10
        for width, dropout in ((32, 0.1), (64, 0.2), (128, 0.3), (256, 0.4)):
            layers += [
                nn.Conv2d(channels, width, 5),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(width),
                nn.Dropout(dropout),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(256 * 10 * 10, 2000),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(2000, 1000),
            nn.ReLU(),
            nn.Dropout(0.6),
            nn.Linear(1000, 2 * points),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.features(images), 1))
