"""Parquet tables, through PyArrow; read a column at a time, only those that mean something."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

from kindsight.dataset.names import shown
from kindsight.errors import DatasetError, MissingExtraError

__all__ = ["ParquetTable"]

MAX_ROWS = 10_000_000
MAX_BYTES = 1 << 30
"""The most bytes of the columns that are read, unpacked: 1 GiB."""

_BATCH = 1 << 16  # rows

_TYPES = r"(large_)?(string|utf8|binary)|u?int\d|bool|halffloat|float|double|dictionary|null"


class ParquetTable:
    """A Parquet file, of which the columns' names have been read.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    header : list of str
        The columns' names.
    where : str
        The file's name, for messages.

    Raises
    ------
    MissingExtraError
        If PyArrow is not installed.
    DatasetError
        If the file is no Parquet, or too large.
    """

    unit = "row"

    def __init__(self, path: str) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise MissingExtraError("Reading Parquet", "parquet") from None
        self._parquet = parquet
        self.path, self.where = path, shown(os.path.basename(path))  # noqa: PTH119
        try:
            self._schema = parquet.ParquetFile(path).schema_arrow
            self.header = [str(name) for name in self._schema.names]
        except Exception as error:  # PyArrow's own errors have no common root beside Exception
            raise self._refused(error) from error

    def read(self, columns: Sequence[int]) -> tuple[list[int], list[list[str]]]:
        """Read some columns as text.

        Parameters
        ----------
        columns : sequence of int
            Places in the header.

        Returns
        -------
        list of int
            The rows' numbers, counted from 1.
        list of list of str
            The cells of each column: texts as they are, whole numbers as their digits, nothing
            and not-a-number as an empty text.

        Raises
        ------
        DatasetError
            If a column holds anything else, such as the images themselves.
        """
        names = [self.header[place] for place in columns]
        try:
            self._check_types(names)
            cells = self._cells(names)
        except DatasetError:
            raise
        except Exception as error:
            raise self._refused(error) from error
        return list(range(1, len(cells[0]) + 1)), cells

    def _cells(self, names: Sequence[str]) -> list[list[str]]:
        """Read some rows at a time: what a file says of its own size need not be true."""
        # Equal texts are kept once, so that a small file cannot become a large table.
        file = self._parquet.ParquetFile(self.path, read_dictionary=names)
        cells: list[list[str]] = [[] for _ in names]
        size = 0
        for batch in file.iter_batches(_BATCH, columns=list(dict.fromkeys(names))):
            size += batch.nbytes
            if size > MAX_BYTES or len(cells[0]) + len(batch) > MAX_ROWS:
                raise DatasetError(
                    f"A table must have at most {MAX_ROWS:,} rows, of {MAX_BYTES:,} bytes in all. "
                    f"Received: {self.where} with more. Part it."
                )
            for column, name in zip(cells, names, strict=True):
                column.extend(_texts(batch.column(name)))
        return cells

    def _check_types(self, names: Sequence[str]) -> None:
        for name in names:
            kind = self._schema.field(name).type
            if not re.match(_TYPES, str(kind)):
                raise DatasetError(
                    f"A column of a table must hold texts or whole numbers. Received: "
                    f"{shown(name)} in {self.where}, of type {shown(str(kind)[:80])[1:-1]}."
                )

    def _refused(self, error: Exception) -> DatasetError:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        said = shown(text)[1:-1]
        return DatasetError(
            f"A table with this ending must be a Parquet file. Received: {self.where} ({said})."
        )


def _texts(column: Any) -> list[str]:
    """Return the cells of a column, of whatever type, as texts."""
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
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
