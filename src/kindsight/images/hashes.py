"""Perceptual hashes of images: nearly equal for copies, however they were stored.

An image is reduced to 32 x 32 grey pixels, and the hash holds the signs of the lowest 16 x 16
coefficients of its discrete cosine transform (after Zauner 2010, "Implementation and benchmarking
of perceptual image hash functions", who compares 8 x 8 coefficients with their median). Signs have
an advantage over the median: mirroring an image changes the signs of its odd coefficients, and
transposing it exchanges rows with columns, so that the hashes of all eight orientations of an image
follow from one of them.
"""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GRID", "ORIENTATIONS", "hamming", "image_hash", "oriented_hashes", "perceptual_hash",
    "perceptual_hashes", "popcount", "small_grey",
]  # fmt: skip

GRID = 32
"""Height and width of the grey image that is transformed."""

SIDE = 16
"""Rows and columns of coefficients in the hash."""

BLOCK = 1 << 14
"""Hashes transposed at once, at 600 bytes each."""

# Coefficients below this fraction of the image's contrast can change when it is stored anew: they
# count as not positive, so that a symmetric image has a stable hash.
NOISE = 0.02

# Rounding errors in the transform of an image of one colour.
ROUNDING = 0.01

ORIENTATIONS = tuple(
    (transposed, mirrored, upended)
    for transposed in (False, True)
    for mirrored in (False, True)
    for upended in (False, True)
)
"""The eight orientations of an image: transposed, then mirrored left to right, then top to bottom.
The first changes nothing."""


def small_grey(grey: NDArray[Any], side: int = GRID) -> NDArray[Any]:
    """Shrink a grey image (height, width) to (side, side) by averaging; same dtype.

    Floats give exact means, which matters at low contrast.
    """
    return np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA))


def perceptual_hash(small: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the hash of a grey image (32, 32): uint64 (4,), 256 bits.

    The first number has the lowest 8 x 8 coefficients; the bit of the lowest, the brightness, is 0.
    """
    hashed: NDArray[np.uint64] = perceptual_hashes(small[None])[0]
    return hashed


def perceptual_hashes(small: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the hashes of grey images, (n, 32, 32): uint64 (n, 4)."""
    basis = _basis()
    wide = small.astype(np.float32)
    coefficients = basis @ wide @ basis.T
    deviation = wide.reshape(len(wide), -1).std(axis=1)
    bits = coefficients > np.maximum(NOISE * deviation, ROUNDING)[:, None, None]
    bits[:, 0, 0] = False
    return _pack(bits)


def oriented_hashes(
    hashes: NDArray[np.uint64], orientation: tuple[bool, bool, bool]
) -> NDArray[np.uint64]:
    """Return the hashes, uint64 (n, 4), of the same images in one of ORIENTATIONS.

    They are exact except for the bits of coefficients near 0.
    """
    transposed, mirrored, upended = orientation
    if transposed:
        blocks = [
            _pack(_unpack(hashes[at : at + BLOCK]).transpose(0, 2, 1))
            for at in range(0, max(1, len(hashes)), BLOCK)
        ]
        hashes = np.concatenate(blocks)
    odd = np.arange(SIDE) % 2 == 1
    changed = (odd[None, :] & mirrored) ^ (odd[:, None] & upended)
    oriented: NDArray[np.uint64] = hashes ^ _pack(changed[None])
    return oriented


def hamming(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the number of bits in which hashes differ, along the last axis."""
    counts: NDArray[np.int64] = popcount(first ^ second).sum(axis=-1, dtype=np.int64)
    return counts


def popcount(values: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint8]:
    """Return the number of bits set in each of some unsigned integers, uint8 of their shape."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counted: NDArray[np.uint8] = np.bitwise_count(values)
        return counted
    size = values.dtype.itemsize
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, size)
    bits: NDArray[np.uint8] = _BITS_OF_BYTE[octets].sum(axis=-1, dtype=np.uint8)
    return bits


_BITS_OF_BYTE = np.array([bin(value).count("1") for value in range(256)], np.uint8)


@functools.cache
def _basis() -> NDArray[np.float32]:
    """Return the first rows of the orthonormal cosine transform (DCT-II): (16, 32)."""
    row, column = np.arange(SIDE)[:, None], np.arange(GRID)[None, :]
    basis = np.cos(np.pi * row * (2 * column + 1) / (2 * GRID)) * np.sqrt(2 / GRID)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


@functools.cache
def _order() -> NDArray[np.int64]:
    """Return the coefficient of each bit: the lowest 8 x 8 first."""
    row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
    order: NDArray[np.int64] = np.argsort((row >= 8) | (column >= 8), kind="stable")
    return order


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    flat = bits.reshape(len(bits), SIDE * SIDE)[:, _order()]
    packed = np.packbits(flat, axis=1, bitorder="little")
    numbers: NDArray[np.uint64] = np.ascontiguousarray(packed).view("<u8").astype(np.uint64)
    return numbers


def _unpack(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    little = np.ascontiguousarray(hashes).astype("<u8").view(np.uint8)
    flat = np.unpackbits(little.reshape(len(hashes), 32), axis=1, bitorder="little")
    bits = np.empty((len(hashes), SIDE * SIDE), np.bool_)
    bits[:, _order()] = flat.astype(np.bool_)
    return bits.reshape(-1, SIDE, SIDE)


def image_hash(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the perceptual hash of a resized image, uint8 (h, w, 3), RGB: uint64 (4,)."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # In two steps, as training computes it from its stored 64x64 images: bit-identical.
    return perceptual_hash(small_grey(small_grey(grey, 64)))
