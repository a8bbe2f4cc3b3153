"""The statistical model of synthetic faces: learned from annotated frames, stored, checked."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write
from facial_keypoints.geometry import align_shapes
from facial_keypoints.head import mirrored
from research.data.frames import Frames

MODEL = SAVED_MODELS / "sample_faces.npz"
SIDE, CHROMA = 144, 32  # sides of the mean-shape frame in pixels: luminance, color channels
# longer side of the mean shape / side of that frame; the rest is hair, neck and background
FACE = 0.46
SHAPE_MODES, TEXTURE_MODES = 30, 190


def procrustes_mean(shapes: np.ndarray) -> np.ndarray:
    """Generalized Procrustes analysis of shapes (n, 68, 2) -> mean (68, 2) in pixels of the
    mean-shape frame.

    The mean is symmetric if each shape is given together with its mirror image.
    """
    mean = shapes[0] - shapes[0].mean(0)
    for _ in range(10):
        linear, offset = align_shapes(shapes, mean)
        mean = (shapes @ linear + offset[:, None]).mean(0)
        eyes = mean[42:48].mean(0) - mean[36:42].mean(0)  # upright, with fixed size and position
        cos, sin = eyes / np.linalg.norm(eyes)
        mean = mean @ np.array([[cos, -sin], [sin, cos]])
        low, high = mean.min(0), mean.max(0)
        mean = (mean - (low + high) / 2) * FACE * SIDE / (high - low).max()
        mean += [(SIDE - 1) / 2, 0.55 * (SIDE - 1)]
    return mean


def frame_points() -> np.ndarray:
    """Points (16, 2) on the border of the mean-shape frame, in pixels.

    They follow the scale, rotation and position of a face, but not its shape, and anchor hair and
    background.
    """
    t, far = np.linspace(0, SIDE - 1, 5)[:4], SIDE - 1
    zero = np.zeros(4)
    return np.concatenate(
        [
            np.column_stack(s)
            for s in ((t, zero), (zero + far, t), (far - t, zero + far), (zero, far - t))
        ]
    )


def barycentric(
    points: np.ndarray, triangles: np.ndarray, side: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric coordinates of the pixels of a square frame.

    points (k, 2) in pixels, triangles (t, 3) -> for each pixel the indices (side², 3) of the
    corners of its triangle, and their weights (side², 3).
    """
    pixels = (
        np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
    )
    corners, weights = np.zeros((len(pixels), 3), int), np.zeros((len(pixels), 3))
    closest = np.full(len(pixels), -np.inf)
    for triangle in triangles:
        a, b, c = points[triangle]
        inverse = np.linalg.inv(np.column_stack([b - a, c - a]))
        uv = (pixels - a) @ inverse.T
        w = np.column_stack([1 - uv.sum(1), uv])
        inside = w.min(1) > closest
        corners[inside], weights[inside], closest[inside] = triangle, w[inside], w.min(1)[inside]
    return corners, weights


# long: the arrays of the model, one after another, each from those before
def learn(frames: Frames, bar: bool = True) -> tuple[dict, np.ndarray, np.ndarray]:
    """Learn the model from the training side of annotated frames.

    Returns the model as a dictionary of arrays, the coefficients (2n, modes) of the n frames and
    of their mirror images, and the person (2n,) of each row (NAME* for a mirror image).
    """
    from matplotlib.tri import Triangulation

    rows = np.flatnonzero(frames.sides == "training")
    if len(rows) <= TEXTURE_MODES:
        raise DataError(
            f"{frames.data}: {len(rows)} training frames; more than {TEXTURE_MODES} "
            "are needed to learn from"
        )
    shapes = frames.points[rows].astype(np.float64)
    both = np.concatenate([shapes, mirrored(shapes)])
    mean = procrustes_mean(both)
    ring = frame_points()
    triangles = Triangulation(*np.concatenate([mean, ring]).T).triangles
    face = hull_mask(mean)
    luminance, chroma, light, sizes = warped_textures(frames, rows, mean, triangles, bar)

    # Mirrored frames are treated as frames of other people: faces are rarely symmetric.
    # the background gets a smaller weight, so that the modes describe faces
    weight = cv2.GaussianBlur(np.where(face, 1, 0.4).astype(np.float32), (0, 0), SIDE / 30)
    textures = np.concatenate(
        [pack(luminance * weight, chroma), pack((luminance * weight)[..., ::-1], chroma[..., ::-1])]
    )
    people = np.concatenate([frames.people[rows], [p + "*" for p in frames.people[rows]]])
    videos = np.concatenate([frames.videos[rows], [v + "*" for v in frames.videos[rows]]])
    linear, offset = align_shapes(both, mean)
    aligned = (both @ linear + offset[:, None] - mean).reshape(len(both), -1)

    texture_mean = textures.mean(0)
    textures -= texture_mean
    shape_modes, shape_scale, shape_coefficients = components(aligned, SHAPE_MODES)
    texture_modes, texture_scale, texture_coefficients = components(textures, TEXTURE_MODES)
    coefficients = np.concatenate([shape_coefficients, texture_coefficients], 1)
    person, video, frame = levels(coefficients, people, videos)

    layout = places(linear[: len(rows)], offset[: len(rows)], mean, sizes, light)
    return (
        {
            "mean": mean,
            "ring": ring,
            "triangles": triangles,
            "weight": weight,
            "texture_mean": texture_mean,
            "shape_modes": shape_modes,
            "shape_scale": shape_scale,
            "texture_modes": texture_modes,
            "texture_scale": texture_scale,
            "person": person,
            "video": video,
            "frame": frame,
            "layout_quantiles": np.quantile(layout, np.linspace(0.01, 0.99, 33), axis=0),
            "layout_correlation": np.corrcoef(ranks(layout).T),
        },
        coefficients,
        people,
    )


def warped_textures(
    frames: Frames, rows: np.ndarray, mean: np.ndarray, triangles: np.ndarray, bar: bool
) -> tuple[np.ndarray, ...]:
    """The faces of frames, warped to the mean shape: luminance (n, SIDE, SIDE) with mean 0 and
    deviation 1 inside the face, chroma (n, 2, CHROMA, CHROMA), this mean and deviation (n, 2), and
    the sizes of the frames (n, 2), width and height."""
    ring, face, shapes = frame_points(), hull_mask(mean), frames.points[rows].astype(np.float64)
    corners, weights = barycentric(np.concatenate([mean, ring]), triangles)
    sizes = np.zeros((len(rows), 2))
    luminance = np.zeros((len(rows), SIDE, SIDE), np.float32)
    chroma = np.zeros((len(rows), 2, CHROMA, CHROMA), np.float32)
    light = np.zeros((len(rows), 2))
    linear, offset = align_shapes(shapes, mean)
    for i, row in enumerate(
        tqdm(rows, desc="warping to the mean shape", unit="frame", disable=not bar)
    ):
        image = frames.image(row)
        sizes[i] = image.shape[1::-1]
        points = np.concatenate([shapes[i], (ring - offset[i]) @ np.linalg.inv(linear[i])])
        place = (
            (points[corners] * weights[..., None]).sum(1).reshape(SIDE, SIDE, 2).astype(np.float32)
        )
        texture = cv2.cvtColor(
            cv2.remap(image, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            cv2.COLOR_RGB2YCrCb,
        ).astype(np.float32)
        light[i] = texture[..., 0][face].mean(), texture[..., 0][face].std() + 1
        luminance[i] = (texture[..., 0] - light[i, 0]) / light[i, 1]
        chroma[i] = (
            cv2.resize(texture[..., 1:], (CHROMA, CHROMA), interpolation=cv2.INTER_AREA).transpose(
                2, 0, 1
            )
            - 128
        )
    return luminance, chroma, light, sizes


def places(
    linear: np.ndarray, offset: np.ndarray, mean: np.ndarray, sizes: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """Where faces lie in their frames and how they are lit (n, 8): logarithms of width, aspect and
    scale, center as shares of the frame, angle in degrees, brightness, logarithm of contrast."""
    size = np.linalg.norm(linear[:, 0], axis=1)  # mean-shape pixels per image pixel
    angle = np.degrees(np.arctan2(linear[:, 0, 1], linear[:, 0, 0]))
    center = (mean.mean(0) - offset)[:, None] @ np.linalg.inv(linear)
    return np.column_stack(
        [
            np.log(sizes[:, 0]),
            np.log(sizes[:, 1] / sizes[:, 0]),
            -np.log(size) - np.log(sizes[:, 0]),
            center[:, 0] / sizes,
            angle,
            light[:, 0],
            np.log(light[:, 1]),
        ]
    )


def hull_mask(mean: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) True inside the convex hull of the mean shape."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(mean.round().astype(np.int32)), 1)
    return mask.astype(bool)


def pack(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Luminance (n, SIDE, SIDE) and color (n, 2, CHROMA, CHROMA) -> textures (n, d); color has a
    weight of 1/16."""
    return np.concatenate(
        [luminance.reshape(len(luminance), -1), chroma.reshape(len(chroma), -1) / 16], 1
    )


def components(
    data: np.ndarray, count: int, rounds: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of centered rows (n, d) -> modes (count, d), their standard deviations
    (count,), and whitened coefficients (n, count).

    Randomized (Halko, Martinsson, Tropp, SIAM Review 2011), with `rounds` of power iterations.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, s, v = torch.pca_lowrank(
            torch.from_numpy(data), min(count + 10, *data.shape), center=False, niter=rounds
        )
    modes, scale = v.numpy().T[:count], s.numpy()[:count] / np.sqrt(len(data))
    return modes, scale, data @ modes.T / scale


def levels(coefficients: np.ndarray, people: np.ndarray, videos: np.ndarray) -> list[np.ndarray]:
    """Split the covariance of coefficients (n, d) into three levels -> a square root (d, d) of
    each.

    The levels are: between people, between videos of a person, between frames of a video.
    """

    def centered(values, groups):
        _, index = np.unique(groups, return_inverse=True)
        means = np.stack([np.bincount(index, v) for v in values.T], 1) / np.bincount(index)[:, None]
        return means[index]

    by_video, by_person = centered(coefficients, videos), centered(coefficients, people)
    parts = (by_person, by_video - by_person, coefficients - by_video)
    return [root(np.cov(part.T)) for part in parts]


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0))


def ranks(columns: np.ndarray) -> np.ndarray:
    """Each column's values replaced by normal scores of their ranks (a Gaussian copula)."""
    order = columns.argsort(0).argsort(0)
    return normal_quantile((order + 0.5) / len(columns))


def normal_quantile(p: np.ndarray) -> np.ndarray:
    return np.vectorize(NormalDist().inv_cdf)(p)


def save_model(path: str | Path, model: dict) -> None:
    """Store a model: modes as 8-bit integers with one scale per mode, triangles as 8-bit integers,
    other large arrays as float16, small ones as float32."""
    stored = {}
    for key, value in model.items():
        if key.endswith("_modes"):
            peak = np.abs(value).max(1, keepdims=True)
            stored[key], stored[key + "_peak"] = (
                np.round(value / peak * 127).astype(np.int8),
                peak.astype(np.float32),
            )
        else:
            stored[key] = value.astype(
                np.uint8 if key == "triangles" else np.float16 if value.size > 5000 else np.float32
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)
    atomic_write(path, buffer.getvalue())


@cache
def load_appearance(path: str | Path = MODEL) -> dict:
    """The stored model as a dictionary of float32 arrays (triangles: int). Raises DataError."""
    cure = "restore it by git checkout, or build it: python -m scripts.build_appearance_model"
    if not Path(path).exists():
        raise DataError(f"{path}: the model of synthetic faces is missing; {cure}")
    try:
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in stored.files}
        model = {
            key: value.astype(np.float32) for key, value in arrays.items() if key != "triangles"
        }
        for key in ("shape_modes", "texture_modes"):
            model[key] *= model.pop(key + "_peak") / 127
        return {**model, "triangles": arrays["triangles"].astype(int)}
    except Exception as error:
        # a damaged archive can raise any exception; pickled objects in it are never loaded
        raise DataError(
            f"{path}: not a model of synthetic faces ({type(error).__name__}); {cure}"
        ) from None


def limited(coefficients: np.ndarray, limit: float = 3.0) -> np.ndarray:
    """Compress coefficients smoothly into ±`limit` standard deviations, because extreme values do
    not look like faces."""
    return limit * np.tanh(coefficients / limit)


def nearest(
    a: np.ndarray, b: np.ndarray, same: Callable | None = None, block: int = 500
) -> np.ndarray:
    """Distance (n,) from each row of `a` (n, d) to the nearest row of `b` (m, d).

    same: a function from row numbers of `a` (k,) to a mask (k, m) of the rows of `b` to ignore.
    """
    square, result = (b**2).sum(1), []
    for start in range(0, len(a), block):
        part = a[start : start + block]
        distance = (part**2).sum(1)[:, None] + square - 2 * part @ b.T
        if same is not None:
            distance[same(np.arange(start, start + len(part)))] = np.inf
        result.append(np.sqrt(distance.min(1).clip(0)))
    return np.concatenate(result)


def privacy(
    model: dict, coefficients: np.ndarray, people: np.ndarray, draws: int = 4000, seed: int = 0
) -> None:
    """Print how far synthetic faces are from training faces, and how far people are from each
    other.

    Raises DataError if synthetic faces are closer to training faces than people to each other.
    """
    rng = np.random.default_rng(seed)
    drawn = limited(
        sum(
            rng.standard_normal((draws, len(model[k]))) @ model[k].T
            for k in ("person", "video", "frame")
        )
    )
    names = np.array([p.rstrip("*") for p in people])
    to_training = np.percentile(nearest(drawn, coefficients), 1)
    to_others = np.percentile(
        nearest(coefficients, coefficients, lambda i: names[i][:, None] == names[None]), 1
    )
    print(
        "first percentile of the distance, in standard deviations of the "
        f"{coefficients.shape[1]} coefficients:\n"
        f"  synthetic face to the nearest training face        {to_training:.2f}\n"
        f"  training face to the nearest one of another person {to_others:.2f}"
    )
    if to_training < to_others:
        raise DataError(
            "synthetic faces are closer to training faces than people are to each other"
        )
