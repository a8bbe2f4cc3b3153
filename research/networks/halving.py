"""Weights of exported networks stored as fp16."""

from typing import Any

import numpy as np


def rounded_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values, finite, rounded to the nearest that bfloat16 holds: 8 significant bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def halve(model: Any, smallest: int = 64, rounded_from: int = 256) -> None:
    """Store the float32 weights and biases of an ONNX model as fp16, each with a cast behind it, in
    place; other small constants only where fp16 holds them to 1e-4: the places of bins stay exact.

    Those of layers that sum over at least `rounded_from` values (linear layers, which may be
    transposed: over more) are rounded to 8 significant bits before: compression finds the zeros, so
    a visitor of the page loads an eighth less. Sums over fewer values, whose errors average less,
    would move points more.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < smallest:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        # the weights of linear layers are transposed and lose their names
        learned = name.endswith(("weight", "bias")) or values.size >= 1024
        if learned or np.abs(values.astype(np.float16) - values).max() < 1e-4:
            # of a convolution; or of a linear layer, in either order
            summed = np.prod(values.shape[1:]) if values.ndim == 4 else max(values.shape) - 1
            if values.ndim > 1 and summed >= rounded_from:
                values = rounded_to_bfloat16(values)
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
