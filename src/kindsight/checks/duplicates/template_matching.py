"""Find many crops in many images at once: normalised cross-correlation by Fourier transforms.

Each pair is compared at several sizes of the crop and all positions. Transforms, window energies
and resized crops are computed once per image of a block, and one NumPy call handles all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.registration import high_pass_all

__all__ = ["Located", "locate_crops", "resize_all"]

MIN_SIDE = 8
"""Minimum height and width of a resized crop, in pixels."""

MIN_ENERGY = 1e-6
"""Energy of a window relative to that of its image, below which the window counts as uniform: it is
within the rounding error of single precision."""

BATCH = 512
"""Number of pairs transformed at once: a megabyte at 32 x 32 pixels."""

Small = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Located(NamedTuple):
    """The best window of each pair."""

    correlation: Floats  # 0 to 1, (m,)
    # affine map from positions in the crop to positions in the whole image, (m, 2, 3)
    transform: Floats


def locate_crops(
    images: Small,
    pairs: Integers,
    sides: NDArray[np.float64],
    scales: Sequence[float],
    sigma: float,
) -> Located:
    """Return where, and at which size, the second image of each pair fits best into the first.

    - `images`: uint8 array (n, side, side).
    - `pairs`: int64 array (m, 2); whole image and crop, indices into `images`.
    - `sides`: float array (m, 2); height and width of the largest crop, relative to the whole.
    - `scales`: sizes of the crop, relative to the largest.
    - `sigma`: standard deviation in pixels of the blur that is subtracted from both.
    """
    wholes, whole = np.unique(pairs[:, 0], return_inverse=True)
    crops, crop = np.unique(pairs[:, 1], return_inverse=True)
    searched, pieces, side = _Searched(images[wholes], sigma), images[crops], images.shape[1]
    best = np.zeros(len(pairs), np.float32)
    transform = np.tile(np.eye(2, 3, dtype=np.float32), (len(pairs), 1, 1))
    for scale in scales:
        shapes = np.clip(np.round(side * scale * sides), MIN_SIDE, side).astype(np.int64)
        for (height, width), some in _by_shape(shapes):
            different, piece = np.unique(crop[some], return_inverse=True)
            templates = _templates(pieces[different], height, width, sigma)
            value, top, left = searched.best_windows(whole[some], templates, piece)
            better = value > best[some]
            chosen = some[better]
            best[chosen] = value[better]
            transform[chosen, 0, 0], transform[chosen, 1, 1] = width / side, height / side
            transform[chosen, 0, 2], transform[chosen, 1, 2] = left[better], top[better]
    return Located(best, transform)


def resize_all(images: Small, height: int, width: int) -> Small:
    """Return images, uint8 (n, side, side), reduced by averaging to a size that is not larger."""
    # Stacked in one tall image: one OpenCV call per small image is slow.
    count, side = len(images), images.shape[2]
    size = (width, count * height)
    tall = cv2.resize(images.reshape(-1, side), size, interpolation=cv2.INTER_AREA)
    return np.asarray(tall, np.uint8).reshape(count, height, width)


def _by_shape(shapes: Integers) -> Iterator[tuple[tuple[int, int], Integers]]:
    """Yield each distinct (height, width) with the indices of its rows."""
    order = np.lexsort((shapes[:, 1], shapes[:, 0]))
    ordered = shapes[order]
    starts = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    for some in np.split(order, starts) if len(order) else ():
        yield (int(shapes[some[0], 0]), int(shapes[some[0], 1])), some


def _templates(pieces: Small, height: int, width: int, sigma: float) -> Floats:
    """Return resized crops of mean 0 and norm 1, float32 (n, height, width)."""
    fine = high_pass_all(resize_all(pieces, height, width), sigma)
    fine -= fine.mean((1, 2), keepdims=True)
    fine /= np.sqrt(np.square(fine).sum((1, 2), keepdims=True)) + np.float32(1e-6)
    return fine


class _Searched:
    """Whole images, prepared for the search of crops.

    - `images`: uint8 array (n, side, side).
    - `sigma`: as in :func:`locate_crops`.
    """

    def __init__(self, images: Small, sigma: float) -> None:
        self._fine, self._side = high_pass_all(images, sigma), images.shape[1]
        # With norm="ortho", forward transforms of single precision take a third of the time.
        self._spectra = np.fft.rfft2(self._fine, norm="ortho")

    def best_windows(
        self, index: Integers, templates: Floats, piece: Integers
    ) -> tuple[Floats, Integers, Integers]:
        """Return the highest correlation of each pair, and the top and left of its window.

        - `index`: int64 array (m,); the whole image of each pair.
        - `templates`: float32 array (k, height, width); of mean 0 and norm 1.
        - `piece`: int64 array (m,); the template of each pair.
        """
        side, (height, width) = self._side, templates.shape[1:]
        across = side - width + 1
        different, inverse = np.unique(index, return_inverse=True)
        lengths = self._lengths(different, height, width)
        if height == width == side:
            spectra = None
        else:
            spectra = np.conj(np.fft.rfft2(templates, s=(side, side), norm="ortho"))
        best, at = np.empty(len(index), np.float32), np.empty(len(index), np.int64)
        for start in range(0, len(index), BATCH):
            some = slice(start, start + BATCH)
            if spectra is None:  # one position
                only = np.einsum("nij,nij->n", self._fine[index[some]], templates[piece[some]])
                values = only[:, None] / lengths[inverse[some]].reshape(-1, 1)
            else:
                products = self._spectra[index[some]] * spectra[piece[some]]
                found = np.fft.irfft2(products, s=(side, side), norm="ortho")
                found = found[:, : side - height + 1, :across] / lengths[inverse[some]]
                values = np.float32(side) * found.reshape(len(found), -1)
            at[some] = values.argmax(axis=1)
            best[some] = np.take_along_axis(values, at[some, None], 1)[:, 0]
        top, left = np.divmod(at, across)
        return best, top, left

    def _lengths(self, index: Integers, height: int, width: int) -> Floats:
        """Return the norm of each window minus its mean, float32 (m, down, right).

        Infinite for uniform windows.
        """
        shape = (len(index), self._side - height + 1, self._side - width + 1)
        lengths = np.empty(shape, np.float32)
        for start in range(0, len(index), BATCH):
            some = slice(start, start + BATCH)
            fine = self._fine[index[some]]
            whole = np.square(fine, dtype=np.float64).sum((1, 2))
            least = np.maximum(MIN_ENERGY * whole, 1e-9)[:, None, None]
            squares = _window_sums(cv2.sqrBoxFilter, fine, height, width)
            sums = _window_sums(cv2.boxFilter, fine, height, width)
            energy = squares - np.square(sums) / (height * width)
            lengths[some] = np.where(energy > least, np.sqrt(np.maximum(energy, least)), np.inf)
        return lengths


def _window_sums(box: Any, images: Floats, height: int, width: int) -> NDArray[np.float64]:
    """Return the sum of each window by a box filter of OpenCV, (m, down, right)."""
    found = box(
        images.reshape(-1, images.shape[2]), cv2.CV_64F, (width, height), anchor=(0, 0),
        normalize=False, borderType=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    inside = np.asarray(found, np.float64).reshape(images.shape)
    return inside[:, : images.shape[1] - height + 1, : images.shape[2] - width + 1]
