"""Transforms and augmentation of samples {'image', 'keypoints'}."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from facial_keypoints.geometry import crop_image, crop_matrix, tight_box
from facial_keypoints.layouts import Layout, load_layout
from research.augmentation.corruptions import CORRUPTIONS
from research.augmentation.occlusions import ANYWHERE, ON_FACES, Cover, covered, half


class Compose:
    """Transforms one after another. Each is called as `transform(sample, rng)`: randomness is
    passed in, never global."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = list(transforms)

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


class Rescale:
    """Resize to `output_size`: an int for the shorter side (proportions kept), or (height,
    width)."""

    def __init__(self, output_size: int | tuple[int, int]):
        self.output_size = output_size

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        image, points = sample["image"], sample["keypoints"]
        height, width = image.shape[:2]
        if isinstance(self.output_size, int):
            ratio = self.output_size / min(height, width)
            new_height, new_width = max(round(height * ratio), 1), max(round(width * ratio), 1)
        else:
            new_height, new_width = self.output_size
        shrinks = new_width < width or new_height < height
        image = cv2.resize(
            image,
            (new_width, new_height),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        ratio = np.array([new_width / width, new_height / height], np.float32)
        # integers are centers of pixels
        return {**sample, "image": image, "keypoints": (points + 0.5) * ratio - 0.5}


class RandomCrop:
    """Cut a window of `output_size` (int or (height, width)) at a random place; every place is
    equally likely."""

    def __init__(self, output_size: int | tuple[int, int]):
        self.output_size = (
            (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        )

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        rng = rng or np.random.default_rng()
        image, points = sample["image"], sample["keypoints"]
        height, width = image.shape[:2]
        new_height, new_width = self.output_size
        if new_height > height or new_width > width:
            raise ValueError(
                f"RandomCrop({new_height}, {new_width}) does not fit into an image of "
                f"{height}×{width}; "
                "put a Rescale to at least that size before it"
            )
        top = int(rng.integers(0, height - new_height + 1))
        left = int(rng.integers(0, width - new_width + 1))
        image = image[top : top + new_height, left : left + new_width]
        return {**sample, "image": image, "keypoints": points - np.array([left, top], np.float32)}


class FaceCrop:
    """The square crop around the keypoints' tight box, as at inference; with jitter for training,
    in one affine warp.

    zoom: standard deviation of the log scale; place: standard deviation of the shift, as a share of
    the crop side; angle: standard deviation of the rotation, in degrees; mirror: mirror half of the
    samples and renumber their keypoints; wild: share of the samples whose jitter is uniform within
    ±3 standard deviations, to simulate rotated heads and inaccurate boxes; empty: share of negative
    crops (background or a small part of the face), with NaN keypoints. layout: of the keypoints;
    one without mirror pairs is never mirrored. Adds 'matrix' (2, 3), from frame to crop, which
    `to_points` inverts; 'visible' (k,), if given, is renumbered with the keypoints.
    """

    def __init__(
        self,
        side: int,
        zoom: float = 0.0,
        place: float = 0.0,
        angle: float = 0.0,
        mirror: bool = False,
        wild: float = 0.0,
        empty: float = 0.0,
        layout: str | Layout = "ibug68",
    ):
        self.layout = load_layout(layout)
        self.side, self.zoom, self.place, self.angle = side, zoom, place, angle
        self.mirror, self.wild, self.empty = mirror and bool(self.layout.mirror), wild, empty

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        rng = rng or np.random.default_rng()
        jitter = rng.uniform(-3, 3, 4) if rng.random() < self.wild else rng.normal(size=4)
        zoom, place, angle = self.zoom * jitter[0], self.place * jitter[1:3], self.angle * jitter[3]
        mirror = self.mirror and bool(rng.random() < 0.5)
        points = sample["keypoints"]
        box = sample.get("box", tight_box(points))
        visible = sample.get("visible")
        if self.empty and rng.random() < self.empty:
            box = negative_box(box, sample["image"].shape, rng)
            points = np.full_like(points, np.nan)
            visible = None if visible is None else np.full_like(visible, np.nan)
        matrix = crop_matrix(
            box, self.side, np.exp(zoom), angle, place, mirror, self.layout.crop_scale
        )
        image = crop_image(sample["image"], matrix, self.side)
        points = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        order = self.layout.flip_indices if mirror else slice(None)
        sample = {
            **sample,
            "image": image,
            "keypoints": points[order],
            "matrix": matrix.astype(np.float32),
        }
        if visible is not None:
            sample["visible"] = visible[order]
        return sample


def negative_box(box: np.ndarray, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """A box (left, top, width, height) in pixels next to the face or on a small part of it, like
    false positives of detectors."""
    face = max(box[2:])
    for _ in range(10):
        side = face * rng.uniform(0.25, 1.0)
        center = rng.uniform(0, 1, 2) * shape[1::-1]
        # overlaps the face by little or nothing
        if (np.abs(center - (box[:2] + box[2:] / 2)) > (box[2:] + side) / 2 * 0.8).any():
            return np.array([*(center - side / 2), side, side])
    side = face * rng.uniform(0.1, 0.25)  # no such box: the face fills the picture
    return np.array([*(box[:2] + rng.uniform(0, 1, 2) * (box[2:] - side)), side, side])


class Augment:
    """Random changes of a gray crop: brightness, contrast, blur, noise, JPEG and occlusion.

    strength: scale of the changes; hard: share of samples that also get one strong corruption: low
    light, motion blur, oversharpening, low resolution with strong JPEG compression, or an occluded
    half. layout: of the keypoints; drawn: half of the occlusions are hands, glasses, masks and
    hair (ibug68 only). 'visible' (k,), if given, gets 0 for occluded keypoints.
    """

    def __init__(
        self,
        strength: float = 1.0,
        hard: float = 0.0,
        layout: str | Layout = "ibug68",
        drawn: bool = True,
    ):
        self.strength, self.hard = strength, hard
        self.drawn = ON_FACES if drawn and load_layout(layout) == load_layout() else ()

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        rng = rng or np.random.default_rng()
        image, s = sample["image"], self.strength
        if rng.random() < 0.25:  # out of focus, moved, or small and enlarged
            sigma = s * rng.uniform(0.3, 2.0)
            if rng.random() < 0.5:
                image = cv2.GaussianBlur(image, (0, 0), sigma)
            else:
                small = max(int(image.shape[0] / (1 + sigma)), 8)
                image = cv2.resize(
                    cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA),
                    image.shape[1::-1],
                )
        # gamma
        levels = np.linspace(0, 1, 256, dtype=np.float32) ** np.exp(0.35 * s * rng.normal())
        contrast, light = np.exp(0.3 * s * rng.normal()), 0.12 * s * rng.normal()
        levels = (levels - 0.5) * contrast + 0.5 + light
        image = np.clip(levels * 255, 0, 255).astype(np.uint8)[image]
        if rng.random() < 0.3:
            noise = rng.standard_normal(image.shape, np.float32) * (s * 15 * rng.random())
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            kinds = self.drawn if self.drawn and rng.random() < 0.5 else ANYWHERE
            image, sample = occlude(image, sample, kinds[rng.integers(len(kinds))], rng)
        if rng.random() < 0.15:
            ok, data = cv2.imencode(
                ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 70))]
            )
            image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if self.hard and rng.random() < self.hard:
            kind = rng.integers(len(CORRUPTIONS) + 1)
            if kind < len(CORRUPTIONS):
                image = CORRUPTIONS[kind](image, rng)
            else:
                image, sample = occlude(image, sample, half, rng)
        return {**sample, "image": image}


def occlude(
    image: np.ndarray, sample: dict, cover: Cover, rng: np.random.Generator
) -> tuple[np.ndarray, dict]:
    """The image with a cover, and its sample, in which covered keypoints get 'visible' 0. Where
    keypoints are missing, the cover is one that needs none."""
    points, missing = sample["keypoints"], np.isnan(sample["keypoints"]).any(-1)
    if (missing.any() or len(points) != len(load_layout())) and cover in ON_FACES:
        cover = ANYWHERE[0]
    if missing.all():
        corners = np.array([[0.1, 0.1], [0.9, 0.9]], np.float32) * image.shape[0]
        points = np.tile(corners, (len(points), 1))[: len(points)]
    image, hidden = covered(image, points, cover, rng)
    if "visible" in sample:
        visible = np.where(hidden & ~missing, np.float32(0), sample["visible"])
        sample = {**sample, "visible": visible}
    return image, sample


class Normalize:
    """Image: uint8 RGB or gray -> gray float32 in [0, 1]. Keypoints: pixels -> targets, which are
    -1 at one edge of the image and 1 at the other."""

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        image, points = sample["image"], sample["keypoints"]
        if image.dtype != np.uint8:
            raise ValueError(
                "Normalize takes uint8 images with 0…255 as decoded, not "
                f"{image.dtype}; "
                "a picture that is divided by 255 twice is black to the network"
            )
        if image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        size = np.array(image.shape[1::-1], np.float32)
        return {
            **sample,
            "image": image.astype(np.float32) / 255,
            "keypoints": (2 * points + 1) / size - 1,
        }


class ToTensor:
    """Image (h, w) or (h, w, c) -> tensor (c, h, w) of the same type; everything else that is an
    array -> tensor."""

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        image = sample["image"]
        image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        sample = {**sample, "image": np.ascontiguousarray(image)}
        return {
            k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in sample.items()
        }


# Udacity's chain: the shorter side of the frame at 250, a random window of 224 in it.
data_transform = Compose([Rescale(250), RandomCrop(224), Normalize(), ToTensor()])


@dataclass(frozen=True)
class Augmentation:
    """How strongly training samples are changed.

    zoom: standard deviation of the logarithm of the crop's scale
    place: standard deviation of its shift, as a share of its side
    angle: standard deviation of its rotation, in degrees
    strength: of changes of brightness, contrast, blur and noise (`Augment`)
    corrupted: share of the samples that get a strong corruption, such as low light or an occluded
        half, and, chosen independently, of those with large crop jitter
    drawn: whether half of the occlusions are hands, glasses, masks or hair
    """

    zoom: float = 0.12
    place: float = 0.06
    angle: float = 18.0
    strength: float = 1.0
    corrupted: float = 0.0
    drawn: bool = True


# from weak to strong; simple: covers are rectangles and ellipses only
AUGMENTATIONS = {
    "weak": Augmentation(zoom=0.03, place=0.015, angle=9.0, strength=0.5),
    "medium": Augmentation(zoom=0.06, place=0.03, angle=9.0, strength=0.5),
    "medium-simple": Augmentation(zoom=0.06, place=0.03, angle=9.0, strength=0.5, drawn=False),
    "strong-simple": Augmentation(drawn=False),
    "strong": Augmentation(corrupted=0.25),
}


def training_transform(
    side: int, augment: str = "strong", empty: float = 0.0, layout: str | Layout = "ibug68"
) -> Compose:
    """Face crop with jitter, augmentation, gray tensor (1, side, side) and targets (k, 2).

    augment: one of AUGMENTATIONS; empty: share of negative crops (no face); their targets are NaN.
    """
    chosen = AUGMENTATIONS[augment]
    crop = FaceCrop(
        side,
        zoom=chosen.zoom,
        place=chosen.place,
        angle=chosen.angle,
        mirror=True,
        wild=chosen.corrupted,
        empty=empty,
        layout=layout,
    )
    changes = Augment(chosen.strength, chosen.corrupted, layout, chosen.drawn)
    return Compose([crop, changes, Normalize(), ToTensor()])


def evaluation_transform(side: int, layout: str | Layout = "ibug68") -> Compose:
    """The crop of `training_transform` without jitter or augmentation."""
    return Compose([FaceCrop(side, layout=layout), Normalize(), ToTensor()])
