"""The command `facial-keypoints` in a clone: photos, folders, videos, camera -> keypoints; with
checkpoints as well."""

from functools import partial

from facial_keypoints.__main__ import main
from facial_keypoints.command import run_command

if __name__ == "__main__":
    run_command(partial(main, checkpoints="models"), quiet=True)
