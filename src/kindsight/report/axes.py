"""Axes of a drawing: from values to places, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Axis", "decimals", "linear_axis", "log_axis", "thinned", "whole_axis"]

T = TypeVar("T")


class Axis(NamedTuple):
    """A line of values from `low` to `high` that lies between two places of a drawing.

    Attributes
    ----------
    low, high : float
        The values at its ends.
    start, end : float
        Where these are, in units of the drawing.
    ticks : tuple of float
        Round values on it.
    logarithmic : bool
        Whether equal factors take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value is; what lies beyond an end is at that end."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * share


def linear_axis(
    low: float, high: float, start: float, end: float, *, ceiling: float = math.inf
) -> Axis:
    """Make an axis that holds `low` and `high` and ends at round values, at most at `ceiling`."""
    span = high - low
    step = _step(span if span > 0 else abs(high) or 1.0, 5)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    if last * step > ceiling + 1e-9:
        first, last = first - 1, last - 1
    ticks = tuple(float(f"{k * step:.12g}") for k in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def whole_axis(low: int, high: int, start: float, end: float) -> Axis:
    """Make an axis from `low` to `high` whose ticks are whole numbers: the ends, and round ones."""
    step = max(1, round(_step(high - low, 7))) if high > low else 1
    inner = range(-(-(low + 1) // step) * step, high, step)
    ticks = {low, high, *(k for k in inner if min(k - low, high - k) >= 0.6 * step)}
    return Axis(low, high, start, end, tuple(sorted(ticks)))


def log_axis(low: float, high: float, start: float, end: float) -> Axis:
    """Make an axis on which equal factors take equal room, with powers of ten for ticks."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    ticks = tuple(10.0**k for k in range(first, last + 1)) or (low, high)
    return Axis(low, high, start, end, ticks, logarithmic=True)


def decimals(ticks: Sequence[float], factor: float = 1.0) -> int:
    """Return how many digits after the point tell the ticks (times `factor`) apart exactly."""
    for digits in range(6):
        if all(abs(round(t * factor, digits) - t * factor) < 1e-9 for t in ticks):
            return digits
    return 6


def thinned(items: Sequence[T], limit: int, keep: Callable[[T], bool]) -> list[T]:
    """Return at most `limit` of the items, evenly chosen; the ends and the one to `keep` always."""
    if len(items) <= limit:
        return list(items)
    chosen = {round(k * (len(items) - 1) / (limit - 2)) for k in range(limit - 1)}
    chosen |= {place for place, item in enumerate(items) if keep(item)}
    return [items[place] for place in sorted(chosen)]


def _step(span: float, parts: int) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten of which `parts` cover the span."""
    span = max(span, 1e-300)
    power = 10.0 ** math.floor(math.log10(span / parts))
    return next(
        (m * power for m in (1, 2, 5) if m * power * parts >= span * (1 - 1e-9)), 10 * power
    )
