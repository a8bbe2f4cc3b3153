"""Small scenes for training a face detector: faces of all sizes, turned and rolled, between parts
of other frames and clutter, with the place of each."""

from typing import NamedTuple

import cv2
import numpy as np

from facial_keypoints.geometry import rolled
from facial_keypoints.head import level_boxes
from research.data.frames import Frames
from research.augmentation.head_rotation import TurnedViews
from research.synthetic.faces import clutter

SIDE = 128  # of a scene in pixels
# ranges of the size of a face, the square root of width times height, in pixels; COMMON: the share
# of faces with a size of the first range
COMMON_SIZES, RARE_SIZES, COMMON = (18.0, 62.0), (8.0, 110.0), 0.6
MAX_ROLL = 75.0  # degrees
MOST_COVERED = 0.45  # faces that are covered by more than this share are ignored in training
LEAST_COVERED = 0.8  # of these, faces covered by more than this share count as background
PROBES = np.stack(np.meshgrid(*[(np.arange(9) + 0.5) / 4.5 - 1] * 2), -1).reshape(-1, 2)


class Placed(NamedTuple):
    """Faces of a scene: center (n, 2), width and height (n, 2) in pixels, roll (n,) in degrees, and
    which share of each is covered by something or outside (n,)."""

    centers: np.ndarray
    sizes: np.ndarray
    rolls: np.ndarray
    covered: np.ndarray


class Canvas:
    """A gray image (side, side) onto which faces and other things are pasted."""

    def __init__(self, side: int = SIDE):
        self.side, self.image = side, np.zeros((side, side), np.float32)
        self.boxes: list[tuple] = []  # center, size, roll
        self.free: list[np.ndarray] = []  # for each face: which of PROBES are not covered

    def probes(self, center: np.ndarray, size: np.ndarray, roll: float) -> np.ndarray:
        """Places (81, 2) spread over the box of a face."""
        return rolled(PROBES[None] * size / 2, np.array([roll]))[0] + center

    def cover(self, mask: np.ndarray) -> None:
        """Note which parts of the faces are behind a mask (side, side)."""
        for box, free in zip(self.boxes, self.free, strict=True):
            places = np.rint(self.probes(*box)).astype(int)
            inside = ((places >= 0) & (places < self.side)).all(1)
            places = places.clip(0, self.side - 1)
            free &= inside & (mask[places[:, 1], places[:, 0]] < 0.5)

    def paste(self, image: np.ndarray, matrix: np.ndarray, mask: np.ndarray) -> None:
        """Paste the part `mask` (side, side), 0 to 1, of an image that is moved by a matrix."""
        levels = warped(image, matrix, self.side)
        self.cover(mask)
        self.image += mask * (levels - self.image)

    def add_face(self, center: np.ndarray, size: np.ndarray, roll: float) -> None:
        """Note a face that was pasted."""
        self.boxes.append((center, size, roll))
        places = self.probes(center, size, roll)
        self.free.append(np.asarray(((places >= 0) & (places <= self.side - 1)).all(1)))

    def placed(self) -> Placed:
        """Its faces."""
        if not self.boxes:
            return Placed(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
        centers, sizes, rolls = map(np.array, zip(*self.boxes, strict=True))
        return Placed(centers, sizes, rolls, 1 - np.array([free.mean() for free in self.free]))


def warped(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """An image moved by a matrix (2, 3) that turns and scales -> (side, side); its border is
    continued outside. It is first shrunk by area averages where it gets much smaller."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 0.7:
        size = np.maximum(np.rint(np.array(image.shape[1::-1]) * scale * 1.4), 1)
        ratio = image.shape[1::-1] / size
        image = cv2.resize(image, size.astype(int).tolist(), interpolation=cv2.INTER_AREA)
        matrix = np.column_stack(
            [matrix[:, :2] * ratio, matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)]
        )
    return cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


class FaceScenes:
    """Scenes of annotated frames and of their heads turned to other sides.

    `scenes(rng)` draws one: gray uint8 (SIDE, SIDE), and its faces. textures: gray pictures without
    faces. turned: share of the faces that are turned heads.
    """

    def __init__(
        self,
        frames: Frames,
        textures: tuple[np.ndarray, ...] = (),
        turned: float = 0.4,
        seed: int = 0,
        bar: bool = True,
    ):
        self.grays = [
            cv2.cvtColor(frames.image(row), cv2.COLOR_RGB2GRAY) for row in range(len(frames))
        ]
        self.points, self.layout = frames.points, frames.layout
        self.views = TurnedViews(frames, seed, bar) if turned else None
        self.textures, self.turned = textures, turned

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, Placed]:
        canvas = Canvas()
        if rng.random() < 0.7:
            self.paste_face(canvas, rng, whole=True)
        else:
            self.paste_texture(canvas, rng, whole=True)
        for _ in range(rng.integers(0, 5)):
            if rng.random() < 0.65:
                self.paste_face(canvas, rng)
            else:
                self.paste_texture(canvas, rng)
        if rng.random() < 0.3:
            beyond_border(canvas, rng)
        return photographed(canvas.image, rng), canvas.placed()

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A gray picture of one face and its keypoints (k, 2), mirrored half of the time."""
        row = int(rng.integers(len(self.grays)))
        if self.views and rng.random() < self.turned:
            gray, points, _ = self.views(row, rng)
        else:
            gray, points = self.grays[row], self.points[row]
        if rng.random() < 0.5:
            points = (points * [-1, 1] + [gray.shape[1] - 1, 0])[self.layout.flip_indices]
            gray = np.ascontiguousarray(gray[:, ::-1])
        return gray, points

    def paste_face(self, canvas: Canvas, rng: np.random.Generator, whole: bool = False) -> None:
        """Paste a face with its surroundings: the whole picture, or a rectangle or an ellipse of
        it."""
        gray, points = self.draw(rng)
        boxes, rolls = level_boxes(points[None], self.layout)
        middle, size = boxes[0, :2] + boxes[0, 2:] / 2, boxes[0, 2:]
        roll = rng.normal(0, 12) if rng.random() < 0.5 else rng.uniform(-MAX_ROLL, MAX_ROLL)
        sizes = COMMON_SIZES if rng.random() < COMMON else RARE_SIZES
        scale = np.exp(rng.uniform(*np.log(sizes))) / np.sqrt(size.prod())
        center = rng.uniform(-0.05, 1.05, 2) * canvas.side
        matrix = placing(middle, center, scale, roll - rolls[0])
        if whole:
            mask = np.ones((canvas.side, canvas.side), np.float32)
        else:
            low = np.maximum(middle - size * rng.uniform(0.6, 1.6, 2), 0)
            high = np.minimum(middle + size * rng.uniform(0.6, 1.6, 2), gray.shape[1::-1])
            mask = shape_mask(low, high, matrix, canvas.side, rng)
        canvas.paste(gray, matrix, mask)
        canvas.add_face(center, size * scale, float(roll))

    def paste_texture(self, canvas: Canvas, rng: np.random.Generator, whole: bool = False) -> None:
        """Paste something that is no face: a texture, clutter, a part of a frame without its
        face, or letters."""
        kind = rng.integers(4)
        if kind == 0 and self.textures:
            gray = self.textures[rng.integers(len(self.textures))]
        elif kind == 1:
            row = int(rng.integers(len(self.grays)))
            gray = band_of(self.grays[row], self.points[row], rng)
        elif kind == 2:
            gray = np.full((96, 96), rng.uniform(0, 255), np.float32)
            for _ in range(rng.integers(1, 5)):
                text = "".join(map(chr, rng.integers(33, 127, rng.integers(1, 8))))
                cv2.putText(
                    gray,
                    text,
                    rng.integers(-20, 96, 2).tolist(),
                    int(rng.integers(0, 8)),
                    rng.uniform(0.4, 3),
                    rng.uniform(0, 255),
                    int(rng.integers(1, 6)),
                    cv2.LINE_AA,
                )
        else:
            gray = clutter(rng, 96, 96)[..., 0] + rng.uniform(40, 215)
        gray = gray.astype(np.float32)
        scale = np.exp(rng.uniform(np.log(0.25), np.log(3)))
        if whole:
            scale = max(scale, 1.5 * canvas.side / min(gray.shape))
        center, angle = rng.uniform(0.1, 0.9, 2) * canvas.side, rng.uniform(-180, 180)
        matrix = placing(rng.uniform(0.2, 0.8, 2) * gray.shape[::-1], center, scale, angle)
        if whole:
            mask = np.ones((canvas.side, canvas.side), np.float32)
        else:
            half = np.exp(rng.uniform(np.log(6), np.log(50), 2)) / scale
            place = cv2.invertAffineTransform(matrix) @ [*center, 1]
            mask = shape_mask(place - half, place + half, matrix, canvas.side, rng)
        canvas.paste(gray, matrix, mask)


def band_of(gray: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the four bands of a frame above, below, left and right of its face."""
    low, high = points.min(0), points.max(0)
    x0, y0, x1, y1 = map(int, [*np.maximum(low, 0), *np.minimum(high + 1, gray.shape[::-1])])
    bands = [gray[:y0], gray[y1:], gray[:, :x0], gray[:, x1:]]
    bands = [band for band in bands if min(band.shape) >= 12]
    return bands[rng.integers(len(bands))] if bands else gray[:12, :12]


def placing(middle: np.ndarray, center: np.ndarray, scale: float, angle: float) -> np.ndarray:
    """The matrix (2, 3) that scales and turns clockwise by an angle in degrees, and takes `middle`
    to `center`."""
    cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, center - linear @ middle])


def shape_mask(
    low: np.ndarray, high: np.ndarray, matrix: np.ndarray, side: int, rng: np.random.Generator
) -> np.ndarray:
    """The mask (side, side), 0 to 1, of a rectangle or of its ellipse that is moved by a matrix,
    with a more or less soft edge."""
    if rng.random() < 0.5:
        corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    else:
        t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        corners = (low + high) / 2 + np.stack([np.cos(t), np.sin(t)], -1) * (high - low) / 2
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(moved * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    soft = rng.uniform(0, 3)
    mask = cv2.GaussianBlur(mask, (0, 0), soft) if soft > 0.7 else mask
    return mask / np.float32(255)


def beyond_border(canvas: Canvas, rng: np.random.Generator) -> None:
    """Let the picture end inside of the scene, on one side or two: nothing is there."""
    mask = np.zeros((canvas.side, canvas.side), np.float32)
    for turn in rng.choice(4, rng.integers(1, 3), replace=False):
        np.rot90(mask, turn)[: int(rng.integers(2, canvas.side // 2))] = 1
    canvas.cover(mask)
    canvas.image[mask > 0] = 0


def photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random contrast, brightness, blur and noise of a gray image -> uint8."""
    nothing = image == 0  # beyond the border
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))
    image = 255 * (np.clip(image, 0, 255) / 255) ** np.exp(rng.normal(0, 0.35))
    contrast = np.exp(rng.normal(-0.2, 0.35)) if rng.random() < 0.8 else rng.uniform(0.1, 0.5)
    darkest = rng.uniform(0, 255 * max(1 - contrast, 0)) + rng.normal(0, 10)
    image = image * contrast + darkest
    noise = rng.uniform(0, 10) * min(contrast, 1)
    image = image + rng.standard_normal(image.shape, np.float32) * noise
    return np.where(nothing, 0, np.clip(image, 0, 255)).astype(np.uint8)
