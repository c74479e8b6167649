"""Search for duplicates, shared by all checks of duplicates and by the split.

Four kinds, each wider than the one before:

``identical``   the same file, byte for byte
``reencoded``   the same image at another quality, format, size or brightness
``rotated``     the same image rotated by a multiple of 90 degrees, mirrored, or both
``near``        nearly the same image: the next photograph of a burst, or slightly cropped

Identical files have one content digest. Candidates for the next two come from an index of
perceptual hashes (:mod:`.hash_index`) and are confirmed by all bits of the hash and by the
correlation of small images. Candidates for the last come from the same index with a larger radius
and are confirmed by registration (:mod:`.registration`). Where all images share a background, it is
removed first (:mod:`.shared_background`). Pairs of images that are linked already, through others,
are not compared (:mod:`.linking`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.context import CheckContext, delayed
from kindsight.checks.duplicates.comparing import Orientation, PairComparison, SharedBackground
from kindsight.checks.duplicates.linking import Compared, DisjointSets, find_near_pairs, link_pairs
from kindsight.checks.measurements import SINGLE_TONE
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

# Maximum candidates, per image and in total at least.
PAIRS_PER_IMAGE, PAIRS_AT_LEAST = 20, 1_000_000

CHUNK = 1 << 16
"""Pairs whose hashes are compared at once, at 64 bytes each."""

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset."""

    # By kind: pairs of rows that link each group of duplicates; not all pairs of a group. Images
    # that are duplicates of a narrower kind are represented by the first of them.
    pairs: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[np.float64]]  # correlation of each pair, 0 to 1
    n: int  # number of rows of the dataset
    complete: bool = True  # false if there were too many candidates to compare all of them

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


class _Candidates(NamedTuple):
    """Pairs that may be duplicates of a kind, the most promising first."""

    kind: str
    orientation: Orientation  # of the second image of each pair
    pairs: Pairs


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
    return _represented(links, complete=search.complete and search.comparison.complete)


def _represented(links: _Links, *, complete: bool) -> Duplicates:
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
    return Duplicates(pairs, values, n, complete)


class _Search:
    """Finds candidates, and links those that a comparison confirms."""

    def __init__(self, context: CheckContext, comparison: PairComparison) -> None:
        self._context, self.comparison = context, comparison
        self._hashes = context.measurements.hash
        self.complete = True
        self._decided = self._total = 0
        self._progress = None if context.progress is None else delayed(context.progress)

    def run(self, comparable: NDArray[np.bool_]) -> _Links:
        """Return all duplicates: identical files, and others among comparable images."""
        links = _Links(DisjointSets(len(self._context.dataset)))
        rows = self._link_identical(links)
        rows = self._link_equal_hashes(links, rows[comparable[rows]])
        candidates = self._candidates(rows)
        self._total = sum(len(some.pairs) for some in candidates)
        if self._context.together is None:
            self._link(links, candidates)
        else:
            links = self._link_between(links, candidates, self._context.together)
        self._report(self._total - self._decided)
        return links

    def _link_identical(self, links: _Links) -> NDArray[np.int64]:
        """Link identical files; return the first row of each content."""
        first: dict[str, int] = {}
        pairs = []
        for row in self._context.readable_rows.tolist():
            digest = str(self._context.dataset.digest[row])
            if first.setdefault(digest, row) != row:
                pairs.append((first[digest], row))
        links.add("identical", np.array(pairs, np.int64).reshape(-1, 2), np.ones(len(pairs)))
        return np.fromiter(first.values(), np.int64, len(first))

    def _link_equal_hashes(self, links: _Links, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Link images of equal hashes; return the first row of each hash and the unlinked rows."""
        if not len(rows):
            return rows
        _, first, which = np.unique(
            self._hashes[rows], axis=0, return_index=True, return_inverse=True
        )
        leader = rows[first[which.reshape(-1)]]
        again = leader != rows
        pairs = np.sort(np.stack((leader[again], rows[again]), axis=1), axis=1)
        self._link(links, [_Candidates("reencoded", ORIENTATIONS[0], pairs)])
        unlinked = links.sets.separate(np.stack((leader, rows), axis=1))
        remaining: NDArray[np.int64] = rows[~again | unlinked]
        return remaining

    def _candidates(self, rows: NDArray[np.int64]) -> list[_Candidates]:
        """Return the pairs of similar hashes, narrower kinds first."""
        hashes = self._hashes[rows]
        at_most = max(PAIRS_AT_LEAST, PAIRS_PER_IMAGE * len(rows))
        near = find_near_pairs(hashes[:, 0].copy(), NEAR_BITS, at_most=at_most)
        self.complete &= near.radius >= NEAR_BITS
        copies = near.pairs[near.distance <= LOW_BITS]
        found = [_promising("reencoded", ORIENTATIONS[0], rows, hashes, copies)]
        for orientation in ORIENTATIONS[1:]:
            oriented = oriented_hashes(hashes, orientation)
            mirrored = find_near_pairs(
                hashes[:, 0].copy(), LOW_BITS, oriented[:, 0].copy(), at_most
            )
            self.complete &= mirrored.radius >= LOW_BITS
            found.append(_promising("rotated", orientation, rows, hashes, mirrored.pairs))
        return [*found, _promising("near", ORIENTATIONS[0], rows, hashes, near.pairs)]

    def _link_between(
        self, base: _Links, candidates: list[_Candidates], together: NDArray[np.int64]
    ) -> _Links:
        """Link the images of different sets, and those through which they may be linked.

        Most candidates are frames of one video, within one set. They matter only in the groups that
        links between sets lead to.
        """
        inside = [together[some.pairs[:, 0]] == together[some.pairs[:, 1]] for some in candidates]
        between = copy.deepcopy(base)
        self._link(between, _chosen(candidates, [~some for some in inside]))
        possible = copy.deepcopy(between.sets)
        for some in _chosen(candidates, inside):
            possible.merge(some.pairs)
        root = possible.roots()
        mixed = np.zeros(len(root), np.bool_)
        mixed[root[together != together[root]]] = True
        needed = [
            some & mixed[root[pairs.pairs[:, 0]]]
            for some, pairs in zip(inside, candidates, strict=True)
        ]
        links = copy.deepcopy(base)
        self._link(links, _chosen(candidates, needed), between)
        return links

    def _link(
        self, links: _Links, candidates: Iterable[_Candidates], known: _Links | None = None
    ) -> None:
        """Link the candidates that a comparison confirms, after the known links of their kind."""
        for kind, orientation, pairs in candidates:
            if known is not None:
                links.add(kind, *known.joined(kind))
            before = self._decided

            def compare(some: Pairs, kind: str = kind, at: Orientation = orientation) -> Compared:
                if kind == "near":
                    return self.comparison.near(some)
                return self.comparison.copies(some, at)

            def report(decided: int, before: int = before) -> None:
                self._report(before + decided - self._decided)

            links.add(kind, *link_pairs(links.sets, pairs, compare, report))

    def _report(self, more: int) -> None:
        self._decided += more
        if self._progress is not None and self._total:
            self._progress("duplicates", self._decided, self._total)


def _chosen(candidates: list[_Candidates], masks: list[NDArray[np.bool_]]) -> list[_Candidates]:
    return [
        some._replace(pairs=some.pairs[mask]) for some, mask in zip(candidates, masks, strict=True)
    ]


def _promising(
    kind: str, orientation: Orientation, rows: NDArray[np.int64], hashes: NDArray[np.uint64],
    pairs: Pairs,
) -> _Candidates:  # fmt: skip
    """Return candidates by the Hamming distance of all bits, copies only where it is small.

    `pairs` are indices into `rows` and `hashes`.
    """
    oriented = oriented_hashes(hashes, orientation)
    distance = np.concatenate(
        [
            hamming(hashes[some[:, 0]], oriented[some[:, 1]])
            for some in (pairs[at : at + CHUNK] for at in range(0, max(1, len(pairs)), CHUNK))
        ]
    )
    order = np.argsort(distance, kind="stable")
    if kind != "near":
        order = order[distance[order] <= ALL_BITS]
    return _Candidates(kind, orientation, rows[pairs[order]])
