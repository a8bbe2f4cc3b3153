"""What happens to pictures and keypoints: the face crop and its inverse, rescaling, augmentation, tensors."""

import cv2
import numpy as np
import passive_threads  # noqa: F401 - before PyTorch
import torch

from errors import DataError

CROP_SCALE = 1.25  # side of the square crop / longer side of the tight box of the 68 points

# Where each keypoint lands in a mirrored picture (iBUG 68: jaw, brows, nose, eyes, mouth).
SWAP = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37,
     36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)


# ---------------------------------------------------------------- the face crop and its inverse

def tight_box(points):
    """Keypoints (…, 68, 2) -> their box (…, 4): left, top, width, height in the same units."""
    points = np.asarray(points, np.float32)
    low, high = points.min(-2), points.max(-2)
    return np.concatenate([low, high - low], -1)


def overlap(a, b, of_smaller=False):
    """Intersection over union of boxes (n, 4) with one box (4,); or over the smaller of the two: 1 for one in the other."""
    low, high = np.maximum(a[:, :2], b[:2]), np.minimum(a[:, :2] + a[:, 2:], b[:2] + b[2:])
    both, areas = np.clip(high - low, 0, None).prod(1), (a[:, 2:].prod(1), b[2:].prod())
    return both / (np.minimum(*areas) if of_smaller else sum(areas) - both)


def inter_ocular(points):
    """Keypoints (…, 68, 2) -> distance (…) between the outer eye corners, 36 and 45, in the same units."""
    return np.linalg.norm(points[..., 36, :] - points[..., 45, :], axis=-1)


def turned(points):
    """Keypoints (…, 68, 2) -> how far a head is turned: 0 frontal, -1 and 1 profiles, by the nose tip's place on the jaw."""
    left, nose, right = (points[..., i, 0] for i in (1, 30, 15))
    return np.clip((2 * nose - left - right) / (right - left), -1, 1)


def crop_matrix(box, side, zoom=1.0, angle=0.0, shift=(0.0, 0.0), mirror=False):
    """Affine (2, 3) float64 that takes pixels of the image to pixels of the square crop around `box`.

    box: left, top, width, height of the tight box. The crop is CROP_SCALE × its longer side × `zoom`, centred on it
    and moved by `shift` (in crop sides), turned by `angle` degrees, mirrored if asked.
    """
    left, top, width, height = (float(v) for v in box)
    outer = CROP_SCALE * max(width, height) * zoom
    if not (np.isfinite(outer) and outer > 0):
        raise DataError(f"a box of {width:g}×{height:g} pixels holds no face")
    centre = np.array([left + width / 2 + shift[0] * outer, top + height / 2 + shift[1] * outer])
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear = np.array([[cos, sin], [-sin, cos]]) * side / outer
    if mirror:
        linear[0] *= -1
    return np.column_stack([linear, (side - 1) / 2 - linear @ centre])


def crop_image(image, matrix, side):
    """Cut the crop of `crop_matrix` out of a uint8 image (h, w[, 3]) -> (side, side[, 3]); outside is black.

    Shrinking more than twofold averages first (area resize), so that large photos do not alias.
    """
    (a, b), (c, d) = matrix[:, :2].tolist()
    scale = abs(a * d - b * c) ** 0.5
    if scale >= 0.5 and max(image.shape) < 2**15:  # as far as warpAffine can count
        return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[-1, -1], [side, -1], [-1, side], [side, side]]) @ inverse[:, :2].T + inverse[:, 2]
    margin = 2 + 2 / scale
    low = np.clip(np.floor(corners.min(0) - margin), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin) + 1, 0, image.shape[1::-1]).astype(int)
    if (high <= low).any():
        return np.zeros((side, side, *image.shape[2:]), np.uint8)
    region = image[low[1]:high[1], low[0]:high[0]]
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ low])
    if scale < 0.5:
        size = np.maximum(np.ceil((high - low) * scale * 2), 1).astype(int)
        ratio = (high - low) / size  # exact, so that points stay in place: x = (x' + 1/2) ratio - 1/2
        region = cv2.resize(region, size.tolist(), interpolation=cv2.INTER_AREA)
        linear = matrix[:, :2] * ratio
        matrix = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)])
    return cv2.warpAffine(region, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def to_targets(points, matrix, side):
    """Points (…, k, 2) in pixels of the image -> targets, -1…1 from edge to edge of the crop of `matrix` (…, 2, 3)."""
    matrix = np.asarray(matrix, np.float64)
    inside = np.asarray(points, np.float64) @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]
    return ((2 * inside + 1) / side - 1).astype(np.float32)


def to_points(targets, matrix, side):
    """The inverse of `to_targets`: targets (…, k, 2) -> points in pixels of the image."""
    matrix = np.asarray(matrix, np.float64)
    inside = ((np.asarray(targets, np.float64) + 1) * side - 1) / 2
    inverse = np.linalg.inv(matrix[..., :2])
    return ((inside - matrix[..., None, :, 2]) @ np.swapaxes(inverse, -1, -2)).astype(np.float32)


# ---------------------------------------------------------------- transforms on samples {'image', 'keypoints'}

class Compose:
    """Transforms one after another. Each is called as `transform(sample, rng)`: chance is handed in, never global."""

    def __init__(self, transforms):
        self.transforms = list(transforms)

    def __call__(self, sample, rng=None):
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


class Rescale:
    """Resize to `output_size`: an int for the shorter side (proportions kept), or (height, width)."""

    def __init__(self, output_size):
        self.output_size = output_size

    def __call__(self, sample, rng=None):
        image, points = sample["image"], sample["keypoints"]
        height, width = image.shape[:2]
        if isinstance(self.output_size, int):
            ratio = self.output_size / min(height, width)
            new_height, new_width = max(round(height * ratio), 1), max(round(width * ratio), 1)
        else:
            new_height, new_width = self.output_size
        shrinks = new_width < width or new_height < height
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        ratio = np.array([new_width / width, new_height / height], np.float32)
        return {**sample, "image": image, "keypoints": (points + 0.5) * ratio - 0.5}  # pixel centres, hence the halves


class RandomCrop:
    """Cut a window of `output_size` (int or (height, width)) at a random place; every place is equally likely."""

    def __init__(self, output_size):
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)

    def __call__(self, sample, rng=None):
        rng = rng or np.random.default_rng()
        image, points = sample["image"], sample["keypoints"]
        height, width = image.shape[:2]
        new_height, new_width = self.output_size
        if new_height > height or new_width > width:
            raise ValueError(f"RandomCrop({new_height}, {new_width}) does not fit into an image of {height}×{width}; "
                             "put a Rescale to at least that size before it")
        top = int(rng.integers(0, height - new_height + 1))
        left = int(rng.integers(0, width - new_width + 1))
        image = image[top:top + new_height, left:left + new_width]
        return {**sample, "image": image, "keypoints": points - np.array([left, top], np.float32)}


class FaceCrop:
    """The square crop around the keypoints' tight box, as in use; with jitter for training, in one affine warp.

    zoom, place: standard deviations as a share of the crop; angle in degrees; mirror: half of the samples are
    mirrored and their keypoints renamed; wild: share of the samples whose jitter is uniform within three deviations,
    as heads are that tilt and boxes that miss; empty: share of the samples that show something else or a small part of
    the face, their keypoints NaN. Adds 'matrix' (2, 3), from which `to_points` finds the way back.
    """

    def __init__(self, side, zoom=0.0, place=0.0, angle=0.0, mirror=False, wild=0.0, empty=0.0):
        self.side, self.zoom, self.place, self.angle, self.mirror = side, zoom, place, angle, mirror
        self.wild, self.empty = wild, empty

    def __call__(self, sample, rng=None):
        rng = rng or np.random.default_rng()
        jitter = rng.uniform(-3, 3, 4) if rng.random() < self.wild else rng.normal(size=4)
        zoom, place, angle = self.zoom * jitter[0], self.place * jitter[1:3], self.angle * jitter[3]
        mirror = self.mirror and bool(rng.random() < 0.5)
        points = sample["keypoints"]
        box = sample.get("box", tight_box(points))
        if self.empty and rng.random() < self.empty:
            box, points = elsewhere(box, sample["image"].shape, rng), np.full_like(points, np.nan)
        matrix = crop_matrix(box, self.side, np.exp(zoom), angle, place, mirror)
        image = crop_image(sample["image"], matrix, self.side)
        points = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        points = points[SWAP] if mirror else points
        return {**sample, "image": image, "keypoints": points, "matrix": matrix.astype(np.float32)}


def elsewhere(box, shape, rng):
    """A box beside the face, or on a small part of it, as detectors invent them: left, top, width, height in pixels."""
    face = max(box[2:])
    for _ in range(10):
        side = face * rng.uniform(0.25, 1.0)
        centre = rng.uniform(0, 1, 2) * shape[1::-1]
        if (np.abs(centre - (box[:2] + box[2:] / 2)) > (box[2:] + side) / 2 * 0.8).any():  # nearly apart from the face
            return np.array([*(centre - side / 2), side, side])
    side = face * rng.uniform(0.1, 0.25)  # the face fills the picture
    return np.array([*(box[:2] + rng.uniform(0, 1, 2) * (box[2:] - side)), side, side])


class Augment:
    """What cameras do to a gray crop: light, contrast, blur, noise, compression, and something held before the face.

    hard: share of the samples that suffer one thing more, and badly: darkness, a moving camera, sharpening, few pixels
    and strong compression, or half of the face hidden.
    """

    def __init__(self, strength=1.0, hard=0.0):
        self.strength, self.hard = strength, hard

    def __call__(self, sample, rng=None):
        rng = rng or np.random.default_rng()
        image, s = sample["image"], self.strength
        if rng.random() < 0.25:  # out of focus, moved, or small and enlarged
            sigma = s * rng.uniform(0.3, 2.0)
            if rng.random() < 0.5:
                image = cv2.GaussianBlur(image, (0, 0), sigma)
            else:
                small = max(int(image.shape[0] / (1 + sigma)), 8)
                image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), image.shape[1::-1])
        levels = np.linspace(0, 1, 256, dtype=np.float32) ** np.exp(0.35 * s * rng.normal())  # gamma
        contrast, light = np.exp(0.3 * s * rng.normal()), 0.12 * s * rng.normal()
        levels = (levels - 0.5) * contrast + 0.5 + light
        image = np.clip(levels * 255, 0, 255).astype(np.uint8)[image]
        if rng.random() < 0.3:
            noise = rng.standard_normal(image.shape, np.float32) * (s * 15 * rng.random())
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            image = self._cover(image.copy(), rng)
        if rng.random() < 0.15:
            ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 70))])
            image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if self.hard and rng.random() < self.hard:
            image = HARDSHIPS[rng.integers(len(HARDSHIPS))](image, rng)
        return {**sample, "image": image}

    @staticmethod
    def _cover(image, rng):
        side = image.shape[0]
        width, height = (rng.uniform(0.1, 0.45, 2) * side).astype(int) + 1
        left, top = rng.integers(-width // 2, side - width // 2), rng.integers(-height // 2, side - height // 2)
        patch = image[max(top, 0):top + height, max(left, 0):left + width]
        patch[:] = rng.integers(0, 256, patch.shape) if rng.random() < 0.3 else rng.integers(0, 256)
        return image


def darkened(image, rng):
    """Little light and the noise that comes with it, on a gray uint8 image."""
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(1, 5)
    return np.clip(image * np.float32(rng.uniform(0.06, 0.3)) + noise, 0, 255).astype(np.uint8)


def smeared(image, rng):
    """A camera that moved by up to an eighth of the crop while it looked."""
    length = max(int(image.shape[0] * rng.uniform(0.03, 0.125)), 2)
    kernel = np.zeros((length, length), np.float32)
    reach, angle = (length - 1) / 2, rng.uniform(0, np.pi)
    ends = [tuple(round(reach + sign * reach * f(angle)) for f in (np.cos, np.sin)) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def sharpened(image, rng):
    """The edges of a large photograph, or of a telephone that overdoes them."""
    return cv2.addWeighted(image, 1 + (more := rng.uniform(0.5, 3)), cv2.GaussianBlur(image, (0, 0), 1.5), -more, 0)


def crude(image, rng):
    """A face of 20 to 40 pixels, strongly compressed."""
    small = cv2.resize(image, (int(rng.integers(24, 48)),) * 2, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))])[1]
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), image.shape[1::-1])


def half_hidden(image, rng):
    """One side of a line across the crop's middle is another part of the picture, or flat."""
    side = image.shape[0]
    across, angle = np.arange(side, dtype=np.float32) - (side - 1) / 2, rng.uniform(0, 2 * np.pi)
    hidden = across[None] * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle)) > rng.uniform(0, side / 4)
    other = np.roll(image, rng.integers(side // 4, 3 * side // 4, 2), (0, 1)) if rng.random() < 0.5 else rng.integers(0, 256)
    return np.where(hidden, other, image).astype(np.uint8)


HARDSHIPS = (darkened, smeared, sharpened, crude, half_hidden)


class Normalize:
    """uint8 RGB or gray -> gray float32 in [0, 1]; keypoints in pixels -> targets, -1…1 from edge to edge."""

    def __call__(self, sample, rng=None):
        image, points = sample["image"], sample["keypoints"]
        if image.dtype != np.uint8:
            raise ValueError(f"Normalize takes uint8 images with 0…255 as decoded, not {image.dtype}; "
                             "a picture that is divided by 255 twice is black to the network")
        if image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        size = np.array(image.shape[1::-1], np.float32)
        return {**sample, "image": image.astype(np.float32) / 255, "keypoints": (2 * points + 1) / size - 1}


class ToTensor:
    """Image (h, w) or (h, w, c) -> float tensor (c, h, w); everything else that is an array -> tensor."""

    def __call__(self, sample, rng=None):
        image = sample["image"]
        image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        sample = {**sample, "image": np.ascontiguousarray(image)}
        return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in sample.items()}


# The original project's chain: the whole frame, its shorter side at 250, a window of 224 anywhere in it.
data_transform = Compose([Rescale(250), RandomCrop(224), Normalize(), ToTensor()])


# How far boxes miss, faces tilt and pictures suffer, of the widest there is; and the share of samples that are made hard.
AUGMENTATIONS = {"fine": (0.25, 0.5, 0.5, 0.0), "gentle": (0.5, 0.5, 0.5, 0.0), "plain": (1.0, 1.0, 1.0, 0.0),
                 "hard": (1.0, 1.0, 1.0, 0.25)}


def training_transform(side, augment="hard", empty=0.0):
    """Face crop with jitter, augmentation, gray tensor (1, side, side) and targets (68, 2).

    augment: 'plain' knows photographs like the training frames, 'gentle' those alone that are crisp, in boxes that fit,
    'fine' boxes that fit more closely still; 'hard' also tilted, dark, blurred, half hidden ones and boxes that miss.
    empty: share of crops that show no face; their targets are NaN.
    """
    miss, tilt, strength, hard = AUGMENTATIONS[augment]
    crop = FaceCrop(side, zoom=0.12 * miss, place=0.06 * miss, angle=18 * tilt, mirror=True, wild=hard, empty=empty)
    return Compose([crop, Augment(strength, hard), Normalize(), ToTensor()])


def evaluation_transform(side):
    """The same crop without jitter or augmentation."""
    return Compose([FaceCrop(side), Normalize(), ToTensor()])
