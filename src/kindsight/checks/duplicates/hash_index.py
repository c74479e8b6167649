"""Find pairs of 64-bit hashes within a small Hamming distance, without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with
multi-index hashing"). A hash is split into four bands of 16 bits. If two hashes differ in at most
r bits, they differ in at most floor(r / 4) bits in one band at least. So each band is looked up
with all keys within that distance, and the candidates are compared in full: the result is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.images.hashes import hamming

__all__ = ["NearPairs", "find_near_pairs"]

BANDS = 4
BITS = 16
KEYS = 1 << BITS

# Maximum comparisons per hash, and in total at least. If more would be needed, the radius is
# reduced, so that the time remains proportional to the number of hashes.
PER_HASH = 2_000
AT_LEAST = 20_000_000

# Comparisons at once, at about 40 bytes each.
CHUNK = 1 << 20

# Keys looked up at once.
LOOKUP_CHUNK = 1 << 16

# Neighbours that each hash is compared with if even equal keys are too many.
NEIGHBOURS = 64


class NearPairs(NamedTuple):
    """Pairs of hashes within a Hamming distance."""

    pairs: NDArray[np.int64]  # sorted, without repetition; the first index is less than the second
    distance: NDArray[np.uint8]  # Hamming distance of each pair
    # all pairs within this distance are included; -1 if not even all equal hashes could be compared
    radius: int


def find_near_pairs(
    hashes: NDArray[np.uint64],
    radius: int,
    others: NDArray[np.uint64] | None = None,
    at_most: int | None = None,
) -> NearPairs:
    """Return the pairs of images whose hashes are within a Hamming distance.

    - `hashes`: uint64 array (n,).
    - `radius`: maximum Hamming distance, 0 to 15.
    - `others`: uint64 array (n,); hashes of the same images, rotated or mirrored: pairs (i, j)
      compare ``hashes[i]`` with ``others[j]``. Default: `hashes`.
    - `at_most`: maximum number of pairs; the radius is reduced if there are more.

    Returns
    -------
    NearPairs
    """
    second = hashes if others is None else others
    first_keys, second_keys = _keys(hashes), _keys(second)
    budget = max(AT_LEAST, PER_HASH * len(hashes))
    reach = radius // BANDS
    while reach >= 0 and _comparisons(first_keys, second_keys, reach) > budget:
        reach -= 1
    window = 0 if reach >= 0 else NEIGHBOURS
    reach = max(reach, 0)
    found = _Found(min(radius, BANDS * reach + BANDS - 1), at_most)
    every = np.array(_masks(reach), np.uint16)
    together = max(1, LOOKUP_CHUNK // max(1, len(hashes)))
    masks = [every[at : at + together] for at in range(0, len(every), together)]
    for band in range(BANDS):
        table = _Table(second_keys[:, band], second)
        for some in masks:
            keys = (first_keys[:, band, None] ^ some).reshape(-1)
            for key, other in table.lookup(keys, window, others is None):
                # Each pair is found from both sides, and each image finds itself.
                one = key // len(some)
                distance = hamming(hashes[one][:, None], second[other][:, None])
                near = np.flatnonzero((one < other) & (distance <= found.limit))
                known = _found_before(first_keys, second_keys, one[near], other[near], band, reach)
                near = near[~known]
                found.add(one[near], other[near], distance[near])
    return found.result(complete=not window)


class _Found:
    """Pairs found so far; if there are too many, those of the largest distance are dropped."""

    def __init__(self, limit: int, at_most: int | None) -> None:
        self.limit = limit
        self._at_most = at_most
        self._chunks: list[NDArray[np.int32]] = []
        self._count = 0

    def add(
        self, one: NDArray[np.int64], other: NDArray[np.int64], distance: NDArray[np.int64]
    ) -> None:
        self._chunks.append(np.stack((one, other, distance), axis=1).astype(np.int32))
        self._count += len(one)
        if self._at_most is not None and self._count > 2 * self._at_most:
            self._shrink()

    def _shrink(self) -> None:
        rows = np.concatenate(self._chunks) if self._chunks else np.empty((0, 3), np.int32)
        if self._at_most is not None and len(rows) > self._at_most:
            upto = np.cumsum(np.bincount(rows[:, 2], minlength=self.limit + 1))
            # Equal hashes are never dropped.
            self.limit = max(0, int(np.searchsorted(upto, self._at_most, side="right")) - 1)
            rows = rows[rows[:, 2] <= self.limit]
        self._chunks, self._count = [rows], len(rows)

    def result(self, *, complete: bool) -> NearPairs:
        self._shrink()
        (rows,) = self._chunks
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        pairs = rows[:, :2].astype(np.int64)
        return NearPairs(pairs, rows[:, 2].astype(np.uint8), self.limit if complete else -1)


def _found_before(
    first: NDArray[np.uint16],
    second: NDArray[np.uint16],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    band: int,
    reach: int,
) -> NDArray[np.bool_]:
    """Return which pairs an earlier band has found already."""
    before = np.zeros(len(one), np.bool_)
    for earlier in range(band):
        different = (first[one, earlier] ^ second[other, earlier]).astype(np.uint64)
        before |= hamming(different[:, None], np.zeros((1, 1), np.uint64)) <= reach
    return before


def _keys(hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    shifts = np.arange(BANDS, dtype=np.uint64) * np.uint64(BITS)
    keys: NDArray[np.uint16] = (hashes[:, None] >> shifts).astype(np.uint16)
    return keys


def _masks(reach: int) -> list[np.uint16]:
    """Return the keys with at most `reach` bits set."""
    return [
        np.uint16(sum(1 << bit for bit in bits))
        for count in range(reach + 1)
        for bits in combinations(range(BITS), count)
    ]


def _comparisons(first: NDArray[np.uint16], second: NDArray[np.uint16], reach: int) -> int:
    """Return the number of comparisons of a search."""
    total = 0
    every = np.arange(KEYS)
    for band in range(BANDS):
        one = np.bincount(first[:, band], minlength=KEYS)
        other = np.bincount(second[:, band], minlength=KEYS)
        used = np.flatnonzero(one)
        for mask in _masks(reach):
            total += int(one[used] @ other[every[used] ^ mask])
    return total


class _Table:
    """The images of each key."""

    def __init__(self, keys: NDArray[np.uint16], hashes: NDArray[np.uint64]) -> None:
        # Equal keys are sorted by the whole hash, so that neighbours are similar.
        self._order = np.lexsort((hashes, keys))
        self._counts = np.bincount(keys, minlength=KEYS)
        self._starts = np.cumsum(self._counts) - self._counts

    def lookup(
        self, keys: NDArray[np.uint16], window: int, own: bool
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs (index into `keys`, row of the table) with the same key, in chunks.

        With a `window`, at most that many per key: if the keys are the table's `own`, the nearest
        in its order.
        """
        counts, starts = self._counts[keys], self._starts[keys]
        if window and own:
            rank = np.empty(len(keys), np.int64)
            rank[self._order] = np.arange(len(keys))
            ends = np.minimum(starts + counts, rank + 1 + window)
            starts = np.maximum(starts, rank - window)
            counts = ends - starts
        elif window:
            counts = np.minimum(counts, window)
        rows = np.flatnonzero(counts)
        ends = np.cumsum(counts[rows])
        at = 0
        while at < len(rows):
            done = ends[at - 1] if at else 0
            upto = max(at + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
            chunk = rows[at:upto]
            many = counts[chunk]
            within = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
            yield np.repeat(chunk, many), self._order[np.repeat(starts[chunk], many) + within]
            at = upto
