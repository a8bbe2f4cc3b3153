"""Faces of other shapes: eyelids, eyebrows, nose, lips, mouth and jaw of a picture are moved, and
its keypoints with them.

Labels on a coarse grid say little about how far eyes and lips are open, and a network that is
trained on them predicts nearly the mean face for everybody. How far a feature is moved here is
known exactly, whatever the error of its label.
"""

import cv2
import numpy as np

from facial_keypoints.layouts import Layout, load_layout

# Standard deviations of the natural logarithms of random factors
EYE, EYE_ALONE, LIP, OPENING = 0.3, 0.08, 0.35, 0.35
NOSE_WIDTH, MOUTH_WIDTH, JAW_WIDTH = 0.14, 0.12, 0.07
# Standard deviations of random vertical shifts; unit: the distance between the eyes' centers
BROW_SHIFT, MOUTH_SHIFT, CHIN_SHIFT = 0.04, 0.05, 0.05
GRID = 33  # nodes on each side of the grid at which the displacement is interpolated
RIM = 5  # fixed points on each side of the picture's rim, which does not move
SMOOTH = 0.3  # px; of the interpolation, so that labels at the same place may move apart

JAW, NOSTRILS, MOUTH = slice(0, 17), slice(31, 36), slice(48, 68)
BROWS, EYES = (slice(17, 22), slice(22, 27)), (slice(36, 42), slice(42, 48))
UPPER_OUTER, UPPER_INNER = [49, 50, 51, 52, 53], [61, 61, 62, 63, 63]
LOWER_OUTER, LOWER_INNER = [59, 58, 57, 56, 55], [67, 67, 66, 65, 65]


class ReshapeFace:
    """Give a share of the samples another face shape: image (h, w) and keypoints (68, 2) of ibug68
    are moved together. Samples of other layouts or without all keypoints stay as they are."""

    def __init__(self, share: float, layout: str | Layout = "ibug68"):
        self.share = share if load_layout(layout) == load_layout() else 0.0

    def __call__(self, sample: dict, rng: np.random.Generator | None = None) -> dict:
        rng = rng or np.random.default_rng()
        points = sample["keypoints"]
        if rng.random() >= self.share or np.isnan(points).any():
            return sample
        image, points = moved_image(sample["image"], points, reshaped(points, rng))
        return {**sample, "image": image, "keypoints": points}


def reshaped(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keypoints (68, 2) of ibug68 with random distances between features."""
    right, left = (points[eye].astype(np.float64).mean(0) for eye in EYES)
    across = left - right
    axes = np.stack([across, [-across[1], across[0]]])  # rows: to the left eye, down
    if (points[MOUTH].mean(0) - right) @ axes[1] < 0:
        axes[1] *= -1  # a mirrored face
    unit = max(across @ across, 1e-6)
    face = (points - (right + left) / 2) @ axes.T / unit  # in distances of the eyes

    def factor(spread):
        return np.exp(spread * np.clip(rng.normal(), -2, 2))

    eyes = factor(EYE)
    for eye in EYES:
        scale(face, eye, 1, eyes * factor(EYE_ALONE))
    for brow in BROWS:
        face[brow, 1] += BROW_SHIFT * rng.normal()
    scale(face, NOSTRILS, 0, factor(NOSE_WIDTH))
    scale(face, JAW, 0, factor(JAW_WIDTH))
    chin = np.clip(face[JAW, 1] - face[2, 1], 0, None)
    face[JAW, 1] += CHIN_SHIFT * rng.normal() * chin / max(chin.max(), 1e-6)
    scale(face, MOUTH, 0, factor(MOUTH_WIDTH))
    upper, lower = (face[inner, 1] - face[outer, 1] for outer, inner in
                    ((UPPER_OUTER, UPPER_INNER), (LOWER_OUTER, LOWER_INNER)))
    scale(face, [61, 62, 63, 65, 66, 67], 1, factor(OPENING))
    face[UPPER_OUTER, 1] = face[UPPER_INNER, 1] - upper * factor(LIP)
    face[LOWER_OUTER, 1] = face[LOWER_INNER, 1] - lower * factor(LIP)
    face[MOUTH, 1] += MOUTH_SHIFT * rng.normal()
    return face @ axes + (right + left) / 2


def scale(points: np.ndarray, rows: slice | list[int], axis: int, by: float) -> None:
    """Scale one coordinate of some points about their mean, in place."""
    middle = points[rows, axis].mean()
    points[rows, axis] = middle + by * (points[rows, axis] - middle)


def moved_image(image: np.ndarray, points: np.ndarray,
                wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image (h, w) in which points (n, 2) have moved to wanted places (n, 2), and where they
    are now exactly; the rim stays.

    The displacement is interpolated between points in proportion to distance (a polyharmonic
    spline of degree 1).
    """
    height, width = image.shape[:2]
    size, steps = np.array([width - 1, height - 1]), np.linspace(0, 1, RIM)
    rim = np.array([(x, y) for x in steps for y in steps if {x, y} & {0, 1}]) * size
    centers = np.concatenate([wanted, rim])
    count = len(centers)
    system = np.ones((count + 1, count + 1))
    system[:-1, :-1] = distances(centers, centers) - SMOOTH * np.eye(count)
    system[-1, -1] = 0
    values = np.zeros((count + 1, 2))
    values[:len(points)] = points - wanted
    weights = np.linalg.solve(system, values)

    def displacement(places):
        return distances(places, centers) @ weights[:-1] + weights[-1]

    nodes = np.stack(np.meshgrid(*(np.linspace(0, side, GRID) for side in size)), -1).reshape(-1, 2)
    grid = displacement(nodes).reshape(GRID, GRID, 2).astype(np.float32)
    # nodes lie on the first and last pixel: bilinear, with corners aligned
    x, y = (np.linspace(0, GRID - 1, side, dtype=np.float32) for side in (width, height))
    shift = cv2.remap(grid, *np.meshgrid(x, y), cv2.INTER_LINEAR)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32),
                                np.arange(height, dtype=np.float32))
    image = cv2.remap(image, columns + shift[..., 0], rows + shift[..., 1], cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)
    places = wanted
    for _ in range(4):  # where the image now shows the points: place + displacement = point
        places = points - displacement(places)
    return image, places.astype(np.float32)


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, 2), (m, 2) -> (n, m)."""
    return np.hypot(some[:, None, 0] - others[:, 0], some[:, None, 1] - others[:, 1])
