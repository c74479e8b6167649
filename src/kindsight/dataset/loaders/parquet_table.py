"""Parquet tables, read with PyArrow; only the columns that are used."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from kindsight.dataset.names import quoted
from kindsight.errors import DatasetError, MissingExtraError

__all__ = ["ParquetTable"]

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
