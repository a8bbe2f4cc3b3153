"""Photos, folders and videos -> files of predictions and drawings, past the ones that fail."""

import contextlib
import os
import sys
from collections import Counter
from pathlib import Path

import cv2
from tqdm import tqdm

from facial_keypoints.drawing import draw_faces
from facial_keypoints.effects import DRAW_STYLES
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import atomic_open, atomic_write, safe_relative_path
from facial_keypoints.formats import read_boxes
from facial_keypoints.images import IMAGE_ENDINGS, UNREADABLE_ENDINGS, files_below, read_image
from facial_keypoints.pose import head_pose
from facial_keypoints.tracking import Tracker
from facial_keypoints.video import CODECS, VIDEO_ENDINGS, VideoReader, VideoWriter, track_video

MANY = 20  # photos from which on a summary takes the place of one line each


def list_photos(places):
    """Files and folders -> list of (name, path): the file's name, or its path below the folder.

    Where that would name two photos alike, their paths as given name them. Images in a folder that
    cannot be decoded are reported on standard error, by kind.
    """
    photos = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(map(Path,
                                files_below(place,
                                            (*IMAGE_ENDINGS, *UNREADABLE_ENDINGS, *VIDEO_ENDINGS))))
            unreadable = [p for p in inside if p.suffix.lower() in UNREADABLE_ENDINGS]
            for ending, count in sorted(Counter(p.suffix.lower() for p in unreadable).items()):
                first = next(p for p in unreadable if p.suffix.lower() == ending)
                print(f"skipped: {count} {ending} file{'s' * (count > 1)} ({first}); convert to "
                      "JPEG or PNG", file=sys.stderr)
            photos += [(p.relative_to(place).as_posix(), p) for p in inside if p not in unreadable]
        else:
            photos.append((place.name, place))
    if not photos:
        raise DataError(f"no photos in {', '.join(map(str, places))} (looked for "
                        f"{', '.join(IMAGE_ENDINGS)})")
    once = {}
    for name, path in photos:
        once.setdefault(os.path.realpath(path), (name, path))
    photos = list(once.values())
    counts = Counter(name for name, _ in photos)
    return [(name if counts[name] == 1 else path.as_posix(), path) for name, path in photos]


def jobs(options):
    """What to do, as (name, path, boxes or None): one job a photo, or one a run of rows of
    --boxes."""
    photos = list_photos(options.photos)
    if options.boxes is None:
        return [(name, path, None) for name, path in photos]
    paths, work = dict(photos), []
    for name, box in read_boxes(options.boxes):  # neighbouring rows of one photo are done at once
        if work and work[-1][0] == name:
            work[-1][2].append(box)
        else:
            work.append((name, paths.get(name), [box]))
    without = paths.keys() - {name for name, _, _ in work}
    if without:
        print(f"{len(without)} of {len(paths)} photos have no row in {options.boxes}, "
              f"{min(without)} among them: no faces "
              "there", file=sys.stderr)
    return work


def drawing_path(target, name, several):
    """Where the drawing of photo `name` goes: `target` itself for one photo if it names a picture,
    else below it.

    Pictures that are neither JPEG nor PNG are drawn as PNG, their names kept whole: x.webp becomes
    x.webp.png.
    """
    target = Path(target)
    if Path(name).suffix.lower() in VIDEO_ENDINGS:
        if target.suffix.lower() in CODECS and not several:
            return target
        if target.suffix.lower() in IMAGE_ENDINGS:
            raise UsageError(f"--draw {target} is no place for a clip: give a folder, or a name "
                             "that ends in .mp4")
        return target / safe_relative_path(name).with_suffix(".mp4")
    if target.suffix.lower() in IMAGE_ENDINGS:
        if several:
            raise UsageError(f"--draw {target} names one picture, but there are several photos: "
                             "give a folder")
        return target
    inside = safe_relative_path(name)
    return target / (inside if inside.suffix.lower() in (".jpg", ".jpeg", ".png")
                     else f"{inside}.png")


def refuse_beside(folder, work):
    """Raise UsageError if .pts files would come to lie beside their photos, where annotations of
    that name may be."""
    for name, path, _ in work:
        if path and os.path.realpath(
            (Path(folder) / safe_relative_path(name)).parent
        ) == os.path.realpath(path.parent):
            raise UsageError(f"{folder} holds the photos, and may hold annotations that would be "
                             "written over; give another")


def predict_files(detector, work, answers, drawings, options):
    """Do all jobs, go on past bad photos and clips -> list of messages of what failed."""
    failed, faces_found, drawn, without_faces = [], 0, {}, {}
    # rows of one photo may stand apart in --boxes: drawn after the last
    waiting = Counter(path for _, path, _ in work)
    told = sys.stderr if "-" in (options.csv, options.json, options.coco) else sys.stdout
    bar = tqdm(work, unit="photo", disable=len(work) < 3 or not sys.stderr.isatty())
    for name, path, boxes in bar:
        waiting[path] -= 1
        try:
            if path is None:
                raise DataError(f"{name}: in {options.boxes}, but not among the photos given")
            if path.suffix.lower() in VIDEO_ENDINGS:
                if boxes:
                    raise DataError(f"{path}: boxes are taken for photos, not for clips; call "
                                    "again without --boxes")
                seen, rejected = follow_video(detector, path, name, answers, drawings.get(path),
                                              options, told)
                faces_found += seen
                if not seen:
                    without_faces[name] = rejected
                continue
            image = read_image(path)
            faces, rejected = (
                detector.detect(image)
                if boxes is None
                else (detector.predict_boxes(image, boxes), [])
            )
            write_faces(answers, name, image, faces, options)
            if options.draw:
                drawn.setdefault(path, []).extend(faces)
                if not waiting[path]:
                    write_image(styled(image, drawn.pop(path), options.style), drawings[path])
        except (DataError, cv2.error) as error:
            failed.append(error if isinstance(error, DataError) else f"{path}: OpenCV: {error}")
            continue
        faces_found += len(faces)
        if not faces:
            without_faces[name] = rejected
        if len(work) < MANY:
            rejections = (
                f" ({describe_rejected(rejected, detector)})" if rejected and not faces else ""
            )
            tqdm.write(f"{name}: {len(faces)} face{'s' * (len(faces) != 1)}{rejections}", file=told)
    if len(work) >= MANY:
        print(f"{len(work) - len(failed)} photos, {faces_found} faces", file=told)
        report_without_faces(without_faces, detector, told)
    if options.without_faces:
        atomic_write(
            options.without_faces,
            "".join(f"{name}\n" for name in without_faces).encode("utf-8", "surrogateescape"),
        )
    return failed


def describe_rejected(rejected, detector):
    """Rejected faces in a few words: how many, their highest confidence, the limit."""
    best = max(face.confidence for face in rejected)
    limit = f"--min-confidence {detector.min_confidence:g}"
    return f"{len(rejected)} rejected: confidence at most {best:.2f}, {limit}"


def report_without_faces(without_faces, detector, stream):
    """Print which photos have no accepted face: {name: rejected faces}; of more than MANY the first
    ones."""
    if not without_faces:
        return
    names = list(without_faces)
    more = (
        f" and {len(names) - MANY} more (--without-faces FILE writes all)"
        if len(names) > MANY
        else ""
    )
    print(f"no face in {len(names)} of them: {', '.join(names[:MANY])}{more}", file=stream)
    rejected = [face for faces in without_faces.values() for face in faces]
    if rejected:
        print(f"in these photos: {describe_rejected(rejected, detector)}", file=stream)


def write_faces(answers, name, image, faces, options):
    """Write the faces of one image to all files of answers; JSON lines hold poses as well."""
    if options.json:
        for face in faces:
            face.pose = head_pose(face.points)
    for file in answers:
        file.write(name, image.shape[:2], faces)


def follow_video(detector, place, name, answers, target, options, told):
    """Follow the faces of a clip or a camera, write answers and the drawn clip -> faces seen, the
    rejected ones."""
    clip = VideoReader(place)
    # then nobody may go unseen: the detector is asked for every frame
    hide = options.style == "blur"
    tracker = Tracker(detector, every=1) if hide else Tracker(detector)
    with VideoWriter(target, clip.rate) if target else contextlib.nullcontext() as film:
        def each(index, frame, faces):
            write_faces(answers, f"{name}#{index}", frame, faces, options)
            if film:
                film.write(styled(frame, faces + (tracker.missed() if hide else []), options.style))

        seen = track_video(tracker, clip, each, bar=sys.stderr.isatty())
    rejections = (
        f" ({describe_rejected(tracker.rejected, detector)})"
        if tracker.rejected and not seen
        else ""
    )
    print(f"{name}: {tracker.frames} frames, {tracker.count} people, {seen} faces{rejections}",
          file=told)
    if clip.cut:
        raise DataError(f"{place}: {clip.count} of {clip.length} frames could be read, and have "
                        "their answers; the file is cut "
                        "off or damaged")
    return seen, tracker.rejected


def styled(image, faces, style):
    """A copy of an image with its faces drawn as keypoints, with their poses, with sunglasses, or
    made unrecognizable."""
    if style == "points":
        return draw_faces(image, faces)
    image = image.copy()
    for face in faces:
        DRAW_STYLES[style](image, face.points)
    return image


def write_image(image, path):
    """Write an RGB image, whole or not at all."""
    ok, data = cv2.imencode(path.suffix, image[..., ::-1])
    if not ok:
        raise DataError(f"{path}: cannot be encoded as {path.suffix}")
    with atomic_open(path) as file:
        file.write(data.tobytes())
