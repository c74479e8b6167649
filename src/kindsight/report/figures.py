"""Figures that stand in the rows of a table, as inline SVG, each drawn from the row it stands in.

A function ending in ``_table`` gives the numbers, the ``draw_`` function of the same name draws
nothing but them. Colours are classes of the page's own style, so that a figure follows light,
dark and print. A figure holds no text from outside: names stand in the row, beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from kindsight.evaluation import Evaluation, reliability, wilson_interval
from kindsight.report.data import HeadChoice, Part, Predictions, Reference
from kindsight.report.words import amount, percent

__all__ = [
    "LEVELS",
    "MAX_CELLS",
    "Bin",
    "Bound",
    "Share",
    "Stage",
    "class_table",
    "comparison_table",
    "confusion_table",
    "draw_confusion",
    "draw_interval",
    "draw_reliability",
    "draw_stage",
    "head_table",
    "heat",
    "reliability_table",
    "scale_start",
    "time_table",
]


class Bound(NamedTuple):
    """A share of 0-1 with the ends between which it lies (both the value where unknown)."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""


class Stage(NamedTuple):
    """A stage of a run: how long it took, and where it lies, as shares of the whole."""

    name: str
    seconds: float
    start: float
    share: float


def class_table(evaluation: Evaluation) -> list[Bound]:
    """Give each class's recall with its 95% interval, in the classifier's order."""
    return [Bound(score.name, score.recall, *score.recall_interval) for score in evaluation.classes]


def comparison_table(part: Part, reference: Sequence[Reference]) -> list[Bound]:
    """Give our accuracy and the others', the best first."""
    ours = part.evaluation
    rows = [Bound("this classifier", ours.accuracy, *ours.accuracy_interval, f"{part.name} images")]
    rows += [Bound(name, value, value, value, source) for name, value, source in reference]
    return sorted(rows, key=lambda row: -row.value)


def head_table(choices: Sequence[HeadChoice]) -> list[Bound]:
    """Give the cross-validated accuracy of each head, one standard deviation either way."""
    return [
        Bound(
            choice.name,
            choice.accuracy,
            max(0.0, choice.accuracy - (choice.spread or 0.0)),
            min(1.0, choice.accuracy + (choice.spread or 0.0)),
        )
        for choice in choices
    ]


def scale_start(table: Sequence[Bound]) -> float:
    """Give the round share at which a scale ending at 1 starts so that all rows fit on it."""
    known = [row.low for row in table if math.isfinite(row.value)]
    lowest = min(known, default=0.0)
    for start in (0.95, 0.9, 0.8, 0.5):
        if lowest >= start:
            return start
    return 0.0


def draw_interval(row: Bound, start: float = 0.0) -> Markup:
    """Draw a share as a dot on a line from `start` to 1, with its interval as a thick line."""
    if not math.isfinite(row.value):
        return Markup('<span class="quiet">no images</span>')

    def place(share: float) -> float:
        return 6 + 108 * min(1.0, max(0.0, (share - start) / (1 - start)))

    said = percent(row.value)
    if row.low < row.high:
        said += f", between {percent(row.low)} and {percent(row.high)}"
    return Markup(
        f'<svg class="interval" viewBox="0 0 120 16" width="120" height="16" role="img" '
        f'aria-label="{said}"><line class="track" x1="6" x2="114" y1="8" y2="8"/>'
        f'<line class="range" x1="{place(row.low):.1f}" x2="{place(row.high):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot" cx="{place(row.value):.1f}" cy="8" r="4"/></svg>'
    )


def time_table(seconds: Mapping[str, float]) -> list[Stage]:
    """Give the stages one after the other; where they overlapped, all from the beginning."""
    stages = {name: float(value) for name, value in seconds.items() if name != "total"}
    total = float(seconds.get("total", 0.0))
    passed = math.fsum(stages.values())
    overlapped = bool(total) and passed > total * 1.001
    if total and not overlapped and total - passed > 0.005 * total:
        stages["everything else"] = total - passed
    whole = max([total or passed, *stages.values(), 1e-9])
    rows, start = [], 0.0
    for name, value in stages.items():
        rows.append(Stage(name, value, 0.0 if overlapped else start, value / whole))
        start += value / whole
    return rows


def draw_stage(row: Stage) -> Markup:
    """Draw when a stage ran as a bar on the line of the whole run."""
    left, wide = 200 * row.start, max(1.5, 200 * row.share)
    return Markup(
        f'<svg class="stage" viewBox="0 0 200 14" preserveAspectRatio="none" role="img" '
        f'aria-label="{percent(row.share)} of the run">'
        f'<rect class="track" width="200" height="14"/>'
        f'<rect class="bar" x="{min(left, 198.5):.1f}" width="{wide:.1f}" height="14"/></svg>'
    )


# SECTION: The two diagrams of a report: the confusion matrix and the reliability diagram, as
# inline SVG.
#
# A function ending in ``_table`` gives the numbers, the ``draw_`` function of the same name draws
# nothing but them. Colours are classes of the page's own style, so that a figure follows light,
# dark and print. A diagram holds no text from outside: names stand in the page, around it.

LEVELS = 5
"""Shades of a heat map."""

MAX_CELLS = 10_000
"""Squares drawn in a heat map at most, the strongest of them."""

_LEFT, _TOP, _WIDE, _TALL = 54, 8, 288, 250
_BASE, _BARS = 334, 48


class Share(NamedTuple):
    """One cell of a confusion matrix: images, and their share of the row."""

    row: int
    column: int
    images: int
    share: float


class Bin(NamedTuple):
    """One filled bin of a reliability diagram; `low` and `high` are accuracy's 95% interval."""

    start: float
    end: float
    images: int
    confidence: float
    accuracy: float
    low: float
    high: float


def confusion_table(evaluation: Evaluation) -> list[Share]:
    """Give the filled cells of the confusion matrix, row by row."""
    support = evaluation.confusion.sum(axis=1)
    return [
        Share(
            int(i), int(j), int(evaluation.confusion[i, j]), evaluation.confusion[i, j] / support[i]
        )
        for i, j in zip(*np.nonzero(evaluation.confusion), strict=True)
    ]


def heat(share: float) -> int:
    """Give the shade of a share: 0 for none, 1 to `LEVELS` for the rest."""
    return min(LEVELS, math.ceil(share * LEVELS - 1e-9))


def draw_confusion(table: Sequence[Share], classes: int) -> Markup:
    """Draw a confusion matrix too large for a table of numbers: one square a filled cell."""
    strongest = sorted(table, key=lambda cell: -cell.share)[:MAX_CELLS]
    paths = []
    for kind, same in (("wrong", False), ("right", True)):
        for level in range(1, LEVELS + 1):
            squares = "".join(
                f"M{cell.column} {cell.row}h1v1h-1z"
                for cell in strongest
                if (cell.row == cell.column) is same and heat(cell.share) == level
            )
            if squares:
                paths.append(f'<path class="{kind} level{level}" d="{squares}"/>')
    return Markup(
        f'<svg class="map" viewBox="0 0 {classes} {classes}" role="img" '
        f'aria-label="Heat map of the confusion matrix: label by row, prediction by column">'
        f'<rect class="ground" width="{classes}" height="{classes}"/>{"".join(paths)}</svg>'
    )


def reliability_table(predictions: Predictions) -> list[Bin]:
    """Give the filled bins of confidence with how often the classifier was right."""
    found = reliability(predictions.probabilities, predictions.targets)
    rows = []
    for place in np.flatnonzero(found.count):
        count, accuracy = int(found.count[place]), float(found.accuracy[place])
        rows.append(
            Bin(
                float(found.edges[place]),
                float(found.edges[place + 1]),
                count,
                float(found.confidence[place]),
                accuracy,
                *wilson_interval(round(accuracy * count), count),
            )
        )
    return rows


def _x(share: float) -> str:
    return f"{_LEFT + _WIDE * share:.1f}"


def _y(share: float) -> str:
    return f"{_TOP + _TALL * (1 - share):.1f}"


def _axes() -> list[str]:
    lines = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        across = f'x1="{_x(0)}" x2="{_x(1)}" y1="{_y(tick)}" y2="{_y(tick)}"'
        lines.append(f'<line class="grid" {across}/>')
        label = percent(tick, 0)
        lines.append(
            f'<text x="{_LEFT - 6}" y="{float(_y(tick)) + 4:.1f}" class="end">{label}</text>'
        )
        lines.append(f'<text x="{_x(tick)}" y="{_BASE + 15}" class="middle">{label}</text>')
    lines.append(f'<line class="ideal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    lines.append(f'<line class="axis" x1="{_x(0)}" x2="{_x(1)}" y1="{_BASE}" y2="{_BASE}"/>')
    lines.append(f'<text x="{_x(0.5)}" y="{_BASE + 32}" class="middle">confidence</text>')
    middle = f"{_TOP + _TALL / 2:.0f}"
    lines.append(
        f'<text x="12" y="{middle}" class="middle" transform="rotate(-90 12 {middle})">'
        "share right</text>"
    )
    return lines


def draw_reliability(table: Sequence[Bin]) -> Markup:
    """Draw accuracy against confidence, the ideal as a diagonal, and the counts below."""
    shapes = _axes()
    most = max((row.images for row in table), default=1)
    for row in table:
        said = (
            f"{percent(row.start, 0)} to {percent(row.end, 0)} sure: "
            f"{amount(row.images, 'image')}, {percent(row.accuracy)} right"
        )
        tall = max(1.5, _BARS * row.images / most)
        left, right = float(_x(row.start)) + 1, float(_x(row.end)) - 1
        shapes.append(
            f'<g><title>{said}</title><rect class="count" x="{left:.1f}" y="{_BASE - tall:.1f}" '
            f'width="{right - left:.1f}" height="{tall:.1f}"/>'
            f'<line class="range" x1="{_x(row.confidence)}" x2="{_x(row.confidence)}" '
            f'y1="{_y(row.low)}" y2="{_y(row.high)}"/>'
            f'<circle class="dot" cx="{_x(row.confidence)}" cy="{_y(row.accuracy)}" r="4.5"/></g>'
        )
    return Markup(
        f'<svg class="diagram" viewBox="0 0 360 {_BASE + 38}" role="img" '
        'aria-label="Reliability diagram: share right against confidence, with 95% intervals; '
        f'below it the number of images at each confidence">{"".join(shapes)}</svg>'
    )
