"""Near-duplicates among the images of a training, found without reading a file again.

Every trainer holds its images resized: as JPEGs beside the features, or as pixels. Small grey
versions of these are enough for the search of the duplicate checks. What a crop leaves out does
not count.
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
from kindsight.training.protocols import StoredImage

__all__ = ["SIDE", "NearDuplicates", "find_near_duplicates", "record_trained_images", "small_greys"]

SIDE = 64
"""Height and width of the small images."""

BATCH = 1024

MAX_IN_MEMORY = 20_000
"""Most small images held in memory, 4 kB each; of more, candidates are computed again."""

ONE_TONE = 9
"""Adjacent grey levels that count as one tone, as in the checks."""

Small = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


class NearDuplicates(NamedTuple):
    """Duplicates and near-duplicates of a dataset.

    Attributes
    ----------
    groups : list of int64 arrays
        Rows of images that are the same, byte for byte or nearly; two or more, ascending.
    hashes : uint64 array (n, 4)
        Perceptual hashes of the resized images.
    context : CheckContext
        The measurements, for other checks.
    """

    groups: list[NDArray[np.int64]]
    hashes: NDArray[np.uint64]
    context: CheckContext


def find_near_duplicates(dataset: ImageDataset, small: Small) -> NearDuplicates:
    """Return the groups of images that are the same, byte for byte or nearly.

    Parameters
    ----------
    dataset : ImageDataset
        With digests.
    small : callable
        From rows, int64 (m,), to small grey images, uint8 (m, 64, 64); zeros for a missing one.
    """
    n = len(dataset)
    numbers = np.zeros(n, NUMERIC)
    # One image of each digest is enough.
    first: dict[str | None, int] = {}
    for row, digest in enumerate(dataset.digest):
        first.setdefault(digest, row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    held = np.zeros((n if n <= MAX_IN_MEMORY else 0, SIDE, SIDE), np.uint8)
    with single_threaded_opencv():
        for at in range(0, len(rows), BATCH):
            some = rows[at : at + BATCH]
            grey = small(some)
            if len(held):
                held[some] = grey
            numbers["contrast"][some] = _contrast(grey)
            numbers["uniformity"][some] = [_uniformity(image) for image in grey]
            numbers["hash"][some] = [perceptual_hash(small_grey(image)) for image in grey]
    text = {name: np.full(n, "", object) for name in TEXT}
    again: Small = (lambda chosen: held[chosen]) if len(held) else small
    context = CheckContext(dataset, Measurements(numbers, text, again))
    same = np.array([first[digest] for digest in dataset.digest], np.int64)
    return NearDuplicates(
        find_duplicates(context).groups(), numbers["hash"][same].reshape(n, 4), context
    )


def small_greys(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return small grey images, uint8 (n, 64, 64), of RGB uint8 (n, h, w, 3)."""
    grey = np.zeros((len(pixels), SIDE, SIDE), np.uint8)
    for i, image in enumerate(pixels):
        grey[i] = small_grey(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8), SIDE)
    return grey


def record_trained_images(
    digests: Iterable[str], read: Callable[[Sequence[str]], Sequence[StoredImage | None]]
) -> TrainedImages:
    """Return the digests and perceptual hashes of the training images.

    Parameters
    ----------
    digests : iterable of str
        Of the training images.
    read : callable
        From digests to the resized images; None for an image that is no longer there, which gets
        no hash.
    """
    different = sorted(set(digests))
    hashes = np.zeros((len(different), 4), np.uint64)
    with single_threaded_opencv():
        for at in range(0, len(different), BATCH):
            for row, image in enumerate(read(different[at : at + BATCH]), at):
                if image is not None:
                    hashes[row] = image_hash(image.pixels)
    return TrainedImages(frozenset(different), hashes)


def _contrast(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the standard deviation of each image, float32 (n,)."""
    flat = grey.reshape(len(grey), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    squares = np.einsum("ij,ij->i", flat, flat)
    return np.asarray(np.sqrt(squares / flat.shape[1]), np.float32)


def _uniformity(grey: NDArray[np.uint8]) -> float:
    """Return the fraction of pixels in the most frequent nine adjacent levels."""
    counts = np.bincount(grey.ravel(), minlength=256)
    return float(np.convolve(counts, np.ones(ONE_TONE)).max()) / grey.size
