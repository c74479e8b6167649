"""Datasets of images in memory: uint8, RGB or grey, 0-255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.labels import as_labels
from kindsight.dataset.loaders.pixels import as_pixels, scaling_notes
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError
from kindsight.images.convert import ValueRange, scale_values

__all__ = ["from_arrays", "single_images", "to_image"]

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
        pixels = _as_uint8(image, i)
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


def _as_uint8(image: NDArray[Any], i: int) -> NDArray[np.uint8]:
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
