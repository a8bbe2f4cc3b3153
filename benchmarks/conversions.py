"""Errors of conversions between keypoint layouts: of a conversion to another layout and back, and
of MediaPipe's 478 keypoints as 68 against the labels, where mediapipe is installed."""

import argparse
import importlib.util

import numpy as np

from facial_keypoints.paths import layout_names
from facial_keypoints.command import run_command
from facial_keypoints.layouts import convert_points, load_layout
from research.datasets import add_part_flags, frames_of
from research.evaluation.metrics import debias, face_errors, point_errors

NEAR = 0.5  # greatest distance between the centers of one face, in inter-ocular distances


def round_trip(frames, name):
    """Mean errors (m,) in % of the keypoints that come back from another layout, and their number
    m."""
    back = convert_points(convert_points(frames.points, "ibug68", name), name, "ibug68")
    known = np.isfinite(back[0]).all(1)
    errors = point_errors(np.where(known[:, None], back, frames.points), frames.points)
    return errors[:, known].mean(0), known.sum()


def mediapipe_points(frames):
    """MediaPipe's points of the labeled faces as those of ibug68 (m, 68, 2), and their rows."""
    from mediapipe.python.solutions import face_mesh

    points, rows = [], []
    with face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for row in range(len(frames)):
            image = frames.image(row)
            found = mesh.process(np.ascontiguousarray(image)).multi_face_landmarks
            size = np.array(image.shape[1::-1])
            for face in found or []:
                mesh_points = np.array([(p.x, p.y) for p in face.landmark]) * size - 0.5
                converted = convert_points(mesh_points, "mediapipe478", "ibug68")
                away = np.linalg.norm(converted.mean(0) - frames.points[row].mean(0))
                if away < NEAR * frames.lengths()[row]:
                    points.append(converted)
                    rows.append(row)
                    break
    return np.array(points), np.array(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_part_flags(parser, "sample")
    options = parser.parse_args()
    frames = frames_of(options)
    print(f"{options.data}, {options.part}: {len(frames)} faces; % of the inter-ocular distance")
    for name in layout_names():
        if name == "ibug68":
            continue
        errors, count = round_trip(frames, name)
        print(
            f"ibug68 -> {name:<12} -> ibug68: {count:>2} points come back, mean error "
            f"{errors.mean():.2f} %, largest of a point {errors.max():.2f} %"
        )
    if importlib.util.find_spec("mediapipe") is None:
        print("mediapipe is not installed: its points are not compared")
        return
    points, rows = mediapipe_points(frames)
    truth = frames.points[rows]
    errors, other = point_errors(points, truth), point_errors(debias(points, truth), truth)
    print(
        f"MediaPipe's 478 points as 68, {len(rows)} faces: NME {face_errors(errors).mean():.2f}"
        f" %, without the mean offset of each point {face_errors(other).mean():.2f} %"
    )
    for name, indices in load_layout().regions.items():
        print(f"  {name:<6} {errors[:, indices].mean():5.2f} % {other[:, indices].mean():5.2f} %")


if __name__ == "__main__":
    run_command(main)
