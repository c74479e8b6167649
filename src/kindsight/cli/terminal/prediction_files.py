"""Files of ``kindsight predict``: tables for a spreadsheet, and the contact sheet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.prediction_rows import COLUMNS, types_of
from kindsight.cli.terminal.text import csv_line
from kindsight.encoding import valid_text
from kindsight.errors import ImageError, MissingExtraError, SettingsError
from kindsight.files import check_writable, replacing, write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kindsight.network_outputs import DatasetRow
    from kindsight.predictor import Prediction

__all__ = [
    "PredictedImage", "check_files", "least_confident_first", "load_image", "to_arrow",
    "write_sheet", "write_table",
]  # fmt: skip

ENDINGS = (".csv", ".xlsx", ".parquet")
EXTRAS = {".xlsx": ("xlsxwriter", "Excel tables"), ".parquet": ("pyarrow", "Parquet tables")}
"""The package of each ending, and its purpose; the extra has the ending's name."""

FIXED_COLUMNS = len(COLUMNS)
"""Number of columns before the probabilities."""

ROWS = 4096
"""Number of rows of a Parquet table that are Python objects at a time."""

GROUP_BYTES = 1 << 25
"""Size of a row group in memory: 32 MiB."""

# Limits of Excel.
EXCEL_ROWS = 1_048_576
EXCEL_COLUMNS = 16_384
EXCEL_CHARACTERS = 32_767

SHOWN = 200
"""Maximum images on a contact sheet."""

THUMBNAIL = 192
"""Longer side of a thumbnail in pixels."""


@dataclass(frozen=True)
class PredictedImage:
    """A prediction, with a function that reads its image again for the contact sheet."""

    prediction: Prediction
    load: Callable[[], NDArray[np.uint8]]


def check_files(out: str | None, sheet: str | None, classes: int, force: bool) -> None:
    """Raise an error if the files of ``--out`` and ``--sheet`` cannot be written later.

    SettingsError for a wrong ending, an existing file without `force`, a missing folder, or more
    `classes` than Excel has columns; MissingExtraError for a format whose package is not installed.
    """
    ending = "" if out is None else Path(out).suffix.lower()
    if out is not None and ending not in ENDINGS:
        raise SettingsError(
            f"--out must end in .csv, .xlsx or .parquet, or in / for a folder; got {out!r}."
        )
    if sheet is not None and Path(sheet).suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--sheet must end in .html; got {sheet!r}.")
    for option, name in (("--out", out), ("--sheet", sheet)):
        if name is None:
            continue
        if os.path.isdir(name) or (os.path.lexists(name) and not force):  # noqa: PTH112
            raise SettingsError(
                f"{name} exists. Choose another {option}, or overwrite it with --force."
            )
        if not Path(name).absolute().parent.is_dir():
            raise SettingsError(f"{option} must be in a folder that exists; got {name!r}.")
        check_writable(Path(name).absolute().parent, option)
    if ending in EXTRAS and find_spec(EXTRAS[ending][0]) is None:
        raise MissingExtraError(f"Writing {EXTRAS[ending][1]}", ending[1:])
    if ending == ".xlsx" and classes + FIXED_COLUMNS > EXCEL_COLUMNS:
        raise SettingsError(
            f"An .xlsx file has at most {EXCEL_COLUMNS:,} columns; the classifier has {classes:,} "
            "classes. Write .csv or .parquet."
        )


def load_image(source: str | bytes | DatasetRow) -> NDArray[np.uint8]:
    """Return the pixels of a file, or of a dataset's row, at about the size of a thumbnail."""
    from kindsight.images import read_image

    data = source if isinstance(source, (str, bytes)) else source.dataset.load(source.row)
    if not isinstance(data, (str, bytes)):
        return data
    return read_image(data, target=(THUMBNAIL, THUMBNAIL))


def least_confident_first(images: Sequence[PredictedImage]) -> list[PredictedImage]:
    """Return images by confidence, lowest first, and unreadable ones last."""

    def key(image: PredictedImage) -> tuple[bool, float]:
        confidence = image.prediction.confidence
        return confidence is None, confidence or 0.0

    return sorted(images, key=key)


def write_table(
    path: str, header: Sequence[str], rows: Iterator[Sequence[str | float | None]]
) -> None:
    """Write rows (path, label and more, then probabilities) in the format of the ending.

    Cells without a value are None. Texts are never formulas. Bytes that are not UTF-8 are escaped.
    """
    ending = Path(path).suffix.lower()
    with replacing(path) as temporary:
        if ending == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(csv_line(header))
                file.writelines(csv_line(row) for row in rows)
        elif ending == ".xlsx":
            _write_excel(temporary, header, rows)
        else:
            _write_parquet(temporary, header, rows)


def _write_excel(
    path: Path, header: Sequence[str], rows: Iterator[Sequence[str | float | None]]
) -> None:
    from xlsxwriter import Workbook

    with Workbook(os.fspath(path), {"constant_memory": True, "in_memory": False}) as book:
        bold, percent = book.add_format({"bold": True}), book.add_format({"num_format": "0.0%"})
        number = EXCEL_ROWS
        for row in rows:
            if number == EXCEL_ROWS:  # the next sheet
                sheet = book.add_worksheet()
                sheet.freeze_panes(1, 0)
                sheet.set_column(0, 0, 40)
                sheet.set_column(1, len(header) - 1, 14)
                for column, name in enumerate(header):
                    sheet.write_string(0, column, valid_text(name)[:EXCEL_CHARACTERS], bold)
                number = 1
            for column, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(number, column, valid_text(value)[:EXCEL_CHARACTERS])
                elif value is not None:
                    plain = header[column] == "ood_score" and column < FIXED_COLUMNS
                    sheet.write_number(number, column, value, None if plain else percent)
            number += 1


def _write_parquet(
    path: Path, header: Sequence[str], rows: Iterator[Sequence[str | float | None]]
) -> None:
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetWriter(path, to_arrow(header, []).schema) as writer:
        tables: list[Any] = []
        while block := list(islice(rows, ROWS)):
            tables.append(to_arrow(header, block))
            if sum(table.nbytes for table in tables) >= GROUP_BYTES:
                writer.write_table(pyarrow.concat_tables(tables))
                tables = []
        if tables:
            writer.write_table(pyarrow.concat_tables(tables))


def to_arrow(header: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> Any:
    """Return rows as an Arrow table: texts and float64, bytes that are not UTF-8 escaped."""
    import pyarrow

    kinds = [pyarrow.string() if kind is str else pyarrow.float64() for kind in types_of(header)]
    cells = [[valid_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    columns = zip(*cells, strict=True) if cells else [()] * len(kinds)
    arrays = [pyarrow.array(cell, kind) for cell, kind in zip(columns, kinds, strict=True)]
    # Lists, not a dictionary: two classes may have the same name after escaping.
    return pyarrow.Table.from_arrays(arrays, [valid_text(name) for name in header])


def write_sheet(path: str, images: Sequence[PredictedImage], bundle: str) -> None:
    """Write an HTML page of the least confident images, unreadable ones last."""
    from kindsight.report.gallery import thumbnail_uri
    from kindsight.report.sheets import SheetImage, render_sheet

    shown = []
    for image in least_confident_first(images)[:SHOWN]:
        prediction, uri = image.prediction, None
        if prediction.error is None:
            try:
                uri = thumbnail_uri(image.load(), THUMBNAIL)
            except ImageError:  # removed since it was predicted
                uri = None
        top = prediction.top(2)
        shown.append(
            SheetImage(
                prediction.path,
                uri,
                top,
                "" if prediction.error is None else prediction.error.reason,
                prediction.reason,
            )
        )
    confidences = [image.prediction.confidence for image in images]
    page = render_sheet(
        bundle, shown, [each for each in confidences if each is not None],
        unreadable=sum(each is None for each in confidences),
        undecided=sum(bool(image.prediction.reason) for image in images),
        created=time.strftime("%Y-%m-%d %H:%M"),
    )  # fmt: skip
    write_text(path, page)
