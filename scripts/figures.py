"""Draw the figures of the README and of docs/ anew."""

import argparse
from dataclasses import replace

import cv2
import matplotlib.cbook
import matplotlib.pyplot as plt
import numpy as np

from facial_keypoints.detector import KeypointDetector
from facial_keypoints.drawing import draw_axes, draw_faces, draw_heads, draw_spreads
from facial_keypoints.geometry import crop_matrix, tight_box
from facial_keypoints.images import read_image
from research import HOME
from research.reporting.plots import accuracy_against_time, bars
from facial_keypoints.files import csv_rows
from facial_keypoints.paths import PUBLISHED
from research.synthetic.faces import draw_sheet

# first words of the names of steps that change the architecture of the network
SHAPES = ("base", "narrow", "wide", "models6", "deep", "early", "side", "heat", "cells")


def pictures_of_results():
    """Draw accuracy against time of all networks in the table of results, and the gains of the
    ablation if its table exists."""
    rows = {
        row["net"]: tuple(float(row[k]) for k in ("ms_per_face", "nme", "nme_low", "nme_high"))
        for row in csv_rows(PUBLISHED)
        if (row["split"], row["labels"]) == ("official", "published")
    }
    save(accuracy_against_time(rows, "official test frames, labels as published"), "accuracy.png")
    table = HOME / "benchmarks" / "ablation.csv"
    if table.exists():
        rows = csv_rows(table)
        steps = {
            row["step"]: {
                k: float(row[k]) for k in ("nme", "gain", "gain_low", "gain_high", "ms_per_face")
            }
            for row in rows
        }
        gains = {
            name: (row["gain"], row["gain_low"], row["gain_high"])
            for name, row in steps.items()
            if name != "base"
        }
        save(bars(gains, "validation NME of the base − that of the change, in %"), "ablation.png")
        # steps have different numbers of seeds; a gain is against the base of the same seeds
        base = steps["base"]["nme"]
        shapes = {
            name.partition(" (")[0]: (
                row["ms_per_face"],
                *(base - row[k] for k in ("gain", "gain_high", "gain_low")),
            )
            for name, row in steps.items()
            if name.split()[0] in SHAPES
        }
        title = f"{rows[0]['epochs']} epochs, validation people; intervals against the base"
        save(accuracy_against_time(shapes, title), "shapes.png")


def save(figure, name):
    """A figure as a small PNG in docs/images/."""
    figure.savefig(HOME / "docs" / "images" / name, dpi=110)


def close_up(photo, face, side):
    """A face of a photo in a square of `side` pixels, with its keypoints."""
    matrix = crop_matrix(face.box, side, scale=1.7)
    crop = cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_CUBIC)
    points = face.points @ matrix[:, :2].T + matrix[:, 2]
    return draw_faces(crop, [replace(face, points=points, box=tight_box(points))])


def group_strip(path):
    """The part of a group photo with its faces."""
    photo = read_image(path)
    boxes = np.stack([face.box for face in KeypointDetector()(photo)])
    size = np.median(boxes[:, 2:])
    top = int(max(boxes[:, 1].min() - size, 0))
    bottom = int((boxes[:, 1] + boxes[:, 3]).max() + size)
    return photo[top:bottom].copy()


def group_picture(photo):
    """A group photo with all keypoints drawn, above the five largest faces whose points are the
    most certain."""
    faces = KeypointDetector()(photo)
    strip = draw_faces(photo, faces)
    best = sorted(faces, key=lambda face: -face.confidence)[:5]
    best.sort(key=lambda face: face.box[0])
    side = photo.shape[1] // len(best)
    close = np.hstack([close_up(photo, face, side) for face in best])
    return np.vstack([strip[:, : close.shape[1]], close])


def attributes_picture():
    """A figure: everything that is known about one face."""
    photo = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    face = KeypointDetector()(photo)[0]
    left, top, width, height = face.box.astype(int)
    rows = slice(top - height // 2, top + height + height // 4)
    columns = slice(left - width // 3, left + width + width // 3)
    turned = photo.copy()
    draw_axes(turned, face.pose)
    right, other = face.eyes_open
    panels = {
        f"points, confidence {face.confidence:.2f};\nrings: probably hidden": draw_faces(
            photo, [face]
        )[rows, columns],
        f"pose: yaw {face.pose.yaw:.0f}°, pitch {face.pose.pitch:.0f}°,\n"
        f"roll {face.pose.roll:.0f}°": turned[rows, columns],
        f"eyes open {right:.1f} and {other:.1f},\nmouth {max(face.mouth_open, 0):.1f}": photo[
            rows, columns
        ],
        "spread: where 95 % of the\ncoordinates are expected": draw_spreads(photo, [face])[
            rows, columns
        ],
        "fit_3d: 3D points, expression": draw_heads(photo, [face])[rows, columns],
        'aligned(…, "arcface")': face.aligned(photo, 300)[0],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 3.1), layout="constrained")
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", metavar="PHOTO", help="a group photo in the public domain")
    options = parser.parse_args()
    pictures_of_results()
    save(attributes_picture(), "attributes.jpg")
    if options.group:
        strip = group_strip(options.group)
        write("solvay.jpg", strip)
        write("front.jpg", group_picture(strip))
    write("drawn.jpg", draw_sheet(people=40, side=110))


def write(name, image):
    cv2.imwrite(
        str(HOME / "docs" / "images" / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]
    )


if __name__ == "__main__":
    main()
