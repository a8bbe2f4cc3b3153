"""A compact residual network that regresses the keypoints directly."""

import torch
from torch import nn


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
    """Gray (n, 1, 112, 112) in [0, 1] -> targets (n, 2 * points)."""

    input_size = 112

    def __init__(self, points: int = 68):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList(
            [  # 56 -> 28 -> 14 -> 7 pixels a side
                nn.Sequential(Block(16, 32, 2), Block(32, 32, 1)),
                nn.Sequential(Block(32, 64, 2), Block(64, 64, 1)),
                nn.Sequential(Block(64, 128, 2), Block(128, 128, 1)),
            ]
        )
        self.squeeze = nn.Sequential(
            nn.Conv2d(128, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(inplace=True)
        )
        # no pooling, because it would discard positions
        self.head = nn.Linear(48 * 7 * 7, 2 * points)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(torch.flatten(self.squeeze(x), 1))
