"""TensorFlow operations from image files to a network's pixels, for a serving signature.

Imported by the process of the converters alone.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kindsight.images import InputSpec
from kindsight.images.resize import PAD_VALUE

__all__ = ["decode", "resize", "serves"]

EXIF_BYTES = 1 << 16
"""The first bytes of a JPEG file in which its EXIF data are searched."""

MAX_ENTRIES = 64
"""Most EXIF entries that are read."""

ORIENTATION = 0x0112


def serves(spec: InputSpec) -> bool:
    """Return whether these operations resize as `spec` says; cubic and nearest are not written."""
    return spec.interpolation in ("auto", "area", "linear")


def decode(content: Any, target: tuple[int, int]) -> Any:
    """Return the image of a JPEG, PNG, GIF or BMP file: uint8 (height, width, 3), upright.

    As kindsight does, large JPEG files are decoded at a half, a quarter or an eighth of their size,
    if that is not below `target`, and transparent pixels are blended with white.
    """

    def jpeg() -> Any:
        shape, orientation = tf.io.extract_jpeg_shape(content), _orientation(content)
        stored = tf.where(orientation >= 5, tf.constant(target[::-1]), tf.constant(target))
        ratio = tf.reduce_min(shape[:2] // stored)

        def at(factor: int) -> Any:
            pixels = tf.io.decode_jpeg(
                content, channels=3, ratio=factor, dct_method="INTEGER_ACCURATE"
            )
            used = (shape[:2] + factor // 2) // factor
            return pixels[: used[0], : used[1]]

        cases = [(ratio >= factor, lambda f=factor: at(f)) for factor in (8, 4, 2)]
        pixels = tf.case(cases, default=lambda: at(1))
        return _upright(pixels, orientation)

    def other() -> Any:
        pixels = tf.io.decode_image(content, channels=4, expand_animations=False)
        alpha = tf.cast(pixels[..., 3:], tf.int32)
        colours = tf.cast(pixels[..., :3], tf.int32)
        blended = (colours * alpha + 255 * (255 - alpha) + 127) // 255
        return tf.cast(blended, tf.uint8)

    image = tf.cond(tf.io.is_jpeg(content), jpeg, other)
    return tf.ensure_shape(image, (None, None, 3))


def _orientation(content: Any) -> Any:
    """Return the EXIF orientation of a JPEG file, 1 to 8; 1 without one."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, EXIF_BYTES), tf.uint8), tf.int32)
    # Zeros behind the end, so that every offset of a damaged file can be read.
    head = tf.concat([head, tf.zeros([16 + 12 * MAX_ENTRIES], tf.int32)], 0)
    size = tf.size(head)
    starts = tf.ones([size - 5], tf.bool)
    for offset, byte in enumerate(b"Exif\0\0"):
        starts &= head[offset : size - 5 + offset] == byte
    found = tf.reshape(tf.where(starts), [-1])
    exists = tf.size(found) > 0
    base = tf.where(exists, tf.cast(tf.reduce_min(found), tf.int32) + 6, 0)
    big = tf.gather(head, base) == ord("M")

    def number(position: Any, width: int) -> Any:
        safe = tf.clip_by_value(position, 0, size - width)
        parts = [tf.gather(head, safe + k) for k in range(width)]
        forward = sum(part * 256 ** (width - 1 - k) for k, part in enumerate(parts))
        backward = sum(part * 256**k for k, part in enumerate(parts))
        return tf.where(big, forward, backward)

    table = base + number(base + 4, 4)
    entries = table + 2 + 12 * tf.range(MAX_ENTRIES)
    valid = (tf.range(MAX_ENTRIES) < number(table, 2)) & (number(entries, 2) == ORIENTATION)
    value = tf.reduce_max(tf.where(valid, number(entries + 8, 2), 0))
    return tf.where(exists & (value >= 1) & (value <= 8), value, 1)


def _upright(image: Any, orientation: Any) -> Any:
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    for axis, values in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        turned = tf.reduce_any(orientation == tf.constant(values))
        mirrored = image
        image = tf.cond(turned, lambda m=mirrored, a=axis: tf.reverse(m, [a]), lambda m=mirrored: m)
    return image


def resize(image: Any, spec: InputSpec) -> Any:
    """Return an image resized as :func:`kindsight.resize_image`: float32 (height, width, 3)."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    if spec.fit == "crop":
        inner_height = _side(height, _scaled(width, spec.height, spec.width))
        inner_width = _side(width, _scaled(height, spec.width, spec.height))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        image = image[top : top + inner_height, left : left + inner_width]
    if spec.fit != "pad":
        return tf.ensure_shape(_resample(image, spec.height, spec.width, spec), (*spec.size, 3))
    scale = tf.minimum(spec.height / height, spec.width / width)
    rows = _side(spec.height, tf.round(tf.cast(height, tf.float64) * scale))
    columns = _side(spec.width, tf.round(tf.cast(width, tf.float64) * scale))
    top, left = (spec.height - rows) // 2, (spec.width - columns) // 2
    inner = _resample(image, rows, columns, spec)
    paddings = [[top, spec.height - rows - top], [left, spec.width - columns - left], [0, 0]]
    padded = tf.pad(inner, paddings, constant_values=float(PAD_VALUE))
    return tf.ensure_shape(padded, (*spec.size, 3))


def _scaled(side: Any, numerator: int, denominator: int) -> Any:
    """Return side * numerator / denominator, rounded half to even as Python does."""
    product = tf.cast(side, tf.float64) * float(numerator) / float(denominator)
    return tf.round(product)


def _side(limit: Any, value: Any) -> Any:
    return tf.minimum(limit, tf.maximum(1, tf.cast(value, tf.int32)))


def _resample(image: Any, height: Any, width: Any, spec: InputSpec) -> Any:
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]

    def area() -> Any:
        shrunk = tf.stack([tf.minimum(height, rows), tf.minimum(width, columns)])
        pixels = tf.cast(image, tf.float32)[None]
        averaged = tf.raw_ops.ResizeArea(images=pixels, size=shrunk, align_corners=False)
        # Of 2 x 2 pixels, OpenCV rounds halves up, of others to the even number.
        half = (rows == 2 * shrunk[0]) & (columns == 2 * shrunk[1])
        rounded = tf.where(half, tf.floor(averaged[0] + 0.5), tf.round(averaged[0]))
        return _linear(rounded, height, width)

    def linear() -> Any:
        # At exactly half the size, it averages 2 x 2 pixels here, too.
        half = (rows == 2 * height) & (columns == 2 * width)
        return tf.cond(half, area, lambda: _linear(image, height, width))

    if spec.interpolation == "area":
        return area()
    if spec.interpolation == "linear":
        return linear()
    return tf.cond((rows > 2 * height) | (columns > 2 * width), area, linear)


def _linear(image: Any, height: Any, width: Any) -> Any:
    """Return OpenCV's linear interpolation of 8-bit pixels, in its fixed point: float32."""
    pixels = tf.cast(image, tf.int32)
    top, bottom, upper, lower = _taps(tf.shape(image)[0], height)
    left, right, first, second = _taps(tf.shape(image)[1], width)

    def across(rows: Any) -> Any:
        chosen = tf.gather(pixels, rows)
        one = tf.gather(chosen, left, axis=1) * first[:, None]
        return one + tf.gather(chosen, right, axis=1) * second[:, None]

    shift = tf.bitwise.right_shift
    above = shift(upper[:, None, None] * shift(across(top), 4), 16)
    below = shift(lower[:, None, None] * shift(across(bottom), 4), 16)
    return tf.cast(shift(above + below + 2, 2), tf.float32)


def _taps(source: Any, target: Any) -> tuple[Any, Any, Any, Any]:
    """Return the two pixels of each output pixel, and their weights in 1/2048: int32."""
    scale = 1.0 / (tf.cast(target, tf.float64) / tf.cast(source, tf.float64))
    centres = (tf.cast(tf.range(target), tf.float64) + 0.5) * scale - 0.5
    position = tf.cast(centres, tf.float32)
    index = tf.floor(position)
    fraction = position - index
    # Outside of the image both pixels are that of the border: the weights do not matter.
    first = tf.cast(index, tf.int32)
    one, other = tf.round((1 - fraction) * 2048), tf.round(fraction * 2048)
    last = source - 1
    return (
        tf.clip_by_value(first, 0, last),
        tf.clip_by_value(first + 1, 0, last),
        tf.cast(one, tf.int32),
        tf.cast(other, tf.int32),
    )
