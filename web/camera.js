/** The camera and its frames. */

import {InputError} from "./layouts.js";

const SIZE = {width: {ideal: 640}, height: {ideal: 480}, facingMode: "user"};

const MOST_WAITING = 2; // frames: the next one is fetched while the one before is worked on

/** What to do about an error of getUserMedia. @type {Record<string, string>} */
const REASONS = {
  NotAllowedError: "The camera is not allowed. Allow it in the address bar, then press “Start the camera” again.",
  NotFoundError: "No camera was found. Connect one, then press “Start the camera” again.",
  OverconstrainedError: "No camera was found. Connect one, then press “Start the camera” again.",
  NotReadableError: "The camera is used by another program. Close it, then press “Start the camera” again.",
};

/** Gives frames of the camera to a function; frames are dropped while MOST_WAITING of them are not done. */
export class Camera {
  /**
   * @param {(bitmap: ImageBitmap, seconds: number) => Promise<void>} onFrame
   * @param {(error: Error) => void} onEnd
   */
  constructor(onFrame, onEnd) {
    this.onFrame = onFrame;
    this.onEnd = onEnd;
    this.waiting = 0; // frames that are not done
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    /** @type {MediaStream | null} */
    this.stream = null;
  }

  /** Ask for the camera and start. Throws InputError that says what to do. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new InputError("Browsers let only pages from https:// or from this machine use the camera. "
        + "Open the page there.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({video: SIZE, audio: false});
    } catch (error) {
      const {name, message} = /** @type {DOMException} */ (error);
      throw new InputError(REASONS[name] ?? `The camera does not start (${message || name}).`);
    }
    const {stream} = this;
    stream.getVideoTracks()[0].addEventListener("ended", () => {
      if (this.stream === stream) this.onEnd(new InputError("The camera stopped. Press “Start the camera” to go on."));
    });
    this.video.srcObject = stream;
    await this.video.play();
    this.next(stream);
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  /** Hand over each new frame, unless too many wait. @param {MediaStream} stream */
  next(stream) {
    const {video} = this;
    const take = async () => {
      if (this.stream !== stream) return;
      this.next(stream);
      if (this.waiting >= MOST_WAITING) return;
      this.waiting += 1;
      try {
        const seconds = performance.now() / 1000;
        await this.onFrame(await createImageBitmap(video), seconds);
      } catch (error) {
        if (this.stream === stream) this.onEnd(/** @type {Error} */ (error));
      } finally {
        this.waiting -= 1;
      }
    };
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(take);
    else requestAnimationFrame(take);
  }
}
