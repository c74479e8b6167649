"""Figures that stand in the rows of a table, as inline SVG, each drawn from the row it stands in.

A function ending in ``_table`` gives the numbers, the ``draw_`` function of the same name draws
nothing but them. Colours are classes of the page's own style, so that a figure follows light,
dark and print. A figure holds no text from outside: names stand in the row, beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from kindsight.evaluation import Evaluation
from kindsight.report.data import HeadChoice, Part, Reference
from kindsight.report.words import percent

__all__ = [
    "Bound",
    "Stage",
    "class_table",
    "comparison_table",
    "draw_interval",
    "draw_stage",
    "head_table",
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
    rows = [
        Bound("this classifier", ours.accuracy, *ours.accuracy_interval, f"{part.name} pictures")
    ]
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
        return Markup('<span class="quiet">no pictures</span>')

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
