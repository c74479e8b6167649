"""Find pairs of nearest neighbours by cosine similarity, without comparing all images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream
from kindsight.checks.context import Vectors, principal_components

__all__ = ["nearest_pairs"]

# Up to this number of images, all pairs are compared, which takes up to a second.
EXACT_UP_TO = 4_000

# Principal components compared. Each is divided by the square root of its standard deviation,
# because the largest components separate the classes, not images of one class. 99 of 100 crops of
# sign-digits are then among the first ten neighbours; with unscaled features, 89.
COMPONENTS = 384

# Clusters that each image belongs to. All crops of sign-digits share at least one of eight with the
# whole image; with four clusters, 88 of 100 do.
CLUSTERS_PER_IMAGE = 8

# Clusters of more than this multiple of the mean size are divided again (in cats-dogs, sign-digits
# and cifar10, the largest has 1.4 times the mean), and each image then belongs to this number.
LARGEST, CLUSTERS_WITHIN = 4, 4

BLOCK = 512

# For more images than this, the components are stored as float16: 0.8 KB per image.
HALF_PRECISION_FROM = 100_000

# Pairs of neighbours that are gathered before duplicates among them are dropped; 32 bytes each.
WAITING_PAIRS = 4_000_000


def nearest_pairs(
    vectors: Vectors,
    neighbours: int,
    minimum: float,
    blocks: Sequence[slice] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.int64]:
    """Return pairs of nearest neighbours by cosine similarity of their principal components.

    More than 4,000 images are not compared with all others: each image belongs to the eight
    nearest of about 2 sqrt(n) random centres, and only images with a common centre are compared
    (an inverted file, as in Jegou, Douze and Schmid 2011, "Product quantization for nearest
    neighbor search"). The time grows as n ** 1.5.

    - `vectors`: features, (n, width); read in blocks.
    - `neighbours`: neighbours per image.
    - `minimum`: minimum cosine similarity.
    - `blocks`: as for :func:`kindsight.checks.context.principal_components`.
    - `seed`: seed of the components and centres.
    - `progress`: called with (done, total), as a number of images.

    Returns
    -------
    int64 array (m, 2)
        Distinct pairs, the first index less than the second.
    """
    if len(vectors) < 2:
        return np.empty((0, 2), np.int64)
    n = len(vectors)
    # On small matrices, BLAS threads spend more time waiting than computing.
    with threadpool_limits(1 if n <= EXACT_UP_TO else None, user_api="blas"):
        # The components take about as long as the comparisons.
        unit = _unit_components(vectors, blocks, seed, lambda done: progress(done // 2, n))
        clusters = [np.arange(n)] if n <= EXACT_UP_TO else _clusters(unit, seed)
        gathered = _Nearest(n, neighbours * n)
        total, done = sum(len(members) ** 2 for members in clusters), 0
        for members in clusters:
            gathered.add(*_pairs_within(unit, members, neighbours, minimum))
            done += len(members) ** 2
            progress(n // 2 + n * done // (2 * total), n)
    return gathered.pairs()


class _Nearest:
    """Distinct pairs of neighbours; if there are too many, those of the highest similarity."""

    def __init__(self, n: int, at_most: int) -> None:
        self._n, self._at_most = n, at_most
        self._codes, self._cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        self._waiting = 0

    def add(self, pairs: NDArray[np.int64], cosines: NDArray[np.float32]) -> None:
        self._codes.append(pairs.min(axis=1) * self._n + pairs.max(axis=1))
        self._cosines.append(cosines)
        self._waiting += len(pairs)
        if self._waiting > WAITING_PAIRS:
            self._reduce()

    def _reduce(self) -> None:
        codes, first = np.unique(np.concatenate(self._codes), return_index=True)
        cosines = np.concatenate(self._cosines)[first]
        if len(codes) > self._at_most:
            best = np.sort(np.argsort(-cosines, kind="stable")[: self._at_most])
            codes, cosines = codes[best], cosines[best]
        self._codes, self._cosines, self._waiting = [codes], [cosines], 0

    def pairs(self) -> NDArray[np.int64]:
        """Return the pairs in ascending order, int64 (m, 2)."""
        self._reduce()
        return np.stack(np.divmod(self._codes[0], self._n), axis=1)


def _unit_components(
    vectors: Vectors, blocks: Sequence[slice], seed: int, progress: Callable[[int], None]
) -> NDArray[Any]:
    half = len(vectors) > HALF_PRECISION_FROM
    dtype = np.float16 if half else np.float32
    space = principal_components(vectors, blocks, COMPONENTS, seed, dtype=dtype, progress=progress)
    sample = space if not half else space[:: len(space) // HALF_PRECISION_FROM].astype(np.float32)
    scale = np.sqrt(sample.std(axis=0)) + np.float32(1e-6)
    for at in range(0, len(space), BLOCK):
        some = space[at : at + BLOCK].astype(np.float32) / scale
        some /= np.linalg.norm(some, axis=1, keepdims=True) + np.float32(1e-9)
        space[at : at + BLOCK] = some
    return space


def _clusters(unit: NDArray[Any], seed: int) -> list[NDArray[np.int64]]:
    """Return the members of each cluster; large clusters are divided again.

    The clusters of real images have similar sizes. Those of thousands of nearly identical images
    would take time in proportion to the square of their number.
    """
    n = len(unit)
    limit = LARGEST * CLUSTERS_PER_IMAGE * n // _centres(n)
    found = []
    for members in _nearest_centres(unit, np.arange(n), CLUSTERS_PER_IMAGE, seed):
        if len(members) <= limit:
            found.append(members)
            continue
        for some in _nearest_centres(unit, members, CLUSTERS_WITHIN, seed):
            # Identical images have the same centres.
            found += np.array_split(some, 1 + len(some) // limit)
    return [members for members in found if len(members) > 1]


def _centres(n: int) -> int:
    """Return the number of random centres for n images."""
    return int(2 * np.sqrt(n))


def _nearest_centres(
    unit: NDArray[Any], rows: NDArray[np.int64], each: int, seed: int
) -> list[NDArray[np.int64]]:
    """Return the rows that belong to each random centre; each row belongs to the nearest few."""
    n, count = len(rows), _centres(len(rows))
    centres = rows[np.sort(random_stream.permutation(seed, "check centres", 0, n)[:count])]
    directions = unit[centres].astype(np.float32)
    nearest = np.empty((n, each), np.int32)
    for at in range(0, n, BLOCK):
        cosine = unit[rows[at : at + BLOCK]].astype(np.float32) @ directions.T
        order = np.argpartition(-cosine, each, axis=1)
        nearest[at : at + BLOCK] = order[:, :each]
    order = np.argsort(nearest.reshape(-1), kind="stable")
    bounds = np.cumsum(np.bincount(nearest.reshape(-1), minlength=count))[:-1]
    return [rows[members // each] for members in np.split(order, bounds)]


def _pairs_within(
    unit: NDArray[Any], members: NDArray[np.int64], neighbours: int, minimum: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs of nearest neighbours among some images, and their cosine similarity."""
    found, cosines = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    k = min(neighbours, len(members) - 1)
    inside = unit[members].astype(np.float32)
    for at in range(0, len(members) if k > 0 else 0, BLOCK):
        cosine = inside[at : at + BLOCK] @ inside.T
        rows = np.arange(len(cosine))
        cosine[rows, at + rows] = -2.0
        best = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(cosine, best, axis=1)
        row, column = np.nonzero(values >= minimum)
        found.append(np.stack((members[at + row], members[best[row, column]]), axis=1))
        cosines.append(values[row, column])
    return np.concatenate(found), np.concatenate(cosines)
