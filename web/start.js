/** Starts what takes longest before the rest of the page is loaded: the worker, and ONNX Runtime. */

import {Remote} from "./remote.js";
import {compileRuntime} from "./runtime.js";

export const worker = new Remote(new Worker(new URL("worker.js", import.meta.url), {type: "module"}));

/** What is told how many bytes of ONNX Runtime have come. */
export const received = {bytes: 0, report: () => {}};

const compiling = compileRuntime((bytes) => {
  received.bytes = bytes;
  received.report();
});

/** ONNX Runtime is in the worker. */
export const started = compiling.then((compiled) => worker.call("runtime", [compiled]));
started.catch(() => {}); // reported with the first network
