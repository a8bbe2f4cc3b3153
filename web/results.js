/** Faces as files and as text: the formats of the command `facial-keypoints`. */

/**
 * @typedef {import("./keypoints.js").Face} Face
 * @typedef {{name: string, keypoints: string[]}} Named
 */

/** Numbers with so many digits at most. @param {ArrayLike<number>} values @param {number} digits */
function rounded(values, digits) {
  return Array.from(values, (value) => Number(value.toFixed(digits)));
}

/** A number with two digits at most; undefined stays away from JSON. @param {number | null | undefined} value */
function rounded2(value) {
  return value === null || value === undefined ? undefined : Number(value.toFixed(2));
}

/** @param {Record<string, number>} values */
function roundedValues(values) {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value.toFixed(3))]));
}

/** @param {Float64Array} points x, y, z of each */
function triples(points) {
  return Array.from({length: points.length / 3}, (_, i) => rounded(points.subarray(3 * i, 3 * i + 3), 4));
}

/** @param {Float64Array} points */
function pairs(points) {
  return Array.from({length: points.length / 2}, (_, i) => rounded(points.subarray(2 * i, 2 * i + 2), 2));
}

/**
 * Faces as JSON lines: one face a line.
 * @param {string} name of the picture @param {Face[]} faces @param {Named} layout
 */
export function jsonLines(name, faces, layout) {
  return faces.map((face) => `${JSON.stringify({
    name, box: rounded(face.box, 2), confidence: Number(face.confidence.toFixed(4)), layout: layout.name,
    points: pairs(face.points), names: layout.keypoints, point_confidence: rounded(face.pointConfidence, 3),
    point_visibility: face.pointVisibility && rounded(face.pointVisibility, 3),
    pose: face.pose ? {yaw: Number(face.pose.yaw.toFixed(1)), pitch: Number(face.pose.pitch.toFixed(1)),
      roll: Number(face.pose.roll.toFixed(1))} : undefined,
    right_eye_open: rounded2(face.openness?.rightEye), left_eye_open: rounded2(face.openness?.leftEye),
    mouth_open: rounded2(face.openness?.mouth),
    identity: face.identity, expressions: face.fit ? roundedValues(face.fit.expressions) : undefined,
    points_3d: face.fit ? triples(face.fit.points) : undefined,
  })}\n`).join("");
}

/** Faces as a table. @param {string} name of the picture @param {Face[]} faces @param {Named} layout */
export function csvTable(name, faces, layout) {
  const columns = ["name", "left", "top", "width", "height", "confidence",
    ...layout.keypoints.flatMap((_, i) => [`x${i}`, `y${i}`]), "identity",
    "right_eye_open", "left_eye_open", "mouth_open"];
  const quoted = /[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
  const lines = faces.map(({box, confidence, points, identity, openness}) => [quoted, ...box.map((value) => value.toFixed(2)),
    confidence.toFixed(4), ...Array.from(points, (value) => value.toFixed(2)), identity ?? "",
    ...[openness?.rightEye, openness?.leftEye, openness?.mouth].map((value) => value?.toFixed(2) ?? "")]);
  return [columns, ...lines].map((line) => `${line.join(",")}\n`).join("");
}

/**
 * A program in Python that does what the page does.
 * @param {{name: string, net: string, standard: boolean, camera: boolean, repository: string}} choice
 */
export function pythonCode({name, net, standard, camera, repository}) {
  const install = `# pip install git+${repository}\n`;
  const quoted = JSON.stringify(net);
  if (camera) {
    return `${install}import time

import cv2

from facial_keypoints import KeypointDetector
from facial_keypoints.tracking import Tracker

tracker = Tracker(KeypointDetector(${standard ? "" : `net=${quoted}`}))
camera = cv2.VideoCapture(0)
start = time.monotonic()
while True:
    ok, frame = camera.read()
    if not ok:
        break
    for face in tracker(frame[..., ::-1], time.monotonic() - start):
        print(face.identity, face.confidence, face.points)
`;
  }
  return `${install}from facial_keypoints import find_keypoints

for face in find_keypoints(${JSON.stringify(name)}${standard ? "" : `, net=${quoted}`}):
    print(face.box, face.confidence, face.points)
`;
}
