"""What a network is: the class Net of a file in models/. What it may leave out is read here."""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from facial_keypoints.errors import UsageError
from facial_keypoints.files import short_message
from facial_keypoints.layouts import Layout, load_layout

INPUT_SIZE = 224  # side of a network's input when its file does not say


class Network(Protocol):
    """A torch.nn.Module with this forward. It may also have:

    - `__init__(self, points=68)`, to be used with other layouts
    - `input_size`: side of its crops; INPUT_SIZE if absent
    - `loss(images, targets[, visible])` -> the loss of a batch; targets (n, k, 2), nan where there
      is no face or no label; visible (n, k) as in `models7.Net.loss`. It replaces --loss
    - `predict(images)` -> targets (n, k, 2), confidence (n, k), and optionally visibility (n, k) or
      None, and spreads (n, k, 2), standard deviations in units of targets; without it, the
      confidence follows from the difference between a crop and its mirror image
    - `empty`: share of training crops that show no face
    - `even_odds`, `steepness`: of its confidence (`benchmarks/confidence.py`)
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Gray crops (n, 1, side, side) in [0, 1] -> targets (n, 2 k), -1…1 from edge to edge."""
        ...


def input_size(net: torch.nn.Module) -> int:
    """Side of the square gray input of a network."""
    return getattr(net, "input_size", INPUT_SIZE)


def layout_of(net: torch.nn.Module) -> Layout:
    """The layout of the keypoints that a network predicts; ibug68 where nobody has set another."""
    return getattr(net, "layout", None) or load_layout()


def has_own_loss(net: torch.nn.Module | type) -> bool:
    """True if a network brings a loss of its own."""
    return callable(getattr(net, "loss", None))


def own_predict(net: torch.nn.Module) -> Callable[[torch.Tensor], tuple[Any, ...]] | None:
    """The `predict` of a network, or None."""
    return getattr(net, "predict", None)


def empty_share(net: torch.nn.Module) -> float:
    """Share of the training crops of a network that show no face."""
    return getattr(net, "empty", 0.0)


def calibration_of(net: torch.nn.Module) -> dict[str, float]:
    """The values of a network that its confidence is computed with; {} if it has none."""
    return {name: getattr(net, name) for name in ("even_odds", "steepness") if hasattr(net, name)}


def checked_net(
    net: torch.nn.Module, name: str, layout: str | Layout = "ibug68"
) -> torch.nn.Module:
    """A network for a layout, after a forward pass on two black crops. Raises UsageError that says
    how it breaks the contract."""
    if not isinstance(net, torch.nn.Module):
        raise UsageError(f"models/{name}.py: class Net must inherit from torch.nn.Module")
    net.layout = load_layout(layout)  # type: ignore[assignment]
    side, was = input_size(net), net.training
    try:
        with torch.inference_mode():
            output = net.eval()(torch.zeros(2, 1, side, side))
    except Exception as error:  # whatever a layer raises for input it cannot take
        raise UsageError(
            f"models/{name}.py: forward fails for images (2, 1, {side}, {side}), the "
            "size that "
            f"Net.input_size sets ({INPUT_SIZE} if absent): {short_message(error)}"
        ) from None
    finally:
        net.train(was)
    as_points(output, net)
    return net


def as_points(output: Any, net: torch.nn.Module) -> torch.Tensor:
    """The output of a network's forward, (n, 2 k) -> targets (n, k, 2). Raises UsageError for
    another shape."""
    points = len(layout_of(net))
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or output[0].numel() != 2 * points:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UsageError(
            f"{type(net).__module__.replace('.', '/')}.py: forward returns {found} "
            "for "
            f"images (n, 1, side, side); (n, {2 * points}) is needed, x and y of "
            f"{points} points"
        )
    return output.reshape(-1, points, 2)
