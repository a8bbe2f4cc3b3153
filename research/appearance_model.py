"""The statistical model of synthetic faces: learned from annotated frames, stored, checked."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import research.passive_threads  # noqa: F401 - before PyTorch
import torch
from tqdm.auto import tqdm

from facial_keypoints.assets import SAVED_MODELS
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write
from facial_keypoints.geometry import FLIP_INDICES
from research.frames import Frames

MODEL = SAVED_MODELS / "sample_faces.npz"
SIDE, CHROMA = 144, 32  # of the mean-shape frame: luminance, and each of the two color channels
# share of that frame that the mean shape takes; the rest is hair, neck and what is behind
FACE = 0.46
SHAPE_MODES, TEXTURE_MODES = 30, 190



def align(shapes: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity (n, 2, 2) and (n, 2) that bring shapes (n, k, 2) closest to `mean`: shape @ linear
    + offset."""
    center, origin = shapes.mean(1), mean.mean(0)
    x, y = shapes - center[:, None], mean - origin
    square = (x ** 2).sum((1, 2))
    cos = (x * y).sum((1, 2)) / square
    sin = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(1) / square
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    return linear, origin - np.einsum("ni,nij->nj", center, linear)


def mean_shape(shapes: np.ndarray) -> np.ndarray:
    """Generalized Procrustes analysis -> mean (68, 2) in the mean-shape frame, symmetric if the
    shapes are."""
    mean = shapes[0] - shapes[0].mean(0)
    for _ in range(10):
        linear, offset = align(shapes, mean)
        mean = (shapes @ linear + offset[:, None]).mean(0)
        eyes = mean[42:48].mean(0) - mean[36:42].mean(0)  # upright, and at a fixed size and place
        cos, sin = eyes / np.linalg.norm(eyes)
        mean = mean @ np.array([[cos, -sin], [sin, cos]])
        low, high = mean.min(0), mean.max(0)
        mean = (mean - (low + high) / 2) * FACE * SIDE / (high - low).max()
        mean += [(SIDE - 1) / 2, 0.55 * (SIDE - 1)]
    return mean


def frame_points() -> np.ndarray:
    """16 points on the border of the mean-shape frame: they move with pose alone and hold hair and
    background."""
    t, far = np.linspace(0, SIDE - 1, 5)[:4], SIDE - 1
    zero = np.zeros(4)
    return np.concatenate([np.column_stack(s)
                           for s in ((t, zero), (zero + far, t), (far - t, zero + far),
                                     (zero, far - t))])


def barycentric(points: np.ndarray, triangles: np.ndarray,
                side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of a square frame: its triangle's corners (side², 3) and their weights (side²,
    3)."""
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



def build(frames: Frames, bar: bool = True) -> tuple[dict, np.ndarray, np.ndarray]:
    """Learn the model from the training side of annotated frames -> dictionary of arrays
    (float32)."""
    from matplotlib.tri import Triangulation

    rows = np.flatnonzero(frames.sides == "training")
    if len(rows) <= TEXTURE_MODES:
        raise DataError(f"{frames.data}: {len(rows)} training frames; more than {TEXTURE_MODES} "
                        "are needed to learn from")
    shapes = frames.points[rows].astype(np.float64)
    sizes = np.zeros((len(rows), 2))
    mirrored = shapes[:, FLIP_INDICES] * [-1, 1]
    mean = mean_shape(np.concatenate([shapes, mirrored]))
    ring = frame_points()
    triangles = Triangulation(*np.concatenate([mean, ring]).T).triangles
    corners, weights = barycentric(np.concatenate([mean, ring]), triangles)

    luminance = np.zeros((len(rows), SIDE, SIDE), np.float32)
    chroma = np.zeros((len(rows), 2, CHROMA, CHROMA), np.float32)
    light = np.zeros((len(rows), 2))
    # the modes are to spend themselves on faces, not on what is behind: weighed below
    face = hull_mask(mean)
    linear, offset = align(shapes, mean)
    for i, row in enumerate(tqdm(rows, desc="warping to the mean shape", unit="frame",
                                 disable=not bar)):
        image = frames.image(row)
        sizes[i] = image.shape[1::-1]
        points = np.concatenate([shapes[i], (ring - offset[i]) @ np.linalg.inv(linear[i])])
        place = (
            (points[corners] * weights[..., None]).sum(1).reshape(SIDE, SIDE, 2).astype(np.float32)
        )
        texture = cv2.cvtColor(cv2.remap(image, place, None, cv2.INTER_LINEAR,
                                         borderMode=cv2.BORDER_REPLICATE),
                               cv2.COLOR_RGB2YCrCb).astype(np.float32)
        light[i] = texture[..., 0][face].mean(), texture[..., 0][face].std() + 1
        luminance[i] = (texture[..., 0] - light[i, 0]) / light[i, 1]
        chroma[i] = cv2.resize(texture[..., 1:], (CHROMA, CHROMA),
                               interpolation=cv2.INTER_AREA).transpose(2, 0, 1) - 128

    # Mirrored frames count as other people: a face and its mirror image are rarely alike.
    weight = cv2.GaussianBlur(np.where(face, 1, 0.4).astype(np.float32), (0, 0), SIDE / 30)
    textures = np.concatenate([pack(luminance * weight, chroma),
                               pack((luminance * weight)[..., ::-1], chroma[..., ::-1])])
    people = np.concatenate([frames.people[rows], [p + "*" for p in frames.people[rows]]])
    videos = np.concatenate([frames.videos[rows], [v + "*" for v in frames.videos[rows]]])
    both = np.concatenate([shapes, mirrored])
    linear, offset = align(both, mean)
    aligned = (both @ linear + offset[:, None] - mean).reshape(len(both), -1)

    texture_mean = textures.mean(0)
    textures -= texture_mean
    shape_modes, shape_scale, shape_coefficients = components(aligned, SHAPE_MODES)
    texture_modes, texture_scale, texture_coefficients = components(textures, TEXTURE_MODES)
    coefficients = np.concatenate([shape_coefficients, texture_coefficients], 1)
    person, video, frame = levels(coefficients, people, videos)

    size = np.linalg.norm(linear[: len(rows), 0], axis=1)  # mean-shape pixels per image pixel
    angle = np.degrees(np.arctan2(linear[: len(rows), 0, 1], linear[: len(rows), 0, 0]))
    center = (mean.mean(0) - offset[: len(rows)])[:, None] @ np.linalg.inv(linear[: len(rows)])
    layout = np.column_stack([np.log(sizes[:, 0]), np.log(sizes[:, 1] / sizes[:, 0]),
                              -np.log(size) - np.log(sizes[:, 0]),
                              center[:, 0] / sizes, angle, light[:, 0], np.log(light[:, 1])])
    return {
        "mean": mean, "ring": ring, "triangles": triangles, "weight": weight,
        "texture_mean": texture_mean,
        "shape_modes": shape_modes, "shape_scale": shape_scale, "texture_modes": texture_modes,
        "texture_scale": texture_scale, "person": person, "video": video, "frame": frame,
        "layout_quantiles": np.quantile(layout, np.linspace(0.01, 0.99, 33), axis=0),
        "layout_correlation": np.corrcoef(ranks(layout).T),
    }, coefficients, people


def hull_mask(mean: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) True inside the convex hull of the mean shape."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(mean.round().astype(np.int32)), 1)
    return mask.astype(bool)


def pack(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Luminance (n, SIDE, SIDE) and color (n, 2, CHROMA, CHROMA) -> textures (n, d); color counts
    for less."""
    return np.concatenate([luminance.reshape(len(luminance), -1),
                           chroma.reshape(len(chroma), -1) / 16], 1)


def components(data: np.ndarray, count: int, rounds: int = 4,
               seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of centered rows (n, d) -> modes (count, d), their standard deviations,
    whitened coefficients.

    Randomized (Halko, Martinsson, Tropp, SIAM Review 2011), with `rounds` of power iterations.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, s, v = torch.pca_lowrank(torch.from_numpy(data), min(count + 10, *data.shape),
                                            center=False, niter=rounds)
    modes, scale = v.numpy().T[:count], s.numpy()[:count] / np.sqrt(len(data))
    return modes, scale, data @ modes.T / scale


def levels(coefficients: np.ndarray, people: np.ndarray, videos: np.ndarray) -> list[np.ndarray]:
    """Split the covariance of coefficients into people, videos of a person, frames of a video ->
    three square roots."""
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
    """Store a model: modes as 8-bit integers with one scale each, the rest as 16-bit floats."""
    stored = {}
    for key, value in model.items():
        if key.endswith("_modes"):
            peak = np.abs(value).max(1, keepdims=True)
            stored[key], stored[key + "_peak"] = (
                np.round(value / peak * 127).astype(np.int8),
                peak.astype(np.float32),
            )
        else:
            stored[key] = value.astype(np.uint8 if key == "triangles" else np.float16
                                       if value.size > 5000 else np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)
    atomic_write(path, buffer.getvalue())


@cache
def load_model(path: str | Path = MODEL) -> dict:
    """The stored model as a dictionary of float32 arrays. Raises DataError that names the file."""
    cure = "git checkout brings it back, python -m research.build_appearance_model makes it anew"
    if not Path(path).exists():
        raise DataError(f"{path}: the model of synthetic faces is missing; {cure}")
    try:
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in stored.files}
        model = {key: value.astype(np.float32) for key,
                 value in arrays.items() if key != "triangles"}
        for key in ("shape_modes", "texture_modes"):
            model[key] *= model.pop(key + "_peak") / 127
        return {**model, "triangles": arrays["triangles"].astype(int)}
    except Exception as error:
        # a damaged archive of arrays can raise anything; it is never unpickled
        raise DataError(
            f"{path}: not a model of synthetic faces ({type(error).__name__}); {cure}"
        ) from None


def limited(coefficients: np.ndarray, limit: float = 3.0) -> np.ndarray:
    """Draw in coefficients beyond `limit` standard deviations: the tails of a Gaussian are not
    faces."""
    return limit * np.tanh(coefficients / limit)



def nearest(a: np.ndarray, b: np.ndarray, same: Callable | None = None,
            block: int = 500) -> np.ndarray:
    """Distance from each row of `a` to the nearest row of `b` that `same(i)` (a mask) does not
    exclude."""
    square, result = (b ** 2).sum(1), []
    for start in range(0, len(a), block):
        part = a[start:start + block]
        distance = (part ** 2).sum(1)[:, None] + square - 2 * part @ b.T
        if same is not None:
            distance[same(np.arange(start, start + len(part)))] = np.inf
        result.append(np.sqrt(distance.min(1).clip(0)))
    return np.concatenate(result)


def privacy(model: dict, coefficients: np.ndarray, people: np.ndarray, draws: int = 4000,
            seed: int = 0) -> None:
    """Print how far synthetic faces stay from training faces, against how far people are from one
    another."""
    rng = np.random.default_rng(seed)
    drawn = limited(sum(rng.standard_normal((draws, len(model[k]))) @ model[k].T
                        for k in ("person", "video", "frame")))
    names = np.array([p.rstrip("*") for p in people])
    to_training = np.percentile(nearest(drawn, coefficients), 1)
    to_others = np.percentile(nearest(coefficients, coefficients,
                                      lambda i: names[i][:, None] == names[None]), 1)
    print("first percentile of the distance, in standard deviations of the "
          f"{coefficients.shape[1]} coefficients:\n"
          f"  synthetic face to the nearest training face         {to_training:.2f}\n"
          f"  training face to the nearest of another person  {to_others:.2f}")
    if to_training < to_others:
        raise DataError("synthetic faces come closer to training faces than people do to one "
                        "another")
