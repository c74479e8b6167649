"""PBM, PGM and PPM files, plain and binary, up to 16 bits.

Pillow decodes the rarer of these variants one sample at a time, which takes minutes for a large
image.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ImageError
from kindsight.images.convert import ValueScale, scale_values
from kindsight.images.formats import check_size, corrupt, truncated

__all__ = ["read_netpbm", "read_netpbm_header"]

MAX_HEADER = 65_536
"""Limit of bytes of the header, including comments."""

_SPACE = re.compile(rb"[ \t\n\v\f\r]*")
_NUMBER = re.compile(rb"([0-9]{1,9})(?![0-9])")
_TOO_LONG = re.compile(rb"[0-9]{10}")  # might not fit 32 bits
_COMMENT = re.compile(rb"#[^\n\r]*")
_BLANKS = b" \t\n\v\f\r"
_BAND = 1 << 20


def read_netpbm(data: bytes, max_pixels: int, scale: ValueScale | None = None) -> NDArray[np.uint8]:
    """Return the first image of a PBM, PGM or PPM file: uint8 (height, width, 3), RGB.

    Samples become ``round(value * 255 / maxval)``; 16-bit ones are thus divided by 257. Those of
    more than 8 bits are recorded in `scale`, and scaled by its range if it has one. Raises
    ImageError: ``truncated``, ``corrupt`` or ``too-large``.
    """
    kind = data[1] - ord("0")
    numbers, position = read_netpbm_header(data)
    width, height = numbers[:2]
    maxval = 1 if kind in (1, 4) else numbers[2]
    check_size(height, width, max_pixels)
    if not 1 <= maxval <= 65535:
        raise corrupt("PPM", f"its largest value is {maxval}, not 1 to 65535")
    channels = 3 if kind in (3, 6) else 1
    if kind == 4:
        samples = _packed_bits(data, position, height, width)
    elif kind == 1:
        samples = _plain_bits(data, position, height * width)
    elif kind in (2, 3):
        samples = _plain_numbers(data, position, height * width * channels)
    else:
        samples = _binary(data, position, height * width * channels, maxval)
    return _scaled(samples.reshape(height, width, channels), maxval, scale or ValueScale())


def read_netpbm_header(data: bytes) -> tuple[list[int], int]:
    """Return the header (width, height and, except in a bitmap, maxval) and the offset after it."""
    count = 2 if data[1:2] in b"14" else 3
    head = data[:MAX_HEADER]
    position, numbers = 2, []
    for _ in range(count):
        position = _skip_comments(head, position)
        found = _NUMBER.match(head, position)
        if found is None:
            if len(data) <= MAX_HEADER and not head[position:].strip(_BLANKS):
                raise truncated("PPM")
            raise corrupt("PPM", "its header has something other than numbers")
        numbers.append(int(found.group(1)))
        position = found.end()
    return numbers, position + 1


def _skip_comments(head: bytes, position: int) -> int:
    """Return the offset of the first byte that is neither white space nor part of a comment."""
    while True:
        found = _SPACE.match(head, position)
        position = found.end() if found else position
        comment = _COMMENT.match(head, position)
        if comment is None:
            return position
        position = comment.end()


def _binary(data: bytes, position: int, count: int, maxval: int) -> NDArray[np.integer]:
    kind = np.dtype(np.uint8 if maxval < 256 else ">u2")
    if len(data) - position < count * kind.itemsize:
        raise truncated("PPM")
    return np.frombuffer(data, kind, count, position)


def _packed_bits(data: bytes, position: int, height: int, width: int) -> NDArray[np.integer]:
    stride = (width + 7) // 8
    rows = _binary(data, position, height * stride, 255).reshape(height, stride)
    # In a bitmap 1 is black.
    return 1 - np.unpackbits(rows.astype(np.uint8), axis=1, count=width)


def _plain_bits(data: bytes, position: int, count: int) -> NDArray[np.integer]:
    text = np.frombuffer(_plain_text(data, position, b"01"), np.uint8)
    digits = text[text >= ord("0")][:count]
    if digits.size < count:
        raise truncated("PPM")
    return ord("1") - digits


def _plain_numbers(data: bytes, position: int, count: int) -> NDArray[np.integer]:
    text = _plain_text(data, position, b"0123456789")
    if _TOO_LONG.search(text):
        raise corrupt("PPM", "it has a number above 65535")
    # Without a count, for which NumPy would invent missing numbers.
    numbers = np.fromstring(text, np.int32, sep=" ")[:count]
    if numbers.size < count:
        raise truncated("PPM")
    return numbers


def _plain_text(data: bytes, position: int, digits: bytes) -> bytes:
    text = data[position:]
    if b"#" in text:
        text = _COMMENT.sub(b"", text)
    if text.translate(None, digits + _BLANKS):
        raise corrupt("PPM", "its values include something other than numbers")
    return text


def _scaled(samples: NDArray[np.integer], maxval: int, scale: ValueScale) -> NDArray[np.uint8]:
    """Scale to 0-255 and repeat grey in three channels, a band of rows at a time."""
    height, width, channels = samples.shape
    table = ((np.arange(maxval + 1) * 255 + maxval // 2) // maxval).astype(np.uint8)
    scale.stated = maxval > 255
    if scale.stated and scale.value_range is not None:
        table = scale_values(np.arange(maxval + 1), *scale.value_range)
    image = np.empty((height, width, 3), np.uint8)
    step = max(1, _BAND // (width * channels))
    for top in range(0, height, step):
        band = samples[top : top + step]
        if band.max() > maxval or band.min() < 0:
            raise ImageError("corrupt", "The PPM file has values above the maximum in its header.")
        if scale.stated:
            scale.record(band)
        image[top : top + step] = table[band]
    return image
