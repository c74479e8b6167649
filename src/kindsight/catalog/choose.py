"""Choose units such that each class comes as near to its number of pictures as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from kindsight.catalog.combine import combine, distance
from kindsight.catalog.units import Unit

__all__ = ["apportion", "choose"]

_SWAP_KINDS = 64  # kinds of units compared pairwise at most: bounds the search


def apportion(counts: Mapping[int, int], share: Fraction, reserve: int) -> dict[int, int]:
    """Say how many pictures of each class a part gets: largest remainders, at least one each.

    Parameters
    ----------
    counts : mapping of int to int
        Pictures of each class.
    share : Fraction
        The part's share of all pictures, more than 0 and less than 1.
    reserve : int
        How many pictures of each class must be left for other parts.

    Returns
    -------
    dict of int to int
        Each within one picture of ``share * count``, where `reserve` and the one picture at least
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
    """Choose units that hold about the wanted number of pictures of each class.

    Units of several pictures are placed first, by key, as long as they fit; units of one picture
    fill up. If all units are single pictures the numbers are met exactly.

    Parameters
    ----------
    units : sequence of Unit
        In the order in which they are to be drawn.
    wanted : mapping of int to int
        Pictures wanted of each class, at least 1.
    reserve : int
        How many units of each class must be left over.
    exact : mapping of int to Fraction, optional
        What `wanted` was rounded from. Where large units leave a class more than one picture away
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
        self.lacking = dict(wanted)  # pictures; below 0 where there are too many
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
