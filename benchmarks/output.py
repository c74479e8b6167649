"""Rows, targets and the tables that every benchmark prints and writes."""

from __future__ import annotations

import argparse
import json
import operator
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from processes import log

__all__ = [
    "Row",
    "Section",
    "Target",
    "add_output_options",
    "at_least",
    "at_most",
    "markdown",
    "plain",
    "print_sections",
    "verdict",
    "warn_if_busy",
]

RELATIONS = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "under": operator.lt,
}
HEADER = ("", "kindsight", "rival or floor", "its figure", "ratio", "target", "")
TEXT_COLUMNS = {0, 2, 5, 6}
"""Columns aligned to the left; the others are numbers."""
IDLE_LOAD = 0.5
"""Load average up to which a machine counts as idle."""


@dataclass(frozen=True)
class Target:
    """The limit for a row: a relation of :data:`RELATIONS` and a value.

    `of` states what is limited: kindsight's figure (in the row's unit) or its ratio to the rival's.
    """

    relation: str
    value: float
    of: Literal["ratio", "kindsight"] = "ratio"

    def met(self, row: Row) -> bool:
        """Return whether a row meets the target."""
        measured = row.ratio if self.of == "ratio" else row.figure
        return measured is not None and bool(RELATIONS[self.relation](measured, self.value))

    def text(self, unit: str) -> str:
        """Return the target in words."""
        value = ratio_text(self.value) if self.of == "ratio" else amount(self.value, unit)
        return f"{self.relation} {value}"


def at_least(value: float, of: Literal["ratio", "kindsight"] = "kindsight") -> Target:
    """Return a target: the figure or ratio is `value` or more."""
    return Target("at least", value, of)


def at_most(value: float, of: Literal["ratio", "kindsight"] = "kindsight") -> Target:
    """Return a target: the figure or ratio is `value` or less."""
    return Target("at most", value, of)


@dataclass(frozen=True)
class Row:
    """One row: kindsight's figures, a rival's or a floor's, and the target.

    Parameters
    ----------
    what : str
        What was measured.
    ours : sequence of float
        kindsight's figure in each repeat; their median is used.
    unit : str
        ``"s"``, ``"ms"`` (figures in seconds), ``"%"`` (figures from 0 to 1), ``"/s"`` (images per
        second), ``"MB"`` or ``"nats"`` (log losses).
    rival : str
        Name of the rival or floor.
    theirs : sequence of float
        The rival's figure in each repeat.
    target : Target, optional
    """

    what: str
    ours: Sequence[float]
    unit: str
    rival: str = ""
    theirs: Sequence[float] = ()
    target: Target | None = None

    @property
    def figure(self) -> float | None:
        """Median of kindsight."""
        return statistics.median(self.ours) if self.ours else None

    @property
    def rival_figure(self) -> float | None:
        """Median of the rival."""
        return statistics.median(self.theirs) if self.theirs else None

    @property
    def ratio(self) -> float | None:
        """Median of kindsight divided by the rival's."""
        if self.figure is None or not self.rival_figure:
            return None
        return self.figure / self.rival_figure

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        return None if self.target is None else self.target.met(self)

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the columns of :data:`HEADER`."""
        return (
            self.what,
            amount(self.figure, self.unit),
            self.rival,
            amount(self.rival_figure, self.unit),
            "" if self.ratio is None else ratio_text(self.ratio),
            "" if self.target is None else self.target.text(self.unit),
            {None: "", True: "met", False: "NOT MET"}[self.met],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON, with the figures of all repeats."""
        return {
            **asdict(self),
            "median": self.figure,
            "rival_median": self.rival_figure,
            "ratio": self.ratio,
            "met": self.met,
        }


@dataclass
class Section:
    """A titled table with notes."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the section for JSON."""
        return {
            "title": self.title,
            "rows": [row.to_dict() for row in self.rows],
            "notes": self.notes,
        }


def amount(value: float | None, unit: str) -> str:
    """Return a figure with its unit as text."""
    if value is None:
        return ""
    return {
        "%": f"{100 * value:.2f}%",
        "s": f"{value:.2f} s" if value < 100 else f"{value:.0f} s",
        "/s": f"{value:,.0f}/s",
        "ms": f"{1000 * value:.1f} ms",
        "MB": f"{value:,.0f} MB",
        "nats": f"{value:.4f}",
    }[unit]


def ratio_text(value: float) -> str:
    """Return a ratio as text; ratios below 0.5 as 1/n."""
    if 0 < value < 0.5:
        return f"1/{1 / value:.3g}"
    return f"{value:.3g}" if value >= 2 else f"{value:.3f}".rstrip("0").rstrip(".")


def plain(section: Section) -> str:
    """Return a section as text for a terminal."""
    table = [HEADER, *(row.cells() for row in section.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]
    rule = "-" * max(map(len, lines))
    notes = [f"  {note}" for note in section.notes]
    return "\n".join([section.title, rule, *lines, *notes, ""])


def markdown(section: Section) -> str:
    """Return a section as Markdown."""
    rules = ("---" if column in TEXT_COLUMNS else "--:" for column in range(len(HEADER)))
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "|".join(rules) + "|"]
    for row in section.rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells()) + " |")
    notes = [f"- {note}" for note in section.notes]
    return "\n".join([f"### {section.title}", "", *lines, "", *notes, *([""] if notes else [])])


def verdict(sections: Sequence[Section]) -> str:
    """Return how many targets are met, and the names of the rows that miss them."""
    rows = [row for section in sections for row in section.rows if row.met is not None]
    missed = [row.what for row in rows if not row.met]
    text = f"{len(rows) - len(missed)} of {len(rows)} targets met"
    return text + (f"; not met: {'; '.join(missed)}" if missed else "")


def warn_if_busy() -> None:
    """Warn if other processes load this machine."""
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > IDLE_LOAD:
        log(f"This machine is busy (load {load:.1f}): the figures are not reliable.")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--markdown``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file of all figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="Markdown file of the tables")


def print_sections(sections: Sequence[Section], options: argparse.Namespace, end: str = "") -> None:
    """Print the tables and the verdict (followed by `end`); write the files of `options`."""
    print("\n".join(map(plain, sections)))
    print(verdict(sections) + end)
    if options.json:
        content = [section.to_dict() for section in sections]
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text("\n".join(map(markdown, sections)), encoding="utf-8")
