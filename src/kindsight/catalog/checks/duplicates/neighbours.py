"""The pictures whose features are most alike, without comparing all with all.

Some pictures are taken as centres, and every picture belongs to those centres that it is nearest
to; only pictures with a centre in common are compared (an inverted file, as in Jegou, Douze and
Schmid 2011, "Product quantization for nearest neighbor search", without the quantization). With
twice the root of n centres the work grows as n to the power of 1.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import chance
from kindsight.catalog.checks.spaces import principal_space

__all__ = ["nearest_pairs"]

# Below this all are compared with all: it takes a second.
ALL_UP_TO = 4_000

# Principal components that are compared. Each is divided by the root of its deviation: what varies
# most is what kinds of pictures differ in, and less of it is left to tell pictures of one kind
# apart by. Of parts of sign-digits, whose hands stand before one wall, 99 of 100 are then among the
# first ten neighbours; by the features as they are, 89.
COMPONENTS = 384

# Centres that a picture belongs to. Every part of sign-digits and the whole share one of eight; of
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
    """Find for each picture the others with the most similar features.

    Parameters
    ----------
    vectors : float32 array (n, width)
        Features.
    neighbours : int
        How many for each.
    least : float
        The cosine similarity that a pair must have, in the space that they are compared in.
    blocks : sequence of slice, optional
        As for :func:`kindsight.catalog.checks.spaces.principal_space`.
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
    # On few pictures threads wait for each other longer than they work.
    with threadpool_limits(1 if n <= ALL_UP_TO else None, user_api="blas"):
        unit = _directions(vectors, blocks, seed)
        cells = [np.arange(n)] if n <= ALL_UP_TO else _cells(unit, seed)
        pairs = [_pairs_within(unit, members, neighbours, least) for members in cells]
    found = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(found, axis=0).reshape(-1, 2)


def _directions(
    vectors: NDArray[np.float32], blocks: Sequence[slice], seed: int
) -> NDArray[np.float32]:
    """Return each picture's direction from the middle of all: float32 (n, components), length 1."""
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
