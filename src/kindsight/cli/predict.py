"""``kindsight predict``: classify images, one row each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import (
    Column,
    Debug,
    PixelShape,
    Quiet,
    Root,
    Workers,
    columns_of,
)
from kindsight.cli.terminal.text import complain, for_machines, note
from kindsight.errors import DatasetError, SettingsError

if TYPE_CHECKING:
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.cli.terminal.predictions import Rows
    from kindsight.predictor import Prediction, Predictor

__all__ = ["predict"]

UNREADABLE = 1
"""The exit code if an image could not be read."""


def predict(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Images, folders, patterns such as 'new/*.jpg', tables (CSV, Parquet) of paths "
            "or pixels, arrays (.npz), or - for file names on standard input, one per line.",
        ),
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="table|jsonl|csv",
            help="Output format.  [default: table]",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            metavar="K",
            help="Number of most probable classes in each row.  [default: table: 1; else all]",
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            help="File names on standard input end with NUL, as from find -print0.",
        ),
    ] = False,
    column: Column = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Same as --format jsonl.")] = False,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Classify images.

    Each image has one row, in order. The row of an unreadable image has the reason, and the exit
    code is 1.

    Example: kindsight predict runs/photos-1 new/ --format csv > predictions.csv
    """
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.cli.terminal.predictions import FORMATS
    from kindsight.cli.terminal.text import Paint
    from kindsight.dataset import DataOptions
    from kindsight.predictor import Predictor

    name = _format(format_, json)
    options = DataOptions(columns=columns_of(column) or {}, pixel_shape=pixel_shape, root=root)
    options.check()
    images = Inputs(files, null=null, options=options)
    predictor = Predictor(bundle, workers=workers)
    rows = FORMATS[name](predictor.classes, top, Paint(sys.stdout))
    count, failed = _write(_predictions(predictor, images), rows, quiet)
    _report_rest(images, count, failed, quiet)
    if failed:
        raise typer.Exit(UNREADABLE)


def _format(given: str | None, json: bool) -> str:
    from kindsight.cli.terminal.predictions import FORMATS

    if given is not None and given not in FORMATS:
        raise SettingsError(f"--format must be one of {', '.join(FORMATS)}; got {given!r}.")
    if json and given not in (None, "jsonl"):
        raise SettingsError(
            f"--json means --format jsonl; got --format {given}, too. Leave one of them out."
        )
    return given or ("jsonl" if json else "table")


def _predictions(predictor: Predictor, images: Inputs) -> Iterator[Prediction]:
    for batch in images.batches():
        if isinstance(batch, Iterator):
            yield from predictor.predict(batch)
        else:
            yield from predictor.predict_dataset(batch)


def _write(predictions: Iterator[Prediction], rows: Rows, quiet: bool) -> tuple[int, int]:
    """Write a row for each prediction; return the number of rows and of failures."""
    from kindsight.cli.terminal.progress import counting

    stream = sys.stdout if rows.for_people else for_machines()
    count = failed = 0
    # On a terminal the rows themselves show the progress.
    with counting(quiet or sys.stdout.isatty()) as progress:
        for prediction in predictions:
            stream.write((rows.header() if count == 0 else "") + rows.row(prediction))
            stream.flush()
            count += 1
            failed += prediction.error is not None
            progress("predict", count, 0)
    return count, failed


def _report_rest(images: Inputs, count: int, failed: int, quiet: bool) -> None:
    """Report ignored files, failures and an empty input."""
    left_out = ", ".join(f"{n:,} x {why}" for why, n in sorted(images.ignored.items()))
    if count == 0 and not images.from_stdin:
        raise DatasetError("No images found" + (f"; ignored: {left_out}." if left_out else "."))
    if quiet:
        return
    if count == 0:
        note("no file names on standard input.")
    if left_out:
        note(f"ignored: {left_out}.")
    if failed:
        complain(f"{failed:,} of {count:,} image{'s' * (count != 1)} could not be read.")
