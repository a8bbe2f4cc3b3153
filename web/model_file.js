/**
 * An exported model: the metadata and the checksum in its ONNX file, read without a runtime. See
 * `facial_keypoints/onnx_file.py`.
 */

import {CURE, InputError, makeLayout} from "./layouts.js";

/**
 * @typedef {import("./settings.js").Settings} Settings
 *
 * @typedef {object} Metadata
 * @property {string} net
 * @property {number} side of the crop in pixels
 * @property {number[]} shift by which the points lie too low: pixels, share of the inter-ocular distance
 * @property {number[]} fit from the tight box of the 68 points to that of the layout
 * @property {import("./layouts.js").Layout} layout
 */

/**
 * The metadata of an exported model. Throws InputError for a damaged file, or one of another kind.
 * @param {Uint8Array<ArrayBuffer>} data @param {Settings} settings
 * @returns {Promise<Metadata>}
 */
export async function readModelFile(data, settings) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const others = [];
  let values;
  try {
    for (const {number, start, end, from} of fieldsOf(data)) {
      if (number !== settings.modelFile.metadataField) {
        others.push(data.subarray(start, end));
        continue;
      }
      const entry = data.subarray(from, end);
      /** @type {Map<number, string>} */
      const texts = new Map();
      for (const part of fieldsOf(entry)) {
        texts.set(part.number, new TextDecoder().decode(entry.subarray(part.from, part.end)));
      }
      if (texts.get(1) === settings.modelFile.key) values ??= JSON.parse(texts.get(2) ?? "");
    }
  } catch {
    throw new InputError(`This file is damaged or not an ONNX file. ${CURE}`);
  }
  if (!values || typeof values !== "object") {
    throw new InputError(`This ONNX file was not exported by this project. ${CURE}`);
  }
  if (values.format !== settings.modelFile.format) {
    throw new InputError(`This model was written by another version (format ${values.format}). ${CURE}`);
  }
  const {side, shift, points, sha256} = values;
  if (!(Number.isInteger(side) && side > 0 && side <= 1024) || !Array.isArray(shift) || shift.length !== 2
    || !shift.every(Number.isFinite)) throw new InputError(`The metadata of this model is damaged. ${CURE}`);
  const found = await digest(others);
  if (found !== null && found !== sha256) {
    throw new InputError(`This model is damaged: its checksum does not match. ${CURE}`);
  }
  const layout = makeLayout(values.layout, settings);
  if (layout.keypoints.length !== points) {
    throw new InputError(`This model has ${points} points, its layout ${layout.keypoints.length}. ${CURE}`);
  }
  const fit = Array.isArray(values.fit) && values.fit.length === 4 ? values.fit : layout.fit;
  return {net: String(values.net), side, shift, fit, layout};
}

/**
 * The top-level fields of a protocol buffer: number, start and end of the field, start of its content.
 * @param {Uint8Array} data
 */
function* fieldsOf(data) {
  let place = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; factor < 2 ** 64; factor *= 128) {
      if (place >= data.length) throw new RangeError("cut off");
      const byte = data[place++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw new RangeError("a number of more than 64 bits");
  };
  while (place < data.length) {
    const start = place, tag = varint(), kind = tag % 8;
    let from = place;
    if (kind === 0) varint();
    else if (kind === 2) {
      const length = varint();
      from = place;
      place += length;
    } else if (kind === 1 || kind === 5) place += kind === 1 ? 8 : 4;
    else throw new RangeError(`wire type ${kind}`);
    if (place > data.length) throw new RangeError("cut off");
    yield {number: Math.floor(tag / 8), start, end: place, from};
  }
}

/**
 * SHA-256 of byte arrays as hexadecimal digits; null where the page was not loaded over https or from this
 * machine, where browsers have no checksums.
 * @param {Uint8Array<ArrayBuffer>[]} parts
 */
async function digest(parts) {
  if (!globalThis.crypto?.subtle) return null;
  const hash = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
