/**
 * 68 keypoints of the face in a box of a PGM photo, in plain Node, with the geometry of the web page.
 * Usage: npm install onnxruntime-web; node keypoints.mjs photo.pgm left top width height side scale models7.onnx
 */

import {readFileSync} from "node:fs";

import * as ort from "onnxruntime-web";

import {cropImage, cropMatrix, toPoints} from "../../web/geometry.js";

const [path, left, top, width, height, side, scale, network] =
  process.argv.slice(2).map((word) => Number.isNaN(Number(word)) ? word : Number(word));

/** An 8-bit PGM file as {width, height, data}. */
function readPgm(path) {
  const bytes = readFileSync(path);
  const head = /^P5\s(\d+)\s(\d+)\s255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  if (!head) throw new Error(`${path}: not a PGM file of 8 bits`);
  return {width: Number(head[1]), height: Number(head[2]), data: bytes.subarray(head[0].length)};
}

const photo = readPgm(path);
const map = cropMatrix([left, top, width, height], side, 0, scale);
const crop = new Float32Array(side * side);
cropImage(photo, map, side, crop, 0);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(network));
const {targets} = await session.run({images: new ort.Tensor("float32", crop, [1, 1, side, side])});
const points = toPoints(targets.data, 0, targets.data.length / 2, map, side);
for (let i = 0; i < points.length; i += 2) console.log(points[i].toFixed(3), points[i + 1].toFixed(3));
