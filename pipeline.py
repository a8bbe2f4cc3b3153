"""Photo -> faces -> keypoints in that photo's pixels: `find_keypoints("photo.jpg")`, or the command."""

import argparse
import contextlib
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

import detector_architectures
import models
import runtimes
import uses
from data_load import learned_shift
from errors import DataError, named, number, run
from pictures import read_image
from transforms import crop_image, crop_matrix, overlap, tight_box, to_points

# Keeps all true boxes of an eager Haar on the official validation frames, and one in twenty of those it invents there:
# python benchmarks/confidence.py
MIN_CONFIDENCE = 0.5
UNLIKE = 0.15  # `uses.unlikeness` from which a face is doubted; at twice that it is none
DOUBLE = 0.57  # share of the smaller box inside another from which two faces are one: faces do not hold faces
HOPELESS = 0.1  # below it nothing is gained by looking again


@dataclass
class Face:
    """One face: points (68, 2) and their tight box (4,), left, top, width, height, in pixels; confidence in 0…1.

    Where boxes were given, `box` is the given one.
    """

    box: np.ndarray
    points: np.ndarray
    confidence: float
    point_confidence: np.ndarray = None  # (68,) in 0…1
    pose: uses.Pose = None  # where it was asked for
    identity: int = None  # of a face that is followed over frames, from 1


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
    runtime: openvino, onnx or torch, 'auto' for the quickest that is installed; threads: of the network for one call (0: as
    many as the runtime chooses; a single face gains nothing from a second one);
    tilted: look for faces tilted up to 45 degrees as well, on turned copies of the photo.
    Faces whose confidence (the network's, over all points, times their likeness to a head) is below `min_confidence` are
    left out, and so is the less confident of two that lie on one another. Where none is left, the detector's `fallback`
    is asked, if it has one.
    One KeypointDetector may be shared by any number of threads, if its detector may be (all of detector_architectures/ may).
    """

    looks = 3  # at the most: crops around the answers in the one before, until crop and answers fit; boxes need not
    batch = 64  # faces at once

    def __init__(self, net=models.DEFAULT, detector=detector_architectures.DEFAULT, device="auto",
                 min_confidence=MIN_CONFIDENCE, runtime="auto", threads=1, tilted=False):
        device = models.best_device(device)
        self.weights = models.find_weights(net)
        self.net, self.checkpoint = models.load_checkpoint(self.weights, device)
        self.predict = runtimes.compile_net(self.net, runtime, device, threads)
        self.detector = detector_architectures.load_detector(detector) if isinstance(detector, str) else detector
        self.side, self.min_confidence, self.tilted = models.input_size(self.net), min_confidence, tilted

    def __call__(self, photo):
        return self.detect(photo)[0]

    def detect(self, photo):
        """All faces of a photo: those accepted, the largest first, and the rejected ones, the most confident first.

        Rejected are the faces at boxes of the face detector whose confidence is below `min_confidence`.
        """
        image, faces, rejected, detector = as_image(photo), [], [], self.detector
        while detector and not faces:
            candidates = self.at(image, *self.search(image, detector))
            faces = self.believed(candidates)
            rejected += [face for face in candidates if face.confidence < self.min_confidence]
            detector = getattr(detector, "fallback", None)
            detector = detector_architectures.load_detector(detector) if isinstance(detector, str) else detector
        return (sorted(faces, key=lambda face: -face.box[2] * face.box[3]),
                sorted(rejected, key=lambda face: -face.confidence))

    def believed(self, faces):
        """The faces that the network is sure enough of, each once, the surest first."""
        kept = []
        for face in sorted(faces, key=lambda face: -face.confidence):
            box = tight_box(face.points)
            double = kept and overlap(np.stack([other.box for other in kept]), box, of_smaller=True).max() > DOUBLE
            if face.confidence >= self.min_confidence and not double:
                face.box = box
                kept.append(face)
        return kept

    def search(self, image, detector):
        """Tight boxes (n, 4) of what a detector finds, and how far each is tilted (n,) in degrees."""
        found, fit = [], getattr(detector, "fit", (0, 0, 1, 1))  # boxes of a detector without one are tight already
        for angle in (0, -30, 30, -55, 55) if self.tilted else (0,):
            matrix, size = turned_copy(image.shape[:2], angle)
            copy = image if angle == 0 else cv2.warpAffine(image, matrix, size)
            boxes = detector_architectures.to_tight(detector.detect(copy)[0], fit)
            middles = (boxes[:, :2] + boxes[:, 2:] / 2 - matrix[:, 2]) @ matrix[:, :2]  # back, by a rotation's inverse
            boxes[:, :2] = middles - boxes[:, 2:] / 2
            found.append((boxes, np.full(len(boxes), float(angle))))
        return tuple(np.concatenate(column) for column in zip(*found, strict=True))

    def at(self, photo, boxes, angles=None):
        """Keypoints at given tight boxes (n, 4): one Face a box, in their order, whatever the confidence.

        angles (n,): how far the faces are tilted clockwise, in degrees; their crops are turned back.
        """
        gray = cv2.cvtColor(as_image(photo), cv2.COLOR_RGB2GRAY)
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        faces, angles = [], np.zeros(len(boxes)) if angles is None else angles
        for start in range(0, len(boxes), self.batch):
            some = slice(start, start + self.batch)
            used, tilts = boxes[some].copy(), np.array(angles[some], np.float64)
            points, confidence = self.look(gray, used, tilts)
            for _ in range(self.looks - 1):
                better, level = level_boxes(points)
                again = (misfit(used, better) | (np.abs(tilts - level) > 10)) & (confidence.mean(1) > HOPELESS)
                if not again.any():
                    break
                used[again], tilts[again] = better[again], level[again]
                points[again], confidence[again] = self.look(gray, used[again], tilts[again])
            points = points - learned_shift(points, self.checkpoint["data"])  # answers are to sit on the features
            faces += [Face(b, p, float(c.mean() * like), c) for b, p, c, like in
                      zip(boxes[some], points, confidence, likeness(points), strict=True)]
        return faces

    def look(self, gray, boxes, angles):
        """The network's answers in crops of boxes (n, 4): points (n, 68, 2) in pixels, confidence (n, 68)."""
        matrices = np.stack([crop_matrix(box, self.side, angle=a) for box, a in zip(boxes, angles, strict=True)])
        crops = np.stack([crop_image(gray, matrix, self.side) for matrix in matrices])
        targets, confidence = self.predict(crops[:, None].astype(np.float32) / 255)
        if not np.isfinite(targets).all() or not np.isfinite(confidence).all():
            raise DataError(f"{self.weights}: answers that are no numbers; the weights are broken, train them again")
        return to_points(targets, matrices, self.side), confidence


def likeness(points):
    """Keypoints (n, 68, 2) -> (n,) 1 for what may be a head, as 99.9 % of the official labels may, 0 for what is none."""
    return np.clip(2 - uses.unlikeness(points) / UNLIKE, 0, 1)


def turned_copy(size, angle):
    """Matrix (2, 3) that turns a picture of size (height, width) by -angle degrees, and the size (width, height) to hold it."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear, (height, width) = np.array([[cos, sin], [-sin, cos]]), size
    new = np.ceil(np.abs(linear) @ (width, height)) if angle else np.array([width, height])
    return np.column_stack([linear, (new - 1) / 2 - linear @ ((width - 1) / 2, (height - 1) / 2)]), new.astype(int).tolist()


def misfit(boxes, better, allowed=0.03):
    """(n,) True where boxes (n, 4) are off by more than a share of the longer side of better ones, in place or in size."""
    side, better_side = boxes[:, 2:].max(1), better[:, 2:].max(1)
    away = np.linalg.norm(boxes[:, :2] + boxes[:, 2:] / 2 - better[:, :2] - better[:, 2:] / 2, axis=1)
    return (away > allowed * better_side) | (np.abs(np.log(side / better_side)) > 1.5 * allowed)


def level_boxes(points):
    """Keypoints (n, 68, 2) -> the boxes (n, 4) that are tight once faces are turned level, and their tilts (n,) in degrees."""
    tilt = uses.tilt(points)
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    turns = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)  # (n, 2, 2): by -tilt
    boxes = tight_box(points @ turns.swapaxes(-1, -2))
    middles = ((boxes[:, None, :2] + boxes[:, None, 2:] / 2) @ turns)[:, 0]
    return np.concatenate([middles - boxes[:, 2:] / 2, boxes[:, 2:]], 1), tilt


def find_keypoints(photo, **options):
    """Faces of one photo (path, array or PIL image), or a list of such lists for a list of photos.

    `options` are those of KeypointDetector. The detector of the last call is kept: a loop over photos loads it once.
    """
    weights = models.find_weights(options.get("net", models.DEFAULT))
    changed = weights.stat().st_mtime_ns if weights.is_file() else None
    detector = _kept_detector(changed, **options)
    return [detector(one) for one in photo] if isinstance(photo, (list, tuple)) else detector(photo)


@lru_cache(maxsize=1)
def _kept_detector(changed, **options):
    """The detector of `find_keypoints`, made anew for other options or when the file of weights has `changed`."""
    return KeypointDetector(**options)


# ---------------------------------------------------------------- command

def main():
    import photos
    from formats import ANSWERS, PtsAnswers, open_whole, refuse_overwriting

    parser = argparse.ArgumentParser(description="Find faces and 68 keypoints on each, in photos and clips.")
    parser.add_argument("photos", nargs="*", type=named, metavar="PHOTO|FOLDER|CLIP")
    parser.add_argument("--camera", type=number(int, 0), metavar="N", help="follow faces before a camera until Ctrl-C")
    parser.add_argument("--net", default=models.DEFAULT, help="a network or a checkpoint (default: %(default)s)")
    parser.add_argument("--detector", default=detector_architectures.DEFAULT,
                        choices=detector_architectures.names(), help="(default: %(default)s)")
    parser.add_argument("--tilted", action="store_true", help="find faces tilted up to 45 degrees too; five times slower")
    parser.add_argument("--boxes", type=named, metavar="CSV",
                        help="name,left,top,width,height: tight boxes instead of a detector")
    parser.add_argument("--csv", type=named, metavar="OUT", help="one row a face; '-' for standard output")
    parser.add_argument("--json", type=named, metavar="OUT",
                        help="one JSON object a line and face, with its pose; '-' for standard output")
    parser.add_argument("--coco", type=named, metavar="OUT", help="COCO keypoints JSON; '-' for standard output")
    parser.add_argument("--pts", type=named, metavar="FOLDER", help="a .pts file a face, named after its photo")
    parser.add_argument("--draw", type=named, metavar="FOLDER|FILE", help="draw on copies of the photos and clips")
    parser.add_argument("--style", default="points", choices=["points", *uses.STYLES],
                        help="of --draw; blur makes faces unrecognisable (default: %(default)s)")
    parser.add_argument("--min-confidence", type=number(float, 0, 1), default=MIN_CONFIDENCE,
                        help="leave out faces below (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: %(default)s)")
    parser.add_argument("--runtime", default="auto", choices=["auto", *runtimes.RUNTIMES],
                        help="what runs the network; auto: the quickest installed (default: %(default)s)")
    parser.add_argument("--threads", type=number(int, 0), default=1,
                        help="of the network; 0: as many as the runtime chooses (default: %(default)s)")
    parser.add_argument("--without-faces", type=named, metavar="OUT",
                        help="write the names of photos in which no face was accepted, one a line")
    options = parser.parse_args()
    if (options.camera is None) == (not options.photos):
        parser.error("give photos, folders or clips, or --camera")

    detector = KeypointDetector(options.net, options.detector, options.device, options.min_confidence, options.runtime,
                                options.threads, options.tilted)
    work = photos.jobs(options) if options.photos else []
    several = len({path for _, path, _ in work}) > 1
    drawings = {path: photos.drawing_path(options.draw, name, several) for name, path, _ in work if options.draw and path}
    targets = {kind: getattr(options, kind) for kind in ANSWERS if getattr(options, kind)}
    refuse_overwriting([*(path for _, path, _ in work if path), *filter(None, [options.boxes]), detector.weights],
                       [*drawings.values(), *(Path(target) for target in targets.values() if target != "-")])
    if options.pts:
        photos.refuse_beside(options.pts, work)
    with contextlib.ExitStack() as stack:
        answers = [ANSWERS[kind](sys.stdout.buffer if target == "-" else stack.enter_context(open_whole(target)))
                   for kind, target in targets.items()]
        if options.pts:
            answers.append(PtsAnswers(options.pts))
        if options.camera is None:
            failed = photos.process(detector, work, answers, drawings, options)
        else:
            failed = []
            photos.follow(detector, options.camera, f"camera{options.camera}", answers, options.draw, options, sys.stderr)
        for file in answers:
            file.end()
    for message in failed:
        print(f"failed: {message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
