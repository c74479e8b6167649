"""The curves of a training, as inline SVG: accuracy and loss by epoch, loss by learning rate.

The numbers come from :mod:`.epochs`, and nothing but them is drawn. Colours are classes of the
page's own style, so that a figure follows light, dark and print. A curve holds no text from
outside: names of phases stand in the page, below it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup, escape

from kindsight.report.axes import Axis, decimals, linear_axis, log_axis, whole_axis
from kindsight.report.epochs import Point, Rate
from kindsight.report.words import percent

__all__ = [
    "CURVE_SIZE",
    "DARK",
    "LIGHT",
    "draw_curve",
    "draw_rate",
    "svg_file",
]

MAX_DOTS = 40
"""Epochs up to which each has a dot."""

CURVE_SIZE = (360, 292)
"""Width and height of a drawing, in its own units."""

_LEFT, _TOP, _RIGHT, _BASE = 50.0, 36.0, 346.0, 250.0
# A diverged start may be thousands of times what the rest is about.
_OUTLIER = 8.0
# Labels of smaller numbers would not fit; larger ones have no room among floats.
_SMALLEST, _LARGEST = 1e-3, 1e300


def draw_curve(table: Sequence[Point], quantity: str) -> Markup:
    """Draw a quantity of the training and the validation part over the epochs."""
    across = whole_axis(table[0].epoch, table[-1].epoch, _LEFT, _RIGHT)
    values = [v for point in table for v in (point.training, point.validation) if v is not None]
    up = _scale(values, quantity)
    known = any(point.validation is not None for point in table)
    shapes = [*_bands(table, across), *_grid(across, up, quantity)]
    shapes.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BASE + 32:.0f}" class="middle">epoch</text>'
    )
    shapes += _best(table, across)
    # Where it is the whole story, the training part's line is the strong one.
    kinds: list[tuple[str, Callable[[Point], float | None]]] = [
        ("training" if known else "validation", lambda point: point.training)
    ]
    if known:
        kinds.append(("validation", lambda point: point.validation))
    for kind, value in kinds:
        shapes += _line(kind, [(point.epoch, value(point)) for point in table], across, up)
    # Accuracy leaves room at the bottom, loss at the top.
    shapes += _rings(table, across, up, _BASE - 8 if quantity == "accuracy" else _TOP + 11)
    shapes += _legend(quantity, known)
    shapes += _hovers(table, across, quantity)
    return _svg(
        f"{quantity.capitalize()} by epoch: training"
        f"{' and validation' if known else ''}; {_ends(table, quantity)}",
        shapes,
        " many" if len(table) > 2 * MAX_DOTS else "",
    )


def draw_rate(table: Sequence[Rate]) -> Markup:
    """Draw loss over learning rate, the suggested rate marked."""
    across = log_axis(table[0].rate, table[-1].rate, _LEFT, _RIGHT)
    up = _scale([row.loss for row in table], "loss")
    shapes = _grid(across, up, "loss")
    shapes.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BASE + 32:.0f}" class="middle">'
        "learning rate</text>"
    )
    chosen = [row for row in table if row.suggested]
    for row in chosen:
        shapes.append(_upright("best", across.place(row.rate)))
    shapes += _line("validation", [(row.rate, row.loss) for row in table], across, up, dots=False)
    for row in chosen:
        x, y = across.place(row.rate), up.place(row.loss)
        shapes.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    shapes.append(f'<text class="title" x="8" y="18">loss</text>{_key("validation", 60, "loss")}')
    said = ""
    if chosen:
        said = f"; suggested {chosen[0].rate:.2g}"
        shapes.append(
            '<circle class="ring" cx="150" cy="14" r="5"/><text x="160" y="18">'
            f"suggested: {chosen[0].rate:.2g}</text>"
        )
    return _svg(f"Loss by learning rate{said}", shapes)


def _svg(said: str, shapes: Sequence[str], kind: str = "") -> Markup:
    wide, tall = CURVE_SIZE
    return Markup(
        f'<svg class="diagram curve{kind}" viewBox="0 0 {wide} {tall}" role="img" '
        f'aria-label="{said}">{"".join(shapes)}</svg>'
    )


def _scale(values: Sequence[float], quantity: str) -> Axis:
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
        y = up.place(tick)
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
        x = min(across.place(tick), CURVE_SIZE[0] - 3.5 * len(label))
        lines.append(f'<text x="{x:.1f}" y="{_BASE + 15:.0f}" class="middle">{label}</text>')
    return lines


def _bands(table: Sequence[Point], across: Axis) -> Iterator[str]:
    """Shade every second phase, and draw a line where one begins."""
    edges = [
        (before.phase, (across.place(before.epoch) + across.place(after.epoch)) / 2)
        for before, after in itertools.pairwise(table)
        if before.phase != after.phase
    ]
    for place, (_, x) in enumerate(edges):
        if place % 2 == 0:
            end = edges[place + 1][1] if place + 1 < len(edges) else _RIGHT
            yield (
                f'<rect class="band" x="{x:.1f}" y="{_TOP:.0f}" width="{end - x:.1f}" '
                f'height="{_BASE - _TOP:.0f}"/>'
            )
        yield _upright("phase", x)


def _upright(kind: str, x: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:.0f}" y2="{_BASE:.0f}"/>'


def _best(table: Sequence[Point], across: Axis) -> list[str]:
    return [_upright("best", across.place(point.epoch)) for point in table if point.best]


def _rings(table: Sequence[Point], across: Axis, up: Axis, level: float) -> Iterator[str]:
    for point in table:
        value = point.training if point.validation is None else point.validation
        if not point.best:
            continue
        x = across.place(point.epoch)
        if math.isfinite(value):
            yield f'<circle class="ring" cx="{x:.1f}" cy="{up.place(value):.1f}" r="5"/>'
        side, kind = (x - 6, "end") if x > (_LEFT + _RIGHT) / 2 else (x + 6, "start")
        yield (
            f'<text class="{kind} note" x="{side:.1f}" y="{level:.0f}">best: {point.epoch:,}</text>'
        )


def _line(
    kind: str,
    points: Sequence[tuple[float, float | None]],
    across: Axis,
    up: Axis,
    *,
    dots: bool = True,
) -> Iterator[str]:
    """Draw a line through the points, broken where a value is not finite."""
    path, pen = [], "M"
    for x, y in points:
        if y is None or not math.isfinite(y):
            pen = "M"
            continue
        path.append(f"{pen}{across.place(x):.1f} {up.place(y):.1f}")
        pen = "L"
        if dots and len(points) <= MAX_DOTS:
            yield (
                f'<circle class="{kind} dot" cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" '
                'r="2.2"/>'
            )
    if path:
        yield f'<path class="{kind} line" d="{"".join(path)}"/>'


def _key(kind: str, x: float, name: str) -> str:
    return (
        f'<path class="{kind} line" d="M{x:.0f} 14h18"/><text x="{x + 23:.0f}" y="18">{name}</text>'
    )


def _legend(quantity: str, known: bool) -> Iterator[str]:
    yield f'<text class="title" x="8" y="18">{quantity}</text>'
    if known:
        yield _key("training", 172, "training") + _key("validation", 262, "validation")
    else:
        yield _key("validation", 272, "training")


def _hovers(table: Sequence[Point], across: Axis, quantity: str) -> Iterator[str]:
    """Lay an unseen stripe over each epoch that tells its numbers to a pointer."""
    places = [across.place(point.epoch) for point in table]
    edges = [_LEFT, *((a + b) / 2 for a, b in itertools.pairwise(places)), _RIGHT]
    for place, point in enumerate(table):
        said = f"epoch {point.epoch}: training {_value(point.training, quantity)}"
        if point.validation is not None:
            said += f", validation {_value(point.validation, quantity)}"
        yield (
            f'<g><title>{said}</title><rect class="hover" x="{edges[place]:.1f}" '
            f'y="{_TOP:.0f}" width="{max(0.0, edges[place + 1] - edges[place]):.1f}" '
            f'height="{_BASE - _TOP:.0f}"/></g>'
        )


def _ends(table: Sequence[Point], quantity: str) -> str:
    last = table[-1]
    value = last.training if last.validation is None else last.validation
    said = f"{_value(value, quantity)} at the last epoch, {last.epoch}"
    for point in table:
        if point.best:
            value = point.training if point.validation is None else point.validation
            said += f"; {_value(value, quantity)} at the best, {point.epoch}"
    return said


def _value(value: float, quantity: str) -> str:
    return percent(value) if quantity == "accuracy" else f"{value:.4f}"


# SECTION: Curves as an SVG file of its own: what the page's style gives them, it carries with it.

LIGHT = {
    "page": "#fbfaf7", "panel": "#f1efe9", "line": "#d9d5cb", "ink": "#1d2024",
    "quiet": "#575d64", "right": "#1a659e", "wrong": "#a9480a",
}  # fmt: skip
"""The report's colours on light ground; a test holds them to its style sheet."""

DARK = {
    "page": "#15171a", "panel": "#1e2125", "line": "#363b42", "ink": "#e8e6e1",
    "quiet": "#a5abb3", "right": "#7cb8ea", "wrong": "#f0a35e",
}  # fmt: skip
"""The same on dark ground."""

# Plain colours, not variables: programs that draw SVG know no variables, or no media queries,
# and then show the light ones.
_COLOURS = """
.page{{fill:{page}}}text{{fill:{quiet}}}.title{{fill:{ink}}}.note{{fill:{wrong}}}
.band{{fill:{panel}}}.grid{{stroke:{line}}}.axis,.phase{{stroke:{quiet}}}
.training.line{{stroke:{quiet}}}.training.dot{{fill:{quiet}}}
.validation.line{{stroke:{right}}}.validation.dot{{fill:{right}}}
.best{{stroke:{wrong}}}.ring{{stroke:{wrong};fill:{page}}}
""".replace("\n", "")
_SHAPES = (
    "text{font:11.5px system-ui,'Segoe UI',Roboto,'Noto Sans',Arial,sans-serif}"
    ".end{text-anchor:end}.middle{text-anchor:middle}.title{font-size:13px;font-weight:600}"
    ".note{font-weight:600}.line{fill:none;stroke-width:2.2;stroke-linejoin:round;"
    "stroke-linecap:round}.training.line{stroke-width:1.6;stroke-dasharray:5 3.5}"
    ".many .line{stroke-width:1.2;stroke-dasharray:none}.phase{stroke-dasharray:1 3}"
    ".best{stroke-dasharray:3 3}.ring{stroke-width:2.2}.hover{fill-opacity:0}"
)
_GAP = 24


def svg_file(drawings: Sequence[Markup], title: str) -> str:
    """Put drawings side by side in one file.

    Parameters
    ----------
    drawings : sequence of Markup
        As :func:`.curves.draw_curve` and :func:`.curves.draw_rate` make them.
    title : str
        What the whole is called; anything.

    Returns
    -------
    str
        An SVG document that fetches nothing, runs no script and follows light and dark.
    """
    wide, tall = CURVE_SIZE
    whole = len(drawings) * wide + (len(drawings) - 1) * _GAP + 20
    placed = "".join(
        re.sub(
            r"<svg ",
            f'<svg x="{10 + place * (wide + _GAP)}" y="8" width="{wide}" height="{tall}" ',
            drawing,
            count=1,
        )
        for place, drawing in enumerate(drawings)
    )
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {tall + 16}" '
        f'width="{whole}" height="{tall + 16}"><title>{escape(clean)}</title>'
        f"<style>{_SHAPES}{_COLOURS.format(**LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{_COLOURS.format(**DARK)}}}</style>"
        f'<rect class="page" width="{whole}" height="{tall + 16}"/>{placed}</svg>\n'
    )
