/**
 * OpenCV's Haar cascades in JavaScript: the same boxes as `detectMultiScale3` of OpenCV 4 (Viola, Jones,
 * CVPR 2001; Lienhart, Maydt, ICIP 2002). Written for cascades of stumps without tilted features.
 */

import {overlap, resizeArea, roundEven} from "./geometry.js";

/**
 * A gray image.
 * @typedef {{width: number, height: number, data: Uint8Array}} Gray
 *
 * A cascade as the build writes it. `stages` holds pairs (number of stumps, threshold); `stumps` for each
 * stump its threshold and its values below and above it; `rects` for each stump three rectangles of
 * x, y, width, height and weight.
 * @typedef {{window: number, stages: number[], stumps: number[], rects: number[]}} CascadeFile
 *
 * Boxes, and the weight of the last stage for each.
 * @typedef {{boxes: number[][], weights: number[]}} Found
 *
 * How a cascade is used: see `detector_architectures/haar.py`, whose constants these are.
 * @typedef {object} Search
 * @property {string} cascade name of the cascade
 * @property {number[]} angles in degrees by which copies of the photo are rotated
 * @property {number} window side of the smallest window that is searched, in pixels
 * @property {number} scaleFactor ratio of two window sizes
 * @property {number} minNeighbors boxes that must agree, less one
 * @property {number[]} fit from a box to the tight box of the keypoints, see `toTight`
 * @property {number | null} mirrored also search the mirror image; boxes with more overlap are one face
 * @property {number} smallest side of the smallest tight box in pixels
 * @property {number} share the same as a share of the longer side of the photo
 * @property {{side: number, share: number, scaleFactor: number} | null} portrait
 */

const EACH = 16; // numbers of a stump in a program: offsets of 12 corners, weights of 3 rectangles, nothing
const SIMILAR = 0.2; // boxes are neighbors if their sides differ by less than this share

/** A cascade that is ready to run. */
export class Cascade {
  /** @param {CascadeFile} file */
  constructor(file) {
    this.window = file.window;
    this.stages = Float64Array.from(file.stages);
    this.values = Float64Array.from(file.stumps.filter((_, i) => i % 3));
    this.limits = Float64Array.from(file.stumps.filter((_, i) => i % 3 === 0), halfBelow);
    this.rects = file.rects;
    this.program = new Int32Array(EACH * this.limits.length);
    this.stride = 0;
  }

  /**
   * Write the program for integral images with rows of `stride` numbers.
   * @param {number} stride
   */
  setStride(stride) {
    if (stride === this.stride) return;
    this.stride = stride;
    for (let rect = 0; rect < this.rects.length / 5; rect++) {
      const [x, y, width, height, weight] = this.rects.slice(5 * rect, 5 * rect + 5);
      const start = EACH * Math.floor(rect / 3), corner = start + 4 * (rect % 3), place = y * stride + x;
      this.program.set([place, place + width, place + height * stride, place + height * stride + width], corner);
      this.program[start + 12 + rect % 3] = weight;
    }
  }

  /**
   * The boxes that pass all stages, at all places and sizes, and the weight of the last stage for each.
   * @param {Gray} image
   * @param {number[]} scales of the window, from `pyramid`
   * @returns {Found}
   */
  passes(image, scales) {
    /** @type {Found} */
    const found = {boxes: [], weights: []};
    if (!scales.length) return found;
    const stride = Math.max(...scales.map((scale) => roundEven(image.width / scale))) + 1;
    const rows = Math.max(...scales.map((scale) => roundEven(image.height / scale))) + 1;
    const sums = new Int32Array(stride * rows), squares = new Int32Array(stride * rows);
    this.setStride(stride);
    for (const scale of scales) {
      const level = resizeLinear(image, roundEven(image.width / scale), roundEven(image.height / scale));
      integrate(level, stride, sums, squares);
      this.scan(level, scale, sums, squares, found);
    }
    return found;
  }

  /**
   * Slide the window over one level of the pyramid.
   * @param {Gray} level
   * @param {number} scale
   * @param {Int32Array} sums
   * @param {Int32Array} squares
   * @param {Found} found
   */
  scan(level, scale, sums, squares, found) {
    const {window, stride, stages, values, limits, program} = this;
    const step = scale >= 2 ? 1 : 2, inner = window - 2, area = inner * inner;
    const topLeft = stride + 1, topRight = topLeft + inner;
    const lowLeft = topLeft + inner * stride, lowRight = lowLeft + inner;
    const size = roundEven(window * scale), count = stages.length / 2;
    for (let y = 0; y < level.height + 1 - window; y += step) {
      for (let x = 0; x < level.width + 1 - window; x += step) {
        const at = y * stride + x;
        const sum = sums[at + topLeft] - sums[at + topRight] - sums[at + lowLeft] + sums[at + lowRight];
        const square = (squares[at + topLeft] - squares[at + topRight] - squares[at + lowLeft]
          + squares[at + lowRight]) >>> 0;
        const spread = area * square - sum * sum;
        if (spread <= 0) continue;
        const norm = Math.fround(1 / Math.sqrt(spread));
        if (area * norm >= 0.1) continue; // nearly flat
        let stump = 0, stage = 0, total = 0;
        for (; stage < count; stage++) {
          total = 0;
          for (const end = stump + stages[2 * stage]; stump < end; stump++) {
            // `| 0`: the compiler needs no check for an overflow
            const o = EACH * stump;
            let value = (Math.imul(program[o + 12], (sums[(at + program[o]) | 0] - sums[(at + program[o + 1]) | 0]
              - sums[(at + program[o + 2]) | 0] + sums[(at + program[o + 3]) | 0]) | 0)
              + Math.imul(program[o + 13], (sums[(at + program[o + 4]) | 0] - sums[(at + program[o + 5]) | 0]
              - sums[(at + program[o + 6]) | 0] + sums[(at + program[o + 7]) | 0]) | 0)) | 0;
            if (program[o + 14] !== 0) {
              value = (value + Math.imul(program[o + 14], (sums[(at + program[o + 8]) | 0]
                - sums[(at + program[o + 9]) | 0] - sums[(at + program[o + 10]) | 0]
                + sums[(at + program[o + 11]) | 0]) | 0)) | 0;
            }
            total += values[2 * stump + 1 - Number(value * norm < limits[stump])]; // no branch
          }
          if (total < stages[2 * stage + 1]) break;
        }
        if (stage === count) {
          found.boxes.push([roundEven(Math.fround(x * Math.fround(scale))),
            roundEven(Math.fround(y * Math.fround(scale))), size, size]);
          found.weights.push(total);
        } else if (stage === 0) {
          x += step; // the first stage says no: skip the next place
        }
      }
    }
  }
}

/**
 * The number below which another one is below a limit once both are rounded to float32, as OpenCV does.
 * @param {number} limit a float32
 */
function halfBelow(limit) {
  if (limit === 0) return 0;
  const below = new Float32Array([limit]), bits = new Int32Array(below.buffer), isOdd = bits[0] & 1;
  bits[0] += limit > 0 ? -1 : 1;
  const half = (limit + below[0]) / 2;
  return isOdd ? half + Math.abs(half) * Number.EPSILON : half; // halves are rounded to the even neighbor
}

/**
 * Scales of the windows that fit into an image, in float32 as OpenCV computes them.
 * @param {Gray} image
 * @param {number} window
 * @param {number} smallest side of a window that is searched, in pixels
 * @param {number} scaleFactor
 */
export function pyramid(image, window, smallest, scaleFactor) {
  const scales = [];
  for (let factor = 1; ; factor *= scaleFactor) {
    const side = roundEven(window * factor);
    if (side > image.width || side > image.height) return scales;
    if (side >= smallest) scales.push(Math.fround(factor));
  }
}

/**
 * Share scales among workers so that each has about the same number of windows.
 * @param {number[]} scales
 * @param {number} workers
 * @returns {number[][]}
 */
export function shareScales(scales, workers) {
  const shares = Array.from({length: workers}, () => ({cost: 0, scales: /** @type {number[]} */ ([])}));
  const cost = (/** @type {number} */ scale) => (scale < 2 ? 0.25 : 1) / scale ** 2;
  for (const scale of [...scales].sort((a, b) => cost(b) - cost(a))) {
    const least = shares.reduce((best, one) => one.cost < best.cost ? one : best);
    least.cost += cost(scale);
    least.scales.push(scale);
  }
  return shares.map((share) => share.scales);
}

/**
 * Bilinear resizing with weights of 8 bits: OpenCV's INTER_LINEAR_EXACT.
 * @param {Gray} image
 * @param {number} width
 * @param {number} height
 * @returns {Gray}
 */
export function resizeLinear(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const columns = linearWeights(image.width, width), rows = linearWeights(image.height, height);
  const {data, width: stride} = image, out = new Uint8Array(width * height);
  const {first: x0, second: x1, share: xs} = columns;
  const above = new Int32Array(width), below = new Int32Array(width);
  /** @type {[Int32Array, Int32Array]} */
  const lines = [above, below];
  const held = [-1, -1];
  /** @param {number} row @param {number} slot */
  const fill = (row, slot) => {
    if (held[slot] === row) return;
    if (held[1 - slot] === row) { // the lower line becomes the upper one
      lines.reverse();
      held.reverse();
      return;
    }
    const line = lines[slot], start = row * stride;
    for (let x = 0; x < width; x++) {
      line[x] = data[start + x0[x]] * (256 - xs[x]) + data[start + x1[x]] * xs[x];
    }
    held[slot] = row;
  };
  for (let y = 0; y < height; y++) {
    fill(rows.first[y], 0);
    fill(rows.second[y], 1);
    const [upper, lower] = lines, share = rows.share[y], rest = 256 - share;
    const low = rows.first[y] === rows.second[y] ? upper : lower;
    for (let x = 0, at = y * width; x < width; x++, at++) {
      out[at] = (upper[x] * rest + low[x] * share + 32768) >> 16;
    }
  }
  return {width, height, data: out};
}

/**
 * For each of `to` pixels the two neighbors among `from` pixels and the share of the second, in 256ths.
 * @param {number} from
 * @param {number} to
 */
function linearWeights(from, to) {
  const first = new Int32Array(to), second = new Int32Array(to), share = new Int32Array(to);
  for (let i = 0; i < to; i++) {
    const place = (i + 0.5) * (from / to) - 0.5, floor = Math.floor(place);
    first[i] = Math.min(Math.max(floor, 0), from - 1);
    second[i] = Math.min(Math.max(floor + 1, 0), from - 1);
    share[i] = roundEven((place - floor) * 256);
    if (floor < 0 || floor >= from - 1) share[i] = 0, second[i] = first[i];
  }
  return {first, second, share};
}

/**
 * Integral images of the values and of their squares: row 0 and column 0 are zero.
 * @param {Gray} level
 * @param {number} stride
 * @param {Int32Array} sums
 * @param {Int32Array} squares
 */
function integrate({width, height, data}, stride, sums, squares) {
  sums.fill(0, 0, width + 1);
  squares.fill(0, 0, width + 1);
  for (let y = 0; y < height; y++) {
    let sum = 0, square = 0, at = (y + 1) * stride;
    sums[at] = squares[at] = 0;
    for (let x = 0, from = y * width; x < width; x++) {
      const value = data[from + x];
      sum += value;
      square += value * value;
      at += 1;
      sums[at] = sums[at - stride] + sum;
      squares[at] = (squares[at - stride] + square) | 0;
    }
  }
}

/**
 * One box for each class of similar boxes: OpenCV's groupRectangles with weights.
 * @param {number[][]} boxes
 * @param {number[]} weights
 * @param {number} minNeighbors classes of at most so many boxes are dropped
 * @returns {Found}
 */
export function groupBoxes(boxes, weights, minNeighbors) {
  if (minNeighbors <= 0) return {boxes, weights};
  const classes = similarClasses(boxes).map((members) => {
    const share = Math.fround(1 / members.length);
    const mean = [0, 1, 2, 3].map((side) => roundEven(Math.fround(
      members.reduce((total, index) => total + boxes[index][side], 0) * share)));
    return {box: mean, count: members.length,
      weight: Math.max(2.2250738585072014e-308, ...members.map((index) => weights[index]))};
  });
  const kept = classes.filter(({box: a, count}, index) => count > minNeighbors
    && !classes.some(({box: b, count: other}, second) => {
      if (second === index || other <= minNeighbors) return false;
      const dx = roundEven(b[2] * SIMILAR), dy = roundEven(b[3] * SIMILAR);
      return a[0] >= b[0] - dx && a[1] >= b[1] - dy && a[0] + a[2] <= b[0] + b[2] + dx
        && a[1] + a[3] <= b[1] + b[3] + dy && (other > Math.max(3, count) || count < 3);
    }));
  return {boxes: kept.map(({box}) => box), weights: kept.map(({weight}) => weight)};
}

/**
 * Indices of similar boxes: the connected components of the relation "each side is near".
 * @param {number[][]} boxes
 * @returns {number[][]}
 */
function similarClasses(boxes) {
  const parent = boxes.map((_, index) => index);
  /** @param {number} index */
  const root = (index) => {
    while (parent[index] !== index) index = parent[index] = parent[parent[index]];
    return index;
  };
  for (let i = 0; i < boxes.length; i++) {
    const [left, top, width, height] = boxes[i];
    for (let j = 0; j < i; j++) {
      const b = boxes[j];
      const delta = SIMILAR * (Math.min(width, b[2]) + Math.min(height, b[3])) * 0.5;
      if (Math.abs(left - b[0]) <= delta && Math.abs(top - b[1]) <= delta
          && Math.abs(left + width - b[0] - b[2]) <= delta
          && Math.abs(top + height - b[1] - b[3]) <= delta) parent[root(i)] = root(j);
    }
  }
  /** @type {Map<number, number[]>} */
  const classes = new Map();
  boxes.forEach((_, index) => {
    const key = root(index);
    classes.set(key, [...(classes.get(key) ?? []), index]);
  });
  return [...classes.values()];
}

/**
 * Drop boxes that overlap a box of more weight: OpenCV's NMSBoxes.
 * @param {Found} found
 * @param {number} limit of the intersection over union
 */
function dropOverlaps({boxes, weights}, limit) {
  const order = weights.map((_, index) => index).sort((a, b) => weights[b] - weights[a]);
  /** @type {number[]} */
  const kept = [];
  for (const index of order) {
    if (kept.every((other) => overlap(boxes[index], boxes[other]) <= limit)) kept.push(index);
  }
  return {boxes: kept.map((index) => boxes[index]), weights: kept.map((index) => weights[index])};
}

/**
 * The copy of a photo that is searched, shrunk so that the smallest face to find has the size of the
 * window, with a border that repeats its edge, and how to come back from it.
 * @param {Gray} gray
 * @param {Search} search
 */
export function searchCopy(gray, search) {
  const side = Math.max(gray.width, gray.height);
  const portrait = search.portrait && side <= search.portrait.side ? search.portrait : null;
  const smallest = Math.max(search.smallest, (portrait ? portrait.share : search.share) * side);
  const ratio = Math.min(search.window * search.fit[2] / smallest, 1);
  let copy = gray;
  if (ratio < 1) {
    copy = resizeArea(gray, Math.max(roundEven(gray.width * ratio), 1),
      Math.max(roundEven(gray.height * ratio), 1));
  }
  const border = portrait ? 0 : Math.floor(search.window / 2);
  const scaleFactor = portrait ? Math.max(search.scaleFactor, portrait.scaleFactor) : search.scaleFactor;
  return {copy: border ? withBorder(copy, border) : copy, ratio, border, scaleFactor};
}

/** @param {Gray} image @param {number} border @returns {Gray} */
function withBorder(image, border) {
  const width = image.width + 2 * border, height = image.height + 2 * border;
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const from = Math.min(Math.max(y - border, 0), image.height - 1) * image.width, to = y * width;
    data.fill(image.data[from], to, to + border);
    data.set(image.data.subarray(from, from + image.width), to + border);
    data.fill(image.data[from + image.width - 1], to + border + image.width, to + width);
  }
  return {width, height, data};
}

/** @param {Gray} image @returns {Gray} */
function mirror({width, height, data}) {
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0, at = y * width; x < width; x++) out[at + x] = data[at + width - 1 - x];
  }
  return {width, height, data: out};
}

/**
 * What finds the boxes of one gray image: `Cascade.passes`, here or in several workers.
 * @typedef {(cascade: string, image: Gray, smallest: number, scaleFactor: number) => Promise<Found>} Passes
 */

/**
 * The boxes of a search in a photo, in pixels of the photo.
 * @param {Gray} gray
 * @param {Search} search
 * @param {Passes} passes
 * @returns {Promise<number[][]>}
 */
export async function findBoxes(gray, search, passes) {
  const {copy, ratio, border, scaleFactor} = searchCopy(gray, search);
  /** @param {Gray} image */
  const once = async (image) => {
    const {boxes, weights} = await passes(search.cascade, image, search.window, scaleFactor);
    return groupBoxes(boxes, weights, search.minNeighbors);
  };
  let found = await once(copy);
  if (search.mirrored !== null) {
    const other = await once(mirror(copy));
    found = dropOverlaps({
      boxes: [...found.boxes, ...other.boxes.map(([x, y, w, h]) => [copy.width - x - w, y, w, h])],
      weights: [...found.weights, ...other.weights],
    }, search.mirrored);
  }
  return found.boxes.map(([x, y, w, h]) => [(x - border) / ratio, (y - border) / ratio, w / ratio, h / ratio]);
}
