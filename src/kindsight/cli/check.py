"""``kindsight check``: what is wrong with pictures, before anything is trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.options import (
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
from kindsight.cli.text import print_json, say

if TYPE_CHECKING:
    from kindsight.checking import CheckReport, CheckSettings

__all__ = ["check"]

FOUND = 1


def check(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    data: Annotated[str, typer.Argument(help=DataOf)],
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also run the checks that need features of all pictures (slower)."
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
            help="Also write a corrected table (a new .csv): which pictures to leave out, to call "
            "otherwise, or to keep together, and why. kindsight train FILE trains on it; no "
            "picture is touched.",
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
    """Look at all pictures once, and name what is wrong with them. Nothing is changed.

    Writes findings.csv, findings.json and report.html, which shows the pictures. The exit code is
    1 if there is a finding of severity error, and 0 otherwise.

    Example: kindsight check photos/

    Example: kindsight check photos/ --full --apply corrected.csv
    """
    from kindsight.catalog import DataOptions
    from kindsight.checking import check_data, write_report
    from kindsight.cli.progress import watching

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
        from kindsight.cli.findings import corrected_lines, finding_lines

        say(*finding_lines(report, folder))
        if corrected is not None:
            say(*corrected_lines(corrected, str(apply)))
    if report.failed:
        raise typer.Exit(FOUND)


def _settings(
    file: str | None, ignore: tuple[str, ...], full: bool, workers: int | None
) -> CheckSettings:
    from dataclasses import replace

    from kindsight.checking import CheckSettings

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
    from kindsight.catalog.checks.applying import check_target
    from kindsight.checking.writing import check_free

    if apply is not None:
        check_target(apply)
    if out is not None:
        check_free(out)
