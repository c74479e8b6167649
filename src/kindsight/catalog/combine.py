"""Look for units that together hold so many pictures of each class: a subset-sum search.

Where a catalog has few, large groups, choosing and exchanging one unit at a time
(:mod:`.choose`) can end beside the best choice. Here all sums that units can have are followed at
once, as far as a bound on their number allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from kindsight.catalog.units import Unit

__all__ = ["combine", "distance"]

MAX_SUMS = 1024
"""Sums that are followed: with more, those stay in which no class is far ahead of the others."""

MAX_UNITS = 256
"""Units that are looked at, the first ones by key: bounds the time."""


def combine(
    units: Sequence[Unit], exact: Mapping[int, Fraction], reserve: int
) -> list[Unit] | None:
    """Find units with about so many pictures of each class, within one of them if that can be.

    Parameters
    ----------
    units : sequence of Unit
        In the order in which they are to be drawn: of equally good choices, one of early units
        is found.
    exact : mapping of int to Fraction
        Pictures wanted of each class, above 0. A choice with more than one above that in any
        class is not considered.
    reserve : int
        How many units of each class must be left over.

    Returns
    -------
    list of Unit or None
        None where there is no choice that has a unit of each class and leaves enough over. A
        choice that is within one picture in each class goes before all others, then the least
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
    """Say how far numbers are off: whether one is by more than one picture, then all squared."""
    apart = [abs(n - number) for n, number in zip(total, exact, strict=True)]
    return max(apart) > 1, sum((n * n for n in apart), Fraction(0))
