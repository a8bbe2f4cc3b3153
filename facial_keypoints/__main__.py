"""The command: photos, folders, videos or a camera -> keypoints."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from facial_keypoints.defaults import (
    DEFAULT_DETECTOR,
    DEFAULT_NET,
    MIN_CONFIDENCE,
    RUNTIMES,
    STYLES,
)
from facial_keypoints.paths import detector_names
from facial_keypoints.command import bounded_number, nonempty_path, printable, run_command
from facial_keypoints.errors import UsageError


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command, checked."""
    parser = argparse.ArgumentParser(
        description="Find faces and the keypoints of each (68 by default), in photos and videos.",
        epilog="facial-keypoints layouts: list and draw the layouts of keypoints",
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
        "--draw",
        type=nonempty_path,
        metavar="FOLDER|FILE",
        help="draw on copies of the photos and clips",
    )
    parser.add_argument(
        "--style",
        default="points",
        choices=["points", *STYLES],
        help="what --draw draws; blur makes faces unrecognizable (default: %(default)s)",
    )
    parser.add_argument(
        "--min-confidence",
        type=bounded_number(float, 0, 1),
        default=MIN_CONFIDENCE,
        help="leave out faces with a lower confidence (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, … (default: %(default)s)"
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
    parser.add_argument(
        "--without-faces",
        type=nonempty_path,
        metavar="OUT",
        help="write the names of photos without an accepted face, one per line",
    )
    options = parser.parse_args(arguments)
    if (options.camera is None) == (not options.photos):
        parser.error("give photos, folders or clips, or --camera, but not both")
    return options


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
    from pathlib import Path

    from facial_keypoints.paths import layout_names
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


def main(arguments: Sequence[str] | None = None, checkpoints: str | None = None) -> int:
    """Run the command; checkpoints: the module that is imported where a network needs PyTorch, see
    `model.Checkpoints`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments[:1]) == ["layouts"]:
        return show_layouts(arguments[1:])
    options = read_options(arguments)
    # OpenCV and a runtime: not for --help
    from facial_keypoints.detector import KeypointDetector
    from facial_keypoints.effects import refuse_style
    from facial_keypoints.files import atomic_open, atomic_write, refuse_overwriting
    from facial_keypoints.formats import WRITERS, PtsWriter, SpreadsheetWriter
    from facial_keypoints.model import needs_pytorch
    from facial_keypoints.predict_files import (
        FilePredictor,
        drawing_path,
        list_jobs,
        refuse_photo_folder,
    )

    if checkpoints and needs_pytorch(options.net, options.runtime, options.device):
        importlib.import_module(checkpoints)
    detector = KeypointDetector(
        options.net,
        options.detector,
        options.device,
        options.min_confidence,
        options.runtime,
        options.threads,
        options.tilted,
    )
    refuse_style(options.style, detector.model.layout)
    unlisted: list[str] = []
    jobs = list_jobs(options.photos, options.boxes, unlisted) if options.photos else []
    paths = [job.path for job in jobs if job.path]
    several = len(set(paths)) > 1
    drawings = {
        job.path: drawing_path(options.draw, job.name, several)
        for job in jobs
        if options.draw and job.path
    }
    targets = {kind: getattr(options, kind) for kind in WRITERS if getattr(options, kind)}
    refuse_overwriting(
        [*paths, *filter(None, [options.boxes]), detector.model.path],
        [
            *drawings.values(),
            *(Path(target) for target in targets.values() if target != "-"),
            *filter(None, [options.without_faces]),
        ],
    )
    if options.pts:
        refuse_photo_folder(options.pts, jobs)
    to_standard_output = "-" in targets.values() or options.camera is not None
    if list(targets.values()).count("-") > 1:
        raise UsageError("standard output takes one of --csv, --json and --coco, not several")
    if options.without_faces == "-":
        raise UsageError("--without-faces takes the name of a file, not '-'")
    if "-" in targets.values() and sys.stdout is None:
        raise UsageError("standard output is closed: give the name of a file in place of '-'")
    with contextlib.ExitStack() as stack:
        writers: list = []
        for kind, target in targets.items():
            file = sys.stdout.buffer if target == "-" else stack.enter_context(atomic_open(target))
            writer = SpreadsheetWriter if kind == "csv" and options.spreadsheet else WRITERS[kind]
            writers.append(writer(file, detector.model.layout))
        if options.pts:
            writers.append(PtsWriter(options.pts))
        predictor = FilePredictor(
            detector,
            writers,
            drawings,
            options.style,
            log=sys.stderr if to_standard_output else sys.stdout,
        )
        if options.camera is None:
            predictor.run(jobs)
        else:
            predictor.follow_video(options.camera, f"camera{options.camera}", options.draw)
        for writer in writers:
            writer.close()
    if options.without_faces:
        names = "".join(f"{name}\n" for name in predictor.without_faces)
        atomic_write(options.without_faces, names.encode("utf-8", "surrogateescape"))
    failures = [*unlisted, *predictor.failures]
    for message in failures:
        print(f"failed: {printable(message)}", file=sys.stderr)
    return 1 if failures else 0


def run() -> None:
    """The entry point `facial-keypoints`."""
    run_command(main, quiet=True)


if __name__ == "__main__":
    run()
