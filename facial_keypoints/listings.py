"""The commands that list what comes with the library; they import nothing heavy for --help."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from facial_keypoints.command import nonempty_path
from facial_keypoints.defaults import ALIASES
from facial_keypoints.paths import PHOTOGRAPHS, SAVED_MODELS, layout_names


def show_models(arguments: Sequence[str]) -> int:
    """The command `facial-keypoints models`: list the networks that are here, their size, error and
    terms."""
    argparse.ArgumentParser(
        prog=f"{os.path.basename(sys.argv[0])} models",
        description="List the networks that --net takes by name. NME: the error on test "
        "photographs that people labeled, in % of the size of the face's box.",
    ).parse_args(arguments)
    # NumPy: not for --help
    from facial_keypoints.files import csv_rows
    from facial_keypoints.onnx_file import read_model_file

    errors = {
        row["weights"]: f"{float(row['nme_box']):.2f} %"
        for row in csv_rows(PHOTOGRAPHS, optional=True)
    }
    names = {name: alias for alias, name in ALIASES.items()}
    print(f"{'name':<20} {'points':>6} {'crop':>5} {'size':>7} {'NME':>7}  terms of the weights")
    for path in sorted(SAVED_MODELS.glob("models*.onnx")):
        data, values = read_model_file(path)
        name = f"{path.stem} ({names[path.stem]})" if path.stem in names else path.stem
        print(
            f"{name:<20} {len(values['layout']):>6} {values['side']:>5} {len(data) / 1e6:>4.1f} MB "
            f"{errors.get(path.stem, ''):>7}  {values.get('license', '')}"
        )
    return 0


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
