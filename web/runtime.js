/** Models that run in ONNX Runtime: crops in, targets, confidence and visibility out. */

import {CURE, InputError} from "./layouts.js";
import {fetchResponse, notLoaded} from "./settings.js";

/**
 * A model that runs: crops (n, side, side) in 0…1 -> targets (n, k, 2), confidence (n, k), and visibility
 * (n, k) from models that were trained for it.
 * @typedef {(crops: Float32Array, count: number) => Promise<Predictions>} Run
 * @typedef {{targets: Float32Array, confidence: Float32Array, visibility?: Float32Array}} Predictions
 *
 * A model that was started, and how its memory is given back.
 * @typedef {{run: Run, release: () => void}} Started
 *
 * What a model takes and gives: side of the crops, number of points.
 * @typedef {{side: number, points: number}} Sizes
 */

const RUNTIME = "./onnxruntime/ort.wasm.min.mjs", WASM = "onnxruntime/ort-wasm-simd-threaded.wasm";

/**
 * Compile ONNX Runtime while it is loaded.
 * @param {(bytes: number) => void} report is called with the number of bytes loaded so far
 */
export async function compileRuntime(report) {
  const response = await fetchResponse(WASM);
  let bytes = 0;
  const body = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body);
  const counted = body.pipeThrough(new TransformStream({
    transform(part, controller) {
      bytes += part.length;
      report(bytes);
      controller.enqueue(part);
    },
  }));
  try {
    const reply = new Response(counted, response);
    if (response.headers.get("Content-Type")?.startsWith("application/wasm")) {
      return await WebAssembly.compileStreaming(reply);
    }
    return await WebAssembly.compile(await reply.arrayBuffer()); // a server that does not know the type
  } catch (error) {
    throw notLoaded(WASM, String(error).slice(0, 100));
  }
}

/**
 * ONNX Runtime, from its compiled code. It has no option for that, but loads its code by
 * `WebAssembly.instantiateStreaming`, which here gives what is compiled already.
 * @param {Promise<WebAssembly.Module>} compiling
 * @returns {Promise<any>}
 */
export async function startRuntime(compiling) {
  const {fetch} = globalThis;
  globalThis.fetch = async (address, options) =>
    String(address).endsWith(WASM) ? new Response() : fetch(address, options);
  WebAssembly.instantiateStreaming = async (_, imports) => {
    const module = await compiling;
    return {module, instance: await WebAssembly.instantiate(module, imports)};
  };
  const ort = await import(RUNTIME).catch(() => { throw notLoaded(RUNTIME, "no connection"); });
  ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
  return ort;
}

/**
 * The network of the face search, ready to run.
 * @param {any} ort
 * @param {Uint8Array} data of the ONNX file
 * @returns {Promise<import("./pyramid.js").Cells>}
 */
export async function startSearch(ort, data) {
  const session = await ort.InferenceSession.create(data, {graphOptimizationLevel: "basic"});
  return async ({width, height, data}) => {
    const images = new Float32Array(data.length);
    for (let i = 0; i < data.length; i++) images[i] = data[i] / 255;
    return (await session.run({images: new ort.Tensor("float32", images, [1, 1, height, width])})).cells.data;
  };
}

/**
 * A model that is ready to run. Throws InputError for one that does not run.
 * @param {any} ort
 * @param {Uint8Array} data of the ONNX file
 * @param {Sizes} sizes
 * @returns {Promise<Started>}
 */
export async function startModel(ort, data, {side, points}) {
  let session;
  try {
    // more optimization makes the start longer and the runs no shorter
    session = await ort.InferenceSession.create(data, {graphOptimizationLevel: "basic"});
  } catch (error) {
    throw new InputError(`This model does not run (${String(error).slice(0, 200)}). ${CURE}`);
  }
  /** @type {Run} */
  const run = async (crops, count) => {
    const input = new ort.Tensor("float32", crops, [count, 1, side, side]);
    const output = await session.run({[session.inputNames[0]]: input});
    const [targets, confidence, visibility] = ["targets", "confidence", "visibility"].map((name) => output[name]?.data);
    if (targets?.length !== 2 * count * points || confidence?.length !== count * points) {
      throw new InputError(`This model does not give ${points} points and their confidence. ${CURE}`);
    }
    if (![targets, confidence, visibility ?? []].every((values) => values.every(Number.isFinite))) {
      throw new InputError(`The predictions of this model are not finite: its weights are damaged. ${CURE}`);
    }
    return {targets, confidence, visibility};
  };
  return {run, release: () => { session.release().catch(() => {}); }};
}
