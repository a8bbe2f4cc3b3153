/**
 * Faces that are tracked and smoothed over the frames of a camera: the same steps as
 * `facial_keypoints/tracking.py`.
 */

import {boxesDiffer, levelBox, overlap, tightBox} from "./geometry.js";

/**
 * @typedef {import("./pyramid.js").Gray} Gray
 * @typedef {import("./keypoints.js").Face} Face
 * @typedef {import("./layouts.js").Layout} Layout
 *
 * Cutoff frequencies in Hz, and their slopes in Hz per (inter-ocular distance per second).
 * @typedef {{cutoff: number, slope: number, own_slope: number, derivative_cutoff: number}} FilterSettings
 *
 * @typedef {object} TrackerSettings
 * @property {number} every this many frames the whole frame is searched
 * @property {number} max_missed number of frames after which a missed face is forgotten
 * @property {number} same overlap above which a face continues a missed track
 * @property {number} doubled overlap above which a track is a second one of an older track's face
 * @property {FilterSettings} filter
 *
 * @typedef {{identity: number, face: Face, filter: OneEuroFilter, missed: number, box: number[], angle: number}} Track
 */

/** The 1€ filter (Casiez, Roussel, Vogel, CHI 2012) on keypoints. */
export class OneEuroFilter {
  /** @param {FilterSettings} settings @param {Layout} layout */
  constructor(settings, layout) {
    this.settings = settings;
    this.layout = layout;
    /** @type {Float64Array | null} smoothed points; below: raw points, speed */
    this.points = null;
    /** @type {Float64Array} */
    this.raw = new Float64Array();
    /** @type {Float64Array} */
    this.speed = this.raw;
    this.seconds = this.count = 0;
  }

  /** Raw keypoints at a time in seconds -> smoothed ones. @param {Float64Array} points @param {number} seconds */
  smooth(points, seconds) {
    if (!this.points || seconds <= this.seconds) {
      this.points = this.raw = points;
      this.speed = new Float64Array(points.length);
      this.seconds = seconds;
      return points;
    }
    const {cutoff, slope, own_slope: ownSlope, derivative_cutoff: derivative} = this.settings;
    const passed = seconds - this.seconds, unit = passed * Math.max(this.layout.normalizer(points), 1e-6);
    const share = lowpassWeight(derivative, passed), count = points.length / 2;
    const speed = this.speed.map((value, i) => value + share * ((points[i] - this.raw[i]) / unit - value));
    let across = 0, down = 0;
    for (let i = 0; i < speed.length; i += 2) {
      across += speed[i] / count;
      down += speed[i + 1] / count;
    }
    this.count += 1;
    // start like a running mean that favors new frames, so that the error of the first one does not persist
    const least = 2 / (this.count + 2), common = cutoff + slope * Math.hypot(across, down);
    const old = this.points, smoothed = new Float64Array(points.length);
    for (let i = 0; i < points.length; i += 2) {
      const own = Math.hypot(speed[i] - across, speed[i + 1] - down);
      const weight = Math.max(lowpassWeight(common + ownSlope * own, passed), least);
      smoothed[i] = old[i] + weight * (points[i] - old[i]);
      smoothed[i + 1] = old[i + 1] + weight * (points[i + 1] - old[i + 1]);
    }
    Object.assign(this, {points: smoothed, raw: points, speed, seconds});
    return smoothed;
  }
}

/**
 * Weight of a new value in a low-pass of `cutoff` Hz after `passed` seconds.
 * @param {number} cutoff @param {number} passed
 */
function lowpassWeight(cutoff, passed) {
  return 1 / (1 + 1 / (2 * Math.PI * cutoff * passed));
}

/** Tracks the faces of one camera. */
export class Tracker {
  /** @param {import("./keypoints.js").KeypointDetector} detector */
  constructor(detector) {
    this.detector = detector;
    this.settings = detector.settings.tracker;
    this.layout = detector.model.metadata.layout;
    /** @type {Track[]} */
    this.tracks = [];
    this.count = this.frames = 0;
  }

  /**
   * The faces of the next frame, with identities and smoothed points.
   * @param {Gray} gray
   * @param {number} seconds
   * @returns {Promise<Face[]>}
   */
  async next(gray, seconds) {
    const {detector, settings} = this;
    detector.times = {search: 0, network: 0};
    const seen = this.tracks.filter((track) => !track.missed);
    const faces = await detector.predictBoxes(gray, seen.map(({box}) => box), seen.map(({angle}) => angle));
    seen.forEach((track, i) => {
      if (faces[i].confidence >= detector.settings.minConfidence && !this.doubled(faces[i], track)) {
        this.follow(track, faces[i]);
      } else {
        track.missed = 1;
      }
    });
    for (const track of this.tracks) if (track.missed && !seen.includes(track)) track.missed += 1;
    this.tracks = this.tracks.filter((track) => track.missed <= settings.max_missed);
    if (this.frames % settings.every === 0 || this.tracks.some((track) => track.missed)) await this.search(gray);
    this.frames += 1;
    return this.tracks.filter((track) => !track.missed).map((track) => {
      const points = track.filter.smooth(track.face.points, seconds);
      return {...track.face, points, box: tightBox(points), identity: track.identity};
    });
  }

  /** Take the face of a new frame. @param {Track} track @param {Face} face */
  follow(track, face) {
    const {box: allowed, roll} = this.detector.settings.refine, {box, angle} = levelBox(face.points, this.layout);
    track.face = face;
    if (boxesDiffer(track.box, box, allowed) || Math.abs(track.angle - angle) > roll) {
      track.box = box;
      track.angle = angle;
    }
  }

  /** True if the face overlaps the face of an older track. @param {Face} face @param {Track} track */
  doubled(face, track) {
    const box = tightBox(face.points);
    return this.tracks.some((other) => other.identity < track.identity && !other.missed
      && overlap(tightBox(other.face.points), box) > this.settings.doubled);
  }

  /**
   * Search the whole frame for faces without an active track: one that overlaps a missed track is assigned
   * to it.
   * @param {Gray} gray
   */
  async search(gray) {
    const {network} = this.detector.times;
    const known = this.tracks.flatMap(({missed, face}) => missed ? [] : [tightBox(face.points)]);
    const {accepted} = await this.detector.detect(gray, this.detector.settings.camera, known);
    this.detector.times.network += network;
    for (const face of accepted) {
      const box = tightBox(face.points);
      let nearest = null, most = this.settings.same;
      for (const track of this.tracks.filter(({missed}) => missed)) {
        const share = overlap(tightBox(track.face.points), box);
        if (share > most) [nearest, most] = [track, share];
      }
      if (!nearest) {
        this.count += 1;
        this.tracks.push({identity: this.count, face, missed: 0, filter: this.newFilter(),
          ...levelBox(face.points, this.layout)});
      } else {
        nearest.missed = 0;
        this.follow(nearest, face);
        nearest.filter = this.newFilter();
      }
    }
  }

  newFilter() {
    return new OneEuroFilter(this.settings.filter, this.layout);
  }
}
