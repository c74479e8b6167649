"""Parquet tables, through PyArrow; read a column at a time, only those that mean something."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

from kindsight.catalog.names import shown
from kindsight.errors import CatalogError, MissingExtraError

__all__ = ["ParquetTable"]

MAX_ROWS = 10_000_000
MAX_COLUMN_BYTES = 1 << 30
"""The most bytes of one column, unpacked: 1 GiB."""

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
    CatalogError
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
            self._file = parquet.ParquetFile(path)
            self._schema = self._file.schema_arrow
        except Exception as error:  # PyArrow's own errors have no common root beside Exception
            raise self._refused(error) from error
        self.header = [str(name) for name in self._schema.names]
        if self._file.metadata.num_rows > MAX_ROWS:
            raise CatalogError(
                f"A table must have at most {MAX_ROWS:,} rows. Received: {self.where} with "
                f"{self._file.metadata.num_rows:,}. Part it."
            )

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
        CatalogError
            If a column holds anything else, such as the pictures themselves.
        """
        names = [self.header[place] for place in columns]
        self._check_types(names)
        self._check_sizes(set(names))
        try:
            # Equal texts are kept once, so that a small file cannot become a large table.
            file = self._parquet.ParquetFile(self.path, read_dictionary=names)
            cells = [_cells(file.read(columns=[name]).column(0)) for name in names]
        except Exception as error:
            raise self._refused(error) from error
        return list(range(1, self._file.metadata.num_rows + 1)), cells

    def _check_types(self, names: Sequence[str]) -> None:
        for name in names:
            kind = self._schema.field(name).type
            if not re.match(_TYPES, str(kind)):
                raise CatalogError(
                    f"A column of a table must hold texts or whole numbers. Received: "
                    f"{shown(name)} in {self.where}, of type {str(kind)[:80]}."
                )

    def _check_sizes(self, names: set[str]) -> None:
        size = dict.fromkeys(names, 0)
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(place)
                name = chunk.path_in_schema
                if name in size:
                    size[name] += chunk.total_uncompressed_size
        for name, total in size.items():
            if total > MAX_COLUMN_BYTES:
                raise CatalogError(
                    f"A column must have at most {MAX_COLUMN_BYTES:,} bytes. Received: "
                    f"{shown(name)} in {self.where} with {total:,}."
                )

    def _refused(self, error: Exception) -> CatalogError:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return CatalogError(
            f"A table with this ending must be a Parquet file. Received: {self.where} ({said})."
        )


def _cells(column: Any) -> list[str]:
    """Return the cells of a column, of whatever type, as texts."""
    cells: list[str] = []
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            texts = [_text(value) for value in chunk.dictionary.to_pylist()]
            cells.extend("" if k is None else texts[k] for k in chunk.indices.to_pylist())
        else:
            cells.extend(map(_text, chunk.to_pylist()))
    return cells


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
