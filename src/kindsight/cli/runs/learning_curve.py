"""``kindsight learning-curve``: accuracy by number of images, and the gain of more images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import Debug, Json, Quiet, Workers
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
from kindsight.report.format import elide, interval, percent

if TYPE_CHECKING:
    from kindsight.evaluation.learning_curve import LearningCurve

__all__ = ["learning_curve"]

SHOWN_CLASSES = 20
"""Classes in the table; the others are in the output of --json."""

WIDEST_NAME = 30
"""Maximum width of a class name, in columns."""


def learning_curve(
    run: Annotated[str, typer.Argument(help="Run folder.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Folder or table of the run's images, if they have moved.  "
            "[default: as in the training]",
        ),
    ] = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure whether more images would help.

    Fits the head again on subsets of the training images, and extrapolates the accuracy by a power
    law. Writes learning_curve.json to the run folder, for kindsight report.

    Example: kindsight learning-curve runs/photos-1
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.more_images.learning_curve import learning_curve as measure

    with watching(quiet) as progress:
        found = measure(run, data=data, workers=workers, progress=progress)
    if json:
        print_json({"run": run, **found.to_dict()})
        return
    say(*_lines(found, run))
    if not quiet:
        note(f"suggest ranks unlabelled images to label next: kindsight suggest {run} FOLDER")


def _lines(curve: LearningCurve, run: str) -> Iterator[str]:
    from kindsight.cli.terminal.summary import facts

    paint = Paint(sys.stdout)
    yield paint(f"Learning curve of {printable(run)}", "bold")
    yield ""
    judged = len(curve.errors.targets)
    yield from facts(
        {"model": curve.facts["model"], "images": f"{judged:,}, {curve.facts['held_out']}"}, paint
    )
    yield ""
    values = curve.to_dict()
    rows = [_row(point, "") for point in values["points"]]
    rows += [_row(_expected(curve, factor), f"expected, {factor} times") for factor in (2, 4)]
    header = ("training images", "accuracy", "90% interval", "")
    yield from table(header, rows, paint=paint, left=0)
    yield ""
    for line in wrapped(values["sentence"], line_width(), 2):
        yield paint(line, "bold")
    yield ""
    yield from table(
        ("class", "images", "gain of twice as many", "90% interval"),
        [_class_row(entry) for entry in values["classes"][:SHOWN_CLASSES]],
        paint=paint,
    )
    if len(values["classes"]) > SHOWN_CLASSES:
        yield f"  and {len(values['classes']) - SHOWN_CLASSES} more classes (all with --json)"


def _expected(curve: LearningCurve, factor: int) -> dict[str, Any]:
    images = factor * curve.images
    accuracy, low, high = curve.accuracy(images)
    return {"images": images, "accuracy": accuracy, "low": low, "high": high}


def _row(point: dict[str, Any], remark: str) -> tuple[str, ...]:
    ends = interval((point["low"], point["high"]))
    return f"{point['images']:,}", percent(point["accuracy"]), ends, remark


def _class_row(entry: dict[str, Any]) -> tuple[str, ...]:
    name = printable(elide(entry["name"], WIDEST_NAME))
    if entry["gain"] is None:
        return name, f"{entry['images']:,}", "too few held-out images", ""
    gain, low, high = (f"{100 * entry[key]:.1f}" for key in ("gain", "low", "high"))
    return name, f"{entry['images']:,}", f"{gain} points of recall", f"{low}\N{EN DASH}{high}"
