"""What ``kindsight check`` prints."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from kindsight.catalog.checks import SEVERITIES, CheckResult
from kindsight.cli.text import Paint, cells, hanging, line_width, pad, printable

if TYPE_CHECKING:
    from kindsight.checking import CheckReport

__all__ = ["corrected_lines", "finding_lines"]

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def finding_lines(report: CheckReport, folder: Path) -> list[str]:
    """Lay out the summary of a check.

    Parameters
    ----------
    report : CheckReport
        What was found.
    folder : Path
        Where it was written.
    """
    paint, width = Paint(sys.stdout), line_width()
    lines = [paint(_headline(report), "bold"), ""]
    if rows := _rows(report):
        lines += [*_table(rows, paint, width), ""]
    lines += _others(report, paint, width)
    lines += [_verdict(report, paint), ""]
    lines += _facts(report, folder, paint, width)
    return lines


def corrected_lines(counts: dict[str, int], file: str) -> list[str]:
    """Say what a corrected table changes, and what to do with it."""
    paint = Paint(sys.stdout)
    told = ", ".join(f"{_amount(n, 'picture')} {what}" for what, n in counts.items() if n)
    text = f"{told or 'nothing changed'}, in {printable(file)}; the files are untouched"
    lines = hanging("corrected", text, indent=12, paint=paint, width=line_width())
    return [*lines, "", paint("Next", "bold"), f"  kindsight train {printable(file)}"]


def _headline(report: CheckReport) -> str:
    catalog = report.context.catalog
    classes = len(catalog.present_classes())
    unread = len(catalog) - len(report.context.readable_rows)
    parts = [_amount(len(catalog), "picture")]
    if classes:
        parts.append(_amount(classes, "class", "classes"))
    if unread:
        parts.append(f"{unread:,} cannot be read")
    return f"{printable(report.data)}: {', '.join(parts)}"


def _rows(report: CheckReport) -> list[tuple[str, str, str, str]]:
    """Return severity, code, title and amount of each check that found something."""
    return [
        (result.findings[0].severity, check.code, check.title, _how_many(result))
        for check, result in report.found()
    ]


def _how_many(result: CheckResult) -> str:
    """Say how many pictures, and in how many groups; or how many findings of another kind."""
    rows = [finding.rows for finding in result.findings]
    pictures = len({row for group in rows for row in group})
    if not pictures:
        return f"{len(result.findings):,}"
    if any(len(group) > 1 for group in rows) and result.code[2] == "3":
        return f"{pictures:,} in {_amount(len(rows), 'group')}"
    return f"{pictures:,}"


def _table(rows: list[tuple[str, str, str, str]], paint: Paint, width: int) -> list[str]:
    """Lay out the rows; a title too long for the line goes on below itself."""
    marks = max(cells(severity) for severity, *_ in rows)
    amounts = max(cells(amount) for *_, amount in rows)
    room = max(20, width - 2 - marks - 2 - 5 - 2 - 2 - amounts)
    widest = min(room, max(cells(title) for _, _, title, _ in rows))
    lines = []
    for severity, code, title, amount in rows:
        first, *more = textwrap.wrap(title, widest) or [""]
        lines.append(
            f"  {paint(pad(severity, marks), COLOURS[severity])}  {paint(code, 'dim')}  "
            f"{pad(first, widest)}  {pad(amount, amounts, right=True)}"
        )
        lines += [" " * (marks + 11) + line for line in more]
    return lines


def _others(report: CheckReport, paint: Paint, width: int) -> list[str]:
    """Say how the checks fared that found nothing."""
    states = report.states()
    lines = []
    if codes := states.get("passed"):
        lines.append(f"  {len(codes)} {_word(len(codes))} passed")
    if codes := states.get("not applicable"):
        does = "does" if len(codes) == 1 else "do"
        lines.append(f"  {len(codes)} {_word(len(codes))} {does} not apply to these data")
    if codes := states.get("skipped"):
        lines.append(f"  {len(codes)} {_word(len(codes))} skipped; --full runs them too")
    if codes := states.get("silenced"):
        listed = f"  {len(codes)} {_word(len(codes))} silenced: {', '.join(codes)}"
        lines += textwrap.wrap(listed, width, subsequent_indent="    ")
    return [*(paint(line, "dim") for line in lines), ""] if lines else []


def _word(n: int) -> str:
    return "check" if n == 1 else "checks"


def _verdict(report: CheckReport, paint: Paint) -> str:
    counts = report.counts()
    if not sum(counts.values()):
        return paint("  Nothing found.", "green", "bold")
    parts = [
        paint(_amount(counts[severity], severity), COLOURS[severity], "bold")
        for severity in SEVERITIES
        if counts[severity]
    ]
    return "  " + ", ".join(parts)


def _facts(report: CheckReport, folder: Path, paint: Paint, width: int) -> list[str]:
    lines = [f"  {paint('report', 'dim')}    {printable(str(folder / 'report.html'))}"]
    beside = "findings.csv and findings.json beside it"
    lines += hanging("tables", beside, indent=12, paint=paint, width=width)
    for note in report.notes[:8]:
        lines += hanging("note", printable(note), indent=12, paint=paint, width=width)
    return lines


def _amount(n: int, noun: str, plural: str | None = None) -> str:
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
