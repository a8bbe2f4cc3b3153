"""Labels for label tools: COCO keypoints (CVAT, FiftyOne), Label Studio tasks, imglab XML."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facial_keypoints.detector import Face
from facial_keypoints.errors import UsageError
from facial_keypoints.files import atomic_open, atomic_write
from facial_keypoints.formats import CocoWriter, rounded
from facial_keypoints.layouts import Layout

LABEL_CONFIG = "label_studio_config.xml"
FILES = ("coco.json", "label_studio.json", LABEL_CONFIG, "imglab.xml")


@dataclass
class LabeledPhoto:
    """A photo for a label tool: its path relative to the folder of photos, its size (height, width)
    and its faces; points that are nan are left to the person who labels."""

    name: str
    size: tuple[int, int]
    faces: list[Face]


def refuse_label_files(folder: str | Path, overwrite: bool) -> None:
    """Raise UsageError if a folder holds label files already, which people may have corrected."""
    present = [Path(folder) / name for name in FILES if (Path(folder) / name).exists()]
    if present and not overwrite:
        raise UsageError(
            f"{present[0]} exists, and may hold corrected labels; give another --out, or replace "
            "it with --overwrite"
        )


def write_label_files(
    folder: str | Path, photos: Sequence[LabeledPhoto], layout: Layout
) -> list[Path]:
    """Write the photos, in their order, into FOLDER/coco.json, label_studio.json with its labeling
    configuration, and imglab.xml. Returns the paths."""
    paths = [Path(folder) / name for name in FILES]
    with atomic_open(paths[0]) as file:
        writer = CocoWriter(file, layout)
        for photo in photos:
            writer.write(photo.name, photo.size, photo.faces)
        writer.close()
    tasks = [label_studio_task(photo) for photo in photos]
    atomic_write(paths[1], json.dumps(tasks, ensure_ascii=False, indent=1))
    atomic_write(paths[2], label_studio_config(layout))
    atomic_write(paths[3], imglab_xml(photos))
    return paths


def label_studio_task(photo: LabeledPhoto) -> dict:
    """A task of Label Studio with the faces as a prediction: points in % of the image, and a
    rectangle for each face that its points belong to."""
    height, width = photo.size
    results = []
    for number, face in enumerate(photo.faces, 1):
        common = {
            "original_width": int(width),
            "original_height": int(height),
            "image_rotation": 0,
            "from_name": "label",
            "to_name": "image",
        }
        box = f"face-{number}"
        left, top, wide, high = (float(v) for v in face.box)
        results.append(
            {
                **common,
                "id": box,
                "type": "rectanglelabels",
                "from_name": "box",
                "value": {
                    "x": 100 * (left + 0.5) / width,
                    "y": 100 * (top + 0.5) / height,
                    "width": 100 * wide / width,
                    "height": 100 * high / height,
                    "rotation": 0,
                    "rectanglelabels": ["face"],
                },
            }
        )
        for index, (name, (x, y)) in enumerate(
            zip(face.layout.keypoints, face.points, strict=True)
        ):
            if np.isfinite([x, y]).all():
                results.append(
                    {
                        **common,
                        "id": f"{box}-{index}",
                        "parentID": box,
                        "type": "keypointlabels",
                        "value": {
                            "x": 100 * (float(x) + 0.5) / width,
                            "y": 100 * (float(y) + 0.5) / height,
                            "width": 0.4,
                            "keypointlabels": [name],
                        },
                    }
                )
    confidence = min((face.confidence for face in photo.faces), default=0.0)
    return {
        "data": {"image": f"/data/local-files/?d={photo.name}", "name": photo.name},
        "predictions": [
            {"model_version": "facial-keypoints", "score": round(confidence, 4), "result": results}
        ],
    }


def label_studio_config(layout: Layout) -> str:
    """The labeling configuration for these tasks: a rectangle for the face and one label for each
    keypoint."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    boxes = ElementTree.SubElement(view, "RectangleLabels", name="box", toName="image")
    ElementTree.SubElement(boxes, "Label", value="face")
    points = ElementTree.SubElement(
        view, "KeyPointLabels", name="label", toName="image", strokeWidth="2"
    )
    for name in layout.keypoints:
        ElementTree.SubElement(points, "Label", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def imglab_xml(photos: Sequence[LabeledPhoto]) -> str:
    """The XML of dlib's tool imglab; parts have the numbers of the keypoints as names, so that it
    keeps their order."""
    root = ElementTree.Element("dataset")
    ElementTree.SubElement(root, "name").text = "faces found by Facial Keypoint Detection"
    images = ElementTree.SubElement(root, "images")
    for photo in photos:
        image = ElementTree.SubElement(images, "image", file=photo.name)
        for face in photo.faces:
            left, top, width, height = (str(round(float(v))) for v in face.box)
            box = ElementTree.SubElement(
                image, "box", top=top, left=left, width=width, height=height
            )
            digits = len(str(len(face.points) - 1))
            for index, (x, y) in enumerate(rounded(face.points)):
                if np.isfinite([x, y]).all():
                    ElementTree.SubElement(
                        box, "part", name=f"{index:0{max(digits, 2)}d}", x=f"{x:g}", y=f"{y:g}"
                    )
    ElementTree.indent(root)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        + ElementTree.tostring(root, encoding="unicode")
        + "\n"
    )
