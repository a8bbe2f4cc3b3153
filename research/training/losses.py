"""Losses by name, and the loss of a batch."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from facial_keypoints.errors import UsageError
from research.networks.contract import as_points, has_own_loss
from research.networks.registry import net_class, net_names


def wing_penalty(
    distance: torch.Tensor, width: float = 0.2, curvature: float = 0.04
) -> torch.Tensor:
    """The wing loss (Feng et al., CVPR 2018, equation 5) of distances in units of targets:
    logarithmic up to `width`, linear above."""
    offset = width - width * math.log1p(width / curvature)
    return torch.where(
        distance < width, width * torch.log1p(distance / curvature), distance - offset
    )


def wing(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean wing loss of predictions, of the same shape as the targets."""
    return wing_penalty((predictions - targets).abs()).mean()


LOSSES: dict[str, Callable] = {
    "wing": wing,
    "smooth-l1": lambda predictions, targets: F.smooth_l1_loss(predictions, targets, beta=0.05),
    "l1": F.l1_loss,
    "mse": F.mse_loss,
}


def loss_of(
    net: torch.nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    loss: str,
    visible: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of a batch: the network's own for 'own', else `loss` on its predictions. visible (n,
    k): for networks whose own loss takes it."""
    if loss == "own":
        own: Any = net.loss
        if "visible" in inspect.signature(own).parameters:
            return own(images, targets, visible)
        return own(images, targets)
    predictions, labeled = as_points(net(images), net).float(), ~targets.isnan()
    if labeled.all():
        return LOSSES[loss](predictions, targets)
    return LOSSES[loss](predictions[labeled], targets[labeled])


def chosen_loss(net: torch.nn.Module, net_name: str, loss: str) -> str:
    """The loss that a network is trained with: 'auto' is the network's own, or wing for networks
    without one.

    Raises UsageError for another loss where the network has its own: it would have no effect.
    """
    own = has_own_loss(net)
    if loss == "auto":
        return "own" if own else "wing"
    if own:
        raise UsageError(
            f"{net_name} has a loss of its own (models/{net_name}.py), so loss "
            f"{loss!r} has no effect; give "
            "'auto', or a network without one: "
            + ", ".join(name for name in net_names() if not has_own_loss(net_class(name)))
        )
    return loss


def nonfinite_samples(
    net: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor, loss: str
) -> np.ndarray:
    """Rows of a batch whose loss, computed alone, is not finite. Empty if the batch has more than
    one row and all are such: then the weights are the cause, not a sample."""
    with torch.inference_mode():
        net.eval()
        values = [
            loss_of(net, images[i : i + 1], targets[i : i + 1], loss).item()
            for i in range(len(images))
        ]
    wrong = np.flatnonzero(~np.isfinite(values))
    return wrong if len(wrong) < len(values) or len(values) == 1 else wrong[:0]
