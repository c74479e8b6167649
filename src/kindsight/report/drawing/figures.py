"""Figures of the report as inline SVG: intervals, stages, confusion matrix, reliability diagram.

A function that ends in ``_table`` returns the numbers; the ``draw_`` function draws exactly these.
Colours are CSS classes, so that a figure follows light, dark and print styles. Names in a
figure are escaped and shortened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from kindsight.evaluation import Evaluation, reliability, wilson_interval
from kindsight.report.data import HeadCandidateRow, Predictions, Reference, SplitResult
from kindsight.report.format import amount, elide, percent

__all__ = [
    "LEVELS", "MAX_CELLS", "Bin", "ConfusionCell", "IntervalRow", "Stage", "class_table",
    "comparison_table", "confusion_table", "draw_confusion", "draw_interval", "draw_reliability",
    "draw_stage", "head_table", "heat_level", "reliability_table", "scale_start", "time_table",
]  # fmt: skip


class IntervalRow(NamedTuple):
    """A value of 0-1 with its interval; both ends equal the value if the interval is unknown."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""


class Stage(NamedTuple):
    """A stage of a run; `start` and `fraction` are relative to the whole run."""

    name: str
    seconds: float
    start: float
    fraction: float


def class_table(evaluation: Evaluation) -> list[IntervalRow]:
    """Return the recall of each class with its 95% confidence interval."""
    return [
        IntervalRow(score.name, score.recall, *score.recall_interval)
        for score in evaluation.classes
    ]


def comparison_table(result: SplitResult, reference: Sequence[Reference]) -> list[IntervalRow]:
    """Return this classifier's accuracy and the reference accuracies, highest first."""
    ours = result.evaluation
    note = f"{result.name} images"
    rows = [IntervalRow("this classifier", ours.accuracy, *ours.accuracy_interval, note)]
    rows += [IntervalRow(name, value, value, value, source) for name, value, source in reference]
    return sorted(rows, key=lambda row: -row.value)


def head_table(candidates: Sequence[HeadCandidateRow]) -> list[IntervalRow]:
    """Return the cross-validated accuracy of each head, plus and minus one standard deviation."""
    spreads = [row.spread or 0.0 for row in candidates]
    return [
        IntervalRow(one.name, one.accuracy, max(0.0, one.accuracy - s), min(1.0, one.accuracy + s))
        for one, s in zip(candidates, spreads, strict=True)
    ]


def scale_start(table: Sequence[IntervalRow]) -> float:
    """Return the round value at which a scale that ends at 1 must start to contain all rows."""
    known = [row.low for row in table if math.isfinite(row.value)]
    lowest = min(known, default=0.0)
    for start in (0.95, 0.9, 0.8, 0.5):
        if lowest >= start:
            return start
    return 0.0


def draw_interval(row: IntervalRow, start: float = 0.0) -> Markup:
    """Draw a value as a dot on a line from `start` to 1, with its interval as a thick line."""
    if not math.isfinite(row.value):
        return Markup('<span class="quiet">no images</span>')

    def x(value: float) -> float:
        return 6 + 108 * min(1.0, max(0.0, (value - start) / (1 - start)))

    label = percent(row.value)
    if row.low < row.high:
        label += f", between {percent(row.low)} and {percent(row.high)}"
    return Markup(
        f'<svg class="interval" viewBox="0 0 120 16" width="120" height="16" role="img" '
        f'aria-label="{label}"><line class="track" x1="6" x2="114" y1="8" y2="8"/>'
        f'<line class="range" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot" cx="{x(row.value):.1f}" cy="8" r="4"/></svg>'
    )


def time_table(seconds: Mapping[str, float]) -> list[Stage]:
    """Return the stages one after the other; if they overlapped, all start at 0."""
    stages = {name: float(value) for name, value in seconds.items() if name != "total"}
    total = float(seconds.get("total", 0.0))
    passed = math.fsum(stages.values())
    overlapped = bool(total) and passed > total * 1.001
    if total and not overlapped and total - passed > 0.005 * total:
        stages["other"] = total - passed
    whole = max([total or passed, *stages.values(), 1e-9])
    rows, start = [], 0.0
    for name, value in stages.items():
        rows.append(Stage(name, value, 0.0 if overlapped else start, value / whole))
        start += value / whole
    return rows


def draw_stage(row: Stage) -> Markup:
    """Draw a stage as a bar on the time line of the whole run."""
    left, wide = 200 * row.start, max(1.5, 200 * row.fraction)
    return Markup(
        f'<svg class="stage" viewBox="0 0 200 14" preserveAspectRatio="none" role="img" '
        f'aria-label="{percent(row.fraction)} of the run">'
        f'<rect class="track" width="200" height="14"/>'
        f'<rect class="bar" x="{min(left, 198.5):.1f}" width="{wide:.1f}" height="14"/></svg>'
    )


LEVELS = 5
"""Number of shades of a heat map."""

MAX_CELLS = 10_000
"""Maximum number of squares drawn in a heat map; the strongest are drawn."""

_LEFT, _TOP, _WIDE, _TALL = 54, 8, 288, 250
_BASE, _BARS = 334, 48


class ConfusionCell(NamedTuple):
    """A non-empty cell of a confusion matrix: images, and their fraction of the row."""

    row: int
    column: int
    images: int
    fraction: float


class Bin(NamedTuple):
    """A non-empty bin of a reliability diagram; `low`-`high` is the 95% CI of the accuracy."""

    start: float
    end: float
    images: int
    confidence: float
    accuracy: float
    low: float
    high: float


def confusion_table(evaluation: Evaluation) -> list[ConfusionCell]:
    """Return the non-empty cells of the confusion matrix, row by row."""
    support = evaluation.confusion.sum(axis=1)
    return [
        ConfusionCell(
            int(i), int(j), int(evaluation.confusion[i, j]), evaluation.confusion[i, j] / support[i]
        )
        for i, j in zip(*np.nonzero(evaluation.confusion), strict=True)
    ]


def heat_level(fraction: float) -> int:
    """Return the shade of a fraction: 0 for 0, 1 to `LEVELS` for the rest."""
    return min(LEVELS, math.ceil(fraction * LEVELS - 1e-9))


def draw_confusion(
    table: Sequence[ConfusionCell],
    names: Sequence[str],
    anchors: Mapping[tuple[int, int], str] | None = None,
) -> Markup:
    """Draw a large confusion matrix: one square for each non-empty cell.

    - `names`: names of the classes.
    - `anchors`: squares that are links, by row and column. The keyboard reaches the same images
      through the table of confusions, so that it need not pass all squares.
    """
    classes = len(names)
    strongest = sorted(table, key=lambda cell: -cell.fraction)[:MAX_CELLS]
    shapes = []
    for kind, same in (("wrong", False), ("right", True)):
        for level in range(1, LEVELS + 1):
            squares = "".join(
                f"M{cell.column} {cell.row}h1v1h-1z"
                for cell in strongest
                if (cell.row == cell.column) is same and heat_level(cell.fraction) == level
            )
            if squares:
                shapes.append(f'<path class="{kind} level{level}" d="{squares}"/>')
    for cell in strongest:
        if anchor := (anchors or {}).get((cell.row, cell.column)):
            label = escape(
                f"{elide(names[cell.row], 40)} predicted as {elide(names[cell.column], 40)}: "
                f"{amount(cell.images, 'image')}"
            )
            shapes.append(
                f'<a href="#{escape(anchor)}" tabindex="-1" aria-label="{label}"><title>{label}'
                f'</title><path class="link" d="M{cell.column} {cell.row}h1v1h-1z"/></a>'
            )
    return Markup(
        f'<svg class="map" viewBox="0 0 {classes} {classes}" '
        f'role="{"group" if anchors else "img"}" '
        f'aria-label="Heat map of the confusion matrix: label by row, prediction by column">'
        f'<rect class="ground" width="{classes}" height="{classes}"/>{"".join(shapes)}</svg>'
    )


def reliability_table(predictions: Predictions) -> list[Bin]:
    """Return the non-empty confidence bins with their accuracy."""
    binned = reliability(predictions.probabilities, predictions.targets)
    rows = []
    for index in np.flatnonzero(binned.count):
        count, accuracy = int(binned.count[index]), float(binned.accuracy[index])
        start, end, confidence = (
            float(value) for value in (*binned.edges[index : index + 2], binned.confidence[index])
        )
        interval = wilson_interval(round(accuracy * count), count)
        rows.append(Bin(start, end, count, confidence, accuracy, *interval))
    return rows


def _x(value: float) -> str:
    return f"{_LEFT + _WIDE * value:.1f}"


def _y(value: float) -> str:
    return f"{_TOP + _TALL * (1 - value):.1f}"


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
        "accuracy</text>"
    )
    return lines


def draw_reliability(table: Sequence[Bin]) -> Markup:
    """Draw accuracy over confidence with the ideal diagonal, and the number of images below."""
    shapes = _axes()
    most = max((row.images for row in table), default=1)
    for row in table:
        label = (
            f"confidence {percent(row.start, 0)} to {percent(row.end, 0)}: "
            f"{amount(row.images, 'image')}, accuracy {percent(row.accuracy)}"
        )
        tall = max(1.5, _BARS * row.images / most)
        left, right = float(_x(row.start)) + 1, float(_x(row.end)) - 1
        shapes.append(
            f'<g><title>{label}</title><rect class="count" x="{left:.1f}" y="{_BASE - tall:.1f}" '
            f'width="{right - left:.1f}" height="{tall:.1f}"/>'
            f'<line class="range" x1="{_x(row.confidence)}" x2="{_x(row.confidence)}" '
            f'y1="{_y(row.low)}" y2="{_y(row.high)}"/>'
            f'<circle class="dot" cx="{_x(row.confidence)}" cy="{_y(row.accuracy)}" r="4.5"/></g>'
        )
    return Markup(
        f'<svg class="diagram" viewBox="0 0 360 {_BASE + 38}" role="img" '
        'aria-label="Reliability diagram: accuracy over confidence, with 95% intervals; '
        f'below it, the number of images at each confidence">{"".join(shapes)}</svg>'
    )
