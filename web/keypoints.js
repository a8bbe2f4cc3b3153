/**
 * Keypoints of the faces in a gray image: the same steps as `KeypointDetector` in
 * `facial_keypoints/detector.py`.
 */

import {
  boxesDiffer, correctShift, cropImage, cropMatrix, levelBox, overlap, shapeScore, tightBox, toPoints, toTight,
} from "./geometry.js";
import {findFaces} from "./pyramid.js";

/**
 * @typedef {import("./pyramid.js").Gray} Gray
 * @typedef {import("./pyramid.js").Search} Search
 * @typedef {import("./settings.js").Settings} Settings
 *
 * One face, in pixels of the photo. `box` is the tight box of the points for accepted faces, the tight box
 * estimated from the detector's box for rejected ones.
 * @typedef {object} Face
 * @property {number[]} box left, top, width, height
 * @property {Float64Array} points x0, y0, x1, y1, …
 * @property {number} confidence 0…1
 * @property {Float32Array} pointConfidence of each point, 0…1
 * @property {Float32Array} [pointVisibility] of each point, 0…1, from models that were trained for it
 * @property {import("./pose.js").Pose | null} [pose]
 * @property {import("./pose.js").Openness | null} [openness] of eyes and mouth
 * @property {import("./face_model.js").Fit | null} [fit] in three dimensions, where it was asked for
 * @property {number} [identity] of a face that is tracked, from 1
 *
 * A model that runs, see `runtime.js`.
 * @typedef {object} Model
 * @property {import("./model_file.js").Metadata} metadata
 * @property {import("./runtime.js").Run} run
 * @property {() => void} release gives its memory back
 *
 * Milliseconds that each stage took.
 * @typedef {Record<string, number>} Times
 */

const BATCH = 16; // crops at once

/** Finds faces and their keypoints. */
export class KeypointDetector {
  /**
   * @param {Settings} settings
   * @param {Model} model
   * @param {import("./pyramid.js").Cells} cells runs the network of the search
   */
  constructor(settings, model, cells) {
    this.settings = settings;
    this.model = model;
    this.cells = cells;
    /** @type {Times} of the last call */
    this.times = {};
  }

  /**
   * Accepted faces, the largest first, and rejected ones, the highest confidence first. The searches are
   * tried in order until one gives an accepted face.
   * @param {Gray} gray
   * @param {Search[]} searches
   * @param {number[][]} known tight boxes of faces that are left out
   */
  async detect(gray, searches, known = []) {
    this.times = {search: 0, network: 0};
    /** @type {{accepted: Face[], rejected: Face[]}} */
    const found = {accepted: [], rejected: []};
    for (const search of searches) {
      const start = performance.now(), {fit} = this.model.metadata;
      const boxes = [], angles = [];
      for (const {box: found, angle} of await findFaces(gray, search, this.settings.pyramid, this.cells)) {
        const box = toTight(found, fit, angle);
        if (known.some((other) => overlap(box, other) > this.settings.known)) continue;
        boxes.push(box);
        angles.push(angle);
      }
      this.times.search += performance.now() - start;
      const faces = await this.predictBoxes(gray, boxes, angles);
      found.accepted = this.filterFaces(faces, known);
      found.rejected.push(...faces.filter((face) => face.confidence < this.settings.minConfidence));
      if (found.accepted.length || known.length) break;
    }
    found.accepted.sort((a, b) => b.box[2] * b.box[3] - a.box[2] * a.box[3]);
    found.rejected.sort((a, b) => b.confidence - a.confidence);
    return found;
  }

  /**
   * The accepted faces, each once and none of the known, the surest first.
   * @param {Face[]} faces @param {number[][]} known
   */
  filterFaces(faces, known) {
    /** @type {Face[]} */
    const kept = [], boxes = [...known];
    for (const face of [...faces].sort((a, b) => b.confidence - a.confidence)) {
      if (face.confidence < this.settings.minConfidence) break;
      const box = tightBox(face.points);
      if (boxes.every((other) => overlap(other, box, true) <= this.settings.duplicate)) {
        face.box = box;
        kept.push(face);
        boxes.push(box);
      }
    }
    return kept;
  }

  /**
   * One face for each tight box, whatever its confidence.
   * @param {Gray} gray
   * @param {number[][]} boxes
   * @param {number[]} angles roll of the faces in degrees, clockwise
   * @returns {Promise<Face[]>}
   */
  async predictBoxes(gray, boxes, angles = boxes.map(() => 0)) {
    const start = performance.now();
    const {settings: {refine}, model: {metadata: {layout, shift}}} = this;
    let crops = boxes.map((box, index) => ({index, box, angle: angles[index]}));
    const predictions = await this.predictCrops(gray, crops);
    for (let step = 1; step < refine.steps; step++) {
      crops = crops.flatMap(({index, box, angle}) => {
        const {points, sure} = predictions[index], better = levelBox(points, layout);
        const again = sure > refine.minConfidence && (boxesDiffer(box, better.box, refine.box)
          || Math.abs(angle - better.angle) > refine.roll);
        return again ? [{index, ...better}] : [];
      });
      if (!crops.length) break;
      const later = await this.predictCrops(gray, crops);
      crops.forEach(({index}, i) => {
        if (later[i].sure >= predictions[index].sure - refine.maxLoss) predictions[index] = later[i];
      });
    }
    this.times.network = (this.times.network ?? 0) + performance.now() - start;
    return predictions.map(({points, confidence, visibility, sure}, index) => {
      const right = correctShift(points, layout, shift);
      return {box: boxes[index], points: right, confidence: sure * shapeScore(right, layout),
        pointConfidence: confidence, pointVisibility: visibility};
    });
  }

  /**
   * Predictions in crops of an image; `sure` is the mean confidence of the points.
   * @param {Gray} gray
   * @param {{box: number[], angle: number}[]} crops
   */
  async predictCrops(gray, crops) {
    const {side, layout} = this.model.metadata, count = layout.keypoints.length, found = [];
    for (let start = 0; start < crops.length; start += BATCH) {
      const some = crops.slice(start, start + BATCH), pixels = new Float32Array(some.length * side * side);
      const maps = some.map(({box, angle}, i) => {
        const map = cropMatrix(box, side, angle, layout.cropScale);
        cropImage(gray, map, side, pixels, i * side * side);
        return map;
      });
      const {targets, confidence, visibility} = await this.model.run(pixels, some.length);
      for (let i = 0; i < some.length; i++) {
        const [sure, seen] = [confidence, visibility].map((values) => values?.slice(i * count, (i + 1) * count));
        found.push({points: toPoints(targets, 2 * i * count, count, maps[i], side),
          confidence: /** @type {Float32Array} */ (sure), visibility: seen,
          sure: /** @type {Float32Array} */ (sure).reduce((sum, value) => sum + value, 0) / count});
      }
    }
    return found;
  }
}
