"""Numbers and names as text: percentages, intervals, counts, durations, lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["amount", "duration", "elide", "interval", "listing", "percent"]


def percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction of 0-1 as a percentage; only exactly 0 and 1 become 0% and 100%."""
    if fraction is None or not math.isfinite(fraction):
        return "\N{EN DASH}"
    if fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f}%"
    step = 10.0**-digits
    return f"{min(max(100 * fraction, step), 100 - step):.{digits}f}%"


def interval(ends: tuple[float, float]) -> str:
    """Format two fractions of 0-1 as an interval: 96.9-99.6% with an en dash."""
    return f"{percent(ends[0]).rstrip('%')}\N{EN DASH}{percent(ends[1])}"


def amount(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: 1 image, 1,120 images."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Format seconds with a suitable unit: 0.41 s, 12.3 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def elide(text: str, limit: int = 120) -> str:
    """Shorten a long text in the middle, so that a path keeps its first folder and its name."""
    if len(text) <= limit:
        return text
    tail = limit * 2 // 3
    return f"{text[: limit - tail - 1]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def listing(names: Sequence[str], limit: int = 5) -> str:
    """Join names as "a, b and c"; of more than `limit`, show the first ones and the last."""
    shown = [elide(name, 40) for name in names]
    if len(names) > limit:
        return ", ".join([*shown[: limit - 1], "\N{HORIZONTAL ELLIPSIS}", shown[-1]])
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
