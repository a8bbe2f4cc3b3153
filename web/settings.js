/**
 * The settings that the page shares with the library. `python -m research.web_page` writes them to
 * settings.json, so that no number is typed twice.
 */

/**
 * @typedef {object} Settings
 * @property {string} repository address of the source code
 * @property {{name: string, file: string, bytes: number}[]} models
 * @property {{key: string, format: number, metadataField: number}} modelFile
 * @property {{bytes: number}} onnxruntime
 * @property {number} minConfidence of an accepted face
 * @property {{steps: number, minConfidence: number, maxLoss: number, box: number, roll: number}} refine
 * @property {number} duplicate share of the smaller box, above which two faces are one
 * @property {number} known overlap (IoU) above which a box is of a known face
 * @property {{largest: number, points: number, jaw: number}} shape
 * @property {{points: number, rigid: number[], distance: number, start: number, length: number}} pose
 * @property {{rightEye: number[][], leftEye: number[][], lips: number[][], hidden: number, eye: number[], mouth: number[]}} openness
 * @property {number[]} eyeCorners indices of the outer eye corners in the default layout
 * @property {number[][]} head the mean head, (x, y, z) of each keypoint
 * @property {import("./layouts.js").LayoutValues[]} layouts
 * @property {string} defaultLayout
 * @property {import("./pyramid.js").Pyramid} pyramid
 * @property {import("./pyramid.js").Search[]} searches of photos, in order
 * @property {import("./pyramid.js").Search[]} camera searches of camera frames
 * @property {import("./tracking.js").TrackerSettings} tracker
 * @property {{corners: number[][]}} glasses
 * @property {{regions: Record<string, string>, others: string[], axes: number[][]}} colors
 * @property {number} maxPixels of a picture
 * @property {number} maxBytes of a file
 * @property {number} maxPoints of a layout
 * @property {{file: string, text: string}[]} examples
 */

/** @returns {Promise<Settings>} */
export async function loadSettings() {
  return JSON.parse(new TextDecoder().decode(await fetchBytes("settings.json")));
}

/**
 * A file of this page. Throws an Error that says what to do.
 * @param {string} file
 */
export async function fetchResponse(file) {
  let response;
  try {
    response = await fetch(new URL(file, import.meta.url));
  } catch {
    throw notLoaded(file, "no connection");
  }
  if (!response.ok || !response.body) throw notLoaded(file, `status ${response.status}`);
  return response;
}

/** The error for a file that did not come. @param {string} file @param {string} why */
export function notLoaded(file, why) {
  return new Error(`${file} could not be loaded (${why}). Check the connection, then load the page again.`);
}

/**
 * The bytes of a file of this page, with a report of how many have come. Throws an Error that says what to do.
 * @param {string} file
 * @param {(bytes: number) => void} [report]
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchBytes(file, report = () => {}) {
  const response = await fetchResponse(file);
  const chunks = [], reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).getReader();
  let size = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      chunks.push(part.value);
      size += part.value.length;
      report(size);
    }
  } catch {
    throw notLoaded(file, "the connection broke");
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
