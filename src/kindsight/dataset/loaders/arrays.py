"""Datasets of images in memory; shapes and scales of images in arrays and tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.labels import as_labels
from kindsight.dataset.properties import describe_range, typical_range
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError
from kindsight.images.convert import ValueRange, scale_values

__all__ = [
    "MAX_PIXEL_BYTES", "SCALED", "as_images", "as_pixels", "from_arrays", "scaling_notes",
    "shape_of_row", "single_images", "to_image", "with_shape",
]  # fmt: skip

_Number = TypeVar("_Number", bound=np.generic)

MAX_PIXEL_BYTES = 4 * 2**30
"""Limit of images in memory: 4 GiB."""

SCALED = "The pixels in {where} are floats from 0 to 1 and were multiplied by 255."
"""Note for the user."""

SCALED_BY = "The pixels in {where} were scaled by one range: {range} became 0 to 255."
"""Note for the user, if the range is not 0 to 1."""

_BLOCK = 1 << 22  # numbers processed at once; limits temporary memory
_NUMBERS = "Pixels must be numbers"


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
        f"{where} has {n:,} pixels per image, which is neither a square grey image nor a square "
        'RGB image. Give the shape: `pixel_shape="HEIGHTxWIDTH"`.'
    )


def as_images(
    array: NDArray[Any], shape: tuple[int, ...] | None, where: str
) -> tuple[NDArray[Any], str | None]:
    """Return an array of images in a standard shape, without copying it, and a note.

    - `array`: (n, height, width), (n, height, width, 1), (n, height, width, 3), the same with the
      channels before the height, or (n, pixels).
    - `shape`: shape of an image, where a row of pixels is one.
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
            f"{where} must contain several images; its shape {array.shape} is that of a single "
            "image. Save it as x[None]."
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

    - `arrays`: arrays of any numeric dtype, (images, ...).
    - `names`: names of the arrays, for messages.
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
            raise DatasetError(f"{_NUMBERS}; got {array.dtype} in {name}.")
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
            f"Every pixel is {least:g}, so the range of values cannot be inferred. Give it as "
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


_RULE = (
    "Images must be arrays of pixels 0-255, of shape (images, height, width, 3) for RGB or "
    "(images, height, width) for grey, or a list of single images"
)


def from_arrays(
    arrays: Any,
    labels: Any = None,
    *,
    multi_label: str | None = None,
    keep_na_labels: bool = False,
    value_range: ValueRange | None = None,
) -> ImageDataset:
    """Return a dataset of images in memory.

    Parameters
    ----------
    arrays : array or sequence of arrays
        One array of shape (n, height, width, 3), (n, height, width, 1) or (n, height, width), or
        a sequence of arrays (height, width, 3), (height, width, 1) or (height, width), whose
        sizes may differ. uint8 is not copied. Of other number types, whole numbers 0-255 are
        unchanged, floats 0-1 are multiplied by 255, and others are scaled by one range over all
        images.
    labels : sequence or array, optional
        One name or whole number for each image, or one-hot rows; None or NaN where unknown.
    multi_label, keep_na_labels
        As for :func:`kindsight.dataset.labels.as_labels`.
    value_range : (low, high), optional
        The values that become 0 and 255, in arrays of other types than uint8.

    Returns
    -------
    ImageDataset
        The path of row i is ``array-00000i``; ``value_range`` is the range, if any was used.

    Raises
    ------
    DatasetError
        For other shapes or values, no images, or if `labels` does not fit.
    """
    images = [_image(array, i) for i, array in enumerate(single_images(arrays))]
    if not images:
        raise DatasetError(f"{_RULE}; got no image.")
    names = [f"image {i}" for i in range(len(images))]
    pixels, used = as_pixels([image[None] for image in images], names, value_range)
    held = tuple(_read_only(array[0]) for array in pixels)
    return ImageDataset(
        path=tuple(f"array-{i:06d}" for i in range(len(held))),
        label=as_labels(labels, len(held), multi_label=multi_label, keep_na_labels=keep_na_labels),
        size=tuple(array.nbytes for array in held),
        arrays=held,
        value_range=used,
        notes=tuple(scaling_notes(used, "the arrays")),
    )


def to_image(array: Any, i: int, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Return one image as uint8 (height, width, 3), by the rules of :func:`from_arrays`.

    `i` is its number, for errors. Raises DatasetError.
    """
    image = _image(array, i)
    if value_range is not None and image.dtype != np.uint8:
        pixels = scale_values(image, *value_range)
    else:
        _refuse_fractions([image])
        pixels = _exact_uint8(image, i)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def single_images(arrays: Any) -> Sequence[Any]:
    """Return the single images of a list, or of one array of several; else raise DatasetError."""
    if isinstance(arrays, (list, tuple)):
        return arrays
    whole = np.asarray(arrays)
    received = f"got {whole.dtype} of shape {whole.shape}."
    if whole.dtype == object and whole.ndim == 1:
        return list(whole)
    if whole.ndim == 3 and whole.shape[2] in (3, 4):
        raise DatasetError(f"{_RULE}; {received} Put a single image in a list: [image].")
    if whole.ndim == 4 and whole.shape[1] in (1, 3) and whole.shape[3] not in (1, 3):
        raise DatasetError(
            f"{_RULE}; {received} Move the channels to the end: numpy.moveaxis(x, 1, -1)."
        )
    if whole.ndim not in (3, 4):
        raise DatasetError(
            f"{_RULE}; {received} Reshape flattened pixels: x.reshape(-1, height, width, 3)."
        )
    return list(whole)


def _image(array: Any, i: int) -> NDArray[Any]:
    """Return one image as an array, after checking its shape and dtype."""
    try:
        image = np.asarray(array)
    except ValueError:  # rows of different lengths
        raise DatasetError(
            f"{_RULE}; got a {type(array).__name__} that has no shape as image {i}. Convert it to "
            "a NumPy array."
        ) from None
    if image.dtype == np.uint8 and image.ndim == 2 and image.size:
        return image  # fast path for tables of tens of thousands of grey images
    received = f"got {image.dtype} of shape {image.shape} as image {i}"
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        cure = "Drop the alpha channel: x[..., :3]" if image.shape[2:] == (4,) else "Reshape it"
        raise DatasetError(f"{_RULE}; {received}. {cure}.")
    if image.size == 0:
        raise DatasetError(f"{_RULE}; {received}, which is empty. Remove it.")
    if image.dtype.kind == "b":
        raise DatasetError(f'{_RULE}; {received}. Convert it: x.astype("uint8") * 255.')
    if image.dtype.kind not in "uif":
        raise DatasetError(f'{_RULE}; {received}. Convert it: x.astype("uint8").')
    return image


def _refuse_fractions(images: Sequence[NDArray[Any]]) -> None:
    floats = [array for array in images if array.dtype.kind == "f"]
    # All black is the same on either scale.
    if floats and min(map(np.min, floats)) >= 0 and 0 < max(map(np.max, floats)) <= 1:
        raise DatasetError(
            f"{_RULE}; got {floats[0].dtype} between 0 and 1. Multiply by 255 and round: "
            '(255 * x).round().astype("uint8").'
        )


def _exact_uint8(image: NDArray[Any], i: int) -> NDArray[np.uint8]:
    """Return an image as a read-only uint8 array."""
    if image.dtype == np.uint8:
        held: NDArray[np.uint8] = image.view()
        held.flags.writeable = False
        return held
    low, high = float(image.min()), float(image.max())
    # NaN fails the first comparison, infinity the second.
    if not (low >= 0 and high <= 255):
        raise DatasetError(
            f"{_RULE}; got {image.dtype} from {low:g} to {high:g} in image {i}. "
            "Scale it to 0-255 and round."
        )
    held = image.astype(np.uint8)
    if image.dtype.kind == "f" and not np.array_equal(held, image):
        raise DatasetError(
            f"{_RULE}; got {image.dtype} with fractions in image {i}, from {low:g} to "
            f'{high:g}. Round it, after scaling to 0-255 if need be: x.round().astype("uint8").'
        )
    held.flags.writeable = False
    return held


def _read_only(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    held = image.view()
    held.flags.writeable = False
    return held
