"""``kindsight compare``: whether one run is better than another, on the same images."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
from kindsight.report.format import amount, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions
    from kindsight.runs.evaluating.compare import Comparison

__all__ = ["compare", "comparison_lines"]

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
    difference counts as real if its p-value by McNemar's exact test, corrected for the number of
    runs, is below 0.05.

    Example: kindsight compare runs/photos-1 runs/photos-2
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.evaluating.compare import compare as compare_runs

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
