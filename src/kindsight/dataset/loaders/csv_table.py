"""Text tables: commas, semicolons, tabs or bars between the cells; UTF-8, with or without a mark.

What a file holds is not trusted: its size is bounded, and so is that of a line.
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
from kindsight.dataset.names import shown
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
    """A text table, of which the heading line has been read.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    header : list of str
        The columns' names, without blanks around them.
    separator : str
        What stands between cells.
    where : str
        The file's name, for messages.
    packed : bool
        Whether all pixels stood in one column, with blanks between them; see :meth:`unpack`.

    Raises
    ------
    DatasetError
        If it cannot be read, is empty, or its first line cannot be a heading line.
    """

    unit = "line"
    packed = False

    def __init__(self, path: str) -> None:
        self.path, self.where = path, shown(os.path.basename(path))  # noqa: PTH119
        with opened(path) as file:
            line = file.readline(MAX_LINE_BYTES)
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line:
            raise DatasetError(
                f"A table must be a text in UTF-8. Received: {self.where}, which is none. Save it "
                "as CSV in UTF-8."
            )
        if len(line) >= MAX_LINE_BYTES:
            raise DatasetError(
                f"A line of a table must be shorter than {MAX_LINE_BYTES:,} bytes. Received: "
                f"{self.where}, whose first line is not. Is it a table?"
            )
        text = re.split(
            "[\r\n]",
            line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape"),
            maxsplit=1,
        )[0]
        if not text.strip():
            raise DatasetError(
                f"A table must begin with its columns' names. Received: {self.where}, whose first "
                "line is empty."
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
                f"A table must have at most {MAX_COLUMNS:,} columns. Received: {self.where} with "
                f"{len(self.header):,}."
            )

    def unpack(self) -> None:
        """Count the numbers in a column ``pixels`` as columns of their own: ``pixel0``, ...

        So have it tables such as that of the faces of FER-2013: an image's pixels stand in one
        cell, with blanks between them.
        """
        names = [name.casefold() for name in self.header]
        if "pixels" not in names:
            return
        place = names.index("pixels")
        with opened(self.path) as file:
            file.readline(MAX_LINE_BYTES)
            line = file.readline(MAX_LINE_BYTES).decode("utf-8", "surrogateescape")
        try:
            cells = next(csv.reader([line], delimiter=self.separator), [])
        except csv.Error as error:
            raise self._refused(2, error) from error
        numbers = cells[place].split() if place < len(cells) else []
        if len(numbers) > 1:
            pixels = [f"pixel{k}" for k in range(len(numbers))]
            self.header[place : place + 1] = pixels
            self.packed = True

    def read(self, columns: Sequence[int]) -> tuple[list[int], list[list[str]]]:
        """Read some columns; blank lines are left out.

        Parameters
        ----------
        columns : sequence of int
            Places in the header.

        Returns
        -------
        list of int
            The number of the line on which each row ends, counted from 1.
        list of list of str
            The cells of each column, without blanks around them where they are not quoted.

        Raises
        ------
        DatasetError
            Naming the lines that have more or fewer cells than the heading line.
        """
        size = os.path.getsize(self.path)  # noqa: PTH202
        if size > MAX_TABLE_BYTES:
            raise DatasetError(
                f"A table of paths must have at most {MAX_TABLE_BYTES:,} bytes. Received: "
                f"{self.where} with {size:,}. Part it."
            )
        faults, width = Faults(self.unit), len(self.header)
        lines: list[int] = []
        cells: list[list[str]] = [[] for _ in columns]
        for line, row in self._rows():
            if not any(row):
                continue
            if len(row) < width or any(row[width:]):
                rule = f"Every line of {self.where} must have {width:,} cells, as its first has."
                faults.add(rule, line, f"{len(row):,} cells")
                continue
            lines.append(line)
            for column, place in zip(cells, columns, strict=True):
                column.append(row[place])
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
            f"A table must have cells that can be told apart. Received: {self.where}, line "
            f"{line:,}: {error}. Is a quotation mark left open?"
        )


def opened(path: str) -> BinaryIO:
    """Open a file for reading bytes; DatasetError where that cannot be."""
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise DatasetError(
            f"Data must be a file that can be read. Received: {shown(path)} ({said})."
        ) from None


# SECTION: By which ending of its name a file is taken to hold many images.

TEXT_ENDINGS = (".csv", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")
ARRAY_ENDINGS = (".npz", ".npy")


def is_file_of_images(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is that of a table or of arrays, by its ending."""
    return os.fspath(path).lower().endswith(TEXT_ENDINGS + PARQUET_ENDINGS + ARRAY_ENDINGS)
