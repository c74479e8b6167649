"""Copies among the images of a training, found without reading a file again.

Both kinds of training hold their images resized: as JPEGs beside the features, or as pixels. Made
small and grey they are enough for the search that the checks of duplicates use. It sees what the
network sees: what a crop leaves out does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks import CheckContext, Measurements
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.checks.measure import NUMERIC, TEXT
from kindsight.dataset import ImageDataset
from kindsight.images.hashes import perceptual_hash, small_grey
from kindsight.threads import single_threaded_opencv
from kindsight.trained_images import TrainedImages, image_hash
from kindsight.training.stored_images import KeptImage

__all__ = ["SIDE", "Alike", "find_alike", "remember", "small_greys"]

SIDE = 64
"""Height and width of the small images."""

BATCH = 1024

KEPT = 20_000
"""Small images that are held in memory, 4 kB each; of more, those in question are made again."""

ONE_TONE = 9
"""Grey levels side by side that count as one tone, as for the checks."""

Small = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


class Alike(NamedTuple):
    """Copies among images.

    Attributes
    ----------
    groups : list of int64 arrays
        Rows of images that are the same, byte for byte or nearly; two or more, ascending.
    hashes : uint64 array (n, 4)
        Perceptual hashes of the images as they were resized.
    context : CheckContext
        For checks that need no other measurements than that.
    """

    groups: list[NDArray[np.int64]]
    hashes: NDArray[np.uint64]
    context: CheckContext


def find_alike(dataset: ImageDataset, small: Small) -> Alike:
    """Find groups of images that are the same, byte for byte or nearly.

    Parameters
    ----------
    dataset : ImageDataset
        With digests.
    small : callable
        From rows, int64 (m,), to the images in small and grey, uint8 (m, 64, 64); zeros where
        there is none.

    Returns
    -------
    Alike
    """
    n = len(dataset)
    numbers = np.zeros(n, NUMERIC)
    # One of each content is enough: copies are known by their digests.
    first: dict[str | None, int] = {}
    for row, digest in enumerate(dataset.digest):
        first.setdefault(digest, row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    kept = np.zeros((n if n <= KEPT else 0, SIDE, SIDE), np.uint8)
    with single_threaded_opencv():
        for at in range(0, len(rows), BATCH):
            some = rows[at : at + BATCH]
            grey = small(some)
            if len(kept):
                kept[some] = grey
            numbers["contrast"][some] = _contrast(grey)
            numbers["uniformity"][some] = [_plain(image) for image in grey]
            numbers["hash"][some] = [perceptual_hash(small_grey(image)) for image in grey]
    words = {name: np.full(n, "", object) for name in TEXT}
    again: Small = (lambda chosen: kept[chosen]) if len(kept) else small
    context = CheckContext(dataset, Measurements(numbers, words, again))
    same = np.array([first[digest] for digest in dataset.digest], np.int64)
    return Alike(find_duplicates(context).groups(), numbers["hash"][same].reshape(n, 4), context)


def small_greys(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make images small and grey: uint8 (n, h, w, 3), RGB, to uint8 (n, 64, 64)."""
    grey = np.zeros((len(pixels), SIDE, SIDE), np.uint8)
    for i, image in enumerate(pixels):
        grey[i] = small_grey(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8), SIDE)
    return grey


def remember(
    digests: Iterable[str], kept: Callable[[Sequence[str]], Sequence[KeptImage | None]]
) -> TrainedImages:
    """Take down which images were trained on.

    Parameters
    ----------
    digests : iterable of str
        Of the images.
    kept : callable
        From digests to the images as they were resized; None for what is no longer there, which
        is known by its digest alone.
    """
    different = sorted(set(digests))
    hashes = np.zeros((len(different), 4), np.uint64)
    with single_threaded_opencv():
        for at in range(0, len(different), BATCH):
            for place, image in enumerate(kept(different[at : at + BATCH]), at):
                if image is not None:
                    hashes[place] = image_hash(image.pixels)
    return TrainedImages(frozenset(different), hashes)


def _contrast(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the standard deviations of images, uint8 (n, side, side): float32 (n,)."""
    flat = grey.reshape(len(grey), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    squares = np.einsum("ij,ij->i", flat, flat)
    return np.asarray(np.sqrt(squares / flat.shape[1]), np.float32)


def _plain(grey: NDArray[np.uint8]) -> float:
    """Return the share of pixels in the commonest nine levels that lie side by side."""
    counts = np.bincount(grey.ravel(), minlength=256)
    return float(np.convolve(counts, np.ones(ONE_TONE)).max()) / grey.size
