/** The orientation of EXIF and XMP metadata, 1 to 8 (TIFF 6.0, tag 274). */

const TAG = 0x0112;
const SHORT = 3;

/** Return the orientation of EXIF data, which begin with a TIFF header; 0 if there is none. */
export function exifOrientation(bytes) {
  return findOrientation(bytes)?.value ?? 0;
}

/** Return {value, at, little} of the orientation in EXIF data, with its position; null without one. */
export function findOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949;
    const start = view.getUint32(4, little);
    const count = view.getUint16(start, little);
    for (let entry = 0; entry < count; entry++) {
      const at = start + 2 + 12 * entry;
      if (view.getUint16(at, little) === TAG && view.getUint16(at + 2, little) === SHORT) {
        const value = valid(view.getUint16(at + 8, little));
        return value === 0 ? null : { value, at: at + 8, little };
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // metadata that end too early
  }
  return null;
}

/** Return the orientation of an XMP packet; 0 if there is none. */
export function xmpOrientation(text) {
  const found = /tiff:Orientation(?:="|>)([0-9])/.exec(text);
  return found ? valid(Number(found[1])) : 0;
}

function valid(value) {
  return value >= 1 && value <= 8 ? value : 0;
}

/** Return an RGB image upright, given its orientation. */
export function upright(image, orientation) {
  if (!(orientation > 1 && orientation <= 8)) return image;
  const { data, width, height } = image;
  const isTransposed = orientation >= 5;
  const [wide, high] = isTransposed ? [height, width] : [width, height];
  const isMirrored = [2, 3, 6, 7].includes(orientation);
  const isFlipped = [3, 4, 7, 8].includes(orientation);
  const result = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < high; y++) {
    const row = isFlipped ? high - 1 - y : y;
    for (let x = 0; x < wide; x++, to += 3) {
      const column = isMirrored ? wide - 1 - x : x;
      const from = 3 * (isTransposed ? column * width + row : row * width + column);
      result[to] = data[from];
      result[to + 1] = data[from + 1];
      result[to + 2] = data[from + 2];
    }
  }
  return { data: result, width: wide, height: high, channels: 3 };
}
