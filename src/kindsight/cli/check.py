"""``kindsight check``: find problems in image data before training."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    Data,
    Debug,
    Json,
    On,
    Quiet,
    Workers,
    as_typed,
    with_data_options,
)
from kindsight.cli.terminal.text import (
    Paint,
    cells,
    hanging,
    line_width,
    pad,
    print_json,
    printable,
    say,
)
from kindsight.errors import SettingsError
from kindsight.report.format import amount

if TYPE_CHECKING:
    from kindsight.checks import Finding
    from kindsight.dataset import DataOptions
    from kindsight.runs.checking import CheckReport, CheckSettings

__all__ = ["check", "correction_lines", "report_lines"]

LISTED_UNCERTAIN = 10
"""Maximum number of images with an uncertain label that are printed."""

FOUND = 1
"""Exit code if there is a finding of severity error."""

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
"""Colour of each severity, the most severe first."""


Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Checks that need features of all images, too (slower).  [default: off]",
        show_default=False,
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="CODE",
        help="Code of a check to skip, such as KS203; repeatable.  [default: none]",
    ),
]
Settings = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help='TOML file with settings, such as ignore = ["KS203"] and full = true.  '
        "[default: none]",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="New or empty folder for the findings.  "
        "[default: checks/<name of DATA>-<next number>]",
    ),
]
Apply = Annotated[
    str | None,
    typer.Option(
        "--apply",
        metavar="FILE",
        help="New .csv or .parquet file for a corrected table of all images, which kindsight train "
        "takes as data: images to exclude, relabel or group, with reasons.  [default: none]",
    ),
]
RelabelConfidence = Annotated[
    float | None,
    typer.Option(
        "--relabel-confidence",
        metavar="P",
        help="Minimum probability of a suggested label for --apply to relabel the image, above "
        "0 up to 1; other images are listed and keep their label.  [default: 0.9]",
        show_default=False,
    ),
]


@with_data_options("value_range")
def check(  # noqa: PLR0913 (one parameter for each option)
    data: Data,
    full: Full = False,
    ignore: Ignore = None,
    settings: Settings = None,
    out: Out = None,
    apply: Apply = None,
    relabel_confidence: RelabelConfidence = None,
    *,
    options: DataOptions,
    workers: Workers = None,
    on: On = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check all images for problems before training. No image is changed.

    Writes findings.csv, findings.json and report.html with thumbnails. The exit code is 1 if there
    is a finding of severity error, and 0 otherwise.

    Example: kindsight check photos/

    Example: kindsight check photos/ --full --apply corrected.csv
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.dataset.labels import MISSING
    from kindsight.runs.checking import check_data, write_report

    chosen = _settings(
        settings, tuple(ignore or ()), full, workers=workers, on=on,
        relabel_confidence=relabel_confidence,
    )  # fmt: skip
    if relabel_confidence is not None and apply is None:
        raise SettingsError("`relabel_confidence` needs `apply`, the file of the corrected table.")
    _validate_outputs(out, apply)
    with watching(quiet) as progress:
        report = check_data(data, chosen, options, progress=progress)
        progress("findings", 0, 0)
        corrections = report.corrections(chosen.relabel_confidence) if apply is not None else None
        if corrections is not None and apply is not None:
            # First, so that an error leaves no folder that blocks the next attempt.
            corrections.write(apply)
        folder = write_report(report, out)
    if json:
        more: dict[str, Any] = {}
        if corrections is not None:
            listed = [uncertain_dict(doubt) for doubt in corrections.uncertain]
            more = {"corrected": {"table": apply, **corrections.counts(), "uncertain": listed}}
        print_json({**report.to_dict(), "folder": str(folder), **more})
    else:
        say(*report_lines(report, folder))
        if corrections is not None and apply is not None:
            # Folders may have such names; in a table, they stand for missing labels.
            named_missing = MISSING.intersection(corrections.dataset.classes)
            train = f"kindsight train {printable(apply)}{' --keep-na-labels' * bool(named_missing)}"
            counts, doubts = corrections.counts(), corrections.uncertain
            say(*correction_lines(counts, apply, train, doubts, chosen.relabel_confidence))
    if report.failed:
        raise typer.Exit(FOUND)


def _settings(
    file: str | None, ignore: tuple[str, ...], full: bool, **others: float | str | None
) -> CheckSettings:
    from dataclasses import replace

    from kindsight.runs.checking import CheckSettings

    given: dict[str, Any] = {k: v for k, v in others.items() if v is not None}
    if file is None:
        return CheckSettings(ignore, full, **given)
    return replace(CheckSettings.from_toml(file, ignore=ignore, full=full), **given)


def _validate_outputs(out: str | None, apply: str | None) -> None:
    """Raise UsageError for outputs that cannot be written, before the check starts."""
    from kindsight.checks.apply import validate_table_target
    from kindsight.runs.checking.write import validate_output_folder

    if apply is not None:
        validate_table_target(apply)
    if out is not None:
        validate_output_folder(out)


def report_lines(report: CheckReport, folder: Path) -> list[str]:
    """Return the printed summary of a check.

    Parameters
    ----------
    report : CheckReport
    folder : Path
        Folder of the written findings.
    """
    paint, width = Paint(sys.stdout), line_width()
    lines = [paint(_headline(report), "bold"), ""]
    if rows := _rows(report):
        lines += [*_table(rows, paint, width), ""]
    lines += _other_checks(report, paint, width)
    lines += [_total(report, paint), ""]
    lines.append(f"  {paint('report', 'dim')}    {printable(str(folder / 'report.html'))}")
    tables = "findings.csv and findings.json in the same folder"
    lines += hanging("tables", tables, indent=12, paint=paint, width=width)
    for note in report.notes[:8]:
        lines += hanging("note", printable(as_typed(note)), indent=12, paint=paint, width=width)
    return lines


def correction_lines(
    counts: dict[str, int],
    file: str,
    train: str,
    uncertain: Sequence[Finding] = (),
    confidence: float = 1.0,
) -> list[str]:
    """Return the printed summary of a corrected table.

    Parameters
    ----------
    counts : dict
        The result of :meth:`.Corrections.counts`.
    file : str
        The table.
    train : str
        The command that trains on it.
    uncertain : sequence of Finding
        The suggested labels below `confidence`.
    confidence : float
        Minimum probability of a suggested label that was applied.
    """
    paint = Paint(sys.stdout)
    changes = ", ".join(f"{amount(n, 'image')} {change}" for change, n in counts.items() if n)
    text = f"{changes or 'no changes'}, in {printable(file)}; no image file was changed"
    lines = hanging("corrected", text, indent=12, paint=paint, width=line_width())
    if uncertain:
        text = (
            f"{amount(len(uncertain), 'image')} whose suggested label is less than "
            f"{100 * confidence:.4g}% probable; the labels are unchanged"
        )
        lines += hanging("uncertain", text, indent=12, paint=paint, width=line_width())
        for finding in uncertain[:LISTED_UNCERTAIN]:
            text = printable(f"{', '.join(finding.paths)}: {finding.message}")
            lines += hanging("", text, indent=12, paint=paint, width=line_width())
        if len(uncertain) > LISTED_UNCERTAIN:
            lines.append(
                f"{'':12}and {len(uncertain) - LISTED_UNCERTAIN:,} more in {printable(file)}"
            )
    return [*lines, "", paint("Next", "bold"), f"  {train}"]


def uncertain_dict(finding: Finding) -> dict[str, Any]:
    """Return the entry of an image with an uncertain label in the output of ``--json``."""
    return {
        "paths": list(finding.paths),
        "suggestion": finding.suggestion,
        "confidence": finding.confidence,
    }


def _headline(report: CheckReport) -> str:
    dataset = report.context.dataset
    classes = len(dataset.present_classes())
    unreadable = len(dataset) - len(report.context.readable_rows)
    facts = [amount(len(dataset), "image")]
    if classes:
        facts.append(amount(classes, "class", "classes"))
    if unreadable:
        facts.append(f"{unreadable:,} unreadable")
    return f"{printable(report.data)}: {', '.join(facts)}"


HEADER = ("severity", "code", "check", "findings", "images")

NARROW = 60
"""Line width below which the number of findings is omitted."""


def _rows(report: CheckReport) -> list[tuple[str, ...]]:
    """Return severity, code, title, findings and affected images of each check with findings."""
    rows: list[tuple[str, ...]] = []
    for check, result in report.found():
        findings, severity = f"{len(result.findings):,}", result.findings[0].severity
        images = f"{result.images:,}" if result.images else "-"
        rows.append((severity, check.code, check.title, findings, images))
    return rows


def _table(rows: list[tuple[str, ...]], paint: Paint, width: int) -> list[str]:
    """Return the lines of the table; titles are wrapped if the line is too short."""
    columns = (0, 1, 2, 4) if width < NARROW else (0, 1, 2, 3, 4)
    widths = [max(cells(row[k]) for row in (HEADER, *rows)) for k in range(len(HEADER))]
    left = 6 + widths[0] + widths[1]
    numbers = sum(2 + widths[k] for k in columns[3:])
    widths[2] = min(widths[2], max(12, width - left - numbers))

    def line(row: tuple[str, ...], title: str) -> str:
        severity, code = pad(row[0], widths[0]), pad(row[1], widths[1])
        if row is not HEADER:
            severity, code = paint(severity, COLOURS[row[0]]), paint(code, "dim")
        counts = "".join(f"  {pad(row[k], widths[k], right=True)}" for k in columns[3:])
        return f"  {severity}  {code}  {pad(title, widths[2])}{counts}"

    lines = [paint(line(HEADER, HEADER[2]), "dim")]
    for row in rows:
        first, *more = textwrap.wrap(row[2], widths[2])
        lines += [line(row, first), *(" " * left + rest for rest in more)]
    return lines


def _other_checks(report: CheckReport, paint: Paint, width: int) -> list[str]:
    """Return a line per state of the checks without findings."""
    lines = []
    for state, suffix in (
        ("passed", "passed"),
        ("not applicable", "not applicable to these data"),
        ("skipped", "skipped; run with --full"),
        ("ignored", "ignored: {codes}"),
    ):
        if codes := report.states().get(state):
            text = f"  {amount(len(codes), 'check')} {suffix.format(codes=', '.join(codes))}"
            lines += textwrap.wrap(text, width, subsequent_indent="    ")
    return [*(paint(line, "dim") for line in lines), ""] if lines else []


def _total(report: CheckReport, paint: Paint) -> str:
    counts = report.counts()
    if not sum(counts.values()):
        return paint("  No findings.", "green", "bold")
    parts = ", ".join(
        paint(amount(counts[severity], severity), COLOURS[severity], "bold")
        for severity in COLOURS
        if counts[severity]
    )
    return f"  {amount(sum(counts.values()), 'finding')}: {parts}"
