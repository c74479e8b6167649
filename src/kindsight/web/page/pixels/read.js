/** Image files to RGB samples: PNG by this page's decoder, other formats by the browser's. */

import { reduced, withoutOrientation } from "./jpeg.js";
import { upright } from "./orientation.js";
import { decodePng } from "./png.js";

const MAX_PIXELS = 178956970;
const MAX_BYTES = 512 * 2 ** 20;
const BAND_PIXELS = 4 * 2 ** 20; // telephones limit the size of a canvas

const UNREADABLE = [
  ["II*\0", "TIFF"], ["MM\0*", "TIFF"], ["II+\0", "TIFF"], ["MM\0+", "TIFF"],
  ["\xff\x4f\xff\x51", "JPEG 2000"], ["\0\0\0\x0cjP  ", "JPEG 2000"],
];

/**
 * Return {image, clipped} of a Blob: {data, width, height, channels: 3} upright, and the fraction
 * of samples of more than 8 bits that are outside of the range of the training.
 */
export async function readImage(blob, spec) {
  if (blob.size === 0) throw new Error("The file is empty.");
  if (blob.size > MAX_BYTES) {
    throw new Error(`The file has more than ${MAX_BYTES.toLocaleString("en")} bytes, the limit.`);
  }
  const head = latin1(new Uint8Array(await blob.slice(0, 16).arrayBuffer()));
  if (head.startsWith("\x89PNG\r\n\x1a\n")) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const { image, orientation, clipped } = await decodePng(bytes, spec.value_range, checkSize);
    return { image: upright(image, orientation), clipped };
  }
  if (head.startsWith("\xff\xd8\xff")) {
    const { orientation, bytes } = withoutOrientation(new Uint8Array(await blob.arrayBuffer()));
    const image = reduced(await decoded(new Blob([bytes]), head), orientation, spec);
    return { image: upright(image, orientation), clipped: 0 };
  }
  return { image: await decoded(blob, head), clipped: 0 };
}

/** Return the RGB samples of a file by the browser's decoder, without its colour profile. */
async function decoded(blob, head) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, {
      imageOrientation: "from-image", colorSpaceConversion: "none",
    });
  } catch {
    const name = UNREADABLE.find(([start]) => head.startsWith(start))?.[1];
    throw new Error(
      name ? `This browser does not read ${name} files: save the image as PNG or JPEG.`
        : "The file is not an image that this browser can read, or it is damaged.",
    );
  }
  try {
    checkSize(bitmap.height, bitmap.width);
    return fromBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

/** Return the RGB samples of a bitmap over white. */
export function fromBitmap(bitmap) {
  const { width, height } = bitmap;
  const rows = Math.min(height, Math.max(1, Math.floor(BAND_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  const data = new Uint8Array(width * height * 3);
  for (let top = 0, to = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const band = context.getImageData(0, 0, width, count).data;
    for (let from = 0; from < band.length; from += 4, to += 3) {
      data[to] = band[from];
      data[to + 1] = band[from + 1];
      data[to + 2] = band[from + 2];
    }
  }
  return { data, width, height, channels: 3 };
}

function checkSize(height, width) {
  if (height < 1 || width < 1) throw new Error("The file's header states an image without pixels.");
  if (height * width > MAX_PIXELS) {
    throw new Error(
      `The image has ${height} x ${width} pixels (height x width), more than the limit of `
      + `${MAX_PIXELS.toLocaleString("en")} pixels.`,
    );
  }
}

function latin1(bytes) {
  return String.fromCharCode(...bytes);
}
