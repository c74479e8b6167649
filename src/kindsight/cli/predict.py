"""``kindsight predict``: classify images, one row each."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    BundleFolder,
    Debug,
    Quiet,
    SetsPerClass,
    TargetAccuracy,
    TargetCoverage,
    Workers,
    with_data_options,
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
from kindsight.dataset.names import ignored_text
from kindsight.encoding import escape_name
from kindsight.errors import DatasetError, SettingsError
from kindsight.report.format import percent

if TYPE_CHECKING:
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.cli.terminal.prediction_files import PredictedImage
    from kindsight.dataset import DataOptions
    from kindsight.predictor import Prediction, Predictor

__all__ = ["FORMATS", "CsvRows", "JsonRows", "Rows", "TableRows", "predict"]

UNREADABLE = 1
"""The exit code if an image could not be read."""

TABLE_COLUMNS = (
    "path", "label", "confidence", "error", "message", "reason", "best", "ood_score",
    "prediction_set",
)  # fmt: skip
"""The columns of tables before the probabilities."""

LOW_CONFIDENCE = 0.8
"""Predictions below this confidence are yellow in the table."""

_WIDEST = 32
_GAP = "  "


Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES...",
        help="Images, folders, patterns such as 'new/*.jpg', tables (CSV, Parquet) of paths "
        "or pixels, arrays (.npz), or - for standard input: file names, one per line, or an "
        "image.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="table|jsonl|csv",
        help="Output format.  [default: table]",
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top",
        min=1,
        metavar="K",
        help="Number of most probable classes in each row.  [default: table: 1; else all]",
    ),
]
Null = Annotated[
    bool,
    typer.Option(
        "--null",
        "-0",
        help="File names on standard input that end with NUL, as from find -print0.",
    ),
]
Always = Annotated[
    bool,
    typer.Option(
        "--always", help="Labels for all images, including those that are unsure or unknown."
    ),
]
Sets = Annotated[
    float | None,
    typer.Option(
        metavar="LEVEL",
        help="Prediction sets that contain the true class with this probability, such as 0.9.  "
        "[default: none]",
        show_default=False,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="confidence",
        help="Order of the rows: least confident first, unreadable images last.  "
        "[default: as given]",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Table to write instead of printing rows: .csv, .xlsx (Excel) or .parquet.",
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="HTML page of the 200 least confident images, to write."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwriting of the files of --out and --sheet.")
]
Json = Annotated[bool, typer.Option("--json", help="Same as --format jsonl.")]


@with_data_options(labels=False)
def predict(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: BundleFolder,
    files: Files,
    format_: Format = None,
    top: Top = None,
    null: Null = False,
    always: Always = False,
    target_accuracy: TargetAccuracy = None,
    target_coverage: TargetCoverage = None,
    sets: Sets = None,
    sets_per_class: SetsPerClass = False,
    sort: Sort = None,
    out: Out = None,
    sheet: Sheet = None,
    force: Force = False,
    *,
    options: DataOptions,
    json: Json = False,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Classify images.

    Each image has one row, in order. The row of an unreadable image has the reason, and the exit
    code is 1. In place of a label, an image has the reason unsure if its confidence is below the
    threshold, and unknown if it belongs to none of the classes.

    Example: kindsight predict runs/photos-1 new/ --format csv > predictions.csv
    """
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.cli.terminal.prediction_files import check_files
    from kindsight.predictor import Predictor

    name = _format(format_, json)
    if sort not in (None, "confidence"):
        raise SettingsError(f"--sort must be confidence; got {sort!r}.")
    options.check()
    images = Inputs(files, null=null, options=options)
    predictor = Predictor(
        bundle,
        workers=workers,
        always=always,
        target_accuracy=target_accuracy,
        target_coverage=target_coverage,
        sets=sets,
        sets_per_class=sets_per_class or None,
    )
    if predictor.decisions.note and not quiet:
        note(predictor.decisions.note)
    images.value_range = predictor.bundle.spec.value_range
    check_files(out, sheet, len(predictor.classes), force)
    withholds = predictor.decisions.withholds
    rows = FORMATS[name](predictor.classes, top, Paint(sys.stdout), withholds)
    # With --out, rows are printed only if --format is given.
    printed = out is None or format_ is not None or json
    predicted = _predictions(predictor, images)
    if sort or out or sheet:
        kept, counts = _collect(predicted, rows if printed and not sort else None, quiet)
        for text in _write_files(kept, rows, sort, out, sheet, bundle, top, printed):
            if not quiet:
                note(text)
    else:
        counts = _write((image.prediction for image in predicted), rows, quiet)
    _report_rest(images, counts, quiet)
    if counts.clipped and not quiet:
        note(clipping_note(counts.clipped, counts.images, predictor))
    if counts.failed:
        raise typer.Exit(UNREADABLE)


@dataclass
class Counts:
    """Numbers of images that were labelled, not labelled, and unreadable."""

    images: int = 0
    failed: int = 0
    clipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, prediction: Prediction) -> None:
        """Count an image."""
        self.images += 1
        self.failed += prediction.error is not None
        self.clipped += prediction.is_clipped
        if prediction.reason:
            self.reasons[prediction.reason] += 1


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
    withholds : bool
        Whether a row may have a reason in place of a label.
    """

    for_people = False

    def __init__(
        self, classes: Sequence[str], top: int | None, paint: Paint, withholds: bool = False
    ) -> None:
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
    """One JSON object per line: path, label, confidence and more; null where there is no value."""

    def header(self) -> str:
        """Return an empty string: JSON lines have no header."""
        return ""

    def row(self, prediction: Prediction) -> str:
        """Return one object; without a label, reason or error says why."""
        error, confidence = prediction.error, prediction.confidence
        score, found = prediction.ood_score, prediction.prediction_set
        value: dict[str, Any] = {
            "path": prediction.path,
            "label": prediction.label,
            "reason": prediction.reason or None,
            "best": prediction.best,
            "confidence": None if confidence is None else short(confidence),
            "ood_score": None if score is None else short(score),
            "prediction_set": None if found is None else list(found),
            "probabilities": dict(self._probabilities(prediction)) if error is None else None,
            "error": None if error is None else {"code": error.code, "message": error.reason},
        }
        return to_json(value) + "\n"


class CsvRows(Rows):
    """path, label, confidence, ..., and a column ``p_<class>`` for each class.

    ``prediction_set`` is a JSON list of class names. Cells of classes beyond ``--top`` are empty.
    Spreadsheets would run a name that looks like a formula: such a path is prefixed with ``./``,
    such a label with an apostrophe.
    """

    def header(self) -> str:
        """Return the line of the columns' names."""
        return csv_line(self.names())

    def row(self, prediction: Prediction) -> str:
        """Return one line, quoted where needed."""
        return csv_line(self.safe_cells(prediction))

    def names(self) -> list[str]:
        """Return the columns' names."""
        return [*TABLE_COLUMNS, *(f"p_{name}" for name in self.classes)]

    def cells(self, prediction: Prediction) -> list[str | float | None]:
        """Return the cells; None where there is no value."""
        error, confidence = prediction.error, prediction.confidence
        problem = (None, None) if error is None else (error.code, error.reason)
        score, found = prediction.ood_score, prediction.prediction_set
        probabilities = dict(self._probabilities(prediction))
        return [
            escape_name(prediction.path),
            prediction.label,
            None if confidence is None else short(confidence),
            *problem,
            prediction.reason or None,
            prediction.best,
            None if score is None else short(score),
            None if found is None else to_json(list(found)),
            *map(probabilities.get, self.classes),
        ]

    def safe_cells(self, prediction: Prediction) -> list[str | float | None]:
        """Return the cells, with names changed that a spreadsheet would run as formulas."""
        cells = self.cells(prediction)
        path = cells[0]
        if isinstance(path, str) and _like_a_formula(path):
            cells[0] = os.path.join(os.curdir, path)  # noqa: PTH118 (Path would drop the dot)
        for column in (TABLE_COLUMNS.index("label"), TABLE_COLUMNS.index("best")):
            name = cells[column]
            if isinstance(name, str) and _like_a_formula(name):
                cells[column] = f"'{name}"
        return cells


class TableRows(Rows):
    """A table with fixed columns; the path comes last and is never shortened."""

    for_people = True

    def __init__(
        self, classes: Sequence[str], top: int | None, paint: Paint, withholds: bool = False
    ) -> None:
        super().__init__(classes, top or 1, paint, withholds)
        longest = max(cells(printable(name)) for name in classes)
        self._width = max(len("unknown" if withholds else "label"), min(_WIDEST, longest))

    def header(self) -> str:
        """Return the column names: label and confidence for each class shown."""
        columns = [f"{pad('label', self._width)}{_GAP}confidence"]
        columns += [f"{pad('next', self._width)}{_GAP}      "] * ((self.top or 1) - 1)
        return self.paint(_GAP.join([*columns, "image"]), "dim") + "\n"

    def row(self, prediction: Prediction) -> str:
        """Return one line; without a label, with the reason or the error after the path."""
        path = printable(prediction.path)
        if prediction.error is not None:
            blank = self._columns([("unreadable", None)] + [("", None)] * ((self.top or 1) - 1))
            reason = printable(prediction.error.reason)
            return self.paint(f"{blank}{_GAP}{path}  ({reason})", "red") + "\n"
        probabilities: list[tuple[str, float | None]] = [*self._probabilities(prediction)]
        after = ""
        if prediction.reason:
            best = printable(str(prediction.best))
            after = f"  (most probable: {best})"
            probabilities[0] = (prediction.reason, prediction.confidence)
        if prediction.prediction_set is not None:
            after += f"  {{{', '.join(map(printable, prediction.prediction_set))}}}"
        columns = self._columns(probabilities)
        confidence = prediction.confidence
        if prediction.reason or (confidence is not None and confidence < LOW_CONFIDENCE):
            columns = self.paint(columns, "yellow")
        return f"{columns}{_GAP}{path}{after}\n"

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
    from kindsight.cli.terminal.prediction_files import PredictedImage, load_image

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
) -> tuple[list[PredictedImage], Counts]:
    """Return all predictions and their numbers; write a row for each unless `rows` is None."""
    from kindsight.cli.terminal.progress import counting

    kept: list[PredictedImage] = []

    def passing() -> Iterator[Prediction]:
        for image in predicted:
            kept.append(image)
            yield image.prediction

    if rows is not None:
        return kept, _write(passing(), rows, quiet)
    counts = Counts()
    with counting(quiet) as progress:
        for prediction in passing():
            counts.add(prediction)
            progress("predict", counts.images, 0)
    return kept, counts


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
    from kindsight.cli.terminal.prediction_files import (
        least_confident_first,
        write_sheet,
        write_table,
    )

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


def _write(predictions: Iterator[Prediction], rows: Rows, quiet: bool) -> Counts:
    """Write a row for each prediction; return the numbers of images."""
    from kindsight.cli.terminal.progress import counting

    stream = sys.stdout if rows.for_people else for_machines()
    counts = Counts()
    # On a terminal the rows themselves show the progress.
    with counting(quiet or sys.stdout.isatty()) as progress:
        for prediction in predictions:
            stream.write((rows.header() if counts.images == 0 else "") + rows.row(prediction))
            stream.flush()
            counts.add(prediction)
            progress("predict", counts.images, 0)
    return counts


def _report_rest(images: Inputs, counts: Counts, quiet: bool) -> None:
    """Report ignored files, images without a label, failures and an empty input."""
    left_out, count = ignored_text(images.ignored.counts.items()), counts.images
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
    if counts.reasons:
        without = counts.reasons.total()
        named = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.reasons.items()))
        note(
            f"{without:,} of {count:,} image{'s' * (count != 1)} ha{'ve' if without != 1 else 's'} "
            f"no label: {named}. --always labels all."
        )
    if counts.failed:
        complain(f"{counts.failed:,} of {count:,} image{'s' * (count != 1)} could not be read.")


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
