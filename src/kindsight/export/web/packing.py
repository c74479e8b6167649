"""Smaller files for a page: weights with fewer bits, in an order that compresses, as text.

``packing.js`` of the page restores the file.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from kindsight.models.runtime import schema

__all__ = ["PRECISIONS", "as_text", "gzip_sections", "pack_model", "round_weights"]

PRECISIONS = (14, 15, 16, 18, 20)
"""Precisions that an export tries; see :func:`round_weights`. For EfficientNet-Lite0, each step
changes its errors by a factor of two, and the page by 0.6 of 12 MB."""

SMALL = 1024
"""Constants with fewer numbers are not rounded."""

BLOCK = 128
"""Consecutive weights that are rounded to multiples of the same power of two."""

LIMIT_BITS = 23
"""Multiples are below 2 to this power: float32 can represent all of them."""

FIRST, BITS = 0x5000, 15
"""The first code point of a text, and the number of bits per character.

All code points are letters of East Asian scripts, which no program normalises, escapes or cuts."""

_CHUNK = BITS << 16


def round_weights(content: bytes, precision: int) -> bytes:
    """Return a LiteRT file whose large float32 constants are rounded to fewer bits.

    Weights are rounded to multiples of a power of two, one for each block of 128.

    Parameters
    ----------
    content : bytes
        A file of :func:`.tflite.compact`.
    precision : int
        In a constant of 1,024 weights, the root mean square of a block is about 2 to this power,
        in units of the rounding. A constant with four times as many weights gets one bit less, so
        that each constant of a network changes its outputs by about the same amount.
    """
    data = np.frombuffer(content, np.uint8).copy()
    for start, size in _constants(content):
        values = data[4 * start : 4 * (start + size)].view("<f4")
        multiples, exponents = _round(values, precision)
        values[:] = np.ldexp(multiples, np.repeat(exponents, BLOCK)[:size].astype(np.int32))
    return data.tobytes()


def pack_model(content: bytes, precision: int) -> bytes:
    """Return a LiteRT file after :func:`round_weights`, packed to about 40% of its size.

    After decompression it has the number of header fields, the header (bytes of the file, weights,
    blocks, and the start and count of each constant, in numbers), an exponent for each block, the
    file without these constants, and the high, middle and low bytes of the multiples plus 2^23.
    """
    data = np.frombuffer(content + bytes(-len(content) % 4), np.uint8)
    floats, is_packed = data.view("<f4"), np.zeros(len(data) // 4, bool)
    constants = _constants(content)
    multiples, exponents = [np.zeros(0, np.int32)], [np.zeros(0, np.int8)]
    for start, size in constants:
        found = _round(floats[start : start + size], precision)
        multiples.append(found[0])
        exponents.append(found[1])
        is_packed[start : start + size] = True
    whole = np.concatenate(multiples) + (1 << LIMIT_BITS)
    planes = whole.astype("<u4").view(np.uint8).reshape(-1, 4).T
    powers = np.concatenate(exponents)
    header = [len(data), len(whole), len(powers), *(each for pair in constants for each in pair)]
    return gzip_sections(
        np.array([len(header), *header], "<u4").tobytes(),
        powers.tobytes(),
        data.reshape(-1, 4)[~is_packed].tobytes(),
        *(planes[row].tobytes() for row in (2, 1, 0)),
    )


def as_text(content: bytes) -> str:
    """Return bytes as text with 15 bits in each character."""
    data = np.frombuffer(content, np.uint8)
    parts = []
    for start in range(0, len(data), _CHUNK):
        bits = np.unpackbits(data[start : start + _CHUNK])
        rows = np.zeros((-(-len(bits) // BITS), BITS + 1), np.uint8)
        bits = np.concatenate([bits, np.zeros(-len(bits) % BITS, np.uint8)])
        rows[:, 1:] = bits.reshape(-1, BITS)
        codes = np.packbits(rows).view(">u2") + np.uint16(FIRST)
        parts.append(codes.astype("<u2").tobytes())
    return b"".join(parts).decode("utf-16-le")


def gzip_sections(*sections: bytes) -> bytes:
    """Return sections as one gzip file, each compressed by the better of two strategies.

    Repetitions in rounded weights are random: references to them take more bits than coding each
    byte alone (Huffman). The same bytes always give the same result.
    """
    packed = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]  # no name, no time, unknown system
    for number, section in enumerate(sections, 1):
        is_last = number == len(sections)
        found = (_deflate(section, strategy, is_last) for strategy in _STRATEGIES)
        packed.append(min(found, key=len))
    whole = b"".join(sections)
    packed.append(struct.pack("<II", zlib.crc32(whole), len(whole) & 0xFFFFFFFF))
    return b"".join(packed)


_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)


def _deflate(content: bytes, strategy: int, is_last: bool) -> bytes:
    """Return blocks of a deflate stream, without references to earlier data, in whole bytes."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    return deflate.compress(content) + deflate.flush(
        zlib.Z_FINISH if is_last else zlib.Z_FULL_FLUSH
    )


def _constants(content: bytes) -> list[tuple[int, int]]:
    """Return the first number and the count of each large, finite float32 constant, in order."""
    model = schema().Model.GetRootAs(content, 0)
    found: dict[int, int] = {}
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for tensor in (graph.Tensors(place) for place in range(graph.TensorsLength())):
            buffer = model.Buffers(tensor.Buffer())
            if tensor.Type() != schema().TensorType.FLOAT32 or buffer.DataLength() < 4 * SMALL:
                continue
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            if start % 4 == 0 and np.isfinite(buffer.DataAsNumpy().view("<f4")).all():
                found[start // 4] = buffer.DataLength() // 4
    return sorted(found.items())


def _round(
    values: NDArray[np.float32], precision: int
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Return the nearest multiples of powers of two, int32 (n,), and each block's exponent."""
    bits = round(precision - np.log2(len(values) / SMALL) / 2)
    padded = np.zeros(-(-len(values) // BLOCK) * BLOCK)
    padded[: len(values)] = values
    blocks = padded.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(1)
    scale = np.sqrt(np.square(blocks).mean(1))
    with np.errstate(divide="ignore"):
        wanted = np.round(np.log2(scale)) - bits
        needed = np.ceil(np.log2(largest)) + 1 - LIMIT_BITS
    powers = np.clip(np.maximum(wanted, needed), -127, 127).astype(np.int8)
    multiples = np.rint(np.ldexp(blocks, -powers.astype(np.int32)[:, None]))
    return multiples.reshape(-1)[: len(values)].astype(np.int32), powers
