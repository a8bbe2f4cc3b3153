"""Optimizers, the schedule of the learning rate, and the moving average of the weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

OPTIMIZERS: dict[str, Callable] = {
    "adamw": lambda parameters, lr: torch.optim.AdamW(
        parameters, lr, weight_decay=0.05, fused=True
    ),
    "adam": torch.optim.Adam,
    "sgd": lambda parameters, lr: torch.optim.SGD(
        parameters, lr, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
}


def one_cycle(optimizer: torch.optim.Optimizer, lr: float, steps: int) -> OneCycleLR:
    """The learning rate rises to `lr` in the first fifth of the steps, at least two steps, then
    falls to 0 (Smith and Topin, 2018)."""
    return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=max(0.2, min(2 / steps, 0.9)))


def ema_update(averaged: Any, current: Any, steps: int | torch.Tensor) -> None:
    """Exponential moving average of the weights. The decay is (1 + steps) / (10 + steps), at most
    0.998: with a constant decay, the random initial weights would still matter at the end of short
    runs."""
    keep = min(0.998, (1 + float(steps)) / (10 + float(steps)))
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(averaged, current, 1 - keep)
    else:  # counters of batch norms
        torch._foreach_copy_(averaged, current)
