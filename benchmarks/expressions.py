"""Accuracy of `Face.fit_3d`: depth, pose, expressions and identity on synthetic heads whose truth
is known; the pose of portraits; expressions compared with MediaPipe's Face Landmarker."""

import argparse
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.peers import landmarker_expressions
from facial_keypoints import KeypointDetector
from facial_keypoints.command import run_command
from facial_keypoints.face_model import Person, face_model, fit_model
from facial_keypoints.geometry import tight_box
from facial_keypoints.images import to_gray
from facial_keypoints.pose import DISTANCE, head_pose, rotation_of
from research.datasets import load_frames, split_frames

ACTIVE = 3  # expressions of a synthetic face, each with both sides
SIDES = ("Left", "Right")
MAX_YAW = 30  # degrees, of the faces that are compared with the Landmarker
PIXELS = 100  # of an inter-ocular distance of synthetic faces


def random_expression(rng: np.random.Generator) -> np.ndarray:
    """(e,) values: ACTIVE of the expressions are between 0 and 1, both sides nearly the same."""
    names = face_model().names
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        base = next((name.removesuffix(side) for side in SIDES if name.endswith(side)), name)
        # the mouth moves to one side, not to both
        groups.setdefault(name if base == "mouth" else base, []).append(row)
    values = np.zeros(len(names))
    for base in rng.choice(list(groups), ACTIVE, replace=False):
        values[groups[base]] = rng.uniform(0, 1) * rng.uniform(0.8, 1, len(groups[base]))
    return values


def synthetic_face(rng, identity, expression):
    """(points (68, 2) in pixels with the noise of the networks, their place (68, 3) in head
    coordinates, angles yaw, pitch, roll)."""
    model = face_model()
    shape = model.mean + model.modes @ np.concatenate([identity, expression])
    angles = rng.uniform(-1, 1, 3) * (40, 15, 20)
    placed = shape @ rotation_of(*angles).T + [0, 0, DISTANCE]
    pixels = PIXELS * DISTANCE * placed[:, :2] / placed[:, 2:]
    noise = rng.normal(size=(68, 2)) * model.noise[:, None] / np.sqrt(2) * PIXELS
    return pixels + noise, shape, angles


def synthetic_table(count: int, seed: int = 0) -> None:
    """Print the errors on `count` synthetic heads, each with another identity, expression and
    pose."""
    rng, model = np.random.default_rng(seed), face_model()
    true, fitted, depth, points, angles, seconds = [], [], [], [], [], 0.0
    for _ in tqdm(range(count), desc="synthetic heads", leave=False):
        expression = random_expression(rng)
        seen, shape, pose = synthetic_face(rng, rng.normal(size=len(model.identity)), expression)
        start = time.perf_counter()
        fit = fit_model(model, seen)
        seconds += time.perf_counter() - start
        true.append(expression)
        fitted.append(list(fit.expressions.values()))
        away = fit.points - fit.points.mean(0) - shape + shape.mean(0)
        depth.append(np.abs(away[:, 2]).mean())
        points.append(np.linalg.norm(away, axis=1).mean())
        angles.append(np.abs(np.array([fit.pose.yaw, fit.pose.pitch, fit.pose.roll]) - pose))
    yaw, pitch, roll = np.mean(angles, axis=0)
    print(f"{count} synthetic heads, {1000 * seconds / count:.2f} ms a fit")
    print(f"mean error of the depth of a point: {100 * np.mean(depth):.1f} % of the eye distance")
    print(f"mean error of a point in three dimensions: {100 * np.mean(points):.1f} %")
    print(f"mean error of yaw, pitch, roll: {yaw:.1f}, {pitch:.1f}, {roll:.1f} degrees")
    true, fitted = np.array(true), np.array(fitted)
    print("| expression | correlation | slope | mean error where active | mean value where not |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, value, found in zip(model.names, true.T, fitted.T, strict=True):
        active = value > 0
        slope = np.polyfit(value, found, 1)[0]
        print(
            f"| {name} | {np.corrcoef(value, found)[0, 1]:.2f} | {slope:.2f} "
            f"| {np.abs(found - value)[active].mean():.2f} | {found[~active].mean():.2f} |"
        )


def person_table(frames: int = 60, people: int = 20, seed: int = 0) -> None:
    """Print how much the identity of a person moves between frames with other expressions."""
    rng, model = np.random.default_rng(seed), face_model()
    moved: dict[bool, list[float]] = {False: [], True: []}
    errors: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(people):
        identity = rng.normal(size=len(model.identity))
        neutral = model.mean + np.tensordot(identity, model.identity, 1)
        seen = [synthetic_face(rng, identity, random_expression(rng))[0] for _ in range(frames)]
        for shared in (False, True):
            person = Person() if shared else None
            fits = [fit_model(model, points, person=person) for points in seen][frames // 2 :]
            neutrals = np.array([fit.neutral for fit in fits])
            moved[shared].append(np.linalg.norm(neutrals - neutrals.mean(0), axis=-1).mean())
            errors[shared].append(np.linalg.norm(neutrals - neutral, axis=-1).mean())
    print(f"{people} synthetic people in {frames} frames, the second half measured")
    print("| identity | neutral face moves between frames % | error of the neutral face % |")
    print("| --- | ---: | ---: |")
    for shared, name in ((False, "of each frame alone"), (True, "shared by the frames")):
        print(
            f"| {name} | {100 * np.mean(moved[shared]):.1f} | {100 * np.mean(errors[shared]):.1f} |"
        )


def pose_table(data: str, nets: list[str]) -> None:
    """Print the pose of portraits, by the mean head and by the fit."""
    frames = load_frames(data)
    print(f"{data}: {len(frames)} portraits that look into the camera; mean and standard deviation")
    print("| network | head | yaw | pitch | roll |")
    print("| --- | --- | ---: | ---: | ---: |")
    for net in nets:
        detector = KeypointDetector(net)
        faces = [
            detector.predict_boxes(frames.image(row), [box])[0]
            for row, box in enumerate(tight_box(frames.points))
        ]
        for name, poses in (
            ("mean head", [head_pose(face.points) for face in faces]),
            ("fitted", [face.fit_3d().pose for face in faces]),
        ):
            angles = np.array([(pose.yaw, pose.pitch, pose.roll) for pose in poses])
            cells = (
                f"{m:.1f} ± {s:.1f}" for m, s in zip(angles.mean(0), angles.std(0), strict=True)
            )
            print(f"| {net} | {name} | {' | '.join(cells)} |")


def comparison_table(data: str, net: str, landmarker: Path) -> None:
    """Print the correlation of each expression with MediaPipe's Face Landmarker, on validation
    faces."""
    frames = split_frames(load_frames(data), "official", "validation")
    detector, peer = KeypointDetector(net), landmarker_expressions(landmarker)
    ours, theirs, rests = [], [], []
    for row, box in enumerate(tqdm(tight_box(frames.points), desc="faces", leave=False)):
        image = frames.image(row)
        if not (found := peer(to_gray(image), box)):
            continue
        fit = detector.predict_boxes(image, [box])[0].fit_3d()
        if abs(fit.pose.yaw) < MAX_YAW:
            ours.append(fit.expressions)
            theirs.append(found)
            rests.append(fit.residual)
    print(
        f"{data}, validation, {net}: {len(ours)} faces with a yaw below {MAX_YAW}°; the fit leaves "
        f"{100 * np.mean(rests):.1f} % of the eye distance"
    )
    print("| expression | correlation | mean here | mean there | deviation there |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in face_model().names:
        here, there = (np.array([row[name] for row in rows]) for rows in (ours, theirs))
        print(
            f"| {name} | {np.corrcoef(here, there)[0, 1]:.2f} | {here.mean():.2f} "
            f"| {there.mean():.2f} | {there.std():.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=2000, help="(default: 2000)")
    parser.add_argument("--portraits", metavar="DATA", help="a data set of frontal portraits")
    parser.add_argument("--nets", nargs="+", default=["models7"], help="(default: models7)")
    parser.add_argument("--data", default="data/merlrav.zip", help="(default: %(default)s)")
    parser.add_argument("--landmarker", type=Path, help="MediaPipe's face_landmarker.task")
    options = parser.parse_args()
    synthetic_table(options.heads)
    person_table()
    if options.portraits:
        pose_table(options.portraits, options.nets)
    if options.landmarker:
        comparison_table(options.data, options.nets[0], options.landmarker)


if __name__ == "__main__":
    run_command(main)
