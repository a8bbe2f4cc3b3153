"""The commands that list what comes with the library; they import nothing heavy for --help."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from facial_keypoints.command import nonempty_path
from facial_keypoints.paths import layout_names


def show_layouts(arguments: Sequence[str]) -> int:
    """The command `facial-keypoints layouts`: list the layouts, or show one."""
    parser = argparse.ArgumentParser(
        prog=f"{os.path.basename(sys.argv[0])} layouts",
        description="List the keypoint layouts, or the keypoints of one by part.",
    )
    parser.add_argument(
        "layout", nargs="?", type=nonempty_path, help="the name of a layout, or a .toml file"
    )
    parser.add_argument(
        "--draw",
        type=nonempty_path,
        metavar="FILE",
        help="draw the layout with numbers and names into a PNG or JPEG file",
    )
    options = parser.parse_args(arguments)
    if options.draw and not options.layout:
        parser.error("--draw needs the name of a layout, or its file")
    # NumPy and OpenCV: not for --help
    from facial_keypoints.drawing import draw_layout, names_by_part
    from facial_keypoints.layouts import load_layout
    from facial_keypoints.predict_files import write_image

    if not options.layout:
        for layout in map(load_layout, layout_names()):
            print(f"{layout.name:<13} {len(layout):>3} keypoints  {layout.source}")
        return 0
    layout = load_layout(options.layout)
    if options.draw:
        if Path(options.draw).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            parser.error(f"--draw {options.draw}: the name must end in .png or .jpg")
        write_image(draw_layout(layout), Path(options.draw))
        return 0
    for text, color in names_by_part(layout):
        print(text if color else f"  {text}")
    return 0
