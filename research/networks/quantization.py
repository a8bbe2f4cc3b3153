"""Exported networks with 8-bit integers: about half the time and file size of large networks, on
processors with instructions for them."""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facial_keypoints.errors import import_optional
from facial_keypoints.geometry import crop_image, crop_matrix, tight_box
from facial_keypoints.images import to_gray
from research.networks.halving import halve
from research.synthetic.faces import draw_scene

# operations that are computed with integers, up to the last convolution; the heads behind it keep
# their precision, because the confidence depends on small differences
QUANTIZED = ("Conv", "Add")
LINEAR = 1024  # values that only weights have
SCENES, FACES = 24, 4  # synthetic photos, whose activations give the ranges of the integers


def calibration_crops(side: int, scale: float) -> np.ndarray:
    """Crops (n, 1, side, side) in [0, 1] of synthetic photos: of all faces, and of as many places
    without a face, where wider ranges keep the confidence low."""
    crops = []
    for seed in range(SCENES):
        photo, points = draw_scene(seed, faces=FACES, width=500, height=400)
        gray, rng = to_gray(photo), np.random.default_rng(seed)
        faces = tight_box(points)
        others = np.column_stack(
            [rng.uniform(0, (450, 350), (FACES, 2)), rng.uniform(20, 150, (FACES, 2))]
        )
        crops += [
            crop_image(gray, crop_matrix(box, side, scale=scale), side) for box in [*faces, *others]
        ]
    return np.stack(crops)[:, None].astype(np.float32) / 255


def to_int8(model: bytes, crops: np.ndarray) -> bytes:
    """An exported model (bytes, float32 or with halved weights) with 8-bit integers: static
    quantization, one scale for each channel of the weights. Weights take 7 bits, because
    processors without VNNI instructions overflow at 8.

    crops (n, 1, side, side): what the ranges of the activations are measured on.
    """
    onnx: Any = import_optional("onnx", "exporting to ONNX")
    import onnxruntime
    from onnxruntime import quantization

    rows = iter([{"images": crop[None]} for crop in crops])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            return next(rows, None)

    with tempfile.TemporaryDirectory() as scratch, quiet():
        folded, ready, done = (Path(scratch) / name for name in ("a.onnx", "b.onnx", "c.onnx"))
        options = onnxruntime.SessionOptions()
        # constants are folded: halved weights become float32 again, which quantization needs
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        quantization.quant_pre_process(str(folded), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready),
            str(done),
            Reader(),
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=head_nodes(ready),
            activation_type=quantization.QuantType.QUInt8,  # ONNX Runtime fuses ReLU into these
            per_channel=True,
            reduce_range=True,
        )
        content = onnx.load(str(done))
    # the linear layers of the heads; scales keep their precision
    halve(content, smallest=LINEAR)
    return content.SerializeToString()


def head_nodes(path: Path) -> list[str]:
    """The names of the nodes of a model behind its last convolution."""
    import onnx

    nodes = onnx.load(str(path)).graph.node
    last = max(row for row, node in enumerate(nodes) if node.op_type == "Conv")
    return [node.name for node in nodes[last + 1 :]]


@contextlib.contextmanager
def quiet(name: str = "") -> Iterator[None]:
    """Without warnings, and without messages of a logger below errors: exporter and quantizer
    report packages that they could use, deprecations inside themselves, advice that is followed."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
