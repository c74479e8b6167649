"""Which images are copies of which: the search that all checks of duplicates share.

Four kinds, each wider than the one before:

``identical``  the same file, byte for byte
``stored``     the same image stored anew: another quality, format or size, darker or brighter
``turned``     the same image mirrored, turned or both
``near``       nearly the same image: of a burst, or a little cropped

The first is told by the content digest. For the next two, perceptual hashes that differ in few of
their 64 lowest bits are found by an index (:mod:`.near_hashes`), compared in all 256 bits, and
then as small images. The last is found by the same index with a wider radius, and confirmed by
laying the images upon each other (:mod:`.registration`). Where many images look alike, what
all have in common does not count (:mod:`.shared_look`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.disjoint_sets import Groups
from kindsight.checks.duplicates.hash_index import find_near_pairs
from kindsight.checks.duplicates.registration import best_shifts
from kindsight.checks.duplicates.shared_background import (
    LEFT,
    LEFT_OF_TURNED,
    SharedBackground,
    Turn,
    close_looks,
    correlations,
    left_alike,
    turned,
)
from kindsight.checks.measurements import SINGLE_TONE
from kindsight.images.hashes import ORIENTATIONS, hamming, oriented_hashes
from kindsight.threads import single_threaded_opencv

__all__ = ["KINDS", "Copies", "find_duplicates"]

KINDS = ("identical", "stored", "turned", "near")
"""The kinds of copies, from the narrowest to the widest."""

# The grey levels' standard deviation below which there is nothing to compare.
FAINT = 1.5

# Of the 64 lowest bits. In cats-dogs and sign-digits an image that was stored anew differs in 5
# at most, made brighter in 7, and other images (of sign-digits, hands before the same wall) from
# 2 on: this only chooses what is looked at further.
LOW_BITS = 7

# Of all 255: stored anew 22 at most, other images 36 and more.
ALL_BITS = 28

# The correlation of the small images: stored anew 0.95 and more, also at a third of the size.
SAME = 0.9

# For near-duplicates, of the 64 lowest bits: photographs of a burst (moved by 2%, turned by 1.5
# degrees, enlarged by 5%) differ in up to 11 in 98 of 100 cases.
BURST_BITS = 11

# A first look at 32 x 32 pixels. Bursts and crops give 0.49 and more; other images that come as
# far as this are below in three of four cases.
QUICK = 0.48

# The close look. Bursts and small crops give 0.91 and more, other images 0.55 at most in
# cats-dogs and 0.89 in sign-digits, whose hands stand before one wall.
CLOSE = 0.9

# Pairs that are looked at, closely and at all, for each image: time stays in proportion.
CLOSE_EACH, CLOSE_AT_LEAST = 4, 10_000
PAIRS_EACH, PAIRS_AT_LEAST = 20, 1_000_000

BATCH = 2_048


@dataclass(frozen=True)
class Copies:
    """Which images are copies of which.

    Parameters
    ----------
    pairs : dict of str to int64 array (m, 2)
        By kind: pairs of rows of the dataset that were found to be copies and that together link
        each group; not every pair of a group is among them.
    values : dict of str to float64 array (m,)
        How alike the images of each pair are, 0 to 1.
    n : int
        Rows of the dataset.
    complete : bool
        False where images are so alike in outline that not all pairs could be looked at.
    """

    pairs: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[np.float64]]
    n: int
    complete: bool = True

    def groups(self, kinds: Sequence[str] = KINDS) -> list[NDArray[np.int64]]:
        """Return groups of rows that are linked by copies of some kinds.

        Parameters
        ----------
        kinds : sequence of str
            Some of :data:`KINDS`.

        Returns
        -------
        list of int64 arrays
            Each of two rows or more, ascending.
        """
        joined = Groups(self.n)
        for kind in kinds:
            joined.join(self.pairs[kind])
        return joined.of_several()


@dataclass
class _Search:
    """What has been found so far, among rows that differ in content."""

    context: CheckContext
    groups: Groups
    look: SharedBackground
    pairs: dict[str, list[NDArray[np.int64]]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )
    values: dict[str, list[NDArray[np.float64]]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )
    complete: bool = True

    def keep(self, kind: str, pairs: NDArray[np.int64], values: NDArray[np.floating]) -> None:
        self.pairs[kind].append(pairs)
        self.values[kind].append(values.astype(np.float64))
        self.groups.join(pairs)

    def small(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the small images of rows, each fetched once."""
        different, where = np.unique(rows, return_inverse=True)
        return self.context.measurements.small(different)[where]


def find_duplicates(context: CheckContext) -> Copies:
    """Find the copies among the images of a context; found once, and then remembered."""
    return context.once("copies", lambda: _find(context))


def _find(context: CheckContext) -> Copies:
    n = len(context.dataset)
    measured = context.measurements
    # A hash of nothing is noise.
    shows = (measured.contrast >= FAINT) & (measured.plain < SINGLE_TONE)
    readable = context.readable_rows
    look = SharedBackground(measured.small, readable[shows[readable]])
    search = _Search(context, Groups(n), look)
    rows = _different(search)
    rows = rows[shows[rows]]
    with single_threaded_opencv():
        rows = _same_hash(search, rows)
        hashes = measured.hash[rows]
        at_most = max(PAIRS_AT_LEAST, PAIRS_EACH * len(rows))
        found = find_near_pairs(hashes[:, 0].copy(), BURST_BITS, at_most=at_most)
        search.complete &= found.radius >= BURST_BITS
        pairs = rows[found.pairs]
        narrow = found.apart <= LOW_BITS
        _confirm_stored(search, pairs[narrow], ORIENTATIONS[0], "stored")
        for turn in ORIENTATIONS[1:]:
            turned = oriented_hashes(hashes, turn)
            mirrored = find_near_pairs(hashes[:, 0].copy(), LOW_BITS, turned[:, 0].copy(), at_most)
            search.complete &= mirrored.radius >= LOW_BITS
            _confirm_stored(search, rows[mirrored.pairs], turn, "turned")
        _confirm_near(search, pairs, found.apart)
    return Copies(
        {kind: _joined(parts, (0, 2), np.int64) for kind, parts in search.pairs.items()},
        {kind: _joined(parts, (0,), np.float64) for kind, parts in search.values.items()},
        n,
        search.complete,
    )


def _joined(parts: list[NDArray], shape: tuple[int, ...], dtype: type) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.empty(shape, dtype)


def _different(search: _Search) -> NDArray[np.int64]:
    """Link identical files; return the first row of each content."""
    first: dict[str, int] = {}
    pairs = []
    for row in search.context.readable_rows.tolist():
        digest = str(search.context.dataset.digest[row])
        if first.setdefault(digest, row) != row:
            pairs.append((first[digest], row))
    if pairs:
        search.keep("identical", np.array(pairs, np.int64), np.ones(len(pairs)))
    return np.fromiter(first.values(), np.int64, len(first))


def _same_hash(search: _Search, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Link images of the very same hash; return the first row of each hash."""
    if not len(rows):
        return rows
    hashes = search.context.measurements.hash[rows]
    _, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    leader = rows[first[which.reshape(-1)]]
    again = leader != rows
    pairs = np.sort(np.stack((leader[again], rows[again]), axis=1), axis=1)
    _confirm_stored(search, pairs, ORIENTATIONS[0], "stored")
    # What has the hash of another image and is none of its copies is looked at like the rest.
    alone = search.groups.apart(np.stack((leader, rows), axis=1))
    kept: NDArray[np.int64] = rows[~again | alone]
    return kept


def _confirm_stored(search: _Search, pairs: NDArray[np.int64], turn: Turn, kind: str) -> None:
    """Keep the pairs whose hashes agree in all bits and whose small images agree."""
    hashes = search.context.measurements.hash
    for at in range(0, len(pairs), BATCH):
        some = pairs[at : at + BATCH]
        some = some[search.groups.apart(some)]
        apart = hamming(hashes[some[:, 0]], oriented_hashes(hashes[some[:, 1]], turn))
        some = some[apart <= ALL_BITS]
        if not len(some):
            continue
        small = search.small(some.reshape(-1)).reshape(len(some), 2, 64, 64)
        alike = correlations(small[:, 0], turned(small[:, 1], turn))
        keep = alike >= SAME
        doubted = np.flatnonzero(keep)[search.look.doubtful(some[keep])]
        if len(doubted):
            keep[doubted] = left_alike(search.look, small[doubted], turn) >= (
                LEFT_OF_TURNED if any(turn) else LEFT
            )
        search.keep(kind, some[keep], alike[keep])


def _confirm_near(search: _Search, pairs: NDArray[np.int64], apart: NDArray[np.uint8]) -> None:
    """Keep the pairs that lie upon each other when the one is moved a little."""
    rows, downs, rights, looks = [pairs[:0]], [], [], []
    order = np.argsort(apart, kind="stable")
    for at in range(0, len(pairs), BATCH):
        some = pairs[order[at : at + BATCH]]
        some = some[search.groups.apart(some)]
        if not len(some):
            continue
        different, places = np.unique(some, return_inverse=True)
        small = search.context.measurements.small(different)
        shift = best_shifts(small, places.reshape(-1, 2))
        keep = shift.likeness >= QUICK
        rows.append(some[keep])
        downs.append(shift.down[keep])
        rights.append(shift.right[keep])
        looks.append(shift.likeness[keep])
    if len(rows) == 1:
        return
    likely = np.concatenate(rows)
    down, right, look = np.concatenate(downs), np.concatenate(rights), np.concatenate(looks)
    best = np.argsort(-look, kind="stable")
    most = max(CLOSE_AT_LEAST, CLOSE_EACH * len(search.context.dataset))
    search.complete &= len(best) <= most
    for at in range(0, min(len(best), most), BATCH // 8):
        chosen = best[at : at + BATCH // 8]
        # Two images that are linked through others already need no look of their own.
        chosen = chosen[search.groups.apart(likely[chosen])]
        if not len(chosen):
            continue
        some = likely[chosen]
        small = search.small(some.reshape(-1)).reshape(len(some), 2, 64, 64)
        doubtful = search.look.doubtful(some)
        starts = zip(
            small, down[chosen].tolist(), right[chosen].tolist(), doubtful.tolist(), strict=True
        )
        close = np.array(close_looks(list(starts), search.look, CLOSE), np.float64)
        keep = close >= CLOSE
        search.keep("near", some[keep], close[keep])
