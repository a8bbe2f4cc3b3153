/**
 * Geometry of faces: boxes, the square crop and its inverse, roll, face shape score. The same formulas as
 * in `facial_keypoints/geometry.py` and `head.py`. Keypoints are flat arrays x0, y0, x1, y1, …
 *
 * Crops repeat the integer arithmetic of OpenCV's warpAffine and resize: with another interpolation the page
 * would give other points than the library for the same photo, and no test could compare the two.
 */

/**
 * @typedef {import("./pyramid.js").Gray} Gray
 * A box: left, top, width, height in pixels.
 * @typedef {number[]} Box
 * An affine map (a, b, tx, c, d, ty): x' = a x + b y + tx, y' = c x + d y + ty.
 * @typedef {number[]} Affine
 * The parts of a layout that geometry needs, see `layouts.js`.
 * @typedef {import("./layouts.js").Layout} Layout
 */

/** Keypoints -> their tight box. @param {ArrayLike<number>} points @returns {Box} */
export function tightBox(points) {
  let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
  for (let i = 0; i < points.length; i += 2) {
    left = Math.min(left, points[i]);
    right = Math.max(right, points[i]);
    top = Math.min(top, points[i + 1]);
    bottom = Math.max(bottom, points[i + 1]);
  }
  return [left, top, right - left, bottom - top];
}

/**
 * Intersection of two boxes over their union, or over the smaller of them.
 * @param {Box} a @param {Box} b @param {boolean} [ofSmaller]
 */
export function overlap(a, b, ofSmaller = false) {
  const across = Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]);
  const down = Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]);
  const both = Math.max(across, 0) * Math.max(down, 0), one = a[2] * a[3], other = b[2] * b[3];
  return both / (ofSmaller ? Math.min(one, other) : one + other - both);
}

/**
 * A detector's box -> the tight box of the keypoints.
 * @param {Box} box @param {number[]} fit @param {number} angle roll of the face in degrees @returns {Box}
 */
export function toTight([left, top, width, height], fit, angle) {
  const cos = Math.cos(angle * Math.PI / 180), sin = Math.sin(angle * Math.PI / 180);
  const right = width * fit[0], down = height * fit[1];
  const x = left + width / 2 + cos * right - sin * down, y = top + height / 2 + sin * right + cos * down;
  return [x - width * fit[2] / 2, y - height * fit[3] / 2, width * fit[2], height * fit[3]];
}

/**
 * True if a box differs from a better one: in center by more than `allowed` of the longer side, or in log
 * size by more than 1.5 × `allowed`.
 * @param {Box} box @param {Box} better @param {number} allowed
 */
export function boxesDiffer(box, better, allowed) {
  const side = Math.max(box[2], box[3]), other = Math.max(better[2], better[3]);
  const x = box[0] + box[2] / 2 - better[0] - better[2] / 2;
  const y = box[1] + box[3] / 2 - better[1] - better[3] / 2;
  return Math.hypot(x, y) > allowed * other || Math.abs(Math.log(side / other)) > 1.5 * allowed;
}

/**
 * The map from pixels of the photo to pixels of the square crop around a tight box, turned back by
 * `angle` degrees.
 * @param {Box} box @param {number} side of the crop in pixels @param {number} angle @param {number} scale
 * @returns {Affine}
 */
export function cropMatrix(box, side, angle, scale) {
  const ratio = side / (scale * Math.max(box[2], box[3])), radians = angle * Math.PI / 180;
  const cos = Math.cos(radians) * ratio, sin = Math.sin(radians) * ratio;
  const x = box[0] + box[2] / 2, y = box[1] + box[3] / 2, middle = (side - 1) / 2;
  return [cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y];
}

/** @param {Affine} map @returns {Affine} */
export function invert([a, b, tx, c, d, ty]) {
  const inverse = 1 / (a * d - b * c), p = d * inverse, q = -b * inverse, r = -c * inverse, s = a * inverse;
  return [p, q, -p * tx - q * ty, r, s, -r * tx - s * ty];
}

/**
 * Write the crop of a map into `out`, in 0…1, black outside of the photo. A crop that shrinks more than
 * twofold is first resized by area averages.
 * @param {Gray} image @param {Affine} map @param {number} side @param {Float32Array} out @param {number} at
 */
export function cropImage(image, map, side, out, at) {
  const scale = Math.sqrt(Math.abs(map[0] * map[4] - map[1] * map[3]));
  if (scale >= 0.5) {
    warp(image, map, side, side, out.subarray(at), 255);
    return;
  }
  const back = invert(map), margin = 2 + 2 / scale;
  const xs = [], ys = [];
  for (const x of [-1, side]) {
    for (const y of [-1, side]) {
      xs.push(back[0] * x + back[1] * y + back[2]);
      ys.push(back[3] * x + back[4] * y + back[5]);
    }
  }
  /** @param {number} value @param {number} most */
  const clip = (value, most) => Math.min(Math.max(value, 0), most);
  const left = clip(Math.floor(Math.min(...xs) - margin), image.width);
  const top = clip(Math.floor(Math.min(...ys) - margin), image.height);
  const right = clip(Math.ceil(Math.max(...xs) + margin) + 1, image.width);
  const bottom = clip(Math.ceil(Math.max(...ys) + margin) + 1, image.height);
  if (right <= left || bottom <= top) {
    out.fill(0, at, at + side * side);
    return;
  }
  const width = Math.max(Math.ceil((right - left) * scale * 2), 1);
  const height = Math.max(Math.ceil((bottom - top) * scale * 2), 1);
  const small = resizeArea(image, width, height, [left, top, right - left, bottom - top]);
  const rx = (right - left) / width, ry = (bottom - top) / height;
  // x = left + (x' + 1/2) rx - 1/2
  const ox = left + rx / 2 - 0.5, oy = top + ry / 2 - 0.5;
  const inside = [map[0] * rx, map[1] * ry, map[0] * ox + map[1] * oy + map[2],
    map[3] * rx, map[4] * ry, map[3] * ox + map[4] * oy + map[5]];
  warp(small, inside, side, side, out.subarray(at), 255);
}

/**
 * Sample an image at the places of the pixels of another, as shares of `unit` gray levels; black outside.
 * The same integers as OpenCV's warpAffine: places in 32nds of a pixel, whole gray levels.
 * @param {Gray} image @param {Affine} map from the image to the other
 * @param {number} columns @param {number} rows of the other @param {Float32Array | Uint8Array} out
 * @param {number} unit
 */
function warp({width, height, data}, map, columns, rows, out, unit) {
  const [a, b, tx, c, d, ty] = invert(map);
  const across = new Int32Array(columns), down = new Int32Array(columns);
  for (let u = 0; u < columns; u++) {
    across[u] = roundEven(a * u * 1024);
    down[u] = roundEven(c * u * 1024);
  }
  for (let v = 0, at = 0; v < rows; v++) {
    const startX = roundEven((b * v + tx) * 1024) + 16, startY = roundEven((d * v + ty) * 1024) + 16;
    for (let u = 0; u < columns; u++, at++) {
      const x = (startX + across[u]) >> 5, y = (startY + down[u]) >> 5, fx = x & 31, fy = y & 31;
      const left = x >> 5, top = y >> 5;
      let value = 0;
      if (left >= 0 && top >= 0 && left < width - 1 && top < height - 1) {
        const from = top * width + left;
        value = (data[from] * (32 - fx) + data[from + 1] * fx) * (32 - fy)
          + (data[from + width] * (32 - fx) + data[from + width + 1] * fx) * fy;
      } else if (left >= -1 && top >= -1 && left < width && top < height) {
        for (const [px, py, weight] of [[left, top, (32 - fx) * (32 - fy)], [left + 1, top, fx * (32 - fy)],
          [left, top + 1, (32 - fx) * fy], [left + 1, top + 1, fx * fy]]) {
          if (px >= 0 && py >= 0 && px < width && py < height) value += weight * data[py * width + px];
        }
      }
      out[at] = ((value + 512) >> 10) / unit;
    }
  }
}

/** Round to the nearest integer, halves to the even one. @param {number} value */
export function roundEven(value) {
  const floor = Math.floor(value), rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/**
 * Resize a region of an image by area averages: OpenCV's INTER_AREA, for shrinking, with its rounding to
 * float32 after each step.
 * @param {Gray} image @param {number} width @param {number} height @param {Box} [region]
 * @returns {Gray}
 */
export function resizeArea(image, width, height, region = [0, 0, image.width, image.height]) {
  const [left, top, fromWidth, fromHeight] = region;
  if (fromWidth === 2 * width && fromHeight === 2 * height) return halved(image, width, height, left, top);
  const columns = areaWeights(fromWidth, width), rows = areaWeights(fromHeight, height);
  const out = new Uint8Array(width * height), line = new Float32Array(width), sum = new Float32Array(width);
  for (let y = 0; y < height; y++) {
    sum.fill(0);
    for (let k = rows.starts[y]; k < rows.starts[y + 1]; k++) {
      const start = (top + rows.places[k]) * image.width + left, share = rows.shares[k];
      areaLine(image.data, start, columns, line);
      for (let x = 0; x < width; x++) sum[x] += Math.fround(line[x] * share);
    }
    for (let x = 0, at = y * width; x < width; x++) out[at + x] = roundEven(sum[x]);
  }
  return {width, height, data: out};
}

/**
 * A region of an image at half its size. OpenCV rounds this case in a way of its own.
 * @param {Gray} image @param {number} width @param {number} height @param {number} left @param {number} top
 * @returns {Gray}
 */
function halved(image, width, height, left, top) {
  const out = new Uint8Array(width * height), {data, width: stride} = image;
  for (let y = 0, at = 0; y < height; y++) {
    let from = (top + 2 * y) * stride + left;
    for (let x = 0; x < width; x++, at++, from += 2) {
      out[at] = (data[from] + data[from + 1] + data[from + stride] + data[from + stride + 1] + 2) >> 2;
    }
  }
  return {width, height, data: out};
}

/**
 * @param {Uint8Array} data @param {number} start
 * @param {{starts: Int32Array, places: Int32Array, shares: Float32Array}} columns @param {Float32Array} line
 */
function areaLine(data, start, {starts, places, shares}, line) {
  for (let x = 0, k = 0; x < line.length; x++) {
    let sum = 0;
    for (const end = starts[x + 1]; k < end; k++) {
      sum = Math.fround(sum + Math.fround(data[start + places[k]] * shares[k]));
    }
    line[x] = sum;
  }
}

/**
 * Which of `from` pixels make up each of `to` pixels, and with what shares.
 * @param {number} from @param {number} to
 */
function areaWeights(from, to) {
  const scale = from / to, starts = new Int32Array(to + 1), places = [], shares = [];
  for (let i = 0; i < to; i++) {
    const low = i * scale, high = low + scale, cell = Math.min(scale, from - low);
    const last = Math.min(Math.floor(high), from - 1), first = Math.min(Math.ceil(low), last);
    if (first - low > 1e-3) {
      places.push(first - 1);
      shares.push((first - low) / cell);
    }
    for (let place = first; place < last; place++) {
      places.push(place);
      shares.push(1 / cell);
    }
    if (high - last > 1e-3) {
      places.push(last);
      shares.push(Math.min(high - last, 1, cell) / cell);
    }
    starts[i + 1] = places.length;
  }
  return {starts, places: Int32Array.from(places), shares: Float32Array.from(shares)};
}

/**
 * Predictions in a crop, -1…1 from edge to edge -> points in pixels of the photo.
 * @param {ArrayLike<number>} targets @param {number} start @param {number} count
 * @param {Affine} map of the crop @param {number} side
 */
export function toPoints(targets, start, count, map, side) {
  const [a, b, tx, c, d, ty] = invert(map), points = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
    const x = ((targets[start + 2 * i] + 1) * side - 1) / 2;
    const y = ((targets[start + 2 * i + 1] + 1) * side - 1) / 2;
    points[2 * i] = a * x + b * y + tx;
    points[2 * i + 1] = c * x + d * y + ty;
  }
  return points;
}

/** Mean of points (x, y) or (x, y, z). @param {number[][]} points */
export function mean(points) {
  return points[0].map((_, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}

/** Points less their mean. @param {number[][]} points */
export function centered(points) {
  const middle = mean(points);
  return points.map((point) => point.map((value, axis) => value - middle[axis]));
}

/**
 * Mean position of the points with the indices `rows`.
 * @param {ArrayLike<number>} points @param {number[]} rows @returns {[number, number]}
 */
export function center(points, rows) {
  let x = 0, y = 0;
  for (const row of rows) {
    x += points[2 * row];
    y += points[2 * row + 1];
  }
  return [x / rows.length, y / rows.length];
}

/**
 * Roll of a face in degrees, clockwise: the rotation that fits a typical face best; 0 where none is known.
 * @param {ArrayLike<number>} points @param {Layout} layout
 */
export function rollAngle(points, {front}) {
  if (!front) return 0;
  const [mx, my] = center(points, front.rows);
  let along = 0, across = 0;
  front.rows.forEach((row, i) => {
    const x = points[2 * row] - mx, y = points[2 * row + 1] - my, [fx, fy] = front.points[i];
    along += x * fx + y * fy;
    across += fx * y - fy * x;
  });
  return Math.atan2(across, along) * 180 / Math.PI;
}

/**
 * The box that is tight once a face is rotated upright, and its roll.
 * @param {ArrayLike<number>} points @param {Layout} layout
 * @returns {{box: Box, angle: number}}
 */
export function levelBox(points, layout) {
  const angle = rollAngle(points, layout);
  const cos = Math.cos(angle * Math.PI / 180), sin = Math.sin(angle * Math.PI / 180);
  const turned = new Float64Array(points.length);
  for (let i = 0; i < points.length; i += 2) {
    turned[i] = cos * points[i] + sin * points[i + 1];
    turned[i + 1] = -sin * points[i] + cos * points[i + 1];
  }
  const [left, top, width, height] = tightBox(turned);
  const x = left + width / 2, y = top + height / 2;
  return {box: [cos * x - sin * y - width / 2, sin * x + cos * y - height / 2, width, height], angle};
}

/**
 * Face shape score: 1 for points that can be a head, down to 0 for points that cannot; 1 where the layout
 * has too few points of the mean head.
 * @param {ArrayLike<number>} points @param {Layout} layout
 */
export function shapeScore(points, {shape}) {
  if (!shape) return 1;
  const residual = Math.min(...shape.parts.map((part) => affineResidual(points, part)));
  return Math.min(Math.max(2 - residual / shape.largest, 0), 1);
}

/**
 * The root of the share of the variance of some points that no affine camera on the mean head explains.
 * @param {ArrayLike<number>} points @param {{rows: number[], basis: number[][]}} part
 */
function affineResidual(points, {rows, basis}) {
  const middle = center(points, rows);
  let whole = 0, explained = 0;
  for (const axis of [0, 1]) {
    const values = rows.map((row) => points[2 * row + axis] - middle[axis]);
    for (const value of values) whole += value * value;
    for (const direction of basis) {
      const along = values.reduce((total, value, i) => total + value * direction[i], 0);
      explained += along * along;
    }
  }
  return Math.sqrt(Math.max(whole - explained, 0) / Math.max(whole, 1e-12));
}

/**
 * Points without the shift of the labels that a network learned.
 * @param {Float64Array} points @param {Layout} layout @param {number[]} shift
 */
export function correctShift(points, layout, [pixels, share]) {
  if (!pixels && !share) return points;
  const down = pixels + share * layout.interOcular(points);
  return points.map((value, i) => i % 2 ? value - down : value);
}
