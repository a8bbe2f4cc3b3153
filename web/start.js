/** Starts the worker and ONNX Runtime, which take longest, before the rest of the page is loaded. */

import {Remote} from "./remote.js";
import {compileRuntime} from "./runtime.js";

export const worker = new Remote(new Worker(new URL("worker.js", import.meta.url), {type: "module"}));

/** How many bytes of ONNX Runtime have been loaded; `report` is called after each change. */
export const received = {bytes: 0, report: () => {}};

const compiling = compileRuntime((bytes) => {
  received.bytes = bytes;
  received.report();
});

/** Done when the worker has ONNX Runtime. */
export const started = compiling.then((compiled) => worker.call("runtime", [compiled]));
started.catch(() => {}); // reported with the first network
