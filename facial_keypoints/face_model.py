"""A face in three dimensions with its expression, fitted to the keypoints."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from facial_keypoints.errors import UsageError
from facial_keypoints.head import as_ibug68
from facial_keypoints.layouts import Layout, load_layout
from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.pose import DISTANCE, Pose, angles_of, sight_rotation

MODEL_FILE = SAVED_MODELS / "face_model.npz"
MIN_FIT_POINTS = 12  # fewer visible points say too little about a face
STEPS = 5  # of Gauss and Newton
PIVOTS = 12  # a few are enough; a bound for faces that do not settle
# Prior of the coefficients. Identity: normal, variance 1. Expressions: few are active at a time
# (an exponential prior of this weight), and none is large without reason (a normal one, of variance
# 1 / RIDGE). Chosen on validation faces, see benchmarks/expressions.py
EXPRESSION_WEIGHT = 1.0
RIDGE = 5.0  # keeps expressions that cancel each other small
HIDDEN_WEIGHT = 0.05  # of points that are certainly hidden
PERSON_FRAMES = 30  # frames of a person whose identity counts as known


@dataclass(eq=False)
class FaceFit:
    """A face of the morphable model, as `fit_3d` returns it.

    points (k, 3): the keypoints in head coordinates, of the face with its expression: the origin
    is between the outer eye corners, the unit is their distance in the mean face; x to the viewer's
    right, y down, z away from the viewer (right-handed).
    pose: of the head, with the same angles and the same camera as `head_pose`.
    expressions: {name: 0…1} with the names of ARKit; left and right are those of the person.
    identity (m,): coefficients of the person, 0 in the mean, variance 1.
    residual: root mean square of the visible points, in inter-ocular distances.
    """

    points: np.ndarray
    pose: Pose
    expressions: dict[str, float]
    identity: np.ndarray
    residual: float

    @property
    def neutral(self) -> np.ndarray:
        """(k, 3): the keypoints of the person without expression."""
        model = face_model()
        return model.mean + np.tensordot(self.identity, model.identity, 1)

    def mesh(self) -> np.ndarray:
        """(v, 3): the vertices of the face of `face_model().triangles`, with its expression, in
        head coordinates."""
        model = face_model()
        expression = np.array([self.expressions[name] for name in model.names])
        return (
            model.mesh_mean
            + np.tensordot(self.identity, model.mesh_identity, 1)
            + np.tensordot(expression, model.mesh_expressions, 1)
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) in head coordinates -> (n, 2) in pixels of the photo."""
        seen = (points @ self.pose.rotation.T + self.pose.translation) @ self.pose.camera.T
        return seen[:, :2] / seen[:, 2:]


@dataclass(eq=False)
class FaceModel:
    """The morphable model at the keypoints of ibug68, in inter-ocular distances: mean (68, 3),
    identity (m, 68, 3), expressions (e, 68, 3) with their names, noise (68,); and the same at the
    vertices of a mesh, with its triangles (t, 3)."""

    mean: np.ndarray
    identity: np.ndarray
    expressions: np.ndarray
    names: tuple[str, ...]
    noise: np.ndarray
    mesh_mean: np.ndarray
    mesh_identity: np.ndarray
    mesh_expressions: np.ndarray
    triangles: np.ndarray

    @cached_property
    def modes(self) -> np.ndarray:
        """(68, 3, m + e): identity and expressions."""
        modes = np.concatenate([self.identity, self.expressions])
        return np.ascontiguousarray(np.moveaxis(modes, 0, -1))


@cache
def face_model() -> FaceModel:
    """The model of `saved_models/face_model.npz`, made from ICT-FaceKit (MIT license, NOTICE) by
    `scripts/build_face_model.py`."""
    with np.load(MODEL_FILE, allow_pickle=False) as table:
        values = {name: table[name] for name in table.files if name != "notice"}
    names = tuple(str(name) for name in values.pop("names"))
    triangles = values.pop("triangles").astype(np.int32)
    floats = {name: value.astype(np.float64) for name, value in values.items()}
    return FaceModel(names=names, triangles=triangles, **floats)


class Person:
    """The identity of one person over the frames of a clip: `fit_3d(…, person=person)` adds the
    identity of each frame to its mean, and the next fits start from this mean."""

    def __init__(self) -> None:
        self.frames, self.identity = 0, np.zeros(0)

    def add(self, identity: np.ndarray) -> None:
        """Add the coefficients of a frame to the mean; after PERSON_FRAMES frames, old frames
        count less and less."""
        self.frames = min(self.frames + 1, PERSON_FRAMES)
        mean = self.identity if len(self.identity) else np.zeros_like(identity)
        self.identity = mean + (identity - mean) / self.frames


def fit_3d(
    points: np.ndarray,
    visibility: np.ndarray | None = None,
    layout: str | Layout = "ibug68",
    person: Person | None = None,
) -> FaceFit:
    """Fit the morphable model to keypoints (k, 2) in pixels -> FaceFit.

    visibility (k,) in 0…1: weights of the points. person: shares the identity of a person over
    several frames. The camera is that of `head_pose` without a focal length: it points at the
    head from a distance of DISTANCE inter-ocular distances.

    Minimizes the squared distances of the projected points, in units of their noise, plus the
    prior of the coefficients, by Gauss-Newton steps; expressions stay within 0…1 by an active set.
    Raises UsageError if fewer than MIN_FIT_POINTS points of ibug68 are known and visible.
    """
    seen = np.asarray(as_ibug68(points, layout), np.float64)
    own = visibility is not None and load_layout(layout) == load_layout()
    return fit_model(face_model(), seen, visibility if own else None, person)


def fit_model(
    model: FaceModel,
    points: np.ndarray,
    visibility: np.ndarray | None = None,
    person: Person | None = None,
) -> FaceFit:
    """`fit_3d` of any model to the keypoints (68, 2) of ibug68."""
    shown = np.isfinite(points).all(1)
    if visibility is not None:
        shown = shown * np.clip(np.asarray(visibility, np.float64), HIDDEN_WEIGHT, 1)
    if (shown > 0.5).sum() < MIN_FIT_POINTS:
        raise UsageError(
            f"a fit in three dimensions needs {MIN_FIT_POINTS} visible keypoints of ibug68"
        )
    rows = np.flatnonzero(shown)
    return _fit(model, points[rows], shown[rows] / model.noise[rows], rows, person)


def _fit(model, seen, weights, rows, person):
    count, identities = model.modes.shape[2], len(model.identity)
    mean, modes = model.mean[rows], model.modes[rows]
    rotation, scale = _first_camera(mean, seen, weights)
    focal, center = DISTANCE * scale, np.average(seen, axis=0, weights=weights)
    translation = np.array([0.0, 0.0, DISTANCE]) - rotation @ np.average(
        mean, axis=0, weights=weights
    )
    coefficients, prior = np.zeros(count), np.full(count, RIDGE)
    prior[:identities] = 1
    expected, slope = np.zeros(count), np.full(count, EXPRESSION_WEIGHT)
    slope[:identities] = 0
    if person is not None and person.frames:
        expected[:identities] = coefficients[:identities] = person.identity
        prior[:identities] *= 1 + person.frames
    target = (seen - center) / scale  # in inter-ocular distances
    for _ in range(STEPS):
        turned = (mean + modes @ coefficients) @ rotation.T
        placed = turned + translation
        depth = placed[:, 2:]
        missing = target - DISTANCE * placed[:, :2] / depth
        # d(DISTANCE · X / Z): what moves a point in camera coordinates moves its projection
        moves = np.empty((len(rows), 3, 6 + count))
        moves[:, :, :3] = _crosses(turned)
        moves[:, :, 3:6] = np.eye(3)
        np.matmul(rotation, modes, out=moves[:, :, 6:])
        flat = (moves[:, :2] - (placed[:, :2] / depth)[:, :, None] * moves[:, 2:]) * (
            DISTANCE / depth * weights[:, None]
        )[:, :, None]
        flat = flat.reshape(-1, 6 + count)
        matrix, right = flat.T @ flat, flat.T @ (missing * weights[:, None]).ravel()
        matrix[range(6, 6 + count), range(6, 6 + count)] += prior
        right[6:] -= prior * (coefficients - expected) + slope
        # a ridge: few visible points may leave a direction of the pose free
        matrix[range(6), range(6)] += 1e-6
        step = _bounded_step(matrix, right, 6 + identities, coefficients[identities:])
        rotation = _rotation(step[:3]) @ rotation
        translation = translation + step[3:6]
        coefficients = coefficients + step[6:]
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]])
    angles = angles_of(sight_rotation(translation).T @ rotation)
    identity = coefficients[:identities]
    if person is not None:
        person.add(identity)
    shape = model.mean + model.modes @ coefficients
    return FaceFit(
        shape,
        Pose(*angles, rotation, translation, camera),
        dict(zip(model.names, np.clip(coefficients[identities:], 0, 1).tolist(), strict=True)),
        identity,
        float(np.sqrt(np.average(np.square(missing).sum(1), weights=weights))),
    )


def _first_camera(mean, seen, weights):
    """Rotation (3, 3) and pixels per unit of the orthographic camera that takes the mean face to
    the points, from the affine camera with least squared error."""
    root = np.sqrt(weights / weights.sum())[:, None]
    model = (mean - np.average(mean, axis=0, weights=weights)) * root
    flat = (seen - np.average(seen, axis=0, weights=weights)) * root
    # a ridge: the depth of few visible points may be undefined
    affine = np.linalg.solve(model.T @ model + 1e-4 * np.eye(3), model.T @ flat).T
    left, values, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    return np.vstack([rows, np.cross(rows[0], rows[1])]), max(values.mean(), 1e-9)


def _bounded_step(matrix, right, free, values):
    """The step (n,) that solves matrix @ step = right, with values + step[free:] within 0…1.

    Block principal pivoting (Júdice and Pires, Computers & Operations Research 1994): what leaves
    its bounds is put on them, what presses inwards from a bound is freed, until neither is left.
    """
    inverse = np.linalg.solve(
        matrix[:free, :free], np.column_stack([matrix[:free, free:], right[:free]])
    )
    square = matrix[free:, free:] - matrix[free:, :free] @ inverse[:, :-1]
    wanted = right[free:] - matrix[free:, :free] @ inverse[:, -1] + square @ values
    # from here the values themselves: square @ new = wanted, 0 <= new <= 1
    bound = np.where(values >= 1, 1, np.where(values <= 0, -1, 0))
    for _ in range(PIVOTS):
        new = (bound > 0).astype(np.float64)
        some = np.flatnonzero(bound == 0)
        if len(some):
            rest = wanted[some] - square[some] @ new
            new[some] = np.linalg.solve(square[np.ix_(some, some)], rest)
        pull = wanted - square @ new
        low, high = (bound == 0) & (new < 0), (bound == 0) & (new > 1)
        freed = ((bound < 0) & (pull > 1e-9)) | ((bound > 0) & (pull < -1e-9))
        if not (low | high | freed).any():
            break
        bound = np.where(low, -1, np.where(high, 1, np.where(freed, 0, bound)))
    step = np.clip(new, 0, 1) - values
    return np.concatenate([inverse[:, -1] - inverse[:, :-1] @ step, step])


def _crosses(points):
    """(n, 3, 3): how points (n, 3) move when they are rotated about x, y and z."""
    x, y, z = points.T
    zero = np.zeros_like(x)
    return np.stack([zero, z, -y, -z, zero, x, y, -x, zero], -1).reshape(-1, 3, 3)


def _rotation(vector):
    """The rotation (3, 3) by a vector (3,): its length is the angle, in radians (Rodrigues)."""
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
