/**
 * The search for faces in an image pyramid: the same steps as in `detector_architectures/pyramid.py`.
 */

import {overlap, resizeArea, roundEven} from "./geometry.js";

/**
 * A gray image.
 * @typedef {{width: number, height: number, data: Uint8Array}} Gray
 *
 * A face that was found: its tight box once it is upright, its roll in degrees, clockwise, and a score in 0…1.
 * @typedef {{box: number[], angle: number, score: number}} Found
 *
 * What the pyramid is and what its network gives, see the constants of `detector_architectures/pyramid.py`.
 * @typedef {object} Pyramid
 * @property {string} file of the network
 * @property {number} stride pixels of a level per cell
 * @property {number} smallest size of the smallest face that the network finds, in pixels of a level
 * @property {number} largest size of the largest one
 * @property {number} unit of widths and heights, in pixels
 * @property {number} same overlap above which two boxes are one face
 * @property {number} step pixels to which boxes are rounded
 *
 * What is searched.
 * @typedef {object} Search
 * @property {number} minScore
 * @property {number} least size of the smallest face to find, in pixels of the photo
 * @property {number} share the same as a share of the longer side of the photo
 * @property {{side: number, share: number, minScore: number} | null} portrait what at least holds for photos up
 *   to this side
 *
 * Runs the network on a level -> KINDS numbers for each cell, ordered by kind, then by cell.
 * @typedef {(level: Gray) => Promise<Float32Array>} Cells
 */

const KINDS = 7; // numbers per cell: score, center x, y, log width, log height, cos and sin of the roll

/**
 * The levels of a photo, from the largest to the smallest, and their ratios to its width and height.
 * @param {Gray} gray
 * @param {Search} search
 * @param {Pyramid} pyramid
 * @returns {Generator<{level: Gray, ratios: number[]}>}
 */
export function* levelsOf(gray, {least, share}, {stride, smallest, largest}) {
  const longer = Math.max(gray.width, gray.height), sides = [gray.width, gray.height];
  let ratio = Math.min(smallest / Math.max(least, share * longer), 1), level = gray;
  for (;; ratio /= 2) {
    const [width, height] = sides.map((side) => Math.max(roundEven(side * ratio), 1));
    if (width !== level.width || height !== level.height) level = resizeArea(level, width, height);
    yield {level: wholeCells(level, stride), ratios: [width / gray.width, height / gray.height]};
    if (longer * ratio <= largest) return;
  }
}

/** An image that is extended by black to whole cells. @param {Gray} image @param {number} stride @returns {Gray} */
function wholeCells(image, stride) {
  const width = Math.ceil(image.width / stride) * stride, height = Math.ceil(image.height / stride) * stride;
  if (width === image.width && height === image.height) return image;
  const data = new Uint8Array(width * height);
  for (let y = 0; y < image.height; y++) {
    data.set(image.data.subarray(y * image.width, (y + 1) * image.width), y * width);
  }
  return {width, height, data};
}

/**
 * The faces of a photo.
 * @param {Gray} gray
 * @param {Search} search
 * @param {Pyramid} pyramid
 * @param {Cells} run
 * @returns {Promise<Found[]>}
 */
export async function findFaces(gray, search, pyramid, run) {
  const found = [], {portrait} = search;
  if (portrait && Math.max(gray.width, gray.height) <= portrait.side) {
    search = {...search, share: Math.max(search.share, portrait.share),
      minScore: Math.max(search.minScore, portrait.minScore)};
  }
  for (const {level, ratios} of levelsOf(gray, search, pyramid)) {
    found.push(...facesOf(await run(level), level.width / pyramid.stride, ratios, search, pyramid));
  }
  /** @type {Found[]} */
  const kept = [];
  for (const face of found.sort((a, b) => b.score - a.score)) { // as OpenCV's NMSBoxes
    if (kept.every((other) => overlap(face.box, other.box) <= pyramid.same)) kept.push(face);
  }
  const {step} = pyramid;
  return kept.map(({box, score, angle}) =>
    ({box: box.map((value) => roundEven(value / step) * step), score, angle: roundEven(angle)}));
}

/**
 * The faces of one level, in pixels of the photo.
 * @param {Float32Array} cells
 * @param {number} columns
 * @param {number[]} ratios of the level to the photo
 * @param {Search} search
 * @param {Pyramid} pyramid
 * @returns {Found[]}
 */
function facesOf(cells, columns, ratios, search, {stride, unit}) {
  const count = cells.length / KINDS, limit = Math.fround(search.minScore), found = [];
  const scale = Math.sqrt(ratios[0] * ratios[1]);
  for (let cell = 0; cell < count; cell++) {
    if (!(cells[cell] > limit)) continue;
    const [score, x, y, logWidth, logHeight, cos, sin] = Array.from(
      {length: KINDS}, (_, kind) => cells[kind * count + cell]);
    const width = unit * Math.exp(logWidth) / scale, height = unit * Math.exp(logHeight) / scale;
    const right = (stride * (cell % columns + x) + stride / 2) / ratios[0];
    const down = (stride * (Math.floor(cell / columns) + y) + stride / 2) / ratios[1];
    found.push({box: [right - width / 2 - 0.5, down - height / 2 - 0.5, width, height], score,
      angle: Math.atan2(sin, cos) * 180 / Math.PI});
  }
  return found;
}
