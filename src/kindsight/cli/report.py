"""``kindsight report`` and ``kindsight compare``: pages of finished runs, and their comparison."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.evaluation import fitting_table, p_value
from kindsight.cli.terminal.options import (
    DataOf,
    Debug,
    Json,
    Quiet,
    Workers,
    as_typed,
    with_data_options,
)
from kindsight.cli.terminal.text import (
    Paint,
    line_width,
    note,
    print_json,
    printable,
    say,
    table,
    wrapped,
)
from kindsight.errors import UsageError
from kindsight.report.format import amount, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions
    from kindsight.runs.compare import Comparison
    from kindsight.runs.reporting.make import WrittenReport

__all__ = ["compare", "report"]

WIDEST_NAME = 40
"""Maximum width of a run's name, in columns."""


@with_data_options()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders; with --data also model bundles.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help=f"{DataOf}  [default: the validation or test images common to all runs]",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="train|validation|test",
            help="Split of --data to compare on.  [default: all images]",
        ),
    ] = None,
    *,
    options: DataOptions,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare each run with the first one, on the same images.

    Without --data, the images are those that every run held out for validation or test. A
    difference is statistically significant if its p-value by McNemar's exact test, corrected for
    the number of runs, is below 0.05.

    Example: kindsight compare runs/photos-1 runs/photos-2
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.compare import compare as compare_runs

    with watching(quiet) as progress:
        found = compare_runs(
            *runs, data=data, split=split, options=options, workers=workers, progress=progress
        )
    if json:
        print_json(found.to_dict())
        return
    if not quiet:
        for text in found.notes:
            note(as_typed(text))
    say(*comparison_lines(found))


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Yield the output of ``kindsight compare``."""
    paint, width = Paint(sys.stdout), min(line_width(), 110)
    counted = f"{amount(found.images, 'image')}, {found.source}"
    yield paint(printable(counted), "bold")
    for reason, count in found.left_out.items():
        yield f"  {amount(count, 'image')} left out: {reason}"
    yield ""
    header = ("run", "accuracy", "95% CI", "log loss")
    rows = [
        (_name(run.name), percent(run.accuracy), interval(run.interval), f"{run.log_loss:.4f}")
        for run in found.runs
    ]
    yield from table(header, rows, paint=paint)
    yield ""
    yield from _pair_lines(found, paint, line_width())
    yield ""
    for sentence in found.sentences():
        yield from wrapped(printable(sentence), width, 2)


def _pair_lines(found: Comparison, paint: Paint, width: int) -> list[str]:
    pairs = found.pairs
    columns = {
        "run": (
            f"against {_name(found.runs[0].name)}",
            [_name(run.name) for run in found.runs[1:]],
        ),
        "difference": ("points", [f"{100 * pair.difference:+.1f}" for pair in pairs]),
        "interval": ("95% CI", [_ends(pair.interval, 100, 1) for pair in pairs]),
        "p": ("p", [p_value(pair.p_value) for pair in pairs]),
        "first": ("only 1st", [f"{pair.first_only:,}" for pair in pairs]),
        "second": ("only 2nd", [f"{pair.second_only:,}" for pair in pairs]),
        "loss": ("log loss", [f"{pair.log_loss_difference:+.3f}" for pair in pairs]),
        "loss interval": ("95% CI", [_ends(pair.log_loss_interval, 1, 3) for pair in pairs]),
    }
    return fitting_table(columns, ("first", "second", "loss interval", "loss"), paint, width)


def _ends(ends: tuple[float, float], scale: float, digits: int) -> str:
    if math.isnan(ends[0]):
        return percent(math.nan)
    return " to ".join(f"{scale * end:+.{digits}f}" for end in ends)


def _name(name: str) -> str:
    return printable(elide(name, WIDEST_NAME))


SIDE_BY_SIDE_FILE = "runs.html"


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="HTML page to write.  [default: RUN/report.html; runs.html for several runs]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwriting of an existing page.")
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Opening of the page in the browser.")
    ] = False,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Cache folder with the images.  [default: this machine's cache]"
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Create the report of a run again, or show several runs side by side.

    The page of one run is the same as after its training, plus later results such as a diagnosis or
    a learning curve. A model card is written to the same folder. The images are from the cache or,
    if they are not there, from the data; if neither exists, the page has no images.

    Example: kindsight report runs/photos-1 runs/photos-2 --out both.html
    """
    from kindsight.cli.terminal.progress import watching

    page, card = _targets(runs, out)
    # Files in a run folder may be replaced: the training wrote them.
    own = out is None and len(runs) == 1
    for path in filter(None, (page, card)):
        if not own and os.path.lexists(path) and not force:
            raise UsageError(f"{path} exists. Choose another --out, or overwrite it with --force.")
    with watching(quiet) as progress:
        progress("report", 0, 0)
        written = _write(runs, page, card, cache)
    if open_page:
        import webbrowser

        webbrowser.open(written.report.resolve().as_uri())
    if json:
        print_json(_to_dict(written, runs))
    else:
        say(*_lines(written))


def _targets(runs: list[str], out: str | None) -> tuple[Path, Path | None]:
    """Return the paths of the page and, for one run, of its model card."""
    if len(runs) > 1:
        return Path(out or SIDE_BY_SIDE_FILE), None
    if out is not None:
        return Path(out), Path(out).with_suffix(".md")
    return Path(runs[0], "report.html"), Path(runs[0], "model_card.md")


def _write(runs: list[str], page: Path, card: Path | None, cache: str | None) -> WrittenReport:
    from kindsight.files import write_text
    from kindsight.runs.reporting.make import WrittenReport, write_report

    if card is not None:
        from kindsight.runs.record import load_run
        from kindsight.runs.reporting.build import report_data

        return write_report(report_data(load_run(runs[0]), cache=cache), page, card)
    from kindsight.report.side_by_side import render_side_by_side
    from kindsight.runs.reporting.make import side_by_side

    data = side_by_side(*runs, cache=cache)
    write_text(page, render_side_by_side(data))
    return WrittenReport(page, None, 0, data)


def _to_dict(written: WrittenReport, runs: list[str]) -> dict[str, Any]:
    """Return the output of ``--json``."""
    found: dict[str, Any] = {
        "runs": runs,
        "report": str(written.report),
        "bytes": written.report.stat().st_size,
        "model_card": None if written.model_card is None else str(written.model_card),
        "images": written.images,
    }
    if len(runs) > 1:
        data: Any = written.data
        found["comparison"] = {
            "images": data.images,
            "source": data.source,
            "differences": [item._asdict() for item in data.differences],
            "notes": list(data.notes),
        }
    return found


def _lines(written: WrittenReport) -> list[str]:
    from kindsight.report.side_by_side import SideBySide

    data, lines = written.data, [f"Report: {printable(str(written.report))}"]
    if isinstance(data, SideBySide):
        sentences = (*(item.sentence for item in data.differences), *data.notes)
        return [*map(printable, sentences), *lines]
    lines.append(f"Model card: {printable(str(written.model_card))}")
    if data.results and not written.images:
        lines.append("No images: they are no longer in the cache or the data folder.")
    return lines
