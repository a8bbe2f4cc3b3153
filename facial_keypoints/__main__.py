"""The command: photos, folders, videos or a camera -> keypoints."""

import sys
from collections.abc import Sequence

from facial_keypoints.command import run_command
from facial_keypoints.listings import show_layouts
from facial_keypoints.options import read_options


def main(arguments: Sequence[str] | None = None, checkpoints: str | None = None) -> int:
    """Run the command; checkpoints: the module that is imported where a network needs PyTorch, see
    `model.Checkpoints`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments[:1]) == ["layouts"]:
        return show_layouts(arguments[1:])
    options = read_options(arguments)
    # OpenCV and a runtime: not for --help
    from facial_keypoints.session import predict

    return predict(options, checkpoints)


def run() -> None:
    """The entry point `facial-keypoints`."""
    run_command(main, quiet=True)


if __name__ == "__main__":
    run()
