/** The canvas with its zoom: by buttons, keys, wheel, pointers. */

import {drawScene} from "./drawing.js";

/**
 * @typedef {import("./drawing.js").Scene} Scene
 * @typedef {import("./drawing.js").View} View
 */

const LARGEST = 40; // pixels of the canvas for one of the picture
const STEP = 1.25, MOVE = 0.1; // of a press of a key
const NEAR = 10; // CSS pixels around a point in which the pointer is at it
const MILLISECONDS = 180; // of a movement to another place

/** Shows a scene on a canvas. */
export class SceneView {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(place: {x: number, y: number, near: number} | null) => void} point is called with the place in the
   *   picture that the pointer is at, and how many of its pixels are near; null where it has left
   */
  constructor(canvas, point) {
    this.canvas = canvas;
    this.point = point;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @type {Scene | null} */
    this.scene = null;
    this.zoom = 1; // relative to the whole picture
    this.center = [0.5, 0.5]; // of the view, as shares of the picture
    this.due = this.moving = 0;
    /** @type {Map<number, number[]>} places of the pointers that are down */
    this.pointers = new Map();
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("wheel", (event) => this.onWheel(event), {passive: false});
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      this.pointAt(event);
    });
    canvas.addEventListener("pointermove", (event) => this.onPointer(event));
    canvas.addEventListener("pointerleave", () => this.point(null));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.pointers.delete(/** @type {PointerEvent} */ (event).pointerId));
    }
  }

  /** Show a scene; a picture of another size is shown as a whole. @param {Scene | null} scene */
  show(scene) {
    const before = this.scene;
    this.scene = scene;
    if (scene?.width !== before?.width || scene?.height !== before?.height) this.whole();
    this.draw();
  }

  whole() {
    this.zoom = 1;
    this.center = [0.5, 0.5];
    this.draw();
  }

  /** @param {number} factor @param {number[]} [place] on the canvas, in CSS pixels, that stays where it is */
  zoomBy(factor, place) {
    const view = this.view();
    if (!this.scene || !view) return;
    const {width, height} = this.scene, ratio = this.ratio();
    const [x, y] = place ? place.map((value) => value * ratio) : [this.canvas.width / 2, this.canvas.height / 2];
    const fixed = [(x - view.left) / view.scale, (y - view.top) / view.scale];
    const most = LARGEST * ratio / (view.scale / this.zoom);
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), Math.max(most, 1));
    const scale = this.fitScale() * this.zoom;
    this.center = [(fixed[0] + (this.canvas.width / 2 - x) / scale) / width,
      (fixed[1] + (this.canvas.height / 2 - y) / scale) / height];
    this.draw();
  }

  /** @param {number} across @param {number} down shares of the canvas */
  moveBy(across, down) {
    const view = this.view();
    if (!this.scene || !view) return;
    this.center[0] += across * this.canvas.width / view.scale / this.scene.width;
    this.center[1] += down * this.canvas.height / view.scale / this.scene.height;
    this.draw();
  }

  /** Zoom into a box of the picture. @param {number[]} box */
  lookAt([left, top, width, height]) {
    if (!this.scene) return;
    const {width: wide, height: high} = this.scene;
    const scale = Math.min(this.canvas.width, this.canvas.height) / (1.7 * Math.max(width, height, 1));
    const zoom = Math.max(scale / this.fitScale(), 1), from = this.zoom, [x, y] = this.center;
    const to = [(left + width / 2) / wide, (top + height / 2) / high];
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches, start = performance.now();
    const moving = ++this.moving;
    const step = () => {
      if (moving !== this.moving) return;
      const share = still ? 1 : Math.min((performance.now() - start) / MILLISECONDS, 1);
      this.zoom = from * (zoom / from) ** share;
      this.center = [x + (to[0] - x) * share, y + (to[1] - y) * share];
      this.draw();
      if (share < 1) requestAnimationFrame(step);
    };
    step();
  }

  /** Draw before the next frame of the screen. */
  draw() {
    this.due ||= requestAnimationFrame(() => {
      this.due = 0;
      const {canvas} = this, ratio = this.ratio();
      const width = Math.max(Math.round(canvas.clientWidth * ratio), 1);
      const height = Math.max(Math.round(canvas.clientHeight * ratio), 1);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
      canvas.parentElement?.classList.toggle("zoomed", this.zoom > 1);
      const view = this.view();
      if (this.scene && view) drawScene(this.context, this.scene, view);
      else this.context.clearRect(0, 0, width, height);
    });
  }

  ratio() {
    return Math.min(devicePixelRatio || 1, 2);
  }

  fitScale() {
    const {width, height} = /** @type {Scene} */ (this.scene);
    return Math.min(this.canvas.width / width, this.canvas.height / height);
  }

  /** @returns {View | null} */
  view() {
    if (!this.scene) return null;
    const {width, height} = this.scene, scale = this.fitScale() * this.zoom;
    /** @param {number} axis @param {number} size of the picture @param {number} room */
    const start = (axis, size, room) => {
      const shown = Math.min(room / scale / size, 1) / 2; // no empty border where the picture fills the view
      this.center[axis] = Math.min(Math.max(this.center[axis], shown), 1 - shown);
      return room / 2 - this.center[axis] * size * scale;
    };
    return {scale, left: start(0, width, this.canvas.width), top: start(1, height, this.canvas.height)};
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {Record<string, () => void>} */
    const actions = {
      "+": () => this.zoomBy(STEP), "=": () => this.zoomBy(STEP), "-": () => this.zoomBy(1 / STEP),
      "0": () => this.whole(), ArrowLeft: () => this.moveBy(-MOVE, 0), ArrowRight: () => this.moveBy(MOVE, 0),
      ArrowUp: () => this.moveBy(0, -MOVE), ArrowDown: () => this.moveBy(0, MOVE),
    };
    const action = actions[event.key];
    if (!action || (this.zoom === 1 && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    action();
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    if (!this.scene || !(event.ctrlKey || this.zoom > 1)) return; // else the page scrolls
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), [event.offsetX, event.offsetY]);
  }

  /** Tell where in the picture a pointer is. @param {PointerEvent} event */
  pointAt({offsetX, offsetY}) {
    const view = this.view(), ratio = this.ratio();
    if (!view) return;
    this.point({x: (offsetX * ratio - view.left) / view.scale - 0.5, y: (offsetY * ratio - view.top) / view.scale - 0.5,
      near: NEAR * ratio / view.scale});
  }

  /** One pointer moves the picture, two zoom it. @param {PointerEvent} event */
  onPointer(event) {
    const before = this.pointers.get(event.pointerId), place = [event.offsetX, event.offsetY];
    if (!before) {
      this.pointAt(event);
      return;
    }
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    this.pointers.set(event.pointerId, place);
    if (other) {
      const apart = (/** @type {number[]} */ one) => Math.max(Math.hypot(one[0] - other[0], one[1] - other[1]), 1);
      this.zoomBy(apart(place) / apart(before), [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2]);
    } else if (this.zoom > 1) {
      this.moveBy((before[0] - place[0]) / this.canvas.clientWidth, (before[1] - place[1]) / this.canvas.clientHeight);
    }
  }
}
