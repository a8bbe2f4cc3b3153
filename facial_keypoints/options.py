"""The options of the command `facial-keypoints`; imports nothing heavy."""

import argparse
from collections.abc import Sequence

from facial_keypoints.command import bounded_number, nonempty_path
from facial_keypoints.defaults import (
    DEFAULT_DETECTOR,
    DEFAULT_NET,
    MIN_CONFIDENCE,
    RUNTIMES,
    STYLES,
    TEMPLATES,
)
from facial_keypoints.paths import detector_names


# long: a list of flags
def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command, checked."""
    parser = argparse.ArgumentParser(
        description="Find faces and the keypoints of each (68 by default), in photos and videos.",
        epilog="facial-keypoints models: list the networks, their errors and terms. "
        "facial-keypoints layouts: list and draw the layouts of keypoints",
    )
    parser.add_argument("photos", nargs="*", type=nonempty_path, metavar="PHOTO|FOLDER|CLIP")
    parser.add_argument(
        "--camera",
        type=bounded_number(int, 0),
        metavar="N",
        help="track the faces that camera N sees (0: the first) until Ctrl-C",
    )
    parser.add_argument(
        "--net",
        default=DEFAULT_NET,
        help="a network by name, or the path of an .onnx file or a checkpoint "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        default=DEFAULT_DETECTOR,
        choices=detector_names(),
        help="what finds the faces (default: %(default)s)",
    )
    parser.add_argument(
        "--tilted",
        action="store_true",
        help="also search copies of the photo that are rotated by up to 55 "
        "degrees, for faces that lie on their side; five times slower",
    )
    parser.add_argument(
        "--boxes",
        type=nonempty_path,
        metavar="CSV",
        help="a table name,left,top,width,height of boxes that enclose the "
        "keypoints, in pixels, used instead of a detector",
    )
    add_outputs(parser)
    parser.add_argument(
        "--min-confidence",
        type=bounded_number(float, 0, 1),
        default=MIN_CONFIDENCE,
        help="leave out faces with a lower confidence (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="what the network runs on: cpu, cuda, coreml or directml, where ONNX Runtime was "
        "installed for it; auto: the CPU (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=["auto", *RUNTIMES],
        help="what runs the network; auto: ONNX Runtime, or PyTorch for checkpoints "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=bounded_number(int, 0),
        default=1,
        help="threads of the network; 0: as many as the runtime chooses (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.camera is None and not options.photos:
        parser.error("give photos, folders or clips, or --camera 0")
    if options.camera is not None and options.photos:
        parser.error("give photos, folders and clips, or --camera, but not both")
    if options.style != "points" and not options.draw:
        parser.error(f"--style {options.style} has no effect without --draw")
    if options.expressions and not options.json:
        parser.error("--expressions has no effect without --json")
    if options.side != 112 and not options.align:
        parser.error("--side has no effect without --align")
    return options


def address(text: str) -> tuple[str, int]:
    """'127.0.0.1:39539' -> ('127.0.0.1', 39539). Raises argparse.ArgumentTypeError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:9]) < 65536:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address; give HOST:PORT, such as 127.0.0.1:39539"
        )
    return host, int(port)


# long: a list of flags
def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is written where."""
    parser.add_argument(
        "--csv", type=nonempty_path, metavar="OUT", help="one row per face; '-' for standard output"
    )
    parser.add_argument(
        "--spreadsheet",
        action="store_true",
        help="in the CSV, put an apostrophe before names that a spreadsheet would "
        "take for a formula (= + - @)",
    )
    parser.add_argument(
        "--json",
        type=nonempty_path,
        metavar="OUT",
        help="one line of JSON per face, with its pose; '-' for standard output",
    )
    parser.add_argument(
        "--expressions",
        action="store_true",
        help="in the JSON, also the expression of each face by the names of ARKit, 0 to 1, and its "
        "points in three dimensions",
    )
    parser.add_argument(
        "--vmc",
        type=address,
        metavar="HOST:PORT",
        help="send the expression and the head pose of the first face to a program that moves an "
        "avatar, by the VMC protocol, such as 127.0.0.1:39539 (needs python-osc)",
    )
    parser.add_argument(
        "--coco",
        type=nonempty_path,
        metavar="OUT",
        help="COCO keypoints JSON; '-' for standard output",
    )
    parser.add_argument(
        "--pts",
        type=nonempty_path,
        metavar="FOLDER",
        help="one .pts file per face, named after its photo",
    )
    parser.add_argument(
        "--yolo",
        type=nonempty_path,
        metavar="FOLDER",
        help="labels for YOLO pose networks: labels/NAME.txt for each photo, and data.yaml",
    )
    parser.add_argument(
        "--align",
        type=nonempty_path,
        metavar="FOLDER",
        help="one aligned crop for each face, a PNG named after its photo",
    )
    parser.add_argument(
        "--template",
        default=TEMPLATES[0],
        choices=TEMPLATES,
        help="where the face is in an aligned crop: as face recognition networks (arcface) or "
        "generators (ffhq) expect it, or with level eyes (default: %(default)s)",
    )
    parser.add_argument(
        "--side",
        type=bounded_number(int, 8, 4096),
        default=112,
        help="width and height of an aligned crop in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--draw",
        type=nonempty_path,
        metavar="FOLDER|FILE",
        help="draw on copies of the photos and clips",
    )
    parser.add_argument(
        "--style",
        default="points",
        choices=["points", *STYLES],
        help="what --draw draws; spread: where each point may lie; blur makes faces "
        "unrecognizable (default: %(default)s)",
    )
    parser.add_argument(
        "--without-faces",
        type=nonempty_path,
        metavar="OUT",
        help="write the names of photos without an accepted face, one per line",
    )
