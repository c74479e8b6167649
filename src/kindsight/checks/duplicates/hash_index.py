"""Finding hashes that differ in few bits, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with
multi-index hashing"). A hash of 64 bits is four bands of 16. If two hashes differ in at most r
bits, then in one band at least they differ in at most r / 4, rounded down: so it suffices to look
up, band by band, the few keys that near. What that finds is compared in full, so that nothing is
missed and nothing wrong is kept.
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

# Comparisons that may be made for each hash. Where hashes are so alike that more would be needed,
# the radius is made smaller: time stays in proportion to their number.
PER_HASH = 2_000
AT_LEAST = 20_000_000

# Comparisons at once: bounds the memory, at some 40 bytes each.
CHUNK = 1 << 20

# Keys looked up at once: of few hashes, those that differ in many ways.
LOOKED_UP = 1 << 16

# Where even hashes with a band in common are too many, each is compared with this many.
NEIGHBOURS = 64


class NearPairs(NamedTuple):
    """Pairs of hashes that are near each other.

    Attributes
    ----------
    pairs : int64 array (m, 2)
        The first is less than the second; in order, and no pair occurs twice.
    apart : uint8 array (m,)
        In how many bits they differ.
    radius : int
        All pairs that differ in so many bits or fewer are among them; -1 where not even all that
        are equal could be compared.
    """

    pairs: NDArray[np.int64]
    apart: NDArray[np.uint8]
    radius: int


def find_near_pairs(
    hashes: NDArray[np.uint64],
    radius: int,
    others: NDArray[np.uint64] | None = None,
    at_most: int | None = None,
) -> NearPairs:
    """Find the pairs of images whose hashes differ in few bits.

    Parameters
    ----------
    hashes : uint64 array (n,)
    radius : int
        How many bits at most, 0 to 15.
    others : uint64 array (n,), optional
        The hashes of the same images when they are turned: the hash of one is then compared with
        that of the other, turned.
    at_most : int, optional
        How many pairs are wanted; where there are more, the radius is made smaller.

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
    together = max(1, LOOKED_UP // max(1, len(hashes)))
    masks = [every[at : at + together] for at in range(0, len(every), together)]
    for band in range(BANDS):
        table = _Table(second_keys[:, band], second)
        for some in masks:
            keys = (first_keys[:, band, None] ^ some).reshape(-1)
            for place, other in table.lookup(keys, window, others is None):
                # Each pair is met from both sides, and an image meets itself.
                one = place // len(some)
                apart = hamming(hashes[one][:, None], second[other][:, None])
                near = np.flatnonzero((one < other) & (apart <= found.limit))
                known = _found_before(first_keys, second_keys, one[near], other[near], band, reach)
                near = near[~known]
                found.add(one[near], other[near], apart[near])
    return found.result(complete=not window)


class _Found:
    """Pairs that were found; where they become too many, those furthest apart are dropped."""

    def __init__(self, limit: int, at_most: int | None) -> None:
        self.limit = limit
        self._at_most = at_most
        self._parts: list[NDArray[np.int64]] = []
        self._count = 0

    def add(
        self, one: NDArray[np.int64], other: NDArray[np.int64], apart: NDArray[np.int64]
    ) -> None:
        self._parts.append(np.stack((one, other, apart), axis=1))
        self._count += len(one)
        if self._at_most is not None and self._count > 2 * self._at_most:
            self._shrink()

    def _shrink(self) -> None:
        rows = np.concatenate(self._parts) if self._parts else np.empty((0, 3), np.int64)
        if self._at_most is not None and len(rows) > self._at_most:
            upto = np.cumsum(np.bincount(rows[:, 2], minlength=self.limit + 1))
            # At least the equal ones stay.
            self.limit = max(0, int(np.searchsorted(upto, self._at_most, side="right")) - 1)
            rows = rows[rows[:, 2] <= self.limit]
        self._parts, self._count = [rows], len(rows)

    def result(self, *, complete: bool) -> NearPairs:
        self._shrink()
        (rows,) = self._parts
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        return NearPairs(rows[:, :2], rows[:, 2].astype(np.uint8), self.limit if complete else -1)


def _found_before(
    first: NDArray[np.uint16],
    second: NDArray[np.uint16],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    band: int,
    reach: int,
) -> NDArray[np.bool_]:
    """Say which pairs an earlier band has found already."""
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
    """Count how many comparisons a search would make."""
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
    """Which images have which key."""

    def __init__(self, keys: NDArray[np.uint16], hashes: NDArray[np.uint64]) -> None:
        # Among equal keys by the whole hash, so that those next to each other are alike.
        self._order = np.lexsort((hashes, keys))
        self._counts = np.bincount(keys, minlength=KEYS)
        self._starts = np.cumsum(self._counts) - self._counts

    def lookup(
        self, keys: NDArray[np.uint16], window: int, own: bool
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Give pairs (row of `keys`, row of the table) with the same key, some at a time.

        With a `window`, only so many for each: where the keys are the table's own, those that
        stand next to it.
        """
        counts, starts = self._counts[keys], self._starts[keys]
        if window and own:
            place = np.empty(len(keys), np.int64)
            place[self._order] = np.arange(len(keys))
            ends = np.minimum(starts + counts, place + 1 + window)
            starts = np.maximum(starts, place - window)
            counts = ends - starts
        elif window:
            counts = np.minimum(counts, window)
        rows = np.flatnonzero(counts)
        ends = np.cumsum(counts[rows])
        at = 0
        while at < len(rows):
            done = ends[at - 1] if at else 0
            upto = max(at + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
            part = rows[at:upto]
            many = counts[part]
            within = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
            yield np.repeat(part, many), self._order[np.repeat(starts[part], many) + within]
            at = upto
