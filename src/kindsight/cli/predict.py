"""``kindsight predict``: classify images, one row each."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    Column,
    Debug,
    Encoding,
    FollowLinks,
    PixelShape,
    Quiet,
    Root,
    Workers,
    columns_of,
)
from kindsight.cli.terminal.text import (
    Paint,
    cells,
    clipping_note,
    complain,
    csv_line,
    for_machines,
    note,
    pad,
    printable,
    to_json,
)
from kindsight.dataset.ignored import ignored_text
from kindsight.encoding import escape_name
from kindsight.errors import DatasetError, SettingsError
from kindsight.report.format import percent

if TYPE_CHECKING:
    from kindsight.cli.prediction_files import PredictedImage
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.predictor import Prediction, Predictor

__all__ = ["FORMATS", "CsvRows", "JsonRows", "Rows", "TableRows", "predict"]

UNREADABLE = 1
"""The exit code if an image could not be read."""

LOW_CONFIDENCE = 0.8
"""Predictions below this confidence are yellow in the table."""

_WIDEST = 32
_GAP = "  "


def predict(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Images, folders, patterns such as 'new/*.jpg', tables (CSV, Parquet) of paths "
            "or pixels, arrays (.npz), or - for standard input: file names, one per line, or an "
            "image.",
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
            help="File names on standard input that end with NUL, as from find -print0.",
        ),
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="confidence",
            help="Order of the rows: least confident first, unreadable images last.  "
            "[default: as given]",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table to write instead of printing rows: .csv, .xlsx (Excel) or .parquet.",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="HTML page of the 200 least confident images, to write."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwriting of the files of --out and --sheet.")
    ] = False,
    column: Column = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    follow_links: FollowLinks = None,
    encoding: Encoding = None,
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
    from kindsight.cli.prediction_files import check_files
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.dataset import DataOptions
    from kindsight.predictor import Predictor

    name = _format(format_, json)
    if sort not in (None, "confidence"):
        raise SettingsError(f"--sort must be confidence; got {sort!r}.")
    options = DataOptions(
        columns=columns_of(column) or {},
        pixel_shape=pixel_shape,
        root=root,
        follow_links=follow_links is not False,
        encoding=encoding,
    )
    options.check()
    images = Inputs(files, null=null, options=options)
    predictor = Predictor(bundle, workers=workers)
    images.value_range = predictor.bundle.spec.value_range
    check_files(out, sheet, len(predictor.classes), force)
    rows = FORMATS[name](predictor.classes, top, Paint(sys.stdout))
    # With --out, rows are printed only if --format is given.
    printed = out is None or format_ is not None or json
    predicted = _predictions(predictor, images)
    if sort or out or sheet:
        kept, failed, clipped = _collect(predicted, rows if printed and not sort else None, quiet)
        count = len(kept)
        for text in _write_files(kept, rows, sort, out, sheet, bundle, top, printed):
            if not quiet:
                note(text)
    else:
        count, failed, clipped = _write((image.prediction for image in predicted), rows, quiet)
    _report_rest(images, count, failed, quiet)
    if clipped and not quiet:
        note(clipping_note(clipped, count, predictor))
    if failed:
        raise typer.Exit(UNREADABLE)


class Rows(ABC):
    """A format for predictions.

    Parameters
    ----------
    classes : sequence of str
        Class names of the classifier.
    top : int, optional
        Number of most probable classes per row.
    paint : Paint
        Colors of the table.
    """

    for_people = False

    def __init__(self, classes: Sequence[str], top: int | None, paint: Paint) -> None:
        self.classes = tuple(classes)
        self.top = None if top is None else min(top, len(self.classes))
        self.paint = paint

    @abstractmethod
    def header(self) -> str:
        """Return the header line with its line feed; ``""`` for none."""

    @abstractmethod
    def row(self, prediction: Prediction) -> str:
        """Return the line of one image, with its line feed."""

    def _probabilities(self, prediction: Prediction) -> list[tuple[str, float]]:
        """Return the classes of a row with their probabilities."""
        if prediction.probabilities is None:
            return []
        if self.top is not None:
            return [(name, short(share)) for name, share in prediction.top(self.top)]
        numbers = prediction.probabilities.tolist()
        return [(name, short(share)) for name, share in zip(self.classes, numbers, strict=True)]


def short(value: float) -> float:
    """Return a float32 rounded to nine digits, which identify it."""
    return float(f"{value:.9g}")


class JsonRows(Rows):
    """One JSON object per line: path, label, confidence, probabilities, error."""

    def header(self) -> str:
        """Return an empty string: JSON lines have no header."""
        return ""

    def row(self, prediction: Prediction) -> str:
        """Return one object; with an error, label, confidence and probabilities are null."""
        error, confidence = prediction.error, prediction.confidence
        value: dict[str, Any] = {
            "path": prediction.path,
            "label": prediction.label,
            "confidence": None if confidence is None else short(confidence),
            "probabilities": dict(self._probabilities(prediction)) if error is None else None,
            "error": None if error is None else {"code": error.code, "message": error.reason},
        }
        return to_json(value) + "\n"


class CsvRows(Rows):
    """path, label, confidence, error, message, and a column ``p_<class>`` for each class.

    Cells of classes beyond ``--top`` are empty. Spreadsheets would run a name that looks like a
    formula: such a path is prefixed with ``./``, such a label with an apostrophe.
    """

    def header(self) -> str:
        """Return the line of the columns' names."""
        return csv_line(self.names())

    def row(self, prediction: Prediction) -> str:
        """Return one line, quoted where needed."""
        return csv_line(self.safe_cells(prediction))

    def names(self) -> list[str]:
        """Return the columns' names."""
        names = (f"p_{name}" for name in self.classes)
        return ["path", "label", "confidence", "error", "message", *names]

    def cells(self, prediction: Prediction) -> list[str | float | None]:
        """Return the cells; None where there is no value."""
        error, confidence = prediction.error, prediction.confidence
        problem = (None, None) if error is None else (error.code, error.reason)
        probabilities = dict(self._probabilities(prediction))
        return [
            escape_name(prediction.path),
            prediction.label,
            None if confidence is None else short(confidence),
            *problem,
            *map(probabilities.get, self.classes),
        ]

    def safe_cells(self, prediction: Prediction) -> list[str | float | None]:
        """Return the cells, with names changed that a spreadsheet would run as formulas."""
        path, label, *others = self.cells(prediction)
        if isinstance(path, str) and _like_a_formula(path):
            path = os.path.join(os.curdir, path)  # noqa: PTH118 (Path would drop the dot)
        if isinstance(label, str) and _like_a_formula(label):
            label = f"'{label}"
        return [path, label, *others]


class TableRows(Rows):
    """A table with fixed columns; the path comes last and is never shortened."""

    for_people = True

    def __init__(self, classes: Sequence[str], top: int | None, paint: Paint) -> None:
        super().__init__(classes, top or 1, paint)
        longest = max(cells(printable(name)) for name in classes)
        self._width = max(len("label"), min(_WIDEST, longest))

    def header(self) -> str:
        """Return the column names: label and confidence for each class shown."""
        columns = [f"{pad('label', self._width)}{_GAP}confidence"]
        columns += [f"{pad('next', self._width)}{_GAP}      "] * ((self.top or 1) - 1)
        return self.paint(_GAP.join([*columns, "image"]), "dim") + "\n"

    def row(self, prediction: Prediction) -> str:
        """Return one line; for an unreadable image with the reason after the path."""
        path = printable(prediction.path)
        if prediction.error is not None:
            blank = self._columns([("unreadable", None)] + [("", None)] * ((self.top or 1) - 1))
            reason = printable(prediction.error.reason)
            return self.paint(f"{blank}{_GAP}{path}  ({reason})", "red") + "\n"
        probabilities = self._probabilities(prediction)
        columns = self._columns([*probabilities])
        if probabilities[0][1] < LOW_CONFIDENCE:
            columns = self.paint(columns, "yellow")
        return f"{columns}{_GAP}{path}\n"

    def _columns(self, probabilities: Sequence[tuple[str, float | None]]) -> str:
        parts = []
        for column, (name, share) in enumerate(probabilities):
            number = "" if share is None else percent(share)
            width = len("confidence") if column == 0 else len("100.0%")
            parts += [pad(_shortened(printable(name)), self._width), pad(number, width, right=True)]
        return _GAP.join(parts)


FORMATS: dict[str, type[Rows]] = {"table": TableRows, "jsonl": JsonRows, "csv": CsvRows}
"""The formats of ``--format``."""


def _format(given: str | None, json: bool) -> str:

    if given is not None and given not in FORMATS:
        raise SettingsError(f"--format must be one of {', '.join(FORMATS)}; got {given!r}.")
    if json and given not in (None, "jsonl"):
        raise SettingsError(
            f"--json means --format jsonl; got --format {given}, too. Leave one of them out."
        )
    return given or ("jsonl" if json else "table")


def _predictions(predictor: Predictor, images: Inputs) -> Iterator[PredictedImage]:
    """Yield each prediction with a function that reads its image again."""
    from kindsight.cli.prediction_files import PredictedImage, load_image

    for batch in images.batches():
        if isinstance(batch, bytes):
            yield PredictedImage(predictor.predict_bytes(batch), partial(load_image, batch))
        elif isinstance(batch, Iterator):
            for prediction in predictor.predict(batch):
                yield PredictedImage(prediction, partial(load_image, prediction.path))
        else:
            for row, prediction in enumerate(predictor.predict_dataset(batch)):
                yield PredictedImage(prediction, partial(load_image, batch, row))


def _collect(
    predicted: Iterator[PredictedImage], rows: Rows | None, quiet: bool
) -> tuple[list[PredictedImage], int, int]:
    """Return all predictions, and the numbers of failures and of clipped images.

    A row is written for each unless `rows` is None.
    """
    from kindsight.cli.terminal.progress import counting

    kept: list[PredictedImage] = []

    def passing() -> Iterator[Prediction]:
        for image in predicted:
            kept.append(image)
            yield image.prediction

    if rows is not None:
        return kept, *_write(passing(), rows, quiet)[1:]
    with counting(quiet) as progress:
        for _ in passing():
            progress("predict", len(kept), 0)
    every = [image.prediction for image in kept]
    return kept, sum(p.error is not None for p in every), sum(p.is_clipped for p in every)


def _write_files(
    kept: list[PredictedImage],
    rows: Rows,
    sort: str | None,
    out: str | None,
    sheet: str | None,
    bundle: str,
    top: int | None,
    printed: bool,
) -> Iterator[str]:
    """Write sorted rows, the table of --out and the page of --sheet; yield a note for each."""
    from kindsight.cli.prediction_files import least_confident_first, write_sheet, write_table

    if not kept:
        return
    if sort:
        kept = least_confident_first(kept)
        if printed:
            _write((image.prediction for image in kept), rows, quiet=True)
    if out is not None:
        columns = CsvRows(rows.classes, top, rows.paint)
        cells = columns.safe_cells if out.lower().endswith(".csv") else columns.cells
        write_table(out, columns.names(), (cells(image.prediction) for image in kept))
        yield f"{len(kept):,} prediction{'s' * (len(kept) != 1)} written to {out}."
    if sheet is not None:
        write_sheet(sheet, kept, bundle)
        yield f"contact sheet written to {sheet}."


def _write(predictions: Iterator[Prediction], rows: Rows, quiet: bool) -> tuple[int, int, int]:
    """Write a row for each prediction; return the numbers of rows, failures and clipped images."""
    from kindsight.cli.terminal.progress import counting

    stream = sys.stdout if rows.for_people else for_machines()
    count = failed = clipped = 0
    # On a terminal the rows themselves show the progress.
    with counting(quiet or sys.stdout.isatty()) as progress:
        for prediction in predictions:
            stream.write((rows.header() if count == 0 else "") + rows.row(prediction))
            stream.flush()
            count += 1
            failed += prediction.error is not None
            clipped += prediction.is_clipped
            progress("predict", count, 0)
    return count, failed, clipped


def _report_rest(images: Inputs, count: int, failed: int, quiet: bool) -> None:
    """Report ignored files, failures and an empty input."""
    left_out = ignored_text(images.ignored.counts.items())
    if count == 0 and not images.from_stdin:
        raise DatasetError("No images found" + (f"; ignored: {left_out}." if left_out else "."))
    if quiet:
        return
    if count == 0:
        note("no file names on standard input.")
    for text in dict.fromkeys(images.notes):
        note(text)
    if left_out:
        note(f"ignored: {left_out}.")
    if failed:
        complain(f"{failed:,} of {count:,} image{'s' * (count != 1)} could not be read.")


def _like_a_formula(text: str) -> bool:
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _shortened(name: str) -> str:
    if cells(name) <= _WIDEST:
        return name
    shortened = ""
    for character in name:
        if cells(shortened + character) >= _WIDEST:
            break
        shortened += character
    return shortened + "\N{HORIZONTAL ELLIPSIS}"
