"""Find all pairs of similar 64-bit hashes without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with
multi-index hashing"). A hash has two halves of 32 bits, and each half two bands of 16. If two
hashes differ in at most r bits, they differ in at most r // 2 in one half, and there in at most
r // 4 in one band. The hashes are sorted once by each band. Two hashes are compared if the first
bits of the band differ in at most r // 4 bits, first by the half, then in full. The result is
exact.

Among sorted hashes, those to compare are contiguous blocks, which are shared among threads. Pairs
are yielded in blocks of bounded size. Beyond a maximum number of comparisons, which many similar
hashes can reach, fewer bands are looked up; the recall is then measured on a sample of the hashes,
each compared with all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.images.hashes import popcount
from kindsight.threads import count_cores, map_ordered

__all__ = ["NearPairSearch", "NearPairs", "Recall"]

BANDS = 4
BITS = 16
"""Bits of a band."""

KEY_COST = 20_000
"""Cost of handling one key in Python, as a number of comparisons."""

COMPARED_PER_HASH = 200_000
"""Maximum comparisons per hash: 0.3 ms on one core, less than a tenth of reading a photograph. 11
bits of 10 million random hashes need 42,000."""

COMPARED_AT_LEAST = 2_000_000_000
"""Minimum of the total number of comparisons, for few hashes."""

TILE = 1 << 20
"""Comparisons per task, at 6 bytes each; also the maximum number of pairs per block."""

NEIGHBOURS = 64
"""Neighbours in sorted order that each hash is compared with if too many hashes have equal
bands."""

SAMPLE = 1_000
"""Hashes on which recall is measured, fewer if this takes more than RECALL_COMPARISONS."""

RECALL_COMPARISONS = 4_000_000_000

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int32]


class NearPairs(NamedTuple):
    """A block of pairs within a Hamming distance."""

    first: Rows  # indices into the first hashes
    second: Rows  # indices into the second hashes
    distance: NDArray[np.uint8]


class Recall(NamedTuple):
    """The recall of a search, measured on a sample of the hashes, each compared with all."""

    hashes: int  # sampled
    pairs: int  # within the distance
    found: int  # of these pairs

    @property
    def value(self) -> float:
        """The fraction of the pairs that were found, 0 to 1; 1 if there are no pairs."""
        return self.found / self.pairs if self.pairs else 1.0


@dataclass(frozen=True)
class _Table:
    """Hashes sorted by one band, its partner in the same half, and the other half."""

    band: int
    order: Rows  # index of each sorted hash
    hashes: Hashes  # sorted; bits 48-63 are the band, 32-47 its partner
    halves: NDArray[np.uint32]  # their first 32 bits
    starts: NDArray[np.int64]  # of each key, and the end

    @classmethod
    def of(cls, hashes: Hashes, band: int, bits: int) -> _Table:
        wide = _by_band(hashes, band)
        order = np.argsort(wide, kind="stable").astype(np.int32)
        wide = wide[order]
        counts = np.bincount((wide >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(band, order, wide, (wide >> np.uint64(32)).astype(np.uint32), starts)


class _Task(NamedTuple):
    """Keys of the first table, and parts of the hashes of a large one and of its neighbours."""

    keys: NDArray[np.int64]
    first: slice = slice(None)
    second: slice = slice(None)


class NearPairSearch:
    """All pairs of hashes within a Hamming distance: an iterable of blocks.

    No pair is yielded twice, unless `radius` is -1.

    Parameters
    ----------
    hashes : uint64 array (n,)
    radius : int
        Maximum Hamming distance, 0 to 15.
    others : uint64 array (m,), optional
        Pairs (i, j) then compare ``hashes[i]`` with ``others[j]``. Default: `hashes`, each pair
        once, with i less than j.

    Attributes
    ----------
    radius : int
        All pairs within this distance are included; less than requested if too many hashes are
        similar, -1 if not even all equal ones could be compared.
    fraction : float
        The fraction of the search that is done, 0 to 1.
    """

    def __init__(self, hashes: Hashes, radius: int, others: Hashes | None = None) -> None:
        self._first, self._own = hashes, others is None
        self._second = hashes if others is None else others
        self._wanted, self.fraction = radius, 0.0
        self._bits = _best_bits(len(self._first), len(self._second), radius // BANDS)
        self._reach = self._affordable(radius // BANDS)
        self.radius = min(radius, BANDS * self._reach + BANDS - 1) if self._reach >= 0 else -1

    @property
    def complete(self) -> bool:
        """Whether all pairs within the requested distance are found."""
        return self.radius == self._wanted

    @cached_property
    def recall(self) -> Recall:
        """The recall within the requested distance."""
        count = min(SAMPLE, len(self._first), RECALL_COMPARISONS // max(1, len(self._second)))
        rows = np.unique(np.linspace(0, max(0, len(self._first) - 1), count).astype(np.int64))
        pairs = found = 0
        for row in rows.tolist() if len(self._first) else ():
            differing = self._second ^ self._first[row]
            near = popcount(differing) <= self._wanted
            if self._own:
                near[row] = False
            pairs += int(np.count_nonzero(near))
            found += int(np.count_nonzero(self._is_found(differing[near], BANDS)))
        return Recall(len(rows), pairs, found)

    def __iter__(self) -> Iterator[NearPairs]:
        for band in range(BANDS):
            first = _Table.of(self._first, band, self._bits)
            second = first if self._own else _Table.of(self._second, band, self._bits)
            if self._reach < 0:
                yield from self._neighbours(first, second)
                continue
            compare = partial(self._compare, first, second)
            yield from map_ordered(compare, self._tasks(first, second), count_cores())

    def _affordable(self, reach: int) -> int:
        """Return the bits by which keys may differ, at most `reach`; -1 for none."""
        budget = max(COMPARED_AT_LEAST, COMPARED_PER_HASH * len(self._first))
        counts = [
            [
                np.bincount(_keys(hashes, band, self._bits), minlength=1 << self._bits)
                for hashes in ((self._first,) if self._own else (self._first, self._second))
            ]
            for band in range(BANDS)
        ]
        while reach >= 0:
            masks = _masks(self._bits, reach)
            needed = sum(_comparisons(some[0], some[-1], masks, self._own) for some in counts)
            if needed <= budget:
                break
            reach -= 1
        return reach

    def _tasks(self, first: _Table, second: _Table) -> Iterator[_Task]:
        """Yield tasks of about TILE comparisons each."""
        masks = _masks(self._bits, self._reach)
        ones, others = np.diff(first.starts), np.diff(second.starts)
        keys = np.flatnonzero(ones)
        neighbours = _neighbour_counts(keys, others, masks, self._own)
        keys, neighbours = keys[neighbours > 0], neighbours[neighbours > 0]
        ends = np.cumsum(ones[keys] * neighbours)
        at = 0
        while at < len(keys):
            done = int(ends[at - 1]) if at else 0
            self.fraction = (first.band + done / int(ends[-1])) / BANDS
            upto = int(np.searchsorted(ends, done + TILE, side="right"))
            if upto > at:
                yield _Task(keys[at:upto])
            else:
                upto = at + 1
                wide = min(TILE, int(neighbours[at]))
                for i in range(0, int(ones[keys[at]]), step := max(1, TILE // wide)):
                    for j in range(0, int(neighbours[at]), wide):
                        yield _Task(keys[at:upto], slice(i, i + step), slice(j, j + wide))
            at = upto

    def _compare(self, first: _Table, second: _Table, task: _Task) -> NearPairs:
        """Return the pairs of a task that no earlier band has found."""
        masks, limit = _masks(self._bits, self._reach), self._wanted // 2
        ones, others = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for key in task.keys.tolist():
            near = key ^ masks
            near = near[near >= key] if self._own else near
            starts = second.starts[near]
            many = second.starts[near + 1] - starts
            skipped = np.cumsum(many) - many
            place = (np.repeat(starts - skipped, many) + np.arange(int(many.sum())))[task.second]
            begin, end, _ = task.first.indices(int(first.starts[key + 1] - first.starts[key]))
            begin, end = begin + int(first.starts[key]), end + int(first.starts[key])
            differing = first.halves[begin:end, None] ^ second.halves[place][None]
            hits = np.flatnonzero(popcount(differing) <= limit)
            one, other = np.divmod(hits, max(1, len(place)))
            ones.append(begin + one)
            others.append(place[other])
        return self._chosen(first, second, np.concatenate(ones), np.concatenate(others))

    def _chosen(
        self, first: _Table, second: _Table, one: NDArray[np.int64], other: NDArray[np.int64]
    ) -> NearPairs:
        """Return the pairs of sorted positions that are near, once each, as indices."""
        if self._own:
            one, other = one[one < other], other[one < other]
        differing = first.hashes[one] ^ second.hashes[other]
        distance = popcount(differing)
        near = distance <= self._wanted
        near[near] = ~self._is_found(_undo_band(differing[near], first.band), first.band)
        left, right = first.order[one[near]], second.order[other[near]]
        if self._own:
            left, right = np.minimum(left, right), np.maximum(left, right)
        return NearPairs(left, right, distance[near])

    def _is_found(self, differing: Hashes, bands: int) -> NDArray[np.bool_]:
        """Return whether the first bands find each pair, given the bits in which it differs."""
        found = np.zeros(len(differing), np.bool_)
        if self._reach < 0:
            return found
        for band in range(bands):
            half = (differing >> np.uint64(32 * (band // 2))).astype(np.uint32)
            key = _keys(differing, band, self._bits).astype(np.uint16)
            found |= (popcount(half) <= self._wanted // 2) & (popcount(key) <= self._reach)
        return found

    def _neighbours(self, first: _Table, second: _Table) -> Iterator[NearPairs]:
        """Yield the near pairs among the nearest in sorted order, if their band is the same."""
        places = np.searchsorted(second.hashes, first.hashes)
        for at in range(0, len(places), TILE // NEIGHBOURS):
            one = np.arange(at, min(len(places), at + TILE // NEIGHBOURS))
            offsets = np.arange(1, NEIGHBOURS + 1) - (0 if self._own else NEIGHBOURS // 2)
            other = (one if self._own else places[one])[:, None] + offsets
            inside = (other >= 0) & (other < len(second.hashes))
            one, other = np.broadcast_to(one[:, None], other.shape)[inside], other[inside]
            equal = (first.hashes[one] ^ second.hashes[other]) >> np.uint64(48) == 0
            yield self._chosen(first, second, one[equal], other[equal])


def _by_band(hashes: Hashes, band: int) -> Hashes:
    """Return hashes with a band first, then its partner, then the other half."""
    half = hashes if band >= 2 else _exchange_halves(hashes)
    return half if band % 2 else _exchange_bands(half)


def _undo_band(hashes: Hashes, band: int) -> Hashes:
    """Undo :func:`_by_band`."""
    half = hashes if band % 2 else _exchange_bands(hashes)
    return half if band >= 2 else _exchange_halves(half)


def _exchange_halves(hashes: Hashes) -> Hashes:
    exchanged: Hashes = (hashes << np.uint64(32)) | (hashes >> np.uint64(32))
    return exchanged


def _exchange_bands(half: Hashes) -> Hashes:
    """Exchange the two bands of the first half."""
    high, low = half >> np.uint64(48), (half >> np.uint64(32)) & np.uint64(0xFFFF)
    rest = half & np.uint64(0xFFFFFFFF)
    exchanged: Hashes = (low << np.uint64(48)) | (high << np.uint64(32)) | rest
    return exchanged


def _keys(hashes: Hashes, band: int, bits: int) -> NDArray[np.int64]:
    """Return the first bits of a band."""
    values = (hashes >> np.uint64(BITS * band)) & np.uint64((1 << BITS) - 1)
    return (values >> np.uint64(BITS - bits)).astype(np.int64)


def _best_bits(first: int, second: int, reach: int) -> int:
    """Return the number of first bits of a band that form the key: fewer for fewer hashes."""

    def cost(bits: int) -> float:
        masks = sum(math.comb(bits, count) for count in range(reach + 1))
        return min(first, 1 << bits) * KEY_COST + first * second * masks / (1 << bits)

    return min(range(1, BITS + 1), key=cost)


def _masks(bits: int, reach: int) -> NDArray[np.int64]:
    """Return the keys with at most `reach` bits set."""
    return np.array(
        [
            sum(1 << bit for bit in some)
            for count in range(min(reach, bits) + 1)
            for some in combinations(range(bits), count)
        ],
        np.int64,
    )


def _neighbour_counts(
    keys: NDArray[np.int64], counts: NDArray[np.int64], masks: NDArray[np.int64], own: bool
) -> NDArray[np.int64]:
    """Return the number of hashes with which those of each key are compared."""
    total = np.zeros(len(keys), np.int64)
    for mask in masks.tolist():
        near = keys ^ mask
        total += np.where(near >= keys, counts[near], 0) if own else counts[near]
    return total


def _comparisons(
    ones: NDArray[np.int64], others: NDArray[np.int64], masks: NDArray[np.int64], own: bool
) -> int:
    """Return the number of comparisons of a band."""
    keys = np.flatnonzero(ones)
    return int(ones[keys] @ _neighbour_counts(keys, others, masks, own))
