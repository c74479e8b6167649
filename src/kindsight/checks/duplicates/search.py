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
removed first (:mod:`.shared_background`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.hash_index import find_near_pairs
from kindsight.checks.duplicates.registration import best_shifts
from kindsight.checks.duplicates.shared_background import (
    MIN_RESIDUAL,
    MIN_ROTATED_RESIDUAL,
    Orientation,
    SharedBackground,
    aligned_correlations,
    correlations,
    orient_images,
    residual_correlations,
)
from kindsight.checks.measurements import SINGLE_TONE
from kindsight.images.hashes import ORIENTATIONS, hamming, oriented_hashes
from kindsight.threads import single_threaded_opencv

__all__ = ["DUPLICATE_KINDS", "DisjointSets", "Duplicates", "differing_groups", "find_duplicates"]

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

# Minimum correlation of the small images. Re-encoded images reach 0.95, also at a third of the
# size.
MIN_CORRELATION = 0.9

# The same as LOW_BITS for near-duplicates: photographs of a burst (shifted by 2%, rotated by 1.5
# degrees, scaled by 5%) differ in up to 11 bits in 98 of 100 cases.
NEAR_BITS = 11

# Minimum correlation of the best translation at 32 x 32 pixels. Bursts and crops reach 0.49; three
# in four other candidates are below.
MIN_SHIFT_CORRELATION = 0.48

# Minimum correlation after registration. Bursts and small crops reach 0.91; other images reach at
# most 0.55 in cats-dogs and 0.89 in sign-digits, where all hands have one background.
MIN_ALIGNED_CORRELATION = 0.9

# Maximum pairs that are registered, and maximum candidates, per image and in total at least.
REGISTERED_PER_IMAGE, REGISTERED_AT_LEAST = 4, 10_000
PAIRS_PER_IMAGE, PAIRS_AT_LEAST = 20, 1_000_000

BATCH = 2_048


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

    def separate(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether the rows of each pair, int64 (m, 2), are in different sets."""
        root = self.roots()
        different: NDArray[np.bool_] = root[pairs[:, 0]] != root[pairs[:, 1]]
        return different

    def merge(self, pairs: NDArray[np.int64]) -> None:
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


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset."""

    # by kind: pairs of rows that link each group of duplicates; not all pairs of a group
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


@dataclass
class _Search:
    """The duplicates found so far."""

    context: CheckContext
    sets: DisjointSets
    background: SharedBackground
    pairs: dict[str, list[NDArray[np.int64]]] = field(
        default_factory=lambda: {kind: [] for kind in DUPLICATE_KINDS}
    )
    values: dict[str, list[NDArray[np.float64]]] = field(
        default_factory=lambda: {kind: [] for kind in DUPLICATE_KINDS}
    )
    complete: bool = True

    def add(self, kind: str, pairs: NDArray[np.int64], values: NDArray[np.floating]) -> None:
        self.pairs[kind].append(pairs)
        self.values[kind].append(values.astype(np.float64))
        self.sets.merge(pairs)

    def small_pairs(self, pairs: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the small images of pairs, uint8 (m, 2, 64, 64), each loaded once."""
        rows, index = np.unique(pairs.reshape(-1), return_inverse=True)
        small = self.context.measurements.small_images(rows)
        return small[index].reshape(len(pairs), 2, 64, 64)


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
    n = len(context.dataset)
    measured = context.measurements
    # The hash of a blank image is noise.
    comparable = (measured.contrast >= MIN_CONTRAST) & (measured.uniformity < SINGLE_TONE)
    readable = context.readable_rows
    background = SharedBackground(measured.small_images, readable[comparable[readable]])
    search = _Search(context, DisjointSets(n), background)
    rows = _link_identical(search)
    rows = rows[comparable[rows]]
    with single_threaded_opencv():
        rows = _link_equal_hashes(search, rows)
        hashes = measured.hash[rows]
        at_most = max(PAIRS_AT_LEAST, PAIRS_PER_IMAGE * len(rows))
        found = find_near_pairs(hashes[:, 0].copy(), NEAR_BITS, at_most=at_most)
        search.complete &= found.radius >= NEAR_BITS
        pairs = rows[found.pairs]
        _link_copies(search, pairs[found.distance <= LOW_BITS], ORIENTATIONS[0], "reencoded")
        for orientation in ORIENTATIONS[1:]:
            oriented = oriented_hashes(hashes, orientation)
            mirrored = find_near_pairs(
                hashes[:, 0].copy(), LOW_BITS, oriented[:, 0].copy(), at_most
            )
            search.complete &= mirrored.radius >= LOW_BITS
            _link_copies(search, rows[mirrored.pairs], orientation, "rotated")
        _link_near(search, pairs, found.distance)
    return Duplicates(
        {kind: _joined(found, (0, 2), np.int64) for kind, found in search.pairs.items()},
        {kind: _joined(found, (0,), np.float64) for kind, found in search.values.items()},
        n,
        search.complete,
    )


def _joined(arrays: list[NDArray], shape: tuple[int, ...], dtype: type) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(arrays) if arrays else np.empty(shape, dtype)


def _link_identical(search: _Search) -> NDArray[np.int64]:
    """Link identical files; return the first row of each content."""
    first: dict[str, int] = {}
    pairs = []
    for row in search.context.readable_rows.tolist():
        digest = str(search.context.dataset.digest[row])
        if first.setdefault(digest, row) != row:
            pairs.append((first[digest], row))
    if pairs:
        search.add("identical", np.array(pairs, np.int64), np.ones(len(pairs)))
    return np.fromiter(first.values(), np.int64, len(first))


def _link_equal_hashes(search: _Search, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Link images of equal hashes; return the first row of each hash and the unlinked rows."""
    if not len(rows):
        return rows
    hashes = search.context.measurements.hash[rows]
    _, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    leader = rows[first[which.reshape(-1)]]
    again = leader != rows
    pairs = np.sort(np.stack((leader[again], rows[again]), axis=1), axis=1)
    _link_copies(search, pairs, ORIENTATIONS[0], "reencoded")
    unlinked = search.sets.separate(np.stack((leader, rows), axis=1))
    remaining: NDArray[np.int64] = rows[~again | unlinked]
    return remaining


def _link_copies(
    search: _Search, pairs: NDArray[np.int64], orientation: Orientation, kind: str
) -> None:
    """Link the pairs whose hashes and small images agree in an orientation of the second."""
    hashes = search.context.measurements.hash
    for at in range(0, len(pairs), BATCH):
        some = pairs[at : at + BATCH]
        some = some[search.sets.separate(some)]
        distance = hamming(hashes[some[:, 0]], oriented_hashes(hashes[some[:, 1]], orientation))
        some = some[distance <= ALL_BITS]
        if not len(some):
            continue
        small = search.small_pairs(some)
        values = correlations(small[:, 0], orient_images(small[:, 1], orientation))
        confirmed = values >= MIN_CORRELATION
        ambiguous = np.flatnonzero(confirmed)[search.background.ambiguous(some[confirmed])]
        if len(ambiguous):
            minimum = MIN_ROTATED_RESIDUAL if any(orientation) else MIN_RESIDUAL
            residual = residual_correlations(search.background, small[ambiguous], orientation)
            confirmed[ambiguous] = residual >= minimum
        search.add(kind, some[confirmed], values[confirmed])


def _link_near(search: _Search, pairs: NDArray[np.int64], distance: NDArray[np.uint8]) -> None:
    """Link the pairs that correlate after registration."""
    candidates, downs, rights, values = [pairs[:0]], [], [], []
    order = np.argsort(distance, kind="stable")
    for at in range(0, len(pairs), BATCH):
        some = pairs[order[at : at + BATCH]]
        some = some[search.sets.separate(some)]
        if not len(some):
            continue
        rows, index = np.unique(some, return_inverse=True)
        small = search.context.measurements.small_images(rows)
        shift = best_shifts(small, index.reshape(-1, 2))
        likely = shift.correlation >= MIN_SHIFT_CORRELATION
        candidates.append(some[likely])
        downs.append(shift.down[likely])
        rights.append(shift.right[likely])
        values.append(shift.correlation[likely])
    if len(candidates) == 1:
        return
    likely_pairs = np.concatenate(candidates)
    down, right = np.concatenate(downs), np.concatenate(rights)
    best = np.argsort(-np.concatenate(values), kind="stable")
    limit = max(REGISTERED_AT_LEAST, REGISTERED_PER_IMAGE * len(search.context.dataset))
    search.complete &= len(best) <= limit
    for at in range(0, min(len(best), limit), BATCH // 8):
        chosen = best[at : at + BATCH // 8]
        # Images that are linked through others need no registration.
        chosen = chosen[search.sets.separate(likely_pairs[chosen])]
        if not len(chosen):
            continue
        some = likely_pairs[chosen]
        ambiguous = search.background.ambiguous(some).tolist()
        starts = zip(
            search.small_pairs(some), down[chosen].tolist(), right[chosen].tolist(), ambiguous,
            strict=True,
        )  # fmt: skip
        aligned = np.array(
            aligned_correlations(list(starts), search.background, MIN_ALIGNED_CORRELATION),
            np.float64,
        )
        confirmed = aligned >= MIN_ALIGNED_CORRELATION
        search.add("near", some[confirmed], aligned[confirmed])
