/** The fitted head of a face: as a mesh over the picture, and as a small view that can be turned. */

import {project} from "./face_model.js";
import {product, rotationOf} from "./pose.js";

/**
 * @typedef {import("./face_model.js").Fit} Fit
 * @typedef {import("./face_model.js").FaceModel} FaceModel
 * @typedef {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} Context
 */

const LIGHT = [0, -0.6, -0.8]; // where the light comes from
const COLOR = [86, 180, 233];
const NEAR = 3; // distance of the small view, in inter-ocular distances

/** Rotate all vertices. @param {number[][]} rotation @param {Float64Array} mesh */
function rotated(rotation, mesh) {
  return Array.from({length: mesh.length / 3}, (_, row) => rotation.map((line) =>
    line[0] * mesh[3 * row] + line[1] * mesh[3 * row + 1] + line[2] * mesh[3 * row + 2]));
}

/**
 * Triangles that face the viewer, the farthest first, and how bright each is.
 * @param {number[][]} places in camera coordinates @param {number[][]} triangles
 */
function visible(places, triangles) {
  /** @type {{triangle: number[], light: number, depth: number}[]} */
  const found = [];
  for (const triangle of triangles) {
    const [a, b, c] = triangle.map((row) => places[row]);
    const u = b.map((value, axis) => value - a[axis]), v = c.map((value, axis) => value - a[axis]);
    const normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const length = Math.hypot(...normal) || 1;
    if (normal[0] * a[0] + normal[1] * a[1] + normal[2] * a[2] >= 0) continue;
    const light = normal.reduce((sum, value, axis) => sum + value / length * LIGHT[axis], 0);
    found.push({triangle, light: Math.max(light, 0), depth: a[2] + b[2] + c[2]});
  }
  return found.sort((one, other) => other.depth - one.depth);
}

/** A shade of the head's color. @param {number} light @param {number} least */
function shade(light, least) {
  return `rgb(${COLOR.map((value) => Math.round(value * (least + (1 - least) * light)))})`;
}

/**
 * Draw the mesh over the picture.
 * @param {Context} context @param {FaceModel} model @param {Fit} fit
 * @param {(x: number, y: number) => [number, number]} at from pixels of the picture to the canvas
 */
export function drawMesh(context, model, fit, at) {
  const places = rotated(fit.rotation, fit.mesh).map((place) => place.map((value, axis) => value + fit.translation[axis]));
  const pixels = places.map((_, row) => at(.../** @type {[number, number]} */ (project(fit, fit.mesh, row))));
  context.lineWidth = 1;
  for (const {triangle, light} of visible(places, model.triangles)) {
    context.strokeStyle = shade(light, 0.45);
    context.beginPath();
    for (const row of triangle) context.lineTo(...pixels[row]);
    context.closePath();
    context.stroke();
  }
}

/** A small view of a head, turned by dragging or by the arrow keys. */
export class HeadView {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.turn = [0, 0]; // about the vertical and the horizontal axis, in radians
    /** @type {{model: FaceModel, fit: Fit} | null} */
    this.shown = null;
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this.turnBy(event.movementX / 80, event.movementY / 80);
    });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("dblclick", () => this.turnBy(-this.turn[0], -this.turn[1]));
    canvas.addEventListener("keydown", (event) => {
      /** @type {Record<string, [number, number]>} */
      const steps = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15]};
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.turnBy(...steps[event.key]);
    });
  }

  /** @param {number} across @param {number} down */
  turnBy(across, down) {
    this.turn = [this.turn[0] + across, this.turn[1] + down];
    if (this.shown) this.show(this.shown.model, this.shown.fit);
  }

  /** @param {FaceModel} model @param {Fit} fit */
  show(model, fit) {
    this.shown = {model, fit};
    const {width, height} = this.canvas;
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    const turn = product(rotationOf([-this.turn[1], 0, 0]), rotationOf([0, -this.turn[0], 0]));
    const places = rotated(product(turn, fit.rotation), fit.mesh).map(([x, y, z]) => [x, y - 0.35, z + NEAR]);
    const scale = 0.5 * NEAR * width;
    context.clearRect(0, 0, width, height);
    for (const {triangle, light} of visible(places, model.triangles)) {
      context.fillStyle = context.strokeStyle = shade(light, 0.2);
      context.beginPath();
      for (const row of triangle) {
        const [x, y, z] = places[row];
        context.lineTo(width / 2 + scale * x / z, height / 2 + scale * y / z);
      }
      context.closePath();
      context.fill();
      context.stroke();
    }
  }
}
