/**
 * Resizing of images to the input size of a network, with the arithmetic of kindsight.images.resize
 * (OpenCV's, for 8-bit channels).
 *
 * An image is {data, width, height, channels}: 8-bit samples by rows, with 3 (RGB) or 4 (RGBA)
 * channels, of which the fourth is ignored. A region is a part of one: {data, start, stride,
 * channels, width, height}, where `start` and `stride` (of a row) count samples.
 */

const PAD_VALUE = 127;

/** Return the RGB samples, Uint8Array (height * width * 3), of an image resized to a spec. */
export function resizeImage(image, spec) {
  let region = {
    data: image.data, start: 0, stride: image.width * image.channels, channels: image.channels,
    width: image.width, height: image.height,
  };
  if (image.height === spec.height && image.width === spec.width) return copied(region).data;
  if (spec.fit === "crop") region = centreCrop(region, spec);
  if (spec.fit !== "pad") return resample(region, spec.height, spec.width, spec.interpolation).data;
  const scale = Math.min(spec.height / image.height, spec.width / image.width);
  const height = Math.min(spec.height, Math.max(1, roundHalfEven(image.height * scale)));
  const width = Math.min(spec.width, Math.max(1, roundHalfEven(image.width * scale)));
  const inner = resample(region, height, width, spec.interpolation);
  const padded = new Uint8Array(spec.height * spec.width * 3).fill(PAD_VALUE);
  const top = Math.floor((spec.height - height) / 2);
  const left = Math.floor((spec.width - width) / 2);
  for (let y = 0; y < height; y++) {
    const row = inner.data.subarray(y * width * 3, (y + 1) * width * 3);
    padded.set(row, ((top + y) * spec.width + left) * 3);
  }
  return padded;
}

/** Return the RGB samples of an image that is shown, in a given size. */
export function thumbnail(image, height, width) {
  return resizeImage(image, { height, width, fit: "stretch", interpolation: "auto" });
}

/** Return a number rounded to an integer, halves to the even one, as Python and OpenCV round. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Return the largest centre crop with the spec's aspect ratio, to the nearest pixel. */
function centreCrop(region, spec) {
  const { width, height } = region;
  const high = Math.min(height, Math.max(1, roundHalfEven((width * spec.height) / spec.width)));
  const wide = Math.min(width, Math.max(1, roundHalfEven((height * spec.width) / spec.height)));
  const top = Math.floor((height - high) / 2);
  const left = Math.floor((width - wide) / 2);
  const start = region.start + top * region.stride + left * region.channels;
  return { ...region, start, width: wide, height: high };
}

function resample(region, height, width, interpolation) {
  let chosen = interpolation;
  if (chosen === "auto") {
    chosen = region.height > 2 * height || region.width > 2 * width ? "area" : "linear";
  }
  if (chosen === "area") {
    const shrunk = area(region, Math.min(height, region.height), Math.min(width, region.width));
    return linear(shrunk, height, width);
  }
  if (chosen === "cubic") return cubic(region, height, width);
  if (chosen === "nearest") return nearest(region, height, width);
  return linear(region, height, width);
}

function isSize(region, height, width) {
  return region.height === height && region.width === width;
}

/** Return an RGB region of its own memory. */
function output(height, width) {
  return {
    data: new Uint8Array(height * width * 3), start: 0, stride: width * 3, channels: 3, width,
    height,
  };
}

function copied(region) {
  const result = output(region.height, region.width);
  for (let y = 0, to = 0; y < region.height; y++) {
    let from = region.start + y * region.stride;
    for (let x = 0; x < region.width; x++, from += region.channels, to += 3) {
      result.data[to] = region.data[from];
      result.data[to + 1] = region.data[from + 1];
      result.data[to + 2] = region.data[from + 2];
    }
  }
  return result;
}

/** OpenCV computes with the inverse of the inverse, which may differ in the last bit. */
function scaleOf(from, to) {
  return 1 / (to / from);
}

/** Return the integer that a scale equals, or 0. */
function wholeScale(scale) {
  const whole = roundHalfEven(scale);
  return Math.abs(scale - whole) < 2.220446049250313e-16 ? whole : 0;
}

/**
 * Return the first of two source pixels of each output pixel, and their weights in 1/2048, the
 * fixed point of OpenCV. Columns outside of the image get the weight of the border; rows do not,
 * which gives the same value up to its rounding.
 */
function linearWeights(from, to, areColumns) {
  const scale = scaleOf(from, to);
  const first = new Int32Array(to);
  const weights = new Int32Array(to * 2);
  for (let i = 0; i < to; i++) {
    const position = Math.fround((i + 0.5) * scale - 0.5);
    let index = Math.floor(position);
    let fraction = Math.fround(position - index);
    if (areColumns && index < 0) [index, fraction] = [0, 0];
    if (areColumns && index >= from - 1) [index, fraction] = [from - 1, 0];
    first[i] = index;
    weights[2 * i] = roundHalfEven(Math.fround(1 - fraction) * 2048);
    weights[2 * i + 1] = roundHalfEven(fraction * 2048);
  }
  return { first, weights };
}

/** Return four weights of cubic interpolation with A = -0.75, in float32. */
function cubicWeights(x) {
  const f = Math.fround;
  const A = -0.75;
  const far = f(x + 1);
  const near = f(1 - x);
  const w0 = f(f(f(f(f(f(A * far) - f(5 * A)) * far) + f(8 * A)) * far) - f(4 * A));
  const w1 = f(f(f(f(f(f((A + 2) * x) - f(A + 3)) * x)) * x) + 1);
  const w2 = f(f(f(f(f(f((A + 2) * near) - f(A + 3)) * near)) * near) + 1);
  return [w0, w1, w2, f(f(f(1 - w0) - w1) - w2)];
}

/** Linear interpolation of 2 x 2 pixels; at exactly half size, OpenCV averages them. */
function linear(region, height, width) {
  if (isSize(region, height, width)) return copied(region);
  const { data, start, stride, channels } = region;
  const scales = [scaleOf(region.width, width), scaleOf(region.height, height)];
  if (scales.every((scale) => wholeScale(scale) === 2)) return area(region, height, width);
  const across = linearWeights(region.width, width, true);
  const down = linearWeights(region.height, height, false);
  const last = region.width - 1;
  const rows = new Map();
  const row = (y) => {
    const clamped = Math.min(region.height - 1, Math.max(0, y));
    let sums = rows.get(clamped);
    if (sums === undefined) {
      sums = new Int32Array(width * 3);
      const base = start + clamped * stride;
      for (let x = 0, to = 0; x < width; x++) {
        const a = base + across.first[x] * channels;
        const b = base + Math.min(last, across.first[x] + 1) * channels;
        const wa = across.weights[2 * x];
        const wb = across.weights[2 * x + 1];
        sums[to++] = data[a] * wa + data[b] * wb;
        sums[to++] = data[a + 1] * wa + data[b + 1] * wb;
        sums[to++] = data[a + 2] * wa + data[b + 2] * wb;
      }
      if (rows.size > 3) rows.delete(rows.keys().next().value);
      rows.set(clamped, sums);
    }
    return sums;
  };
  const result = output(height, width);
  for (let y = 0, to = 0; y < height; y++) {
    const upper = row(down.first[y]);
    const lower = row(down.first[y] + 1);
    const wu = down.weights[2 * y];
    const wl = down.weights[2 * y + 1];
    for (let i = 0; i < upper.length; i++) {
      const sum = ((wu * (upper[i] >> 4)) >> 16) + ((wl * (lower[i] >> 4)) >> 16);
      result.data[to++] = (sum + 2) >> 2;
    }
  }
  return result;
}

/** Return the position of each output pixel's four taps, and their weights in float32. */
function cubicTaps(from, to, step) {
  const scale = scaleOf(from, to);
  const offsets = new Int32Array(to * 4);
  const weights = new Float32Array(to * 4);
  for (let i = 0; i < to; i++) {
    const position = Math.fround((i + 0.5) * scale - 0.5);
    const index = Math.floor(position);
    weights.set(cubicWeights(Math.fround(position - index)), 4 * i);
    for (let k = 0; k < 4; k++) {
      offsets[4 * i + k] = Math.min(from - 1, Math.max(0, index - 1 + k)) * step;
    }
  }
  return { offsets, weights };
}

/** Cubic interpolation of 4 x 4 pixels. */
function cubic(region, height, width) {
  if (isSize(region, height, width)) return copied(region);
  const { data, start, stride, channels } = region;
  const across = cubicTaps(region.width, width, channels);
  const down = cubicTaps(region.height, height, stride);
  const rows = new Map();
  const row = (offset) => {
    let sums = rows.get(offset);
    if (sums === undefined) {
      sums = new Float32Array(width * 3);
      for (let x = 0, to = 0; x < width; x++) {
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let k = 4 * x; k < 4 * x + 4; k++) {
            sum += data[start + offset + across.offsets[k] + c] * across.weights[k];
          }
          sums[to++] = sum;
        }
      }
      if (rows.size > 5) rows.delete(rows.keys().next().value);
      rows.set(offset, sums);
    }
    return sums;
  };
  const result = output(height, width);
  for (let y = 0, to = 0; y < height; y++) {
    const four = [0, 1, 2, 3].map((k) => row(down.offsets[4 * y + k]));
    const [w0, w1, w2, w3] = down.weights.subarray(4 * y, 4 * y + 4);
    for (let i = 0; i < width * 3; i++) {
      const sum = four[0][i] * w0 + four[1][i] * w1 + four[2][i] * w2 + four[3][i] * w3;
      result.data[to++] = Math.min(255, Math.max(0, roundHalfEven(sum)));
    }
  }
  return result;
}

/** The pixel under each output pixel's centre; on the border of two, OpenCV may take the other. */
function nearest(region, height, width) {
  if (isSize(region, height, width)) return copied(region);
  const { data, start, stride, channels } = region;
  const index = (i, from, to) => Math.floor(((2 * i + 1) * from) / (2 * to));
  const result = output(height, width);
  for (let y = 0, to = 0; y < height; y++) {
    const base = start + index(y, region.height, height) * stride;
    for (let x = 0; x < width; x++) {
      const from = base + index(x, region.width, width) * channels;
      result.data[to++] = data[from];
      result.data[to++] = data[from + 1];
      result.data[to++] = data[from + 2];
    }
  }
  return result;
}

/** The average of all covered pixels; no side may grow. */
function area(region, height, width) {
  if (isSize(region, height, width)) return copied(region);
  const wide = wholeScale(scaleOf(region.width, width));
  const high = wholeScale(scaleOf(region.height, height));
  return wide && high ? blocks(region, height, width, high, wide)
    : weightedArea(region, height, width);
}

/** The average of blocks of whole pixels. */
function blocks(region, height, width, high, wide) {
  const { data, start, stride, channels } = region;
  const result = output(height, width);
  const isQuarter = wide === 2 && high === 2;
  const share = Math.fround(1 / (wide * high));
  const sums = new Int32Array(width * 3);
  for (let y = 0, to = 0; y < height; y++) {
    sums.fill(0);
    for (let dy = 0; dy < high; dy++) {
      let from = start + (y * high + dy) * stride;
      for (let x = 0, i = 0; x < width; x++, i += 3) {
        for (let dx = 0; dx < wide; dx++, from += channels) {
          sums[i] += data[from];
          sums[i + 1] += data[from + 1];
          sums[i + 2] += data[from + 2];
        }
      }
    }
    for (let i = 0; i < sums.length; i++) {
      result.data[to++] = isQuarter ? (sums[i] + 2) >> 2
        : roundHalfEven(Math.fround(Math.fround(sums[i]) * share));
    }
  }
  return result;
}

/** Return the source pixels of each output pixel with their weights, float32. */
function areaTable(from, to) {
  const scale = scaleOf(from, to);
  const table = [];
  for (let i = 0; i < to; i++) {
    const begin = i * scale;
    const end = begin + scale;
    const cell = Math.min(scale, from - begin);
    const last = Math.min(Math.floor(end), from - 1);
    const first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) {
      table.push([i, first - 1, Math.fround((first - begin) / cell)]);
    }
    for (let pixel = first; pixel < last; pixel++) table.push([i, pixel, Math.fround(1 / cell)]);
    if (end - last > 1e-3) {
      table.push([i, last, Math.fround(Math.min(Math.min(end - last, 1), cell) / cell)]);
    }
  }
  return table;
}

/** The average of pixels weighted by the covered area, in float32. */
function weightedArea(region, height, width) {
  const { data, start, stride, channels } = region;
  const columns = areaTable(region.width, width);
  const targets = Int32Array.from(columns, ([i]) => 3 * i);
  const sources = Int32Array.from(columns, ([, pixel]) => pixel * channels);
  const weights = Float32Array.from(columns, ([, , weight]) => weight);
  const result = output(height, width);
  const line = new Float32Array(width * 3);
  const sums = new Float32Array(width * 3);
  const flush = (y) => {
    for (let i = 0; i < sums.length; i++) result.data[y * width * 3 + i] = roundHalfEven(sums[i]);
    sums.fill(0);
  };
  let current = 0;
  let summed = -1;
  for (const [y, pixel, weight] of areaTable(region.height, height)) {
    if (y !== current) flush(current);
    current = y;
    if (pixel !== summed) {
      line.fill(0);
      const base = start + pixel * stride;
      for (let k = 0; k < weights.length; k++) {
        const to = targets[k];
        const from = base + sources[k];
        line[to] += Math.fround(data[from] * weights[k]);
        line[to + 1] += Math.fround(data[from + 1] * weights[k]);
        line[to + 2] += Math.fround(data[from + 2] * weights[k]);
      }
      summed = pixel;
    }
    for (let i = 0; i < sums.length; i++) sums[i] += Math.fround(line[i] * weight);
  }
  flush(current);
  return result;
}
