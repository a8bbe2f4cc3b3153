"""The embedded data set: faces drawn from a statistical model of shape and appearance, with exact keypoints.

An active appearance model (Cootes, Edwards, Taylor, PAMI 2001): shapes are aligned by Procrustes analysis, textures
warped piecewise affinely to the mean shape, both reduced to principal components. Coefficients are drawn at random in
three steps that were measured apart: a person, a video of that person, a frame of that video.
"""

import argparse
import io
import os
import sys
import zipfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from errors import DataError, run
from formats import write_whole

MODEL = Path(__file__).resolve().parent / "saved_models" / "sample_faces.npz"
VERSION = 1  # of the drawn set; part of the name in the cache
SIDE, CHROMA = 144, 32  # of the mean-shape frame: luminance, and each of the two colour channels
FACE = 0.46  # share of that frame that the mean shape takes; the rest is hair, neck and what is behind
SHAPE_MODES, TEXTURE_MODES = 30, 190
VIDEOS, FRAMES = 2, 4  # per person; the last frame of each video is its test frame


# ---------------------------------------------------------------- geometry

def align(shapes, mean):
    """Similarity (n, 2, 2) and (n, 2) that bring shapes (n, k, 2) closest to `mean`: shape @ linear + offset."""
    centre, origin = shapes.mean(1), mean.mean(0)
    x, y = shapes - centre[:, None], mean - origin
    square = (x ** 2).sum((1, 2))
    cos = (x * y).sum((1, 2)) / square
    sin = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(1) / square
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    return linear, origin - np.einsum("ni,nij->nj", centre, linear)


def mean_shape(shapes):
    """Generalised Procrustes analysis -> mean (68, 2) in the mean-shape frame, symmetric if the shapes are."""
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


def frame_points():
    """16 points on the border of the mean-shape frame: they move with pose alone and hold hair and background."""
    t, far = np.linspace(0, SIDE - 1, 5)[:4], SIDE - 1
    zero = np.zeros(4)
    return np.concatenate([np.column_stack(s) for s in ((t, zero), (zero + far, t), (far - t, zero + far), (zero, far - t))])


def barycentric(points, triangles, side=SIDE):
    """For each pixel of a square frame: its triangle's corners (side², 3) and their weights (side², 3)."""
    pixels = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
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


# ---------------------------------------------------------------- building the model

def build(frames, bar=True):
    """Learn the model from the training side of annotated frames -> dictionary of arrays (float32)."""
    from matplotlib.tri import Triangulation

    from transforms import SWAP

    rows = np.flatnonzero(frames.sides == "training")
    shapes = frames.points[rows].astype(np.float64)
    sizes = np.zeros((len(rows), 2))
    mirrored = shapes[:, SWAP] * [-1, 1]
    mean = mean_shape(np.concatenate([shapes, mirrored]))
    ring = frame_points()
    triangles = Triangulation(*np.concatenate([mean, ring]).T).triangles
    corners, weights = barycentric(np.concatenate([mean, ring]), triangles)

    luminance = np.zeros((len(rows), SIDE, SIDE), np.float32)
    chroma = np.zeros((len(rows), 2, CHROMA, CHROMA), np.float32)
    light = np.zeros((len(rows), 2))
    face = hull_mask(mean)  # the modes are to spend themselves on faces, not on what is behind: weighed below
    linear, offset = align(shapes, mean)
    for i, row in enumerate(tqdm(rows, desc="warping to the mean shape", unit="frame", disable=not bar)):
        image = frames.image(row)
        sizes[i] = image.shape[1::-1]
        points = np.concatenate([shapes[i], (ring - offset[i]) @ np.linalg.inv(linear[i])])
        place = (points[corners] * weights[..., None]).sum(1).reshape(SIDE, SIDE, 2).astype(np.float32)
        texture = cv2.cvtColor(cv2.remap(image, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
                               cv2.COLOR_RGB2YCrCb).astype(np.float32)
        light[i] = texture[..., 0][face].mean(), texture[..., 0][face].std() + 1
        luminance[i] = (texture[..., 0] - light[i, 0]) / light[i, 1]
        chroma[i] = cv2.resize(texture[..., 1:], (CHROMA, CHROMA), interpolation=cv2.INTER_AREA).transpose(2, 0, 1) - 128

    # Mirrored frames count as other people: a face and its mirror image are rarely alike.
    weight = cv2.GaussianBlur(np.where(face, 1, 0.4).astype(np.float32), (0, 0), SIDE / 30)
    textures = np.concatenate([pack(luminance * weight, chroma), pack((luminance * weight)[..., ::-1], chroma[..., ::-1])])
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
    centre = (mean.mean(0) - offset[: len(rows)])[:, None] @ np.linalg.inv(linear[: len(rows)])
    layout = np.column_stack([np.log(sizes[:, 0]), np.log(sizes[:, 1] / sizes[:, 0]), -np.log(size) - np.log(sizes[:, 0]),
                              centre[:, 0] / sizes, angle, light[:, 0], np.log(light[:, 1])])
    return {
        "mean": mean, "ring": ring, "triangles": triangles, "weight": weight, "texture_mean": texture_mean,
        "shape_modes": shape_modes, "shape_scale": shape_scale, "texture_modes": texture_modes,
        "texture_scale": texture_scale, "person": person, "video": video, "frame": frame,
        "layout_quantiles": np.quantile(layout, np.linspace(0.01, 0.99, 33), axis=0),
        "layout_correlation": np.corrcoef(ranks(layout).T),
    }, coefficients, people


def hull_mask(mean):
    """(SIDE, SIDE) True inside the convex hull of the mean shape."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(mean.round().astype(np.int32)), 1)
    return mask.astype(bool)


def pack(luminance, chroma):
    """Luminance (n, SIDE, SIDE) and colour (n, 2, CHROMA, CHROMA) -> textures (n, d); colour counts for less."""
    return np.concatenate([luminance.reshape(len(luminance), -1), chroma.reshape(len(chroma), -1) / 16], 1)


def components(data, count, rounds=4, seed=0):
    """Principal components of centred rows (n, d) -> modes (count, d), their standard deviations, whitened coefficients.

    Randomised range finder with power iterations: Halko, Martinsson, Tropp, SIAM Review 2011, algorithm 4.4.
    """
    basis = np.random.default_rng(seed).standard_normal((data.shape[1], min(count + 10, data.shape[1]))).astype(data.dtype)
    for _ in range(rounds):
        basis, _ = np.linalg.qr(data.T @ (data @ basis))
    _, scale, modes = np.linalg.svd(data @ basis, full_matrices=False)
    modes, scale = (modes @ basis.T)[:count], scale[:count] / np.sqrt(len(data))
    return modes, scale, data @ modes.T / scale


def levels(coefficients, people, videos):
    """Split the covariance of coefficients into people, videos of a person, frames of a video -> three square roots."""
    def centred(values, groups):
        _, index = np.unique(groups, return_inverse=True)
        means = np.stack([np.bincount(index, v) for v in values.T], 1) / np.bincount(index)[:, None]
        return means[index]

    by_video, by_person = centred(coefficients, videos), centred(coefficients, people)
    parts = (by_person, by_video - by_person, coefficients - by_video)
    return [root(np.cov(part.T)) for part in parts]


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0))


def ranks(columns):
    """Each column's values replaced by normal scores of their ranks (a Gaussian copula)."""
    order = columns.argsort(0).argsort(0)
    return normal_quantile((order + 0.5) / len(columns))


def normal_quantile(p):
    from statistics import NormalDist

    return np.vectorize(NormalDist().inv_cdf)(p)


def save_model(path, model):
    """Store a model: modes as 8-bit integers with one scale each, the rest as 16-bit floats."""
    stored = {}
    for key, value in model.items():
        if key.endswith("_modes"):
            peak = np.abs(value).max(1, keepdims=True)
            stored[key], stored[key + "_peak"] = np.round(value / peak * 127).astype(np.int8), peak.astype(np.float32)
        else:
            stored[key] = value.astype(np.uint8 if key == "triangles" else np.float16 if value.size > 5000 else np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)
    write_whole(path, buffer.getvalue())


@cache
def load_model(path=MODEL):
    """The stored model as a dictionary of float32 arrays."""
    if not Path(path).exists():
        raise DataError(f"{path}: the model of drawn faces is missing; build it: python sample_faces.py build --data official")
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    model = {key: value.astype(np.float32) for key, value in arrays.items() if key != "triangles"}
    for key in ("shape_modes", "texture_modes"):
        model[key] *= model.pop(key + "_peak") / 127
    return {**model, "triangles": arrays["triangles"].astype(int)}


# ---------------------------------------------------------------- drawing

def limited(coefficients, limit=3.0):
    """Draw in coefficients beyond `limit` standard deviations: the tails of a Gaussian are not faces."""
    return limit * np.tanh(coefficients / limit)


def draw_layout(model, rng):
    """Log width, log height / width, log scale / width, centre, roll, light: a draw from the measured distribution."""
    scores = np.linalg.cholesky(model["layout_correlation"] + 1e-6 * np.eye(8)) @ rng.standard_normal(8)
    from statistics import NormalDist

    p = [NormalDist().cdf(float(s)) for s in scores]
    at = np.linspace(0.01, 0.99, len(model["layout_quantiles"]))
    return np.array([np.interp(v, at, q) for v, q in zip(p, model["layout_quantiles"].T, strict=True)])


def clutter(rng, width, height):
    """What stands behind people: soft shapes, edges, clouds of light -> float32 RGB offsets (height, width, 3)."""
    image = np.zeros((height, width, 3), np.float32)
    for _ in range(rng.integers(2, 10)):
        colour = (rng.normal(0, 32) + rng.normal(0, 8, 3)).tolist()
        x, y = rng.uniform(-0.1, 1.1, 2) * (width, height)
        w, h = rng.uniform(0.05, 0.7, 2) * (width, height)
        if rng.random() < 0.7:
            box = cv2.boxPoints(((float(x), float(y)), (float(w), float(h)), float(rng.normal(0, 5)))).astype(np.int32)
            cv2.fillConvexPoly(image, box, colour)
        else:
            cv2.ellipse(image, (int(x), int(y)), (int(w / 2) + 1, int(h / 2) + 1), rng.uniform(0, 180), 0, 360, colour, -1)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 5.0) * width / 200)
    clouds = rng.standard_normal((14, 14), np.float32) * rng.uniform(0, 8)
    return image + cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]


def face_texture(model, coefficients, light):
    """Coefficients and light (mean, log spread of luminance) -> float32 RGB (SIDE, SIDE, 3), about 0…255."""
    values = model["texture_mean"] + (coefficients[SHAPE_MODES:] * model["texture_scale"]) @ model["texture_modes"]
    luminance = values[: SIDE * SIDE].reshape(SIDE, SIDE) / model["weight"] * np.exp(light[1]) + light[0]
    chroma = (values[SIDE * SIDE:] * 16).reshape(2, CHROMA, CHROMA).transpose(1, 2, 0)
    chroma = cv2.resize(np.ascontiguousarray(chroma), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) + 128
    ycrcb = np.dstack([luminance, chroma]).clip(0, 255).astype(np.float32) / 255
    return cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB) * 255


@cache
def masks():
    """(SIDE, SIDE, 2) float32: 1 on head and neck, falling off around them; and 1 inside, falling to 0 at the border."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    r = np.hypot((x - 0.5) / 0.36, np.where(y < 0.52, (y - 0.52) / 0.42, (y - 0.52) / 0.60))
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    head = np.clip((1.1 - r) / 0.25, 0, 1) * np.clip(edge / 0.12, 0, 1)
    return np.dstack([head, np.clip(edge / 0.2, 0, 1)]).astype(np.float32)


def place_face(image, model, coefficients, light, scale, angle, centre, rng, scene=None):
    """Paint one drawn face into a float32 RGB image (changed in place) -> its keypoints (68, 2) in pixels, exact.

    With `scene` (offsets as of `clutter`) the whole picture is painted: what lies around the head goes on, blurred,
    to the picture's edges, and `scene` is added behind the head. Without it only the head is painted.
    """
    shape = model["mean"] + ((coefficients[:SHAPE_MODES] * model["shape_scale"]) @ model["shape_modes"]).reshape(68, 2)
    cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = model["mean"].mean(0)
    control = (np.concatenate([shape, model["ring"]]) - middle) @ linear + centre
    texture = face_texture(model, coefficients, light)
    ramp = rng.normal(0, 0.12, 2)  # light from one side
    y, x = np.mgrid[-1:1:SIDE * 1j, -1:1:SIDE * 1j].astype(np.float32)
    texture = texture * (1 + ramp[0] * x + ramp[1] * y)[..., None]
    if scene is not None:
        affine = np.column_stack([linear.T, centre - middle @ linear])
        wide = cv2.GaussianBlur(texture, (0, 0), SIDE / 12)
        image[:] = cv2.warpAffine(wide, affine, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE) + scene

    low = np.floor(control.min(0)).astype(int).clip(0)
    high = (np.ceil(control.max(0)).astype(int) + 1).clip(None, image.shape[1::-1])
    if (high > low).all():
        source = inverse_warp(model, control - low, *(high - low))
        painted = cv2.remap(texture.astype(np.float32), source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        head, inner = np.moveaxis(cv2.remap(masks(), source, None, cv2.INTER_LINEAR), -1, 0)[..., None]
        region = image[low[1]:high[1], low[0]:high[0]]
        if scene is None:
            region[:] = region * (1 - head) + painted * head
        else:
            painted += scene[low[1]:high[1], low[0]:high[0]] * (1 - head)
            region[:] = region * (1 - inner) + painted * inner
    return control[:68].astype(np.float32)


def inverse_warp(model, control, width, height):
    """For each pixel of a picture (height, width): where the mean-shape frame has it -> float32 (height, width, 2).

    Piecewise affine over the triangles of the control points (68 + 16, 2); far outside the frame where none covers it.
    """
    flat = np.concatenate([model["mean"], model["ring"]])
    which = np.full((height, width), -1, np.int32)
    for index, triangle in enumerate(model["triangles"]):
        cv2.fillConvexPoly(which, np.round(control[triangle] * 16).astype(np.int32), index, shift=4)
    corners = np.concatenate([control[model["triangles"]], np.ones((len(model["triangles"]), 3, 1))], -1)
    corners[np.abs(np.linalg.det(corners)) < 1e-6] = np.eye(3)
    back = np.linalg.solve(corners, flat[model["triangles"]]).astype(np.float32)  # (t, 3, 2)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    back = back[which]
    source = x[..., None] * back[..., 0, :] + y[..., None] * back[..., 1, :] + back[..., 2, :]
    source[which < 0] = -10 * SIDE
    return source


def camera(image, rng, blur=0.5):
    """Sensor and codec: a little blur and grain -> uint8 RGB."""
    sigma = abs(rng.normal(0, blur))
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = image + rng.standard_normal(image.shape[:2], np.float32)[..., None] * rng.uniform(1, 6)
    return image.clip(0, 255).astype(np.uint8)


def draw_person(seed, person, model=None):
    """Yield (video, frame, uint8 RGB image, keypoints (68, 2)) for all frames of one drawn person."""
    model = model or load_model()
    rng = np.random.default_rng((VERSION, seed, person))
    identity = model["person"] @ rng.standard_normal(len(model["person"]))
    for video in range(VIDEOS):
        look = identity + model["video"] @ rng.standard_normal(len(identity))
        layout = draw_layout(model, rng)
        width, height = int(np.exp(layout[0])), int(np.exp(layout[0] + layout[1]))
        scene = clutter(rng, width, height)
        for frame in range(FRAMES):
            coefficients = limited(look + model["frame"] @ rng.standard_normal(len(identity)))
            scale = np.exp(layout[2] + layout[0] + rng.normal(0, 0.03))
            centre = (layout[3:5] + rng.normal(0, 0.02, 2)) * (width, height)
            image, angle = np.empty_like(scene), layout[5] + rng.normal(0, 3)
            points = place_face(image, model, coefficients, layout[6:8], scale, angle, centre, rng, scene)
            yield video, frame, camera(image, rng), points


def draw_scene(seed=0, faces=6, width=960, height=640):
    """One picture with several faces on a loose grid -> uint8 RGB (height, width, 3), keypoints (faces, 68, 2)."""
    model = load_model()
    rng = np.random.default_rng((VERSION, seed, 1_000_000))
    image = clutter(rng, width, height) + rng.uniform(60, 190) + rng.normal(0, 10, 3).astype(np.float32)
    columns = int(np.ceil(np.sqrt(faces * width / height)))
    rows = int(np.ceil(faces / columns))
    cell = np.array([width / columns, height / rows])
    points = []
    for face in range(faces):
        identity = limited(sum(model[k] @ rng.standard_normal(len(model[k])) for k in ("person", "video", "frame")))
        layout = draw_layout(model, rng)
        scale = cell.min() * rng.uniform(0.42, 0.6) / (FACE * SIDE)
        centre = (np.array([face % columns, face // columns]) + 0.5 + rng.uniform(-0.06, 0.06, 2)) * cell
        points.append(place_face(image, model, identity, layout[6:8], scale, rng.normal(0, 6), centre, rng))
    return camera(image, rng, 0.4), np.array(points)


def draw_archive(path, people=150, seed=0, bar=True):
    """Draw a data set into a zip of the official layout, whole or not at all."""
    model = load_model()
    rows, buffer = {"training": [], "test": []}, io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for person in tqdm(range(people), desc="drawing faces", unit="person", disable=not bar):
            for video, frame, image, points in draw_person(seed, person, model):
                side = "test" if frame == FRAMES - 1 else "training"
                name = f"Drawn-{seed}-{person:04d}_{video}{frame}.jpg"
                _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
                archive.writestr(f"{side}/{name}", data.tobytes())
                rows[side].append(",".join([name, *(f"{v:.3f}" for v in points.ravel())]))
        header = "," + ",".join(str(i) for i in range(136))
        for side, lines in rows.items():
            archive.writestr(f"{side}_frames_keypoints.csv", "\n".join([header, *lines]) + "\n")
    write_whole(path, buffer.getvalue())


def sample_archive(people=150, seed=0):
    """The path of the drawn data set in the user's cache, drawn there the first time (some 20 s)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = home / "facial-keypoints" / f"sample-v{VERSION}-{people}-{seed}.zip"
    if not path.exists():
        try:
            draw_archive(path, people, seed, bar=sys.stderr.isatty())
        except OSError:  # a home that cannot be written to: keep it beside the code
            path = Path(__file__).resolve().parent / "data" / path.name
            if not path.exists():
                draw_archive(path, people, seed, bar=sys.stderr.isatty())
    return path


# ---------------------------------------------------------------- command

def nearest(a, b, same=None, block=500):
    """Distance from each row of `a` to the nearest row of `b` that `same(i)` (a mask) does not exclude."""
    square, result = (b ** 2).sum(1), []
    for start in range(0, len(a), block):
        part = a[start:start + block]
        distance = (part ** 2).sum(1)[:, None] + square - 2 * part @ b.T
        if same is not None:
            distance[same(np.arange(start, start + len(part)))] = np.inf
        result.append(np.sqrt(distance.min(1).clip(0)))
    return np.concatenate(result)


def privacy(model, coefficients, people, draws=4000, seed=0):
    """Print how far drawn faces stay from training faces, against how far people are from one another."""
    rng = np.random.default_rng(seed)
    drawn = limited(sum(rng.standard_normal((draws, len(model[k]))) @ model[k].T for k in ("person", "video", "frame")))
    names = np.array([p.rstrip("*") for p in people])
    to_training = np.percentile(nearest(drawn, coefficients), 1)
    to_others = np.percentile(nearest(coefficients, coefficients, lambda i: names[i][:, None] == names[None]), 1)
    print(f"first percentile of the distance, in standard deviations of the {coefficients.shape[1]} coefficients:\n"
          f"  drawn face to the nearest training face         {to_training:.2f}\n"
          f"  training face to the nearest of another person  {to_others:.2f}")
    if to_training < to_others:
        raise DataError("drawn faces come closer to training faces than people do to one another")


def main():
    parser = argparse.ArgumentParser(description="Build the model of drawn faces, draw data sets from it.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="learn the model from a data set, check that it gives no face away")
    command.add_argument("--data", default="official", help="(default: %(default)s)")
    command.add_argument("--out", type=Path, default=MODEL, help="(default: saved_models/sample_faces.npz)")
    command = commands.add_parser("draw", help="draw a data set of the official layout into a zip")
    command.add_argument("--people", type=int, default=150, help=f"{VIDEOS * FRAMES} frames each (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "build":
        from data_load import load_frames

        model, coefficients, people = build(load_frames(options.data, "corrected"))
        privacy(model, coefficients, people)
        save_model(options.out, model)
        print(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB")
    else:
        draw_archive(options.out, options.people, options.seed)
        print(f"{options.out}: {options.people * VIDEOS * FRAMES} frames of {options.people} people")


if __name__ == "__main__":
    run(main)
