/** The page: reacts to the visitor, sends photos and frames to the worker, and shows the results. */

import {Camera} from "./camera.js";
import {percent, drawScene} from "./drawing.js";
import {fitFace, loadFaceModel} from "./face_model.js";
import {HeadView} from "./head_view.js";
import {InputError} from "./layouts.js";
import {received, started, worker} from "./start.js";
import {csvTable, jsonLines, pythonCode} from "./results.js";
import {fetchResponse, loadSettings} from "./settings.js";
import {SceneView} from "./view.js";

/**
 * @typedef {import("./worker.js").Result} Result
 * @typedef {import("./drawing.js").Layer} Layer
 * @typedef {import("./drawing.js").Scene} Scene
 * @typedef {import("./settings.js").Settings} Settings
 */

/** @type {[Layer, string, boolean][]} the layers: key, text, shown at first */
const LAYERS = [
  ["points", "Points", true], ["numbers", "Numbers", false], ["parts", "Part names", false], ["box", "Box", false],
  ["confidence", "Confidence", false], ["pose", "Head pose", false], ["head", "Fitted head", false], ["glasses", "Sunglasses", false],
  ["blur", "Blur", false],
];
/** @type {Record<string, string>} */
const STAGES = {
  load: "Loading the network …", start: "Starting the network …", read: "Reading the photo …",
  search: "Looking for faces …",
};
/** @type {[string, string][]} */
const TIMES = [["read", "read, gray"], ["search", "face search"], ["network", "crops and network"], ["total", "total"]];
const CAMERA_REPORT = 500; // milliseconds between two updates of the texts
const LIVE = 2000; // milliseconds over which frames per second are counted

/** @template {HTMLElement} T @param {string} id @returns {T} */
function element(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/**
 * A new element with properties and children.
 * @param {string} tag @param {Record<string, unknown>} values @param {...(Node | string)} children
 * @returns {any}
 */
function make(tag, values, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

class Page {
  /** @param {Settings} settings @param {import("./remote.js").Remote} worker */
  constructor(settings, worker) {
    this.settings = settings;
    this.worker = worker;
    this.view = new SceneView(/** @type {HTMLCanvasElement} */ (element("view")), (place) => this.showPoint(place));
    this.camera = new Camera((bitmap, seconds) => this.onFrame(bitmap, seconds), (error) => this.stopCamera(error));
    /** @type {Set<Layer>} */
    this.layers = new Set(LAYERS.filter(([, , shown]) => shown).map(([layer]) => layer));
    /** @type {ImageBitmap | null} */
    this.glasses = null;
    /** @type {import("./face_model.js").FaceModel | null} */
    this.model = null;
    this.head = new HeadView(/** @type {HTMLCanvasElement} */ (element("head")));
    /** @type {{blob: Blob, name: string} | null} the photo that is shown */
    this.photo = null;
    /** @type {{blob: Blob, name: string} | null} the last photo that was asked for */
    this.wanted = null;
    /** @type {Result | null} */
    this.result = null;
    this.net = ""; // name of the network that is loaded
    /** @type {Map<string, string | File>} what the worker loads for each name */
    this.networks = new Map(settings.models.map(({name}) => [name, name]));
    this.photos = this.loads = 0; // only the reply to the last request is shown
    /** @type {Promise<void>} the last load */
    this.loading = Promise.resolve();
    this.isLive = false;
    /** @type {number[]} when the last frames came, in milliseconds */
    this.frames = [];
    this.reported = 0;
  }

  start() {
    this.makeControls();
    this.listen();
    this.showFaces();
    this.load(this.settings.models[0].name);
  }

  makeControls() {
    for (const [layer, text, shown] of LAYERS) {
      /** @type {HTMLInputElement} */
      const box = make("input", {type: "checkbox", id: `layer-${layer}`, checked: shown});
      box.addEventListener("change", () => this.setLayer(layer, box.checked));
      element("layers").append(make("label", {}, box, ` ${text}`));
    }
    for (const {name, bytes} of this.settings.models) this.addNetwork(name, `${name} (${(bytes / 1e6).toFixed(1)} MB)`);
    for (const {file, text} of this.settings.examples) {
      const button = make("button", {type: "button"}, text);
      button.addEventListener("click", () => this.openExample(file));
      element("examples").append(button);
    }
    /** @type {HTMLAnchorElement} */ (element("repository")).href = this.settings.repository;
  }

  listen() {
    const on = (/** @type {string} */ id, /** @type {() => void} */ action) =>
      element(id).addEventListener("click", action);
    for (const id of ["photo", "own"]) {
      const input = /** @type {HTMLInputElement} */ (element(id));
      input.addEventListener("change", () => {
        if (input.files?.length) this.open(input.files[0]);
        input.value = ""; // the same file can be chosen again
      });
    }
    on("camera", () => this.isLive ? this.stopCamera() : this.startCamera());
    on("larger", () => this.view.zoomBy(1.5));
    on("smaller", () => this.view.zoomBy(1 / 1.5));
    on("whole", () => this.view.whole());
    on("json", () => this.save("jsonl", "application/jsonl", jsonLines));
    on("csv", () => this.save("csv", "text/csv", csvTable));
    on("png", () => this.savePicture());
    on("copy", () => this.copyCode());
    const stage = element("stage");
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      stage.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) stage.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      stage.classList.remove("over");
      const [file] = event.dataTransfer?.files ?? [];
      if (file) this.open(file);
      else this.fail(new InputError("What was dropped is not a file. Save the picture first, then drop its file."));
    });
    document.addEventListener("paste", (event) => {
      const [file] = event.clipboardData?.files ?? [];
      if (file) this.open(file, "pasted.png");
    });
  }

  /** A choice of a network. @param {string} name @param {string} text */
  addNetwork(name, text) {
    const radio = make("input", {type: "radio", name: "network", value: name});
    radio.addEventListener("change", () => this.load(name));
    element("networks").append(make("label", {}, radio, ` ${text}`));
  }

  /** Open a file: a network or a photo. @param {File} file @param {string} [name] */
  open(file, name = file.name || "photo") {
    if (!/\.onnx$/i.test(name)) {
      this.openPhoto(file, name);
      return;
    }
    this.load(name, file);
  }

  /**
   * Load a network. The one before stays if this one fails.
   * @param {string} name
   * @param {string | File} [source] what the worker loads
   */
  load(name, source = this.networks.get(name)) {
    this.loading = this.loadNext(name, source);
  }

  /** @param {string} name @param {string | File | undefined} source */
  async loadNext(name, source) {
    const job = ++this.loads, bar = /** @type {HTMLProgressElement} */ (element("progress"));
    const listed = this.settings.models.find((model) => model.name === name)?.bytes ?? 0;
    let bytes = 0;
    const report = () => {
      if (job !== this.loads) return;
      bar.value = (received.bytes + bytes) / (this.settings.onnxruntime.bytes + listed);
      this.say(bar.value < 1 ? STAGES.load : STAGES.start);
    };
    received.report = report;
    bar.hidden = false;
    report();
    try {
      await Promise.all([started, this.worker.call("load", [source], {report: (come) => {
        bytes = come;
        report();
      }})]);
      this.net = name;
      if (source instanceof File) {
        if (!this.networks.has(name)) this.addNetwork(name, name);
        this.networks.set(name, source);
      }
      if (job === this.loads) this.say("Ready.");
    } catch (error) {
      if (job === this.loads) this.fail(error, name);
    }
    const isLast = job === this.loads;
    if (isLast) {
      bar.hidden = true;
      for (const radio of document.querySelectorAll("[name=network]")) {
        const choice = /** @type {HTMLInputElement} */ (radio);
        choice.checked = choice.value === this.net;
      }
    }
    document.body.dataset.network = this.net; // what is ready
    performance.mark("ready");
    this.showCode();
    if (isLast && this.net === name && this.wanted && !this.isLive) {
      this.openPhoto(this.wanted.blob, this.wanted.name); // predicted anew
    }
  }

  /** Wait for the network that is loaded. Throws InputError where there is none. */
  async ready() {
    for (let loading = null; loading !== this.loading;) {
      loading = this.loading;
      await loading;
    }
    if (!this.net) throw new InputError("No network is loaded. Choose one, or load the page again.");
  }

  /** @param {string} file */
  async openExample(file) {
    const job = ++this.photos;
    try {
      const blob = await (await fetchResponse(file)).blob();
      if (job === this.photos) await this.openPhoto(blob, file);
    } catch (error) {
      if (job === this.photos) this.fail(error);
    }
  }

  /** @param {Blob} blob @param {string} name */
  async openPhoto(blob, name) {
    if (this.isLive) this.stopCamera();
    const job = ++this.photos;
    this.wanted = {blob, name};
    try {
      await this.refuseLarge(blob);
      if (!this.net) this.say("The photo waits for the network …");
      await this.ready();
      if (job !== this.photos) return;
      const result = await this.worker.call("photo", [blob], {
        report: ({stage}) => { if (job === this.photos) this.say(STAGES[stage]); },
      });
      if (job !== this.photos) {
        result.bitmap.close();
        return;
      }
      this.photo = this.wanted;
      this.show(result);
      this.showCode();
      this.describe();
    } catch (error) {
      if (job !== this.photos) return;
      this.wanted = this.photo;
      this.fail(error, name);
    }
  }

  /** Refuse a picture that is too large before it is decoded. @param {Blob} blob */
  async refuseLarge(blob) {
    const {maxBytes, maxPixels} = this.settings;
    if (!blob.size) throw new InputError("The file is empty.");
    if (blob.size > maxBytes) {
      throw new InputError(`The file has ${blob.size.toLocaleString("en")} bytes; `
        + `the limit is ${maxBytes.toLocaleString("en")}. Shrink the picture first.`);
    }
    const image = new Image(), address = URL.createObjectURL(blob);
    try {
      await new Promise((resolve) => {
        image.onload = image.onerror = resolve; // the worker says what is wrong with a damaged file
        image.src = address;
      });
      const {naturalWidth: width, naturalHeight: height} = image;
      if (width * height > maxPixels) {
        throw new InputError(`The picture has ${width} × ${height} pixels; `
          + `the limit is ${maxPixels.toLocaleString("en")}. Shrink the picture first.`);
      }
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  async startCamera() {
    const button = /** @type {HTMLButtonElement} */ (element("camera"));
    button.disabled = true;
    this.say("Waiting for the camera …");
    try {
      await this.ready();
      await this.worker.call("forget", []);
      await this.camera.start();
      this.photos += 1; // a photo that is still read is not shown any more
      this.photo = this.wanted = null;
      this.isLive = true;
      this.frames = [];
      button.textContent = "Stop the camera";
      element("view").setAttribute("aria-label", "Picture of the camera");
      this.say("The camera is on.");
    } catch (error) {
      this.camera.stop();
      this.fail(error);
    } finally {
      button.disabled = false;
      this.showCode();
    }
  }

  /** @param {unknown} [error] why, if the visitor did not stop it */
  stopCamera(error) {
    this.camera.stop();
    this.isLive = false;
    element("camera").textContent = "Start the camera";
    element("view").setAttribute("aria-label",
      `Last frame of the camera, ${count(this.result?.faces.length ?? 0, "face")}`);
    if (error) this.fail(error);
    else this.say("The camera is off. The last frame stays on screen.");
    this.view.show(this.scene());
    this.showFaces();
    this.showTimes();
    this.showCode();
  }

  /** @param {ImageBitmap} bitmap @param {number} seconds */
  async onFrame(bitmap, seconds) {
    const result = await this.worker.call("frame", [bitmap, seconds], {transfer: [bitmap]});
    if (!this.isLive) {
      result.bitmap.close();
      return;
    }
    const now = performance.now(), report = now - this.reported > CAMERA_REPORT;
    this.frames = [...this.frames.filter((time) => now - time < LIVE), now];
    this.show(result, report);
    if (report) this.reported = now;
  }

  /** Frames of the camera per second. */
  rate() {
    const passed = (performance.now() - this.frames[0]) / 1000;
    return this.isLive && passed ? (this.frames.length - 1) / passed : 0;
  }

  /** Show a result; `texts`: the lists too. @param {Result} result @param {boolean} [texts] */
  show(result, texts = true) {
    this.result?.bitmap.close();
    this.result = result;
    element("stage").classList.add("filled");
    this.fitFaces();
    this.view.show(this.scene());
    if (texts) {
      this.showFaces();
      this.showTimes();
    }
  }

  /** @returns {Scene | null} */
  scene() {
    if (!this.result) return null;
    const {bitmap, faces, layout} = this.result, {width, height} = bitmap;
    return {image: bitmap, width, height, faces, layout, layers: this.layers, glasses: this.glasses,
      settings: this.settings, model: this.model, isLive: this.isLive};
  }

  /** Fit a head to each face, where the layer is shown; the first one is shown in the small view too. */
  fitFaces() {
    const {faces = [], layout} = this.result ?? {}, {model} = this;
    const isShown = this.layers.has("head") && model !== null && layout?.name === this.settings.defaultLayout;
    for (const face of faces) face.fit = isShown ? face.fit ?? fitFace(face.points, face.pointVisibility, model) : undefined;
    const first = faces.find((face) => face.fit)?.fit;
    element("expression").hidden = !first;
    if (!first || !model) return;
    this.head.show(model, first);
    const list = element("bars");
    if (!list.children.length) {
      for (const name of model.names) {
        const label = name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`);
        list.append(make("dt", {}, label), make("dd", {}, make("meter", {max: 1, ariaLabel: label})));
      }
    }
    list.querySelectorAll("meter").forEach((meter, i) => { meter.value = first.expressions[model.names[i]]; });
  }

  /** @param {Layer} layer @param {boolean} shown */
  async setLayer(layer, shown) {
    if (shown) this.layers.add(layer);
    else this.layers.delete(layer);
    try {
      if (layer === "glasses" && shown && !this.glasses) {
        this.glasses = await createImageBitmap(await (await fetchResponse("sunglasses.png")).blob());
      }
      if (layer === "head" && shown) this.model = await loadFaceModel();
    } catch (error) {
      this.fail(error);
    }
    this.fitFaces();
    this.view.show(this.scene());
    const layout = this.result?.layout;
    const lacks = layout && ((layer === "glasses" && layout.eyeCorners.includes(null) && "outer eye corners")
      || (layer === "head" && layout.name !== this.settings.defaultLayout && "68 points")
      || (["pose", "blur"].includes(layer) && !layout.rigid.length && "points of the mean head")
      || (layer === "parts" && !layout.parts.length && "parts"));
    if (shown && lacks) this.fail(new InputError(`The layout ${layout.name} has no ${lacks} to draw this.`));
  }

  /** Say what was found in a photo. */
  describe() {
    const {faces = [], rejected = [], bitmap} = this.result ?? {};
    const also = rejected.length ? ` ${count(rejected.length, "candidate")} rejected: too little confidence `
      + `(at most ${percent(rejected[0].confidence)}).` : "";
    const cure = faces.length ? "" : " Faces that are very small or turned away are not found.";
    this.say((faces.length ? `${count(faces.length, "face")} found.` : "No face found.") + also + cure);
    const {width, height} = bitmap ?? {width: 0, height: 0};
    element("view").setAttribute("aria-label",
      `${this.photo?.name ?? "Picture"}, ${width} × ${height} pixels, ${count(faces.length, "face")}`);
  }

  /**
   * Say which keypoint the pointer is at, and what the network says about it.
   * @param {{x: number, y: number, near: number} | null} place in the picture
   */
  showPoint(place) {
    const {faces = [], layout} = this.result ?? {};
    let text = "", least = place?.near ?? 0;
    for (const {points, pointConfidence, pointVisibility} of place && layout ? faces : []) {
      for (let row = 0; 2 * row < points.length; row++) {
        const away = Math.hypot(points[2 * row] - (place?.x ?? 0), points[2 * row + 1] - (place?.y ?? 0));
        if (!(away < least)) continue;
        least = away;
        const seen = pointVisibility ? ` · visible ${percent(pointVisibility[row])}` : "";
        text = `${row} ${layout?.keypoints[row]} · confidence ${percent(pointConfidence[row])}${seen}`;
      }
    }
    const tip = element("tip");
    tip.hidden = !text;
    tip.textContent = text;
  }

  showFaces() {
    const faces = this.result?.faces ?? [], list = element("faces");
    element("none").hidden = faces.length > 0;
    if (this.result) element("none").textContent = "No face found.";
    faces.forEach(({pose, openness, confidence, identity}, index) => { // buttons stay, so that focus and clicks do
      if (!list.children[index]) {
        const button = make("button", {type: "button", title: "Zoom into this face"});
        button.addEventListener("click", () => this.view.lookAt(this.result?.faces[index]?.box ?? [0, 0, 1, 1]));
        list.append(make("li", {}, button));
      }
      const angles = pose ? ` · yaw ${degrees(pose.yaw)} pitch ${degrees(pose.pitch)} roll ${degrees(pose.roll)}` : "";
      const eyes = openness && [openness.rightEye, openness.leftEye].map((eye) => eye?.toFixed(1) ?? "hidden");
      const open = openness && eyes ? ` · eyes ${eyes.join(" ")} · mouth ${openness.mouth.toFixed(1)}` : "";
      const text = `${identity ?? index + 1} · ${percent(confidence)}${angles}${open}`;
      const button = list.children[index].children[0];
      if (button.textContent !== text) button.textContent = text;
    });
    while (list.children.length > faces.length) {
      const last = /** @type {Element} */ (list.lastElementChild);
      if (last.contains(document.activeElement)) element("view").focus();
      last.remove();
    }
    for (const id of ["json", "csv"]) /** @type {HTMLButtonElement} */ (element(id)).disabled = !faces.length;
    /** @type {HTMLButtonElement} */ (element("png")).disabled = !this.result;
  }

  showTimes() {
    const {times = {}} = this.result ?? {}, rate = this.rate();
    const lines = TIMES.map(([stage, text]) => [text, `${(times[stage] ?? 0).toFixed(times[stage] < 10 ? 1 : 0)} ms`]);
    if (rate) lines.push(["frames per second", rate.toFixed(1)]);
    element("times").replaceChildren(...lines.flatMap(
      ([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    document.body.dataset.rate = rate.toFixed(1);
  }

  showCode() {
    element("python").textContent = pythonCode({name: this.photo?.name ?? "photo.jpg", net: this.net,
      standard: !this.net || this.net === this.settings.models[0].name, camera: this.isLive,
      repository: this.settings.repository});
  }

  async copyCode() {
    const code = element("python");
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      this.say("Copied.");
    } catch {
      getSelection()?.selectAllChildren(code);
      this.say("Selected: press Ctrl+C to copy.");
    }
  }

  /** @param {string} ending @param {string} type @param {typeof jsonLines} text */
  save(ending, type, text) {
    if (!this.result) return;
    const {faces, layout} = this.result;
    this.download(new Blob([text(this.photo?.name ?? "camera", faces, layout)], {type}), ending);
  }

  /** The picture as it is drawn, in its own size. */
  async savePicture() {
    const scene = this.scene();
    if (!scene) return;
    try {
      const canvas = new OffscreenCanvas(scene.width, scene.height);
      const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
      drawScene(context, scene, {scale: 1, left: 0, top: 0});
      const drawn = canvas.transferToImageBitmap(); // encoded in the worker, since a page waits until it is idle
      this.download(await this.worker.call("encode", [drawn], {transfer: [drawn]}), "png");
    } catch {
      this.fail(new InputError("The picture is too large for this browser to save. Save the points instead."));
    }
  }

  /** @param {Blob} blob @param {string} ending */
  download(blob, ending) {
    const address = URL.createObjectURL(blob), name = (this.photo?.name ?? "camera").replace(/\.[^.]*$/, "");
    make("a", {href: address, download: `${name}-keypoints.${ending}`}).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  /** @param {string} text */
  say(text) {
    const status = element("status");
    status.className = "";
    status.textContent = text;
  }

  /** @param {unknown} error @param {string} [name] of the file that it is about */
  fail(error, name) {
    const {message} = /** @type {Error} */ (error);
    this.say(name ? `${name}: ${message}` : message);
    element("status").className = "failure";
    if (!(error instanceof InputError)) console.error(error);
  }
}

/** An angle as "−3°". @param {number} angle */
function degrees(angle) {
  return `${angle.toFixed(0).replace("-", "−").replace("−0", "0")}°`;
}

/** A number and its noun. @param {number} number @param {string} noun */
function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

if (!("old" in document.documentElement.dataset)) {
  loadSettings().then((settings) => new Page(settings, worker).start(), (error) => {
    element("status").textContent = error.message;
    element("status").className = "failure";
  });
}
