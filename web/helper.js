/** A worker that helps the first one: it predicts some of the crops. */

import {serve} from "./remote.js";
import {startModel, startRuntime} from "./runtime.js";

/** @type {Promise<any> | null} */
let runtime = null;
/** @type {import("./runtime.js").Started | null} */
let model = null;
let number = 0; // of the model

serve({
  /**
   * @param {unknown} _ @param {WebAssembly.Module} compiled @param {Uint8Array} data
   * @param {import("./runtime.js").Sizes} sizes @param {number} given number of the model
   */
  model: async (_, compiled, data, sizes, given) => {
    runtime ??= startRuntime(Promise.resolve(compiled));
    const started = await startModel(await runtime, data, sizes);
    await started.run(new Float32Array(sizes.side ** 2), 1); // the first run takes longer
    model?.release();
    model = started;
    number = given;
  },

  /**
   * Nothing where another model was loaded.
   * @param {unknown} _ @param {number} asked @param {Float32Array} crops @param {number} count
   */
  run: (_, asked, crops, count) => model && asked === number ? model.run(crops, count) : null,
});
