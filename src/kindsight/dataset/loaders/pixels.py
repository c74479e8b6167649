"""Shapes and scales of images in arrays and tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.value_range import describe_range, typical_range
from kindsight.errors import DatasetError
from kindsight.images.convert import ValueRange, scale_values

__all__ = [
    "MAX_PIXEL_BYTES", "SCALED", "as_images", "as_pixels", "scaling_notes", "shape_of_row",
    "with_shape",
]  # fmt: skip

_Number = TypeVar("_Number", bound=np.generic)

MAX_PIXEL_BYTES = 4 * 2**30
"""Limit of images in memory: 4 GiB."""

SCALED = "The pixels in {where} are floats from 0 to 1 and were multiplied by 255."
"""Note for the user."""

SCALED_BY = "The pixels in {where} were scaled by one range: {range} became 0 to 255."
"""Note for the user, if the range is not 0 to 1."""

_BLOCK = 1 << 22  # numbers processed at once; limits temporary memory
_RULE = "Pixels must be numbers"


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
    arrays: Sequence[NDArray[Any]], names: Sequence[str], value_range: ValueRange | None = None
) -> tuple[list[NDArray[np.uint8]], ValueRange | None]:
    """Convert numbers to uint8, 0-255, with one scale for all arrays.

    Booleans become 0 and 255; uint8 is unchanged. Without a range, whole numbers from 0 to 255 are
    unchanged, floats from 0 to 1 are multiplied by 255, and others are scaled by the range over the
    images.

    - `arrays`: of any number type, (images, ...).
    - `names`: of the arrays, for messages.
    - `value_range`: the values that become 0 and 255.

    Returns
    -------
    list of uint8 arrays
        Of the same shapes; uint8 arrays are not copied.
    (low, high) or None
        The values that became 0 and 255; None if the numbers are unchanged.

    Raises
    ------
    DatasetError
        For other types, and numbers that are not finite; the message names the image.
    """
    for array, name in zip(arrays, names, strict=True):
        if array.dtype.kind not in "buif":
            raise DatasetError(f"{_RULE}; got {array.dtype} in {name}.")
    chosen = value_range or _find_range(
        [pair for pair in zip(arrays, names, strict=True) if _is_deep(pair[0])]
    )
    return [_as_uint8(array, chosen) for array in arrays], chosen


def scaling_notes(value_range: ValueRange | None, where: str) -> list[str]:
    """Return a note on the range by which pixels were scaled; none if they were not."""
    if value_range is None:
        return []
    if value_range == (0.0, 1.0):
        return [SCALED.format(where=where)]
    return [SCALED_BY.format(where=where, range=describe_range(value_range))]


def _is_deep(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "b" and array.dtype != np.uint8


def _pieces(array: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of bounded size along the first axis."""
    step = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    yield from (slice(start, start + step) for start in range(0, len(array), step))


def _find_range(arrays: Sequence[tuple[NDArray[Any], str]]) -> ValueRange | None:
    """Return the range of arrays that are not uint8; None for whole numbers from 0 to 255."""
    lows, highs, whole = [np.zeros(0)], [np.zeros(0)], True
    for array, name in arrays:
        for piece in _pieces(array):
            rows = array[piece].reshape(len(array[piece]), -1)
            lows.append(rows.min(axis=1).astype(np.float64))
            highs.append(rows.max(axis=1).astype(np.float64))
            finite = np.isfinite(lows[-1]) & np.isfinite(highs[-1])
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                raise DatasetError(
                    f"Pixels must be finite numbers; got NaN or infinity in image "
                    f"{piece.start + row:,} of {name}. Replace them, or leave the image out."
                )
            whole = whole and (array.dtype.kind != "f" or bool((rows == np.floor(rows)).all()))
    low, high = np.concatenate(lows), np.concatenate(highs)
    if not low.size:
        return None
    least, greatest = float(low.min()), float(high.max())
    # All black is the same on every scale.
    if least >= 0 and 0 < greatest <= 1 and all(array.dtype.kind == "f" for array, _ in arrays):
        return 0.0, 1.0
    if whole and least >= 0 and greatest <= 255:
        return None
    found = typical_range(low, high)
    if found is None:
        raise DatasetError(
            f"Every pixel is {least:g}, from which no range of values can be found. Give it as "
            "`value_range`."
        )
    return found


def _as_uint8(array: NDArray[Any], value_range: ValueRange | None) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    out = np.empty(array.shape, np.uint8)
    for piece in _pieces(array):
        numbers = array[piece]
        if array.dtype.kind == "b":
            out[piece] = numbers * np.uint8(255)
        elif value_range is None:
            out[piece] = numbers
        else:
            out[piece] = scale_values(numbers, *value_range)
    return out
