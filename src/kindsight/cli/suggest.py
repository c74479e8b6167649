"""``kindsight suggest`` and ``kindsight learning-curve``: images to label next, and the gain."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    BundleFolder,
    DataOf,
    Debug,
    Json,
    Quiet,
    Workers,
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
from kindsight.errors import ImageError, SettingsError
from kindsight.report.format import amount, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions
    from kindsight.evaluation.learning_curve import LearningCurve
    from kindsight.runs.more_images.suggest import Suggestions

__all__ = ["learning_curve", "suggest"]

SHOWN = 10
"""Number of suggestions shown in the terminal."""

ON_SHEET = 200
"""Number of suggestions on the contact sheet."""

THUMBNAIL = 160
"""Longer side of a thumbnail in pixels."""

WIDEST_NAME, WIDEST_PATH = 24, 60
"""Maximum width, in columns, of a class name and of a path."""


@with_data_options(labels=False)
def suggest(  # noqa: PLR0913 (one parameter for each option)
    run: BundleFolder,
    data: Annotated[str, typer.Argument(help=f"{DataOf} Labels are not needed.")],
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images to suggest, at most 2,000.")
    ] = 50,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table to write, a .csv file.  [default: suggestions.csv; with --json none]",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="HTML page to write, with the images.  "
            "[default: named after the table; with --json none]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwriting of the files of --out and --sheet.")
    ] = False,
    *,
    options: DataOptions,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Suggest which unlabelled images to label next.

    Ranks images that differ from each other and whose predictions are the least certain.
    Near-duplicates are suggested once, training images never.

    Example: kindsight suggest runs/photos-1 unlabelled/ --count 100
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.files import write_text
    from kindsight.runs.more_images.suggest import suggest as rank

    out, sheet = _files(out, sheet, json, force)
    with watching(quiet) as progress:
        found = rank(run, data, count=count, options=options, workers=workers, progress=progress)
    if out is not None:
        found.write_csv(out)
    if sheet is not None:
        write_text(sheet, _sheet(found, run))
    if json:
        print_json({**found.to_dict(), "out": out, "sheet": sheet})
        return
    say(*_suggestion_lines(found, out, sheet))
    if found.problems and not quiet:
        note(f"{amount(len(found.problems), 'image')} could not be read and were skipped.")


def _files(
    out: str | None, sheet: str | None, json: bool, force: bool
) -> tuple[str | None, str | None]:
    """Return the files to write, with their defaults; SettingsError if one exists."""
    if out is None and not json:
        out = "suggestions.csv"
    if sheet is None and out is not None and not json:
        sheet = str(Path(out).with_suffix(".html"))
    for option, path, endings in (("out", out, (".csv",)), ("sheet", sheet, (".html", ".htm"))):
        if path is None:
            continue
        if Path(path).suffix.lower() not in endings:
            raise SettingsError(f"`{option}` must end with {' or '.join(endings)}; got {path}.")
        if os.path.lexists(path) and not force:
            raise SettingsError(
                f"{path} exists. Choose another --{option}, or overwrite it with --force."
            )
    return out, sheet


def _suggestion_lines(found: Suggestions, out: str | None, sheet: str | None) -> Iterator[str]:
    from kindsight.cli.terminal.summary import facts

    paint = Paint(sys.stdout)
    considered = amount(found.considered, "image")
    yield paint(f"{len(found)} of {considered} to label next, the most useful first", "bold")
    yield ""
    yield from table(
        ("rank", "image", "prediction", "confidence"),
        [
            (
                f"{image.rank}",
                printable(elide(image.path, WIDEST_PATH)),
                printable(elide(image.prediction, WIDEST_NAME)),
                "unknown" if image.unknown else percent(image.confidence),
            )
            for image in found.images[:SHOWN]
        ],
        paint=paint,
        left=3,
    )
    if len(found) > SHOWN:
        yield f"  and {len(found) - SHOWN:,} more in the table"
    yield ""
    rows = {
        "copies": f"{found.duplicates:,} left out" if found.duplicates else "",
        "trained on": f"{found.trained_on:,} left out" if found.trained_on else "",
        "unknown": _unknown(found),
        "table": printable(out or ""),
        "sheet": printable(sheet or ""),
    }
    yield from facts(rows, paint)


def _unknown(found: Suggestions) -> str:
    if not found.unknown:
        return ""
    chosen = sum(image.unknown for image in found)
    return f"{amount(found.unknown, 'image')} unlike the training images; {chosen:,} suggested"


def _sheet(found: Suggestions, run: str) -> str:
    """Return the HTML page of the first suggestions."""
    from kindsight.images import read_image
    from kindsight.report.gallery import thumbnail_uri
    from kindsight.report.sheets import SuggestedImage, render_suggestions

    shown = []
    for image in found.images[:ON_SHEET]:
        try:
            data = found.dataset.load(image.row)
            value_range = found.bundle.spec.value_range
            pixels = read_image(data, value_range=value_range) if isinstance(data, bytes) else data
            uri = thumbnail_uri(pixels, THUMBNAIL)
        except ImageError:  # removed since it was classified
            uri = None
        shown.append(
            SuggestedImage(
                image.rank, image.path, uri, image.prediction, image.confidence, image.reason,
                image.unknown,
            )
        )  # fmt: skip
    lead = []
    if found.duplicates:
        lead.append(f"{amount(found.duplicates, 'copy', 'copies')} left out.")
    if unknown := _unknown(found):
        lead.append(f"{unknown}.")
    return render_suggestions(
        run, shown, total=len(found), lead=" ".join(lead), created=time.strftime("%Y-%m-%d %H:%M")
    )


SHOWN_CLASSES = 20
"""Maximum number of classes in the table; all are in the output of --json."""

WIDEST_CLASS = 30
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

    Refits the head on subsets of the training images, and extrapolates the accuracy by a power law.
    Writes learning_curve.json to the run folder, for kindsight report.

    Example: kindsight learning-curve runs/photos-1
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.more_images.learning_curve import learning_curve as measure

    with watching(quiet) as progress:
        found = measure(run, data=data, workers=workers, progress=progress)
    if json:
        print_json({"run": run, **found.to_dict()})
        return
    say(*_curve_lines(found, run))
    if not quiet:
        note(f"suggest ranks unlabelled images to label next: kindsight suggest {run} FOLDER")


def _curve_lines(curve: LearningCurve, run: str) -> Iterator[str]:
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
    name = printable(elide(entry["name"], WIDEST_CLASS))
    if entry["gain"] is None:
        return name, f"{entry['images']:,}", "too few held-out images", ""
    gain, low, high = (f"{100 * entry[key]:.1f}" for key in ("gain", "low", "high"))
    return name, f"{entry['images']:,}", f"{gain} points of recall", f"{low}\N{EN DASH}{high}"
