"""Predictors of other projects, for comparison: functions of gray images and tight boxes."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facial_keypoints.detector import KeypointDetector
from facial_keypoints.errors import DataError, UsageError, import_optional
from facial_keypoints.geometry import crop_image, crop_matrix, to_points
from facial_keypoints.layouts import convert_points


DLIB = ("predicting by dlib", "dlib-bin face_recognition_models")  # why, and what to install


def dlib_weights() -> str:
    """The path of dlib's weights. Raises UsageError if their package is not installed."""
    # the package has the weights; importing it would need pkg_resources, which setuptools removed
    found = find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise UsageError(f"{DLIB[0]} requires a package: pip install {DLIB[1]}")
    return os.path.join(
        found.submodule_search_locations[0], "models", "shape_predictor_68_face_landmarks.dat"
    )


def own_predictor(net: str | Path) -> tuple[Callable, Path]:
    """An exported network on crops around boxes, by ONNX Runtime on one thread, as a function of
    gray images and boxes (n, 4) -> points (n, k, 2); and its file."""
    detector = KeypointDetector(str(net), detector=None, runtime="onnx", threads=1)

    def predict(grays: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        return detector.predict_crops([*grays], np.asarray(boxes), np.zeros(len(boxes))).targets

    return predict, detector.model.path


def dlib_predictor() -> Callable[[np.ndarray, Sequence[float]], np.ndarray]:
    """dlib's regression trees (Kazemi and Sullivan, CVPR 2014), trained on 300-W, as a function of
    a gray image and a square box (left, top, side) -> points (68, 2) in pixels. Raises UsageError
    if dlib or its weights are not installed."""
    dlib: Any = import_optional("dlib", *DLIB)
    predictor: Any = dlib.shape_predictor(dlib_weights())

    def predict(gray, box):
        left, top, side = (int(v) for v in box)
        parts = predictor(gray, dlib.rectangle(left, top, left + side, top + side)).parts()
        return np.array([(part.x, part.y) for part in parts], np.float32)

    return predict


def dlib_on_boxes():
    """dlib's predictor on boxes, made square; UsageError if it is not installed."""
    predict_one = dlib_predictor()

    def predict(grays, boxes):
        return [
            predict_one(gray, [*box[:2], max(box[2:])])
            for gray, box in zip(grays, boxes, strict=True)
        ]

    return predict


def mediapipe_predictor():
    """MediaPipe's face mesh on given boxes, in tracking mode, so that its own detector does not run
    on each crop. Raises UsageError if MediaPipe is not installed."""
    package = "mediapipe==0.10.21"
    mediapipe = import_optional("mediapipe", "MediaPipe's face mesh", package)
    if not hasattr(mediapipe, "solutions"):
        raise UsageError(f"this version of MediaPipe has no face mesh: pip install {package}")
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1)

    def predict(grays, boxes):
        return [
            mesh.process(
                cv2.cvtColor(crop_image(gray, crop_matrix(box, 192), 192), cv2.COLOR_GRAY2RGB)
            )
            for gray, box in zip(grays, boxes, strict=True)
        ]

    return predict


def open_landmarker(weights: str | Path) -> Callable:
    """MediaPipe's Face Landmarker v2 (Google, Apache-2.0), the file face_landmarker.task `weights`,
    as a function of a gray image and a box (4,) -> its result for a crop of 256 pixels around the
    box, the matrix (2, 3) of the crop, and its side."""
    package = "mediapipe==0.10.21"
    tasks: Any = import_optional("mediapipe.tasks.python", "MediaPipe's Face Landmarker", package)
    mediapipe: Any = import_optional("mediapipe", "MediaPipe's Face Landmarker", package)
    if not Path(weights).is_file():
        raise DataError(f"{weights}: no such file; give the file face_landmarker.task of MediaPipe")
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(weights)),
        num_faces=1,
        min_face_detection_confidence=0.1,
        min_face_presence_confidence=0.1,
        output_face_blendshapes=True,
    )
    landmarker, side = tasks.vision.FaceLandmarker.create_from_options(options), 256

    def look(gray, box):
        # twice the box: its face detector needs some of the head around the face
        matrix = crop_matrix(box, side, scale=2.0)
        crop = cv2.cvtColor(crop_image(gray, matrix, side), cv2.COLOR_GRAY2RGB)
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=crop)
        return landmarker.detect(image), matrix, side

    return look


def landmarker_predictor(weights: str | Path) -> Callable:
    """The Face Landmarker (`open_landmarker`) as a function of gray images and boxes (n, 4) ->
    points of ibug68 (n, 68, 2) in pixels of the images; nan where it finds no face."""
    look = open_landmarker(weights)

    def predict_one(gray, box):
        found, matrix, side = look(gray, box)
        if not found.face_landmarks:
            return np.full((68, 2), np.nan)
        targets = 2 * np.array([(point.x, point.y) for point in found.face_landmarks[0]]) - 1
        points = to_points(targets[None].astype(np.float32), matrix[None], side)
        return convert_points(points, "mediapipe478", "ibug68")[0]

    def predict(grays, boxes):
        return np.stack([predict_one(gray, box) for gray, box in zip(grays, boxes, strict=True)])

    return predict


def landmarker_expressions(weights: str | Path) -> Callable:
    """The Face Landmarker (`open_landmarker`) as a function of a gray image and a box (4,) ->
    {ARKit's name of an expression: 0…1}, empty where it finds no face."""
    look = open_landmarker(weights)

    def predict(gray, box):
        found = look(gray, box)[0].face_blendshapes
        return {row.category_name: row.score for row in found[0]} if found else {}

    return predict
