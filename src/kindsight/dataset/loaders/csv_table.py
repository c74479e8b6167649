"""Text tables in UTF-8, separated by commas, semicolons, tabs or bars.

Files are not trusted: the sizes of the file and of a line are limited.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kindsight.dataset.loaders.values import Faults
from kindsight.dataset.names import quoted
from kindsight.errors import DatasetError

__all__ = [
    "ARRAY_ENDINGS",
    "MAX_LINE_BYTES",
    "PARQUET_ENDINGS",
    "TEXT_ENDINGS",
    "CsvTable",
    "is_file_of_images",
    "opened",
]

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
        If it cannot be read, is empty, or its first line is not a header.
    """

    unit = "line"
    packed = False

    def __init__(self, path: str) -> None:
        self.path, self.where = path, quoted(os.path.basename(path))  # noqa: PTH119
        with opened(path) as file:
            line = file.readline(MAX_LINE_BYTES)
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line:
            raise DatasetError(f"{self.where} is not a text in UTF-8. Save it as CSV in UTF-8.")
        if len(line) >= MAX_LINE_BYTES:
            raise DatasetError(
                f"The first line of {self.where} is longer than {MAX_LINE_BYTES:,} bytes, the "
                "limit. Is it a table?"
            )
        text = re.split(
            "[\r\n]",
            line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape"),
            maxsplit=1,
        )[0]
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

    def unpack(self) -> None:
        """Split a column ``pixels`` into columns ``pixel0``, ``pixel1``, ...

        In tables such as FER-2013's, an image's pixels are in one cell, separated by blanks.
        """
        names = [name.casefold() for name in self.header]
        if "pixels" not in names:
            return
        column = names.index("pixels")
        with opened(self.path) as file:
            file.readline(MAX_LINE_BYTES)
            line = file.readline(MAX_LINE_BYTES).decode("utf-8", "surrogateescape")
        try:
            cells = next(csv.reader([line], delimiter=self.separator), [])
        except csv.Error as error:
            raise self._refused(2, error) from error
        numbers = cells[column].split() if column < len(cells) else []
        if len(numbers) > 1:
            pixels = [f"pixel{k}" for k in range(len(numbers))]
            self.header[column : column + 1] = pixels
            self.packed = True

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
        size = os.path.getsize(self.path)  # noqa: PTH202
        if size > MAX_TABLE_BYTES:
            raise DatasetError(
                f"{self.where} has {size:,} bytes; the limit for a table of paths is "
                f"{MAX_TABLE_BYTES:,}. Divide it into several tables."
            )
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

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with Path(self.path).open(
            encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True, strict=True)
            try:
                next(reader, None)
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise self._refused(reader.line_num, error) from error

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
