"""From a table whose columns are known to a catalog."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kindsight.catalog.arrays import from_arrays
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.leave_out import leave_out
from kindsight.catalog.names import pictures, shown, shown_list
from kindsight.catalog.options import DataOptions
from kindsight.catalog.readers.csv_table import CsvTable
from kindsight.catalog.readers.faults import places
from kindsight.catalog.readers.parquet_table import ParquetTable
from kindsight.catalog.readers.path_rows import find_files, unlike_twins
from kindsight.catalog.readers.pixel_rows import read_pixel_rows
from kindsight.catalog.readers.pixels import SCALED, shape_of_row, with_shape
from kindsight.catalog.readers.values import EXCLUDED, name_labels, read_labels, read_splits
from kindsight.catalog.roles import UNLABELLED
from kindsight.catalog.spelling import check_spelling, class_order
from kindsight.errors import CatalogError

__all__ = ["TableReader"]

_HOW = "Say which one it is: --column {kind}=NAME, in Python columns={{'{kind}': 'NAME'}}."


# What is called otherwise may be something else: a "set", a "part".
_SURE = ("split", "subset")


class TableReader:
    """Makes a catalog of a table whose columns are known.

    Parameters
    ----------
    table : CsvTable or ParquetTable
        The table.
    found : mapping of str to int
        Kind -> place of a column.
    options : DataOptions
        What it does not say itself.
    labelled : bool
        Whether labels, splits and groups are wanted.
    """

    def __init__(
        self,
        table: CsvTable | ParquetTable,
        found: Mapping[str, int],
        options: DataOptions,
        labelled: bool,
    ) -> None:
        self._table, self._options, self._labelled = table, options, labelled
        self._where, self._found = table.where, found
        self._numbers: list[int] = []
        self._notes: list[str] = []

    def of_paths(self) -> Catalog:
        """Make it of paths."""
        if "path" not in self._found:
            raise self._missing("path", "or columns of pixels")
        kinds = ["path", *self._kinds()]
        self._numbers, columns = self._table.read([self._found[kind] for kind in kinds])
        cells = dict(zip(kinds, columns, strict=True))
        self._check_rows()
        root = Path(self._options.root or os.path.dirname(self._table.path)).absolute()  # noqa: PTH120
        unit = self._table.unit
        paths, sizes = find_files(cells.pop("path"), self._numbers, unit, self._where, root)
        catalog = self._catalog(cells, path=tuple(paths), size=tuple(sizes), root=root)
        known = {"label": catalog.label, "split": catalog.split, "group": catalog.group}
        again = unlike_twins(catalog.path, known, self._numbers, unit, self._where)
        return self._leave_out(catalog, again, "row that repeats another", "Repeating another row")

    def of_pixels(self, pixels: Sequence[int], heading: bool) -> Catalog:
        """Make it of pixels."""
        assert isinstance(self._table, CsvTable)
        kinds = self._kinds()
        others = [self._found[kind] for kind in kinds]
        rows = read_pixel_rows(self._table, pixels, others, heading=heading)
        self._numbers = rows.lines
        self._check_rows()
        if rows.fractions:
            self._notes.append(SCALED.format(where=self._where))
        shape = shape_of_row(len(pixels), self._options.shape, self._where)
        held = from_arrays([one for block in rows.pixels for one in with_shape(block, shape)])
        name = self._table.path.replace(os.sep, "/")
        return self._catalog(
            dict(zip(kinds, rows.cells, strict=True)),
            path=tuple(f"{name}:{number}" for number in self._numbers),
            size=held.size,
            arrays=held.arrays,
        )

    def _kinds(self) -> list[str]:
        """Return the kinds of columns, beside paths and pixels, that are wanted and there."""
        if not self._labelled:
            return []
        wanted = ("split", "group") if self._options.label_from else ("label", "split", "group")
        if "label" in wanted and "label" not in self._found:
            raise self._missing("label", "")
        return [kind for kind in wanted if kind in self._found]

    def _missing(self, kind: str, beside: str) -> CatalogError:
        there = shown_list(tuple(self._table.header))
        columns = f"a column of {kind}s {beside}".strip()
        return CatalogError(
            f"A table must have {columns}. Received: {self._where} with the columns {there}. "
            + _HOW.format(kind=kind)
        )

    def _check_rows(self) -> None:
        if not self._numbers:
            raise CatalogError(
                f"A table must have a row for each picture. Received: {self._where}, without any."
            )

    def _place(self, row: int) -> str:
        return places(self._table.unit, [self._numbers[row]])

    def _catalog(self, cells: Mapping[str, list[str]], **columns: Any) -> Catalog:
        """Put labels, splits and groups beside the pictures; leave out what has no label."""
        if "label" in cells:
            labels = name_labels(
                read_labels(cells["label"]), self._options.label_names, self._place
            )
            check_spelling(labels, self._place)
            columns["label"] = tuple(labels)
        splits = None
        if "split" in cells:
            name = self._table.header[self._found["split"]]
            named = "split" in self._options.columns or name.casefold() in _SURE
            args = (self._numbers, self._table.unit, self._where)
            splits = read_splits(cells["split"], *args, named=named)
            if splits is None:
                self._notes.append(f"The column {shown(name)} names no parts, and is not used.")
        if splits is not None:
            columns["split"] = tuple(None if s in (UNLABELLED, EXCLUDED) else s for s in splits)
        if "group" in cells:
            columns["group"] = tuple(cell.strip() or None for cell in cells["group"])
            name = shown(self._table.header[self._found["group"]])
            if any(columns["group"]):
                self._notes.append(f"Pictures of one group, the column {name}, stay together.")
        catalog = Catalog(**columns).with_notes(*self._notes)
        for role, reason, what in (
            (UNLABELLED, "row to be predicted", "To be predicted"),
            (EXCLUDED, "row that is excluded", "Excluded by the table"),
        ):
            out = [row for row, split in enumerate(splits or ()) if split == role]
            catalog = self._leave_out(catalog, out, reason, what)
            splits = [split for split in splits or () if split != role]
        if "label" in cells:
            empty = [row for row, label in enumerate(catalog.label) if label is None]
            catalog = self._leave_out(catalog, empty, "row without a label", "Without a label")
        return replace(catalog, classes=class_order(catalog.label))

    def _leave_out(self, catalog: Catalog, rows: Sequence[int], reason: str, what: str) -> Catalog:
        """Return the other rows, with a note; the numbers of the rows go with them."""
        if not rows:
            return catalog
        said = places(self._table.unit, [self._numbers[row] for row in rows])
        left = set(rows)
        kept = [row for row in range(len(catalog)) if row not in left]
        self._numbers = [self._numbers[row] for row in kept]
        note = f"{what}, and so left out: {pictures(len(rows))} of {self._where}, {said}."
        return leave_out(catalog, rows, reason, note)
