"""Build a dataset from a table whose columns are known."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kindsight.dataset.labels import check_label_typos, class_order
from kindsight.dataset.loaders.arrays import from_arrays
from kindsight.dataset.loaders.csv_table import CsvTable
from kindsight.dataset.loaders.from_names import UNLABELLED
from kindsight.dataset.loaders.parquet_table import ParquetTable
from kindsight.dataset.loaders.pixel_rows import read_pixel_rows
from kindsight.dataset.loaders.pixels import SCALED, shape_of_row, with_shape
from kindsight.dataset.loaders.values import (
    EXCLUDED,
    Faults,
    name_labels,
    read_labels,
    read_splits,
    row_numbers,
)
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.errors import DatasetError

__all__ = ["TableReader"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def _find_files(
    cells: Sequence[str], numbers: Sequence[int], unit: str, where: str, root: Path
) -> tuple[list[str], list[int]]:
    r"""Return paths with ``/`` and their sizes in bytes, 0 for missing files.

    Paths may be absolute or lead out of `root`. If all use ``\`` only, they are Windows paths.
    """
    faults = Faults(unit)
    for cell, number in zip(cells, numbers, strict=True):
        if not cell:
            faults.add(f"Every row of {where} must have a path.", number, "an empty cell")
        elif _URL.match(cell):
            rule = f"The paths in {where} must be files, not URLs."
            faults.add(rule, number, quoted(cell[:60]), "Download the images first.")
    faults.check()
    start = os.path.join(root, "")  # noqa: PTH118
    windows = os.sep == "\\" or _from_windows(cells, start)
    paths = [cell.replace("\\", "/") for cell in cells] if windows else list(cells)
    sizes = [_size(os.path.join(start, path)) for path in paths]  # noqa: PTH118
    if paths and not any(size is not None for size in sizes):
        raise DatasetError(
            f"None of the files in {where} exists; the first is {quoted(paths[0])} in "
            f"{quoted(str(root))}. If the paths are relative to another folder, give it: "
            '`root="FOLDER"`.'
        )
    return paths, [size or 0 for size in sizes]


def _from_windows(cells: Sequence[str], start: str) -> bool:
    """Return whether paths were written on Windows, with backslashes."""
    if any("/" in cell for cell in cells):
        return False
    with_backslash = [cell for cell in cells if "\\" in cell]
    return bool(with_backslash) and all(_size(start + cell) is None for cell in with_backslash)


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size  # noqa: PTH116 (called once an image; Path is slower)
    except (OSError, ValueError):
        return None


def _repeated_rows(
    paths: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
    numbers: Sequence[int],
    unit: str,
    where: str,
) -> list[int]:
    """Return the rows that repeat an earlier path; DatasetError if they contradict it."""
    first: dict[str, int] = {}
    again = []
    faults = Faults(unit)
    for row, path in enumerate(paths):
        plain = os.path.normpath(path) if "./" in path or "//" in path else path
        earlier = first.setdefault(plain, row)
        if earlier == row:
            continue
        again.append(row)
        for kind, cells in columns.items():
            if cells[row] != cells[earlier]:
                rule = f"An image in {where} must have only one {kind}."
                said = (
                    f"{quoted(path)} is {quoted(cells[row] or '')}, and "
                    f"{quoted(cells[earlier] or '')} in {row_numbers(unit, [numbers[earlier]])}"
                )
                faults.add(rule, numbers[row], said)
    faults.check()
    return again


_COLUMN_HINT = 'Name it: `columns={{"{kind}": "NAME"}}`.'


# Names of columns that certainly contain splits; others ("set", "part") may not.
_SPLIT_NAMES = ("split", "subset")


class TableReader:
    """Builds a dataset from a table whose columns are known.

    Parameters
    ----------
    table : CsvTable or ParquetTable
        The table.
    found : mapping of str to int
        Kind -> index of a column.
    options : DataOptions
        Describes what the table does not.
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

    def of_paths(self) -> ImageDataset:
        """Build it from a column of paths."""
        if "path" not in self._found:
            raise self._missing("path", "or columns of pixels")
        kinds = ["path", *self._kinds()]
        self._numbers, columns = self._table.read([self._found[kind] for kind in kinds])
        cells = dict(zip(kinds, columns, strict=True))
        self._check_rows()
        root = Path(self._options.root or os.path.dirname(self._table.path)).absolute()  # noqa: PTH120
        unit = self._table.unit
        paths, sizes = _find_files(cells.pop("path"), self._numbers, unit, self._where, root)
        dataset = self._dataset(cells, path=tuple(paths), size=tuple(sizes), root=root)
        known = {"label": dataset.label, "split": dataset.split, "group": dataset.group}
        again = _repeated_rows(dataset.path, known, self._numbers, unit, self._where)
        return self._exclude(dataset, again, "duplicate row", "duplicate rows")

    def of_pixels(self, pixels: Sequence[int], heading: bool) -> ImageDataset:
        """Build it from columns of pixels."""
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
        return self._dataset(
            dict(zip(kinds, rows.cells, strict=True)),
            path=tuple(f"{name}:{number}" for number in self._numbers),
            size=held.size,
            arrays=held.arrays,
        )

    def _kinds(self) -> list[str]:
        """Return the kinds of columns to read, other than paths and pixels."""
        if not self._labelled:
            return []
        wanted = ("split", "group") if self._options.label_from else ("label", "split", "group")
        if "label" in wanted and "label" not in self._found:
            raise self._missing("label", "")
        return [kind for kind in wanted if kind in self._found]

    def _missing(self, kind: str, beside: str) -> DatasetError:
        there = quoted_list(tuple(self._table.header))
        columns = f"column of {kind}s {beside}".strip()
        return DatasetError(
            f"{self._where} has no {columns}; its columns are {there}. "
            + _COLUMN_HINT.format(kind=kind)
        )

    def _check_rows(self) -> None:
        if not self._numbers:
            raise DatasetError(f"{self._where} has no rows; a table must have one for each image.")

    def _location(self, row: int) -> str:
        return row_numbers(self._table.unit, [self._numbers[row]])

    def _dataset(self, cells: Mapping[str, list[str]], **columns: Any) -> ImageDataset:
        """Add labels, splits and groups; exclude rows without a label."""
        if "label" in cells:
            labels = name_labels(
                read_labels(cells["label"]), self._options.label_names, self._location
            )
            check_label_typos(labels, self._location)
            columns["label"] = tuple(labels)
        splits = None
        if "split" in cells:
            name = self._table.header[self._found["split"]]
            named = "split" in self._options.columns or name.casefold() in _SPLIT_NAMES
            args = (self._numbers, self._table.unit, self._where)
            splits = read_splits(cells["split"], *args, named=named)
            if splits is None:
                self._notes.append(f"Ignored the column {quoted(name)}, which contains no splits.")
        if splits is not None:
            columns["split"] = tuple(None if s in (UNLABELLED, EXCLUDED) else s for s in splits)
        if "group" in cells:
            columns["group"] = tuple(cell.strip() or None for cell in cells["group"])
            name = quoted(self._table.header[self._found["group"]])
            if any(columns["group"]):
                self._notes.append(f"Images of one group (column {name}) stay in one split.")
        dataset = ImageDataset(**columns).with_notes(*self._notes)
        for role, reason, what in (
            (UNLABELLED, "unlabelled row", "unlabelled images"),
            (EXCLUDED, "excluded row", "excluded by the table"),
        ):
            out = [row for row, split in enumerate(splits or ()) if split == role]
            dataset = self._exclude(dataset, out, reason, what)
            splits = [split for split in splits or () if split != role]
        if "label" in cells:
            empty = [row for row, label in enumerate(dataset.label) if label is None]
            dataset = self._exclude(dataset, empty, "row without a label", "rows without a label")
        return replace(dataset, classes=class_order(dataset.label))

    def _exclude(
        self, dataset: ImageDataset, rows: Sequence[int], reason: str, what: str
    ) -> ImageDataset:
        """Exclude rows and their row numbers, with a note."""
        if not rows:
            return dataset
        numbers = row_numbers(self._table.unit, [self._numbers[row] for row in rows])
        left = set(rows)
        kept = [row for row in range(len(dataset)) if row not in left]
        self._numbers = [self._numbers[row] for row in kept]
        note = f"Ignored {what}: {n_images(len(rows))} of {self._where}, {numbers}."
        return exclude_rows(dataset, rows, reason, note)
