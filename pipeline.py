"""Photo -> faces -> keypoints in that photo's pixels: `find_keypoints("photo.jpg")`, or the command."""

import argparse
import contextlib
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import detector_architectures
import models
import runtimes
from data_load import label_shift, learned_shift
from errors import DataError, UsageError, number, run
from formats import csv_header, open_whole, read_boxes, to_csv, to_json
from sources import IMAGE_ENDINGS, read_image
from transforms import crop_image, crop_matrix, to_points

# Keeps 99 % of the faces that Haar finds in the official validation frames and half of what it invents there.
MIN_CONFIDENCE = 0.5


@dataclass
class Face:
    """One face: box (4,) left, top, width, height and points (68, 2), pixels of the photo; confidence in 0…1."""

    box: np.ndarray
    points: np.ndarray
    confidence: float
    point_confidence: np.ndarray = None  # (68,) in 0…1


def as_image(photo):
    """A path, encoded bytes, PIL image or array (h, w), (h, w, 1), (h, w, 3), (h, w, 4) -> uint8 RGB (h, w, 3)."""
    if isinstance(photo, (str, os.PathLike, bytes)):
        return read_image(photo)
    if hasattr(photo, "convert"):  # PIL
        from PIL import ImageOps

        if photo.mode.startswith(("I", "F")):  # more than 8 bits: PIL would cut them off at 255
            values = np.asarray(photo)
            if photo.mode == "F" or values.min() < 0 or values.max() > 65535:
                raise DataError(f"a PIL image of mode {photo.mode} is no photo; give 8 or 16 bits")
            return as_image((values // 256).astype(np.uint8))
        return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    image = np.asarray(photo)
    if image.dtype != np.uint8:
        raise DataError(f"a photo must be uint8 with 0…255 as decoded, not {image.dtype}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        image = np.dstack([image] * 3)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        raise DataError(f"a photo must be (height, width[, 3 or 4]), not {image.shape}")
    return np.ascontiguousarray(image[..., :3])


class KeypointDetector:
    """Finds faces and their keypoints: `KeypointDetector()(photo)` -> list of Face, the largest first.

    net: a network's name or a checkpoint's path; detector: a detector's name, or an object with its `detect`;
    runtime: openvino, onnx or torch, 'auto' for the quickest that is installed; threads: of the network, 0 for all.
    Faces whose confidence (the detector's for the box times the network's for its points) is below `min_confidence`
    are left out.
    """

    def __init__(self, net=models.DEFAULT, detector=detector_architectures.DEFAULT, device="auto",
                 min_confidence=MIN_CONFIDENCE, runtime="auto", threads=0):
        device = models.best_device(device)
        self.net, self.checkpoint = models.load_checkpoint(models.find_weights(net), device)
        self.predict = runtimes.compile_net(self.net, runtime, device, threads)
        self.detector = detector_architectures.load_detector(detector) if isinstance(detector, str) else detector
        self.fit = getattr(self.detector, "fit", (0, 0, 1, 1))  # boxes of a detector without one are tight already
        self.side, self.min_confidence = models.input_size(self.net), min_confidence

    def __call__(self, photo):
        image = as_image(photo)
        boxes, scores = self.detector.detect(image)
        faces = self.at(image, detector_architectures.to_tight(boxes, self.fit))
        for face, score in zip(faces, scores, strict=True):
            face.confidence *= float(score)
        faces = [face for face in faces if face.confidence >= self.min_confidence]
        return sorted(faces, key=lambda face: -face.box[2] * face.box[3])

    def at(self, photo, boxes):
        """Keypoints at given tight boxes (n, 4): one Face a box, in their order, whatever the confidence."""
        gray = cv2.cvtColor(as_image(photo), cv2.COLOR_RGB2GRAY)
        if not len(boxes):
            return []
        matrices = np.stack([crop_matrix(box, self.side) for box in boxes])
        crops = np.stack([crop_image(gray, matrix, self.side) for matrix in matrices])
        targets, confidence = self.predict(crops[:, None].astype(np.float32) / 255)
        points = to_points(targets, matrices, self.side)
        if learned_shift(self.checkpoint["data"]):  # answers are to sit on the features
            points = points - label_shift(points)
        return [Face(np.asarray(b, np.float32), p, float(c.mean()), c)
                for b, p, c in zip(boxes, points, confidence, strict=True)]


def find_keypoints(photo, **options):
    """Faces of one photo (path, array or PIL image), or a list of such lists for a list of photos.

    `options` are those of KeypointDetector.
    """
    detector = KeypointDetector(**options)
    return [detector(one) for one in photo] if isinstance(photo, (list, tuple)) else detector(photo)


# ---------------------------------------------------------------- command

def list_photos(places):
    """Files and folders -> list of (name, path): the file's name, or its path below the folder.

    Where that would name two photos alike, their paths as given name them.
    """
    photos = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
            photos += [(p.relative_to(place).as_posix(), p) for p in inside]
        else:
            photos.append((place.name, place))
    if not photos:
        raise DataError(f"no photos in {', '.join(map(str, places))} (looked for {', '.join(IMAGE_ENDINGS)})")
    once = {}
    for name, path in photos:
        once.setdefault(os.path.realpath(path), (name, path))
    photos = list(once.values())
    counts = Counter(name for name, _ in photos)
    return [(name if counts[name] == 1 else path.as_posix(), path) for name, path in photos]


def jobs(options):
    """What to do, as (name, path, boxes or None): one job a photo, or one a run of rows of --boxes."""
    photos = list_photos(options.photos)
    if options.boxes is None:
        return [(name, path, None) for name, path in photos]
    paths, work = dict(photos), []
    for name, box in read_boxes(options.boxes):  # neighbouring rows of one photo are done at once
        if work and work[-1][0] == name:
            work[-1][2].append(box)
        else:
            work.append((name, paths.get(name), [box]))
    return work


def drawing_path(target, name, several):
    """Where the drawing of photo `name` goes: `target` itself for one photo if it names a picture, else below it.

    Pictures that are neither JPEG nor PNG are drawn as PNG, their names kept whole: x.webp becomes x.webp.png.
    """
    target = Path(target)
    if target.suffix.lower() in IMAGE_ENDINGS:
        if several:
            raise UsageError(f"--draw {target} names one picture, but there are several photos: give a folder")
        return target
    inside = Path(*(part for part in Path(name).parts if part not in ("/", "..", Path(name).anchor)))
    return target / (inside if inside.suffix.lower() in (".jpg", ".jpeg", ".png") else f"{inside}.png")


def main():
    parser = argparse.ArgumentParser(description="Find faces and 68 keypoints on each.")
    parser.add_argument("photos", nargs="+", metavar="PHOTO|FOLDER")
    parser.add_argument("--net", default=models.DEFAULT, help="a network or a checkpoint (default: %(default)s)")
    parser.add_argument("--detector", default=detector_architectures.DEFAULT,
                        choices=detector_architectures.names(), help="(default: %(default)s)")
    parser.add_argument("--boxes", metavar="CSV", help="name,left,top,width,height: tight boxes instead of a detector")
    parser.add_argument("--csv", metavar="OUT", help="one row a face; '-' for standard output")
    parser.add_argument("--json", metavar="OUT", help="one JSON object a line and face; '-' for standard output")
    parser.add_argument("--draw", metavar="FOLDER|FILE", help="draw the keypoints on copies of the photos")
    parser.add_argument("--style", default="points", choices=["points"], help="of --draw (default: %(default)s)")
    parser.add_argument("--min-confidence", type=number(float, 0, 1), default=MIN_CONFIDENCE,
                        help="leave out faces below (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: %(default)s)")
    parser.add_argument("--runtime", default="auto", choices=["auto", *runtimes.RUNTIMES],
                        help="what runs the network; auto: the quickest installed (default: %(default)s)")
    options = parser.parse_args()

    detector = KeypointDetector(options.net, options.detector, options.device, options.min_confidence, options.runtime)
    work = jobs(options)
    several = len({path for _, path, _ in work}) > 1
    drawings = {path: drawing_path(options.draw, name, several) for name, path, _ in work if options.draw and path}
    refuse_overwriting([path for _, path, _ in work if path] + ([Path(options.boxes)] if options.boxes else []),
                       [*drawings.values(), *(Path(p) for p in (options.csv, options.json) if p and p != "-")])
    with contextlib.ExitStack() as stack:
        outputs = []
        for target, line in ((options.csv, to_csv), (options.json, to_json)):
            if target:
                file = sys.stdout.buffer if target == "-" else stack.enter_context(open_whole(target))
                outputs.append((file, line))
        if options.csv:
            outputs[0][0].write(csv_header().encode())
        failed = process(detector, work, outputs, drawings, options)
    for message in failed:
        print(f"failed: {message}", file=sys.stderr)
    return 1 if failed else 0


def refuse_overwriting(inputs, outputs):
    """Raise UsageError if an output would replace an input or another output."""
    taken, places = {os.path.realpath(path) for path in inputs}, Counter(os.path.realpath(path) for path in outputs)
    for path in outputs:
        if os.path.realpath(path) in taken:
            raise UsageError(f"{path} would be written over, but it is one of the inputs; give another folder or name")
        if places[os.path.realpath(path)] > 1:
            raise UsageError(f"two outputs would go to {path}; give photos of different names, or another place")


def process(detector, work, outputs, drawings, options):
    """Do all jobs, go on past bad photos -> list of messages of what failed."""
    failed, faces_found, drawn = [], 0, {}
    waiting = Counter(path for _, path, _ in work)  # rows of one photo may stand apart in --boxes: drawn after the last
    told = sys.stderr if "-" in (options.csv, options.json) else sys.stdout
    bar = tqdm(work, unit="photo", disable=len(work) < 3 or not sys.stderr.isatty())
    for name, path, boxes in bar:
        waiting[path] -= 1
        try:
            if path is None:
                raise DataError(f"{name}: in {options.boxes}, but not among the photos given")
            image = read_image(path)
            faces = detector(image) if boxes is None else detector.at(image, boxes)
            for file, line in outputs:
                file.write("".join(line(name, face) for face in faces).encode("utf-8", "surrogateescape"))
            if options.draw:
                drawn.setdefault(path, []).extend(faces)
                if not waiting[path]:
                    draw(image, drawn.pop(path), drawings[path], options.style)
        except (DataError, cv2.error) as error:
            failed.append(printable(error if isinstance(error, DataError) else f"{path}: OpenCV: {error}"))
            continue
        faces_found += len(faces)
        if len(work) < 20:
            tqdm.write(f"{printable(name)}: {len(faces)} face{'s' * (len(faces) != 1)}", file=told)
    if len(work) >= 20:
        print(f"{len(work) - len(failed)} photos, {faces_found} faces", file=told)
    return failed


def printable(text):
    """Text that any terminal takes: names of files need not be UTF-8."""
    return str(text).encode("utf-8", "replace").decode()


def draw(image, faces, path, style):
    """Write a copy of the photo with its faces drawn."""
    from show import draw_faces

    ok, data = cv2.imencode(path.suffix, draw_faces(image, faces, style)[..., ::-1])
    if not ok:
        raise DataError(f"{path}: cannot be encoded as {path.suffix}")
    with open_whole(path) as file:
        file.write(data.tobytes())


if __name__ == "__main__":
    run(main)
