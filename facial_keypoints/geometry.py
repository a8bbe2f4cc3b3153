"""Geometry in the image: boxes, the square crop and its inverse, rotation, alignment of shapes."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from facial_keypoints.errors import DataError

LARGEST_WARPED = 2**15  # pixels a side; OpenCV's maps hold places in 16 bits
CROP_SCALE = 1.25  # side of the square crop / longer side of the tight box, of most layouts


def tight_box(points: np.ndarray) -> np.ndarray:
    """Keypoints (…, k, 2) -> their box (…, 4): left, top, width, height in the same units; missing
    points (nan) are left out."""
    points = np.asarray(points, np.float32)
    low, high = np.fmin.reduce(points, axis=-2), np.fmax.reduce(points, axis=-2)
    return np.concatenate([low, high - low], -1)


def overlap(a: np.ndarray, b: np.ndarray, of_smaller: bool = False) -> np.ndarray:
    """Intersection over union (n,) of boxes (n, 4) with one box (4,). With `of_smaller`,
    intersection over the area of the smaller box: 1 if one box is inside the other."""
    low, high = np.maximum(a[:, :2], b[:2]), np.minimum(a[:, :2] + a[:, 2:], b[:2] + b[2:])
    both, areas = np.clip(high - low, 0, None).prod(1), (a[:, 2:].prod(1), b[2:].prod())
    return both / (np.minimum(*areas) if of_smaller else sum(areas) - both)


def crop_matrix(
    box: np.ndarray | Sequence[float],
    side: int,
    zoom: float = 1.0,
    angle: float = 0.0,
    shift: np.ndarray | Sequence[float] = (0.0, 0.0),
    mirror: bool = False,
    scale: float = CROP_SCALE,
) -> np.ndarray:
    """Affine (2, 3) float64 that takes pixels of the image to pixels of the square crop around
    `box`.

    box: left, top, width, height of the tight box. `side` pixels of the crop show `scale`
    (the layout's `crop_scale`) × the longer side of the box × `zoom`. The crop is centered on the
    box, moved by `shift` (shares of the crop's side, along the axes of the image) and rotated
    clockwise by `angle` degrees, so that a face with this roll is upright in it. Its content is
    mirrored if `mirror`. Raises DataError for a box without width and height, or with values that
    are not finite.
    """
    left, top, width, height = (float(v) for v in box)
    outer = scale * max(width, height) * zoom
    # a sum is finite only if all its terms are
    if not (math.isfinite(left + top + width + height + outer) and outer > 0):
        raise DataError(f"a box of {width:g}×{height:g} pixels holds no face")
    center = np.array([left + width / 2 + shift[0] * outer, top + height / 2 + shift[1] * outer])
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear = np.array([[cos, sin], [-sin, cos]]) * side / outer
    if mirror:
        linear[0] *= -1
    return np.column_stack([linear, (side - 1) / 2 - linear @ center])


def crop_image(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Cut the crop of `crop_matrix` out of a uint8 image (h, w[, 3]) -> (side, side[, 3]); outside
    is black.

    A crop that shrinks more than twofold is first resized by area averages, to avoid aliasing.
    """
    (a, b), (c, d) = matrix[:, :2].tolist()
    scale = abs(a * d - b * c) ** 0.5
    if scale >= 0.5 and max(image.shape) < LARGEST_WARPED:
        return warp(image, matrix, (side, side))
    inverse = cv2.invertAffineTransform(matrix)
    corners = (
        np.array([[-1, -1], [side, -1], [-1, side], [side, side]]) @ inverse[:, :2].T
        + inverse[:, 2]
    )
    margin = 2 + 2 / scale
    low = np.clip(np.floor(corners.min(0) - margin), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin) + 1, 0, image.shape[1::-1]).astype(int)
    if (high <= low).any():
        return np.zeros((side, side, *image.shape[2:]), np.uint8)
    region = image[low[1] : high[1], low[0] : high[0]]
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ low])
    if scale < 0.5:
        size = np.maximum(np.ceil((high - low) * scale * 2), 1).astype(int)
        # exact, so that points stay in place: x = (x' + 1/2) ratio - 1/2
        ratio = (high - low) / size
        region = cv2.resize(region, size.tolist(), interpolation=cv2.INTER_AREA)
        linear = matrix[:, :2] * ratio
        matrix = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)])
    return warp(region, matrix, (side, side))


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (h, w[, 3]) of uint8, mapped by an affine `matrix` (2, 3), bilinear -> an image of
    `size` (width, height); outside is black.

    cv2.warpAffine rounds differently in OpenCV 4 and 5, by up to four gray levels. These are the
    integers of OpenCV 4 (places in 32nds of a pixel), given to cv2.remap, which is the same in
    both; the page computes them too. Images have less than LARGEST_WARPED rows and columns.
    """
    inverse = cv2.invertAffineTransform(matrix)
    columns, rows = np.arange(size[0]), np.arange(size[1])
    # far outside is as black as farther outside
    far = 2.0**30
    across = np.rint(np.clip(inverse[:, :1] * columns * 1024, -far, far)).astype(np.int32)
    down = np.clip((inverse[:, 1:2] * rows + inverse[:, 2:]) * 1024, -far, far)
    down = np.rint(down).astype(np.int32) + 16  # half of 1/32
    places = (down[:, :, None] + across[:, None, :]) >> 5  # (2, rows, columns)
    pixels = np.clip(places >> 5, -LARGEST_WARPED, LARGEST_WARPED - 1).astype(np.int16)
    parts = places & 31
    return cv2.remap(
        image,
        np.dstack([pixels[0], pixels[1]]),
        (parts[1] * 32 + parts[0]).astype(np.uint16),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )


def to_targets(points: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Points (…, k, 2) in pixels of the image -> targets, -1…1 from edge to edge of the crop of
    `matrix` (…, 2, 3)."""
    matrix = np.asarray(matrix, np.float64)
    inside = (
        np.asarray(points, np.float64) @ np.swapaxes(matrix[..., :2], -1, -2)
        + matrix[..., None, :, 2]
    )
    return ((2 * inside + 1) / side - 1).astype(np.float32)


def targets_to_pixels(targets: np.ndarray, side: int) -> np.ndarray:
    """Targets, -1…1 from edge to edge of a crop of `side` pixels -> pixels of the crop."""
    return ((np.asarray(targets, np.float64) + 1) * side - 1) / 2


def to_points(targets: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """The inverse of `to_targets`: targets (…, k, 2) -> points in pixels of the image."""
    matrix = np.asarray(matrix, np.float64)
    inside = targets_to_pixels(targets, side)
    inverse = np.linalg.inv(matrix[..., :2])
    return ((inside - matrix[..., None, :, 2]) @ np.swapaxes(inverse, -1, -2)).astype(np.float32)


def rolled(vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Vectors (n, k, 2), rotated clockwise by angles (n,) in degrees."""
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    turns = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return vectors @ turns.swapaxes(-1, -2)


def align_shapes(shapes: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity transforms that map shapes (n, k, 2) to `mean` (k, 2) with least squared error.

    Returns linear (n, 2, 2) and offset (n, 2): a mapped shape is shape @ linear + offset.
    """
    center, origin = shapes.mean(1), mean.mean(0)
    x, y = shapes - center[:, None], mean - origin
    square = (x**2).sum((1, 2))
    cos = (x * y).sum((1, 2)) / square
    sin = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(1) / square
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    return linear, origin - np.einsum("ni,nij->nj", center, linear)


def relative_box(box: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    """Where `other` (4,) lies relative to `box` (4,): the shift of its center and its size, as
    multiples of the width and height of `box` -> (x, y, width, height)."""
    x, y = (other[:2] + other[2:] / 2 - box[:2] - box[2:] / 2) / box[2:]
    width, height = other[2:] / box[2:]
    return tuple(float(value) for value in (x, y, width, height))


def rotated_copy(size: tuple[int, int], angle: float) -> tuple[np.ndarray, list[int]]:
    """Matrix (2, 3) that rotates an image of `size` (height, width) counter-clockwise by `angle`
    degrees, and the size (width, height) that contains the whole result."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear, (height, width) = np.array([[cos, sin], [-sin, cos]]), size
    new = np.ceil(np.abs(linear) @ (width, height)) if angle else np.array([width, height])
    return np.column_stack(
        [linear, (new - 1) / 2 - linear @ ((width - 1) / 2, (height - 1) / 2)]
    ), new.astype(int).tolist()


def boxes_differ(boxes: np.ndarray, better: np.ndarray, allowed: float) -> np.ndarray:
    """Mask (n,) of the boxes (n, 4) that differ from `better` (n, 4): the centers are farther apart
    than `allowed` × the longer side of `better`, or the logarithms of the two longer sides differ
    by more than 1.5 × `allowed`."""
    side, better_side = boxes[:, 2:].max(1), better[:, 2:].max(1)
    away = np.linalg.norm(
        boxes[:, :2] + boxes[:, 2:] / 2 - better[:, :2] - better[:, 2:] / 2, axis=1
    )
    return (away > allowed * better_side) | (np.abs(np.log(side / better_side)) > 1.5 * allowed)
