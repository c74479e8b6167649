"""Training curves as inline SVG: accuracy and loss by epoch, loss by learning rate.

A function that ends in ``_table`` returns the numbers; the ``draw_`` function draws exactly these.
Colours are CSS classes, so that a figure follows light, dark and print styles. A curve contains no
text from outside: the names of phases are in the page.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from kindsight.report.data import Epoch
from kindsight.report.drawing.charts import (
    Axis,
    decimals,
    linear_axis,
    log_axis,
    thinned,
    whole_axis,
)
from kindsight.report.format import percent

__all__ = [
    "CURVE_SIZE", "DARK", "LIGHT", "MAX_POINTS", "Phase", "Point", "Rate", "curve_table",
    "draw_curve", "draw_rate", "phase_table", "rate_table", "svg_file",
]  # fmt: skip

MAX_POINTS = 300
"""Maximum number of points of a curve; the first, the last and the best are always included."""

MAX_DOTS = 40
"""Curves of at most this many epochs have a dot for each."""

CURVE_SIZE = (360, 292)
"""Width and height of a drawing in SVG units."""

_LEFT, _TOP, _RIGHT, _BASE = 50.0, 36.0, 346.0, 250.0

# The loss axis ends at this multiple of the median, so that a diverged start does not flatten the
# rest. Values above it are marked.
_OUTLIER = 8.0

# Minimum distance between two arrows of values above the axis, and minimum gap between their
# labels.
_ARROWS, _GAP_OF_LABELS = 9.0, 6.0

# The loss axis covers at least the first value, since labels of smaller numbers would not fit, and
# at most the second, since larger numbers overflow.
_SMALLEST, _LARGEST = 1e-3, 1e300


class Point(NamedTuple):
    """One epoch of a curve; `phase` counts from 0, `validation` is None if there is none."""

    epoch: int
    phase: int
    training: float
    validation: float | None
    best: bool


class Phase(NamedTuple):
    """A training phase with its first and last epoch."""

    name: str
    first: int
    last: int


class Rate(NamedTuple):
    """One step of a learning-rate finder; `suggested` marks the suggested rate."""

    rate: float
    loss: float
    suggested: bool


def curve_table(epochs: Sequence[Epoch], best: int | None, quantity: str) -> list[Point]:
    """Return at most `MAX_POINTS` points of ``"accuracy"`` (0-1) or ``"loss"`` (nats)."""
    phases = {phase.name: number for number, phase in enumerate(phase_table(epochs))}
    points = [
        Point(
            row.epoch,
            phases[row.phase],
            getattr(row, quantity),
            getattr(row, f"val_{quantity}"),
            row.epoch == best,
        )
        for row in epochs
    ]
    return thinned(points, MAX_POINTS, lambda point: point.best)


def phase_table(epochs: Sequence[Epoch]) -> list[Phase]:
    """Return the phases with their epochs, in order."""
    phases: dict[str, Phase] = {}
    for row in epochs:
        first = phases[row.phase].first if row.phase in phases else row.epoch
        phases[row.phase] = Phase(row.phase, first, row.epoch)
    return list(phases.values())


def rate_table(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> list[Rate]:
    """Return the steps of a learning-rate finder, at most `MAX_POINTS`.

    - `rates`: above 0, rising.
    - `losses`: one per rate, in nats; steps whose loss is not finite are omitted.
    - `suggestion`: the nearest step to this rate is marked.
    """
    pairs = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    nearest = None
    if suggestion is not None and pairs:
        nearest = min((pair[0] for pair in pairs), key=lambda r: abs(math.log(r / suggestion)))
    points = [Rate(rate, loss, rate == nearest) for rate, loss in pairs]
    return thinned(points, MAX_POINTS, lambda point: point.suggested)


def draw_curve(table: Sequence[Point], quantity: str) -> Markup:
    """Draw training and validation values (``"accuracy"`` or ``"loss"``) over the epochs."""
    across = whole_axis(table[0].epoch, table[-1].epoch, _LEFT, _RIGHT)
    values = [v for point in table for v in (point.training, point.validation) if v is not None]
    up = _value_axis(values, quantity)
    validated = any(point.validation is not None for point in table)
    shapes = [*_bands(table, across), *_grid(across, up, quantity)]
    shapes.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BASE + 32:.0f}" class="middle">epoch</text>'
    )
    shapes += [_vertical("best", across.coordinate(point.epoch)) for point in table if point.best]
    # Without validation, the training curve is drawn in the stronger style.
    kinds: list[tuple[str, Callable[[Point], float | None]]] = [
        ("training" if validated else "validation", lambda point: point.training)
    ]
    if validated:
        kinds.append(("validation", lambda point: point.validation))
    lines = [(kind, [(point.epoch, value(point)) for point in table]) for kind, value in kinds]
    for kind, points in lines:
        shapes += _line(kind, points, across, up)
    shapes += _cuts([point for _, points in lines for point in points], across, up)
    shapes += _rings(table, across, up)
    shapes += _legend(quantity, validated, next((row.epoch for row in table if row.best), None))
    shapes += _hovers(table, across, quantity)
    return _svg(
        f"{quantity.capitalize()} by epoch: training"
        f"{' and validation' if validated else ''}; {_ends(table, quantity)}",
        shapes,
        " many" if len(table) > 2 * MAX_DOTS else "",
    )


def draw_rate(table: Sequence[Rate]) -> Markup:
    """Draw loss over learning rate, with the suggested rate marked."""
    across = log_axis(table[0].rate, table[-1].rate, _LEFT, _RIGHT)
    up = _value_axis([row.loss for row in table], "loss")
    shapes = _grid(across, up, "loss")
    shapes.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BASE + 32:.0f}" class="middle">'
        "learning rate</text>"
    )
    chosen = [row for row in table if row.suggested]
    for row in chosen:
        shapes.append(_vertical("best", across.coordinate(row.rate)))
    points = [(row.rate, row.loss) for row in table]
    shapes += _line("validation", points, across, up, dots=False)
    shapes += _cuts(points, across, up)
    for row in chosen:
        x, y = across.coordinate(row.rate), up.coordinate(row.loss)
        shapes.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    shapes.append(f'<text class="title" x="8" y="18">loss</text>{_key("validation", 60, "loss")}')
    label = ""
    if chosen:
        label = f"; suggested {chosen[0].rate:.2g}"
        shapes.append(
            '<circle class="ring" cx="150" cy="14" r="5"/><text x="160" y="18">'
            f"suggested: {chosen[0].rate:.2g}</text>"
        )
    return _svg(f"Loss by learning rate{label}", shapes)


LIGHT = {
    "page": "#fbfaf7", "panel": "#f1efe9", "line": "#d9d5cb", "ink": "#1d2024",
    "quiet": "#575d64", "right": "#1a659e", "wrong": "#a9480a",
}  # fmt: skip
"""Colours of the light theme; the same as in the style sheet of the report."""

DARK = {
    "page": "#15171a", "panel": "#1e2125", "line": "#363b42", "ink": "#e8e6e1",
    "quiet": "#a5abb3", "right": "#7cb8ea", "wrong": "#f0a35e",
}  # fmt: skip
"""Colours of the dark theme."""

# A separate SVG file has its own style. It uses plain colours, since many SVG viewers support
# neither CSS variables nor media queries; those show the light theme.
_COLOURS = """
.page{{fill:{page}}}text{{fill:{quiet}}}.title{{fill:{ink}}}.note,.cut{{fill:{wrong}}}
.band{{fill:{panel}}}.grid{{stroke:{line}}}.axis,.phase{{stroke:{quiet}}}
.training.line{{stroke:{quiet}}}.training.dot{{fill:{quiet}}}
.validation.line{{stroke:{right}}}.validation.dot{{fill:{right}}}
.best{{stroke:{wrong}}}.ring{{stroke:{wrong};fill:{page}}}
""".replace("\n", "")
_SHAPES = (
    "text{font:11.5px system-ui,'Segoe UI',Roboto,'Noto Sans',Arial,sans-serif}"
    ".end{text-anchor:end}.middle{text-anchor:middle}.title{font-size:13px;font-weight:600}"
    ".note,.cut{font-weight:600}.line{fill:none;stroke-width:2.2;stroke-linejoin:round;"
    "stroke-linecap:round}.training.line{stroke-width:1.6;stroke-dasharray:5 3.5}"
    ".many .line{stroke-width:1.2;stroke-dasharray:none}.phase{stroke-dasharray:1 3}"
    ".best{stroke-dasharray:3 3}.ring{stroke-width:2.2}.hover{fill-opacity:0}"
)
_GAP = 24


def svg_file(drawings: Sequence[Markup], title: str) -> str:
    """Return an SVG document with drawings side by side, without scripts or external resources.

    `drawings` come from :func:`draw_curve` or :func:`draw_rate`; `title` may be any text.
    """
    wide, tall = CURVE_SIZE
    whole = len(drawings) * wide + (len(drawings) - 1) * _GAP + 20
    placed = "".join(
        re.sub(
            r"<svg ",
            f'<svg x="{10 + index * (wide + _GAP)}" y="8" width="{wide}" height="{tall}" ',
            drawing,
            count=1,
        )
        for index, drawing in enumerate(drawings)
    )
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {tall + 16}" '
        f'width="{whole}" height="{tall + 16}"><title>{escape(clean)}</title>'
        f"<style>{_SHAPES}{_COLOURS.format(**LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{_COLOURS.format(**DARK)}}}</style>"
        f'<rect class="page" width="{whole}" height="{tall + 16}"/>{placed}</svg>\n'
    )


def _svg(label: str, shapes: Sequence[str], kind: str = "") -> Markup:
    wide, tall = CURVE_SIZE
    return Markup(
        f'<svg class="diagram curve{kind}" viewBox="0 0 {wide} {tall}" role="img" '
        f'aria-label="{label}">{"".join(shapes)}</svg>'
    )


def _value_axis(values: Sequence[float], quantity: str) -> Axis:
    finite = sorted(value for value in values if math.isfinite(value))
    if quantity == "accuracy":
        return linear_axis(min(finite, default=0.0), 1.0, _BASE, _TOP, ceiling=1.0)
    low, high = (min(0.0, finite[0]), finite[-1]) if finite else (0.0, 1.0)
    if finite:
        high = min(high, _OUTLIER * finite[len(finite) // 2], _LARGEST)
    return linear_axis(low, max(high, _SMALLEST), _BASE, _TOP)


def _grid(across: Axis, up: Axis, quantity: str) -> list[str]:
    digits = decimals(up.ticks, 100 if quantity == "accuracy" else 1)
    lines = []
    for tick in up.ticks:
        y = up.coordinate(tick)
        label = f"{tick:.0e}" if up.high > 99_999 else f"{tick:.{digits}f}"
        if quantity == "accuracy":
            label = percent(tick, digits)
        lines.append(
            f'<line class="grid" x1="{_LEFT:.0f}" x2="{_RIGHT:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6:.0f}" y="{y + 4:.1f}" class="end">{label}</text>'
        )
    lines.append(
        f'<line class="axis" x1="{_LEFT:.0f}" x2="{_RIGHT:.0f}" y1="{_BASE:.0f}" y2="{_BASE:.0f}"/>'
    )
    for tick in across.ticks:
        label = f"{tick:,}" if isinstance(tick, int) else f"{tick:g}"
        x = min(across.coordinate(tick), CURVE_SIZE[0] - 3.5 * len(label))
        lines.append(f'<text x="{x:.1f}" y="{_BASE + 15:.0f}" class="middle">{label}</text>')
    return lines


def _bands(table: Sequence[Point], across: Axis) -> Iterator[str]:
    """Shade every second phase and draw a line where a phase begins."""
    edges = [
        (before.phase, (across.coordinate(before.epoch) + across.coordinate(after.epoch)) / 2)
        for before, after in itertools.pairwise(table)
        if before.phase != after.phase
    ]
    for index, (_, x) in enumerate(edges):
        if index % 2 == 0:
            end = edges[index + 1][1] if index + 1 < len(edges) else _RIGHT
            yield (
                f'<rect class="band" x="{x:.1f}" y="{_TOP:.0f}" width="{end - x:.1f}" '
                f'height="{_BASE - _TOP:.0f}"/>'
            )
        yield _vertical("phase", x)


def _vertical(kind: str, x: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:.0f}" y2="{_BASE:.0f}"/>'


def _rings(table: Sequence[Point], across: Axis, up: Axis) -> Iterator[str]:
    for point in table:
        value = point.training if point.validation is None else point.validation
        if point.best and math.isfinite(value):
            x, y = across.coordinate(point.epoch), up.coordinate(value)
            yield f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def _cuts(points: Sequence[tuple[float, float | None]], across: Axis, up: Axis) -> Iterator[str]:
    """Mark values above the axis with an arrow; the highest of several close ones is labelled.

    NaN has no arrow. The labels are above the plot, where no curve is.
    """
    cut = [(across.coordinate(x), v) for x, v in points if v is not None and not v <= up.high]
    arrows: list[float] = []
    labels: list[tuple[float, float]] = []  # middle and half of the width
    for x, value in sorted(cut, key=lambda item: (not math.isnan(item[1]), -item[1], item[0])):
        if not math.isnan(value) and all(abs(x - other) >= _ARROWS for other in arrows):
            arrows.append(x)
            yield f'<path class="cut" d="M{x:.1f} {_TOP:.0f}l-4.5 8h9z"/>'
        text = {math.inf: "infinite"}.get(value) or f"{value:.3g}".replace("nan", "NaN")
        half = 3.6 * len(text)  # of its width
        middle = min(max(x, _LEFT + half), CURVE_SIZE[0] - half)
        if all(abs(middle - x) >= half + other + _GAP_OF_LABELS for x, other in labels):
            labels.append((middle, half))
            yield f'<text class="middle cut" x="{middle:.1f}" y="{_TOP - 4:.0f}">{text}</text>'


def _line(
    kind: str, points: Sequence[tuple[float, float | None]], across: Axis, up: Axis, *,
    dots: bool = True,
) -> Iterator[str]:  # fmt: skip
    """Draw a line through the points, interrupted where a value is missing or not finite."""
    path, pen = [], "M"
    for epoch, value in points:
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        x, y = across.coordinate(epoch), up.coordinate(value)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
        if dots and len(points) <= MAX_DOTS:
            yield f'<circle class="{kind} dot" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
    if path:
        yield f'<path class="{kind} line" d="{"".join(path)}"/>'


def _key(kind: str, x: float, name: str) -> str:
    return (
        f'<path class="{kind} line" d="M{x:.0f} 14h18"/><text x="{x + 23:.0f}" y="18">{name}</text>'
    )


def _legend(quantity: str, validated: bool, best: int | None) -> Iterator[str]:
    yield f'<text class="title" x="8" y="18">{quantity}</text>'
    if best is not None:
        yield '<circle class="ring" cx="84" cy="14" r="5"/>'
        yield f'<text class="note" x="94" y="18">best: {best:,}</text>'
    if validated:
        yield _key("training", 172, "training") + _key("validation", 262, "validation")
    else:
        yield _key("validation", 272, "training")


def _hovers(table: Sequence[Point], across: Axis, quantity: str) -> Iterator[str]:
    """Lay a transparent stripe with a tooltip over each epoch."""
    xs = [across.coordinate(point.epoch) for point in table]
    edges = [_LEFT, *((a + b) / 2 for a, b in itertools.pairwise(xs)), _RIGHT]
    for index, point in enumerate(table):
        text = f"epoch {point.epoch}: training {_value(point.training, quantity)}"
        if point.validation is not None:
            text += f", validation {_value(point.validation, quantity)}"
        yield (
            f'<g><title>{text}</title><rect class="hover" x="{edges[index]:.1f}" '
            f'y="{_TOP:.0f}" width="{max(0.0, edges[index + 1] - edges[index]):.1f}" '
            f'height="{_BASE - _TOP:.0f}"/></g>'
        )


def _ends(table: Sequence[Point], quantity: str) -> str:
    last = table[-1]
    value = last.training if last.validation is None else last.validation
    text = f"{_value(value, quantity)} in the last epoch ({last.epoch})"
    for point in table:
        if point.best:
            value = point.training if point.validation is None else point.validation
            text += f"; {_value(value, quantity)} in the best ({point.epoch})"
    return text


def _value(value: float, quantity: str) -> str:
    return percent(value) if quantity == "accuracy" else f"{value:.4f}"
