"""Builds saved_models/face_model.npz from ICT-FaceKit and labeled faces.

    python scripts/build_face_model.py --facekit ict_facekit.npz --data data/merlrav.zip

The modes of identity and expression are those of ICT-FaceKit (MIT license, see NOTICE). Its
vertices are not where people place the 68 points: the mean offset of each point is measured on
labeled faces with closed mouths, so that a neutral face has no expression.
"""

import argparse
import dataclasses
import io
from pathlib import Path

import numpy as np
from matplotlib.tri import Triangulation

from facial_keypoints.command import run_command
from facial_keypoints.face_model import MODEL_FILE, FaceModel, fit_model
from facial_keypoints.files import atomic_write
from facial_keypoints.head import OUTER_EYE_CORNERS, inter_ocular
from facial_keypoints.layouts import load_layout
from facial_keypoints.openness import eyes_open, mouth_open
from research.data.completion import complete_points
from research.data.frames import Frames
from research.datasets import load_frames, split_frames

IDENTITIES = 24  # principal components at the keypoints; 98 % of the variance of all 100
MESH_POINTS = 200
ROUNDS = 5
NARROW_FACE = 6706  # vertices of the narrow face area, without the neck
CLOSED_MOUTH, OPEN_EYES = 0.06, (0.7, 1.4)
NEUTRAL_WIDTH = 40  # percentile of the mouth's width below which a frontal face counts as neutral
MIN_VISIBLE = 30  # points of a face
# standard deviation of our points around people's, in inter-ocular distances, by part
NOISE = {"jaw": 0.06, "brows": 0.035, "nose": 0.025, "eyes": 0.018, "mouth": 0.025}

# ARKit's names, each the sum of shapes of ICT-FaceKit. Left out is what 68 points do not tell
# (gaze, tongue, cheeks), what they see as depth only (jawForward, mouthClose), and what other
# shapes explain as well (benchmarks/expressions.py)
EXPRESSIONS = [
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "jawOpen"),
    *("mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthPucker", "mouthRight"),
    *("mouthRollLower", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight"),
    *("mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
]
NOTICE = Path(__file__).resolve().parent.parent / "NOTICE"  # travels with the table


def facekit_names(name: str, present: list[str]) -> list[int]:
    """Indices of the shapes of ICT-FaceKit that a name of ARKit means."""
    short = name.replace("Left", "_L").replace("Right", "_R")
    wanted = [name] if name in present else [short, f"{name}_L", f"{name}_R"]
    return [present.index(some) for some in wanted if some in present]


def load_facekit(path: Path) -> FaceModel:
    """ICT-FaceKit in head coordinates and inter-ocular distances, without labels."""
    with np.load(path, allow_pickle=False) as kit:
        names = [str(name) for name in kit["expression_names"]]
        marks = kit["landmarks68"]
        flip = np.array([1, -1, -1])  # its y is up, its z to the front
        neutral, identity, shapes = (
            kit[key].astype(np.float64) * flip for key in ("neutral", "identity", "expressions")
        )
    left, right = neutral[marks[list(OUTER_EYE_CORNERS)]]
    unit = np.linalg.norm(right - left)
    neutral = (neutral - (left + right) / 2) / unit
    identity, shapes = identity / unit, shapes / unit
    shapes = np.stack([shapes[facekit_names(name, names)].sum(0) for name in EXPRESSIONS])
    turn, size, _ = np.linalg.svd(identity[:, marks].reshape(len(identity), -1), False)
    identity = np.tensordot(turn[:, :IDENTITIES].T, identity, 1)
    inside = above_jaw(neutral[:NARROW_FACE], neutral[marks])
    chosen = spread_out(neutral[:NARROW_FACE], marks, inside, MESH_POINTS)
    triangles = outward(Triangulation(*unrolled(neutral[chosen]).T).triangles, neutral[chosen])
    print(
        f"{(size[:IDENTITIES] ** 2).sum() / (size**2).sum():.1%} of the variance at the keypoints"
    )
    return FaceModel(
        neutral[marks],
        identity[:, marks],
        shapes[:, marks],
        tuple(EXPRESSIONS),
        np.array([NOISE[region] for region in region_of_points()]),
        neutral[chosen],
        identity[:, chosen],
        shapes[:, chosen],
        triangles,
    )


def region_of_points() -> list[str]:
    """The region of each of the 68 points."""
    rows = {row: name for name, rows in load_layout().regions.items() for row in rows}
    return [rows[row] for row in range(len(rows))]


def unrolled(vertices: np.ndarray, back: float = 0.9) -> np.ndarray:
    """Vertices (v, 3) in the plane (v, 2): their angle around the vertical axis of the head, `back`
    behind the eyes, and their height."""
    return np.column_stack([np.arctan2(vertices[:, 0], back - vertices[:, 2]), vertices[:, 1]])


def outward(triangles: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Triangles (t, 3) with their corners in the order in which their normals point out of the
    head: away from its vertical axis."""
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normals * (corners.mean(1) - [0, 0, 0.9])).sum(1) < 0
    return np.where(inward[:, None], triangles[:, ::-1], triangles)


def above_jaw(vertices: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Mask (v,) of the vertices that lie above the jaw of the points `marks` (68, 3)."""
    angle, height = unrolled(vertices).T
    jaw = unrolled(marks[:17])
    within = np.abs(angle) <= jaw[-1, 0]
    return within & (height < np.interp(angle, *jaw.T))


def spread_out(
    vertices: np.ndarray, first: np.ndarray, allowed: np.ndarray, count: int
) -> np.ndarray:
    """Indices of `count` vertices (v, 3) far from each other: `first`, then those of the mask
    `allowed` (farthest point sampling)."""
    chosen = [row for row in dict.fromkeys(first.tolist()) if row < len(vertices)]
    away = np.where(allowed, np.inf, 0)
    for row in chosen:
        away = np.minimum(away, np.linalg.norm(vertices - vertices[row], axis=1))
    while len(chosen) < count:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
    return np.array(chosen)


def neutral_rows(frames: Frames) -> np.ndarray:
    """Mask (n,) of the faces with closed mouths and open eyes, in front views also without a
    smile: their mouths are narrow."""
    points = complete_points(frames.points, frames.layout).astype(np.float64)
    eyes = eyes_open(points).mean(1)
    closed = np.abs(mouth_open(points)) < CLOSED_MOUTH
    width = np.linalg.norm(points[:, 54] - points[:, 48], axis=1) / inter_ocular(points)
    front = np.isfinite(frames.points).all((1, 2))
    narrow = width < np.percentile(width[closed & front], NEUTRAL_WIDTH)
    enough = (frames.visible == 1).sum(1) >= MIN_VISIBLE
    return enough & closed & (eyes > OPEN_EYES[0]) & (eyes < OPEN_EYES[1]) & (narrow | ~front)


def moved_to_labels(model: FaceModel, frames: Frames) -> FaceModel:
    """The model whose neutral mean face is that of the labels: its person is the mean person, and
    each point is moved by the offset that explains what remains, for all views together.

    An offset (3,) moves the projection of a point by a matrix (2, 3) that depends on the pose; the
    offsets are the least squares solution over all faces, and symmetric.
    """
    swap = load_layout().flip_indices
    bare = dataclasses.replace(model, expressions=model.expressions[:0], names=())
    for _ in range(ROUNDS):
        squares, rights = np.zeros((68, 3, 3)), np.zeros((68, 3))
        people, sizes = [], []
        for points, visible in zip(frames.points, frames.visible, strict=True):
            fit = fit_model(bare, points, np.where(visible == 1, 1.0, 0.3))
            placed = fit.points @ fit.pose.rotation.T + fit.pose.translation
            scale = fit.pose.camera[0, 0]
            rotation, depth = fit.pose.rotation, placed[:, 2, None, None]
            ratio = (placed[:, :2] / placed[:, 2:])[:, :, None]
            move = (rotation[:2] - ratio * rotation[2]) * scale / depth  # (68, 2, 3)
            rest = points - fit.project(fit.points)
            size = scale / fit.pose.translation[2]
            move, rest = move / size, rest / size
            known = np.isfinite(rest).all(1)
            squares[known] += np.einsum("kia,kib->kab", move[known], move[known])
            rights[known] += np.einsum("kia,ki->ka", move[known], rest[known])
            people.append(fit.identity)
            sizes.append(fit.residual)
        offset = np.linalg.solve(squares + len(frames) * 0.02 * np.eye(3), rights[..., None])[
            ..., 0
        ]
        offset = (offset + offset[swap] * [-1, 1, 1]) / 2
        person = np.mean(people, axis=0)
        print(
            f"{len(frames)} neutral faces: residual {100 * np.mean(sizes):.2f} %, "
            f"mean offset {100 * np.linalg.norm(offset, axis=1).mean():.2f} %, "
            f"mean person {np.abs(person).mean():.2f}"
        )
        mean = bare.mean + offset + np.tensordot(person, bare.identity, 1)
        mesh = bare.mesh_mean + np.tensordot(person, bare.mesh_identity, 1)
        bare = dataclasses.replace(bare, mean=(mean + mean[swap] * [-1, 1, 1]) / 2, mesh_mean=mesh)
    return dataclasses.replace(
        model, mean=bare.mean, mesh_mean=bare.mesh_mean + smooth_offsets(bare)
    )


def smooth_offsets(model: FaceModel) -> np.ndarray:
    """(v, 3): what moves the mesh with the points, whose vertices come first in it: the mean of
    the offsets of all points, with weights of 1 / distance²."""
    vertices = model.mesh_mean[:68]
    away = np.square(model.mesh_mean[:, None] - vertices).sum(-1)
    weights = 1 / np.maximum(away, 1e-6)
    return weights / weights.sum(1, keepdims=True) @ (model.mean - vertices)


def in_head_coordinates(model: FaceModel) -> FaceModel:
    """The model with the origin between the outer eye corners, which are 1 apart. Its level is
    that of ICT-FaceKit."""
    left, right = model.mean[list(OUTER_EYE_CORNERS)]
    unit, origin = np.linalg.norm(right - left), (left + right) / 2
    modes = ("identity", "expressions", "mesh_identity", "mesh_expressions")
    return dataclasses.replace(
        model,
        mean=(model.mean - origin) / unit,
        mesh_mean=(model.mesh_mean - origin) / unit,
        **{field: getattr(model, field) / unit for field in modes},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Build saved_models/face_model.npz.")
    parser.add_argument("--facekit", required=True, type=Path, help="ict_facekit.npz")
    parser.add_argument("--data", required=True, help="the set of research.data.merlrav")
    parser.add_argument("--faces", type=int, default=1500, help="neutral faces (default: 1500)")
    options = parser.parse_args()
    frames = split_frames(load_frames(options.data), "official", "training")
    frames = frames.select(neutral_rows(frames))
    frames = frames.select(np.arange(len(frames))[:: max(len(frames) // options.faces, 1)])
    model = moved_to_labels(load_facekit(options.facekit), frames)
    model = in_head_coordinates(model)
    values = {
        key: value.astype(np.float16) if value.dtype == np.float64 else value
        for key, value in vars(model).items()
        if key not in ("names", "triangles")
    }
    table = io.BytesIO()
    np.savez_compressed(
        table,
        names=np.array(model.names),
        triangles=model.triangles.astype(np.uint16),
        notice=np.array(NOTICE.read_text()),
        **values,
    )
    atomic_write(MODEL_FILE, table.getvalue())
    print(f"written: {MODEL_FILE.name}, {len(table.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    run_command(main)
