"""KS305: images that are a part of another one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream as chance
from kindsight.checks.check import CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.disjoint_sets import Groups
from kindsight.checks.duplicates.registration import likeness_of_part
from kindsight.checks.duplicates.search import Copies, find_duplicates
from kindsight.checks.feature_space import principal_space
from kindsight.checks.rules.duplicates import CopiesCheck, group_findings
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = [
    "PartsOfOthers",
    "find_parts",
    "nearest_pairs",
]

# SECTION: The images whose features are most alike, without comparing all with all.
#
# Some images are taken as centres, and every image belongs to those centres that it is nearest
# to; only images with a centre in common are compared (an inverted file, as in Jegou, Douze and
# Schmid 2011, "Product quantization for nearest neighbor search", without the quantization). With
# twice the root of n centres the work grows as n to the power of 1.5.

# Below this all are compared with all: it takes a second.
ALL_UP_TO = 4_000

# Principal components that are compared. Each is divided by the root of its deviation: what varies
# most is what kinds of images differ in, and less of it is left to tell images of one kind
# apart by. Of parts of sign-digits, whose hands stand before one wall, 99 of 100 are then among the
# first ten neighbours; by the features as they are, 89.
COMPONENTS = 384

# Centres that an image belongs to. Every part of sign-digits and the whole share one of eight; of
# four, 88 in 100 do.
CENTRES_EACH = 8

BLOCK = 512


def nearest_pairs(
    vectors: NDArray[np.float32],
    neighbours: int,
    least: float,
    blocks: Sequence[slice] = (),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Find for each image the others with the most similar features.

    Parameters
    ----------
    vectors : float32 array (n, width)
        Features.
    neighbours : int
        How many for each.
    least : float
        The cosine similarity that a pair must have, in the space that they are compared in.
    blocks : sequence of slice, optional
        As for :func:`kindsight.checks.feature_space.principal_space`.
    seed : int
        Of the choice of directions and of centres.

    Returns
    -------
    int64 array (m, 2)
        Pairs, the first less than the second, none twice.
    """
    if len(vectors) < 2:
        return np.empty((0, 2), np.int64)
    n = len(vectors)
    # On few images threads wait for each other longer than they work.
    with threadpool_limits(1 if n <= ALL_UP_TO else None, user_api="blas"):
        unit = _directions(vectors, blocks, seed)
        cells = [np.arange(n)] if n <= ALL_UP_TO else _cells(unit, seed)
        pairs = [_pairs_within(unit, members, neighbours, least) for members in cells]
    found = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(found, axis=0).reshape(-1, 2)


def _directions(
    vectors: NDArray[np.float32], blocks: Sequence[slice], seed: int
) -> NDArray[np.float32]:
    """Return each image's direction from the middle of all: float32 (n, components), length 1."""
    space = principal_space(vectors, blocks, COMPONENTS, seed)
    space /= np.sqrt(space.std(axis=0)) + np.float32(1e-6)
    space /= np.linalg.norm(space, axis=1, keepdims=True) + np.float32(1e-9)
    return space


def _cells(unit: NDArray[np.float32], seed: int) -> list[NDArray[np.int64]]:
    """Give the members of each centre's cell."""
    n = len(unit)
    count = int(2 * np.sqrt(n))
    centres = unit[np.sort(chance.permutation(seed, "check centres", 0, n)[:count])]
    belongs = np.empty((n, CENTRES_EACH), np.int64)
    for at in range(0, n, BLOCK):
        likeness = unit[at : at + BLOCK] @ centres.T
        belongs[at : at + BLOCK] = np.argpartition(-likeness, CENTRES_EACH, axis=1)[
            :, :CENTRES_EACH
        ]
    order = np.argsort(belongs.reshape(-1), kind="stable")
    bounds = np.cumsum(np.bincount(belongs.reshape(-1), minlength=count))[:-1]
    return [members // CENTRES_EACH for members in np.split(order, bounds)]


def _pairs_within(
    unit: NDArray[np.float32], members: NDArray[np.int64], neighbours: int, least: float
) -> NDArray[np.int64]:
    """Compare the members of one cell with each other."""
    found = [np.empty((0, 2), np.int64)]
    k = min(neighbours, len(members) - 1)
    inside = unit[members]
    for at in range(0, len(members) if k > 0 else 0, BLOCK):
        likeness = inside[at : at + BLOCK] @ inside.T
        rows = np.arange(len(likeness))
        likeness[rows, at + rows] = -2.0
        best = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
        row, place = np.nonzero(np.take_along_axis(likeness, best, axis=1) >= least)
        found.append(np.stack((members[at + row], members[best[row, place]]), axis=1))
    return np.concatenate(found)


# Neighbours by features that are looked at for each image, and how alike they must be. Parts of
# 56 to 72% of the area have 0.17 and more in sign-digits, 0.55 in cats-dogs.
NEIGHBOURS = 10
FEATURES = 0.12

# The same close look as for bursts.
CLOSE = 0.9

BATCH = 512


class PartsOfOthers(CopiesCheck):
    """An image and a piece cut out of it, found by the network's features."""

    code = "KS305"
    title = "Parts of other images"
    severity = "warning"
    cost = "full"
    advice = "Keep one of each, or put them into one group."
    sentence = "These {n} images show the same: one is a part of another, or taken again."

    def run(self, context: CheckContext) -> CheckResult:
        """Look for parts."""
        if context.features is None:
            return self.not_applicable("There are no features of these images.")
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        pairs, values = find_parts(context)
        return self.result(group_findings(self, context, pairs, values), len(context.features.rows))


def find_parts(context: CheckContext) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find pairs of images of which one is a part of the other, and not linked as copies.

    Returns
    -------
    pairs : int64 array (m, 2)
        Rows of the dataset.
    values : float64 array (m,)
        How alike they are, 0 to 1.
    """
    return context.once("parts", lambda: _find(context, find_duplicates(context)))


def _find(context: CheckContext, copies: Copies) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    assert context.features is not None
    rows, vectors = context.features
    linked = Groups(len(context.dataset))
    for pairs in copies.pairs.values():
        linked.join(pairs)
    likely = rows[nearest_pairs(vectors, NEIGHBOURS, FEATURES, context.feature_blocks)]
    sizes = np.stack((context.measurements.height, context.measurements.width), axis=1)
    kept, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    with single_threaded_opencv():
        for at in range(0, len(likely), BATCH):
            some = likely[at : at + BATCH]
            some = some[linked.apart(some)]
            if not len(some):
                continue
            different, where = np.unique(some, return_inverse=True)
            small = context.measurements.small(different)[where].reshape(-1, 2, 64, 64)
            size = [[(int(h), int(w)) for h, w in pair] for pair in sizes[some]]

            def look(i: int, small=small, size=size) -> float:  # type: ignore[no-untyped-def]
                (one, other), (here, there) = small[i], size[i]
                first = likeness_of_part(one, other, here, there)
                return first if first >= CLOSE else likeness_of_part(other, one, there, here)

            close = np.fromiter(map_ordered(look, range(len(some)), count_cores()), np.float64)
            good = close >= CLOSE
            linked.join(some[good])
            kept.append(some[good])
            values.append(close[good])
    return np.concatenate(kept), np.concatenate(values)
