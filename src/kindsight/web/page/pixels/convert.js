/** Samples of other kinds to 8-bit RGB, with the arithmetic of kindsight.images.convert. */

/** Return a colour, 0-255, over white by its alpha, 0-255. */
export function flattened(colour, alpha) {
  return Math.floor((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

/** Return the 8-bit value of each 16-bit one: `low` becomes 0, `high` 255, others are clipped. */
export function scaleTable(low, high) {
  return Uint8Array.from({ length: 65536 }, (_, value) => {
    const share = (Math.min(high, Math.max(low, value)) - low) / (high - low);
    return Math.floor(share * 255 + 0.5);
  });
}
