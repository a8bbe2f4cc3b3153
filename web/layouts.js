/**
 * Keypoint layouts: what the points of a model are called, which belong together, and what follows from that
 * for a face. The same rules as in `facial_keypoints/layouts.py` and `head.py`.
 */

import {centered, tightBox} from "./geometry.js";

/**
 * A layout as files and exported models hold it.
 * @typedef {object} LayoutValues
 * @property {string} name
 * @property {string[]} keypoints their names
 * @property {Part[]} parts
 * @property {number} crop_scale side of the square crop over the longer side of the tight box
 * @property {number[][]} [shape] positions of the keypoints of a typical face
 * @property {{name: string, start: number[], end: number[]}} [normalization]
 *
 * @typedef {{name: string, points: number[], closed: boolean, region: string}} Part
 *
 * Weights of the points of one layout for a point of another; null: it cannot be derived.
 * @typedef {number[] | null} Weights
 *
 * A layout, ready for use. `head`: the points of the mean head (x, y, z), null for those that it lacks;
 * `rigid`: indices of the points for the head pose; `eyeCorners`: weights of the outer eye corners;
 * `fit`: from the tight box of the 68 points to that of this layout.
 * @typedef {object} Layout
 * @property {string} name
 * @property {string[]} keypoints
 * @property {Part[]} parts
 * @property {string[]} colors of the parts
 * @property {number} cropScale
 * @property {(number[] | null)[]} head
 * @property {number[]} rigid
 * @property {Weights[]} eyeCorners
 * @property {number[]} fit
 * @property {{rows: number[], points: number[][]} | null} front what the roll is measured against
 * @property {{parts: {rows: number[], basis: number[][]}[], largest: number} | null} shape for the shape score
 * @property {(points: ArrayLike<number>) => number} interOcular
 * @property {(points: ArrayLike<number>) => number} normalizer the unit of errors and speeds
 *
 * @typedef {import("./settings.js").Settings} Settings
 */

const NUMBERED = /^(.* )?\d+$/; // a name that is only a position along its part

/** What a user did wrong or can mend: its message is shown. */
export class InputError extends Error {}

/** What to do about a model that cannot be used. */
export const CURE = "Export it again: python models.py export CHECKPOINT --onnx FILE.onnx";

/**
 * A layout from its values, or from the name of one that the library has.
 * @param {unknown} values
 * @param {Settings} settings
 * @returns {Layout}
 */
export function makeLayout(values, settings) {
  const standard = find(settings, settings.defaultLayout);
  const given = checked(typeof values === "string" ? find(settings, values) : values, settings);
  const own = sameValues(given, standard);
  const count = given.keypoints.length;
  const fromStandard = own ? identity(count) : conversion(standard, given);
  const toStandard = own ? fromStandard : conversion(given, standard);
  const head = fromStandard.map((weights) => weights && [0, 1, 2].map((axis) =>
    weights.reduce((sum, weight, row) => sum + weight * settings.head[row][axis], 0)));
  const rows = head.flatMap((point, row) => point ? [row] : []);
  const known = rows.map((row) => /** @type {number[]} */ (head[row]));
  const isRigid = settings.head.map((_, row) => Number(settings.pose.rigid.includes(row)));
  const rigid = rows.filter((row) => (fromStandard[row] ?? [])
    .reduce((sum, weight, other) => sum + weight * isRigid[other], 0) > 1 - 1e-6);
  const enough = rows.length >= settings.pose.points;
  const [left, right] = settings.eyeCorners;
  return {
    name: given.name, keypoints: given.keypoints, parts: given.parts,
    colors: partColors(given.parts, settings), cropScale: given.crop_scale, head,
    rigid: rigid.length >= settings.pose.points ? rigid : [],
    eyeCorners: [toStandard[left], toStandard[right]],
    fit: own || !enough ? [0, 0, 1, 1] : relativeBox(tightBox(settings.head.flatMap(([x, y]) => [x, y])),
      tightBox(known.flatMap(([x, y]) => [x, y]))),
    front: enough ? {rows, points: centered(known.map(([x, y]) => [x, y]))}
      : given.shape?.length ? {rows: given.keypoints.map((_, row) => row), points: centered(given.shape)} : null,
    shape: rows.length >= settings.shape.points ? {largest: settings.shape.largest,
      parts: shapeRows(given.parts, rows, head, settings).map((some) => ({rows: some,
        basis: orthonormal(centered(some.map((row) => /** @type {number[]} */ (head[row]))))}))} : null,
    interOcular: (points) => Math.hypot(points[2 * left] - points[2 * right],
      points[2 * left + 1] - points[2 * right + 1]),
    normalizer: normalizer(given),
  };
}

/**
 * The points that a shape score is made of: all, without the left, and without the right half of the jaw.
 * @param {Part[]} parts @param {number[]} rows @param {(number[] | null)[]} head @param {Settings} settings
 */
function shapeRows(parts, rows, head, settings) {
  const jaw = parts.filter((part) => (part.region || part.name) === "jaw").flatMap((part) => part.points);
  const halves = [-1, 1].map((sign) => rows.filter((row) =>
    !(jaw.includes(row) && sign * (head[row]?.[0] ?? 0) > settings.shape.jaw)));
  return [rows, ...halves.filter((half) => half.length >= settings.shape.points && half.length < rows.length)];
}

/** @param {Settings} settings @param {string} name @returns {LayoutValues} */
function find(settings, name) {
  const found = settings.layouts.find((layout) => layout.name === name);
  if (!found) throw new InputError(`This model has an unknown layout, ${JSON.stringify(name)}. ${CURE}`);
  return found;
}

/**
 * Values of a layout, refused with a reason where they are none.
 * @param {unknown} values @param {Settings} settings
 * @returns {LayoutValues}
 */
function checked(values, settings) {
  const wrong = (/** @type {string} */ what) => new InputError(
    `The layout of this model is damaged: ${what}. ${CURE}`);
  if (!values || typeof values !== "object") throw wrong("no table of keys");
  const {name, keypoints, parts, crop_scale: scale, shape, normalization} = /** @type {LayoutValues} */ (values);
  const isIndex = (/** @type {number} */ index) => Number.isInteger(index) && index >= 0 && index < keypoints.length;
  const areIndices = (/** @type {unknown} */ list) => Array.isArray(list) && list.length && list.every(isIndex);
  if (typeof name !== "string") throw wrong("no name");
  if (!Array.isArray(keypoints) || !keypoints.length || keypoints.length > settings.maxPoints
    || !keypoints.every((one) => typeof one === "string")) throw wrong("no list of names of keypoints");
  if (!Array.isArray(parts) || !parts.every((part) => part && typeof part.name === "string"
    && areIndices(part.points))) throw wrong("a part without keypoints");
  if (!(scale >= 0.5 && scale <= 5)) throw wrong("crop_scale");
  if (shape && !(Array.isArray(shape) && shape.length === keypoints.length
    && shape.every((point) => point.length === 2 && point.every(Number.isFinite)))) throw wrong("shape");
  if (normalization && !(areIndices(normalization.start) && areIndices(normalization.end))) {
    throw wrong("normalization");
  }
  return /** @type {LayoutValues} */ (values);
}

/** Deep equality of plain values. @param {unknown} a @param {unknown} b @returns {boolean} */
function sameValues(a, b) {
  if (!a || !b || typeof a !== "object" || typeof b !== "object") return a === b;
  const one = Object.entries(a), other = /** @type {Record<string, unknown>} */ (b);
  return one.length === Object.keys(b).length && one.every(([key, value]) => sameValues(value, other[key]));
}

/** @param {number} count @returns {number[][]} */
function identity(count) {
  return Array.from({length: count}, (_, row) => Array.from({length: count}, (_, column) => Number(row === column)));
}

/**
 * Each keypoint of `target` as a weighted mean of those of `source`; null where it cannot be derived. In
 * this order: a keypoint of the same name, unless the name is only a number; "… center" of a closed part:
 * the mean of that part; a keypoint of a part that both layouts have: interpolated along that part.
 * @param {LayoutValues} source @param {LayoutValues} target
 * @returns {Weights[]}
 */
function conversion(source, target) {
  const numbers = new Map(source.keypoints.flatMap((name, index) =>
    NUMBERED.test(name) ? [] : [/** @type {[string, number]} */ ([name, index])]));
  const parts = new Map(source.parts.map((part) => [part.name, part]));
  /** @type {Weights[]} */
  const weights = target.keypoints.map((name) => {
    const same = numbers.get(name), center = parts.get(name.replace(/ center$/, ""));
    if (same !== undefined) return source.keypoints.map((_, row) => Number(row === same));
    if (!center?.closed || !name.endsWith(" center")) return null;
    const members = new Set(center.points);
    return source.keypoints.map((_, row) => members.has(row) ? 1 / members.size : 0);
  });
  for (const part of target.parts) {
    const other = parts.get(part.name);
    if (other && Boolean(other.closed) === Boolean(part.closed)) interpolate(weights, target, part, source, other);
  }
  return weights;
}

/**
 * Fill the weights of a part of the target from the same part of the source.
 * @param {Weights[]} weights @param {LayoutValues} target @param {Part} part
 * @param {LayoutValues} source @param {Part} other
 */
function interpolate(weights, target, part, source, other) {
  const places = new Map(other.points.flatMap((index, place) => NUMBERED.test(source.keypoints[index]) ? []
    : [/** @type {[string, number]} */ ([source.keypoints[index], place])]));
  const shared = part.points.flatMap((index, place) => {
    const from = places.get(target.keypoints[index]);
    return from === undefined ? [] : [[place, from]];
  });
  if (part.closed && shared.length) { // once around: from the last shared point to the first
    shared.push([shared[0][0] + part.points.length, shared[0][1] + other.points.length]);
  }
  for (let i = 0; i + 1 < shared.length; i++) {
    const [start, from] = shared[i], [end] = shared[i + 1];
    let to = shared[i + 1][1];
    if (part.closed && to < from) to += other.points.length;
    if (to - from < 2) continue; // nothing of the source lies between: a straight line would be a guess
    for (let place = start + 1; place < end; place++) {
      const row = part.points[place % part.points.length];
      if (weights[row]) continue;
      const at = from + (to - from) * (place - start) / (end - start), low = Math.trunc(at), share = at - low;
      const mixed = source.keypoints.map(() => 0);
      mixed[other.points[low % other.points.length]] += 1 - share;
      if (share) mixed[other.points[(low + 1) % other.points.length]] += share;
      weights[row] = mixed;
    }
  }
}

/** @param {Part[]} parts @param {Settings} settings */
function partColors(parts, {colors: {regions, others}}) {
  const colors = new Map(Object.entries(regions));
  const known = colors.size;
  for (const {region, name} of parts) {
    const key = region || name;
    if (!colors.has(key)) colors.set(key, others[(colors.size - known) % others.length]);
  }
  return parts.map(({region, name}) => colors.get(region || name) ?? others[0]);
}

/**
 * Where the box `other` lies relative to `box`: the move of its center and its size, as shares of
 * those of `box`.
 * @param {number[]} box @param {number[]} other
 */
function relativeBox(box, other) {
  return [(other[0] + other[2] / 2 - box[0] - box[2] / 2) / box[2],
    (other[1] + other[3] / 2 - box[1] - box[3] / 2) / box[3], other[2] / box[2], other[3] / box[3]];
}

/** An orthonormal basis of the columns of a matrix (Gram, Schmidt). @param {number[][]} matrix */
function orthonormal(matrix) {
  /** @type {number[][]} */
  const basis = [];
  for (let column = 0; column < matrix[0].length; column++) {
    let vector = matrix.map((row) => row[column]);
    const before = Math.hypot(...vector);
    for (const direction of basis) {
      const along = vector.reduce((sum, value, i) => sum + value * direction[i], 0);
      vector = vector.map((value, i) => value - along * direction[i]);
    }
    const length = Math.hypot(...vector);
    if (length > 1e-9 * before) basis.push(vector.map((value) => value / length));
  }
  return basis;
}

/** @param {LayoutValues} values @returns {(points: ArrayLike<number>) => number} */
function normalizer({normalization}) {
  if (!normalization) {
    return (points) => {
      const [, , width, height] = tightBox(points);
      return Math.hypot(width, height);
    };
  }
  const {start, end} = normalization;
  return (points) => Math.hypot(...[0, 1].map((axis) =>
    start.reduce((sum, row) => sum + points[2 * row + axis], 0) / start.length
    - end.reduce((sum, row) => sum + points[2 * row + axis], 0) / end.length));
}
