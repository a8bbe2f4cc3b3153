"""Covers: things drawn over a face in a crop (a hand, sunglasses, a mask, hair, an object), and
which keypoints they hide."""

from collections.abc import Callable

import cv2
import numpy as np

from facial_keypoints.geometry import tight_box

# A cover is a function of a uint8 crop (side, side) or (side, side, 3), keypoints (k, 2) in its
# pixels, and a random generator. It returns the opacity (side, side), 0…1, and what is drawn, in
# levels of about 0…255: (side, side), or for color crops also (side, side, 3).
Cover = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
SHIFT = 4  # OpenCV draws at positions in 1 / 2**SHIFT of a pixel


def fixed(places: np.ndarray) -> np.ndarray:
    """Positions (…, 2) in pixels -> the integers that OpenCV draws at, given SHIFT."""
    return np.rint(np.asarray(places) * 2**SHIFT).astype(np.int32)


def polygon(side: int, corners: np.ndarray) -> np.ndarray:
    """The mask (side, side), 0…1, of a filled polygon with corners (n, 2) in pixels."""
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [fixed(corners)], 255, cv2.LINE_AA, SHIFT)
    return mask / np.float32(255)


def ellipse(side: int, center: np.ndarray, axes: np.ndarray, angle: float) -> np.ndarray:
    """The mask (side, side), 0…1, of a filled ellipse. axes: half axes (2,) in pixels; angle:
    clockwise, in degrees."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(t) * axes[0], np.sin(t) * axes[1]], -1)
    return polygon(side, ring @ rotated(angle).T + center)


def rotated(angle: float) -> np.ndarray:
    """The matrix (2, 2) of a clockwise rotation by an angle in degrees."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cos, -sin], [sin, cos]])


def uneven(side: int, tone: float, rng: np.random.Generator, range_: float = 25) -> np.ndarray:
    """Gray levels (side, side) that vary smoothly around `tone`, like light on a surface. range_:
    standard deviation of the variation."""
    light = cv2.resize(
        rng.normal(0, range_, (3, 3)).astype(np.float32),
        (side, side),
        interpolation=cv2.INTER_CUBIC,
    )
    return tone + light + rng.normal(0, 2, (side, side)).astype(np.float32)


def skin_tone(image: np.ndarray, points: np.ndarray) -> float:
    """The median gray level at six keypoints: four of the nose and two of the jaw."""
    places = np.clip(points[[28, 29, 31, 35, 3, 13]], 0, image.shape[0] - 1).astype(int)
    return float(np.median(image[places[:, 1], places[:, 0]]))


def hand(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A hand with two to five fingers that reaches into the face from any side."""
    side, box = image.shape[0], tight_box(points)
    size, angle = box[2:].max(), rng.uniform(0, 360)
    width = size * rng.uniform(0.09, 0.15)
    tip = box[:2] + box[2:] * rng.uniform(0.05, 0.95, 2)
    mask = np.zeros((side, side), np.float32)
    levels = uneven(side, skin_tone(image, points) * rng.uniform(0.75, 1.2), rng, 10)
    count = int(rng.integers(2, 6))
    for number in range(count):
        length = size * rng.uniform(0.45, 0.7)
        bend, place = rng.normal(0, 6) + 8 * (number - count / 2), number * width * 1.05
        finger = ellipse(
            side,
            tip + rotated(angle) @ (length / 2, place),
            np.array([length / 2, width * 0.52]),
            angle + bend,
        )
        edge = cv2.GaussianBlur(finger, (0, 0), max(width / 5, 0.5))
        levels = np.where(finger > 0.5, levels * (0.55 + 0.45 * edge), levels)
        mask = np.maximum(mask, finger)
    palm = ellipse(
        side,
        tip + rotated(angle) @ (size * 0.75, (count - 1) * width / 2),
        np.array([size * 0.35, max(count * width * 0.55, size * 0.2)]),
        angle,
    )
    return np.maximum(mask, palm), levels


def sunglasses(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Dark lenses in front of both eyes."""
    side = image.shape[0]
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    apart = max(np.linalg.norm(eyes[1] - eyes[0]), side / 30)
    angle = np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1]))
    axes = apart * np.array([rng.uniform(0.36, 0.5), rng.uniform(0.25, 0.42)])
    down = rotated(angle) @ (0, rng.uniform(0, 0.12) * apart)
    mask = np.maximum(*(ellipse(side, eye + down, axes, angle) for eye in eyes))
    bridge = polygon(
        side, np.array([eyes[0] + down, eyes[1] + down, eyes[1] + 0.6 * down, eyes[0] + 0.6 * down])
    )
    return np.maximum(mask, bridge), uneven(side, rng.uniform(5, 80), rng)


def face_mask(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A mask or a scarf over mouth, chin and part of the nose."""
    side = image.shape[0]
    top = points[int(rng.integers(28, 31))]
    corners = np.vstack(
        [points[2:15], points[13:14] * 0.4 + top * 0.6, top, points[3:4] * 0.4 + top * 0.6]
    )
    corners = corners + 0.05 * (corners - corners.mean(0))
    levels = uneven(side, rng.uniform(40, 245), rng)
    folds = np.sin(np.arange(side) * rng.uniform(0.1, 0.4) + rng.uniform(0, 6))[:, None]
    return polygon(side, corners), levels + rng.uniform(0, 15) * folds


def hair(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Strands that fall from above over one side of the face."""
    side, box = image.shape[0], tight_box(points)
    mask, levels = np.zeros((side, side), np.uint8), np.zeros((side, side), np.float32)
    tone, sign = rng.uniform(10, 200), rng.choice([-1, 1])
    middle, size = box[0] + box[2] / 2, box[2:].max()
    start = middle + sign * size * rng.uniform(-0.2, 0.3)
    width, length = size * rng.uniform(0.15, 0.4), size * rng.uniform(0.4, 1.1)
    t = np.linspace(0, 1, 12)
    for _ in range(30):
        x = start + sign * (width * rng.uniform(-0.5, 0.5) + t**2 * size * rng.uniform(0.1, 0.35))
        strand = np.stack([x, box[1] - 0.35 * size + t * length * rng.uniform(0.75, 1)], -1)
        thick = max(int(size * 0.04), 1)
        cv2.polylines(mask, [fixed(strand)], False, 255, thick, cv2.LINE_AA, SHIFT)
        cv2.polylines(
            levels, [fixed(strand)], False, tone * rng.uniform(0.6, 1.4), thick, cv2.LINE_8, SHIFT
        )
    return mask / np.float32(255), levels


def thing(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle or an ellipse, filled with smooth gray levels or with noise, which stands for
    an object such as a phone or a cup."""
    side, box = image.shape[0], tight_box(points)
    center = box[:2] + box[2:] * rng.uniform(-0.1, 1.1, 2)
    axes, angle = box[2:].max() * rng.uniform(0.08, 0.35, 2), rng.uniform(0, 180)
    if rng.random() < 0.5:
        mask = ellipse(side, center, axes, angle)
    else:
        mask = polygon(
            side, np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * axes @ rotated(angle).T + center
        )
    levels = uneven(side, rng.uniform(0, 255), rng, 40)
    if rng.random() < 0.3:
        levels = rng.integers(0, 256, (side, side)).astype(np.float32)
    return mask, levels


def other_part(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An object filled with another part of the crop, as if another person stood in front."""
    side = image.shape[0]
    mask, _ = thing(image, points, rng)
    turned = np.rot90(image, int(rng.integers(4)))
    return mask, np.roll(turned, rng.integers(side // 5, side * 4 // 5, 2), (0, 1))


def half(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hides what lies beyond a random line at 0 to side / 4 pixels from the center of the crop,
    behind a shifted copy of the crop or one gray level; hard augmentation uses it by itself."""
    side = image.shape[0]
    across, angle = np.arange(side, dtype=np.float32) - (side - 1) / 2, rng.uniform(0, 2 * np.pi)
    mask = (
        across[None] * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle))
        > rng.uniform(0, side / 4)
    ).astype(np.float32)
    if rng.random() < 0.5:
        return mask, np.roll(image, rng.integers(side // 4, 3 * side // 4, 2), (0, 1))
    return mask, np.full(image.shape, rng.integers(0, 256), np.float32)


ANYWHERE: tuple[Cover, ...] = (thing, other_part)  # for keypoints of any layout
ON_FACES: tuple[Cover, ...] = (hand, sunglasses, face_mask, hair)  # for those of ibug68 only


def covered(
    image: np.ndarray, points: np.ndarray, cover: Cover, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a cover over a crop (side, side) or (side, side, 3) -> the new crop and the mask (k,) of
    the hidden keypoints: those where the opacity is above 0.5."""
    mask, levels = cover(image, points, rng)
    under = image.astype(np.float32)
    levels = np.clip(levels, 0, 255).astype(np.float32)
    if image.ndim == 3:
        levels = levels if levels.ndim == 3 else levels[..., None]
        mixed = under + mask[..., None] * (levels - under)
    else:
        mixed = under + mask * (levels - under)
    inside = np.rint(np.nan_to_num(points, nan=-1)).astype(int)
    there = ((inside >= 0) & (inside < image.shape[0])).all(1)
    inside = np.clip(inside, 0, image.shape[0] - 1)
    hidden = there & (mask[inside[:, 1], inside[:, 0]] > 0.5)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), hidden
