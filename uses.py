"""What keypoints are good for: head pose, open eyes and mouths, a filter, aligned faces, faces made unrecognisable."""

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

HEAD = Path(__file__).resolve().parent / "saved_models" / "head.csv"
RIGID = [0, 1, 2, 14, 15, 16, *range(17, 48), 48, 50, 51, 52, 54]  # not the lower lip and the chin, which talk
DISTANCE = 10  # of the camera from the head, in inter-ocular distances, where no focal length is known: about 1 m
COLOURS = ((213, 94, 0), (0, 158, 115), (0, 114, 178))  # of the axes x, y, z


# ---------------------------------------------------------------- head pose

@cache
def head():
    """A mean head: keypoints (68, 3) in units of the inter-ocular distance; x to the viewer's right, y down, z away.

    It is level: the median pitch of training heads that look ahead is 0.
    """
    return np.loadtxt(HEAD, delimiter=",", skiprows=1).astype(np.float64)


def factorize(points, swap):
    """Keypoints (n, 68, 2) of many heads in many poses -> one mean head (68, 3), as `head`.

    Points of a rigid body under weak perspective have rank 3 (Tomasi and Kanade, IJCV 1992); that the rows of each
    rotation are as long as and square to one another fixes the scales. `swap` renames mirrored points: heads are symmetric.
    """
    points = np.concatenate([points, points[:, swap] * [-1, 1]]).astype(np.float64)
    centred = points - points.mean(1, keepdims=True)
    centred /= np.sqrt(np.square(centred).sum((1, 2), keepdims=True))
    left, values, right = np.linalg.svd(centred.transpose(0, 2, 1).reshape(-1, points.shape[1]), full_matrices=False)
    rows = (left[:, :3] * values[:3]).reshape(-1, 2, 3)

    def products(a, b):  # of the entries of a symmetric Q in a Q b
        return np.stack([a[:, 0] * b[:, 0], a[:, 0] * b[:, 1] + a[:, 1] * b[:, 0], a[:, 0] * b[:, 2] + a[:, 2] * b[:, 0],
                         a[:, 1] * b[:, 1], a[:, 1] * b[:, 2] + a[:, 2] * b[:, 1], a[:, 2] * b[:, 2]], 1)

    first, second = rows[:, 0], rows[:, 1]
    lengths = products(first, first), products(second, second)
    design = np.concatenate([lengths[0] - lengths[1], products(first, second), (lengths[0] + lengths[1]).sum(0)[None]])
    a, b, c, d, e, f = np.linalg.lstsq(design, np.eye(len(design))[-1] * 2 * len(rows), rcond=None)[0]
    scales, axes = np.linalg.eigh([[a, b, c], [b, d, e], [c, e, f]])
    shape = upright((np.linalg.inv(axes * np.sqrt(np.maximum(scales, 1e-9))) @ right[:3]).T)
    shape[:, 2] *= np.sign(shape[36, 2] - shape[30, 2])  # the nose is nearer than the eyes
    shape = (shape + shape[swap] * [-1, 1, 1]) / 2
    return shape / np.linalg.norm(shape[36] - shape[45])


def upright(shape):
    """A head (68, 3) with its eyes at the origin, x along eyes, jaw and mouth, and the chin straight below the nose."""
    x = shape[45] - shape[36] + shape[16] - shape[0] + shape[54] - shape[48]
    x /= np.linalg.norm(x)
    y = shape[8] - shape[27]
    y -= y @ x * x
    y /= np.linalg.norm(y)
    shape = shape @ np.stack([x, y, np.cross(x, y)], 1)
    return shape - shape[[36, 39, 42, 45]].mean(0)


def leveled(shape, points):
    """A head (68, 3) turned in pitch so that of the heads of keypoints (n, 68, 2) those that look ahead are level.

    Ahead: a yaw within 15 degrees. Level: their median pitch is 0.
    """
    poses = [head_pose(face, model=shape) for face in points]
    pitch = np.median([pose.pitch for pose in poses if abs(pose.yaw) < 15])
    return shape @ rotation_of(0, pitch, 0).T


@dataclass
class Pose:
    """Angles in degrees: yaw > 0 looks to the viewer's right, pitch > 0 down, roll > 0 tilts clockwise.

    All are 0 for a level head that looks into the camera, wherever it is in the photo: they are relative to the line of
    sight from the camera to the head.
    rotation (3, 3) and translation (3,), in inter-ocular distances, take `head` to the camera; camera (3, 3) to pixels.
    """

    yaw: float
    pitch: float
    roll: float
    rotation: np.ndarray
    translation: np.ndarray
    camera: np.ndarray


def tilt(points):
    """Keypoints (…, 68, 2) -> how far faces are tilted clockwise in degrees (…): the rotation that fits `head` best."""
    points = np.asarray(points, np.float64)
    points = points - points.mean(-2, keepdims=True)
    front = head()[:, :2] - head()[:, :2].mean(0)
    along = (points * front).sum((-1, -2))
    across = (front[:, 0] * points[..., 1] - front[:, 1] * points[..., 0]).sum(-1)
    return np.degrees(np.arctan2(across, along))


def unlikeness(points):
    """Keypoints (…, 68, 2) -> how little they look like a head: 0 for one seen from anywhere, 1 for noise.

    The share of the points' spread that no affine camera explains; openness of mouths and lids counts as well.
    """
    points = np.asarray(points, np.float64)
    points = points - points.mean(-2, keepdims=True)
    left = points - seen_by_cameras() @ points
    return np.sqrt(np.square(left).sum((-1, -2)) / np.square(points).sum((-1, -2)).clip(1e-12))


@cache
def seen_by_cameras():
    """(68, 68): takes centred points to the nearest that some affine camera sees of `head`."""
    model = head() - head().mean(0)
    return model @ np.linalg.pinv(model)


def rotation_of(yaw, pitch, roll):
    """Angles in degrees -> rotation (3, 3): pitch first, then yaw, then roll."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(np.radians(a)), np.cos(np.radians(a))) for a in (yaw, pitch, roll))
    return (np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]))


def angles_of(rotation):
    """The inverse of `rotation_of`: yaw, pitch, roll in degrees, yaw within ±90."""
    yaw = np.arcsin(np.clip(rotation[2, 0], -1, 1))
    return tuple(float(a) for a in np.degrees([yaw, np.arctan2(rotation[2, 1], rotation[2, 2]),
                                               np.arctan2(rotation[1, 0], rotation[0, 0])]))


def head_pose(points, size=None, focal=None, model=None):
    """Keypoints (68, 2) in pixels -> Pose.

    size (height, width) and focal in pixels: of a calibrated camera, whose axis meets the middle of the photo. Without
    a focal length the camera is taken to look at the head, from a distance of DISTANCE inter-ocular distances: then
    place and size of the face in the photo do not matter. model (68, 3): another head than the mean one.
    """
    model, seen = (head() if model is None else model)[RIGID], np.asarray(points, np.float64)[RIGID]
    if focal is None:
        focal, center = DISTANCE * weak_perspective_scale(model, seen), seen.mean(0)
    else:
        center = (np.array(size[::-1]) - 1) / 2
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, turn, translation = cv2.solvePnP(model, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    turn, translation = cv2.solvePnPRefineLM(model, seen, camera, None, turn, translation)
    rotation, translation = cv2.Rodrigues(turn)[0], translation.ravel()
    return Pose(*angles_of(sight_rotation(translation).T @ rotation), rotation, translation, camera)


def weak_perspective_scale(model, seen):
    """Pixels for each unit of a model (k, 3) that is seen as points (k, 2) from far away, in whatever rotation."""
    camera = np.linalg.lstsq(model - model.mean(0), seen - seen.mean(0), rcond=None)[0]
    return max(np.sqrt(np.square(np.linalg.svd(camera, compute_uv=False)).mean()), 1e-9)


def sight_rotation(direction):
    """The smallest rotation (3, 3) that takes the camera's axis z to a direction (3,)."""
    axis = np.cross([0, 0, 1], direction)
    angle = np.arctan2(np.linalg.norm(axis), direction[2])
    return cv2.Rodrigues(axis / max(np.linalg.norm(axis), 1e-12) * angle)[0]


def draw_axes(image, pose, thickness=None):
    """Draw x (orange), y (green), z (blue, towards the viewer) of a head at its nose, into a uint8 RGB image."""
    start = head()[30]
    ends = np.stack([start, *(start + 0.9 * np.diag([1.0, 1.0, -1.0]))])
    pixels = cv2.projectPoints(ends, cv2.Rodrigues(pose.rotation)[0], pose.translation, pose.camera, None)[0][:, 0]
    if not np.abs(pixels).max() < 1e5:
        return
    width = thickness or max(round(float(np.linalg.norm(pixels[1:] - pixels[0], axis=1).max()) / 30), 1)
    for end, colour in zip(pixels[1:], COLOURS, strict=True):
        cv2.line(image, *(tuple(round(float(v)) for v in p) for p in (pixels[0], end)), colour, width, cv2.LINE_AA)


# ---------------------------------------------------------------- open eyes, open mouths

def openness(points, corners, above, below):
    """Mean distance of upper from lower points / distance of the corners; any batch (…, 68, 2)."""
    width = np.linalg.norm(points[..., corners[0], :] - points[..., corners[1], :], axis=-1)
    return np.linalg.norm(points[..., above, :] - points[..., below, :], axis=-1).mean(-1) / width


def eye_openness(points):
    """Keypoints (…, 68, 2) -> (…, 2), the viewer's left and right eye: some 0.3 open, below 0.15 shut.

    The eye aspect ratio of Soukupová and Čech, Computer Vision Winter Workshop 2016.
    """
    points = np.asarray(points)
    return np.stack([openness(points, (36, 39), [37, 38], [41, 40]), openness(points, (42, 45), [43, 44], [47, 46])], -1)


def mouth_openness(points):
    """Keypoints (…, 68, 2) -> (…): height of the gap between the lips / its width; 0 shut, above 0.3 open."""
    return openness(np.asarray(points), (60, 64), [61, 62, 63], [67, 66, 65])


# ---------------------------------------------------------------- faces put straight, dressed up, hidden

def align_matrix(points, side, eyes=0.35):
    """Similarity (2, 3) that puts the centres of the eyes level in a square of `side` pixels, at `eyes` of its height."""
    points = np.asarray(points, np.float64)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    along = (right - left) * (1 / 0.4 / side)  # the eyes are 0.4 of the side apart
    linear = np.linalg.inv(np.array([[along[0], -along[1]], [along[1], along[0]]]))
    return np.column_stack([linear, np.array([(side - 1) / 2, eyes * side]) - linear @ ((left + right) / 2)])


def align(image, points, side=160):
    """A face cut out with its eyes level, (side, side[, 3]) uint8, and its keypoints (68, 2) there."""
    matrix = align_matrix(points, side)
    shrinks = abs(np.linalg.det(matrix[:, :2])) < 0.25
    face = cv2.warpAffine(cv2.GaussianBlur(image, (0, 0), 0.5 / np.sqrt(np.linalg.det(matrix[:, :2]))) if shrinks else image,
                          matrix, (side, side), flags=cv2.INTER_LINEAR)
    return face, (np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@cache
def glasses():
    """Sunglasses as RGBA (160, 400, 4) uint8, the outer corners of the eyes at (80, 70) and (320, 70)."""
    picture = np.zeros((160, 400, 4), np.uint8)
    for centre in (118, 282):
        cv2.ellipse(picture, (centre, 76), (70, 52), 0, 0, 360, (25, 25, 28, 255), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (centre, 76), (61, 43), 0, 0, 360, (30, 38, 52, 215), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (centre - 22, 58), (22, 10), -25, 0, 360, (150, 170, 190, 225), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (200, 66), (24, 12), 0, 180, 360, (25, 25, 28, 255), 8, cv2.LINE_AA)
    for x, end in ((50, 2), (350, 398)):
        cv2.line(picture, (x, 58), (end, 48), (25, 25, 28, 255), 9, cv2.LINE_AA)
    return picture


def wear_glasses(image, points):
    """Put sunglasses on a face of a uint8 RGB image, in place: with its scale and tilt, half seen through."""
    corners = np.asarray(points, np.float64)[[36, 45]]
    along = (corners[1] - corners[0]) / 240
    linear = np.array([[along[0], -along[1]], [along[1], along[0]]])
    matrix = np.column_stack([linear, corners[0] - linear @ (80, 70)])
    picture = glasses().astype(np.float32) / 255
    picture[..., :3] *= picture[..., 3:]  # premultiplied: no dark or bright seam
    worn = cv2.warpAffine(picture, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)
    image[:] = np.clip(image * (1 - worn[..., 3:]) + 255 * worn[..., :3], 0, 255).round().astype(np.uint8)


def hide(image, points):
    """Make a face of a uint8 RGB image unrecognisable, in place: an ellipse around it is left six averages wide."""
    points = np.asarray(points, np.float64)
    low, high = points.min(0), points.max(0)
    size = max((high - low).max(), 2.0)
    left, top = np.maximum(np.floor(low - 0.6 * size), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high + 0.35 * size) + 1, image.shape[1::-1]).astype(int)
    if right <= left or bottom <= top:
        return
    region = image[top:bottom, left:right]
    cells = np.maximum(np.round(np.array(region.shape[1::-1]) / size * 6), 1).astype(int)
    coarse = cv2.resize(cv2.resize(region, cells.tolist(), interpolation=cv2.INTER_AREA), region.shape[1::-1])
    centre = (low + high) / 2 - [left, top] - [0, 0.12 * size]  # the forehead has no points
    y, x = np.mgrid[:region.shape[0], :region.shape[1]]
    across = np.maximum((high - low) / 2, 0.35 * size) * [1.25, 1.0] + [0, 0.3 * size]
    mask = np.clip(8 * (1.08 - np.hypot((x - centre[0]) / across[0], (y - centre[1]) / across[1])), 0, 1)[..., None]
    region[:] = (region * (1 - mask) + coarse * mask).round().astype(np.uint8)


STYLES = {  # of `pipeline.py --draw`, beside points; each draws one face into an image
    "pose": lambda image, points: draw_axes(image, head_pose(points)),
    "glasses": wear_glasses,
    "blur": hide,
}


def main():
    parser = argparse.ArgumentParser(description="Measure the mean head in 3D from annotated frames, by factorisation.")
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    from data_load import load_frames, split_frames
    from formats import write_whole
    from transforms import SWAP

    frames = split_frames(load_frames(parser.parse_args().data), "official", "all-training")
    shape = leveled(factorize(frames.points, SWAP), frames.points)
    rows = [",".join(f"{value:.4f}" for value in row) for row in shape]
    write_whole(HEAD, "\n".join(["x,y,z", *rows, ""]))
    print(f"written: {HEAD.name}, a head measured from {len(frames)} frames")


if __name__ == "__main__":
    from errors import run

    run(main)
