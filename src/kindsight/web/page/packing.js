/** The files of a page, as export/web/packing.py packs them. */

const FIRST = 0x5000;
const BITS = 15;
const BLOCK = 128;
const ZERO = 2 ** 23;

/** Return the first `size` bytes of a text with 15 bits in each character. */
export function fromText(text, size) {
  const bytes = new Uint8Array(size);
  let held = 0;
  let count = 0;
  for (let at = 0, to = 0; to < size; at++) {
    held = ((held & 0x7f) << BITS) | (text.charCodeAt(at) - FIRST);
    for (count += BITS; count >= 8 && to < size;) bytes[to++] = held >> (count -= 8);
  }
  return bytes;
}

/** Return the LiteRT file of an unzipped model. */
export function restoreModel(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const fields = view.getUint32(0, true);
  const header = Array.from({ length: fields }, (_, at) => view.getUint32(4 + 4 * at, true));
  const [size, weights, blocks, ...places] = header;
  const result = new Uint8Array(size);
  const floats = new Float32Array(result.buffer);
  const exponents = new Int8Array(bytes.buffer, bytes.byteOffset + 4 + 4 * fields, blocks);
  let rest = 4 + 4 * fields + blocks;
  const copy = (from, to) => {
    result.set(bytes.subarray(rest, rest + 4 * (to - from)), 4 * from);
    rest += 4 * (to - from);
  };
  const high = bytes.length - 3 * weights;
  const [middle, low] = [high + weights, high + 2 * weights];
  let number = 0;
  let block = 0;
  let end = 0;
  for (let place = 0; place < places.length; place += 2) {
    const [start, count] = [places[place], places[place + 1]];
    copy(end, start);
    end = start + count;
    for (let at = start; at < end; block++) {
      const unit = 2 ** exponents[block];
      for (const stop = Math.min(at + BLOCK, end); at < stop; at++, number++) {
        const whole = (bytes[high + number] << 16) | (bytes[middle + number] << 8)
          | bytes[low + number];
        floats[at] = (whole - ZERO) * unit;
      }
    }
  }
  copy(end, size / 4);
  return result;
}
