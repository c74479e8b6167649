"""Near-duplicates among the images of a training, found without reading a file again.

Every trainer holds its images resized: as JPEGs with the features, or as pixels. Small grey
versions of these are enough for the search of the duplicate checks. What a crop leaves out does
not count. Measurements of small images are cached with the features, so that a second training
decodes similar images only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks import CheckContext, Measurements
from kindsight.checks.context import delayed
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.checks.measure import NUMERIC, TEXT
from kindsight.dataset import ImageDataset
from kindsight.images.hashes import GRID, image_hash, perceptual_hashes, small_grey
from kindsight.threads import single_threaded_opencv
from kindsight.trained_images import TrainedImages
from kindsight.training.common import Progress
from kindsight.training.protocols import StoredImage

__all__ = [
    "SIDE", "SIMILARITY", "NearDuplicates", "find_near_duplicates", "measure_similarity",
    "record_trained_images", "small_greys",
]  # fmt: skip

SIDE = 64
"""Height and width of the small images."""

BATCH = 1024

MAX_IN_MEMORY = 20_000
"""Maximum small images in memory, 4 kB each; beyond that, candidates are read again in blocks."""

ONE_TONE = 9
"""Adjacent grey levels that count as one tone, as in the checks."""

SIMILARITY = np.dtype([(name, NUMERIC[name]) for name in ("hash", "contrast", "uniformity")])
"""Measurements that the search compares before pixels."""

Rows = NDArray[np.int64]
Small = Callable[[Rows], NDArray[np.uint8]]


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


def find_near_duplicates(
    dataset: ImageDataset,
    measure: Callable[[Rows], NDArray[np.void]],
    small: Small,
    progress: Progress | None = None,
    *,
    together: Rows | None = None,
) -> NearDuplicates:
    """Return the groups of images that are the same, byte for byte or nearly.

    Parameters
    ----------
    dataset : ImageDataset
        With digests.
    measure : callable
        From rows, int64 (m,), to their measurements, :data:`SIMILARITY` (m,).
    small : callable
        From rows, int64 (m,), to small grey images, uint8 (m, 64, 64); zeros for a missing one.
    progress : callable, optional
        Called with (stage, done, total) once a stage takes longer than two seconds; the stages are
        ``"similarity"`` and ``"duplicates"``.
    together : int64 array (n,), optional
        One number per row, equal for images that have one label and always end up in the same
        split. Their duplicates are sought only where links to other images make a difference.
    """
    n = len(dataset)
    measured = None if progress is None else delayed(progress)
    numbers = np.zeros(n, NUMERIC)
    # One image of each digest is enough.
    first: dict[str | None, int] = {}
    for row, digest in enumerate(dataset.digest):
        first.setdefault(digest, row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    with single_threaded_opencv():
        for at in range(0, len(rows), BATCH):
            some = rows[at : at + BATCH]
            if measured is not None:
                measured("similarity", at, len(rows))
            found = measure(some)
            for name in SIMILARITY.names or ():
                numbers[name][some] = found[name]
    text = {name: np.full(n, "", object) for name in TEXT}
    fetch = _Remembered(small, n) if n <= MAX_IN_MEMORY else small
    context = CheckContext(
        dataset, Measurements(numbers, text, fetch), together=together, progress=progress
    )
    same = np.array([first[digest] for digest in dataset.digest], np.int64)
    return NearDuplicates(
        find_duplicates(context).groups(), numbers["hash"][same].reshape(n, 4), context
    )


class _Remembered:
    """Small images, each fetched once."""

    def __init__(self, small: Small, images: int) -> None:
        self._small = small
        self._held = np.zeros((images, SIDE, SIDE), np.uint8)
        self._known = np.zeros(images, np.bool_)

    def __call__(self, rows: Rows) -> NDArray[np.uint8]:
        missing = np.unique(rows[~self._known[rows]])
        if len(missing):
            self._held[missing] = self._small(missing)
            self._known[missing] = True
        return self._held[rows]


def measure_similarity(grey: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return the measurements of small grey images (n, 64, 64): :data:`SIMILARITY` (n,)."""
    found = np.zeros(len(grey), SIMILARITY)
    found["contrast"] = _contrast(grey)
    found["uniformity"] = _uniformity(grey)
    found["hash"] = perceptual_hashes(
        np.reshape([small_grey(image) for image in grey], (-1, GRID, GRID))
    )
    return found


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


def _uniformity(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the fraction of pixels in the most frequent nine adjacent levels, float64 (n,)."""
    levels = grey.reshape(len(grey), -1) + 256 * np.arange(len(grey))[:, None]
    counts = np.bincount(levels.reshape(-1), minlength=256 * len(grey)).reshape(-1, 256)
    upto = np.pad(counts.cumsum(axis=1), ((0, 0), (ONE_TONE, 0)), constant_values=0)
    return np.asarray((upto[:, ONE_TONE:] - upto[:, :-ONE_TONE]).max(axis=1) / grey[0].size)
