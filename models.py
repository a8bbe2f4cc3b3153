"""The networks by name: Net, load_net, load_checkpoint, predict; `import models.models4` works as
well."""

import argparse
from pathlib import Path

from facial_keypoints.defaults import DEFAULT_NET
from facial_keypoints.command import run_command
from research.networks.checkpoints import load_weights, read_checkpoint, save_checkpoint
from research.networks.export import export_checkpoint, use_checkpoints
from research.networks.contract import checked_net, empty_share, input_size, layout_of
from research.networks.registry import (
    SAVED_MODELS,
    best_device,
    find_weights,
    load_checkpoint,
    load_net,
    net_class,
    net_names,
    parameter_count,
    predict,
    predict_targets,
)

__all__ = [
    "DEFAULT_NET",
    "SAVED_MODELS",
    "best_device",
    "checked_net",
    "empty_share",
    "find_weights",
    "input_size",
    "layout_of",
    "load_checkpoint",
    "load_net",
    "load_weights",
    "net_class",
    "net_names",
    "parameter_count",
    "predict",
    "predict_targets",
    "read_checkpoint",
    "save_checkpoint",
    "use_checkpoints",
]

# With a path of its own this module is a package too: `import models.models4` and `from models
# import Net` both work.
__path__ = [str(Path(__file__).with_suffix(""))]


def __getattr__(name):
    if name == "Net":  # `from models import Net` is the default network
        return net_class(DEFAULT_NET)
    raise AttributeError(f"module 'models' has no attribute {name!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a trained network as an ONNX file.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "export",
        help="write an ONNX file: crops (n, 1, side, side) in "
        "[0, 1] -> targets (n, k, 2), confidence (n, k) and, "
        "if the network predicts it, visibility (n, k)",
    )
    command.add_argument("weights", help="name of a network, or a checkpoint")
    command.add_argument("--onnx", required=True, metavar="FILE", help="where to write it")
    command.add_argument(
        "--int8",
        action="store_true",
        help="with 8-bit integers, which large networks are faster with",
    )
    options = parser.parse_args()
    export_checkpoint(options.weights, options.onnx, options.int8)
    print(f"written: {options.onnx}")


if __name__ == "__main__":
    run_command(main)
