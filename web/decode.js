/** Photos and camera frames as gray images. */

import {InputError} from "./layouts.js";

/**
 * @typedef {import("./pyramid.js").Gray} Gray
 */

const STRIP = 4_000_000; // pixels that are read at once: browsers limit the size of a canvas

/** @type {OffscreenCanvas | null} */
let canvas = null;

/**
 * Decode a photo, upright and without a change of its colors. Throws InputError.
 * @param {Blob} blob
 */
export async function decodePhoto(blob) {
  try {
    return await createImageBitmap(blob, {
      colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none",
    });
  } catch {
    throw new InputError("This file is damaged, or not a picture that this browser can read. "
      + "Save it as JPEG, PNG or WebP.");
  }
}

/**
 * The gray levels of a picture, by the integers that OpenCV uses. Throws InputError for a picture that is
 * larger than this browser can hold.
 * @param {ImageBitmap} bitmap
 * @returns {Gray}
 */
export function grayOf(bitmap) {
  const {width, height} = bitmap, rows = Math.max(Math.min(Math.floor(STRIP / width), height), 1);
  try {
    const data = new Uint8Array(width * height);
    if (canvas?.width !== width || canvas.height !== rows) canvas = new OffscreenCanvas(width, rows);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (
      canvas.getContext("2d", {willReadFrequently: true}));
    for (let top = 0; top < height; top += rows) {
      const count = Math.min(rows, height - top);
      context.globalCompositeOperation = "copy";
      context.drawImage(bitmap, 0, -top);
      const rgba = context.getImageData(0, 0, width, count).data;
      for (let i = 0, at = top * width; i < rgba.length; i += 4, at++) {
        data[at] = (9798 * rgba[i] + 19235 * rgba[i + 1] + 3735 * rgba[i + 2] + 16384) >> 15;
      }
    }
    return {width, height, data};
  } catch {
    canvas = null;
    throw new InputError(`${width} × ${height} pixels are more than this browser can hold. Shrink the picture first.`);
  }
}
