"""Choose units such that each class comes as near to its number of images as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from kindsight.dataset.splits.groups import Unit

__all__ = [
    "apportion",
    "choose",
    "combine",
    "distance",
]

# SECTION: Look for units that together hold so many images of each class: a subset-sum search.
#
# Where a dataset has few, large groups, choosing and exchanging one unit at a time
# (:mod:`.choose`) can end beside the best choice. Here all sums that units can have are followed at
# once, as far as a bound on their number allows.

MAX_SUMS = 1024
"""Sums that are followed: with more, those stay in which no class is far ahead of the others."""

MAX_UNITS = 256
"""Units that are looked at, the first ones by key: bounds the time."""


def combine(
    units: Sequence[Unit], exact: Mapping[int, Fraction], reserve: int
) -> list[Unit] | None:
    """Find units with about so many images of each class, within one of them if that can be.

    Parameters
    ----------
    units : sequence of Unit
        In the order in which they are to be drawn: of equally good choices, one of early units
        is found.
    exact : mapping of int to Fraction
        Images wanted of each class, above 0. A choice with more than one above that in any
        class is not considered.
    reserve : int
        How many units of each class must be left over.

    Returns
    -------
    list of Unit or None
        None where there is no choice that has a unit of each class and leaves enough over. A
        choice that is within one image in each class goes before all others, then the least
        squared distance. It is the best there is as long as there are at most `MAX_UNITS` units
        and `MAX_SUMS` different sums, and `reserve` is 1 at most.
    """
    classes = sorted(exact)
    numbers = [exact[k] for k in classes]
    most = [int(number + 1) for number in numbers]
    floats = [float(number) for number in numbers]
    # What was chosen, as bits, for each sum that can be reached.
    reached: dict[tuple[int, ...], int] = {(0,) * len(classes): 0}
    for place, unit in enumerate(units[:MAX_UNITS]):
        step = [unit.counts.get(k, 0) for k in classes]
        for total, chosen in list(reached.items()):
            following = tuple(have + more for have, more in zip(total, step, strict=True))
            if all(n <= bound for n, bound in zip(following, most, strict=True)):
                reached.setdefault(following, chosen | 1 << place)
        if len(reached) > MAX_SUMS:
            even = sorted(reached, key=lambda total: _unevenness(total, floats))
            reached = {total: reached[total] for total in even[:MAX_SUMS]}
    every = Counter(k for unit in units for k in unit.counts)
    for total in sorted(reached, key=lambda total: distance(total, numbers)):
        picked = [unit for i, unit in enumerate(units[:MAX_UNITS]) if reached[total] >> i & 1]
        taken = Counter(k for unit in picked for k in unit.counts)
        if all(taken[k] and every[k] - taken[k] >= reserve for k in classes):
            return picked
    return None


def _unevenness(total: tuple[int, ...], exact: list[float]) -> float:
    shares = [n / number for n, number in zip(total, exact, strict=True)]
    return max(shares) - min(shares)


def distance(total: Sequence[int], exact: Sequence[Fraction]) -> tuple[bool, Fraction]:
    """Say how far numbers are off: whether one is by more than one image, then all squared."""
    apart = [abs(n - number) for n, number in zip(total, exact, strict=True)]
    return max(apart) > 1, sum((n * n for n in apart), Fraction(0))


_SWAP_KINDS = 64  # kinds of units compared pairwise at most: bounds the search


def apportion(counts: Mapping[int, int], share: Fraction, reserve: int) -> dict[int, int]:
    """Say how many images of each class a part gets: largest remainders, at least one each.

    Parameters
    ----------
    counts : mapping of int to int
        Images of each class.
    share : Fraction
        The part's share of all images, more than 0 and less than 1.
    reserve : int
        How many images of each class must be left for other parts.

    Returns
    -------
    dict of int to int
        Each within one image of ``share * count``, where `reserve` and the one image at least
        allow it. The rest after rounding down goes to the largest remainders, the lower class
        number first.
    """
    exact = {k: share * n for k, n in counts.items()}
    lowest = {k: min(max(1, int(q)), max(1, counts[k] - reserve)) for k, q in exact.items()}
    highest = {k: min(max(1, -int(-q // 1)), max(1, counts[k] - reserve)) for k, q in exact.items()}
    wanted = int(share * sum(counts.values()) + Fraction(1, 2))
    given = dict(lowest)
    by_remainder = sorted(exact, key=lambda k: (int(exact[k]) - exact[k], k))
    for k in by_remainder:
        if sum(given.values()) >= wanted:
            break
        given[k] = highest[k]
    return given


def choose(
    units: Sequence[Unit],
    wanted: Mapping[int, int],
    reserve: int,
    exact: Mapping[int, Fraction] | None = None,
) -> list[Unit]:
    """Choose units that hold about the wanted number of images of each class.

    Units of several images are placed first, by key, as long as they fit; units of one image
    fill up. If all units are single images the numbers are met exactly.

    Parameters
    ----------
    units : sequence of Unit
        In the order in which they are to be drawn.
    wanted : mapping of int to int
        Images wanted of each class, at least 1.
    reserve : int
        How many units of each class must be left over.
    exact : mapping of int to Fraction, optional
        What `wanted` was rounded from. Where large units leave a class more than one image away
        from it, the combination that comes nearest is looked for.

    Returns
    -------
    list of Unit
    """
    state = _Choice(units, wanted, reserve)
    for unit in units:
        if len(unit.rows) > 1 and state.fits(unit):
            state.add(unit)
    for unit in units:
        if len(unit.rows) == 1 and state.fits(unit):
            state.add(unit)
    state.improve()
    state.give_each_class_one()
    chosen = list(state.chosen.values())
    if exact is None or not _distance(chosen, exact)[0]:
        return chosen
    others = combine(units, exact, reserve) or chosen
    return min(chosen, others, key=lambda units: _distance(units, exact))


def _distance(units: Iterable[Unit], exact: Mapping[int, Fraction]) -> tuple[bool, Fraction]:
    counts: Counter[int] = Counter()
    for unit in units:
        counts.update(unit.counts)
    return distance([counts[k] for k in exact], list(exact.values()))


class _Choice:
    """The units chosen so far, and what each class still lacks."""

    def __init__(self, units: Sequence[Unit], wanted: Mapping[int, int], reserve: int) -> None:
        self.units = units
        self.lacking = dict(wanted)  # images; below 0 where there are too many
        self.reserve = reserve
        self.chosen: dict[bytes, Unit] = {}
        self.units_left: Counter[int] = Counter(k for unit in units for k in unit.counts)
        self.units_in: Counter[int] = Counter()

    def may_go(self, unit: Unit) -> bool:
        """Say whether enough units of its classes would be left."""
        return all(self.units_left[k] > self.reserve for k in unit.counts)

    def fits(self, unit: Unit) -> bool:
        """Say whether it may go and no class would get more than was wanted."""
        return self.may_go(unit) and all(self.lacking[k] >= n for k, n in unit.counts.items())

    def add(self, unit: Unit, sign: int = 1) -> None:
        """Choose a unit, or with sign -1 put it back."""
        for k, n in unit.counts.items():
            self.lacking[k] -= sign * n
            self.units_left[k] -= sign
            self.units_in[k] += sign
        if sign > 0:
            self.chosen[unit.key] = unit
        else:
            del self.chosen[unit.key]

    def cost(self, add: Unit | None, remove: Unit | None = None) -> int:
        """Return by how much the squared distance to what is wanted would change."""
        change: Counter[int] = Counter(add.counts if add else {})
        change.subtract(remove.counts if remove else {})
        return sum((self.lacking[k] - n) ** 2 - self.lacking[k] ** 2 for k, n in change.items())

    def improve(self) -> None:
        """Add a unit, or exchange two, as long as that brings the numbers nearer."""
        while any(self.lacking.values()):
            best: tuple[int, Unit, Unit | None] | None = None
            out = self._kinds(unit for unit in self.units if unit.key not in self.chosen)
            for unit in out:
                for other in (None, *self._kinds(self.chosen.values())):
                    cost = self.cost(unit, other)
                    if cost < (best[0] if best else 0) and self._allowed(unit, other):
                        best = (cost, unit, other)
            if best is None:
                return
            if best[2] is not None:
                self.add(best[2], -1)
            self.add(best[1])

    def _kinds(self, units: Iterable[Unit]) -> list[Unit]:
        """Return the first unit of each kind (same numbers of the same classes) that matters."""
        kinds: dict[tuple[tuple[int, int], ...], Unit] = {}
        for unit in units:
            if any(self.lacking[k] for k in unit.counts):
                kinds.setdefault(tuple(sorted(unit.counts.items())), unit)
                if len(kinds) == _SWAP_KINDS:
                    break
        return list(kinds.values())

    def _allowed(self, add: Unit, remove: Unit | None) -> bool:
        if remove is None:
            return self.may_go(add)
        gone = remove.counts.keys() - add.counts.keys()
        new = add.counts.keys() - remove.counts.keys()
        return all(self.units_in[k] > 1 for k in gone) and all(
            self.units_left[k] > self.reserve for k in new
        )

    def give_each_class_one(self) -> None:
        """Add the best unit of each class that has none, though it be too large."""
        for k in sorted(self.lacking):
            if self.units_in[k]:
                continue
            able = [unit for unit in self.units if k in unit.counts and self.may_go(unit)]
            if able:
                self.add(min(able, key=lambda unit: (self.cost(unit), unit.key)))
