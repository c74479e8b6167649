"""Find pairs of similar 64-bit hashes without comparing all pairs, and link rows into sets.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with
multi-index hashing"). A hash is split into four bands of 16 bits. If two hashes differ in at most
r bits, they differ in at most floor(r / 4) bits in one band at least. So each band is looked up
with all keys within that distance, and the candidates are compared in full: the result is exact.

Thirty frames of one video give 435 pairs of candidates, and 29 comparisons link all of them. As in
Boruvka's algorithm (1926) each set proposes its most promising pair with another set; the pairs of
one round are compared together. A set whose comparisons fail proposes one more pair for each
failure, so that the number of rounds grows with the logarithm of the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.images.hashes import hamming

__all__ = ["Compared", "DisjointSets", "find_near_pairs", "link_pairs"]

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


Pairs = NDArray[np.int64]


class DisjointSets:
    """Disjoint sets of rows, merged many pairs at a time (union-find).

    Parameters
    ----------
    n : int
        Number of rows; each row starts as a set of its own.
    """

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def roots(self) -> NDArray[np.int64]:
        """Return the smallest row of each row's set, int64 (n,)."""
        while True:
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return self._parent
            self._parent = above

    def separate(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Return whether the rows of each pair, int64 (m, 2), are in different sets."""
        root = self.roots()
        different: NDArray[np.bool_] = root[pairs[:, 0]] != root[pairs[:, 1]]
        return different

    def merge(self, pairs: Pairs) -> None:
        """Merge the sets of each pair, int64 (m, 2)."""
        parent = self.roots()
        while len(pairs):
            one, other = parent[pairs[:, 0]], parent[pairs[:, 1]]
            low, high = np.minimum(one, other), np.maximum(one, other)
            # Several pairs may move one set: the smallest row wins, the others are repeated.
            np.minimum.at(parent, high, low)
            parent = self.roots()
            pairs = pairs[parent[pairs[:, 0]] != parent[pairs[:, 1]]]

    def groups(self) -> list[NDArray[np.int64]]:
        """Return the sets of two or more rows, ascending, ordered by their first row."""
        root = self.roots()
        order = np.argsort(root, kind="stable")
        starts = np.flatnonzero(np.diff(root[order], prepend=-1))
        return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


class Compared(NamedTuple):
    """The result of comparing pairs."""

    confirmed: NDArray[np.bool_]  # whether each pair is linked
    values: NDArray[np.float64]  # correlation of each pair


def link_pairs(
    sets: DisjointSets,
    pairs: Pairs,
    compare: Callable[[Pairs], Compared],
    report: Callable[[int], None] = lambda decided: None,
) -> tuple[Pairs, NDArray[np.float64]]:
    """Merge the sets of all pairs that a comparison confirms.

    A pair whose rows are in one set already is not compared. The resulting sets are the same as if
    all pairs were compared.

    - `pairs`: int64 array (m, 2); the most promising first.
    - `compare`: compares pairs, int64 (k, 2), sorted by their first row.
    - `report`: called with the number of pairs that are decided.

    Returns
    -------
    pairs : int64 array (k, 2)
        The confirmed pairs.
    values : float64 array (k,)
        Their values.
    """
    linked, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    failures, count = np.zeros(len(sets.roots()), np.int64), len(pairs)
    while len(pairs := pairs[sets.separate(pairs)]):
        report(count - len(pairs))
        chosen = _proposed(sets.roots(), pairs, failures)
        some = pairs[chosen]
        some = some[np.lexsort((some[:, 1], some[:, 0]))]
        found = compare(some)
        confirmed = some[found.confirmed]
        sets.merge(confirmed)
        linked.append(confirmed)
        values.append(found.values[found.confirmed])
        failed = some[~found.confirmed].reshape(-1)
        failures += np.bincount(failed, minlength=len(failures))
        pairs = pairs[~chosen]
    report(count)
    return np.concatenate(linked), np.concatenate(values)


def _proposed(
    roots: NDArray[np.int64], pairs: Pairs, failures: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which pairs are among the first of a set of theirs: one, and one more per failure."""
    allowed = 1 + np.bincount(roots, failures, len(roots)).astype(np.int64)
    ends = roots[pairs].reshape(-1)  # the sets of both rows of each pair
    order = np.argsort(ends, kind="stable")
    number = np.arange(len(order))
    starts = np.diff(ends[order], prepend=-1) != 0
    rank = number - np.maximum.accumulate(np.where(starts, number, 0))  # of a pair within a set
    chosen: NDArray[np.bool_] = np.zeros(len(pairs), np.bool_)
    chosen[order[rank < allowed[ends[order]]] // 2] = True
    return chosen
