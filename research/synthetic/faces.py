"""The default data set: synthetic faces with exact keypoints, sampled from a statistical model."""

import argparse
import contextlib
import io
import multiprocessing
import os
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
from tqdm.auto import tqdm

from facial_keypoints.command import SEED, bounded_number, run_command
from facial_keypoints.errors import DataError
from facial_keypoints.files import atomic_write
from research.synthetic.appearance_model import (
    CHROMA,
    FACE,
    SHAPE_MODES,
    SIDE,
    limited,
    load_appearance,
)
from research.augmentation.head_rotation import Head, random_view

VERSION = 1  # of the synthetic set; part of the name in the cache
VIDEOS, FRAMES = 2, 4  # videos per person, frames per video; the last frame is the test frame


def draw_placement(model: dict, rng: np.random.Generator) -> np.ndarray:
    """A random placement and light (8,) of a face, from the measured distribution.

    log(width), log(height / width), log(scale / width), center as shares of width and height,
    rotation counter-clockwise in degrees, mean and log standard deviation of the luminance. width,
    height: of the frame in pixels; scale: pixels of the frame per pixel of the mean-shape frame.
    """
    scores = np.linalg.cholesky(
        model["layout_correlation"] + 1e-6 * np.eye(8)
    ) @ rng.standard_normal(8)
    p = [NormalDist().cdf(float(s)) for s in scores]
    at = np.linspace(0.01, 0.99, len(model["layout_quantiles"]))
    return np.array(
        [np.interp(v, at, q) for v, q in zip(p, model["layout_quantiles"].T, strict=True)]
    )


def clutter(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random background of blurred shapes and smooth noise -> float32 RGB offsets (height, width,
    3)."""
    image = np.zeros((height, width, 3), np.float32)
    for _ in range(rng.integers(2, 10)):
        color = (rng.normal(0, 32) + rng.normal(0, 8, 3)).tolist()
        x, y = rng.uniform(-0.1, 1.1, 2) * (width, height)
        w, h = rng.uniform(0.05, 0.7, 2) * (width, height)
        if rng.random() < 0.7:
            box = cv2.boxPoints(
                ((float(x), float(y)), (float(w), float(h)), float(rng.normal(0, 5)))
            ).astype(np.int32)
            cv2.fillConvexPoly(image, box, color)
        else:
            cv2.ellipse(
                image,
                (int(x), int(y)),
                (int(w / 2) + 1, int(h / 2) + 1),
                rng.uniform(0, 180),
                0,
                360,
                color,
                -1,
            )
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 5.0) * width / 200)
    clouds = rng.standard_normal((14, 14), np.float32) * rng.uniform(0, 8)
    return image + cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]


def face_texture(model: dict, coefficients: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Coefficients and light (mean, log standard deviation of luminance) -> float32 RGB (SIDE,
    SIDE, 3), about 0…255."""
    values = (
        model["texture_mean"]
        + (coefficients[SHAPE_MODES:] * model["texture_scale"]) @ model["texture_modes"]
    )
    luminance = (
        values[: SIDE * SIDE].reshape(SIDE, SIDE) / model["weight"] * np.exp(light[1]) + light[0]
    )
    chroma = (values[SIDE * SIDE :] * 16).reshape(2, CHROMA, CHROMA).transpose(1, 2, 0)
    chroma = (
        cv2.resize(np.ascontiguousarray(chroma), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) + 128
    )
    ycrcb = np.dstack([luminance, chroma]).clip(0, 255).astype(np.float32) / 255
    return cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB) * 255


@cache
def masks() -> np.ndarray:
    """Weights (SIDE, SIDE, 2), float32 in 0…1. The first is 1 on head and neck and decreases around
    them; the second is 1 inside the frame and decreases to 0 at its border."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    r = np.hypot((x - 0.5) / 0.36, np.where(y < 0.52, (y - 0.52) / 0.42, (y - 0.52) / 0.60))
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    head = np.clip((1.1 - r) / 0.25, 0, 1) * np.clip(edge / 0.12, 0, 1)
    return np.dstack([head, np.clip(edge / 0.2, 0, 1)]).astype(np.float32)


def place_face(
    image: np.ndarray,
    model: dict,
    coefficients: np.ndarray,
    light: np.ndarray,
    scale: float,
    angle: float,
    center: np.ndarray,
    rng: np.random.Generator,
    scene: np.ndarray | None = None,
) -> np.ndarray:
    """Paint one synthetic face into a float32 RGB image, in place -> its exact keypoints (68, 2) in
    pixels.

    scale: pixels of the image per pixel of the mean-shape frame; angle: rotation counter-clockwise
    in degrees; center: (x, y) in pixels. With `scene` (offsets from `clutter`), the whole image is
    painted: the surroundings of the head are blurred and extended to the image border, and `scene`
    is added behind the head. Without `scene`, only the head is painted.
    """
    shape = model["mean"] + (
        (coefficients[:SHAPE_MODES] * model["shape_scale"]) @ model["shape_modes"]
    ).reshape(68, 2)
    cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = model["mean"].mean(0)
    control = (np.concatenate([shape, model["ring"]]) - middle) @ linear + center
    texture = face_texture(model, coefficients, light)
    ramp = rng.normal(0, 0.12, 2)  # light from one side
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    texture = texture * (1 + ramp[0] * x + ramp[1] * y)[..., None]
    if scene is not None:
        affine = np.column_stack([linear.T, center - middle @ linear])
        wide = cv2.GaussianBlur(texture, (0, 0), SIDE / 12)
        image[:] = (
            cv2.warpAffine(wide, affine, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
            + scene
        )

    low = np.floor(control.min(0)).astype(int).clip(0)
    high = (np.ceil(control.max(0)).astype(int) + 1).clip(None, image.shape[1::-1])
    if (high > low).all():
        source = inverse_warp(model, control - low, *(high - low))
        painted = cv2.remap(
            texture.astype(np.float32),
            source,
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        head, inner = np.moveaxis(cv2.remap(masks(), source, None, cv2.INTER_LINEAR), -1, 0)[
            ..., None
        ]
        region = image[low[1] : high[1], low[0] : high[0]]
        if scene is None:
            region[:] = region * (1 - head) + painted * head
        else:
            painted += scene[low[1] : high[1], low[0] : high[0]] * (1 - head)
            region[:] = region * (1 - inner) + painted * inner
    return control[:68].astype(np.float32)


def inverse_warp(model: dict, control: np.ndarray, width: int, height: int) -> np.ndarray:
    """The position of each pixel of an image in the mean-shape frame -> float32 (height, width, 2).

    The map is piecewise affine over the triangles of the control points (68 + 16, 2). Pixels
    outside all triangles get a position far outside the frame.
    """
    flat = np.concatenate([model["mean"], model["ring"]])
    which = np.full((height, width), -1, np.int32)
    for index, triangle in enumerate(model["triangles"]):
        cv2.fillConvexPoly(which, np.round(control[triangle] * 16).astype(np.int32), index, shift=4)
    corners = np.concatenate(
        [control[model["triangles"]], np.ones((len(model["triangles"]), 3, 1))], -1
    )
    corners[np.abs(np.linalg.det(corners)) < 1e-6] = np.eye(3)
    back = np.linalg.solve(corners, flat[model["triangles"]]).astype(np.float32)  # (t, 3, 2)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    back = back[which]
    source = x[..., None] * back[..., 0, :] + y[..., None] * back[..., 1, :] + back[..., 2, :]
    source[which < 0] = -10 * SIDE
    return source


def camera(image: np.ndarray, rng: np.random.Generator, blur: float = 0.5) -> np.ndarray:
    """Add random blur and sensor noise -> uint8 RGB. blur: scale of the random sigma in pixels."""
    sigma = abs(rng.normal(0, blur))
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = image + rng.standard_normal(image.shape[:2], np.float32)[..., None] * rng.uniform(1, 6)
    return image.clip(0, 255).astype(np.uint8)


def draw_person(
    seed: int, person: int, model: dict | None = None, turned: float = 0.0
) -> Iterator[tuple]:
    """Yield (video, frame, uint8 RGB image, keypoints (68, 2)) for all frames of one synthetic
    person. turned: share of the frames with the head turned to a yaw of 15 to 90 degrees
    (`research.augmentation.head_rotation`); the others are the same for every share."""
    model = model or load_appearance()
    rng = np.random.default_rng((VERSION, seed, person))
    turns = np.random.default_rng((VERSION, seed, person, 1))
    identity = model["person"] @ rng.standard_normal(len(model["person"]))
    for video in range(VIDEOS):
        look = identity + model["video"] @ rng.standard_normal(len(identity))
        placement = draw_placement(model, rng)
        width, height = int(np.exp(placement[0])), int(np.exp(placement[0] + placement[1]))
        scene = clutter(rng, width, height)
        for frame in range(FRAMES):
            coefficients = limited(look + model["frame"] @ rng.standard_normal(len(identity)))
            scale = np.exp(placement[2] + placement[0] + rng.normal(0, 0.03))
            center = (placement[3:5] + rng.normal(0, 0.02, 2)) * (width, height)
            image, angle = np.empty_like(scene), placement[5] + rng.normal(0, 3)
            points = place_face(
                image, model, coefficients, placement[6:8], scale, angle, center, rng, scene
            )
            image = camera(image, rng)
            if turns.random() < turned:
                head = Head(image, points, min(image.shape[:2]))
                image, points, _ = head.turned(*random_view(head, turns))
            yield video, frame, image, points


def draw_scene(
    seed: int = 0, faces: int = 6, width: int = 960, height: int = 640
) -> tuple[np.ndarray, np.ndarray]:
    """One picture with several faces on a loose grid -> uint8 RGB (height, width, 3), keypoints
    (faces, 68, 2)."""
    model = load_appearance()
    rng = np.random.default_rng((VERSION, seed, 1_000_000))
    image = (
        clutter(rng, width, height) + rng.uniform(60, 190) + rng.normal(0, 10, 3).astype(np.float32)
    )
    columns = int(np.ceil(np.sqrt(faces * width / height)))
    rows = int(np.ceil(faces / columns))
    cell = np.array([width / columns, height / rows])
    points = []
    for face in range(faces):
        identity = limited(
            sum(model[k] @ rng.standard_normal(len(model[k])) for k in ("person", "video", "frame"))
        )
        placement = draw_placement(model, rng)
        scale = cell.min() * rng.uniform(0.42, 0.6) / (FACE * SIDE)
        center = (
            np.array([face % columns, face // columns]) + 0.5 + rng.uniform(-0.06, 0.06, 2)
        ) * cell
        points.append(
            place_face(image, model, identity, placement[6:8], scale, rng.normal(0, 6), center, rng)
        )
    return camera(image, rng, 0.4), np.array(points)


def draw_sheet(
    people: int = 100, columns: int = 10, side: int = 120, seed: int = 0, turned: float = 0.0
) -> np.ndarray:
    """One square frame of each person, `side` pixels wide -> uint8 RGB, `columns` frames per row.
    turned: see `draw_person`."""
    tiles = []
    for person in range(people):
        _, _, image, _ = next(draw_person(seed, person, turned=turned))
        edge = min(image.shape[:2])
        top, left = ((n - edge) // 2 for n in image.shape[:2])
        tiles.append(
            cv2.resize(
                image[top : top + edge, left : left + edge],
                (side, side),
                interpolation=cv2.INTER_AREA,
            )
        )
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-people % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def draw_archive(
    path: str | Path,
    people: int | range = 150,
    seed: int = 0,
    bar: bool = True,
    turned: float = 0.0,
) -> None:
    """Draw a data set into a zip with the official layout, atomically; the same seed gives the same
    bytes on any day. people: the number of people, or a range of their numbers; turned: see
    `draw_person`."""
    people = range(people) if isinstance(people, int) else people
    model = load_appearance()
    rows, buffer = {"training": [], "test": []}, io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for person in tqdm(people, desc="drawing faces", unit="person", disable=not bar):
            for video, frame, image, points in draw_person(seed, person, model, turned):
                side = "test" if frame == FRAMES - 1 else "training"
                name = f"Drawn-{seed}-{person:04d}_{video}{frame}.jpg"
                _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
                archive.writestr(zipfile.ZipInfo(f"{side}/{name}"), data.tobytes())
                rows[side].append(",".join([name, *(f"{v:.3f}" for v in points.ravel())]))
        header = "," + ",".join(str(i) for i in range(136))
        for side, lines in rows.items():
            archive.writestr(
                zipfile.ZipInfo(f"{side}_frames_keypoints.csv"), "\n".join([header, *lines]) + "\n"
            )
    atomic_write(path, buffer.getvalue())


def draw_shards(
    folder: str | Path, people: int, seed: int = 0, size: int = 250, turned: float = 0.0
) -> None:
    """Draw the same people into archives of `size` people each, on all cores. Existing archives are
    kept."""
    ranges = [range(start, min(start + size, people)) for start in range(0, people, size)]
    kind = f"{seed}-turned-{turned:g}" if turned else seed
    parts = {
        Path(folder) / f"drawn-{kind}-{part.start:06d}-{part.stop:06d}.zip": part for part in ranges
    }
    others = {path.name for path in Path(folder).glob("*.zip")} - {path.name for path in parts}
    if others:
        raise DataError(f"{folder}: {min(others)} belongs to another set; use another folder")
    todo = {path: part for path, part in parts.items() if not path.exists()}
    before = {name: value for name, value in os.environ.items() if name == "OMP_NUM_THREADS"}
    # each process reads it when it starts; with more threads, processes would share cores
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            waiting = [
                pool.submit(draw_archive, path, part, seed, False, turned)
                for path, part in todo.items()
            ]
            for future in tqdm(
                as_completed(waiting), total=len(waiting), desc="drawing archives", unit="archive"
            ):
                future.result()
    finally:
        del os.environ["OMP_NUM_THREADS"]
        os.environ.update(before)


def sample_archive(people: int = 150, seed: int = 0) -> Path:
    """The path of the synthetic data set in the user's cache folder, or in data/ if that cannot be
    written to. The first call draws it (about 20 s)."""
    name = f"sample-v{VERSION}-{people}-{seed}.zip"
    with contextlib.suppress(RuntimeError):  # no home folder, as in some containers
        path = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            / "facial-keypoints"
            / name
        )
        if zipfile.is_zipfile(path):  # False for a damaged file: it is drawn again
            return path
        # DataError: the cache cannot be written to, so data/ is used below
        with contextlib.suppress(DataError):
            atomic_write(path.with_suffix(".try"), "")
            path.with_suffix(".try").unlink(missing_ok=True)  # another run may try at the same time
            draw_archive(path, people, seed, bar=sys.stderr.isatty())
            return path
    path = Path(__file__).resolve().parents[2] / "data" / name
    if not zipfile.is_zipfile(path):
        draw_archive(path, people, seed, bar=sys.stderr.isatty())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Make data sets of synthetic faces.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("draw", help="draw a data set of the official layout into a zip")
    command.add_argument(
        "--people",
        type=bounded_number(int, 1),
        default=150,
        help=f"{VIDEOS * FRAMES} frames each (default: %(default)s)",
    )
    command.add_argument("--seed", type=SEED, default=0, help="(default: %(default)s)")
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a zip; or a folder, for archives of 250 people each",
    )
    command = commands.add_parser("sheet", help="draw one frame of each of many people into a PNG")
    command.add_argument(
        "--people", type=bounded_number(int, 1), default=100, help="(default: %(default)s)"
    )
    command.add_argument("--seed", type=SEED, default=0, help="(default: %(default)s)")
    command.add_argument("--out", type=Path, required=True)
    for command in commands.choices.values():
        command.add_argument(
            "--turned",
            type=bounded_number(float, 0, 1),
            default=0.0,
            metavar="SHARE",
            help="share of the frames with heads turned to a yaw "
            "of 15 to 90 degrees (default: %(default)s)",
        )
    options = parser.parse_args()
    if options.command == "sheet":
        _, data = cv2.imencode(
            ".png", draw_sheet(options.people, seed=options.seed, turned=options.turned)[..., ::-1]
        )
        atomic_write(options.out, data.tobytes())
    else:
        (draw_archive if options.out.suffix == ".zip" else draw_shards)(
            options.out, options.people, options.seed, turned=options.turned
        )
        print(
            f"{options.out}: {options.people * VIDEOS * FRAMES} frames of {options.people} people"
        )


if __name__ == "__main__":
    run_command(main)
