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
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.base import BLOCK
from kindsight.dataset.columns.build import ColumnBuilder
from kindsight.dataset.loaders.values import Faults
from kindsight.dataset.names import quoted
from kindsight.encoding import decode_text, invalid_line, not_decoded, text_encoding
from kindsight.errors import DatasetError, KindsightError, MissingExtraError
from kindsight.storage.address import base_name, is_address, join, parent, scheme_of, undirected
from kindsight.storage.files import LocalCopy, names_in, open_source, sizes

__all__ = [
    "ARRAY_ENDINGS", "MAX_LINE_BYTES", "PARQUET_ENDINGS", "CsvTable", "ParquetTable",
    "is_file_of_images", "is_shards", "opened", "parquet_parts",
]  # fmt: skip

MAX_LINE_BYTES = 1 << 24
MAX_COLUMNS = 1_000_000
MAX_TABLE_BYTES = 1 << 32
"""Limit of the bytes of a table of paths: 4 GiB, some tens of millions of rows."""
MAX_DECODED_BYTES = 1 << 29
"""Limit of the bytes of a table in another encoding than UTF-8, which is decoded as a whole."""

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
    folder : str
        The folder that contains the file.
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
        self.path, self.where = path, quoted(base_name(path))
        self.folder = parent(path)
        self._given = encoding
        self._copy = LocalCopy(path)
        with opened(self._copy.path) as file:
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
        file = opened(self._copy.path)
        if self._encoding == "utf-8-sig":
            if file.read(3) != codecs.BOM_UTF8:
                file.seek(0)
            return file
        with file:
            self._check_size(MAX_DECODED_BYTES)
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

    def read(self, columns: Sequence[int]) -> tuple[NDArray[np.int64], list[Sequence[str]]]:
        """Read some columns, ignoring blank lines.

        - `columns`: indices in the header.

        Returns
        -------
        int64 array
            The line number on which each row ends, from 1.
        list of sequence of str
            The cells of each column, stripped unless quoted.

        Raises
        ------
        DatasetError
            If lines have more or fewer cells than the header; the message names them.
        """
        self._check_size(MAX_TABLE_BYTES)
        faults, width = Faults(self.unit), len(self.header)
        lines = array("q")
        cells: list[list[str]] = [[] for _ in columns]
        builders = [ColumnBuilder() for _ in columns]
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
            if len(lines) % BLOCK == 0:
                _flush(cells, builders)
        faults.check()
        _flush(cells, builders)
        return np.array(lines, np.int64), [builder.finish() for builder in builders]

    def _check_size(self, limit: int) -> None:
        size = os.path.getsize(self._copy.path)  # noqa: PTH202
        if size > limit:
            raise DatasetError(
                f"{self.where} has {size:,} bytes; the limit for a table of paths is "
                f"{limit:,}. Convert it to Parquet, which is smaller, or split it into several "
                "tables."
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
    name = undirected(os.fspath(path))
    return name.lower().endswith(TEXT_ENDINGS + PARQUET_ENDINGS + ARRAY_ENDINGS)


def is_shards(name: str) -> bool:
    """Return whether a name is that of a tar file, or of several: ``train-{000..099}.tar``."""
    return undirected(name).lower().endswith(".tar")


MAX_ROWS = 200_000_000
MIN_BYTES, MAX_BYTES = 1 << 30, 1 << 34
MAX_RATIO = 64
"""Limit of the memory of the columns that are read: 64 times the size of the file, but at least 1
GiB and at most 16 GiB, so that a small file cannot become a huge table."""

_BATCH = 1 << 16  # rows

_TYPES = r"(large_)?(string|utf8|binary)|u?int\d|bool|halffloat|float|double|dictionary|null"
_LIST = rf"(large_)?list<\w+: (?!dictionary)({_TYPES})"


def parquet_parts(folder: str) -> list[str]:
    """Return the Parquet files of a folder that is one table in parts; empty for another folder.

    All its files are Parquet, except hidden ones and those that start with ``_``, such as
    ``_SUCCESS``; it has no subfolders; and the names of the files differ in numbers only.
    """
    if is_address(folder) and (is_file_of_images(folder) or scheme_of(folder) in ("http", "https")):
        return []
    try:
        names = [name for name in names_in(folder) if not name.startswith((".", "_"))]
    except (OSError, ValueError):
        return []
    if not names or not all(name.lower().endswith(PARQUET_ENDINGS) for name in names):
        return []
    patterns = {_NUMBERS.sub("0", name) for name in names}
    named = _PART.match(names[0]) is not None
    if not (named or (len(names) > 1 and len(patterns) == 1)) or len({n[:4] for n in names}) > 1:
        return []
    return [join(folder, name) for name in names]


_NUMBERS = re.compile(r"\d+")
_PART = re.compile(r"part[-_. ]?\d", re.I)


class ParquetTable:
    """A Parquet file, or a folder of Parquet files, whose column names have been read.

    Parameters
    ----------
    path : str
        The file, or the folder of :func:`parquet_parts`.

    Attributes
    ----------
    header : list of str
        Column names.
    where : str
        The file's or folder's name, for messages.
    folder : str
        The folder that contains the file or files.

    Raises
    ------
    MissingExtraError
        If PyArrow is not installed.
    DatasetError
        If a file is not Parquet, or the files have different columns.
    """

    unit = "row"

    def __init__(self, path: str) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise MissingExtraError("Reading Parquet", "parquet") from None
        self._parquet = parquet
        self.path, self.where = path, quoted(base_name(path))
        self._parts = parquet_parts(path) or [path]
        self.folder = path if self._parts != [path] else parent(path)
        try:
            self._schema = self._open(self._parts[0]).schema_arrow
            self.header = [str(name) for name in self._schema.names]
        except KindsightError:
            raise
        except Exception as error:  # PyArrow's errors have no other common base
            raise self._refused(error) from error

    def _open(self, part: str, **options: Any) -> Any:
        """Return a part as PyArrow opens it."""
        return self._parquet.ParquetFile(open_source(part), **options)

    def has_text(self, column: int) -> bool:
        """Return whether a column can be read as text."""
        return re.match(_TYPES, str(self._schema.field(column).type)) is not None

    def read(self, columns: Sequence[int]) -> tuple[NDArray[np.int64], list[Sequence[str]]]:
        """Read some columns as text.

        - `columns`: indices in the header.

        Returns
        -------
        int64 array
            Row numbers, from 1; over all parts.
        list of sequence of str
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
        except KindsightError:
            raise
        except Exception as error:
            raise self._refused(error) from error
        return np.arange(1, len(cells[0]) + 1), cells

    def _cells(self, names: Sequence[str]) -> list[Sequence[str]]:
        """Read in batches, because the size stated in the file is not trusted."""
        # As a dictionary, equal texts are stored once: a small file cannot become a large table.
        plain = [name for name in names if self.has_text(self.header.index(name))]
        builders = {name: ColumnBuilder() for name in names}
        limit = min(max(MIN_BYTES, MAX_RATIO * sum(map(_size, self._parts))), MAX_BYTES)
        rows = 0
        for part in self._parts:
            if [str(name) for name in self._open(part).schema_arrow.names] != self.header:
                raise DatasetError(
                    f"The files in {self.where} must have the same columns; those of "
                    f"{quoted(base_name(part))} differ from the first file's."
                )
            file = self._open(part, read_dictionary=plain)
            for batch in file.iter_batches(_BATCH, columns=list(builders)):
                rows += len(batch)
                left = limit - sum(builder.nbytes for builder in builders.values())
                for name, builder in builders.items():
                    left -= _add_cells(builder, batch.column(name), left)
                if left < 0 or rows > MAX_ROWS:
                    raise DatasetError(
                        f"{self.where} is too large: the limit is {MAX_ROWS:,} rows and "
                        f"{limit:,} bytes. Split it into several tables."
                    )
        cells = {name: builder.finish() for name, builder in builders.items()}
        return [cells[name] for name in names]

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


def _size(part: str) -> int:
    """Return the bytes of a file."""
    return (sizes([part])[0] or 0) if is_address(part) else os.path.getsize(part)  # noqa: PTH202


def _flush(cells: Sequence[list[str]], builders: Sequence[ColumnBuilder]) -> None:
    """Move the cells of each column to its builder."""
    for column, builder in zip(cells, builders, strict=True):
        builder.add(column)
        column.clear()


def _add_cells(builder: ColumnBuilder, column: Any, limit: int) -> int:
    """Add the cells of a batch as texts, unless they take more bytes than `limit`."""
    if not hasattr(column, "dictionary"):
        if str(column.type).startswith(("list", "large_list")):
            before = builder.nbytes
            builder.add([_text(value) for value in column.to_pylist()])
            return builder.nbytes - before
        column = column.dictionary_encode()
    indices = column.indices.cast("int64").fill_null(len(column.dictionary)).to_numpy()
    # Only these entries of the dictionary are converted: many batches may share it.
    used, indices = np.unique(indices, return_inverse=True)
    there = used[used < len(column.dictionary)]
    names = [_text(value) for value in column.dictionary.take(there).to_pylist()]
    return builder.add_coded([*names, *[""] * (len(used) - len(there))], indices, limit)


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
