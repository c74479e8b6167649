"""Tables: a row a picture, given by its path or by its pixels."""

from __future__ import annotations

import os
import re

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.from_names import with_names
from kindsight.catalog.options import DataOptions
from kindsight.catalog.readers.columns import find_columns, pixel_columns
from kindsight.catalog.readers.csv_table import CsvTable
from kindsight.catalog.readers.endings import PARQUET_ENDINGS
from kindsight.catalog.readers.parquet_table import ParquetTable
from kindsight.catalog.readers.pixels import shape_of_row
from kindsight.catalog.readers.table_reader import TableReader
from kindsight.errors import CatalogError

__all__ = ["from_table"]

# A table of pixels may have a column of numbers that is called like one of paths.
_NUMBERS = ("id", "imageid", "imgid")


def from_table(
    path: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
) -> Catalog:
    """Make a catalog of a table: CSV with commas, semicolons, tabs or bars; or Parquet.

    A row is a picture. Either a column holds the pictures' paths, which start at the table's own
    folder, or there are columns of pixels, ``pixel1``, ``pixel2`` and so on: whole numbers 0-255,
    the rows of the picture one after the other; or a column ``pixels`` that holds all of them with
    blanks between. Pixels may be in text tables alone; without a line of names, the label comes
    first.

    Columns of paths, labels, splits and groups are found by their usual names, such as
    ``filename``, ``class``, ``subset`` and ``patient``, or called as `options` say.

    Parameters
    ----------
    path : str or Path
        The table.
    options : DataOptions, optional
        What the table does not say itself.
    labelled : bool
        Whether there must be a column of labels. Without it neither labels nor splits are read.

    Returns
    -------
    Catalog
        Rows in the table's order. Pictures given as pixels are called after their lines,
        ``train.csv:17``.

    Raises
    ------
    CatalogError
        Naming the rows that have no place in a table, such as paths that occur twice with
        different labels.
    MissingExtraError
        For Parquet where PyArrow is not installed.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(path)
    parquet = name.lower().endswith(PARQUET_ENDINGS)
    table: CsvTable | ParquetTable = ParquetTable(name) if parquet else CsvTable(name)
    if isinstance(table, CsvTable):
        table.unpack()
    found = find_columns(table.header, options.columns, table.where)
    pixels = None
    if isinstance(table, CsvTable) and "path" not in options.columns:
        pixels = _pixels(table, found, options)
    reader = TableReader(table, found, options, labelled)
    catalog = reader.of_pixels(*pixels) if pixels else reader.of_paths()
    return with_names(catalog, options, labelled=labelled)


def _pixels(
    table: CsvTable, found: dict[str, int], options: DataOptions
) -> tuple[list[int], bool] | None:
    """Find the pixels' columns, and whether the first line is one of names."""
    header = table.header
    numbers = [int(name) if name.isascii() and name.isdigit() else -1 for name in header]
    counted = numbers == list(range(len(header)))
    if len(header) > 1 and -1 not in numbers:
        # No names: the numbers of the first picture, or those of the columns.
        first = _label_comes_first(len(header), options.shape)
        if first and "label" not in found:
            found["label"] = 0
        return [k for k in range(len(header)) if k not in found.values()], counted
    taken = {kind: place for kind, place in found.items() if kind != "path"}
    columns = pixel_columns(header, list(taken.values()), table.where)
    if columns is None:
        return None
    name = header[found["path"]] if "path" in found else _NUMBERS[0]
    if re.sub(r"[\W_]+", "", name).casefold() not in _NUMBERS:
        return None
    return columns, True


def _label_comes_first(width: int, shape: tuple[int, ...] | None) -> bool:
    """Say whether a line of so many numbers is a label and pixels, or pixels alone."""
    try:
        shape_of_row(width, shape, "")
    except CatalogError:
        return True
    return False
