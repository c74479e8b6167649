"""Text tables, separated by commas, semicolons, tabs or bars, and Parquet tables.

Files are not trusted: the sizes of the file and of a line are limited.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from kindsight.dataset.loaders.values import Faults
from kindsight.dataset.names import quoted
from kindsight.encoding import decode_text, invalid_line, not_decoded, text_encoding
from kindsight.errors import DatasetError, MissingExtraError

__all__ = [
    "ARRAY_ENDINGS", "MAX_LINE_BYTES", "PARQUET_ENDINGS", "CsvTable", "ParquetTable",
    "is_file_of_images", "opened",
]  # fmt: skip

MAX_LINE_BYTES = 1 << 24
MAX_COLUMNS = 1_000_000
MAX_TABLE_BYTES = 1 << 29
"""The most bytes of a table of paths: 512 MiB, some millions of rows."""

_SEPARATORS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')


class CsvTable:
    """A text table whose header has been read.

    Parameters
    ----------
    path : str
        The file.
    encoding : str, optional
        Its encoding; UTF-8, or UTF-16 with a byte order mark, by default. ``""`` is the same, but
        no message suggests `encoding`.

    Attributes
    ----------
    header : list of str
        Column names, stripped.
    separator : str
        The separator between cells.
    where : str
        The file's name, for messages.
    packed : bool
        Whether all pixels are in one column, separated by blanks; see :meth:`unpack`.

    Raises
    ------
    DatasetError
        If it cannot be read, is empty, has another encoding, or its first line is not a header.
    """

    unit = "line"
    packed = False

    def __init__(self, path: str, encoding: str | None = None) -> None:
        self.path, self.where = path, quoted(os.path.basename(path))  # noqa: PTH119
        self._given = encoding
        with opened(path) as file:
            self._start = file.readline(MAX_LINE_BYTES)
        self._encoding = text_encoding(self._start, encoding or None)
        with self.open_utf8() as file:
            line = file.readline(MAX_LINE_BYTES)
        if len(line) >= MAX_LINE_BYTES:
            raise DatasetError(
                f"The first line of {self.where} is longer than {MAX_LINE_BYTES:,} bytes, the "
                "limit. Is it a table?"
            )
        if wrong := invalid_line([line]):
            raise self.not_utf8(wrong)
        text = re.split("[\r\n]", line.decode(), maxsplit=1)[0]
        if not text.strip():
            raise DatasetError(
                f"The first line of {self.where} is empty; it must contain the names of the "
                f"columns."
            )
        bare = _QUOTED.sub("", text)
        self.separator = max(_SEPARATORS, key=bare.count)
        reader = csv.reader([text], delimiter=self.separator, skipinitialspace=True)
        try:
            self.header = [name.strip() for name in next(reader)]
        except csv.Error as error:
            raise self._refused(1, error) from error
        if len(self.header) > MAX_COLUMNS:
            raise DatasetError(
                f"{self.where} has {len(self.header):,} columns; the limit is {MAX_COLUMNS:,}."
            )

    def open_utf8(self) -> BinaryIO:
        """Open the file for reading its text as UTF-8, without a byte order mark."""
        file = opened(self.path)
        if self._encoding == "utf-8-sig":
            if file.read(3) != codecs.BOM_UTF8:
                file.seek(0)
            return file
        with file:
            self._check_size()
            text, wrong = decode_text(file.read(), self._encoding) if self._encoding else ("", 1)
        if wrong:
            raise self.not_utf8(wrong)
        return io.BytesIO(text.encode())

    def not_utf8(self, line: int) -> DatasetError:
        """Return the error for a line that is not in the table's encoding."""
        return not_decoded(line, self.where, self._given, self._start)

    def unpack(self) -> None:
        """Split a column ``pixels`` into columns ``pixel0``, ``pixel1``, ...

        In tables such as FER-2013's, an image's pixels are in one cell, separated by blanks.
        """
        names = [name.casefold() for name in self.header]
        if "pixels" not in names:
            return
        column = names.index("pixels")
        with self.open_utf8() as file:
            file.readline(MAX_LINE_BYTES)
            line = file.readline(MAX_LINE_BYTES).decode("utf-8", "replace")
        try:
            cells = next(csv.reader([line], delimiter=self.separator), [])
        except csv.Error as error:
            raise self._refused(2, error) from error
        numbers = cells[column].split() if column < len(cells) else []
        if len(numbers) > 1:
            pixels = [f"pixel{k}" for k in range(len(numbers))]
            self.header[column : column + 1] = pixels
            self.packed = True

    def has_text(self, column: int) -> bool:
        """Return True: every column can be read as text."""
        return True

    def read(self, columns: Sequence[int]) -> tuple[list[int], list[list[str]]]:
        """Read some columns, ignoring blank lines.

        - `columns`: indices in the header.

        Returns
        -------
        list of int
            The line number on which each row ends, from 1.
        list of list of str
            The cells of each column, stripped unless quoted.

        Raises
        ------
        DatasetError
            If lines have more or fewer cells than the header; the message names them.
        """
        self._check_size()
        faults, width = Faults(self.unit), len(self.header)
        lines: list[int] = []
        cells: list[list[str]] = [[] for _ in columns]
        for line, row in self._rows():
            if not any(row):
                continue
            if len(row) < width or any(row[width:]):
                rule = f"Every line of {self.where} must have {width:,} cells, like the first line."
                faults.add(rule, line, f"{len(row):,} cells")
                continue
            lines.append(line)
            for column, index in zip(cells, columns, strict=True):
                column.append(row[index])
        faults.check()
        return lines, cells

    def _check_size(self) -> None:
        size = os.path.getsize(self.path)  # noqa: PTH202
        if size > MAX_TABLE_BYTES:
            raise DatasetError(
                f"{self.where} has {size:,} bytes; the limit for a table of paths is "
                f"{MAX_TABLE_BYTES:,}. Divide it into several tables."
            )

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with io.TextIOWrapper(self.open_utf8(), encoding="utf-8", newline="") as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True, strict=True)
            try:
                next(reader, None)
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise self._refused(reader.line_num, error) from error
            except UnicodeDecodeError:
                with self.open_utf8() as lines:
                    raise self.not_utf8(invalid_line(lines)) from None

    def _refused(self, line: int, error: Exception) -> DatasetError:
        return DatasetError(
            f"Line {line:,} of {self.where} cannot be separated into cells: {error}. Is a "
            "quotation mark missing?"
        )


def opened(path: str) -> BinaryIO:
    """Open a file for reading bytes; DatasetError if that fails."""
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DatasetError(f"Could not read {quoted(path)}: {reason}.") from None


TEXT_ENDINGS = (".csv", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")
ARRAY_ENDINGS = (".npz", ".npy")


def is_file_of_images(path: str | os.PathLike[str]) -> bool:
    """Return whether a path ends like that of a table or of arrays."""
    return os.fspath(path).lower().endswith(TEXT_ENDINGS + PARQUET_ENDINGS + ARRAY_ENDINGS)


MAX_ROWS = 10_000_000
MAX_BYTES = 1 << 30
"""Limit of the unpacked size of the columns that are read: 1 GiB."""

_BATCH = 1 << 16  # rows

_TYPES = r"(large_)?(string|utf8|binary)|u?int\d|bool|halffloat|float|double|dictionary|null"
_LIST = rf"(large_)?list<\w+: (?!dictionary)({_TYPES})"


class ParquetTable:
    """A Parquet file whose column names have been read.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    header : list of str
        Column names.
    where : str
        The file's name, for messages.

    Raises
    ------
    MissingExtraError
        If PyArrow is not installed.
    DatasetError
        If the file is not Parquet, or too large.
    """

    unit = "row"

    def __init__(self, path: str) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise MissingExtraError("Reading Parquet", "parquet") from None
        self._parquet = parquet
        self.path, self.where = path, quoted(os.path.basename(path))  # noqa: PTH119
        try:
            self._schema = parquet.ParquetFile(path).schema_arrow
            self.header = [str(name) for name in self._schema.names]
        except Exception as error:  # PyArrow's errors have no other common base
            raise self._refused(error) from error

    def has_text(self, column: int) -> bool:
        """Return whether a column can be read as text."""
        return re.match(_TYPES, str(self._schema.field(column).type)) is not None

    def read(self, columns: Sequence[int]) -> tuple[list[int], list[list[str]]]:
        """Read some columns as text.

        - `columns`: indices in the header.

        Returns
        -------
        list of int
            Row numbers, from 1.
        list of list of str
            The cells of each column: whole numbers as digits, null and NaN as an empty text, lists
            as JSON.

        Raises
        ------
        DatasetError
            If a column has another type, such as the images themselves.
        """
        names = [self.header[index] for index in columns]
        try:
            self._check_types(names)
            cells = self._cells(names)
        except DatasetError:
            raise
        except Exception as error:
            raise self._refused(error) from error
        return list(range(1, len(cells[0]) + 1)), cells

    def _cells(self, names: Sequence[str]) -> list[list[str]]:
        """Read in batches, because the size stated in the file is not trusted."""
        # As a dictionary, equal texts are stored once: a small file cannot become a large table.
        plain = [name for name in names if self.has_text(self.header.index(name))]
        file = self._parquet.ParquetFile(self.path, read_dictionary=plain)
        cells: list[list[str]] = [[] for _ in names]
        size = 0
        for batch in file.iter_batches(_BATCH, columns=list(dict.fromkeys(names))):
            size += batch.nbytes
            if size > MAX_BYTES or len(cells[0]) + len(batch) > MAX_ROWS:
                raise DatasetError(
                    f"{self.where} is too large: the limit is {MAX_ROWS:,} rows and "
                    f"{MAX_BYTES:,} bytes. Divide it into several tables."
                )
            for column, name in zip(cells, names, strict=True):
                column.extend(_texts(batch.column(name)))
        return cells

    def _check_types(self, names: Sequence[str]) -> None:
        for name in names:
            kind = self._schema.field(name).type
            if not re.match(f"{_TYPES}|{_LIST}", str(kind)):
                raise DatasetError(
                    f"The column {quoted(name)} in {self.where} has the type "
                    f"{quoted(str(kind)[:80])[1:-1]}; it must contain texts or whole numbers."
                )

    def _refused(self, error: Exception) -> DatasetError:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return DatasetError(f"{self.where} cannot be read as a Parquet file: {quoted(text)[1:-1]}.")


def _texts(column: Any) -> list[str]:
    """Return the cells of a column as texts."""
    if hasattr(column, "dictionary"):
        texts = [_text(value) for value in column.dictionary.to_pylist()]
        return ["" if k is None else texts[k] for k in column.indices.to_pylist()]
    return [_text(value) for value in column.to_pylist()]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, list):
        return json.dumps([_text(item) for item in value])
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
