"""Predict photos, folders and videos; write predictions and drawings; continue after failures."""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from facial_keypoints.detector import PHOTOS_AT_ONCE, Face, KeypointDetector
from facial_keypoints.drawing import draw_faces, draw_heads, draw_spreads
from facial_keypoints.effects import DRAW_STYLES
from facial_keypoints.command import printable
from facial_keypoints.defaults import VIDEO_ENDINGS
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import atomic_open, safe_relative_path
from facial_keypoints.formats import FacePaths, Writer, read_boxes
from facial_keypoints.images import IMAGE_ENDINGS, UNREADABLE_ENDINGS, files_below, read_image
from facial_keypoints.tracking import Tracker
from facial_keypoints.video import DRAWN_CLIPS, VideoReader, VideoWriter, track_video

# runs of MANY or more photos print a summary instead of one line per photo; a summary names at
# most MANY photos
# rejected faces above it are blurred too, where faces are to be hidden
MIN_BLUR_CONFIDENCE = 0.2
MANY = 20
BATCH_BYTES = 100_000_000  # size of the decoded photos of a batch


def list_photos(places: Iterable, unlisted: list[str] | None = None) -> list[tuple[str, Path]]:
    """Files and folders -> list of (name, path). The name is the file name, or the path relative to
    the given folder.

    If two photos would have the same name, their full given paths are used as names. Files of a
    folder in unsupported image formats are skipped and reported on standard error, by format. A
    folder that cannot be listed raises DataError; if a list `unlisted` is given, the message is
    appended to it instead.
    """
    photos = []
    for place in map(Path, places):
        if place.is_dir():
            endings = (*IMAGE_ENDINGS, *UNREADABLE_ENDINGS, *VIDEO_ENDINGS)
            inside = sorted(map(Path, files_below(place, endings, unlisted)))
            unreadable = [p for p in inside if p.suffix.lower() in UNREADABLE_ENDINGS]
            for ending, count in sorted(Counter(p.suffix.lower() for p in unreadable).items()):
                first = next(p for p in unreadable if p.suffix.lower() == ending)
                print(
                    f"skipped: {count} {ending} file{'s' * (count > 1)} ({printable(first)}); "
                    "convert to JPEG or PNG",
                    file=sys.stderr,
                )
            photos += [(p.relative_to(place).as_posix(), p) for p in inside if p not in unreadable]
        else:
            photos.append((place.name, place))
    if not photos:
        if unlisted:
            raise DataError(unlisted[0])
        raise DataError(
            f"no photos in {', '.join(map(str, places))} (looked for {', '.join(IMAGE_ENDINGS)})"
        )
    once: dict[str, tuple[str, Path]] = {}
    for name, path in photos:
        once.setdefault(os.path.realpath(path), (name, path))
    photos = list(once.values())
    counts = Counter(name for name, _ in photos)
    return [(name if counts[name] == 1 else path.as_posix(), path) for name, path in photos]


class Job(NamedTuple):
    """A photo or clip to process. path: None if the table of boxes names a photo that was not
    given; boxes: a list of tight boxes (4,) to use instead of the face detector."""

    name: str
    path: Path | None
    boxes: list | None = None


def list_jobs(
    places: Iterable, boxes: str | os.PathLike | None = None, unlisted: list[str] | None = None
) -> list[Job]:
    """Files and folders -> one job per photo or clip. With a table of boxes: one job for each group
    of adjacent rows with the same photo name. unlisted: see `list_photos`."""
    photos = list_photos(places, unlisted)
    if boxes is None:
        return [Job(name, path) for name, path in photos]
    paths, work, group = dict(photos), list[Job](), list[np.ndarray]()
    for name, box in read_boxes(boxes):  # adjacent rows of one photo are done at once
        if not work or work[-1].name != name:
            group = []
            work.append(Job(name, paths.get(name), group))
        group.append(box)
    without = paths.keys() - {job.name for job in work}
    if without:
        more = " …" if len(without) > 1 else ""
        print(
            f"{len(without)} of {len(paths)} photos have no row in {printable(boxes)} and "
            f"are skipped: {printable(min(without))}{more}",
            file=sys.stderr,
        )
    return work


def drawing_path(target: str | os.PathLike, name: str, several: bool) -> Path:
    """The path of the drawing of photo or clip `name`: `target` itself if it is the name of an
    image or video file, else a path in the folder `target`. several: there is more than one photo
    or clip. Raises UsageError if `target` does not fit.

    The drawing of a photo that is neither JPEG nor PNG is a PNG with both extensions: x.webp.png.
    In a folder, clips are drawn as .mp4.
    """
    target, ending = Path(target), Path(target).suffix.lower()
    clip = Path(name).suffix.lower() in VIDEO_ENDINGS
    if ending in (DRAWN_CLIPS if clip else IMAGE_ENDINGS):
        if several:
            raise UsageError(
                f"--draw {target} names one file, but there are several photos or "
                "clips: give a folder"
            )
        return target
    if ending in (*IMAGE_ENDINGS, *VIDEO_ENDINGS):
        raise UsageError(
            f"--draw {target} cannot be used for a {'clip' if clip else 'photo'}: "
            f"give a folder, or a name that ends in {'.mp4' if clip else '.jpg'}"
        )
    if clip:
        return target / safe_relative_path(name).with_suffix(".mp4")
    inside = safe_relative_path(name)
    return target / (
        inside if inside.suffix.lower() in (".jpg", ".jpeg", ".png") else f"{inside}.png"
    )


def refuse_photo_folder(folder: str | os.PathLike, jobs: Iterable[Job]) -> None:
    """Raise UsageError if .pts files would be written next to their photos, where annotations of
    the same name may be."""
    for job in jobs:
        if job.path and os.path.realpath(
            (Path(folder) / safe_relative_path(job.name)).parent
        ) == os.path.realpath(job.path.parent):
            raise UsageError(
                f"{folder} holds the photos, and may hold annotations that would be "
                "overwritten; give another folder"
            )


class CropWriter:
    """One aligned crop for each face, as a PNG in a folder (`formats.FacePaths`)."""

    def __init__(self, folder: str | os.PathLike, side: int, template: str):
        self.paths, self.side, self.template = FacePaths(folder, ".png"), side, template

    def write(self, name: str, image: np.ndarray, faces: Sequence[Face]) -> None:
        """Cut the faces out of a photo, uint8 RGB."""
        for face in faces:
            crop, _ = face.aligned(image, self.side, self.template)
            write_image(crop, self.paths.next(name))


class FilePredictor:
    """Runs a detector on photos and clips, writes its predictions, and continues after failures.

    detector: a KeypointDetector; writers: open writers of `formats`; drawings: {path of a photo or
    clip: path of its drawing}; style: of the drawings; log: the stream for one line about each
    photo; crops: a writer of aligned crops. Photos go through the network in batches of at most
    PHOTOS_AT_ONCE. Results: `failures`, a message for each file that failed; `faces`, the number of
    accepted faces; `without_faces`, {name: rejected faces} of the photos and clips without an
    accepted face.
    """

    def __init__(
        self,
        detector: KeypointDetector,
        writers: Sequence[Writer] = (),
        drawings: dict[Path, Path] | None = None,
        style: str = "points",
        log: TextIO | None = None,
        crops: CropWriter | None = None,
    ):
        self.crops = crops
        self.detector, self.writers, self.drawings = detector, writers, drawings or {}
        self.style, self.log = style, log or sys.stdout
        self.failures: list[str] = []
        self.without_faces: dict[str, list] = {}
        self.faces = 0
        self.verbose = True
        self.waiting: Counter = Counter()
        self.drawn: dict[Path, list] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs, in their order."""
        self.verbose = len(jobs) < MANY
        # a table of boxes may have several groups of rows of a photo: draw after the last one
        self.waiting = Counter(job.path for job in jobs)
        batch: list[tuple[Job, np.ndarray]] = []
        with tqdm(jobs, unit="photo", disable=len(jobs) < 3 or not sys.stderr.isatty()) as bar:
            for job in bar:
                self.waiting[job.path] -= 1  # also for a job that fails, so that the last one draws
                if not self.is_photo(job):
                    self.predict_batch(batch)
                    self.attempt(job, self.do_alone, job)
                elif (image := self.attempt(job, read_image, job.path)) is not None:
                    if batch and sum(one.size for _, one in batch) + image.size > BATCH_BYTES:
                        self.predict_batch(batch)
                    batch.append((job, image))
                    if len(batch) == PHOTOS_AT_ONCE:
                        self.predict_batch(batch)
            self.predict_batch(batch)
        if not self.verbose:
            print(f"{len(jobs) - len(self.failures)} photos, {self.faces} faces", file=self.log)
            report_without_faces(self.without_faces, self.detector, self.log)

    @staticmethod
    def is_photo(job: Job) -> bool:
        """True for photos that go through the network together with others."""
        return (
            job.path is not None
            and job.boxes is None
            and job.path.suffix.lower() not in VIDEO_ENDINGS
        )

    def attempt(self, job: Job, action: Callable, *arguments: Any) -> Any:
        """Call `action` for a job -> its result. If it fails, the message is added to
        `failures`, and the result is None."""
        try:
            return action(*arguments)
        except DataError as error:
            self.failures.append(str(error))
        except cv2.error as error:
            self.failures.append(f"{job.path}: OpenCV: {error}")
        except MemoryError:
            self.failures.append(f"{job.path}: not enough memory; make it smaller")
        return None

    def predict_batch(self, batch: list[tuple[Job, np.ndarray]]) -> None:
        """Detect the faces of a batch of photos, finish the photos, and empty the batch."""
        try:
            found: list = self.detector.detect_batch([image for _, image in batch])
        except (DataError, cv2.error, MemoryError):  # from one of the photos: predict each alone
            found = [None] * len(batch)
        for (job, image), faces in zip(batch, found, strict=True):
            self.attempt(job, self.finish_photo, job, image, faces)
        batch.clear()

    def do_alone(self, job: Job) -> None:
        """Predict a clip, or a photo whose boxes are given: both go without a batch."""
        if job.path is None:
            raise DataError(f"{job.name}: in the table of boxes, but not among the photos given")
        if job.path.suffix.lower() in VIDEO_ENDINGS:
            if job.boxes:
                raise DataError(
                    f"{job.path}: boxes are taken for photos, not for clips; call "
                    "again without --boxes"
                )
            self.follow_video(job.path, job.name, self.drawings.get(job.path))
            return
        image = read_image(job.path)
        self.finish_photo(job, image, (self.detector.predict_boxes(image, job.boxes), []))

    def finish_photo(self, job: Job, image: np.ndarray, found: Any) -> None:
        """Write and draw the accepted faces of a photo, and report them. found: the pair (accepted,
        rejected), or None to detect the faces now."""
        accepted, rejected = found if found is not None else self.detector.detect(image)
        self.write(job.name, image, accepted)
        if job.path in self.drawings:
            hidden = self.probable(rejected) if self.style == "blur" else []
            self.drawn.setdefault(job.path, []).extend([*accepted, *hidden])
            if not self.waiting[job.path]:
                write_image(
                    draw_styled(image, self.drawn.pop(job.path), self.style),
                    self.drawings[job.path],
                )
        self.count(job.name, len(accepted), rejected)
        if self.verbose:
            rejections = self.rejections(rejected) if not accepted else ""
            faces = f"{len(accepted)} face{'s' * (len(accepted) != 1)}"
            tqdm.write(f"{printable(job.name)}: {faces}{rejections}", file=self.log)

    @staticmethod
    def probable(rejected: Sequence[Face]) -> list[Face]:
        """Rejected faces that are blurred all the same: a face that stays visible is worse than a
        blurred wall."""
        return [face for face in rejected if face.confidence >= MIN_BLUR_CONFIDENCE]

    def write(self, name: str, image: np.ndarray, faces: list) -> None:
        """Write the faces of one image to all writers."""
        for writer in self.writers:
            writer.write(name, image.shape[:2], faces)
        if self.crops:
            self.crops.write(name, image, faces)

    def count(self, name: str, faces: int, rejected: list) -> None:
        """Add the faces of a photo or clip to the totals."""
        self.faces += faces
        if not faces:
            self.without_faces[name] = rejected

    def rejections(self, rejected: list) -> str:
        """Rejected faces in brackets, for the line of a photo; '' for none."""
        return f" ({describe_rejected(rejected, self.detector)})" if rejected else ""

    def follow_video(
        self, place: int | str | os.PathLike, name: str, target: str | os.PathLike | None = None
    ) -> None:
        """Track the faces of a clip (path) or a camera (number); write the predictions and the
        drawing.

        If more than 10 % of the announced frames cannot be read, the predictions of the others are
        written, and then DataError is raised.
        """
        clip = VideoReader(place)
        # to blur every face, the face detector runs on every frame
        hide = self.style == "blur"
        tracker = Tracker(self.detector, every=1) if hide else Tracker(self.detector)
        # blurred people keep their voices out of the file as well
        source = place if isinstance(place, (str, os.PathLike)) and not hide else None
        writer = VideoWriter(target, clip.rate, source) if target else contextlib.nullcontext()
        with writer as drawing:

            def each(index, frame, faces, seconds):
                self.write(f"{name}#{index}", frame, faces)
                if drawing:
                    more = [*tracker.missed(), *self.probable(tracker.doubtful)] if hide else []
                    drawing.write(draw_styled(frame, [*faces, *more], self.style), seconds)

            seen = track_video(tracker, clip, each, bar=sys.stderr.isatty())
        rejections = self.rejections(tracker.rejected) if not seen else ""
        print(
            f"{printable(name)}: {tracker.frames} frames, {tracker.count} tracks, "
            f"{seen} detections{rejections}"
            + (f"; {drawing.note}" if drawing and drawing.note else ""),
            file=self.log,
        )
        self.count(name, seen, tracker.rejected)
        if clip.cut:
            raise DataError(
                f"{place}: only {clip.count} of {clip.length} frames could be read; "
                "their predictions are written; the file is truncated or damaged"
            )


def describe_rejected(rejected: list, detector: KeypointDetector) -> str:
    """A short text about rejected faces: their number, their highest confidence, the limit."""
    best = max(face.confidence for face in rejected)
    limit = f"--min-confidence {detector.min_confidence:g}"
    return f"{len(rejected)} rejected: confidence at most {best:.2f}, {limit}"


def report_without_faces(
    without_faces: dict[str, list], detector: KeypointDetector, stream: TextIO
) -> None:
    """Print the names of at most MANY photos without an accepted face, {name: rejected faces}."""
    if not without_faces:
        return
    names = list(without_faces)
    more = (
        f" and {len(names) - MANY} more (--without-faces FILE writes all)"
        if len(names) > MANY
        else ""
    )
    print(
        f"no face in {len(names)} photos: {', '.join(map(printable, names[:MANY]))}{more}",
        file=stream,
    )
    rejected = [face for faces in without_faces.values() for face in faces]
    if rejected:
        print(f"in these photos: {describe_rejected(rejected, detector)}", file=stream)


def draw_styled(image: np.ndarray, faces: Iterable, style: str) -> np.ndarray:
    """A copy of an image with its faces drawn as keypoints, with their poses, with sunglasses, or
    made unrecognizable."""
    if style == "points":
        return draw_faces(image, faces)
    if style == "spread":
        return draw_spreads(image, faces)
    if style == "head":
        return draw_heads(image, faces)
    image = image.copy()
    for face in faces:
        DRAW_STYLES[style](image, face.points, face.layout)
    return image


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an RGB image atomically."""
    ok, data = cv2.imencode(path.suffix, image[..., ::-1])
    if not ok:
        raise DataError(f"{path}: cannot be encoded as {path.suffix}")
    with atomic_open(path) as file:
        file.write(data.tobytes())
