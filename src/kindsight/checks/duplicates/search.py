"""Search for duplicates, shared by all checks of duplicates and by the split.

There are four kinds, each wider than the one before:

``identical``   the same file, byte for byte
``reencoded``   the same image at another quality, format, size or brightness
``rotated``     the same image rotated by a multiple of 90 degrees, mirrored, or both
``near``        nearly the same image: the next photograph of a burst, or slightly cropped

Identical files have one content digest. Candidates for the next two come from an index of
perceptual hashes (:mod:`.hash_index`) and are confirmed by all bits of the hash and by the
correlation of small images. Candidates for the last come from the same index with a larger radius
and are confirmed by registration (:mod:`.registration`). Where all images share a background, it is
removed first (:mod:`.comparing`). Pairs of images that are linked already, through others,
are not compared (:mod:`.linking`).

Candidates are linked as they are found, so that memory does not grow with their number. Of a
hundred frames of one scene, few pairs are compared. Where many pairs are similar without being
duplicates (images with a shared background), the number of comparisons per image is limited.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.context import CheckContext, delayed
from kindsight.checks.duplicates.comparing import Orientation, PairComparison, SharedBackground
from kindsight.checks.duplicates.hash_index import NearPairSearch, Recall
from kindsight.checks.duplicates.linking import Compared, link_pairs
from kindsight.checks.measurements import SINGLE_TONE
from kindsight.dataset.columns.convert import take_rows
from kindsight.dataset.splits.disjoint_sets import DisjointSets, first_rows
from kindsight.images.hashes import ORIENTATIONS, hamming, oriented_hashes
from kindsight.threads import single_threaded_opencv

__all__ = ["DUPLICATE_KINDS", "Duplicates", "differing_groups", "find_duplicates"]

DUPLICATE_KINDS = ("identical", "reencoded", "rotated", "near")
"""The kinds of duplicates, from the narrowest to the widest."""

# Contrast below which an image is blank and has no duplicates.
MIN_CONTRAST = 1.5

# Maximum Hamming distance in the 64 lowest bits. In cats-dogs and sign-digits re-encoded images
# differ in at most 5 bits, brightened ones in 7; other images differ in 2 or more.
LOW_BITS = 7

# Maximum Hamming distance in all 255 bits. Re-encoded images differ in at most 22, others in 36 or
# more.
ALL_BITS = 28

# The same as LOW_BITS for near-duplicates: photographs of a burst (shifted by 2%, rotated by 1.5
# degrees, scaled by 5%) differ in up to 11 bits in 98 of 100 cases.
NEAR_BITS = 11

# Maximum number of compared pairs of a kind: per image, and the minimum of the total. Pairs that
# are already linked through others do not count.
PAIRS_PER_IMAGE, PAIRS_AT_LEAST = 20, 1_000_000

HELD_PAIRS = 2_000_000
"""Maximum number of candidates in memory, at 20 bytes each. If a search finds fewer, they are kept
for the pass with a larger radius."""

Pairs = NDArray[np.int64]
AnyPairs = NDArray[np.int64] | NDArray[np.int32]


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset."""

    # By kind: pairs of rows that link each group of duplicates; not all pairs of a group. Images
    # that are duplicates of a narrower kind are represented by the first of them.
    pairs: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[np.float64]]  # correlation of each pair, 0 to 1
    n: int  # number of rows of the dataset
    complete: bool = True  # false if there were too many candidates to find or compare all of them
    # Recall of the candidates, by kind, where too many hashes are similar to find them all
    recall: dict[str, Recall] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)  # similar pairs not compared, by kind

    def groups(self, kinds: Sequence[str] = DUPLICATE_KINDS) -> list[NDArray[np.int64]]:
        """Return the groups of rows linked by some kinds of duplicates.

        - `kinds`: some of :data:`DUPLICATE_KINDS`.

        Returns
        -------
        list of int64 arrays
            Two or more rows each, ascending.
        """
        sets = DisjointSets(self.n)
        for kind in kinds:
            sets.merge(self.pairs[kind])
        return sets.groups()


class _Stage(NamedTuple):
    """A search for the duplicates of a kind."""

    kind: str
    orientation: Orientation  # of the second image of each pair
    radii: tuple[int, ...] = (LOW_BITS,)  # maximum distances in the 64 lowest bits, ascending


STAGES = (
    _Stage("reencoded", ORIENTATIONS[0]),
    *(_Stage("rotated", orientation) for orientation in ORIENTATIONS[1:]),
    _Stage("near", ORIENTATIONS[0], (LOW_BITS, NEAR_BITS)),
)
"""The searches, narrower kinds first."""


class _Found(NamedTuple):
    """Pairs of rows with similar hashes."""

    pairs: NDArray[np.int32]  # (m, 2), at 8 bytes each
    low: NDArray[np.uint8]  # Hamming distance in the 64 lowest bits
    every: NDArray[np.uint8]  # Hamming distance in all 255 bits

    @classmethod
    def joined(cls, blocks: Sequence[_Found]) -> _Found:
        nothing = cls(np.empty((0, 2), np.int32), np.empty(0, np.uint8), np.empty(0, np.uint8))
        pairs, low, every = map(np.concatenate, zip(nothing, *blocks, strict=True))
        return cls(pairs, low, every)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> _Found:
        return _Found(self.pairs[chosen], self.low[chosen], self.every[chosen])


@dataclass
class _Links:
    """The duplicates found so far."""

    sets: DisjointSets
    pairs: dict[str, list[Pairs]] = field(
        default_factory=lambda: {kind: [] for kind in DUPLICATE_KINDS}
    )
    values: dict[str, list[NDArray[np.float64]]] = field(
        default_factory=lambda: {kind: [] for kind in DUPLICATE_KINDS}
    )

    def add(self, kind: str, pairs: Pairs, values: NDArray[np.float64]) -> None:
        self.pairs[kind].append(pairs)
        self.values[kind].append(values)
        self.sets.merge(pairs)

    def joined(self, kind: str) -> tuple[Pairs, NDArray[np.float64]]:
        """Return the pairs of a kind and their values."""
        pairs, values = self.pairs[kind], self.values[kind]
        return (
            np.concatenate([np.empty((0, 2), np.int64), *pairs]),
            np.concatenate([np.empty(0), *values]),
        )


def find_duplicates(context: CheckContext) -> Duplicates:
    """Return the duplicates among the images of a context; computed once per context."""
    return context.cached("duplicates", lambda: _find(context))


def differing_groups(
    context: CheckContext, values_of: Callable[[Sequence[int]], Sequence[str]]
) -> Iterator[tuple[str, tuple[int, ...], Sequence[str]]]:
    """Yield (kind, rows, values) of each group of copies with several values, once.

    - `values_of`: returns the distinct values of some rows, such as their labels.

    The kind is the narrowest with this group: ``"reencoded"``, ``"rotated"`` or ``"near"``; groups
    of identical files are left out.
    """
    duplicates, digests = find_duplicates(context), context.dataset.digest
    reported: set[tuple[int, ...]] = set()
    for end, kind in enumerate(DUPLICATE_KINDS[1:], 2):
        for rows in duplicates.groups(DUPLICATE_KINDS[:end]):
            group = tuple(rows.tolist())
            values = values_of(group)
            identical = len({digests[row] for row in group}) == 1
            if len(values) > 1 and not identical and group not in reported:
                reported.add(group)
                yield kind, group, values


def _find(context: CheckContext) -> Duplicates:
    measured = context.measurements
    # The hash of a blank image is noise.
    comparable = (measured.contrast >= MIN_CONTRAST) & (measured.uniformity < SINGLE_TONE)
    readable = context.readable_rows
    background = SharedBackground(measured.small_images, readable[comparable[readable]])
    search = _Search(context, PairComparison(measured.small_images, background, len(readable)))
    with single_threaded_opencv():
        links = search.run(comparable)
    return _represented(links, search)


def _represented(links: _Links, search: _Search) -> Duplicates:
    """Return the links, each set of narrower duplicates represented by its first image.

    The groups of a kind therefore do not depend on the pairs by which they were linked.
    """
    n = len(links.sets.roots())
    sets, pairs, values = DisjointSets(n), {}, {}
    for kind in DUPLICATE_KINDS:
        found, correlation = links.joined(kind)
        different = sets.separate(found)
        pairs[kind] = np.sort(sets.roots()[found[different]], axis=1)
        values[kind] = correlation[different]
        sets.merge(pairs[kind])
    left_out = dict(search.left_out)
    if search.comparison.left_out:
        left_out["near"] = left_out.get("near", 0) + search.comparison.left_out
    complete = not search.recall and not left_out
    return Duplicates(pairs, values, n, complete, search.recall, left_out)


class _Search:
    """Finds candidates, and links those that a comparison confirms."""

    def __init__(self, context: CheckContext, comparison: PairComparison) -> None:
        self._context, self.comparison = context, comparison
        self._hashes = context.measurements.hash
        self._rows = context.readable_rows
        self._held: dict[tuple[Orientation, int], _Found] = {}
        self._recalls: dict[_Stage, Recall] = {}
        self._left: dict[str, int] = {}  # pairs that may still be compared, by kind
        self.left_out: dict[str, int] = {}
        self._step, self._steps, self._done = 0, len(STAGES), 0
        self._progress = None if context.progress is None else delayed(context.progress)

    def run(self, comparable: NDArray[np.bool_]) -> _Links:
        """Return all duplicates: identical files, and others among comparable images."""
        links = _Links(DisjointSets(len(self._context.dataset)))
        self._rows = self._link_identical(links)
        self._rows = self._rows[comparable[self._rows]]
        self._start_comparing()
        self._rows = self._link_equal_hashes(links)
        if self._context.together is None:
            self._link_all(links)
        else:
            links = self._link_between(links, self._context.together)
        self._report(1.0)
        return links

    @property
    def recall(self) -> dict[str, Recall]:
        """The recall of candidates, by kind, where not all are found."""
        found: dict[str, Recall] = {}
        for stage, recall in self._recalls.items():
            before = found.get(stage.kind, Recall(0, 0, 0))
            pairs, confirmed = before.pairs + recall.pairs, before.found + recall.found
            found[stage.kind] = Recall(recall.hashes, pairs, confirmed)
        return found

    def _link_identical(self, links: _Links) -> NDArray[np.int64]:
        """Link identical files; return the first row of each content."""
        rows, digests = self._context.readable_rows, self._context.dataset.digest
        every = len(rows) == len(digests)
        first = rows[first_rows(digests if every else take_rows(digests, rows))]
        again = first != rows
        links.add("identical", np.stack((first, rows), axis=1)[again], np.ones(again.sum()))
        different: NDArray[np.int64] = rows[~again]
        return different

    def _link_equal_hashes(self, links: _Links) -> NDArray[np.int64]:
        """Link images of equal hashes; return the first row of each hash and the unlinked rows."""
        rows, hashes = self._rows, self._hashes[self._rows]
        if not len(rows):
            return rows
        order = np.lexsort(hashes.T[::-1])
        ordered = hashes[order]
        new = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
        leader = np.empty_like(rows)
        leader[order] = rows[order[np.flatnonzero(new)[np.cumsum(new) - 1]]]
        again = leader != rows
        found = link_pairs(
            links.sets, np.stack((leader, rows), axis=1)[again], self._comparison(STAGES[0])
        )
        links.add("reencoded", *found)
        unlinked = links.sets.separate(np.stack((leader, rows), axis=1))
        remaining: NDArray[np.int64] = rows[~again | unlinked]
        return remaining

    def _start_comparing(self) -> None:
        most = max(PAIRS_AT_LEAST, PAIRS_PER_IMAGE * len(self._rows))
        self._left = dict.fromkeys(DUPLICATE_KINDS, most)

    def _link_all(
        self, links: _Links, chosen: Callable[[AnyPairs], NDArray[np.bool_]] | None = None,
        known: _Links | None = None,
    ) -> None:  # fmt: skip
        """Link the chosen candidates, after the known links of their kind."""
        self._start_comparing()
        for stage in STAGES:
            if known is not None:
                links.add(stage.kind, *known.joined(stage.kind))
            waiting = _Found.joined([])
            for found in self._candidates(stage):
                some = found if chosen is None else found.where(chosen(found.pairs))
                waiting = _Found.joined([waiting, some])
                if len(waiting.low) > HELD_PAIRS:
                    waiting = waiting.where(links.sets.separate(waiting.pairs))
                if len(waiting.low) > HELD_PAIRS // 2:
                    self._decide(links, stage, waiting)
                    waiting = _Found.joined([])
                if stage.kind in self.left_out:
                    break
            self._decide(links, stage, waiting)
            self._step += 1

    def _link_between(self, base: _Links, together: NDArray[np.int64]) -> _Links:
        """Link the images of different sets, and those through which they may be linked.

        Most candidates are frames of one video, within one set. They matter only in the groups that
        links between sets lead to.
        """

        def inside(pairs: AnyPairs) -> NDArray[np.bool_]:
            return np.asarray(together[pairs[:, 0]] == together[pairs[:, 1]], np.bool_)

        self._steps = 3 * len(STAGES)
        between = copy.deepcopy(base)
        self._link_all(between, lambda pairs: ~inside(pairs))
        possible = copy.deepcopy(between.sets)
        for stage in STAGES:
            for found in self._candidates(stage):
                possible.merge(found.pairs[inside(found.pairs)])
            self._step += 1
        root = possible.roots()
        mixed = np.zeros(len(root), np.bool_)
        mixed[root[together != together[root]]] = True
        links = copy.deepcopy(base)
        self._link_all(links, lambda pairs: inside(pairs) & mixed[root[pairs[:, 0]]], between)
        return links

    def _candidates(self, stage: _Stage) -> Iterator[_Found]:
        """Yield the pairs of similar hashes in blocks, those of the narrowest radius first."""
        below = -1
        for radius in stage.radii:
            for found in self._similar(stage, radius):
                if stage.kind == "near":
                    yield found.where(found.low > below)
                else:
                    yield found.where(found.every <= ALL_BITS)
            below = radius

    def _similar(self, stage: _Stage, radius: int) -> Iterator[_Found]:
        """Yield the pairs of hashes within a radius; a few are kept for the next pass."""
        key = stage.orientation, radius
        if key in self._held:
            yield self._held[key]
            return
        low = self._hashes[self._rows, 0]
        search = NearPairSearch(low, radius, self._oriented(stage.orientation))
        if not search.complete:
            self._recalls[stage] = search.recall
        count, waiting = 0, 0
        blocks: list[_Found] = []
        for block in search:
            self._report(search.fraction / 2)
            pairs = np.stack((block.first, block.second), axis=1)
            ascending = pairs[:, 0] < pairs[:, 1]
            pairs = pairs[ascending]
            if not len(pairs):
                continue
            every = self._distances(pairs, stage.orientation)
            blocks.append(
                _Found(self._rows[pairs].astype(np.int32), block.distance[ascending], every)
            )
            count, waiting = count + len(pairs), waiting + len(pairs)
            # Yielded in blocks if they are many, else at the end.
            if waiting >= HELD_PAIRS // 4:
                yield _Found.joined(blocks)
                blocks, waiting = [], 0
        last = _Found.joined(blocks)
        if waiting == count:
            self._held[key] = last
        yield last

    def _oriented(self, orientation: Orientation) -> NDArray[np.uint64] | None:
        """Return the lowest 64 bits of all images in an orientation; None for the original one."""
        if not any(orientation):
            return None
        return oriented_hashes(self._hashes[self._rows], orientation)[:, 0].copy()

    def _distances(self, pairs: NDArray[np.int32], orientation: Orientation) -> NDArray[np.uint8]:
        """Return the Hamming distance of all bits of pairs of indices."""
        one, other = self._rows[pairs].T
        oriented = oriented_hashes(self._hashes[other], orientation)
        return hamming(self._hashes[one], oriented).astype(np.uint8)

    def _decide(self, links: _Links, stage: _Stage, found: _Found) -> None:
        """Link those candidates that a comparison confirms."""
        order = np.lexsort((found.pairs[:, 1], found.pairs[:, 0], found.every))
        pairs = found.pairs[order].astype(np.int64)

        def report(decided: int) -> None:
            self._report((1 + decided / max(1, len(pairs))) / 2)

        links.add(stage.kind, *link_pairs(links.sets, pairs, self._comparison(stage), report))

    def _comparison(self, stage: _Stage) -> Callable[[Pairs], Compared]:
        """Return the comparison function of a stage, which ignores pairs beyond the limit."""

        def compare(pairs: Pairs) -> Compared:
            some = pairs[: self._left[stage.kind]]
            self._left[stage.kind] -= len(some)
            if missing := len(pairs) - len(some):
                self.left_out[stage.kind] = self.left_out.get(stage.kind, 0) + missing
            if not len(some):
                return Compared(np.zeros(len(pairs), np.bool_), np.zeros(len(pairs)))
            if stage.kind == "near":
                found = self.comparison.near(some)
            else:
                found = self.comparison.copies(some, stage.orientation)
            return Compared(
                np.pad(found.confirmed, (0, missing)), np.pad(found.values, (0, missing))
            )

        return compare

    def _report(self, fraction: float) -> None:
        """Report progress within a stage as a number of images."""
        total = len(self._rows)
        self._done = max(self._done, int(total * (self._step + fraction) / self._steps))
        if self._progress is not None and total:
            self._progress("duplicates", min(total, self._done), total)
