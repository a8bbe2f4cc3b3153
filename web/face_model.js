/**
 * A face in three dimensions with its expression, fitted to the keypoints: the same steps as
 * `facial_keypoints/face_model.py`. The model is loaded when it is first asked for.
 */

import {dot, product, rotationOf, solve} from "./pose.js";
import {fetchBytes} from "./settings.js";

/**
 * A morphable face at the 68 keypoints and at a mesh, in inter-ocular distances; flat arrays: modes × points × 3,
 * identity first.
 * @typedef {object} FaceModel
 * @property {string[]} names of the expressions
 * @property {number} identities modes of identity
 * @property {number[]} noise of each keypoint
 * @property {number[]} mean @property {number[]} modes
 * @property {number[]} meshMean @property {number[]} meshModes
 * @property {number[][]} triangles
 * @property {{steps: number, pivots: number, weight: number, ridge: number, hidden: number, least: number,
 *   distance: number}} fit
 *
 * points and mesh: x, y, z of each, in head coordinates; `project` gives pixels of the picture.
 * @typedef {object} Fit
 * @property {Float64Array} points
 * @property {Float64Array} mesh
 * @property {Record<string, number>} expressions
 * @property {number[][]} rotation @property {number[]} translation @property {number} focal @property {number[]} center
 */

/** @type {Promise<FaceModel> | null} */
let loading = null;

/** The model, loaded once. @returns {Promise<FaceModel>} */
export function loadFaceModel() {
  loading ??= fetchBytes("face_model.json").then((bytes) => JSON.parse(new TextDecoder().decode(bytes)));
  loading.catch(() => { loading = null; });
  return loading;
}

/**
 * Fit the model to 68 keypoints; null where too few of them are visible.
 * @param {ArrayLike<number>} points x0, y0, …
 * @param {ArrayLike<number> | undefined} visibility
 * @param {FaceModel} model
 * @returns {Fit | null}
 */
export function fitFace(points, visibility, model) {
  const {noise, identities, names, fit} = model, count = identities + names.length, size = 6 + count;
  const shown = noise.map((_, row) => visibility ? Math.min(Math.max(visibility[row], fit.hidden), 1) : 1);
  if (shown.filter((value) => value > 0.5).length < fit.least) return null;
  const weights = noise.map((value, row) => shown[row] / value), total = weights.reduce((a, b) => a + b, 0);
  const average = (/** @type {ArrayLike<number>} */ values, /** @type {number} */ step, /** @type {number} */ axis) =>
    weights.reduce((sum, weight, row) => sum + weight * values[step * row + axis], 0) / total;
  const center = [average(points, 2, 0), average(points, 2, 1)];
  const origin = [0, 1, 2].map((axis) => average(model.mean, 3, axis));
  const start = firstCamera(model.mean, origin, points, center, weights.map((weight) => weight / total));
  let rotation = start.rotation;
  let translation = rotation.map((row, axis) => (axis === 2 ? fit.distance : 0) - dot(row, origin));
  const values = new Float64Array(count), shape = new Float64Array(3 * noise.length);
  const moves = new Float64Array(2 * size);
  for (let step = 0; step < fit.steps; step++) {
    shapeOf(model.mean, model.modes, values, shape);
    const matrix = Array.from({length: size}, () => new Float64Array(size)), right = new Float64Array(size);
    for (let row = 0; row < noise.length; row++) {
      const [x, y, z] = [0, 1, 2].map((axis) => turned(rotation[axis], shape, row));
      const depth = z + translation[2], scale = fit.distance / depth * weights[row];
      const ratio = [(x + translation[0]) / depth, (y + translation[1]) / depth];
      // how X, Y and Z move: rotations about the axes, translations, modes
      const place = (/** @type {number} */ column, /** @type {number[]} */ [dx, dy, dz]) => {
        moves[column] = (dx - ratio[0] * dz) * scale;
        moves[size + column] = (dy - ratio[1] * dz) * scale;
      };
      place(0, [0, -z, y]);
      place(1, [z, 0, -x]);
      place(2, [-y, x, 0]);
      place(3, [1, 0, 0]);
      place(4, [0, 1, 0]);
      place(5, [0, 0, 1]);
      for (let mode = 0; mode < count; mode++) {
        const at = mode * noise.length + row;
        place(6 + mode, [turned(rotation[0], model.modes, at), turned(rotation[1], model.modes, at),
          turned(rotation[2], model.modes, at)]);
      }
      for (let axis = 0; axis < 2; axis++) {
        const from = axis * size;
        const missing = ((points[2 * row + axis] - center[axis]) / start.scale - fit.distance * ratio[axis]) * weights[row];
        for (let i = 0; i < size; i++) {
          const value = moves[from + i], line = matrix[i];
          right[i] += value * missing;
          for (let j = 0; j <= i; j++) line[j] += value * moves[from + j];
        }
      }
    }
    for (let i = 0; i < size; i++) for (let j = i + 1; j < size; j++) matrix[i][j] = matrix[j][i];
    for (let mode = 0; mode < count; mode++) {
      const isPerson = mode < identities, prior = isPerson ? 1 : fit.ridge;
      matrix[6 + mode][6 + mode] += prior;
      right[6 + mode] -= prior * values[mode] + (isPerson ? 0 : fit.weight);
    }
    for (let i = 0; i < 6; i++) matrix[i][i] += 1e-6;
    const change = boundedStep(matrix, right, 6 + identities, values.subarray(identities), fit.pivots);
    rotation = product(rotationOf(change.slice(0, 3)), rotation);
    translation = translation.map((value, axis) => value + change[3 + axis]);
    for (let mode = 0; mode < count; mode++) values[mode] += change[6 + mode];
  }
  const mesh = new Float64Array(model.meshMean.length);
  return {
    points: shapeOf(model.mean, model.modes, values, shape), mesh: shapeOf(model.meshMean, model.meshModes, values, mesh),
    expressions: Object.fromEntries(names.map((name, i) => [name, Math.min(Math.max(values[identities + i], 0), 1)])),
    rotation, translation, focal: fit.distance * start.scale, center,
  };
}

/** Pixels of the picture of a vertex. @param {Fit} fit @param {ArrayLike<number>} vertices @param {number} row */
export function project({rotation, translation, focal, center}, vertices, row) {
  const [x, y, z] = [0, 1, 2].map((axis) => turned(rotation[axis], vertices, row) + translation[axis]);
  return [focal * x / z + center[0], focal * y / z + center[1]];
}

/** One coordinate of a rotated vertex. @param {number[]} line @param {ArrayLike<number>} vertices @param {number} row */
function turned(line, vertices, row) {
  return line[0] * vertices[3 * row] + line[1] * vertices[3 * row + 1] + line[2] * vertices[3 * row + 2];
}

/**
 * The mean plus the modes times their values, into `out`.
 * @param {number[]} mean @param {number[]} modes @param {Float64Array} values @param {Float64Array} out
 */
function shapeOf(mean, modes, values, out) {
  for (let i = 0; i < out.length; i++) {
    let sum = mean[i];
    for (let mode = 0; mode < values.length; mode++) sum += values[mode] * modes[mode * out.length + i];
    out[i] = sum;
  }
  return out;
}

/**
 * Rotation and pixels per unit of the orthographic camera that takes the mean face to the points.
 * @param {number[]} mean @param {number[]} origin @param {ArrayLike<number>} points @param {number[]} center
 * @param {number[]} weights of sum 1
 */
function firstCamera(mean, origin, points, center, weights) {
  const model = weights.map((_, row) => [0, 1, 2].map((axis) => mean[3 * row + axis] - origin[axis]));
  const normal = [0, 1, 2].map((i) => [0, 1, 2].map((j) =>
    weights.reduce((sum, weight, row) => sum + weight * model[row][i] * model[row][j], i === j ? 1e-4 : 0)));
  const affine = [0, 1].map((axis) => solve(normal, [0, 1, 2].map((i) => weights.reduce((sum, weight, row) =>
    sum + weight * model[row][i] * (points[2 * row + axis] - center[axis]), 0))));
  // the nearest rows that are orthogonal and of equal length: the polar decomposition of two rows
  const [a, b] = affine, aa = dot(a, a), bb = dot(b, b), ab = dot(a, b);
  const root = Math.sqrt(Math.max(aa * bb - ab * ab, 1e-18)), sum = Math.sqrt(aa + bb + 2 * root);
  // inverse of the square root of [[aa, ab], [ab, bb]] (Cayley and Hamilton)
  const scale = 1 / (root * sum);
  const rows = [0, 1, 2].map((i) => [scale * ((bb + root) * a[i] - ab * b[i]), scale * ((aa + root) * b[i] - ab * a[i])]);
  const x = rows.map((row) => row[0]), y = rows.map((row) => row[1]);
  return {rotation: [x, y, [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]]],
    scale: Math.max(sum / 2, 1e-9)};
}

/**
 * The step that solves matrix · step = right with values + step[free…] within 0…1, by block principal pivoting.
 * @param {Float64Array[]} matrix @param {Float64Array} right @param {number} free @param {Float64Array} values
 * @param {number} pivots
 */
function boundedStep(matrix, right, free, values, pivots) {
  const count = values.length;
  // eliminate the free unknowns
  const lines = matrix.map((line, i) => [...line, right[i]]);
  eliminate(lines, free);
  const square = Array.from({length: count}, (_, i) => lines[free + i].slice(free, free + count));
  const wanted = square.map((line, i) => lines[free + i][free + count] + line.reduce((s, v, j) => s + v * values[j], 0));
  const bound = Array.from(values, (value) => value >= 1 ? 1 : value <= 0 ? -1 : 0);
  let found = new Array(count).fill(0);
  for (let round = 0; round < pivots; round++) {
    const some = [...bound.keys()].filter((i) => bound[i] === 0);
    found = bound.map((side) => side > 0 ? 1 : 0);
    const solved = solve(some.map((i) => some.map((j) => square[i][j])),
      some.map((i) => wanted[i] - square[i].reduce((sum, value, j) => sum + value * found[j], 0)));
    some.forEach((i, k) => { found[i] = solved[k]; });
    let isDone = true;
    const pull = wanted.map((value, i) => value - square[i].reduce((sum, entry, j) => sum + entry * found[j], 0));
    for (let i = 0; i < count; i++) {
      const next = bound[i] === 0 ? (found[i] < 0 ? -1 : found[i] > 1 ? 1 : 0)
        : (bound[i] < 0 && pull[i] > 1e-9) || (bound[i] > 0 && pull[i] < -1e-9) ? 0 : bound[i];
      if (next !== bound[i]) isDone = false;
      bound[i] = next;
    }
    if (isDone) break;
  }
  const step = found.map((value, i) => Math.min(Math.max(value, 0), 1) - values[i]);
  const first = lines.slice(0, free).map((line) =>
    line[free + count] - step.reduce((sum, value, j) => sum + value * line[free + j], 0));
  return [...first, ...step];
}

/**
 * Make the first `free` columns of the lines those of the identity (Gauss, Jordan); the other columns follow.
 * @param {number[][]} lines of a positive definite matrix and what stands right of it @param {number} free
 */
function eliminate(lines, free) {
  const width = lines[0].length;
  for (let i = 0; i < free; i++) {
    const pivot = lines[i][i] || 1e-12;
    for (let c = i; c < width; c++) lines[i][c] /= pivot;
    for (let r = 0; r < lines.length; r++) {
      if (r === i) continue;
      const share = lines[r][i];
      if (share) for (let c = i; c < width; c++) lines[r][c] -= share * lines[i][c];
    }
  }
}
