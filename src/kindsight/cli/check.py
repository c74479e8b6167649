"""``kindsight check``: what is wrong with images, before anything is trained on them."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import (
    Column,
    DataOf,
    Debug,
    Json,
    LabelFrom,
    LabelNames,
    PixelShape,
    Quiet,
    Root,
    Workers,
    columns_of,
    names_of,
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

if TYPE_CHECKING:
    from kindsight.checks import CheckResult
    from kindsight.runs.checking import CheckReport, CheckSettings

__all__ = [
    "check",
    "corrected_lines",
    "finding_lines",
]

FOUND = 1


def check(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    data: Annotated[str, typer.Argument(help=DataOf)],
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also run the checks that need features of all images (slower)."
        ),
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="CODE",
            help="Silence a check, such as KS203; the report says so. May be given several times.",
        ),
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Take settings from a TOML file: ignore = ["KS203"], full = true.',
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the findings to this folder, new or empty.  "
            "[default: checks/<name of DATA>-<next number>]",
        ),
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(
            "--apply",
            metavar="FILE",
            help="Also write a corrected table (a new .csv): which images to leave out, to call "
            "otherwise, or to keep together, and why. kindsight train FILE trains on it; no "
            "image is touched.",
        ),
    ] = None,
    label_from: LabelFrom = None,
    column: Column = None,
    label_names: LabelNames = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look at all images once, and name what is wrong with them. Nothing is changed.

    Writes findings.csv, findings.json and report.html, which shows the images. The exit code is
    1 if there is a finding of severity error, and 0 otherwise.

    Example: kindsight check photos/

    Example: kindsight check photos/ --full --apply corrected.csv
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.dataset import DataOptions
    from kindsight.runs.checking import check_data, write_report

    options = DataOptions(
        label_from=label_from,
        columns=columns_of(column) or {},
        label_names=names_of(label_names) or (),
        pixel_shape=pixel_shape,
        root=root,
    )
    chosen = _settings(settings, tuple(ignore or ()), full, workers)
    _check_out(out, apply)
    with watching(quiet) as progress:
        report = check_data(data, chosen, options, progress=progress)
        progress("findings", 0, 0)
        folder = write_report(report, out)
    corrected = None if apply is None else _apply(report, apply)
    if json:
        more = {} if corrected is None else {"corrected": {"table": apply, **corrected}}
        print_json({**report.to_dict(), "folder": str(folder), **more})
    else:
        say(*finding_lines(report, folder))
        if corrected is not None:
            say(*corrected_lines(corrected, str(apply)))
    if report.failed:
        raise typer.Exit(FOUND)


def _settings(
    file: str | None, ignore: tuple[str, ...], full: bool, workers: int | None
) -> CheckSettings:
    from dataclasses import replace

    from kindsight.runs.checking import CheckSettings

    if file is None:
        return CheckSettings(ignore, full, workers=workers)
    found = CheckSettings.from_toml(file, ignore=ignore, full=full)
    return found if workers is None else replace(found, workers=workers)


def _apply(report: CheckReport, file: str) -> dict[str, int]:
    """Write the corrected table; return how many rows are changed in which way."""
    corrections = report.corrections()
    corrections.write(file)
    return corrections.counts()


def _check_out(out: str | None, apply: str | None) -> None:
    """Refuse what cannot be written to before hours are spent on what goes there."""
    from kindsight.checks.apply import validate_table_target
    from kindsight.runs.checking.write import validate_output_folder

    if apply is not None:
        validate_table_target(apply)
    if out is not None:
        validate_output_folder(out)


# SECTION: What ``kindsight check`` prints.

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
    told = ", ".join(f"{_amount(n, 'image')} {what}" for what, n in counts.items() if n)
    text = f"{told or 'nothing changed'}, in {printable(file)}; the files are untouched"
    lines = hanging("corrected", text, indent=12, paint=paint, width=line_width())
    return [*lines, "", paint("Next", "bold"), f"  kindsight train {printable(file)}"]


def _headline(report: CheckReport) -> str:
    dataset = report.context.dataset
    classes = len(dataset.present_classes())
    unread = len(dataset) - len(report.context.readable_rows)
    parts = [_amount(len(dataset), "image")]
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
    """Say how many images, and in how many groups; or how many findings of another kind."""
    rows = [finding.rows for finding in result.findings]
    images = len({row for group in rows for row in group})
    if not images:
        return f"{len(result.findings):,}"
    if any(len(group) > 1 for group in rows) and result.code[2] == "3":
        return f"{images:,} in {_amount(len(rows), 'group')}"
    return f"{images:,}"


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
    if codes := states.get("ignored"):
        listed = f"  {len(codes)} {_word(len(codes))} ignored: {', '.join(codes)}"
        lines += textwrap.wrap(listed, width, subsequent_indent="    ")
    return [*(paint(line, "dim") for line in lines), ""] if lines else []


def _word(n: int) -> str:
    return "check" if n == 1 else "checks"


def _verdict(report: CheckReport, paint: Paint) -> str:
    from kindsight.checks import SEVERITIES

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
