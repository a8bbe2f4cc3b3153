/**
 * Head pose: the rotation and translation of the mean head whose projection is nearest to the keypoints. The
 * same camera and angles as `facial_keypoints/pose.py`.
 */

import {centered, mean} from "./geometry.js";

/**
 * Angles in degrees: yaw > 0 looks to the viewer's right, pitch > 0 down, roll > 0 tilts clockwise. `axes`:
 * pixels of the nose tip and of the ends of the axes x, y, z that start there.
 * @typedef {{yaw: number, pitch: number, roll: number, axes: number[][]}} Pose
 *
 * @typedef {import("./layouts.js").Layout} Layout
 * @typedef {import("./settings.js").Settings} Settings
 */

const STEPS = 20;

/**
 * The pose of a head, or null for a layout with too few points of it. The camera is assumed to point at the
 * head from a fixed distance.
 * @param {ArrayLike<number>} points
 * @param {Layout} layout
 * @param {Settings} settings
 * @returns {Pose | null}
 */
export function headPose(points, layout, settings) {
  if (!layout.rigid.length) return null;
  const model = layout.rigid.map((row) => /** @type {number[]} */ (layout.head[row]));
  const seen = layout.rigid.map((row) => [points[2 * row], points[2 * row + 1]]);
  const middle = mean(seen), origin = mean(model);
  const start = weakPerspective(centered(model), centered(seen));
  const focal = settings.pose.distance * start.scale;
  const offset = start.rotation.map((row) => dot(row, origin));
  let rotation = start.rotation;
  let translation = [-offset[0], -offset[1], settings.pose.distance - offset[2]];
  ({rotation, translation} = refine(model, seen, middle, focal, rotation, translation));
  const sight = sightRotation(translation);
  const turned = product(transposed(sight), rotation);
  const degrees = 180 / Math.PI;
  const nose = settings.head[settings.pose.start], length = settings.pose.length;
  const axes = [nose, ...[0, 1, 2].map((axis) => nose.map((value, i) =>
    value + (i === axis ? (axis === 2 ? -length : length) : 0)))].map((point) => {
    const [x, y, z] = rotation.map((row, i) => dot(row, point) + translation[i]);
    return [focal * x / z + middle[0], focal * y / z + middle[1]];
  });
  return {
    yaw: Math.asin(Math.min(Math.max(turned[2][0], -1), 1)) * degrees,
    pitch: Math.atan2(turned[2][1], turned[2][2]) * degrees,
    roll: Math.atan2(turned[1][0], turned[0][0]) * degrees,
    axes,
  };
}

/**
 * How far the right eye, the left eye and the mouth are open, as `facial_keypoints/openness.py` defines it; null
 * for a layout other than that of the mean head, and for eyes that are probably hidden.
 * @typedef {{rightEye: number | null, leftEye: number | null, mouth: number}} Openness
 * @param {ArrayLike<number>} points
 * @param {ArrayLike<number> | undefined} visibility
 * @param {Layout} layout
 * @param {Settings} settings
 * @returns {Openness | null}
 */
export function openness(points, visibility, layout, settings) {
  if (layout.name !== settings.defaultLayout) return null;
  const model = layout.rigid.map((row) => /** @type {number[]} */ (layout.head[row]));
  const seen = layout.rigid.map((row) => [points[2 * row], points[2 * row + 1]]);
  const rows = affineCamera(centered(model), centered(seen));
  const unit = Math.max(Math.hypot(rows[0][1], rows[1][1]), 1e-9);
  const {rightEye, leftEye, lips, eye, mouth} = settings.openness;
  const value = (/** @type {number[][]} */ pairs, /** @type {number[]} */ [shut, open]) => {
    const gaps = pairs.map(([a, b]) => Math.hypot(points[2 * a] - points[2 * b], points[2 * a + 1] - points[2 * b + 1]));
    return (gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length / unit - shut) / (open - shut);
  };
  const hidden = (/** @type {number} */ first) => visibility &&
    [0, 1, 2, 3, 4, 5].reduce((sum, i) => sum + visibility[first + i], 0) / 6 < settings.openness.hidden;
  return {
    rightEye: hidden(36) ? null : value(rightEye, eye),
    leftEye: hidden(42) ? null : value(leftEye, eye),
    mouth: value(lips, mouth),
  };
}

/**
 * The affine camera (2 × 3) that takes a centered model to centered points with least squared error.
 * @param {number[][]} model (x, y, z) @param {number[][]} seen (x, y)
 */
function affineCamera(model, seen) {
  const normal = [0, 1, 2].map((i) => [0, 1, 2].map((j) => model.reduce((sum, point) => sum + point[i] * point[j], 0)));
  return [0, 1].map((axis) => solve(normal, [0, 1, 2].map((i) =>
    model.reduce((sum, point, k) => sum + point[i] * seen[k][axis], 0))));
}

/**
 * Rotation and scale for a distant camera: least squares, then the nearest rotation.
 * @param {number[][]} model centered (x, y, z) @param {number[][]} seen centered (x, y)
 */
function weakPerspective(model, seen) {
  const rows = affineCamera(model, seen);
  const scale = Math.max(Math.sqrt((dot(rows[0], rows[0]) + dot(rows[1], rows[1])) / 2), 1e-9);
  const x = unit(rows[0]);
  const along = dot(rows[1], x);
  const y = unit(rows[1].map((value, i) => value - along * x[i]));
  return {rotation: [x, y, cross(x, y)], scale};
}

/**
 * Least squared error of the projection: Levenberg, Marquardt over a small rotation and the translation.
 * @param {number[][]} model @param {number[][]} seen @param {number[]} middle @param {number} focal
 * @param {number[][]} rotation @param {number[]} translation
 */
function refine(model, seen, middle, focal, rotation, translation) {
  const errors = (/** @type {number[][]} */ turn, /** @type {number[]} */ move) => model.reduce((sum, point, k) => {
    const [x, y, z] = turn.map((row, i) => dot(row, point) + move[i]);
    return sum + (focal * x / z + middle[0] - seen[k][0]) ** 2 + (focal * y / z + middle[1] - seen[k][1]) ** 2;
  }, 0);
  let damping = 1e-3, error = errors(rotation, translation);
  for (let step = 0; step < STEPS; step++) {
    const matrix = Array.from({length: 6}, () => new Array(6).fill(0)), vector = new Array(6).fill(0);
    model.forEach((point, k) => {
      const [a, b, c] = rotation.map((row) => dot(row, point));
      const x = a + translation[0], y = b + translation[1], z = c + translation[2];
      const u = focal / z, px = -u * x / z, py = -u * y / z;
      // a small rotation moves (a, b, c) by (0, -c, b), (c, 0, -a), (-b, a, 0), axis by axis
      const jacobian = [[px * b, u * c - px * a, -u * b, u, 0, px], [py * b - u * c, -py * a, u * a, 0, u, py]];
      const off = [seen[k][0] - u * x - middle[0], seen[k][1] - u * y - middle[1]];
      jacobian.forEach((row, axis) => row.forEach((value, i) => {
        vector[i] += value * off[axis];
        for (let j = 0; j < 6; j++) matrix[i][j] += value * row[j];
      }));
    });
    const damped = matrix.map((row, i) => row.map((value, j) => i === j ? value * (1 + damping) : value));
    const change = solve(damped, vector);
    const turn = product(rotationOf(change.slice(0, 3)), rotation);
    const move = translation.map((value, i) => value + change[3 + i]);
    const after = errors(turn, move);
    if (!(after <= error)) {
      damping *= 10;
      continue;
    }
    const gain = error - after;
    [rotation, translation, error, damping] = [turn, move, after, damping / 10];
    if (gain <= 1e-12 * error) break;
  }
  return {rotation, translation};
}

/** The smallest rotation that takes the axis z to a direction. @param {number[]} direction */
function sightRotation(direction) {
  const axis = [-direction[1], direction[0], 0], length = Math.hypot(...axis);
  const angle = Math.atan2(length, direction[2]);
  return rotationOf(axis.map((value) => value / Math.max(length, 1e-12) * angle));
}

/** Rodrigues' formula. @param {number[]} vector axis times angle in radians */
export function rotationOf(vector) {
  const angle = Math.hypot(...vector), [x, y, z] = vector.map((value) => value / Math.max(angle, 1e-12));
  const s = Math.sin(angle), c = Math.cos(angle), t = 1 - c;
  return [[t * x * x + c, t * x * y - s * z, t * x * z + s * y],
    [t * x * y + s * z, t * y * y + c, t * y * z - s * x],
    [t * x * z - s * y, t * y * z + s * x, t * z * z + c]];
}

/**
 * Solve a linear system (Gauss, with pivots).
 * @param {number[][]} matrix @param {number[]} vector @returns {number[]}
 */
export function solve(matrix, vector) {
  const rows = matrix.map((row, i) => [...row, vector[i]]), n = rows.length;
  for (let i = 0; i < n; i++) {
    let best = i;
    for (let r = i + 1; r < n; r++) if (Math.abs(rows[r][i]) > Math.abs(rows[best][i])) best = r;
    [rows[i], rows[best]] = [rows[best], rows[i]];
    const pivot = rows[i][i] || 1e-12;
    for (let r = 0; r < n; r++) {
      if (r === i) continue;
      const share = rows[r][i] / pivot;
      for (let c = i; c <= n; c++) rows[r][c] -= share * rows[i][c];
    }
  }
  return rows.map((row, i) => row[n] / (row[i] || 1e-12));
}

/** @param {number[]} a @param {number[]} b */
export function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

/** @param {number[]} vector */
function unit(vector) {
  const length = Math.max(Math.hypot(...vector), 1e-12);
  return vector.map((value) => value / length);
}

/** @param {number[]} a @param {number[]} b */
function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

/** @param {number[][]} matrix */
function transposed(matrix) {
  return matrix[0].map((_, column) => matrix.map((row) => row[column]));
}

/** @param {number[][]} a @param {number[][]} b */
export function product(a, b) {
  const columns = transposed(b);
  return a.map((row) => columns.map((column) => dot(row, column)));
}
