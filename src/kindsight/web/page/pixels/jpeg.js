/**
 * The reduction of large JPEG files: in training, a JPEG that is much larger than the input of the
 * network is decoded at 1/2, 1/4 or 1/8 of its size. Browsers decode at full size; the same
 * reduction is then computed by the discrete cosine transform of blocks of 8 x 8 pixels.
 */

import { findOrientation, xmpOrientation } from "./orientation.js";

const BLOCK = 8;

/** Return {orientation, bytes}: the EXIF orientation, and the file without it. */
export function withoutOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let fromXmp = 0;
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; at += 2 + view.getUint16(at + 2)) {
    if (bytes[at + 1] === 0xda) break; // the pixels begin
    if (bytes[at + 1] !== 0xe1) continue;
    const body = bytes.subarray(at + 4, at + 2 + view.getUint16(at + 2));
    const name = String.fromCharCode(...body.subarray(0, 28));
    if (name.startsWith("Exif\0\0")) {
      const found = findOrientation(body.subarray(6));
      if (found === null) continue;
      const copy = bytes.slice();
      copy.set(found.little ? [1, 0] : [0, 1], body.byteOffset - bytes.byteOffset + 6 + found.at);
      return { orientation: found.value, bytes: copy };
    }
    if (name.startsWith("http://ns.adobe.com/xap/1.0/")) {
      fromXmp = xmpOrientation(new TextDecoder("latin1").decode(body));
    }
  }
  return { orientation: fromXmp || 1, bytes };
}

/** Return a decoded JPEG at the size at which the training decodes it for a spec. */
export function reduced(image, orientation, spec) {
  const [high, wide] = orientation >= 5 ? [spec.width, spec.height] : [spec.height, spec.width];
  const ratio = Math.min(Math.floor(image.height / high), Math.floor(image.width / wide));
  const factor = [8, 4, 2].find((each) => ratio >= each) ?? 1;
  return factor === 1 ? image : shrunk(image, factor);
}

/** Return the matrix from 8 samples to `size`: the low frequencies of their cosine transform. */
function lowFrequencies(size) {
  const matrix = new Float32Array(size * BLOCK);
  for (let n = 0; n < size; n++) {
    for (let m = 0; m < BLOCK; m++) {
      let sum = 1;
      for (let k = 1; k < size; k++) {
        sum += 2 * Math.cos(((2 * n + 1) * k * Math.PI) / (2 * size))
          * Math.cos(((2 * m + 1) * k * Math.PI) / (2 * BLOCK));
      }
      matrix[n * BLOCK + m] = sum / BLOCK;
    }
  }
  return matrix;
}

function shrunk(image, factor) {
  const { data, width, height } = image;
  const size = BLOCK / factor;
  const matrix = lowFrequencies(size);
  const [wide, high] = [width, height].map((side) => Math.floor((side + factor / 2) / factor));
  const blocks = Math.ceil(width / BLOCK);
  const stride = blocks * size * 3;
  const rows = new Float32Array(BLOCK * stride); // eight rows, shrunk in width
  const result = new Uint8ClampedArray(wide * high * 3);
  for (let top = 0; top < height; top += BLOCK) {
    for (let y = 0; y < BLOCK; y++) {
      const base = Math.min(height - 1, top + y) * width;
      for (let block = 0; block < blocks; block++) {
        const left = block * BLOCK;
        for (let n = 0; n < size; n++) {
          let [r, g, b] = [0, 0, 0];
          for (let m = 0; m < BLOCK; m++) {
            const weight = matrix[n * BLOCK + m];
            const from = 3 * (base + Math.min(width - 1, left + m));
            r += data[from] * weight;
            g += data[from + 1] * weight;
            b += data[from + 2] * weight;
          }
          const to = y * stride + 3 * (block * size + n);
          [rows[to], rows[to + 1], rows[to + 2]] = [r, g, b];
        }
      }
    }
    for (let n = 0; n < size; n++) {
      const y = (top / BLOCK) * size + n;
      if (y >= high) break;
      for (let x = 0; x < 3 * wide; x++) {
        let sum = 0;
        for (let m = 0; m < BLOCK; m++) sum += rows[m * stride + x] * matrix[n * BLOCK + m];
        result[3 * y * wide + x] = sum;
      }
    }
  }
  return { data: new Uint8Array(result.buffer), width: wide, height: high, channels: 3 };
}
