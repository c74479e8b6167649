"""Choose groups for a split: at random, so that each class gets its number of images.

Groups of several images are drawn first, each with the same chance; single images fill the gap to
the wanted numbers. If there are too few single images, drawn groups are exchanged for others, as
few as possible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.draw_groups import MAX_BALANCED, draw_groups
from kindsight.dataset.splits.groups import Group, Groups, connected_components

__all__ = ["choose_groups", "images_per_class"]

MAX_SUMS = 1024
"""Maximum number of sums of images per class that the search follows, the closest ones."""

MAX_GROUPS = 64
"""Maximum number of groups that this search changes, the first ones by key. Limits the run time."""

MAX_PAIRS = 1 << 20
"""Maximum pairs of groups times classes that are compared for an exchange. Limits run time and
memory."""

_Rank = tuple[int, bool, float, float]


def images_per_class(counts: Mapping[int, int], fraction: Fraction, reserve: int) -> dict[int, int]:
    """Return how many images of each class a split gets: largest remainders, at least one each.

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

    Every group has the same chance to be chosen, whatever its number of images: the wanted fraction
    of its class (of a group of several classes, the mean by image). Exceptions: groups with more
    images of a class than the split is to have are not chosen if the others suffice; and if the
    drawn groups miss the numbers by more than single images can compensate, as few groups as
    possible are exchanged. The result is then within one image of `exact` in each class if any
    choice is, up to the limits of the search (`MAX_GROUPS`, `MAX_SUMS`).

    - `groups`: in random order of their keys.
    - `wanted`: images wanted of each class, at least 1.
    - `reserve`: groups of each class that must be left over.
    - `exact`: what `wanted` was rounded from.
    """
    chosen = [np.zeros(0, np.int64)]
    for some, classes in _independent(groups):
        chosen += _Choice(some, groups.singles, classes, wanted, reserve, exact).run()
    return np.concatenate(chosen)


def _independent(groups: Groups) -> Iterator[tuple[list[Group], list[int]]]:
    """Yield large groups with their classes, so that no class is in two of these lists."""
    pairs = [(i, k) for i, group in enumerate(groups.large) for k in group.counts]
    pairs += [(-1 - k, k) for k in groups.singles]
    component = connected_components([i for i, _ in pairs], [k for _, k in pairs]).tolist()
    members: defaultdict[int, dict[int, Group]] = defaultdict(dict)
    classes: defaultdict[int, set[int]] = defaultdict(set)
    for (i, k), number in zip(pairs, component, strict=True):
        if i >= 0:
            members[number][i] = groups.large[i]
        classes[number].add(k)
    for number, some in classes.items():
        yield list(members[number].values()), sorted(some)


class _Choice:
    """A choice among groups of several images, with the single images that complete it."""

    def __init__(
        self,
        large: Sequence[Group],
        singles: Mapping[int, NDArray[np.int64]],
        classes: list[int],
        wanted: Mapping[int, int],
        reserve: int,
        exact: Mapping[int, Fraction],
    ) -> None:
        self.large = large
        self.single = [singles.get(k, np.zeros(0, np.int64)) for k in classes]
        self.counts = np.array(
            [[group.counts.get(k, 0) for k in classes] for group in self.large], np.int64
        ).reshape(-1, len(classes))
        self.singles = np.array(list(map(len, self.single)), np.int64)
        self.wanted = np.array([wanted[k] for k in classes], np.int64)
        self.exact = np.array([float(exact[k]) for k in classes])
        self.reserve = reserve
        self.groups_of = (self.counts > 0).sum(axis=0)
        self.chosen = np.zeros(len(self.large), np.bool_)
        self.drawn = self.wanted  # images that the groups are to have

    def run(self) -> list[NDArray[np.int64]]:
        """Return the rows of the chosen groups, and of chosen single images."""
        if self.large:
            keys = [group.key for group in self.large]
            self.chosen, completing = draw_groups(keys, self.counts, self.singles, self.wanted)
            self.drawn = self.wanted - completing
            self.exchange()
            invalid, off, drift, _ = self.rank(*self.sums())
            few = len(self.wanted) <= MAX_BALANCED
            if invalid or (off and few) or (drift > 1 and len(self.wanted) == 1):
                self.search()
        need, _ = self.single_images(*self.sums())
        result = [
            np.array(group.rows, np.int64)
            for group, chosen in zip(self.large, self.chosen, strict=True)
            if chosen
        ]
        return result + [
            rows[: max(0, n)] for rows, n in zip(self.single, need.tolist(), strict=True)
        ]

    def sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images and the groups of each class in the chosen groups."""
        some = self.counts[self.chosen]
        return some.sum(axis=0), (some > 0).sum(axis=0)

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
        images of groups, but cannot remove any: large groups would be avoided.
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

        No group is added or removed without another: small groups would be added more often than
        removed, since most groups are outside. The reverse of an exchange is as likely as itself.
        """
        while True:
            images, groups = self.sums()
            now = self.rank(images, groups)
            need, invalid = self.single_images(images, groups)
            if not invalid.any() and (images + need == self.wanted).all() and not now[2]:
                return
            width = int((MAX_PAIRS / len(self.wanted)) ** 0.5) + 1
            inside = np.flatnonzero(self.chosen)[:width]
            outside = np.flatnonzero(~self.chosen)[:width]
            if not len(inside) or not len(outside):
                return
            rank, pair = self._best_pair(images, groups, inside, outside)
            if rank >= now:
                return
            self.chosen[list(pair)] ^= True

    def _best_pair(
        self,
        images: NDArray[np.int64],
        groups: NDArray[np.int64],
        inside: NDArray[np.int64],
        outside: NDArray[np.int64],
    ) -> tuple[_Rank, tuple[int, int]]:
        """Return the best exchange, the first of equals, with its rank."""
        there = (self.counts > 0).astype(np.int64)
        found = self.ranks(
            images - self.counts[inside][:, None] + self.counts[outside][None],
            groups - there[inside][:, None] + there[outside][None],
        )
        best = int(np.lexsort([column.ravel() for column in reversed(found)])[0])
        invalid, off, drift, distance = (column.ravel()[best].item() for column in found)
        i, j = divmod(best, len(outside))
        return (invalid, off, drift, distance), (int(inside[i]), int(outside[j]))

    def search(self) -> None:
        """Find the change of fewest groups that leads to good sums of images.

        Changes that keep the number of groups are preferred, as in :meth:`exchange`.

        The best of all choices if there are at most `MAX_GROUPS` groups and `MAX_SUMS` different
        sums, and `reserve` is at most 1.
        """
        start = (*self.sums()[0].tolist(), 0)
        # Images per class, and groups added -> number of changed groups, and these as bits.
        reached: dict[tuple[int, ...], tuple[int, int]] = {start: (0, 0)}
        for bit in range(min(len(self.large), MAX_GROUPS)):
            sign = -1 if self.chosen[bit] else 1
            step = [*(sign * self.counts[bit]).tolist(), sign]
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
        bits = min(len(self.large), MAX_GROUPS)
        changes = np.array([[changed >> i & 1 for i in range(bits)] for _, changed in found])
        signed = np.where(self.chosen[:bits, None], -self.counts[:bits], self.counts[:bits])
        images, groups = self.sums()
        ranks = self.ranks(images + changes @ signed, groups + changes @ np.sign(signed))
        number = np.array([n for n, _ in found])
        added = np.array([abs(total[-1]) for total in reached])
        invalid, off, drift, distance = ranks
        best = int(np.lexsort((number, distance, drift, added, off, invalid))[0])
        self.chosen[:bits] ^= changes[best].astype(np.bool_)
