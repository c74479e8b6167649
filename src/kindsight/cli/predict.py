"""``kindsight predict``: classify images, one row each."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    BundleFolder,
    Debug,
    On,
    Quiet,
    SetsPerClass,
    TargetAccuracy,
    TargetCoverage,
    Workers,
    with_data_options,
)
from kindsight.cli.terminal.prediction_rows import FORMATS, Counts, CsvRows, Rows
from kindsight.cli.terminal.text import (
    Paint,
    clipping_note,
    complain,
    for_machines,
    note,
)
from kindsight.dataset.names import ignored_text
from kindsight.errors import DatasetError, SettingsError

if TYPE_CHECKING:
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.cli.terminal.prediction_files import PredictedImage
    from kindsight.dataset import DataOptions
    from kindsight.predictor import Prediction, Predictor

__all__ = ["UNREADABLE", "predict"]

UNREADABLE = 1
"""The exit code if an image could not be read."""

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
        metavar="FILE|DIR/",
        help="Table to write instead of printing rows: .csv, .xlsx (Excel) or .parquet; or a "
        "folder, for any number of images: one Parquet file per 4,096 images; when the command is "
        "run again, only missing files are computed.",
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="HTML page to write, with the 200 least confident images."),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Overwriting of the files of --out and --sheet; in a folder, parts of another "
        "classifier or of other options are renamed.",
    ),
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
    on: On = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Classify images.

    Each image has one row, in order. The row of an unreadable image has the reason, and the exit
    code is 1. Instead of a label, an image has the reason unsure if its confidence is below the
    threshold, or unknown if it belongs to none of the classes.

    Example: kindsight predict runs/photos-1 new/ --format csv > predictions.csv
    """
    from kindsight.bundle import load_bundle
    from kindsight.cli.terminal.inputs import Inputs
    from kindsight.cli.terminal.part_folder import is_part_folder
    from kindsight.cli.terminal.prediction_files import check_files
    from kindsight.distributed import require_cluster
    from kindsight.predictor import Predictor

    name = _format(format_, json)
    if sort not in (None, "confidence"):
        raise SettingsError(f"--sort must be confidence; got {sort!r}.")
    options.check()
    require_cluster(on)
    printed = format_ is not None or json
    parts = out if out is not None and is_part_folder(out) else None
    if parts is not None:
        from kindsight.cli.terminal.prediction_parts import check_parts, write_parts

        check_parts(parts, sort=bool(sort), sheet=bool(sheet), printed=printed)
    images = Inputs(files, null=null, options=options)
    stored = load_bundle(bundle)
    if parts is None:
        check_files(out, sheet, len(stored.classes), force)
    with Predictor(
        stored,
        workers=workers,
        always=always,
        target_accuracy=target_accuracy,
        target_coverage=target_coverage,
        sets=sets,
        sets_per_class=sets_per_class or None,
        on=on,
    ) as predictor:
        if predictor.decisions.note and not quiet:
            note(predictor.decisions.note)
        images.value_range = predictor.bundle.spec.value_range
        if parts is not None:
            pairs = chain.from_iterable(_pairs(predictor, images))
            counts = write_parts(parts, predictor, pairs, top, force=force, quiet=quiet)
        else:
            withholds = predictor.decisions.withholds
            rows = FORMATS[name](predictor.classes, top, Paint(sys.stdout), withholds)
            # With --out, rows are printed only if --format is given.
            output = _Output(rows if printed or out is None else None, sort, out, sheet, quiet)
            predicted = _predictions(predictor, images)
            counts = output.write(predicted, CsvRows(rows.classes, top), bundle)
    _report_rest(images, counts, quiet)
    if counts.clipped and not quiet:
        note(clipping_note(counts.clipped, counts.images, predictor))
    if counts.failed or images.has_lost_images:
        raise typer.Exit(UNREADABLE)


def _format(given: str | None, json: bool) -> str:

    if given is not None and given not in FORMATS:
        raise SettingsError(f"--format must be one of {', '.join(FORMATS)}; got {given!r}.")
    if json and given not in (None, "jsonl"):
        raise SettingsError(
            f"--json means --format jsonl; got --format {given}, too. Leave one of them out."
        )
    return given or ("jsonl" if json else "table")


def _pairs(predictor: Predictor, images: Inputs) -> Iterator[Iterator[tuple[str, Any]]]:
    """Yield iterators of image names and sources, one for images that arrive together."""
    from kindsight.network_outputs import DatasetRow

    for batch in images.batches():
        if isinstance(batch, bytes):
            yield iter([("-", batch)])
        elif isinstance(batch, Iterator):
            yield ((path, path) for path in batch)
        else:
            predictor.check_range(batch)
            yield ((name, DatasetRow(batch, row)) for row, name in enumerate(batch.path))


def _predictions(predictor: Predictor, images: Inputs) -> Iterator[PredictedImage]:
    """Yield each prediction, with a function that reads its image again."""
    from kindsight.cli.terminal.prediction_files import PredictedImage, load_image

    sources: deque[Any] = deque()

    def noted(pairs: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        for name, source in pairs:
            sources.append(source)
            yield name, source

    groups = _pairs(predictor, images)
    if predictor.on_cluster:  # its workers would be started for each group
        groups = iter([chain.from_iterable(groups)])
    for pairs in groups:
        for prediction in predictor.predict_named(noted(pairs)):
            yield PredictedImage(prediction, partial(load_image, sources.popleft()))


@dataclass(frozen=True)
class _Output:
    """Writes predictions as printed rows, a table or a contact sheet.

    - `rows`: the printed format; None if nothing is printed.
    """

    rows: Rows | None
    sort: str | None
    out: str | None
    sheet: str | None
    quiet: bool

    def write(self, predicted: Iterator[PredictedImage], columns: CsvRows, bundle: str) -> Counts:
        """Write all predictions; return their numbers. They are only held in memory for sorting."""
        counts = Counts()
        with closing(self._shown(predicted, counts)) as shown:
            if self.sort or self.sheet:
                self._write_all(list(shown), columns, bundle)
            elif self.out is not None:
                self._write_table(self.out, shown, columns, counts)
            else:
                deque(shown, maxlen=0)
        return counts

    def _shown(
        self, predicted: Iterator[PredictedImage], counts: Counts
    ) -> Generator[PredictedImage, None, None]:
        """Yield all predictions; print and count each, unless they will be sorted."""
        from kindsight.cli.terminal.progress import counting

        write = None if self.rows is None or self.sort else _printing(self.rows)
        # On a terminal, the rows themselves show the progress.
        with counting(self.quiet or (write is not None and sys.stdout.isatty())) as progress:
            for image in predicted:
                if write is not None:
                    write(image.prediction)
                counts.add(image.prediction)
                progress("predict", counts.images, 0)
                yield image

    def _write_all(self, kept: list[PredictedImage], columns: CsvRows, bundle: str) -> None:
        """Write sorted rows, the table of --out and the page of --sheet."""
        from kindsight.cli.terminal.prediction_files import least_confident_first, write_sheet

        if not kept:
            return
        if self.sort:
            kept = least_confident_first(kept)
            if self.rows is not None:
                write = _printing(self.rows)
                for image in kept:
                    write(image.prediction)
        if self.out is not None:
            self._write_table(self.out, iter(kept), columns, Counts(len(kept)))
        if self.sheet is not None:
            write_sheet(self.sheet, kept, bundle)
            self._note(f"contact sheet written to {self.sheet}.")

    def _write_table(
        self, out: str, images: Iterator[PredictedImage], columns: CsvRows, counts: Counts
    ) -> None:
        """Write the table of --out, unless there is no image."""
        from kindsight.cli.terminal.prediction_files import write_table

        if (first := next(images, None)) is None:
            return
        cells = columns.safe_cells if out.lower().endswith(".csv") else columns.cells
        rows = (cells(image.prediction) for image in chain([first], images))
        write_table(out, columns.names(), rows)
        n = counts.images
        self._note(f"{n:,} prediction{'s' * (n != 1)} written to {out}.")

    def _note(self, text: str) -> None:
        if not self.quiet:
            note(text)


def _printing(rows: Rows) -> Callable[[Prediction], None]:
    """Return a function that prints a prediction as a row, and the header before the first."""
    stream = sys.stdout if rows.for_people else for_machines()
    header = rows.header()

    def write(prediction: Prediction) -> None:
        nonlocal header
        stream.write(header + rows.row(prediction))
        stream.flush()
        header = ""

    return write


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
