"""Axes with round ticks, line charts and histograms as inline SVG, drawn from tables of numbers.

Colours are CSS classes. A text from outside, such as a class, is escaped and shortened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from kindsight.report.format import elide, percent

__all__ = [
    "STYLES", "Axis", "Mark", "Series", "decimals", "draw_histogram", "draw_lines", "linear_axis",
    "log_axis", "score_table", "thin", "thinned", "whole_axis",
]  # fmt: skip

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
    """Return the number of decimals that shows the ticks times `factor` exactly."""
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


CHART_SIZE = (360, 292)
"""Width and height of a chart in SVG units."""

MAX_CHART_POINTS = 200
"""Maximum number of points of a line."""

STYLES = 6
"""Number of line styles; further lines reuse them."""

_LEFT, _TOP, _RIGHT, _BASE = 50.0, 36.0, 346.0, 250.0
_BINS = 24


@dataclass(frozen=True)
class Series:
    """A line of a chart: its name, its points by x, and whether it is a band or dots."""

    name: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...] = ()  # low and high of each point
    dots: bool = False  # dots with intervals in place of a line


class Mark(NamedTuple):
    """A marked value of the x or the y axis."""

    value: float
    name: str
    horizontal: bool = False


class ScoreBin(NamedTuple):
    """A bin of a histogram: its ends, and the number of images of each kind."""

    start: float
    end: float
    counts: tuple[int, ...]


def draw_lines(
    series: Sequence[Series],
    *,
    label: str,
    x_name: str,
    y_name: str,
    marks: Sequence[Mark] = (),
    x_percent: bool = False,
    log_x: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Draw lines over one axis; the values of y are fractions.

    - `series`: at least one point in total.
    - `label`: description of the chart for screen readers.
    - `x_percent`: whether the values of x are fractions, too.
    - `log_x`: whether the x axis is logarithmic.
    - `x_range`, `y_range`: ends of the axes; by default those of the points.
    """
    xs = [x for line in series for x, _ in line.points]
    values = [y for line in series for _, y in line.points]
    values += [y for line in series for ends in line.band for y in ends]
    x_range = x_range or (min(xs), max(xs))
    make = log_axis if log_x else linear_axis
    across = make(*x_range, _LEFT, _RIGHT)
    y_range = y_range or (min(values), 1.0)
    up = linear_axis(*y_range, _BASE, _TOP, ceiling=1.0)
    if x_percent:
        across = linear_axis(*x_range, _LEFT, _RIGHT, ceiling=1.0)
    shapes = _axes(across, up, x_name, x_percent)
    shapes.append(f'<text class="title" x="8" y="18">{escape(y_name)}</text>')
    for mark in marks:
        shapes += _marked(mark, across, up)
    for number, line in enumerate(series):
        shapes += _drawn(line, number % STYLES, across, up)
    return _svg(label, shapes)


def score_table(
    kinds: Sequence[NDArray[np.floating[Any]]], *, include: Sequence[float] = ()
) -> list[ScoreBin]:
    """Return a histogram of the scores of several kinds of images, over one range.

    - `kinds`: float arrays; at least one score in total.
    - `include`: further values that the range must contain, such as a threshold.
    """
    scores = np.concatenate([np.asarray(kind, np.float64) for kind in kinds])
    scores = scores[np.isfinite(scores)]
    low, high = np.quantile(scores, (0.0, 0.995))
    low, high = min([float(low), *include]), max([float(high), *include])
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    clipped = [np.clip(kind, edges[0], edges[-1]) for kind in kinds]
    counts = [np.histogram(kind[np.isfinite(kind)], edges)[0] for kind in clipped]
    return [
        ScoreBin(float(edges[i]), float(edges[i + 1]), tuple(int(count[i]) for count in counts))
        for i in range(_BINS)
    ]


def draw_histogram(
    table: Sequence[ScoreBin], *, label: str, x_name: str, mark: Mark | None = None
) -> Markup:
    """Draw a histogram with the kinds on top of each other, the first at the bottom."""
    across = linear_axis(table[0].start, table[-1].end, _LEFT, _RIGHT)
    most = max((sum(row.counts) for row in table), default=1) or 1
    up = linear_axis(0.0, float(most), _BASE, _TOP)
    shapes = _axes(across, up, x_name, False, fractions=False)
    shapes.append('<text class="title" x="8" y="18">images</text>')
    for row in table:
        left, right = across.coordinate(row.start), across.coordinate(row.end)
        below = 0
        for number, count in enumerate(row.counts):
            if not count:
                continue
            base, top = up.coordinate(below), up.coordinate(below + count)
            shapes.append(
                f'<rect class="bar{number}" x="{left + 0.5:.1f}" y="{top:.1f}" '
                f'width="{max(0.5, right - left - 1):.1f}" height="{base - top:.1f}"/>'
            )
            below += count
    if mark is not None:
        shapes += _marked(mark, across, up)
    return _svg(label, shapes)


def thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return at most `MAX_CHART_POINTS` of a line's points."""
    never: Callable[[tuple[float, float]], bool] = lambda _: False  # noqa: E731
    return tuple(thinned(points, MAX_CHART_POINTS, never))


def _axes(
    across: Axis, up: Axis, x_name: str, x_percent: bool, *, fractions: bool = True
) -> list[str]:
    digits = decimals(up.ticks, 100 if fractions else 1)
    shapes = []
    for tick in up.ticks:
        y = up.coordinate(tick)
        text = percent(tick, digits) if fractions else f"{tick:,.{digits}f}"
        shapes.append(
            f'<line class="grid" x1="{_LEFT:.0f}" x2="{_RIGHT:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6:.0f}" y="{y + 4:.1f}" class="end">{text}</text>'
        )
    shapes.append(
        f'<line class="axis" x1="{_LEFT:.0f}" x2="{_RIGHT:.0f}" y1="{_BASE:.0f}" y2="{_BASE:.0f}"/>'
    )
    digits = decimals(across.ticks, 100 if x_percent else 1)
    for tick in across.ticks:
        text = percent(tick, digits) if x_percent else f"{tick:,.{digits}f}"
        x = min(across.coordinate(tick), CHART_SIZE[0] - 3.5 * len(text))
        shapes.append(f'<text x="{x:.1f}" y="{_BASE + 15:.0f}" class="middle">{text}</text>')
    shapes.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BASE + 32:.0f}" class="middle">'
        f"{escape(x_name)}</text>"
    )
    return shapes


def _marked(mark: Mark, across: Axis, up: Axis) -> list[str]:
    name = escape(elide(mark.name, 40))
    if mark.horizontal:
        y = up.coordinate(mark.value)
        return [
            f'<line class="best" x1="{_LEFT:.0f}" x2="{_RIGHT:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="note" x="{_LEFT + 4:.0f}" y="{y - 4:.1f}">{name}</text>'
        ]
    x = across.coordinate(mark.value)
    near_end = x > (_LEFT + _RIGHT) / 2
    anchor, shift = ("end", -4) if near_end else ("start", 4)
    return [
        f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6:.0f}" y2="{_BASE:.0f}"/>'
        f'<text class="note {anchor}" x="{x + shift:.1f}" y="{_TOP - 2:.0f}">{name}</text>'
    ]


def _drawn(line: Series, style: int, across: Axis, up: Axis) -> list[str]:
    if not line.points:
        return []
    places = [(across.coordinate(x), up.coordinate(y)) for x, y in line.points]
    ends = [(up.coordinate(low), up.coordinate(high)) for low, high in line.band]
    shapes = []
    if line.dots:
        for index, (x, y) in enumerate(places):
            if ends:
                low, high = ends[index]
                vertical = f'x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"'
                shapes.append(f'<line class="range" {vertical}/>')
            shapes.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        return shapes
    if ends:
        outline = [(x, low) for (x, _), (low, _) in zip(places, ends, strict=True)]
        outline += [(x, high) for (x, _), (_, high) in zip(places, ends, strict=True)][::-1]
        shapes.append(f'<polygon class="spread" points="{_joined(outline)}"/>')
    shapes.append(f'<polyline class="line series{style}" points="{_joined(places)}"/>')
    return shapes


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _svg(label: str, shapes: Sequence[str]) -> Markup:
    wide, tall = CHART_SIZE
    return Markup(
        f'<svg class="diagram chart" viewBox="0 0 {wide} {tall}" role="img" '
        f'aria-label="{escape(label)}">{"".join(shapes)}</svg>'
    )
