"""Small pieces of HTML with which values show themselves in a notebook.

Each piece is self-contained: styles are written into its elements, in colours that are readable on
light and dark pages, and every text is escaped. Nothing is loaded and no script is run.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["bar", "card", "facts", "images", "line_chart", "paragraph", "table", "text"]

# Control characters could break the page; marks that change the direction of text could disguise a
# name; halves of surrogate pairs cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
_IMAGE = re.compile(r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")

LONGEST = 200
"""Characters of a text; of longer ones the middle is left out."""

LINE, FAINT = "rgba(128,128,128,.45)", "rgba(128,128,128,.14)"
"""Lines and areas: half-transparent grey, on light and dark pages."""

COLOURS = ("#2f81c7", "#d9731a", "#3f9b57", "#a35fc4")
"""Of a chart's lines: at least 3:1 against white and against black."""

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 30
"""Size and margins of a chart in pixels."""


def text(value: object, limit: int = LONGEST) -> str:
    """Return a value as escaped text."""
    found = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    if len(found) > limit:
        found = f"{found[: limit // 2]}\N{HORIZONTAL ELLIPSIS}{found[-limit // 2 :]}"
    return html.escape(found)


def card(title: str, *parts: str) -> str:
    """Return a block with a title; the parts are HTML, and empty ones are left out."""
    return (
        '<div style="max-width:60em;line-height:1.45">'
        f'<div style="font-weight:600;margin:.2em 0">{text(title)}</div>'
        f"{''.join(part for part in parts if part)}</div>"
    )


def paragraph(value: object, *, faint: bool = False) -> str:
    """Return a paragraph of escaped text."""
    style = "margin:.3em 0" + (";opacity:.75;font-size:.92em" if faint else "")
    return f'<p style="{style}">{text(value, 1000)}</p>'


def facts(rows: Mapping[str, object]) -> str:
    """Return a table of two columns: name and value."""
    cells = "".join(
        f'<tr style="background:none"><th scope="row" style="text-align:left;font-weight:400;'
        f'opacity:.75;padding:.1em 1em .1em 0;vertical-align:top">{text(name)}</th>'
        f'<td style="text-align:left;padding:.1em 0">{text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f'<table style="border-collapse:collapse;margin:.3em 0">{cells}</table>' if cells else ""


def table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Return a table; the first `left` columns are left-aligned, the others right-aligned.

    A cell that is a :class:`Shaded` has a background by its fraction.
    """

    def cell(value: object, column: int) -> str:
        align = "left" if column < left else "right"
        style = f"text-align:{align};padding:.12em .7em .12em 0;font-variant-numeric:tabular-nums"
        if isinstance(value, Shaded):
            style += f";background:rgba({value.colour},{0.08 + 0.6 * value.fraction:.2f})"
            style += ";padding:.12em .5em" if value.fraction else ""
        return f'<td style="{style}">{text(value)}</td>'

    head = "".join(
        f'<th scope="col" style="text-align:{"left" if column < left else "right"};'
        f'padding:.12em .7em .12em 0;font-weight:400;opacity:.75">{text(name)}</th>'
        for column, name in enumerate(header)
    )
    body = "".join(
        '<tr style="background:none">'
        + "".join(cell(value, column) for column, value in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:.4em 0">'
        f'<thead><tr style="border-bottom:1px solid {LINE}">{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


class Shaded(str):
    """A cell's text with a background: `fraction` 0-1 of a colour, such as ``"47,129,199"``."""

    fraction: float
    colour: str

    def __new__(cls, value: object, fraction: float, colour: str = "47,129,199") -> Shaded:
        """Return the text with its fraction and colour."""
        made = super().__new__(cls, value)
        made.fraction, made.colour = min(max(fraction, 0.0), 1.0), colour
        return made


def bar(fraction: float, label: str) -> str:
    """Return a bar of a fraction 0-1, with its label for screen readers."""
    width = 100 * min(max(fraction, 0.0), 1.0)
    return (
        f'<div role="img" aria-label="{text(label)}" style="height:.5em;max-width:22em;'
        f'background:{FAINT};margin:.25em 0"><div style="height:100%;width:{width:.1f}%;'
        f'background:{COLOURS[0]}"></div></div>'
    )


def images(found: Sequence[tuple[str, str]]) -> str:
    """Return small images with captions: pairs of a ``data:`` URI and a text."""
    figures = "".join(
        '<figure style="margin:0;width:6em">'
        f'<img src="{uri}" alt="{text(caption, 80)}" style="width:6em;height:6em;'
        f'object-fit:contain;background:{FAINT};display:block">'
        '<figcaption style="font-size:.8em;opacity:.8;overflow:hidden;text-overflow:ellipsis;'
        f'white-space:nowrap">{text(caption, 80)}</figcaption></figure>'
        for uri, caption in found
        if _IMAGE.fullmatch(uri)
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:.5em;margin:.4em 0">{figures}</div>'
        if figures
        else ""
    )


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[float | None]],
    *,
    marked: int | None = None,
    percent: bool = False,
) -> str:
    """Return a chart of lines over epochs 1, 2, 3, ... as SVG.

    Parameters
    ----------
    title : str
    lines : mapping of str to sequence of float or None
        Values by name; None and NaN leave a gap. At most four lines.
    marked : int, optional
        An epoch to mark.
    percent : bool
        Whether values from 0 to 1 are shown as percentages.
    """
    values = [v for line in lines.values() for v in line if v is not None and math.isfinite(v)]
    count = max((len(line) for line in lines.values()), default=0)
    if not values or not count:
        return ""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((epoch - 1) / max(count - 1, 1))

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def label(value: float) -> str:
        return f"{100 * value:.0f}%" if percent else f"{value:.3g}"

    parts = [
        f'<svg role="img" aria-label="{text(title)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="width:{WIDTH}px;max-width:100%;font-size:11px" fill="currentColor">'
    ]
    for value in (low, (low + high) / 2, high):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="{LINE}" stroke-width=".7"/><text x="{LEFT - 5}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{label(value)}</text>'
        )
    for epoch in sorted({1, count}):
        parts.append(
            f'<text x="{x(epoch):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{epoch}'
            "</text>"
        )
    if marked is not None and 1 <= marked <= count:
        parts.append(
            f'<line x1="{x(marked):.1f}" x2="{x(marked):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
            f'stroke="currentColor" stroke-dasharray="2 3" opacity=".6"/>'
        )
    legend = LEFT
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
            for points in _polylines(line, x, y)
        ]
        parts.append(
            f'<line x1="{legend}" x2="{legend + 14}" y1="{HEIGHT - 6}" y2="{HEIGHT - 6}" '
            f'stroke="{colour}" stroke-width="2.5"/><text x="{legend + 18}" y="{HEIGHT - 2}">'
            f"{text(name, 24)}</text>"
        )
        legend += 34 + 6 * min(len(name), 24)
    title_line = f'<div style="font-size:.92em;opacity:.8">{text(title)}</div>'
    return f"<div>{title_line}{''.join(parts)}</svg></div>"


def _polylines(line: Sequence[float | None], x: object, y: object) -> list[str]:
    """Return the points of each run of finite values, for polylines."""
    assert callable(x)
    assert callable(y)
    runs: list[list[str]] = [[]]
    for epoch, value in enumerate(line, 1):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append(f"{x(epoch):.1f},{y(value):.1f}")
    return [" ".join(run if len(run) > 1 else 2 * run) for run in runs if run]
