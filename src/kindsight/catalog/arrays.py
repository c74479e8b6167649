"""Pictures given in memory: held to one rule, uint8 RGB or grey, 0-255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.labels import as_labels
from kindsight.errors import CatalogError

__all__ = ["from_arrays"]

_RULE = (
    "Pictures are arrays of pixels 0-255, of shape (pictures, height, width, 3) for RGB or "
    "(pictures, height, width) for grey, or a list of single pictures"
)


def from_arrays(arrays: Any, labels: Sequence[object] | None = None) -> Catalog:
    """Make a catalog of pictures in memory.

    Parameters
    ----------
    arrays : array or sequence of arrays
        One array of shape (n, height, width, 3), (n, height, width, 1) or (n, height, width), or
        a sequence of arrays (height, width, 3), (height, width, 1) or (height, width), whose
        sizes may differ. uint8 is taken as it is and is not copied. Another number type is
        taken if all values are whole numbers 0-255; floats of 0 and 1 alone are not, because they
        may mean black and white.
    labels : sequence of str or int, optional
        One for each picture.

    Returns
    -------
    Catalog
        Row i is called ``array-00000i``.

    Raises
    ------
    CatalogError
        If shapes or values are others, if there is no picture, or if `labels` does not fit.
    """
    pictures = [_picture(array, i) for i, array in enumerate(_single_pictures(arrays))]
    if not pictures:
        raise CatalogError(f"{_RULE}. Received: no picture. Give at least one.")
    floats = [array for array in pictures if array.dtype.kind == "f"]
    # All black is the same on either scale.
    if floats and min(map(np.min, floats)) >= 0 and 0 < max(map(np.max, floats)) <= 1:
        raise CatalogError(
            f"{_RULE}. Received: {floats[0].dtype} between 0 and 1. Multiply by 255 and round: "
            '(255 * x).round().astype("uint8").'
        )
    held = tuple(_as_uint8(array, i) for i, array in enumerate(pictures))
    return Catalog(
        path=tuple(f"array-{i:06d}" for i in range(len(held))),
        label=as_labels(labels, len(held)),
        size=tuple(array.nbytes for array in held),
        arrays=held,
    )


def _single_pictures(arrays: Any) -> Sequence[Any]:
    """Take one array of all pictures apart, or return the sequence of single pictures."""
    if isinstance(arrays, (list, tuple)):
        return arrays
    whole = np.asarray(arrays)
    received = f"Received: {whole.dtype} of shape {whole.shape}."
    if whole.dtype == object and whole.ndim == 1:
        return list(whole)
    if whole.ndim == 3 and whole.shape[2] in (3, 4):
        raise CatalogError(f"{_RULE}. {received} For a single picture give [picture].")
    if whole.ndim == 4 and whole.shape[1] in (1, 3) and whole.shape[3] not in (1, 3):
        raise CatalogError(
            f"{_RULE}. {received} Move the channels to the end: numpy.moveaxis(x, 1, -1)."
        )
    if whole.ndim not in (3, 4):
        raise CatalogError(
            f"{_RULE}. {received} Give flattened pixels their shape back: "
            "x.reshape(-1, height, width, 3)."
        )
    return list(whole)


def _picture(array: Any, i: int) -> NDArray[Any]:
    """Return one picture as an array whose shape and type of numbers are allowed."""
    picture = np.asarray(array)
    if picture.dtype == np.uint8 and picture.ndim == 2 and picture.size:
        return picture  # grey, as tables of pixels give them by the ten thousand
    received = f"Received: {picture.dtype} of shape {picture.shape} as picture {i}"
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (1, 3)):
        cure = "Drop the alpha channel: x[..., :3]" if picture.shape[2:] == (4,) else "Reshape it"
        raise CatalogError(f"{_RULE}. {received}. {cure}.")
    if picture.size == 0:
        raise CatalogError(f"{_RULE}. {received}, which has no pixels. Leave it out.")
    if picture.dtype.kind == "b":
        raise CatalogError(f'{_RULE}. {received}. Make it numbers: x.astype("uint8") * 255.')
    if picture.dtype.kind not in "uif":
        raise CatalogError(f'{_RULE}. {received}. Convert it: x.astype("uint8").')
    return picture


def _as_uint8(picture: NDArray[Any], i: int) -> NDArray[np.uint8]:
    """Return a picture as uint8 that cannot be written to through the catalog."""
    if picture.dtype == np.uint8:
        held: NDArray[np.uint8] = picture.view()
        held.flags.writeable = False
        return held
    low, high = float(picture.min()), float(picture.max())
    # Not-a-number fails the first comparison, infinity the second.
    if not (low >= 0 and high <= 255):
        raise CatalogError(
            f"{_RULE}. Received: {picture.dtype} from {low:g} to {high:g} in picture {i}. "
            "Scale it to 0-255 and round."
        )
    held = picture.astype(np.uint8)
    if picture.dtype.kind == "f" and not np.array_equal(held, picture):
        raise CatalogError(
            f"{_RULE}. Received: {picture.dtype} with fractions in picture {i}, from {low:g} to "
            f'{high:g}. Round it, after scaling to 0-255 if need be: x.round().astype("uint8").'
        )
    held.flags.writeable = False
    return held
