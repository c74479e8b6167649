"""Shapes and scales of images in arrays and tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import DatasetError

__all__ = ["MAX_PIXEL_BYTES", "SCALED", "as_images", "as_pixels", "shape_of_row", "with_shape"]

_Number = TypeVar("_Number", bound=np.generic)

MAX_PIXEL_BYTES = 4 * 2**30
"""Limit of images in memory: 4 GiB."""

SCALED = "The pixels in {where} are floats from 0 to 1 and were multiplied by 255."
"""Note for the user."""

_BLOCK = 1 << 22  # numbers processed at once; limits temporary memory
_RULE = "Pixels must be whole numbers from 0 to 255, or all of them floats from 0 to 1"


def shape_of_row(n: int, shape: tuple[int, ...] | None, where: str) -> tuple[int, ...]:
    """Return the shape of an image given as `n` numbers.

    - `shape`: (height, width), (height, width, channels) or (3, height, width).
    - `where`: name of the data, for messages.

    Returns
    -------
    tuple of int
        `shape`; by default (s, s) if n is a square, (s, s, 3) if n / 3 is.

    Raises
    ------
    DatasetError
        If `n` numbers do not have that shape, or are not a square.
    """
    if shape is not None:
        if math.prod(shape) != n:
            raise DatasetError(
                f"The pixel shape {'x'.join(map(str, shape))} has {math.prod(shape):,} pixels, but "
                f"{where} has {n:,} per image. Change `pixel_shape`."
            )
        return shape
    side = math.isqrt(n)
    if side * side == n:
        return side, side
    side = math.isqrt(n // 3)
    if side * side * 3 == n:
        return side, side, 3
    raise DatasetError(
        f"{where} has {n:,} pixels per image, which is not a square image, grey or RGB. Give the "
        'shape: `pixel_shape="HEIGHTxWIDTH"`.'
    )


def as_images(
    array: NDArray[Any], shape: tuple[int, ...] | None, where: str
) -> tuple[NDArray[Any], str | None]:
    """Return an array of images in a standard shape, without copying it, and a note.

    - `array`: (n, height, width), (n, height, width, 1), (n, height, width, 3), the same with the
      channels before the height, or (n, pixels).
    - `shape`: of a row of pixels.
    - `where`: name of the data, for messages.

    Returns
    -------
    array
        (n, height, width), (n, height, width, 1) or (n, height, width, 3).
    str or None
        Note on a changed axis order.

    Raises
    ------
    DatasetError
        For other shapes.
    """
    if array.ndim == 2:
        return with_shape(array, shape_of_row(array.shape[1], shape, where)), None
    last = array.shape[-1] if array.ndim == 4 else None
    if array.ndim == 4 and array.shape[1] in (1, 3) and last not in (1, 3):
        moved = np.moveaxis(array, 1, -1)
        return moved, f"The channels came first in {where} and were moved to the end."
    if array.ndim == 3 and array.shape[2] in (3, 4):
        raise DatasetError(
            f"{where} must contain several images; its shape {array.shape} is that of one. Save it "
            "as x[None]."
        )
    if array.ndim not in (3, 4) or last not in (None, 1, 3) or 0 in array.shape[1:]:
        raise DatasetError(
            f"{where} must contain images of shape (images, height, width), with 1 or 3 channels "
            f"at the end, or rows of pixels; its shape is {array.shape}."
        )
    return array, None


def with_shape(rows: NDArray[_Number], shape: tuple[int, ...]) -> NDArray[_Number]:
    """Return rows of pixels as images, channels last, without copying."""
    images = rows.reshape(len(rows), *shape)
    planes = len(shape) == 3 and shape[2] not in (1, 3)
    return np.moveaxis(images, 1, -1) if planes else images


def as_pixels(
    arrays: Sequence[NDArray[Any]], names: Sequence[str]
) -> tuple[list[NDArray[np.uint8]], bool]:
    """Convert numbers to uint8, 0-255, with one scale for all arrays of a file.

    Booleans become 0 and 255. Whole numbers from 0 to 255 are unchanged. If all arrays are floats
    from 0 to 1, they are multiplied by 255 and rounded.

    - `arrays`: of any number type.
    - `names`: of the arrays, for messages.

    Returns
    -------
    list of uint8 arrays
        Of the same shapes; uint8 arrays are not copied.
    bool
        Whether they were floats from 0 to 1.

    Raises
    ------
    DatasetError
        For other numbers; the message names the image.
    """
    for array, name in zip(arrays, names, strict=True):
        if array.dtype.kind not in "buif":
            raise DatasetError(f"{_RULE}; got {array.dtype} in {name}.")
    fractions = bool(arrays) and all(array.dtype.kind == "f" for array in arrays)
    # All black is the same on either scale.
    fractions = fractions and max(map(_maximum, arrays)) <= 1
    scale = 255 if fractions else 1
    pairs = zip(arrays, names, strict=True)
    return [_as_uint8(array, scale, name) for array, name in pairs], fractions


def _pieces(array: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of bounded size along the first axis."""
    step = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    yield from (slice(start, start + step) for start in range(0, len(array), step))


def _maximum(array: NDArray[Any]) -> float:
    """Return the maximum; NaN if there is one."""
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
        # NaN fails the comparison, too.
        good = (numbers >= 0) & (numbers <= 255 // scale)
        if scale == 1:
            good &= numbers == np.floor(numbers)
        if not good.all():
            row = int(np.flatnonzero(~good.reshape(len(good), -1).all(axis=1))[0])
            value = numbers[row][~good[row]].flat[0]
            raise DatasetError(
                f"{_RULE}; got {value:g} in image {piece.start + row:,} of {name}, which is "
                f"{array.dtype}."
            )
        out[piece] = numbers if scale == 1 else np.rint(np.multiply(numbers, 255.0, dtype=float))
    return out
