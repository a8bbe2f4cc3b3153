/**
 * The worker of the page: decodes photos, finds faces, predicts keypoints. Nothing that is in it waits for
 * the page, and the page never waits for it.
 */

import {pyramid, shareScales} from "./cascade.js";
import {loadCascade} from "./cascades.js";
import {decodePhoto, grayOf} from "./decode.js";
import {KeypointDetector} from "./keypoints.js";
import {readModelFile} from "./model_file.js";
import {headPose} from "./pose.js";
import {Remote, serve, transferred} from "./remote.js";
import {startModel, startRuntime} from "./runtime.js";
import {fetchBytes, loadSettings} from "./settings.js";
import {Tracker} from "./tracking.js";

/**
 * @typedef {import("./cascade.js").Gray} Gray
 * @typedef {import("./keypoints.js").Face} Face
 * @typedef {import("./keypoints.js").Model} Model
 *
 * What is found in a photo or in a frame of the camera. `times`: milliseconds of each stage.
 * @typedef {object} Result
 * @property {ImageBitmap} bitmap
 * @property {Face[]} faces
 * @property {Face[]} rejected
 * @property {Record<string, number>} times
 */

const MOST_HELPERS = 3;
const HELPER_DELAY = 1500; // milliseconds in which the page gets ready, and a first photo is searched

const settings = loadSettings();
settings.catch(() => {}); // reported by `load`
/** @type {(module: WebAssembly.Module) => void} */
let receive;
/** @type {Promise<WebAssembly.Module>} */
const compiled = new Promise((resolve) => { receive = resolve; });
const runtime = startRuntime(compiled);
runtime.catch(() => {});
const helpers = startHelpers();
/** @type {KeypointDetector | null} */
let detector = null;
/** @type {Tracker | null} */
let tracker = null;
/** @type {Promise<unknown>} the last of the calls that wait for each other */
let turn = Promise.resolve();

/** Other workers, for the cores that this one leaves idle. */
function startHelpers() {
  const count = Math.min((navigator.hardwareConcurrency || 1) - 1, MOST_HELPERS);
  try {
    return Array.from({length: count}, () =>
      new Remote(new Worker(new URL("helper.js", import.meta.url), {type: "module"})));
  } catch { // a browser without workers of workers
    return [];
  }
}

/**
 * Load a model: the name of one of the page, or the bytes of an .onnx file. Replaces the one before, or
 * leaves it as it is if this one fails.
 * @param {(bytes: number) => void} tell how many bytes of it have come
 * @param {string | ArrayBuffer} source
 */
async function load(tell, source) {
  const start = performance.now(), all = await settings;
  const listed = all.models.find(({name}) => name === source);
  const bringing = listed ? fetchBytes(listed.file, tell)
    : Promise.resolve(new Uint8Array(/** @type {ArrayBuffer} */ (source)));
  const first = all.searches[0].cascade;
  for (const helper of helpers) helper.call("load", [first]).catch(() => {}); // it tries again
  const [data] = await Promise.all([bringing, loadCascade(first)]);
  const metadata = await readModelFile(data, all);
  const ort = await runtime, sizes = {side: metadata.side, points: metadata.layout.keypoints.length};
  const copy = data.slice();
  const run = await startModel(ort, data, sizes);
  const firstRun = () => run(new Float32Array(metadata.side ** 2), 1); // it takes longer than others
  if (listed) setTimeout(() => firstRun().catch(() => {}));
  else await firstRun(); // checks the model
  const model = {metadata, run: shared(run, copy, sizes)};
  detector = new KeypointDetector(all, model, passes);
  tracker = new Tracker(detector);
  return {layout: {...metadata.layout, interOcular: undefined, normalizer: undefined},
    milliseconds: performance.now() - start};
}

/**
 * The helper shares the work of large batches once it has the model too.
 * @param {import("./runtime.js").Run} run
 * @param {Uint8Array} data @param {import("./runtime.js").Sizes} sizes
 * @returns {import("./runtime.js").Run}
 */
function shared(run, data, sizes) {
  const [helper] = helpers;
  let isReady = false;
  if (helper) {
    const start = async () => helper.call("model", [await compiled, data, sizes]);
    setTimeout(() => start().then(() => { isReady = true; }, () => {}), HELPER_DELAY);
  }
  return async (crops, count) => {
    const half = count >> 1, cut = (count - half) * sizes.side ** 2;
    if (!isReady || !half) return run(crops, count);
    const [other, own] = await Promise.all([helper.call("run", [crops.slice(cut), half]),
      run(crops.subarray(0, cut), count - half)]);
    return {targets: joined(own.targets, other.targets), confidence: joined(own.confidence, other.confidence)};
  };
}

/** @param {Float32Array} a @param {Float32Array} b */
function joined(a, b) {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** @type {import("./cascade.js").Passes} */
async function passes(name, image, smallest, scaleFactor) {
  const cascade = await loadCascade(name);
  const shares = shareScales(pyramid(image, cascade.window, smallest, scaleFactor), helpers.length + 1);
  const others = helpers.map((helper, index) => shares[index + 1].length
    ? helper.call("passes", [name, image, shares[index + 1]]) : {boxes: [], weights: []});
  const found = [cascade.passes(image, shares[0]), ...await Promise.all(others)];
  return {boxes: found.flatMap(({boxes}) => boxes), weights: found.flatMap(({weights}) => weights)};
}

/**
 * Find the faces of a photo.
 * @param {(progress: unknown) => void} tell
 * @param {Blob} blob
 */
async function photo(tell, blob) {
  const {searches, ...ready} = await whenReady();
  const start = performance.now();
  tell({stage: "read"});
  const bitmap = await decodePhoto(blob), gray = grayOf(bitmap);
  const read = performance.now() - start;
  tell({stage: "search"});
  const {accepted, rejected} = await ready.detector.detect(gray, searches);
  const times = {read, ...ready.detector.times, total: performance.now() - start};
  return transferred({bitmap, faces: withPose(accepted, ready), rejected, times}, [bitmap]);
}

/**
 * Find the faces of the next frame of the camera.
 * @param {unknown} _
 * @param {ImageBitmap} bitmap
 * @param {number} seconds
 */
async function frame(_, bitmap, seconds) {
  const ready = await whenReady();
  const start = performance.now(), gray = grayOf(bitmap), read = performance.now() - start;
  const faces = await ready.tracker.next(gray, seconds);
  const times = {read, ...ready.detector.times, total: performance.now() - start};
  return transferred({bitmap, faces: withPose(faces, ready), rejected: [], times}, [bitmap]);
}

async function whenReady() {
  const all = await settings;
  if (!detector || !tracker) throw new Error("The model is not loaded yet.");
  return {all, searches: all.searches, detector, tracker};
}

/**
 * @param {Face[]} faces
 * @param {{all: import("./settings.js").Settings, detector: KeypointDetector}} ready
 */
function withPose(faces, {all, detector: {model: {metadata: {layout}}}}) {
  return faces.map((face) => ({...face, pose: headPose(face.points, layout, all)}));
}

/** A picture as a PNG file. @param {unknown} _ @param {ImageBitmap} bitmap */
function encode(_, bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("bitmaprenderer")?.transferFromImageBitmap(bitmap);
  return canvas.convertToBlob({type: "image/png"});
}

/** One call after the other. @template {any[]} T @template R @param {(...values: T) => Promise<R>} method */
function inTurn(method) {
  return (/** @type {T} */ ...values) => {
    const result = turn.then(() => method(...values));
    turn = result.catch(() => {});
    return result;
  };
}

serve({
  runtime: (_, module) => receive(module),
  load,
  photo: inTurn(photo),
  frame: inTurn(frame),
  encode,
  forget: () => { tracker = detector && new Tracker(detector); },
});
