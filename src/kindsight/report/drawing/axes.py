"""Axes of a drawing: values to coordinates, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Axis", "decimals", "linear_axis", "log_axis", "thinned", "whole_axis"]

T = TypeVar("T")


class Axis(NamedTuple):
    """An axis from the value `low` at coordinate `start` to `high` at `end`, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def coordinate(self, value: float) -> float:
        """Return the coordinate of a value, clipped to the axis."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        fraction = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * fraction


def linear_axis(
    low: float, high: float, start: float, end: float, *, ceiling: float = math.inf
) -> Axis:
    """Return a linear axis that contains `low` and `high` and ends at round values <= `ceiling`."""
    span = high - low
    step = _step(span if span > 0 else abs(high) or 1.0, 5)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    if last * step > ceiling + 1e-9:
        first, last = first - 1, last - 1
    ticks = tuple(float(f"{k * step:.12g}") for k in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def whole_axis(low: int, high: int, start: float, end: float) -> Axis:
    """Return a linear axis whose ticks are integers: both ends and round values between them."""
    step = max(1, round(_step(high - low, 7))) if high > low else 1
    inner = range(-(-(low + 1) // step) * step, high, step)
    ticks = {low, high, *(k for k in inner if min(k - low, high - k) >= 0.6 * step)}
    return Axis(low, high, start, end, tuple(sorted(ticks)))


def log_axis(low: float, high: float, start: float, end: float) -> Axis:
    """Return a logarithmic axis with powers of ten as ticks."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    ticks = tuple(10.0**k for k in range(first, last + 1)) or (low, high)
    return Axis(low, high, start, end, ticks, logarithmic=True)


def decimals(ticks: Sequence[float], factor: float = 1.0) -> int:
    """Return the digits after the decimal point that show the ticks times `factor` exactly."""
    for digits in range(6):
        if all(abs(round(t * factor, digits) - t * factor) < 1e-9 for t in ticks):
            return digits
    return 6


def thinned(items: Sequence[T], limit: int, required: Callable[[T], bool]) -> list[T]:
    """Return at most `limit` evenly spaced items, with both ends and the `required` one."""
    if len(items) <= limit:
        return list(items)
    chosen = {round(k * (len(items) - 1) / (limit - 2)) for k in range(limit - 1)}
    chosen |= {index for index, item in enumerate(items) if required(item)}
    return [items[index] for index in sorted(chosen)]


def _step(span: float, intervals: int) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten of which `intervals` cover the span."""
    span = max(span, 1e-300)
    power = 10.0 ** math.floor(math.log10(span / intervals))
    return next(
        (m * power for m in (1, 2, 5) if m * power * intervals >= span * (1 - 1e-9)), 10 * power
    )
