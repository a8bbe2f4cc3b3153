"""Checkpoints for the library; PyTorch is imported only where a network needs it."""

import os

from facial_keypoints.model import needs_pytorch


def use_checkpoints_for(net: str | os.PathLike) -> None:
    """`export.use_checkpoints`, if a network by name or path is a checkpoint."""
    if needs_pytorch(net):
        from research.networks.export import use_checkpoints

        use_checkpoints()
