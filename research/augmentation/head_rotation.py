"""Heads turned to the side: a frame and its keypoints as seen from another direction.

After Zhu et al., "Face Alignment Across Large Poses", CVPR 2016 (the data set 300W-LP), with the
mean head of `head.mean_head` in place of a morphable model.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm.auto import tqdm

from facial_keypoints.errors import UsageError
from facial_keypoints.geometry import crop_matrix
from facial_keypoints.head import level_boxes, mean_head
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.pose import (
    affine_camera,
    angles_of,
    has_pose,
    rigid_points,
    rotation_of,
)
from research.data.frames import Frames


def with_mirrored(points: np.ndarray) -> np.ndarray:
    """Points (m, 3) with x >= 0 -> these and their mirror images."""
    return np.concatenate([points, points[points[:, 0] > 0] * [-1, 1, 1]])


# CENTER, SURFACE and OUTLINE are in coordinates of `mean_head` (unit: inter-ocular distance).
CENTER = np.array([0, 0.3, 0.95])  # of the rotation, between the ears
SURFACE = with_mirrored(
    np.array(
        [  # points of a head that have no keypoint
            (0.00, -0.55, -0.24),
            (0.40, -0.55, -0.12),
            (0.00, -0.90, -0.02),
            (0.45, -0.85, 0.14),
            (0.74, -0.40, 0.36),
            (0.70, -0.80, 0.50),
            (0.80, -0.05, 0.45),  # temple
            (0.00, -1.20, 0.40),
            (0.50, -1.10, 0.55),  # hair
            (0.56, 0.26, 0.06),
            (0.42, 0.40, -0.10),
            (0.68, 0.40, 0.28),
            (0.48, 0.70, 0.08),  # cheek
            (0.62, 0.70, 0.30),
            (0.36, 1.05, 0.12),
            (0.00, 1.50, 0.45),
            (0.40, 1.45, 0.60),
            (0.00, 1.80, 0.60),
            (0.50, 1.80, 0.75),  # neck
        ]
    )
)
# ears, crown, and sides of the neck: where the head ends seen from the front
OUTLINE = with_mirrored(
    np.array(
        [
            (0.95, 0.20, 1.00),
            (0.92, -0.30, 0.95),
            (0.80, -0.90, 0.95),
            (0.45, -1.30, 0.95),
            (0.00, -1.42, 0.95),
            (0.85, 0.70, 0.95),
            (0.70, 1.10, 0.90),
            (0.75, 1.90, 1.00),
        ]
    )
)
# half axes, in inter-ocular distances, of the ellipse that contains the head seen from the front
HEIGHT, WIDTH = 1.38, 1.0
# multiples of that ellipse: pixels within RIM turn with the head, those beyond REACH stay
RIM, REACH = 1.05, 1.95
# depth of the pixels that stay: inter-ocular distances behind the center of the rotation
BACKGROUND = 1.2
GRID = 48  # depth is computed at GRID × GRID nodes and interpolated between them
LEVELS = 4096  # number of depth values that the depth buffer can tell apart
CRACK = 0.04  # a pixel deeper than its neighbors by this share of the depth range is a gap
# a point is hidden if something is nearer to the camera by more than this, in inter-ocular
# distances
HIDDEN_BY = 0.15
MAX_YAW, MAX_PITCH = 90.0, 30.0  # degrees, of the rendered heads
MIN_YAW = 15.0
VIEWS = 4  # turned pictures of each frame, made before training
QUALITY = 95  # of the JPEG in which they are kept in memory
MAX_MORE_YAW = 75.0  # degrees by which the yaw can exceed the yaw in the frame
FRONTAL = 7.0  # degrees: a head with a smaller yaw can be turned to both sides


def fit_head(
    points: np.ndarray, layout: str | Layout = "ibug68"
) -> tuple[np.ndarray, float, np.ndarray]:
    """Fit `mean_head` to keypoints (k, 2) in pixels, under weak perspective (a distant camera).

    Returns a rotation (3, 3), a scale in pixels per inter-ocular distance, and a position (2,) in
    pixels: a point p (3,) of the head is seen at scale * (rotation @ p)[:2] + position."""
    rows = rigid_points(layout)
    model, seen = mean_head(layout)[rows], points[rows]
    left, values, right = np.linalg.svd(affine_camera(model, seen), full_matrices=False)
    axes, scale = left @ right, values.mean()
    return np.vstack([axes, np.cross(*axes)]), scale, seen.mean(0) - scale * axes @ model.mean(0)


class SmoothDepth:
    """A smooth function depth(x, y) that passes near given depths (n,) at positions (n, 2); not
    exactly through them, because labels and the depths of a mean head are not exact.

    A sum of multiquadrics (Hardy, J. Geophys. Res. 1971): cones with a rounded tip. `unit` is a
    length in the units of the positions; the radius of the rounding is about 0.4 of it.
    """

    def __init__(self, places: np.ndarray, depths: np.ndarray, unit: float):
        self.places, self.unit = places, unit
        system = np.vstack([self.basis(places), np.append(np.ones(len(places)), 0)])
        system[:-1, :-1] -= 0.02 * np.eye(len(places))  # labels are not exact
        self.weights = np.linalg.solve(system, np.append(depths, 0))

    def basis(self, places: np.ndarray) -> np.ndarray:
        """Positions (m, 2) -> (m, n + 1): the functions whose weighted sum is the depth."""
        a, b = places / self.unit, self.places / self.unit
        away = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
        return np.column_stack([np.sqrt(np.maximum(away, 0) + 0.15), np.ones(len(places))])

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Positions (…, 2) -> depths (…)."""
        return (self.basis(places.reshape(-1, 2)) @ self.weights).reshape(places.shape[:-1])


class Head:
    """The face of a frame as a surface in 3D, which can be seen from other sides.

    image: uint8, gray (h, w) or RGB (h, w, 3); points: keypoints (k, 2) in its pixels. `turned`
    returns square images of `side` pixels with an upright face: the longer side of its tight box is
    side / crop_scale.
    """

    def __init__(
        self,
        image: np.ndarray,
        points: np.ndarray,
        side: int = 192,
        crop_scale: float = 2.1,
        layout: str | Layout = "ibug68",
    ):
        self.layout = layout = load_layout(layout)
        if not has_pose(layout):
            raise UsageError(
                f"heads cannot be turned with layout {layout.name}: it has too few "
                "keypoints with the names that ibug68 has"
            )
        boxes, rolls = level_boxes(points[None], layout)
        matrix = crop_matrix(boxes[0], side, angle=rolls[0], scale=crop_scale)
        self.side = side
        self.image = cv2.warpAffine(
            image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        self.points = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
        self.rotation, self.scale, origin = fit_head(self.points, layout)
        self.center = self.rotation @ CENTER * self.scale + np.append(origin, 0)

        def placed(head):
            return head @ self.rotation.T * self.scale + np.append(origin, 0)

        known = ~np.isnan(mean_head(layout)).any(1)
        surface, outline = placed(SURFACE), placed(OUTLINE)
        hull = cv2.convexHull(self.points.astype(np.float32))
        outline = outline[
            [
                cv2.pointPolygonTest(hull, point.tolist(), False) < 0
                for point in outline[:, :2].astype(np.float32)
            ]
        ]
        anchors = np.concatenate([surface, outline])
        nodes = (np.arange(GRID) + 0.5) * side / GRID - 0.5
        self.grid = np.stack(np.meshgrid(nodes, nodes), -1)
        depths = placed(mean_head(layout)[known])[:, 2]
        self.depth_at = SmoothDepth(
            np.concatenate([self.points[known], anchors[:, :2]]),
            np.concatenate([depths, anchors[:, 2]]),
            self.scale,
        )
        self.depth, self.depths = self.depth_at(self.grid), self.depth_at(self.points)
        self.depths[known] = depths
        away = np.hypot(
            (self.grid[..., 0] - self.center[0]) / WIDTH,
            (self.grid[..., 1] - self.center[1] + 0.35 * self.scale) / HEIGHT,
        )
        away = np.clip((away / self.scale - RIM) / (REACH - RIM), 0, 1)
        self.hold = 1 - away**2 * (3 - 2 * away)  # 1 on the head, 0 where the picture stays

    @property
    def yaw(self) -> float:
        """The yaw of the face in the frame, in degrees."""
        return angles_of(self.rotation)[0]

    def moved(
        self, places: np.ndarray, depths: np.ndarray, turn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places (…, 2) with depths (…) -> places and depths after the rotation `turn` (3, 3);
        the returned depths are relative to the center of the rotation."""
        space = np.concatenate([places, depths[..., None]], -1) - self.center
        return space @ turn[:2].T + self.center[:2], space @ turn[2]

    def turned(
        self, yaw: float, pitch: float, detail: int = 2
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The head at a yaw (> 0: it looks to the viewer's right) and pitch (> 0: down) in degrees
        and at roll 0, whatever they are in the frame -> image (side, side, …), keypoints (k, 2) in
        its pixels, and visible (k,): False for points that the head hides.

        With ibug68, jaw points that the cheek hides are moved to its visible outline, as in
        annotations of photographs. detail: surface points per pixel of the image, per axis.
        """
        turn = rotation_of(yaw, pitch, 0) @ self.rotation.T
        image, nearest = self.render(turn, detail)
        points, depths = self.moved(self.points, self.depths, turn)
        corner = np.clip(np.rint(points).astype(int), 0, self.side - 1)
        visible = depths - nearest[corner[:, 1], corner[:, 0]] < HIDDEN_BY * self.scale
        if self.layout == load_layout():
            points[:17] = self.contour(points[:17], -1 if yaw < 0 else 1, turn)
        return image, points.astype(np.float32), visible

    def render(self, turn: np.ndarray, detail: int) -> tuple[np.ndarray, np.ndarray]:
        """The surface after a rotation (3, 3) -> image (side, side, …), and the depth (side,
        side) of what is nearest to the camera in each pixel."""
        side, fine = self.side, self.side * detail
        places, depth = self.moved(self.grid, self.depth, turn)
        flow = (places - self.grid) * self.hold[..., None]
        depth = depth * self.hold + BACKGROUND * self.scale * (1 - self.hold)
        dense = cv2.resize(np.dstack([flow, depth]).astype(np.float32), (fine, fine))
        steps = (np.arange(fine, dtype=np.float32) + 0.5) / detail - 0.5
        x = np.rint(dense[..., 0] + steps).astype(np.int32)
        y = np.rint(dense[..., 1] + steps[:, None]).astype(np.int32)
        inside = np.flatnonzero((x >= 0) & (x < side) & (y >= 0) & (y < side))
        low, high = float(dense[..., 2].min()), float(dense[..., 2].max())
        near = (high - dense[..., 2]) * ((LEVELS - 1) / max(high - low, 1e-6))
        # the nearest wins each pixel: depth in the upper digits, its source in the lower ones
        keys = near.ravel()[inside].astype(np.int64) * fine**2 + inside
        best = np.full(side * side, -1, np.int64)
        np.maximum.at(best, (y.ravel() * side + x.ravel())[inside], keys)
        best = best.reshape(side, side)
        row, column = np.divmod(best % fine**2, fine)
        image = cv2.remap(
            self.image, steps[column], steps[row], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        near = (best // fine**2).astype(np.int16)  # -1 where nothing is
        closed = cv2.medianBlur(near, 3)
        if (holes := (near < 0) | (closed - near > CRACK * LEVELS)).any():
            image = cv2.inpaint(image, holes.astype(np.uint8), 2, cv2.INPAINT_TELEA)
        return image, high - closed * ((high - low) / (LEVELS - 1))

    def contour(self, jaw: np.ndarray, side: float, turn: np.ndarray) -> np.ndarray:
        """jaw (17, 2), already rotated by `turn` -> the same with the far half moved in x to the
        outline of the cheek. For each of its 8 points, a path on the surface goes over 60 % of the
        way from the point to the midline of the face; the outermost x of the rotated path is taken
        if it is farther out than the point. side: -1 for a head that is turned to the viewer's
        left, else 1."""
        rows = np.arange(8) if side < 0 else np.arange(9, 17)
        middle = self.points[[27, 28, 29, 30, 33, 51, 57, 8], 0].mean()
        share = np.linspace(0, 0.6, 13)[:, None]
        paths = np.stack(
            np.broadcast_arrays(
                self.points[rows, 0] * (1 - share) + middle * share, self.points[rows, 1]
            ),
            -1,
        )
        outer = self.moved(paths, self.depth_at(paths), turn)[0][..., 0] * side
        moved = jaw.copy()
        moved[rows, 0] = np.maximum(outer.max(0), jaw[rows, 0] * side) * side
        return moved


def random_view(head: Head, rng: np.random.Generator) -> tuple[float, float]:
    """A random yaw and pitch in degrees to turn a head to.

    A head with a yaw above FRONTAL is not turned to the other side, which its frame does not
    show."""
    side = np.sign(head.yaw) if abs(head.yaw) > FRONTAL else rng.choice([-1, 1])
    farthest = min(MAX_YAW, abs(head.yaw) + MAX_MORE_YAW)
    yaw = side * rng.uniform(MIN_YAW, farthest)
    return float(yaw), float(np.clip(rng.normal(0, MAX_PITCH / 2), -MAX_PITCH, MAX_PITCH))


class TurnedViews:
    """Frames with their heads turned to random sides: VIEWS of each frame, rendered once.

    A call with (row, rng) picks one: gray image, keypoints (k, 2), visible (k,). All depend on the
    frames and `seed` alone. threads: that render (default: one per core).
    """

    def __init__(self, frames: Frames, seed: int = 0, bar: bool = True, threads: int | None = None):
        if np.isnan(frames.points).any():
            raise UsageError(f"{frames.data}: heads cannot be turned where keypoints are missing")
        self.frames, self.seed = frames, seed
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            self.views = list(
                tqdm(
                    pool.map(self.render, range(len(frames))),
                    "turning heads",
                    len(frames),
                    leave=False,
                    unit="frame",
                    disable=not bar,
                )
            )

    def render(self, row: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The views of a frame, their images as JPEG."""
        rng = np.random.default_rng((self.seed, row))
        gray = cv2.cvtColor(self.frames.image(row), cv2.COLOR_RGB2GRAY)
        head = Head(gray, self.frames.points[row], layout=self.frames.layout)
        views = []
        for _ in range(VIEWS):
            image, points, visible = head.turned(*random_view(head, rng))
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            views.append((data, points, visible))
        return views

    def __call__(
        self, row: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data, points, visible = self.views[row][rng.integers(VIEWS)]
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), points, visible
