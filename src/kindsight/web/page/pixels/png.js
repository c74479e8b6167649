/**
 * Decoding of PNG files, with the arithmetic of kindsight.images. A browser's own decoder applies
 * colour profiles, cuts 16 bits to 8 and rounds colours under transparency.
 */

import { flattened, scaleTable } from "./convert.js";
import { exifOrientation, xmpOrientation } from "./orientation.js";

const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by colour type
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2],
  [0, 1, 1, 2]]; // x, y and steps of Adam7
const CHECKED = ["IHDR", "PLTE", "IDAT", "tRNS"];
const MAX_TEXT = 2 ** 20;

let crcTable = null;

/**
 * Return {image, orientation, clipped}: RGB samples over white, the EXIF orientation that is not
 * applied yet, and the fraction of samples of 16 bits outside of `valueRange`.
 */
export async function decodePng(bytes, valueRange, checkSize) {
  const chunks = readChunks(bytes, checkSize);
  const { width, height, depth } = chunks.header;
  const raw = await inflated(chunks.data, rawSize(chunks.header));
  const samples = unfiltered(raw, chunks.header);
  const result = depth === 16 ? fromWide(samples, chunks, valueRange) : fromBytes(samples, chunks);
  const image = { data: result.data, width, height, channels: 3 };
  return { image, orientation: await orientationOf(chunks), clipped: result.clipped };
}

function damaged(detail) {
  return new Error(`The PNG file is damaged: ${detail}.`);
}

function truncated() {
  return new Error("The PNG file ends before the image is complete.");
}

/** Return header, palette, transparency, pixel data and texts of a file; check its structure. */
function readChunks(bytes, checkSize) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = { header: null, palette: null, transparency: null, data: [], exif: null, texts: [] };
  for (let position = 8; ;) {
    if (position + 12 > bytes.length) throw truncated();
    const length = view.getUint32(position);
    const kind = String.fromCharCode(...bytes.subarray(position + 4, position + 8));
    const end = position + 12 + length;
    if (position === 8 && (kind !== "IHDR" || length !== 13)) {
      throw damaged("it does not begin with its header");
    }
    if (end > bytes.length) throw truncated();
    const body = bytes.subarray(position + 8, end - 4);
    if (CHECKED.includes(kind) && crc(bytes, position + 4, end - 4) !== view.getUint32(end - 4)) {
      throw damaged(`the checksum of its ${kind} chunk is wrong`);
    }
    if (kind === "IHDR") found.header = readHeader(view, position + 8, checkSize);
    else if (kind === "PLTE") found.palette = body;
    else if (kind === "tRNS") found.transparency = body;
    else if (kind === "IDAT") found.data.push(body);
    else if (kind === "eXIf") found.exif = body;
    else if (["tEXt", "zTXt", "iTXt"].includes(kind)) found.texts.push([kind, body]);
    else if (kind === "IEND") break;
    position = end;
  }
  if (found.header.colour === 3 && found.palette === null) throw damaged("it has no palette");
  return found;
}

function readHeader(view, at, checkSize) {
  const [width, height] = [view.getUint32(at), view.getUint32(at + 4)];
  const [depth, colour] = [view.getUint8(at + 8), view.getUint8(at + 9)];
  checkSize(height, width);
  if (!DEPTHS[colour]?.includes(depth) || view.getUint8(at + 10) || view.getUint8(at + 11)) {
    throw damaged("its header is invalid");
  }
  const samples = SAMPLES[colour];
  return { width, height, depth, colour, samples, interlaced: view.getUint8(at + 12) === 1 };
}

function crc(bytes, start, end) {
  if (crcTable === null) {
    crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
      for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
      return byte;
    });
  }
  let value = 0xffffffff;
  for (let i = start; i < end; i++) value = crcTable[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

/** Return the passes of an image with pixels: [x, y, x step, y step, width, height]. */
function passes({ width, height, interlaced }) {
  const all = interlaced ? PASSES : [[0, 0, 1, 1]];
  return all.map(([x, y, dx, dy]) => {
    return [x, y, dx, dy, Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)];
  }).filter((pass) => pass[4] > 0 && pass[5] > 0);
}

function rowBytes(header, width) {
  return Math.ceil((width * header.samples * header.depth) / 8);
}

function rawSize(header) {
  return passes(header).reduce((sum, pass) => sum + pass[5] * (1 + rowBytes(header, pass[4])), 0);
}

/** Return the first `size` bytes of a zlib stream in parts. */
async function inflated(parts, size) {
  const result = new Uint8Array(size);
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"))
    .getReader();
  let filled = 0;
  try {
    while (filled < size) {
      const { done, value } = await reader.read();
      if (done) break;
      result.set(value.subarray(0, size - filled), filled);
      filled += value.length;
    }
  } catch {
    throw damaged("it cannot be decoded");
  }
  if (filled < size) throw truncated();
  reader.cancel().catch(() => {});
  return result;
}

/** Return the samples of all pixels in rows, a Uint8Array or Uint16Array. */
function unfiltered(raw, header) {
  const { width, height, depth, samples } = header;
  const result = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * samples);
  const step = Math.max(1, (samples * depth) / 8);
  let position = 0;
  for (const [x, y, dx, dy, wide, high] of passes(header)) {
    const length = rowBytes(header, wide);
    let previous = new Uint8Array(length);
    for (let row = 0; row < high; row++) {
      const line = raw.subarray(position + 1, position + 1 + length);
      undoFilter(raw[position], line, previous, step);
      const to = ((y + row * dy) * width + x) * samples;
      unpack(line, header, wide, result, to, dx * samples);
      previous = line;
      position += 1 + length;
    }
  }
  return result;
}

function undoFilter(kind, line, previous, step) {
  if (kind === 0) return;
  if (kind === 1) {
    for (let i = step; i < line.length; i++) line[i] += line[i - step];
  } else if (kind === 2) {
    for (let i = 0; i < line.length; i++) line[i] += previous[i];
  } else if (kind === 3) {
    for (let i = 0; i < line.length; i++) {
      line[i] += ((i < step ? 0 : line[i - step]) + previous[i]) >> 1;
    }
  } else if (kind === 4) {
    for (let i = 0; i < step; i++) line[i] += previous[i];
    for (let i = step; i < line.length; i++) {
      const [a, b, c] = [line[i - step], previous[i], previous[i - step]];
      const [pa, pb, pc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
      line[i] += pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
    }
  } else {
    throw damaged("it cannot be decoded");
  }
}

/** Write the samples of one row; of less than 8 bits, they stay as they are stored. */
function unpack(line, { depth, samples }, width, result, to, step) {
  const mask = (1 << depth) - 1;
  for (let x = 0, from = 0; x < width; x++, to += step) {
    for (let c = 0; c < samples; c++, from++) {
      if (depth === 8) {
        result[to + c] = line[from];
      } else if (depth === 16) {
        result[to + c] = (line[2 * from] << 8) | line[2 * from + 1];
      } else {
        const bit = from * depth;
        result[to + c] = (line[bit >> 3] >> (8 - depth - (bit & 7))) & mask;
      }
    }
  }
}

/** Return the colour that counts as transparent, as a list of samples; null without one. */
function colourKey({ header, transparency }) {
  const samples = header.colour === 0 ? 1 : header.colour === 2 ? 3 : 0;
  if (transparency === null || samples === 0 || transparency.length < 2 * samples) return null;
  return Array.from({ length: samples }, (_, c) => {
    return (transparency[2 * c] << 8) | transparency[2 * c + 1];
  });
}

function fromBytes(samples, chunks) {
  const { header, palette, transparency } = chunks;
  const pixels = header.width * header.height;
  const data = new Uint8Array(pixels * 3);
  const key = colourKey(chunks);
  const grey = 255 / ((1 << header.depth) - 1);
  for (let i = 0, from = 0, to = 0; i < pixels; i++, from += header.samples, to += 3) {
    let alpha = 255;
    if (header.colour === 3) {
      const index = samples[from];
      for (let c = 0; c < 3; c++) data[to + c] = palette[3 * index + c] ?? 0;
      alpha = transparency?.[index] ?? 255;
    } else if (header.samples >= 3) {
      for (let c = 0; c < 3; c++) data[to + c] = samples[from + c];
      if (header.samples === 4) alpha = samples[from + 3];
    } else {
      data.fill(samples[from] * grey, to, to + 3);
      if (header.samples === 2) alpha = samples[from + 1];
    }
    if (key !== null && key.every((value, c) => value === samples[from + c])) alpha = 0;
    if (alpha < 255) for (let c = to; c < to + 3; c++) data[c] = flattened(data[c], alpha);
  }
  return { data, clipped: 0 };
}

function fromWide(samples, chunks, valueRange) {
  const { header } = chunks;
  const pixels = header.width * header.height;
  const data = new Uint8Array(pixels * 3);
  const key = colourKey(chunks);
  const [low, high] = valueRange ?? [0, 65535];
  const table = scaleTable(low, high);
  const full = scaleTable(0, 65535);
  const colours = header.samples >= 3 ? 3 : 1;
  let outside = 0;
  for (let i = 0, from = 0, to = 0; i < pixels; i++, from += header.samples, to += 3) {
    for (let c = 0; c < colours; c++) {
      const value = samples[from + c];
      if (value < low || value > high) outside++;
      data[to + c] = table[value];
    }
    if (colours === 1) data[to + 1] = data[to + 2] = data[to];
    if (header.samples === 2 || header.samples === 4) {
      const alpha = full[samples[from + header.samples - 1]];
      for (let c = to; c < to + 3; c++) data[c] = flattened(data[c], alpha);
    }
    if (key !== null && key.every((value, c) => value === samples[from + c])) {
      data.fill(255, to, to + 3);
    }
  }
  return { data, clipped: valueRange ? outside / (pixels * colours) : 1 };
}

/** Return the orientation of the EXIF data, or else of the XMP, 1 to 8. */
async function orientationOf({ exif, texts }) {
  const found = exif === null ? 0 : exifOrientation(exif);
  if (found) return found;
  for (const [kind, body] of texts) {
    const name = latin1(body.subarray(0, 80)).split("\0")[0];
    if (name !== "XML:com.adobe.xmp" && name !== "Raw profile type exif") continue;
    const text = latin1(await textOf(kind, body, name.length + 1));
    const value = name.startsWith("XML") ? xmpOrientation(text) : rawProfileOrientation(text);
    if (value) return value;
  }
  return 1;
}

/** Return the bytes of a text chunk after its name. */
async function textOf(kind, body, start) {
  if (kind === "tEXt") return body.subarray(start);
  let at = start;
  let isDeflated = true;
  if (kind === "iTXt") {
    isDeflated = body[start] === 1;
    at = body.indexOf(0, body.indexOf(0, start + 2) + 1); // after language and translated name
  }
  const content = body.subarray(at + 1);
  if (!isDeflated) return content;
  try {
    const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate"));
    const reader = stream.getReader();
    const { value } = await reader.read();
    reader.cancel().catch(() => {});
    return (value ?? content).subarray(0, MAX_TEXT);
  } catch {
    return new Uint8Array(0);
  }
}

/** ImageMagick's profile: a name, a length, and hexadecimal digits with line feeds. */
function rawProfileOrientation(text) {
  const digits = text.split("\n").slice(3).join("");
  const bytes = Uint8Array.from(digits.match(/[0-9a-f]{2}/gi) ?? [], (pair) => parseInt(pair, 16));
  const start = latin1(bytes.subarray(0, 6)) === "Exif\0\0" ? 6 : 0;
  return exifOrientation(bytes.subarray(start));
}

function latin1(bytes) {
  return new TextDecoder("latin1").decode(bytes);
}
