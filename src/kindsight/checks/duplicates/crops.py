"""Find images that are crops of others, or show one scene with another frame (KS305).

Nearest neighbours by features are candidates. Each image of a pair is searched inside the other, at
half size. The few pairs with a high correlation are searched again at full size, and those that
still have one are aligned.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.context import CheckContext, Progress
from kindsight.checks.duplicates.linking import Compared, link_pairs
from kindsight.checks.duplicates.nearest import nearest_pairs
from kindsight.checks.duplicates.registration import FINE, align_crop
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.checks.duplicates.template_matching import locate_crops, resize_all
from kindsight.checks.measure import SMALL
from kindsight.dataset.splits.disjoint_sets import DisjointSets
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = ["CropComparison", "find_crops"]

# Neighbours compared per image, and their minimum cosine similarity. The lowest similarity of crops
# of 56 to 72% of the area is 0.17 in sign-digits and 0.55 in cats-dogs.
NEIGHBOURS = 10
MIN_COSINE = 0.12

# Minimum correlation after registration, as for near-duplicates.
MIN_CORRELATION = 0.9

# Side lengths of a crop relative to the largest that fits; 0.68 is 46% of the area.
SCALES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68)

# Minimum correlation at full size. The lowest of crops is 0.74 in sign-digits, cats-dogs and
# cifar10; 94 to 100% of the other pairs that are compared at full size have less.
MIN_FINE = 0.7

# Side lengths and minimum correlation at 32 x 32 pixels, and the standard deviation of the blur
# that is subtracted. The lowest correlation of crops is 0.61; 90% of the other pairs of sign-digits
# and 99% of those of cats-dogs have less.
COARSE_SCALES, MIN_COARSE, COARSE = (1.0, 0.9, 0.8, 0.7), 0.58, 2.0

# Pairs compared at once at half size and at full size: up to 100 MB for each thread.
COARSE_BLOCK, FINE_BLOCK = 2_048, 512

AHEAD = 2
"""Blocks per thread that are computed ahead of the awaited one."""

HALF = SMALL[0] // 2

READ_BLOCK = 4_096
"""Number of small images read at once."""

Pairs = NDArray[np.int64]
Small = NDArray[np.uint8]


def find_crops(context: CheckContext) -> tuple[Pairs, NDArray[np.float64]]:
    """Return pairs of images of which one is a crop of the other, other duplicates excluded.

    Returns
    -------
    pairs : int64 array (m, 2)
        Rows of the dataset; the pairs that link each group of crops.
    values : float64 array (m,)
        Correlation of each pair, 0 to 1.
    """
    return context.cached("crops", lambda: _find(context))


def _find(context: CheckContext) -> tuple[Pairs, NDArray[np.float64]]:
    assert context.features is not None
    rows, vectors = context.features
    sets = DisjointSets(len(context.dataset))
    for pairs in find_duplicates(context).pairs.values():
        sets.merge(pairs)
    progress = context.late_progress
    likely = rows[
        nearest_pairs(
            vectors, NEIGHBOURS, MIN_COSINE, context.feature_blocks,
            progress=lambda done, total: progress("neighbours", done, total),
        )
    ]  # fmt: skip
    likely = likely[sets.separate(likely)]
    with single_threaded_opencv():
        comparison = CropComparison(context)
        coarse = comparison.coarse(likely, progress)
        directed = np.stack((likely, likely[:, ::-1]), axis=1)
        similar = directed[coarse >= MIN_COARSE]
        similar = similar[np.argsort(-coarse[coarse >= MIN_COARSE], kind="stable")]
        found, values = link_pairs(
            sets, similar, comparison.compare,
            lambda decided: progress("alignment", decided, len(similar)),
        )  # fmt: skip
    return np.sort(found, axis=1), values


class CropComparison:
    """Compares pairs of images, the second of which may be a crop of the first.

    Parameters
    ----------
    context : CheckContext
        The images.
    """

    def __init__(self, context: CheckContext) -> None:
        measured = context.measurements
        self._small_images = measured.small_images
        self._sizes = np.stack((measured.height, measured.width), axis=1).astype(np.float64)

    def coarse(self, pairs: Pairs, progress: Progress | None = None) -> NDArray[np.float32]:
        """Return the correlation of pairs at half size, float32 (m, 2).

        The first column takes the second image of each pair, int64 (m, 2), as the crop; the second
        column the first image.
        """
        rows, index = np.unique(pairs, return_inverse=True)
        index = index.reshape(-1, 2)
        halved = self._halved(rows)

        def locate(at: int) -> NDArray[np.float32]:
            block = slice(at, at + COARSE_BLOCK)
            different, inside = np.unique(index[block], return_inverse=True)
            inside = inside.reshape(-1, 2)
            both = np.concatenate((inside, inside[:, ::-1]))
            sides = self._sides(np.concatenate((pairs[block], pairs[block, ::-1])))
            found = locate_crops(halved[different], both, sides, COARSE_SCALES, COARSE)
            return found.correlation.reshape(2, -1).T

        found = [np.empty((0, 2), np.float32)]
        starts = range(0, len(pairs), COARSE_BLOCK)
        for values in map_ordered(locate, starts, count_cores(), AHEAD):
            found.append(values)
            if progress is not None:
                progress("crops", min(len(pairs), COARSE_BLOCK * (len(found) - 1)), len(pairs))
        return np.concatenate(found)

    def compare(self, pairs: Pairs) -> Compared:
        """Return the result of comparing pairs, int64 (m, 2), at full size."""
        found = [np.empty(0), *map_ordered(self._aligned, self._blocks(pairs), count_cores())]
        values = np.concatenate(found)
        return Compared(values >= MIN_CORRELATION, values)

    def _halved(self, rows: NDArray[np.int64]) -> Small:
        """Return small images at half size, uint8 (m, 32, 32)."""
        # 1 KB per image; reading them for each block of pairs would take longer than comparing.
        halved = np.empty((len(rows), HALF, HALF), np.uint8)
        for at in range(0, len(rows), READ_BLOCK):
            some = self._small_images(rows[at : at + READ_BLOCK])
            halved[at : at + READ_BLOCK] = resize_all(some, HALF, HALF)
        return halved

    def _blocks(self, pairs: Pairs) -> Iterator[tuple[Pairs, Small, Pairs]]:
        """Yield blocks: pairs, their small images, and the pairs as indices of these images."""
        for at in range(0, len(pairs), FINE_BLOCK):
            some = pairs[at : at + FINE_BLOCK]
            rows, index = np.unique(some, return_inverse=True)
            yield some, self._small_images(rows), index.reshape(-1, 2)

    def _aligned(self, block: tuple[Pairs, Small, Pairs]) -> NDArray[np.float64]:
        """Return the correlation of pairs after alignment; 0 for pairs that are not aligned."""
        pairs, small, index = block
        found = locate_crops(small, index, self._sides(pairs), SCALES, FINE)
        values = np.zeros(len(pairs))
        for number in np.flatnonzero(found.correlation >= MIN_FINE):
            whole, crop = small[index[number]]
            values[number] = align_crop(crop, whole, found.transform[number])
        return values

    def _sides(self, pairs: Pairs) -> NDArray[np.float64]:
        """Return height and width of the largest crops, relative to the whole images, (m, 2)."""
        sizes = self._sizes[pairs]
        ratio = sizes[:, 1] / sizes[:, 0]
        return np.asarray(ratio / ratio.max(axis=1, keepdims=True), np.float64)
