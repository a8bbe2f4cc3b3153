"""Keypoints and head axes drawn on images; the colors are those of Okabe and Ito."""

from collections.abc import Iterable

import cv2
import numpy as np

from facial_keypoints.errors import UsageError
from facial_keypoints.face_model import face_model
from facial_keypoints.head import mean_head
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.pose import Pose

AXIS_COLORS = ((213, 94, 0), (0, 158, 115), (0, 114, 178))  # of the axes x, y, z
NOSE_TIP = 30  # of ibug68: where the axes start
LIGHT = np.array([0, -0.6, -0.8])  # where the light of a drawn head comes from
AXIS_LENGTH = 0.9  # in inter-ocular distances


def draw_axes(image: np.ndarray, pose: Pose, thickness: int | None = None) -> None:
    """Draw x (orange), y (green), z (blue, towards the viewer) of a head at its nose, into a uint8
    RGB image."""
    start = mean_head()[NOSE_TIP]
    ends = np.stack([start, *(start + AXIS_LENGTH * np.diag([1.0, 1.0, -1.0]))])
    pixels = cv2.projectPoints(
        ends, cv2.Rodrigues(pose.rotation)[0], pose.translation, pose.camera, None
    )[0][:, 0]
    if not np.abs(pixels).max() < 1e5:
        return
    width = thickness or max(
        round(float(np.linalg.norm(pixels[1:] - pixels[0], axis=1).max()) / 30), 1
    )
    center, *ends = np.round(pixels).astype(int).tolist()
    for end, color in zip(ends, AXIS_COLORS, strict=True):
        cv2.line(image, center, end, color, width, cv2.LINE_AA)


BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
REGION_COLORS = {"jaw": SKY, "brows": ORANGE, "nose": GREEN, "eyes": YELLOW, "mouth": RED}
OTHER_COLORS = (PURPLE, BLUE, SKY, ORANGE, GREEN, YELLOW, RED)  # of regions with other names


def part_colors(layout: Layout) -> list[str]:
    """The color of each part, by its region."""
    colors = dict(REGION_COLORS)
    for region in layout.regions:
        colors.setdefault(
            region, OTHER_COLORS[(len(colors) - len(REGION_COLORS)) % len(OTHER_COLORS)]
        )
    return [colors[part.region or part.name] for part in layout.parts]


def rgb(color: str) -> tuple[int, ...]:
    """'#rrggbb' -> (r, g, b) in 0…255."""
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def draw_faces(image: np.ndarray, faces: Iterable) -> np.ndarray:
    """A copy of a uint8 RGB photo (h, w, 3) with the keypoints of its faces drawn, sized to each
    face. Points with a visibility below 0.5 are rings."""
    canvas = image.copy()
    for face in faces:
        size = max(float(np.ptp(face.points, axis=0).max()), 1.0)
        line, radius = max(round(size / 250), 1), max(size / 110, 0.8)
        for part, color in zip(face.layout.parts, part_colors(face.layout), strict=True):
            path = np.round(face.points[list(part.points)] * 16).astype(np.int32)
            cv2.polylines(canvas, [path], part.closed, rgb(color), line, cv2.LINE_AA, shift=4)
        seen = np.ones(len(face.points)) if face.point_visibility is None else face.point_visibility
        for (x, y), visible in zip(face.points, seen, strict=True):
            center = (round(float(x) * 16), round(float(y) * 16))
            thickness = -1 if visible >= 0.5 else line
            cv2.circle(
                canvas, center, round(radius * 16), (255, 255, 255), thickness, cv2.LINE_AA, shift=4
            )
    return canvas


def draw_spreads(image: np.ndarray, faces: Iterable) -> np.ndarray:
    """A copy of a uint8 RGB photo with an ellipse of two spreads around each keypoint: the area in
    which the network expects the point with a probability of about 90 %. Raises UsageError for
    faces of a model that does not give spreads."""
    canvas = image.copy()
    for face in faces:
        if face.point_spread is None:
            raise UsageError("style spread: this model does not give spreads; export it again")
        color = np.zeros((len(face.points), 3), int)
        for part, shade in zip(face.layout.parts, part_colors(face.layout), strict=True):
            color[list(part.points)] = rgb(shade)
        for point, spread, shade in zip(face.points, face.point_spread, color, strict=True):
            if np.isfinite(point).all():
                center = tuple(int(16 * value) for value in point)
                axes = tuple(max(int(16 * 2 * value), 16) for value in spread)
                cv2.ellipse(canvas, center, axes, 0, 0, 360, shade.tolist(), 1, cv2.LINE_AA, 4)
    return canvas


def draw_heads(image: np.ndarray, faces: Iterable) -> np.ndarray:
    """A copy of a uint8 RGB photo with the fitted head of each face as a mesh (`Face.fit_3d`): the
    triangles that face the viewer, brighter where they face the light above the camera. Raises
    UsageError for layouts with too few of the keypoints of ibug68."""
    canvas = image.copy()
    for face in faces:
        fit = face.fit_3d()
        mesh, triangles = fit.mesh(), face_model().triangles
        pixels = fit.project(mesh)
        if not np.abs(pixels).max() < 1e5:
            continue
        corners = (mesh @ fit.pose.rotation.T + fit.pose.translation)[triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        facing = (normals * corners.mean(1)).sum(1) < 0
        light = np.clip(normals @ LIGHT, 0, 1)
        paths = np.round(pixels[triangles] * 16).astype(np.int32)
        for row in np.flatnonzero(facing):
            color = [round(channel * (0.45 + 0.55 * float(light[row]))) for channel in rgb(SKY)]
            cv2.polylines(canvas, [paths[row]], True, color, 1, cv2.LINE_AA, shift=4)
    return canvas


def typical_shape(layout: Layout) -> np.ndarray:
    """Where the keypoints (k, 2) of a typical face lie, in any unit; nan where that is not
    known."""
    return np.array(layout.shape) if layout.shape else mean_head(layout)[:, :2]


def draw_layout(layout: str | Layout, width: int = 1200) -> np.ndarray:
    """A drawing of a layout -> uint8 RGB: its keypoints on a typical face with their indices, and a
    list of their names next to it, by part. Keypoints of unknown position are in the list only."""
    layout = load_layout(layout)
    shape = typical_shape(layout)
    known = np.flatnonzero(~np.isnan(shape).any(1))
    columns = names_by_part(layout)
    line, column, face = 22, 330, width
    rows = max((face + 40) // line - 2, 1)
    lists = [columns[start : start + rows] for start in range(0, len(columns), rows)]
    canvas = np.full((face + 40, face + 20 + column * max(len(lists), 1), 3), 255, np.uint8)
    place = np.full((len(layout), 2), np.nan)
    if len(known):
        low, high = shape[known].min(0), shape[known].max(0)
        scale = (face - 120) / max((high - low).max(), 1e-9)
        place = (shape - (low + high) / 2) * scale + np.array([face, face + 40]) / 2
    colors = [BLACK] * len(layout)
    for part, color in zip(layout.parts, part_colors(layout), strict=True):
        path = [place[index] for index in part.points if index in known]
        if len(path) > 1:
            closed = part.closed and len(path) == len(part.points)
            cv2.polylines(
                canvas,
                [np.round(np.array(path) * 16).astype(np.int32)],
                closed,
                rgb(color),
                2,
                cv2.LINE_AA,
                shift=4,
            )
        for index in part.points:
            colors[index] = color
    for index in known:
        center = tuple(int(v) for v in np.round(place[index]))
        cv2.circle(canvas, center, 4, rgb(colors[index]), -1, cv2.LINE_AA)
        write_text(canvas, str(index), (center[0] + 5, center[1] - 5), 0.42)
    for number, entries in enumerate(lists):
        for row, (text, color) in enumerate(entries):
            left, bottom = face + 20 + number * column, 40 + row * line
            if color:
                cv2.circle(canvas, (left + 5, bottom - 5), 5, rgb(color), -1, cv2.LINE_AA)
            write_text(canvas, text, (left + 18, bottom), 0.5)
    return canvas


def names_by_part(layout: Layout) -> list[tuple[str, str]]:
    """Lines (text, color) of a list of all keypoints: part by part, then those in no part."""
    lines, listed = [], set()
    for part, color in zip(layout.parts, part_colors(layout), strict=True):
        lines.append((part.name, color))
        lines += [
            (f"{index}  {layout.keypoints[index]}", "")
            for index in part.points
            if index not in listed
        ]
        listed |= {*part.points}
    rest = [index for index in range(len(layout)) if index not in listed]
    named = [index for index in rest if layout.keypoints[index] != str(index)]
    lines += [("in no part", BLACK)] if named else []
    lines += [(f"{index}  {layout.keypoints[index]}", "") for index in named]
    if len(rest) > len(named):
        lines.append((f"{len(rest) - len(named)} without name or part", BLACK))
    return lines


def write_text(canvas: np.ndarray, text: str, start: tuple[int, int], size: float) -> None:
    """Write a text into an image, in place; OpenCV's fonts have ASCII only."""
    text = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, text, start, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
