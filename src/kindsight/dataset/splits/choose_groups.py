"""Choose groups for a split so that each class gets close to its number of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from kindsight.dataset.splits.groups import Group

__all__ = ["choose_groups", "images_per_class"]

MAX_SUMS = 1024
"""Subset sums that are followed; beyond it, the sums most balanced over the classes stay."""

MAX_GROUPS = 256
"""Groups that the subset-sum search considers, the first ones by key. Limits the run time."""

_SWAP_KINDS = 64  # kinds of groups compared pairwise at most; limits the run time


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
    groups: Sequence[Group],
    wanted: Mapping[int, int],
    reserve: int,
    exact: Mapping[int, Fraction] | None = None,
) -> list[Group]:
    """Return groups that together have about the wanted number of images of each class.

    Groups of several images are added first, in order, as long as they fit; groups of one image
    fill up the rest. If all groups are single images, the numbers are met exactly.

    - `groups`: in the order of preference.
    - `wanted`: images wanted of each class, at least 1.
    - `reserve`: groups of each class that must be left over.
    - `exact`: what `wanted` was rounded from. If the greedy choice is off by more than one image in
      a class, a subset-sum search looks for a better one.
    """
    state = _Choice(groups, wanted, reserve)
    for group in groups:
        if len(group.rows) > 1 and state.fits(group):
            state.add(group)
    for group in groups:
        if len(group.rows) == 1 and state.fits(group):
            state.add(group)
    state.improve()
    state.add_missing_classes()
    chosen = list(state.chosen.values())
    if exact is None or not _group_deviation(chosen, exact)[0]:
        return chosen
    others = _best_subset(groups, exact, reserve) or chosen
    return min(chosen, others, key=lambda groups: _group_deviation(groups, exact))


class _Choice:
    """Greedy choice of groups with local exchanges."""

    def __init__(self, groups: Sequence[Group], wanted: Mapping[int, int], reserve: int) -> None:
        self.groups = groups
        self.lacking = dict(wanted)  # images; negative where there are too many
        self.reserve = reserve
        self.chosen: dict[bytes, Group] = {}
        self.groups_left: Counter[int] = Counter(k for group in groups for k in group.counts)
        self.groups_in: Counter[int] = Counter()

    def leaves_enough(self, group: Group) -> bool:
        return all(self.groups_left[k] > self.reserve for k in group.counts)

    def fits(self, group: Group) -> bool:
        return self.leaves_enough(group) and all(
            self.lacking[k] >= n for k, n in group.counts.items()
        )

    def add(self, group: Group, sign: int = 1) -> None:
        """Choose a group; with sign -1, remove it again."""
        for k, n in group.counts.items():
            self.lacking[k] -= sign * n
            self.groups_left[k] -= sign
            self.groups_in[k] += sign
        if sign > 0:
            self.chosen[group.key] = group
        else:
            del self.chosen[group.key]

    def cost(self, add: Group | None, remove: Group | None = None) -> int:
        """Return the change of the squared distance to the wanted numbers."""
        change: Counter[int] = Counter(add.counts if add else {})
        change.subtract(remove.counts if remove else {})
        return sum((self.lacking[k] - n) ** 2 - self.lacking[k] ** 2 for k, n in change.items())

    def improve(self) -> None:
        """Add or exchange groups as long as the distance falls."""
        while any(self.lacking.values()):
            best: tuple[int, Group, Group | None] | None = None
            outside = self._kinds(group for group in self.groups if group.key not in self.chosen)
            for group in outside:
                for other in (None, *self._kinds(self.chosen.values())):
                    cost = self.cost(group, other)
                    if cost < (best[0] if best else 0) and self._allowed(group, other):
                        best = (cost, group, other)
            if best is None:
                return
            if best[2] is not None:
                self.add(best[2], -1)
            self.add(best[1])

    def _kinds(self, groups: Iterable[Group]) -> list[Group]:
        """Return the first group of each kind (same counts) that has a class still off target."""
        kinds: dict[tuple[tuple[int, int], ...], Group] = {}
        for group in groups:
            if any(self.lacking[k] for k in group.counts):
                kinds.setdefault(tuple(sorted(group.counts.items())), group)
                if len(kinds) == _SWAP_KINDS:
                    break
        return list(kinds.values())

    def _allowed(self, add: Group, remove: Group | None) -> bool:
        if remove is None:
            return self.leaves_enough(add)
        gone = remove.counts.keys() - add.counts.keys()
        new = add.counts.keys() - remove.counts.keys()
        return all(self.groups_in[k] > 1 for k in gone) and all(
            self.groups_left[k] > self.reserve for k in new
        )

    def add_missing_classes(self) -> None:
        """Add the best group of each class that has none, even if it is too large."""
        for k in sorted(self.lacking):
            if self.groups_in[k]:
                continue
            able = [
                group for group in self.groups if k in group.counts and self.leaves_enough(group)
            ]
            if able:
                self.add(min(able, key=lambda group: (self.cost(group), group.key)))


def _best_subset(
    groups: Sequence[Group], exact: Mapping[int, Fraction], reserve: int
) -> list[Group] | None:
    """Search for the subset closest to the exact numbers; None if no subset is allowed.

    Optimal if there are at most `MAX_GROUPS` groups and `MAX_SUMS` different sums, and `reserve`
    is at most 1. Of equally good subsets, one of early groups is found.
    """
    classes = sorted(exact)
    numbers = [exact[k] for k in classes]
    most = [int(number + 1) for number in numbers]
    floats = [float(number) for number in numbers]
    # Sum of images per class -> the chosen groups as bits.
    reached: dict[tuple[int, ...], int] = {(0,) * len(classes): 0}
    for bit, group in enumerate(groups[:MAX_GROUPS]):
        step = [group.counts.get(k, 0) for k in classes]
        for total, chosen in list(reached.items()):
            following = tuple(have + more for have, more in zip(total, step, strict=True))
            if all(n <= bound for n, bound in zip(following, most, strict=True)):
                reached.setdefault(following, chosen | 1 << bit)
        if len(reached) > MAX_SUMS:
            balanced = sorted(reached, key=lambda total: _imbalance(total, floats))
            reached = {total: reached[total] for total in balanced[:MAX_SUMS]}
    every = Counter(k for group in groups for k in group.counts)
    for total in sorted(reached, key=lambda total: _deviation(total, numbers)):
        subset = [group for i, group in enumerate(groups[:MAX_GROUPS]) if reached[total] >> i & 1]
        taken = Counter(k for group in subset for k in group.counts)
        if all(taken[k] and every[k] - taken[k] >= reserve for k in classes):
            return subset
    return None


def _imbalance(total: tuple[int, ...], exact: list[float]) -> float:
    fractions = [n / number for n, number in zip(total, exact, strict=True)]
    return max(fractions) - min(fractions)


def _deviation(total: Sequence[int], exact: Sequence[Fraction]) -> tuple[bool, Fraction]:
    """Return whether a number is off by more than one image, and the squared distance."""
    differences = [abs(n - number) for n, number in zip(total, exact, strict=True)]
    return max(differences) > 1, sum((n * n for n in differences), Fraction(0))


def _group_deviation(
    groups: Iterable[Group], exact: Mapping[int, Fraction]
) -> tuple[bool, Fraction]:
    counts: Counter[int] = Counter()
    for group in groups:
        counts.update(group.counts)
    return _deviation([counts[k] for k in exact], list(exact.values()))
