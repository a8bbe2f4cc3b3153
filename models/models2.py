"""NaimishNet: one small network for all keypoints (Agarwal et al., arXiv 1710.00977)."""

import torch
from torch import nn


class Net(nn.Module):
    """Gray (n, 1, 96, 96) in [0, 1] -> targets (n, 2 * points). Layers and dropout as in
    table I of the paper."""

    input_size = 96

    def __init__(self, points: int = 68):
        super().__init__()
        layers, channels = [], 1
        for width, kernel, dropout in ((32, 4, 0.1), (64, 3, 0.2), (128, 2, 0.3), (256, 1, 0.4)):
            layers += [
                nn.Conv2d(channels, width, kernel),
                nn.ELU(),
                nn.MaxPool2d(2),
                nn.Dropout(dropout),
            ]
            channels = width
        self.features = nn.Sequential(*layers)  # 96 -> 46 -> 22 -> 10 -> 5
        self.head = nn.Sequential(
            nn.Linear(256 * 5 * 5, 1000),
            nn.ELU(),
            nn.Dropout(0.5),
            nn.Linear(1000, 1000),
            nn.Dropout(0.6),
            nn.Linear(1000, 2 * points),
        )
        for layer in self.modules():  # the paper's initial weights
            if isinstance(layer, nn.Conv2d):
                nn.init.uniform_(layer.weight, -0.05, 0.05)
            elif isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.features(images), 1))
