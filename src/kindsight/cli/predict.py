"""``kindsight predict``: images in, answers out, one row each and as they are made."""

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
"""The exit code where an image could not be read."""


def predict(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="A run's folder, or another bundle.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Images, folders, patterns such as 'new/*.jpg', tables (CSV, Parquet) of paths "
            "or pixels, arrays (.npz), or - for a list of names on standard input, one a line.",
        ),
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="table|jsonl|csv",
            help="How rows are written.  [default: table]",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            metavar="K",
            help="The K most probable classes only.",
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            help="Names on standard input end with NUL, as find -print0 ends them.",
        ),
    ] = False,
    column: Column = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what is on images.

    Rows come in the order of the images, as they are made. An image that cannot be read has
    a row that says why, and makes the exit code 1.

    Example: kindsight predict runs/photos-1 new/ --format csv > answers.csv
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
    count, failed = _write(_answers(predictor, images), rows, quiet)
    _close(images, count, failed, quiet)
    if failed:
        raise typer.Exit(UNREADABLE)


def _format(given: str | None, json: bool) -> str:
    from kindsight.cli.terminal.predictions import FORMATS

    if given is not None and given not in FORMATS:
        raise SettingsError(f"--format must be one of {', '.join(FORMATS)}. Received: {given!r}.")
    if json and given not in (None, "jsonl"):
        raise SettingsError(f"--json means --format jsonl. Received: --json and --format {given}.")
    return given or ("jsonl" if json else "table")


def _answers(predictor: Predictor, images: Inputs) -> Iterator[Prediction]:
    for batch in images.batches():
        if isinstance(batch, Iterator):
            yield from predictor.predict(batch)
        else:
            yield from predictor.predict_dataset(batch)


def _write(answers: Iterator[Prediction], rows: Rows, quiet: bool) -> tuple[int, int]:
    """Write a row for each answer at once; return how many there were and how many failed."""
    from kindsight.cli.terminal.progress import counting

    stream = sys.stdout if rows.for_people else for_machines()
    count = failed = 0
    # On the same terminal the rows themselves show how far it is.
    with counting(quiet or sys.stdout.isatty()) as progress:
        for answer in answers:
            stream.write((rows.header() if count == 0 else "") + rows.row(answer))
            stream.flush()
            count += 1
            failed += answer.error is not None
            progress("predict", count, 0)
    return count, failed


def _close(images: Inputs, count: int, failed: int, quiet: bool) -> None:
    """Say what the rows do not."""
    left_out = ", ".join(f"{n:,} x {why}" for why, n in sorted(images.ignored.items()))
    if count == 0 and not images.from_stdin:
        raise DatasetError(
            "There must be images to look at. Received: none"
            + (f" (passed over: {left_out})." if left_out else ".")
        )
    if quiet:
        return
    if count == 0:
        note("the list on standard input was empty.")
    if left_out:
        note(f"passed over: {left_out}.")
    if failed:
        complain(f"{failed:,} of {count:,} image{'s' * (count != 1)} could not be read.")
