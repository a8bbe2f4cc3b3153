"""The command: photos, folders, videos or a camera -> keypoints."""

import sys
from collections.abc import Sequence

from facial_keypoints.command import run_command
from facial_keypoints.listings import show_layouts, show_models
from facial_keypoints.options import read_options

LISTINGS = {"layouts": show_layouts, "models": show_models}


def main(arguments: Sequence[str] | None = None, checkpoints: str | None = None) -> int:
    """Run the command; checkpoints: the module that is imported where a network needs PyTorch, see
    `model.Checkpoints`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in LISTINGS:
        return LISTINGS[arguments[0]](arguments[1:])
    options = read_options(arguments)
    # OpenCV and a runtime: not for --help
    from facial_keypoints.session import run_session

    return run_session(options, checkpoints)


def run() -> None:
    """The entry point `facial-keypoints`."""
    run_command(main, quiet=True)


if __name__ == "__main__":
    run()
