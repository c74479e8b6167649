"""Arrays of numbers from files as images: which shapes and which scales are meant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import DatasetError

__all__ = [
    "MAX_PIXEL_BYTES",
    "SCALED",
    "as_images",
    "as_pixels",
    "shape_of_row",
    "with_shape",
]

_Number = TypeVar("_Number", bound=np.generic)

MAX_PIXEL_BYTES = 4 * 2**30
"""The most bytes of images that are taken into memory: 4 GiB."""

SCALED = "The pixels in {where} are fractions from 0 to 1, and were multiplied by 255."
"""The note where that was done."""

_BLOCK = 1 << 22  # numbers looked at in one go: bounds what is needed beside the images
_RULE = "Pixels are whole numbers from 0 to 255, or all of them fractions from 0 to 1."


def shape_of_row(n: int, shape: tuple[int, ...] | None, where: str) -> tuple[int, ...]:
    """Say which shape an image has that is given as `n` numbers.

    Parameters
    ----------
    n : int
        How many numbers.
    shape : tuple of int, optional
        (height, width), (height, width, channels) or (3, height, width), if that is known.
    where : str
        What is read, for the message.

    Returns
    -------
    tuple of int
        `shape`; where it is not known (s, s) if n is a square, (s, s, 3) if n / 3 is.

    Raises
    ------
    DatasetError
        If `n` numbers do not have that shape, or are no square.
    """
    if shape is not None:
        if math.prod(shape) != n:
            raise DatasetError(
                f"A pixel shape must hold all pixels of an image. Received: "
                f"{'x'.join(map(str, shape))}, which is {math.prod(shape):,}; {where} has {n:,}."
            )
        return shape
    side = math.isqrt(n)
    if side * side == n:
        return side, side
    side = math.isqrt(n // 3)
    if side * side * 3 == n:
        return side, side, 3
    raise DatasetError(
        f"Rows of pixels are taken for square images, grey or RGB. Received: {n:,} pixels in "
        f"{where}. Say their shape: --pixel-shape HEIGHTxWIDTH, in Python pixel_shape."
    )


def as_images(
    array: NDArray[Any], shape: tuple[int, ...] | None, where: str
) -> tuple[NDArray[Any], str | None]:
    """Give an array of images its usual shape, without copying it.

    Parameters
    ----------
    array : array
        (n, height, width), (n, height, width, 1), (n, height, width, 3), the same with the
        channels before the height, or (n, pixels).
    shape : tuple of int, optional
        Of a row of pixels.
    where : str
        What is read, for messages.

    Returns
    -------
    array
        (n, height, width), (n, height, width, 1) or (n, height, width, 3).
    str or None
        What was changed, where that is worth saying.

    Raises
    ------
    DatasetError
        For any other shape.
    """
    if array.ndim == 2:
        return with_shape(array, shape_of_row(array.shape[1], shape, where)), None
    last = array.shape[-1] if array.ndim == 4 else None
    if array.ndim == 4 and array.shape[1] in (1, 3) and last not in (1, 3):
        moved = np.moveaxis(array, 1, -1)
        return moved, f"The channels come first in {where}, and were moved to the end."
    if array.ndim == 3 and array.shape[2] in (3, 4):
        raise DatasetError(
            f"{where} must hold several images. Received: shape {array.shape}, which is one. "
            "Save it as x[None]."
        )
    if array.ndim not in (3, 4) or last not in (None, 1, 3) or 0 in array.shape[1:]:
        raise DatasetError(
            f"{where} must hold images of shape (images, height, width), with 1 or 3 channels "
            f"at the end, or rows of pixels. Received: shape {array.shape}."
        )
    return array, None


def with_shape(rows: NDArray[_Number], shape: tuple[int, ...]) -> NDArray[_Number]:
    """Give rows of pixels the shape of images, the channels coming last; nothing is copied."""
    images = rows.reshape(len(rows), *shape)
    planes = len(shape) == 3 and shape[2] not in (1, 3)
    return np.moveaxis(images, 1, -1) if planes else images


def as_pixels(
    arrays: Sequence[NDArray[Any]], names: Sequence[str]
) -> tuple[list[NDArray[np.uint8]], bool]:
    """Bring numbers to uint8, 0-255; the scale is that of all arrays of a file together.

    Truth values become 0 and 255. Numbers that are whole, from 0 to 255, stay what they are.
    Floats that all lie from 0 to 1 are multiplied by 255 and rounded. Nothing else is guessed.

    Parameters
    ----------
    arrays : sequence of arrays
        Of any number type.
    names : sequence of str
        What each is called, for messages.

    Returns
    -------
    list of uint8 arrays
        Of the same shapes; those that are uint8 already are not copied.
    bool
        Whether they were fractions from 0 to 1.

    Raises
    ------
    DatasetError
        For other numbers, naming the images that hold them.
    """
    for array, name in zip(arrays, names, strict=True):
        if array.dtype.kind not in "buif":
            raise DatasetError(f"{_RULE} Received: {array.dtype} in {name}.")
    fractions = bool(arrays) and all(array.dtype.kind == "f" for array in arrays)
    # All black is the same on either scale.
    fractions = fractions and max(map(_highest, arrays)) <= 1
    scale = 255 if fractions else 1
    pairs = zip(arrays, names, strict=True)
    return [_as_uint8(array, scale, name) for array, name in pairs], fractions


def _pieces(array: NDArray[Any]) -> Iterator[slice]:
    """Cut an array along its first axis into pieces of bounded size."""
    step = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    yield from (slice(start, start + step) for start in range(0, len(array), step))


def _highest(array: NDArray[Any]) -> float:
    """Return the highest number; not-a-number if there is one."""
    highest = [float(array[piece].max()) for piece in _pieces(array)]
    return float(np.max(highest)) if highest else 0.0


def _as_uint8(array: NDArray[Any], scale: int, name: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    out = np.empty(array.shape, np.uint8)
    for piece in _pieces(array):
        numbers = array[piece]
        if array.dtype.kind == "b":
            out[piece] = numbers * np.uint8(255)
            continue
        # Not-a-number fails the comparison, too.
        good = (numbers >= 0) & (numbers <= 255 // scale)
        if scale == 1:
            good &= numbers == np.floor(numbers)
        if not good.all():
            row = int(np.flatnonzero(~good.reshape(len(good), -1).all(axis=1))[0])
            value = numbers[row][~good[row]].flat[0]
            raise DatasetError(
                f"{_RULE} Received: {value:g} in image {piece.start + row:,} of {name}, which "
                f"is {array.dtype}."
            )
        out[piece] = numbers if scale == 1 else np.rint(np.multiply(numbers, 255.0, dtype=float))
    return out
