/**
 * Calls between a page and its workers: `Remote` calls the methods that `serve` offers.
 */

import {InputError} from "./layouts.js";

/**
 * @typedef {{id: number, method: string, values: unknown[]}} Call
 * @typedef {{id: number, result?: unknown, error?: string, input?: boolean, progress?: unknown}} Reply
 * @typedef {{resolve: (result: any) => void, reject: (error: Error) => void, report: (progress: any) => void}} Waiting
 */

/** A worker whose methods are called by name. */
export class Remote {
  /** @param {Worker} worker */
  constructor(worker) {
    this.worker = worker;
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
    this.count = 0;
    worker.addEventListener("message", ({data}) => this.receive(data));
    /** @type {Error | null} why the worker does not run */
    this.failure = null;
    this.isHeard = false;
    worker.addEventListener("error", (event) => {
      const error = new Error(`The page cannot start a worker (${event.message || "it did not load"}). `
        + "Load the page again, or use a current browser.");
      for (const {reject} of this.waiting.values()) reject(error);
      this.waiting.clear();
      if (!this.isHeard) this.failure = error;
    });
  }

  /**
   * @param {string} method
   * @param {unknown[]} values
   * @param {{transfer?: Transferable[], report?: (progress: any) => void}} [options]
   * @returns {Promise<any>}
   */
  call(method, values, {transfer = [], report = () => {}} = {}) {
    if (this.failure) return Promise.reject(this.failure);
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, {resolve, reject, report});
      this.worker.postMessage({id, method, values}, transfer);
    });
  }

  /** @param {Reply} reply */
  receive({id, result, error, input, progress}) {
    this.isHeard = true;
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    if (progress !== undefined) {
      waiting.report(progress);
      return;
    }
    this.waiting.delete(id);
    if (error === undefined) waiting.resolve(result);
    else waiting.reject(input ? new InputError(error) : new Error(error));
  }
}

/**
 * Reply to calls in this worker. A method gets a function that reports progress, then its values; a result of
 * the form `transferred(result, objects)` moves the objects.
 * @param {Record<string, (report: (progress: unknown) => void, ...values: any[]) => unknown>} methods
 */
export function serve(methods) {
  addEventListener("message", async ({data}) => {
    const {id, method, values} = /** @type {Call} */ (data);
    const reply = (/** @type {Omit<Reply, "id">} */ values, /** @type {Transferable[]} */ transfer = []) =>
      postMessage({id, ...values}, {transfer});
    try {
      const result = await methods[method]((progress) => reply({progress}), ...values);
      if (result instanceof Transferred) reply({result: result.result}, result.objects);
      else reply({result});
    } catch (error) {
      reply({error: error instanceof Error ? error.message : String(error), input: error instanceof InputError});
    }
  });
}

class Transferred {
  /** @param {unknown} result @param {Transferable[]} objects */
  constructor(result, objects) {
    this.result = result;
    this.objects = objects;
  }
}

/** @param {unknown} result @param {Transferable[]} objects that it holds and that are moved, not copied */
export function transferred(result, objects) {
  return new Transferred(result, objects);
}
