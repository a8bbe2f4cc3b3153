/** The cascades of this page, loaded when they are first used. */

import {Cascade} from "./cascade.js";
import {fetchBytes} from "./settings.js";

/** @type {Map<string, Promise<Cascade>>} */
const cascades = new Map();

/** A cascade of this page by name, loaded once. @param {string} name @returns {Promise<Cascade>} */
export function loadCascade(name) {
  let loading = cascades.get(name);
  if (!loading) {
    loading = fetchBytes(`${name}.json`).then((bytes) => new Cascade(JSON.parse(new TextDecoder().decode(bytes))));
    loading.catch(() => cascades.delete(name));
    cascades.set(name, loading);
  }
  return loading;
}
