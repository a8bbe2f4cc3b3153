/**
 * What is drawn over a picture: points and their parts, numbers, names, boxes, confidence, head axes,
 * sunglasses, blur. Sizes follow the face, as in `facial_keypoints/drawing.py` and `effects.py`.
 */

import {tightBox} from "./geometry.js";
import {drawMesh} from "./head_view.js";

/**
 * @typedef {import("./keypoints.js").Face} Face
 * @typedef {import("./layouts.js").Layout} Layout
 * @typedef {import("./settings.js").Settings} Settings
 * @typedef {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} Context
 *
 * From pixels of the picture to pixels of the canvas: place × scale + (left, top).
 * @typedef {{scale: number, left: number, top: number}} View
 *
 * @typedef {"points" | "numbers" | "parts" | "box" | "confidence" | "pose" | "head" | "glasses" | "blur"} Layer
 *
 * @typedef {object} Scene
 * @property {CanvasImageSource} image
 * @property {number} width
 * @property {number} height
 * @property {Face[]} faces
 * @property {import("./worker.js").PlainLayout} layout
 * @property {Set<Layer>} layers
 * @property {ImageBitmap | null} glasses
 * @property {Settings} settings
 * @property {import("./face_model.js").FaceModel | null} model of heads, once it is loaded
 * @property {boolean} isLive
 */

const HALO = "#000c", WHITE = "#fff", SURE = 0.5;
const BLUR_CELLS = 6; // across a face
const BLUR_SIDE = 512; // pixels

/** Draw a picture with its faces. @param {Context} context @param {Scene} scene @param {View} view */
export function drawScene(context, scene, view) {
  const {image, width, height, faces, layers} = scene;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  context.imageSmoothingEnabled = view.scale < 4; // single pixels are seen when zoomed in
  context.imageSmoothingQuality = scene.isLive ? "low" : "high"; // a live picture must be fast
  context.drawImage(image, view.left, view.top, width * view.scale, height * view.scale);
  context.imageSmoothingEnabled = true;
  if (layers.has("blur")) for (const face of faces) blurFace(context, scene, face, view);
  if (layers.has("glasses")) for (const face of faces) drawGlasses(context, scene, face, view);
  for (const face of faces) {
    const pen = penOf(face, view);
    if (layers.has("box")) drawBox(context, face, pen);
    if (layers.has("head") && scene.model && face.fit) drawMesh(context, scene.model, face.fit, pen.at);
    if (layers.has("points")) drawPoints(context, scene.layout, face, pen);
    if (layers.has("pose")) drawAxes(context, scene.settings, face, pen);
    if (layers.has("numbers")) drawNumbers(context, face, pen);
    if (layers.has("parts")) drawNames(context, scene.layout, face, pen);
    if (layers.has("confidence") || face.identity) drawTitle(context, face, pen, layers.has("confidence"));
  }
}

/**
 * How large a face is drawn, and where its points are on the canvas: pixel centers are at whole numbers.
 * @param {Face} face @param {View} view
 */
function penOf(face, {scale, left, top}) {
  const [, , width, height] = tightBox(face.points), size = Math.max(width, height) * scale;
  return {
    size, scale, line: Math.max(size / 250, 1), radius: Math.max(size / 110, 0.8),
    at: (/** @type {number} */ x, /** @type {number} */ y) =>
      /** @type {[number, number]} */ ([(x + 0.5) * scale + left, (y + 0.5) * scale + top]),
  };
}

/** @typedef {ReturnType<typeof penOf>} Pen */

/** @param {Context} context @param {Scene["layout"]} layout @param {Face} face @param {Pen} pen */
function drawPoints(context, layout, face, {at, line, radius}) {
  const {points, pointConfidence, pointVisibility = pointConfidence} = face;
  context.lineWidth = line;
  layout.parts.forEach((part, index) => {
    context.strokeStyle = layout.colors[index];
    context.beginPath();
    for (const row of part.points) context.lineTo(...at(points[2 * row], points[2 * row + 1]));
    if (part.closed) context.closePath();
    context.stroke();
  });
  for (let i = 0; i < points.length / 2; i++) {
    context.beginPath();
    context.arc(...at(points[2 * i], points[2 * i + 1]), radius, 0, 2 * Math.PI);
    context.fillStyle = context.strokeStyle = WHITE;
    if (pointVisibility[i] >= SURE) context.fill(); // a hidden point is a ring
    else context.stroke();
  }
}

/** @param {Context} context @param {Face} face @param {Pen} pen */
function drawBox(context, face, {at, line}) {
  const [left, top, width, height] = face.box, [x, y] = at(left, top), [right, low] = at(left + width, top + height);
  context.lineWidth = line + 2;
  context.strokeStyle = HALO;
  context.strokeRect(x, y, right - x, low - y);
  context.lineWidth = line;
  context.strokeStyle = WHITE;
  context.strokeRect(x, y, right - x, low - y);
}

/** @param {Context} context @param {Settings} settings @param {Face} face @param {Pen} pen */
function drawAxes(context, settings, {pose}, {at, size}) {
  if (!pose) return;
  const [start, ...ends] = pose.axes;
  context.lineWidth = Math.max(size / 60, 1.5);
  context.lineCap = "round";
  ends.forEach(([x, y], axis) => {
    context.strokeStyle = `rgb(${settings.colors.axes[axis]})`;
    context.beginPath();
    context.moveTo(...at(start[0], start[1]));
    context.lineTo(...at(x, y));
    context.stroke();
  });
  context.lineCap = "butt";
}

/** @param {Context} context @param {Face} face @param {Pen} pen */
function drawNumbers(context, {points}, {at, size, radius}) {
  const height = Math.min(Math.max(size / 38, 7), 16);
  for (let i = 0; i < points.length / 2; i++) {
    const [x, y] = at(points[2 * i], points[2 * i + 1]);
    writeText(context, String(i), x + radius + 1, y - radius, height, "left");
  }
}

/**
 * The names of the parts: above closed parts, above the middle point of others; moved down where two overlap.
 * @param {Context} context @param {Scene["layout"]} layout @param {Face} face @param {Pen} pen
 */
function drawNames(context, layout, {points}, {at, size}) {
  const height = Math.min(Math.max(size / 26, 9), 20);
  /** @type {number[][]} */
  const written = [];
  for (const {name, points: rows, closed} of layout.parts) {
    const places = rows.map((row) => at(points[2 * row], points[2 * row + 1]));
    const [x, low] = closed
      ? [places.reduce((sum, place) => sum + place[0], 0) / places.length, Math.min(...places.map((place) => place[1]))]
      : places[places.length >> 1];
    let y = low - 0.9 * height;
    while (written.some(([left, top]) => Math.abs(left - x) < 4 * height && Math.abs(top - y) < height)) y += height;
    written.push([x, y]);
    writeText(context, name, x, y, height, "center");
  }
}

/**
 * Identity and confidence above a face.
 * @param {Context} context @param {Face} face @param {Pen} pen @param {boolean} all
 */
function drawTitle(context, face, {at, size}, all) {
  const texts = [face.identity ? `#${face.identity}` : "", all ? percent(face.confidence) : ""].filter(Boolean);
  const [x, y] = at(face.box[0] + face.box[2] / 2, face.box[1]), height = Math.min(Math.max(size / 12, 11), 24);
  writeText(context, texts.join(" "), x, Math.max(y - height * 0.6, height * 0.6), height, "center");
}

/** A share as "98 %". @param {number} share */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/**
 * @param {Context} context @param {string} text @param {number} x @param {number} y @param {number} height
 * @param {CanvasTextAlign} align
 */
function writeText(context, text, x, y, height, align) {
  context.font = `600 ${height}px system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = height / 4;
  context.strokeStyle = HALO;
  context.strokeText(text, x, y);
  context.fillStyle = WHITE;
  context.fillText(text, x, y);
}

/**
 * Sunglasses between the outer eye corners.
 * @param {Context} context @param {Scene} scene @param {Face} face @param {View} view
 */
function drawGlasses(context, {layout, glasses, settings}, {points}, {scale, left, top}) {
  const [from, to] = layout.eyeCorners.map((weights) => weights && [0, 1].map((axis) =>
    weights.reduce((sum, weight, row) => weight ? sum + weight * points[2 * row + axis] : sum, 0)));
  if (!glasses || !from || !to) return;
  const [start, end] = settings.glasses.corners, wide = end[0] - start[0];
  const a = (to[0] - from[0]) / wide * scale, b = (to[1] - from[1]) / wide * scale;
  const x = (from[0] + 0.5) * scale + left, y = (from[1] + 0.5) * scale + top;
  context.setTransform(a, b, -b, a, x, y);
  context.drawImage(glasses, -start[0] - 0.5, -start[1] - 0.5);
  context.setTransform(1, 0, 0, 1, 0, 0);
}

/**
 * Make a face unrecognizable: an ellipse around it in a few coarse cells, as `blur_face`.
 * @param {Context} context @param {Scene} scene @param {Face} face @param {View} view
 */
function blurFace(context, {image, width, height, layout}, {points}, view) {
  const [low, high] = faceBox(points, layout.fit);
  const size = Math.max(high[0] - low[0], high[1] - low[1], 2);
  const left = Math.max(Math.floor(low[0] - 0.6 * size), 0), top = Math.max(Math.floor(low[1] - 0.6 * size), 0);
  const right = Math.min(Math.ceil(high[0] + 0.35 * size) + 1, width);
  const bottom = Math.min(Math.ceil(high[1] + 0.35 * size) + 1, height);
  if (right <= left || bottom <= top) return;
  const cells = scratch(Math.max(Math.round((right - left) / size * BLUR_CELLS), 1),
    Math.max(Math.round((bottom - top) / size * BLUR_CELLS), 1));
  cells.imageSmoothingQuality = "high";
  cells.drawImage(image, left, top, right - left, bottom - top, 0, 0, cells.canvas.width, cells.canvas.height);
  // large views need no more pixels: the cells are coarse
  const scale = Math.min(view.scale, BLUR_SIDE / Math.max(right - left, bottom - top));
  const coarse = scratch(Math.max(Math.ceil((right - left) * scale), 1),
    Math.max(Math.ceil((bottom - top) * scale), 1));
  coarse.imageSmoothingQuality = "high";
  coarse.drawImage(cells.canvas, 0, 0, coarse.canvas.width, coarse.canvas.height);
  const across = [0, 1].map((axis) =>
    Math.max((high[axis] - low[axis]) / 2, 0.35 * size) * (axis ? 1 : 1.25) + (axis ? 0.3 * size : 0));
  // the forehead has no points: the ellipse is higher than they are
  coarse.setTransform(across[0] * scale, 0, 0, across[1] * scale, ((low[0] + high[0]) / 2 - left) * scale,
    ((low[1] + high[1]) / 2 - top - 0.12 * size) * scale);
  const mask = coarse.createRadialGradient(0, 0, 0.955, 0, 0, 1.08);
  mask.addColorStop(0, "#000f");
  mask.addColorStop(1, "#0000");
  coarse.globalCompositeOperation = "destination-in";
  coarse.fillStyle = mask;
  coarse.fillRect(-100, -100, 200, 200);
  const larger = view.scale / scale;
  context.drawImage(coarse.canvas, left * view.scale + view.left, top * view.scale + view.top,
    coarse.canvas.width * larger, coarse.canvas.height * larger);
}

/**
 * Low and high corner of about the tight box of the 68 points.
 * @param {ArrayLike<number>} points @param {number[]} fit
 */
function faceBox(points, [x, y, width, height]) {
  const box = tightBox(points), fit = [[x, width], [y, height]];
  const sides = [0, 1].map((axis) => {
    const [move, share] = fit[axis], size = box[2 + axis] / share;
    const low = Math.min(box[axis] + box[2 + axis] / 2 - size * move - size / 2, box[axis]);
    return [low, Math.max(low + size, box[axis] + box[2 + axis])];
  });
  return [sides.map(([low]) => low), sides.map(([, high]) => high)];
}

/** @param {number} width @param {number} height */
function scratch(width, height) {
  return /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(width, height).getContext("2d"));
}
