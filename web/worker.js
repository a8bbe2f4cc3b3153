/**
 * The worker of the page: decodes photos, finds faces, predicts keypoints, so that the page stays responsive.
 */

import {decodePhoto, grayOf} from "./decode.js";
import {KeypointDetector} from "./keypoints.js";
import {readModelFile} from "./model_file.js";
import {headPose, openness} from "./pose.js";
import {Remote, serve, transferred} from "./remote.js";
import {startModel, startRuntime, startSearch} from "./runtime.js";
import {fetchBytes, loadSettings} from "./settings.js";
import {Tracker} from "./tracking.js";

/**
 * @typedef {import("./pyramid.js").Gray} Gray
 * @typedef {import("./keypoints.js").Face} Face
 * @typedef {import("./keypoints.js").Model} Model
 *
 * What is found in a photo or in a frame of the camera. `times`: milliseconds of each stage.
 * @typedef {object} Result
 * @property {ImageBitmap} bitmap
 * @property {Face[]} faces
 * @property {Face[]} rejected
 * @property {Record<string, number>} times
 * @property {PlainLayout} layout of the points
 *
 * What the page needs of a layout.
 * @typedef {Pick<import("./layouts.js").Layout,
 *   "name" | "keypoints" | "parts" | "colors" | "rigid" | "eyeCorners" | "fit">} PlainLayout
 */

const HELPER_DELAY = 1500; // milliseconds in which the page gets ready, and a first photo is searched

const settings = loadSettings();
settings.catch(() => {}); // reported by `load`
/** @type {(module: WebAssembly.Module) => void} */
let receive;
/** @type {Promise<WebAssembly.Module>} */
const compiled = new Promise((resolve) => { receive = resolve; });
const runtime = startRuntime(compiled);
runtime.catch(() => {});
/** @type {Promise<import("./pyramid.js").Cells> | null} */
let search = null;
loadSearch().catch(() => {});
const helper = startHelper();
/** @type {KeypointDetector | null} */
let detector = null;
/** @type {Tracker | null} */
let tracker = null;
let models = 0; // number of the model that is in use
const loads = queue(), pictures = queue();

/** Another worker, where there is a core that this one leaves idle. */
function startHelper() {
  if (!(navigator.hardwareConcurrency > 1)) return null;
  try {
    return new Remote(new Worker(new URL("helper.js", import.meta.url), {type: "module"}));
  } catch { // a browser without workers of workers
    return null;
  }
}

/** The network of the face search, loaded once. */
function loadSearch() {
  search ??= (async () => startSearch(await runtime, await fetchBytes((await settings).pyramid.file)))();
  search.catch(() => { search = null; });
  return search;
}

/**
 * A function that lets a method wait until the calls before it are done.
 */
function queue() {
  /** @type {Promise<unknown>} */
  let last = Promise.resolve();
  return (/** @type {(...values: any[]) => unknown} */ method) => (/** @type {any[]} */ ...values) => {
    const result = last.then(() => method(...values));
    last = result.catch(() => {});
    return result;
  };
}

/**
 * Load a model: the name of one of the page, or an .onnx file. Replaces the one before, or leaves it as it is
 * if this one fails.
 * @param {(bytes: number) => void} tell is called with the number of bytes loaded so far
 * @param {string | Blob} source
 */
async function load(tell, source) {
  const all = await settings;
  const listed = all.models.find(({name}) => name === source);
  const bringing = listed ? fetchBytes(listed.file, tell)
    : /** @type {Blob} */ (source).arrayBuffer().then((buffer) => new Uint8Array(buffer));
  const [data] = await Promise.all([bringing, loadSearch()]);
  const metadata = await readModelFile(data, all);
  const ort = await runtime, sizes = {side: metadata.side, points: metadata.layout.keypoints.length};
  const {run, release} = await startModel(ort, data, sizes);
  const firstRun = () => run(new Float32Array(metadata.side ** 2), 1); // it takes longer than others
  if (!listed) {
    await firstRun().catch((error) => { // it checks the model
      release();
      throw error;
    });
  }
  await use({metadata, run: shared(run, data, sizes, ++models), release});
  if (listed) setTimeout(() => firstRun().catch(() => {}));
}

/** Replace the model, between two pictures. */
const use = pictures(async (/** @type {Model} */ model) => {
  detector?.model.release();
  detector = new KeypointDetector(await settings, model, await loadSearch());
  tracker = new Tracker(detector);
});

/** @param {import("./layouts.js").Layout} layout @returns {PlainLayout} */
function plain({name, keypoints, parts, colors, rigid, eyeCorners, fit}) {
  return {name, keypoints, parts, colors, rigid, eyeCorners, fit};
}

/**
 * The helper shares the work of large batches once it has the model too.
 * @param {import("./runtime.js").Run} run
 * @param {Uint8Array} data @param {import("./runtime.js").Sizes} sizes
 * @param {number} model its number
 * @returns {import("./runtime.js").Run}
 */
function shared(run, data, sizes, model) {
  if (!helper) return run;
  let isReady = false;
  const start = async () => {
    if (model === models) await helper.call("model", [await compiled, data, sizes, model]);
    isReady = true;
  };
  setTimeout(() => start().catch(() => {}), HELPER_DELAY);
  return async (crops, count) => {
    const half = count >> 1, cut = (count - half) * sizes.side ** 2;
    if (!isReady || !half) return run(crops, count);
    const asked = helper.call("run", [model, crops.slice(cut), half]).catch(() => null);
    const own = await run(crops.slice(0, cut), count - half);
    const other = await asked ?? await run(crops.slice(cut), half); // it failed, or has another model by now
    return {targets: joined(own.targets, other.targets), confidence: joined(own.confidence, other.confidence),
      visibility: own.visibility && other.visibility && joined(own.visibility, other.visibility)};
  };
}

/** @param {Float32Array} a @param {Float32Array} b */
function joined(a, b) {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/**
 * Find the faces of a photo.
 * @param {(progress: unknown) => void} tell
 * @param {Blob} blob
 */
async function photo(tell, blob) {
  const {all, detector} = await whenReady();
  const start = performance.now();
  tell({stage: "read"});
  return within(await decodePhoto(blob), start, async (gray) => {
    tell({stage: "search"});
    const {accepted, rejected} = await detector.detect(gray, all.searches);
    return {faces: accepted, rejected};
  });
}

/**
 * Find the faces of the next frame of the camera.
 * @param {unknown} _
 * @param {ImageBitmap} bitmap
 * @param {number} seconds
 */
function frame(_, bitmap, seconds) {
  return within(bitmap, performance.now(), async (gray) => {
    const {tracker} = await whenReady();
    return {faces: await tracker.next(gray, seconds), rejected: []};
  });
}

/**
 * The result for a picture, which goes back with it, or is closed if something fails.
 * @param {ImageBitmap} bitmap
 * @param {number} start in milliseconds
 * @param {(gray: Gray) => Promise<{faces: Face[], rejected: Face[]}>} find
 */
async function within(bitmap, start, find) {
  try {
    const gray = grayOf(bitmap), read = performance.now() - start;
    const {faces, rejected} = await find(gray);
    const {all, detector} = await whenReady(), {layout} = detector.model.metadata;
    return transferred({
      bitmap, rejected, layout: plain(layout),
      faces: faces.map((face) => ({...face, pose: headPose(face.points, layout, all),
        openness: openness(face.points, face.pointVisibility, layout, all)})),
      times: {read, ...detector.times, total: performance.now() - start},
    }, [bitmap]);
  } catch (error) {
    bitmap.close();
    throw error;
  }
}

async function whenReady() {
  const all = await settings;
  if (!detector || !tracker) throw new Error("The network is not loaded yet.");
  return {all, detector, tracker};
}

/** A picture as a PNG file. @param {unknown} _ @param {ImageBitmap} bitmap */
function encode(_, bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("bitmaprenderer")?.transferFromImageBitmap(bitmap);
  return canvas.convertToBlob({type: "image/png"});
}

serve({
  runtime: (_, module) => receive(module),
  load: loads(load),
  photo: pictures(photo),
  frame: pictures(frame),
  encode,
  forget: pictures(() => { tracker = detector && new Tracker(detector); }),
});
