"""The pictures whose features are most alike, without comparing all with all.

Some pictures are taken as centres, and every picture belongs to those centres that it is nearest
to; only pictures with a centre in common are compared (an inverted file, as in Jegou, Douze and
Schmid 2011, "Product quantization for nearest neighbor search", without the quantization). With
twice the root of n centres the work grows as n to the power of 1.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight import chance

__all__ = ["nearest_pairs"]

# Below this all are compared with all: it takes a second.
ALL_UP_TO = 4_000

# Numbers a picture's features are brought to, by a random projection that is the same for all
# (Johnson and Lindenstrauss): angles stay within some hundredths.
WIDTH = 256

# Centres that a picture belongs to. A picture and its crop share one of them in 99 of 100 cases.
CENTRES_EACH = 4

BLOCK = 512


def nearest_pairs(
    vectors: NDArray[np.float32], neighbours: int, least: float, seed: int = 0
) -> NDArray[np.int64]:
    """Find for each picture the others with the most similar features.

    Parameters
    ----------
    vectors : float32 array (n, width)
        Features. They are standardised here: each number to mean 0 and deviation 1.
    neighbours : int
        How many for each.
    least : float
        The cosine similarity that a pair must have.
    seed : int
        Of the projection and of the choice of centres.

    Returns
    -------
    int64 array (m, 2)
        Pairs, the first less than the second, none twice.
    """
    unit = _standardised(vectors, seed)
    n = len(unit)
    if n < 2:
        return np.empty((0, 2), np.int64)
    if n <= ALL_UP_TO:
        pairs = [_pairs_within(unit, np.arange(n), neighbours, least)]
    else:
        pairs = [_pairs_within(unit, members, neighbours, least) for members in _cells(unit, seed)]
    found = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(found, axis=0).reshape(-1, 2)


def _standardised(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    deviation[deviation < 1e-6] = np.inf  # what never changes says nothing
    projection = None
    if vectors.shape[1] > WIDTH:
        draws = chance.uniforms(seed, "check neighbours", 0, np.arange(vectors.shape[1]), WIDTH)
        projection = np.where(draws < 0.5, -1, 1).astype(np.float32) / np.sqrt(WIDTH)
    unit = np.empty((len(vectors), min(WIDTH, vectors.shape[1])), np.float32)
    for at in range(0, len(vectors), BLOCK):
        block = (vectors[at : at + BLOCK] - mean) / deviation
        block /= np.linalg.norm(block, axis=1, keepdims=True) + 1e-9
        unit[at : at + BLOCK] = block if projection is None else block @ projection
    unit /= np.linalg.norm(unit, axis=1, keepdims=True) + 1e-9
    return unit


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
