"""What a network computes: its layers, feature maps, kernels, saliency."""

import torch

from research.networks.contract import input_size
from research.networks.registry import predict_targets


def describe(net: torch.nn.Module) -> list[tuple]:
    """Rows (layer, kind, output shape, parameters, multiply-adds) for one crop, by a pass with
    hooks."""
    rows, handles = [], []

    def note(name, layer):
        def hook(layer, inputs, output):
            weights = sum(p.numel() for p in layer.parameters())
            each = (
                layer.weight[0].numel()
                if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))
                else 0
            )
            rows.append(
                (
                    name,
                    type(layer).__name__,
                    tuple(output.shape[1:]),
                    weights,
                    each * output[0].numel(),
                )
            )

        return layer.register_forward_hook(hook)

    for name, layer in net.named_modules():
        if not list(layer.children()):
            handles.append(note(name, layer))
    was, side = net.training, input_size(net)
    try:
        with torch.inference_mode():
            net.eval()(torch.zeros(1, 1, side, side, device=next(net.parameters()).device))
    finally:
        net.train(was)
        for handle in handles:
            handle.remove()
    return rows


def feature_maps(net: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Feature maps of one crop (1, side, side): {layer: (c, h, w)}, from the last layer of each map
    size, of layers that see the crop as a whole: not of `details`, which see patches."""
    found, handles = {}, []

    def note(name):
        def hook(layer, inputs, output):
            if isinstance(output, torch.Tensor) and output.ndim == 4 and len(output) == 1:
                found[tuple(output.shape[2:])] = (name, output[0].float().cpu())

        return hook

    for name, layer in net.named_modules():
        if name:
            handles.append(layer.register_forward_hook(note(name)))
    try:
        predict_targets(net, torch.as_tensor(image)[None])
    finally:
        for handle in handles:
            handle.remove()
    return dict(found.values())


def first_kernels(net: torch.nn.Module) -> torch.Tensor:
    """Weights of a network's first convolution: (filters, height, width)."""
    layer = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    return layer.weight.detach().float().cpu()[:, 0]


def saliency(net: torch.nn.Module, image: torch.Tensor, point: int) -> torch.Tensor:
    """How much each pixel of a crop (1, side, side) moves one point: (side, side), the norm of the
    gradients of its x and y.

    Simonyan, Vedaldi, Zisserman, ICLR workshop 2014.
    """
    pixels = image[None].detach().clone().requires_grad_()
    with torch.enable_grad():
        position = net.eval()(pixels).view(-1, 2)[point]
        slopes = [
            torch.autograd.grad(value, pixels, retain_graph=True)[0][0, 0] for value in position
        ]
    return torch.stack(slopes).norm(dim=0)
