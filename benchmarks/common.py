"""What all parts of the benchmarks speak in: rows, targets, and the tables made of them."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Row", "Section", "Target", "at_least", "at_most", "markdown", "plain", "verdict"]

RELATIONS = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "under": operator.lt,
}
HEADER = ("", "kindsight", "held against", "its figure", "ratio", "target", "")


@dataclass(frozen=True)
class Target:
    """What a row must reach.

    Parameters
    ----------
    relation : str
        A key of :data:`RELATIONS`.
    value : float
        In the row's unit, or a ratio.
    of : str
        ``"ratio"`` (kindsight's figure over the other) or ``"kindsight"`` (its figure alone).
    """

    relation: str
    value: float
    of: Literal["ratio", "kindsight"] = "ratio"

    def met(self, row: Row) -> bool:
        """Say whether a row reaches it."""
        measured = row.ratio if self.of == "ratio" else row.figure
        return measured is not None and bool(RELATIONS[self.relation](measured, self.value))

    def text(self, unit: str) -> str:
        """Return it in words."""
        value = ratio_text(self.value) if self.of == "ratio" else amount(self.value, unit)
        return f"{self.relation} {value}"


def at_least(value: float, of: Literal["ratio", "kindsight"] = "kindsight") -> Target:
    """Return the target that a figure, or a ratio, is not less than `value`."""
    return Target("at least", value, of)


def at_most(value: float, of: Literal["ratio", "kindsight"] = "kindsight") -> Target:
    """Return the target that a figure, or a ratio, is not more than `value`."""
    return Target("at most", value, of)


@dataclass(frozen=True)
class Row:
    """One line: what kindsight does, beside what it is held against.

    Parameters
    ----------
    what : str
        What was measured.
    ours : sequence of float
        kindsight's figure of each repeat; their median counts. None for a row about the other
        side only.
    unit : str
        ``"s"``, ``"%"`` (figures from 0 to 1), ``"/s"`` (images a second), ``"MB"`` or
        ``"nats"`` (log losses).
    rival : str
        What it is held against.
    theirs : sequence of float
        The other side's figures.
    target : Target, optional
        None for a row that is there to be known.
    """

    what: str
    ours: Sequence[float]
    unit: str
    rival: str = ""
    theirs: Sequence[float] = ()
    target: Target | None = None

    @property
    def figure(self) -> float | None:
        """Kindsight's median."""
        return statistics.median(self.ours) if self.ours else None

    @property
    def rival_figure(self) -> float | None:
        """The other side's median."""
        return statistics.median(self.theirs) if self.theirs else None

    @property
    def ratio(self) -> float | None:
        """Kindsight's median over the other's."""
        if self.figure is None or not self.rival_figure:
            return None
        return self.figure / self.rival_figure

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.target.met(self)

    def cells(self) -> tuple[str, ...]:
        """Return the row as :data:`HEADER` has it."""
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
        """Return everything, each repeat's figure too, for JSON."""
        return {
            **asdict(self),
            "median": self.figure,
            "rival_median": self.rival_figure,
            "ratio": self.ratio,
            "met": self.met,
        }


@dataclass
class Section:
    """The rows of one part, with what has to be said about them.

    Parameters
    ----------
    title : str
    rows : list of Row
    notes : list of str
        A sentence or two each.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "title": self.title,
            "rows": [row.to_dict() for row in self.rows],
            "notes": self.notes,
        }


def amount(value: float | None, unit: str) -> str:
    """Say a figure with its unit."""
    if value is None:
        return ""
    return {
        "%": f"{100 * value:.2f}%",
        "s": f"{value:.2f} s" if value < 100 else f"{value:.0f} s",
        "/s": f"{value:,.0f}/s",
        "MB": f"{value:,.0f} MB",
        "nats": f"{value:.4f}",
    }[unit]


def ratio_text(value: float) -> str:
    """Say a ratio: small ones as a part of one, which reads as times faster."""
    if 0 < value < 0.5:
        return f"1/{1 / value:.3g}"
    return f"{value:.3g}" if value >= 2 else f"{value:.3f}".rstrip("0").rstrip(".")


def plain(section: Section) -> str:
    """Lay a section out for a terminal."""
    table = [HEADER, *(row.cells() for row in section.rows)]
    widths = [max(len(cells[place]) for cells in table) for place in range(len(HEADER))]
    # Texts to the left, figures to the right.
    left = {0, 2, 5, 6}
    lines = [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]
    rule = "-" * max(len(line) for line in lines)
    notes = [f"  {note}" for note in section.notes]
    return "\n".join([section.title, rule, *lines, *notes, ""])


def markdown(section: Section) -> str:
    """Lay a section out as Markdown."""
    left = {0, 2, 5, 6}
    lines = ["| " + " | ".join(HEADER) + " |"]
    lines.append("|" + "|".join("---" if p in left else "--:" for p in range(len(HEADER))) + "|")
    for row in section.rows:
        cells = [cell.replace("|", "\\|") for cell in row.cells()]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"- {note}" for note in section.notes]
    return "\n".join([f"### {section.title}", "", *lines, "", *notes, *([""] if notes else [])])


def verdict(sections: Sequence[Section]) -> str:
    """Count the targets that are met, and name those that are not."""
    rows = [row for section in sections for row in section.rows if row.met is not None]
    missed = [row.what for row in rows if not row.met]
    text = f"{len(rows) - len(missed)} of {len(rows)} targets met"
    return text + (f"; not met: {'; '.join(missed)}" if missed else "")
