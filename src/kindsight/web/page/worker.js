/** The worker: reads and resizes images and runs the network on them, off the page's thread. */

import { decide } from "./decide.js";
import { loadNetwork } from "./network.js";
import { fromBitmap, readImage } from "./pixels/read.js";
import { resizeImage, thumbnail } from "./pixels/resize.js";

let info = null;
let network = null;

/** Handle a message of the page: {id, task, ...}; the response has the same id. */
self.onmessage = async ({ data }) => {
  try {
    const [answer, moved] = await TASKS[data.task](data);
    self.postMessage({ id: data.id, answer }, moved ?? []);
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};

const TASKS = {
  async start(message) {
    info = message.info;
    network = await loadNetwork(message.sources, info);
    return [{}];
  },

  /** Run the network on the samples of one resized image, to compare it with others. */
  async run({ pixels }) {
    return [await network.run(pixels)];
  },

  /** Classify a file (`blob`) or a video's frame (`bitmap`); `side` is the thumbnail's size. */
  async classify({ blob, bitmap, side, withPixels }) {
    const { image, clipped } = bitmap ? { image: fromBitmap(bitmap), clipped: 0 }
      : await readImage(blob, info.input.resize);
    bitmap?.close();
    const pixels = resizeImage(image, info.input.resize);
    const { probabilities, score } = await network.run(pixels);
    const answer = decide(probabilities, score, clipped, info);
    if (side) answer.thumbnail = await encoded(image, side);
    if (withPixels) answer.pixels = pixels;
    return [{ ...answer, width: image.width, height: image.height }];
  },
};

/** Return a small image as a Blob. */
async function encoded(image, side) {
  const scale = Math.min(1, side / Math.max(image.height, image.width));
  const height = Math.max(1, Math.round(image.height * scale));
  const width = Math.max(1, Math.round(image.width * scale));
  const small = thumbnail(image, height, width);
  const pixels = new ImageData(width, height);
  for (let from = 0, to = 0; from < small.length; from += 3, to += 4) {
    pixels.data.set(small.subarray(from, from + 3), to);
    pixels.data[to + 3] = 255;
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
}
