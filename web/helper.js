/** A worker that helps the first one: it searches some of the scales and predicts some of the crops. */

import {loadCascade} from "./cascades.js";
import {serve} from "./remote.js";
import {startModel, startRuntime} from "./runtime.js";

/** @type {Promise<any> | null} */
let runtime = null;
/** @type {import("./runtime.js").Run | null} */
let run = null;

serve({
  /** @param {unknown} _ @param {string} name */
  load: async (_, name) => { await loadCascade(name); },

  /** @param {unknown} _ @param {string} name @param {import("./cascade.js").Gray} image @param {number[]} scales */
  passes: async (_, name, image, scales) => (await loadCascade(name)).passes(image, scales),

  /**
   * @param {unknown} _ @param {WebAssembly.Module} compiled @param {Uint8Array} data
   * @param {import("./runtime.js").Sizes} sizes
   */
  model: async (_, compiled, data, sizes) => {
    runtime ??= startRuntime(Promise.resolve(compiled));
    run = await startModel(await runtime, data, sizes);
    await run(new Float32Array(sizes.side ** 2), 1); // the first run takes longer
  },

  /** @param {unknown} _ @param {Float32Array} crops @param {number} count */
  run: (_, crops, count) => run?.(crops, count),
});
