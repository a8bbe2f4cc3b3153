"""One call of the command: options -> a detector, outputs that replace no input, and a run."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facial_keypoints.avatar import VmcWriter
from facial_keypoints.command import printable
from facial_keypoints.detector import KeypointDetector
from facial_keypoints.effects import refuse_style
from facial_keypoints.errors import UsageError
from facial_keypoints.files import atomic_open, atomic_write, refuse_overwriting
from facial_keypoints.formats import WRITERS, PtsWriter, SpreadsheetWriter, Writer, YoloWriter
from facial_keypoints.layouts import Layout
from facial_keypoints.model import needs_pytorch
from facial_keypoints.pose import has_pose
from facial_keypoints.predict_files import (
    CropWriter,
    FilePredictor,
    Job,
    drawing_path,
    list_jobs,
    refuse_photo_folder,
)

FOLDERS = ("pts", "yolo", "align")  # options that name folders of one file for each face or photo


@dataclass(frozen=True)
class Outputs:
    """Where a call writes to. tables: {csv, json or coco: a file, or '-'}; drawings: {path of an
    input: path of its drawing}; folders: {pts, yolo or align: a folder}; without_faces: a file of
    names."""

    tables: dict[str, str]
    drawings: dict[Path, Path]
    folders: dict[str, str]
    without_faces: str | None

    @classmethod
    def planned(cls, options: argparse.Namespace, jobs: Sequence[Job], model: Path) -> "Outputs":
        """The outputs of the options. Raises UsageError where one would replace an input of this
        call, or where standard output cannot take what it is given."""
        inputs = [job.path for job in jobs if job.path]
        several = len(set(inputs)) > 1
        drawings = {
            job.path: drawing_path(options.draw, job.name, several)
            for job in jobs
            if options.draw and job.path
        }
        tables = {kind: getattr(options, kind) for kind in WRITERS if getattr(options, kind)}
        files = [Path(target) for target in tables.values() if target != "-"]
        refuse_overwriting(
            [*inputs, *filter(None, [options.boxes]), model],
            [*drawings.values(), *files, *filter(None, [options.without_faces])],
        )
        folders = {kind: getattr(options, kind) for kind in FOLDERS if getattr(options, kind)}
        for folder in folders.values():
            refuse_photo_folder(folder, jobs)
        refuse_overwriting([], folders.values())
        taken = {os.path.realpath(folder) for folder in folders.values()}
        for file in [*files, *drawings.values(), *filter(None, [options.without_faces])]:
            if os.path.realpath(file) in taken:
                raise UsageError(f"{file} is the name of a file and of a folder of this call")
        if list(tables.values()).count("-") > 1:
            raise UsageError("standard output takes one of --csv, --json and --coco, not several")
        if options.without_faces == "-":
            raise UsageError("--without-faces takes the name of a file, not '-'")
        if "-" in tables.values() and sys.stdout is None:
            raise UsageError("standard output is closed: give the name of a file in place of '-'")
        return cls(tables, drawings, folders, options.without_faces)

    def writers(
        self, stack: contextlib.ExitStack, layout: Layout, options: argparse.Namespace
    ) -> list[Writer]:
        """Open writers of all tables and of folders; the stack closes the files."""
        opened: list[Writer] = []
        for kind, target in self.tables.items():
            file = sys.stdout.buffer if target == "-" else stack.enter_context(atomic_open(target))
            writer = SpreadsheetWriter if kind == "csv" and options.spreadsheet else WRITERS[kind]
            asked = {"expressions": True} if kind == "json" and options.expressions else {}
            opened.append(writer(file, layout, **asked))
        if options.vmc:
            opened.append(VmcWriter(*options.vmc))
        if "pts" in self.folders:
            opened.append(PtsWriter(self.folders["pts"]))
        if "yolo" in self.folders:
            opened.append(YoloWriter(self.folders["yolo"], layout))
        return opened

    def crops(self, side: int, template: str) -> CropWriter | None:
        """A writer of aligned crops, if they were asked for."""
        folder = self.folders.get("align")
        return CropWriter(folder, side, template) if folder else None


def run_session(options: argparse.Namespace, checkpoints: str | None) -> int:
    """Find faces and keypoints as the options of the command say -> its exit status: 1 if an input
    failed. checkpoints: see `__main__.main`."""
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
    layout = detector.model.layout
    refuse_style(options.style, layout)
    if (options.expressions or options.vmc) and not has_pose(layout):
        raise UsageError(
            f"expressions need the keypoints of ibug68; layout {layout.name} has too few of them"
        )
    unlisted: list[str] = []
    jobs = list_jobs(options.photos, options.boxes, unlisted) if options.photos else []
    outputs = Outputs.planned(options, jobs, detector.model.path)
    to_standard_output = "-" in outputs.tables.values() or options.camera is not None
    with contextlib.ExitStack() as stack:
        writers = outputs.writers(stack, layout, options)
        predictor = FilePredictor(
            detector,
            writers,
            outputs.drawings,
            options.style,
            log=sys.stderr if to_standard_output else sys.stdout,
            crops=outputs.crops(options.side, options.template),
        )
        if options.camera is None:
            predictor.run(jobs)
        else:
            predictor.follow_video(options.camera, f"camera{options.camera}", options.draw)
        for writer in writers:
            writer.close()
    if outputs.without_faces:
        names = "".join(f"{name}\n" for name in predictor.without_faces)
        atomic_write(outputs.without_faces, names.encode("utf-8", "surrogateescape"))
    failures = [*unlisted, *predictor.failures]
    for message in failures:
        print(f"failed: {printable(message)}", file=sys.stderr)
    return 1 if failures else 0
