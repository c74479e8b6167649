"""Choose groups for a split at random, so that each class gets its number of images.

Groups of several images are drawn first, each with the same probability; single images fill the gap
to the wanted numbers. If there are too few single images, drawn groups are exchanged for others, as
few as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.disjoint_sets import DisjointSets
from kindsight.dataset.splits.draw_groups import MAX_BALANCED, draw_groups
from kindsight.dataset.splits.groups import Groups

__all__ = ["choose_groups", "images_per_class"]

MAX_SUMS = 1024
"""Maximum number of sums of images per class that the search follows; it follows the closest
ones."""

MAX_GROUPS = 64
"""Maximum number of groups that this search changes, the first by key. Limits the run time."""

MAX_PAIRS = 1 << 20
"""Maximum number of pairs of groups, times classes, that are compared for an exchange. Limits run
time and memory."""

_Rank = tuple[int, bool, float, float]


def images_per_class(counts: Mapping[int, int], fraction: Fraction, reserve: int) -> dict[int, int]:
    """Return the number of images of each class for a split: largest remainders, at least one each.

    - `counts`: images of each class.
    - `fraction`: the split's fraction of all images, above 0 and below 1.
    - `reserve`: images of each class that must be left for other splits.

    Returns
    -------
    dict of int to int
        Each within one image of ``fraction * count``, unless `reserve` or the minimum of one image
        prevents it. Images left after rounding down go to the largest remainders, ties to the
        lower class index.
    """
    exact = {k: fraction * n for k, n in counts.items()}
    lowest = {k: min(max(1, int(q)), max(1, counts[k] - reserve)) for k, q in exact.items()}
    highest = {k: min(max(1, -int(-q // 1)), max(1, counts[k] - reserve)) for k, q in exact.items()}
    total = int(fraction * sum(counts.values()) + Fraction(1, 2))
    result = dict(lowest)
    for k in sorted(exact, key=lambda k: (int(exact[k]) - exact[k], k)):
        if sum(result.values()) >= total:
            break
        result[k] = highest[k]
    return result


def choose_groups(
    groups: Groups, wanted: Mapping[int, int], reserve: int, exact: Mapping[int, Fraction]
) -> NDArray[np.int64]:
    """Return rows of groups that together have about the wanted number of images of each class.

    Every group is chosen with the same probability, whatever its number of images: the wanted
    fraction of its class (for a group of several classes, the mean over its images). Exceptions:
    groups with more images of a class than the split should have are not chosen if the others
    suffice; and if the drawn groups miss the numbers by more than single images can compensate, as
    few groups as possible are exchanged. The result is then within one image of `exact` in each
    class if any choice is, up to the limits of the search (`MAX_GROUPS`, `MAX_SUMS`).

    - `groups`: in random order of their keys.
    - `wanted`: images wanted of each class, at least 1.
    - `reserve`: groups of each class that must be left over.
    - `exact`: the numbers of images before they were rounded to `wanted`.
    """
    chosen = np.zeros(groups.counts.n, np.bool_)
    singles = [np.zeros(0, np.int64)]
    for some, classes in _independent(groups):
        choice = _Choice(groups, some, classes, wanted, reserve, exact)
        singles += choice.run()
        chosen[some] = choice.chosen
    return np.concatenate([groups.rows[np.repeat(chosen, np.diff(groups.starts))], *singles])


def _independent(groups: Groups) -> Iterator[tuple[NDArray[np.int64], list[int]]]:
    """Yield groups of several images with their classes, so that no class is in two of these."""
    counts = groups.counts
    first = counts.classes[counts.starts[:-1]]
    present = np.unique(np.concatenate([counts.classes, np.array([*groups.singles], np.int64)]))
    sets = DisjointSets(int(present.max(initial=-1)) + 1)
    sets.merge(np.column_stack([np.repeat(first, np.diff(counts.starts)), counts.classes]))
    root = sets.roots()
    by_root = np.argsort(root[first], kind="stable")
    roots, starts = np.unique(root[first][by_root], return_index=True)
    members = dict(zip(roots.tolist(), np.split(by_root, starts[1:]), strict=False))
    for k in np.unique(root[present]).tolist():
        yield members.get(k, by_root[:0]), present[root[present] == k].tolist()


class _Choice:
    """A choice among groups of several images, with the single images that complete it."""

    def __init__(
        self,
        groups: Groups,
        some: NDArray[np.int64],
        classes: list[int],
        wanted: Mapping[int, int],
        reserve: int,
        exact: Mapping[int, Fraction],
    ) -> None:
        self.keys = groups.keys[some]
        self.counts = groups.counts.take(some, np.array(classes))
        self.single = [groups.singles.get(k, np.zeros(0, np.int64)) for k in classes]
        self.singles = np.array(list(map(len, self.single)), np.int64)
        self.wanted = np.array([wanted[k] for k in classes], np.int64)
        self.exact = np.array([float(exact[k]) for k in classes])
        self.reserve = reserve
        self.groups_of = np.bincount(self.counts.classes, minlength=len(classes))
        self.chosen = np.zeros(len(some), np.bool_)
        self.drawn = self.wanted  # images that the groups should have

    def run(self) -> list[NDArray[np.int64]]:
        """Choose groups; return the rows of chosen single images of each class."""
        if len(self.chosen):
            self.chosen, completing = draw_groups(self.keys, self.counts, self.singles, self.wanted)
            self.drawn = self.wanted - completing
            self.exchange()
            invalid, off, drift, _ = self.rank(*self.sums())
            few = len(self.wanted) <= MAX_BALANCED
            if invalid or (off and few) or (drift > 1 and len(self.wanted) == 1):
                self.search()
        need, _ = self.single_images(*self.sums())
        return [rows[: max(0, n)] for rows, n in zip(self.single, need.tolist(), strict=True)]

    def sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images and the groups of each class in the chosen groups."""
        return self.counts.sums(self.chosen, len(self.wanted))

    def single_images(
        self, images: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the single images of each class that complete a choice, and where it is invalid.

        A choice is invalid for a class that would have no group in the split, or too few left.
        `images` and `groups` have the classes in the last axis.
        """
        least = (groups == 0).astype(np.int64)
        most = self.singles - np.maximum(0, self.reserve - (self.groups_of - groups))
        return np.minimum(np.maximum(self.wanted - images, least), most), most < least

    def ranks(
        self, images: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> tuple[NDArray[Any], ...]:
        """Return the ranks of choices, lower is better, as four arrays in order of importance.

        The number of invalid classes; whether any class is off by more than one image; the squared
        distance of the groups' images to the numbers that the groups were drawn for; that of all
        images to the exact numbers. The former comes first, since single images can replace missing
        images of groups but cannot remove any; otherwise, large groups would be avoided.
        """
        need, invalid = self.single_images(images, groups)
        off = np.abs(images + np.maximum(need, 0) - self.exact)
        drift = (images - self.drawn).astype(np.float64)
        return (
            invalid.sum(axis=-1),
            (off > 1).any(axis=-1),
            (drift * drift).sum(axis=-1),
            (off * off).sum(axis=-1).round(6),
        )

    def rank(self, images: NDArray[np.int64], groups: NDArray[np.int64]) -> _Rank:
        """Return the rank of one choice."""
        invalid, off, drift, distance = self.ranks(images, groups)
        return int(invalid), bool(off), float(drift), float(distance)

    def exchange(self) -> None:
        """Exchange one group for another as long as that improves the choice.

        Groups are only exchanged, never added or removed alone: small groups would be added more
        often than removed, since most groups are outside. An exchange and its reverse are equally
        likely.
        """
        width = int((MAX_PAIRS / len(self.wanted)) ** 0.5) + 1
        images, groups = self.sums()
        while True:
            now = self.rank(images, groups)
            need, invalid = self.single_images(images, groups)
            if not invalid.any() and (images + need == self.wanted).all() and not now[2]:
                return
            inside = np.flatnonzero(self.chosen)[:width]
            outside = np.flatnonzero(~self.chosen)[:width]
            if not len(inside) or not len(outside):
                return
            removed, added = (
                self.counts.dense(some, len(self.wanted)) for some in (inside, outside)
            )
            rank, (i, j) = self._best_pair(images, groups, removed, added)
            if rank >= now:
                return
            self.chosen[[inside[i], outside[j]]] ^= True
            images = images - removed[i] + added[j]
            groups = groups - (removed[i] > 0) + (added[j] > 0)

    def _best_pair(
        self,
        images: NDArray[np.int64],
        groups: NDArray[np.int64],
        removed: NDArray[np.int64],
        added: NDArray[np.int64],
    ) -> tuple[_Rank, tuple[int, int]]:
        """Return the rank of the best exchange, and its indices in `removed` and `added`.

        Of equally good exchanges, the first one is returned.
        """
        found = self.ranks(
            images - removed[:, None] + added[None],
            groups - np.sign(removed)[:, None] + np.sign(added)[None],
        )
        best = int(np.lexsort([column.ravel() for column in reversed(found)])[0])
        invalid, off, drift, distance = (column.ravel()[best].item() for column in found)
        return (invalid, off, drift, distance), divmod(best, len(added))

    def search(self) -> None:
        """Find the change of fewest groups that leads to good sums of images.

        Changes that keep the number of groups are preferred, as in :meth:`exchange`.

        The best of all choices if there are at most `MAX_GROUPS` groups and `MAX_SUMS` different
        sums, and `reserve` is at most 1.
        """
        start = (*self.sums()[0].tolist(), 0)
        # Images per class, and groups added -> number of changed groups, and these as bits.
        reached: dict[tuple[int, ...], tuple[int, int]] = {start: (0, 0)}
        bits = min(len(self.chosen), MAX_GROUPS)
        signs = np.where(self.chosen[:bits], -1, 1)
        signed = signs[:, None] * self.counts.dense(np.arange(bits), len(self.wanted))
        for bit in range(bits):
            step = [*signed[bit].tolist(), int(signs[bit])]
            for total, (n, changed) in list(reached.items()):
                following = tuple(have + more for have, more in zip(total, step, strict=True))
                if reached.get(following, (MAX_GROUPS + 1, 0))[0] > n + 1:
                    reached[following] = n + 1, changed | 1 << bit
            if len(reached) > MAX_SUMS:
                totals = list(reached)
                distance = np.abs(np.array(totals) - [*self.exact, 0]).max(axis=1)
                near = np.argsort(distance, kind="stable")[:MAX_SUMS]
                reached = {totals[i]: reached[totals[i]] for i in near.tolist()}
        found = list(reached.values())
        changes: NDArray[np.int64] = np.array(
            [[changed >> i & 1 for i in range(bits)] for _, changed in found], np.int64
        )
        images, groups = self.sums()
        ranks = self.ranks(images + changes @ signed, groups + changes @ np.sign(signed))
        number = np.array([n for n, _ in found])
        added = np.array([abs(total[-1]) for total in reached])
        invalid, off, drift, distance = ranks
        best = int(np.lexsort((number, distance, drift, added, off, invalid))[0])
        self.chosen[:bits] ^= changes[best].astype(np.bool_)
