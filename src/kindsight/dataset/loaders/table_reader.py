"""Build a dataset from a table whose columns are known."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import as_codes, count_values
from kindsight.dataset.labels import MISSING, class_order
from kindsight.dataset.loaders.arrays import SCALED, from_arrays, shape_of_row, with_shape
from kindsight.dataset.loaders.find_files import find_files, repeated_rows
from kindsight.dataset.loaders.from_names import UNLABELLED, joined_classes_note, loose_role
from kindsight.dataset.loaders.pixel_rows import read_pixel_rows
from kindsight.dataset.loaders.table_files import CsvTable, ParquetTable
from kindsight.dataset.loaders.values import (
    EXCLUDED,
    NoLabelsError,
    read_labels,
    read_splits,
    resolve_labels,
    row_numbers,
)
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.several_labels import OneHotColumns
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.encoding import printable
from kindsight.errors import DatasetError
from kindsight.storage.address import absolute, base_name

__all__ = ["TableReader"]

_COLUMN_HINT = 'Name it: `columns={{"{kind}": "NAME"}}`.'


def _label_option(names: str) -> str:
    """Return the option that names columns of labels, as messages spell it."""
    return f'`columns={{"label": "{printable(names)}"}}`'


_INDEX_NAMES = ("", "unnamed: 0", "index")
"""Names of columns that only number the rows, as pandas writes them."""

_MOST_ONE_HOT = 1000  # maximum number of columns that are read as possible one-hot labels

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
        Options for what the table does not state.
    labelled : bool
        Whether labels, splits and groups are wanted.
    one_hot : sequence of int
        The columns of one-hot labels, where they were named.
    """

    def __init__(
        self,
        table: CsvTable | ParquetTable,
        found: Mapping[str, int],
        options: DataOptions,
        labelled: bool,
        one_hot: Sequence[int] = (),
    ) -> None:
        self._table, self._options, self._labelled = table, options, labelled
        self._where, self._found, self._one_hot = table.where, dict(found), list(one_hot)
        self._numbers = np.zeros(0, np.int64)
        self._notes: list[str] = []
        self._missing_texts = ""

    def of_paths(self) -> ImageDataset:
        """Build it from a column of paths."""
        if "path" not in self._found:
            raise self._missing("path", "or columns of pixels")
        kinds = ["path", *self._kinds()]
        others = self._label_columns([self._found["path"]])
        indices = [*(self._found[kind] for kind in kinds), *others]
        self._numbers, columns = self._table.read(indices)
        cells = dict(zip(kinds, columns, strict=False))
        self._check_rows()
        labels = self._labels(cells, others, columns[len(kinds) :])
        root = absolute(self._options.root or self._table.folder)
        unit, name = self._table.unit, base_name(self._table.path)
        role = loose_role(name.rpartition(".")[0]) or "train"
        files = find_files(cells.pop("path"), self._numbers, unit, self._where, root, role)
        self._notes.extend(files.notes)
        dataset = self._dataset(
            labels, cells, files.ambiguous, path=files.paths, size=files.sizes, root=root
        )
        known = {"label": dataset.label, "split": dataset.split, "group": dataset.group}
        again = repeated_rows(dataset.path, known, self._numbers, self._table.unit, self._where)
        return self._exclude(dataset, again, "duplicate row", "duplicate rows")

    def of_pixels(self, pixels: Sequence[int], heading: bool) -> ImageDataset:
        """Build it from columns of pixels."""
        assert isinstance(self._table, CsvTable)
        kinds = self._kinds()
        others = self._label_columns([*pixels, *self._found.values()] if heading else pixels)
        read = [*(self._found[kind] for kind in kinds), *others]
        rows = read_pixel_rows(self._table, pixels, read, heading=heading)
        self._numbers = np.array(rows.lines, np.int64)
        self._check_rows()
        if rows.fractions:
            self._notes.append(SCALED.format(where=self._where))
        shape = shape_of_row(len(pixels), self._options.shape, self._where)
        held = from_arrays([one for block in rows.pixels for one in with_shape(block, shape)])
        name = self._table.path.replace(os.sep, "/")
        cells: dict[str, Sequence[str]] = dict(zip(kinds, rows.cells, strict=False))
        return self._dataset(
            self._labels(cells, others, rows.cells[len(kinds) :]),
            cells,
            [],
            path=tuple(f"{name}:{number}" for number in self._numbers.tolist()),
            size=held.size,
            arrays=held.arrays,
        )

    def _kinds(self) -> list[str]:
        """Return the kinds of columns to read, other than paths and pixels."""
        if not self._labelled:
            return []
        wanted = ("split", "group") if self._options.label_from else ("label", "split", "group")
        return [kind for kind in wanted if kind in self._found]

    def _label_columns(self, taken: Sequence[int]) -> list[int]:
        """Return the columns that may be one-hot labels, in addition to those of `_kinds`.

        They are read if labels are wanted and no column of labels was found by its name, or if the
        column that the user named may be one of several.
        """
        if not self._labelled or self._options.label_from:
            return []
        if self._one_hot:
            return self._one_hot
        if "label" in self._found and "label" not in self._options.columns:
            return []
        used = {*taken, *self._found.values()}
        others = [
            k
            for k, name in enumerate(self._table.header)
            if k not in used and name.casefold() not in _INDEX_NAMES and self._table.has_text(k)
        ]
        if len(others) <= _MOST_ONE_HOT:
            return others
        return []

    def _labels(
        self,
        cells: dict[str, Sequence[str]],
        others: Sequence[int],
        columns: Sequence[Sequence[str]],
    ) -> CodeColumn | None:
        """Return the labels of each row; None where none are wanted.

        Columns of one-hot labels that are called like splits or groups are removed from `cells`.
        """
        if not self._labelled or self._options.label_from:
            return None
        flags = OneHotColumns(self._table.header, others, columns)
        if "label" in cells:
            self._note_one_of_several(cells["label"], flags)
            return self._labels_of_cells(cells.pop("label"))
        if self._one_hot:
            flags.check(self._where, self._location)
            return flags.labels()
        for kind in ("split", "group"):
            if kind in cells and kind not in self._options.columns:
                more = OneHotColumns(self._table.header, [self._found[kind]], [cells[kind]])
                both = flags.with_columns(more)
                if more.names and both.single_labels() > flags.single_labels():
                    flags = both
                    del cells[kind], self._found[kind]
        if len(flags.names) < 2 or flags.others:
            raise self._missing("label", "", flags)
        self._one_hot = flags.indices
        self._notes.append(
            f"The columns {quoted_list(flags.names)} of {self._where} are one-hot labels."
        )
        return flags.labels()

    def _labels_of_cells(self, cells: Sequence[str]) -> CodeColumn:
        keep_na = self._options.keep_na_labels
        coded = as_codes(cells)
        missing = sorted({cell.strip() for cell in count_values(coded)} & MISSING - {""})
        if missing and not keep_na:
            self._missing_texts = (
                f" Some have {quoted_list(missing)}. If that is a label, give `keep_na_labels`."
            )
        return read_labels(coded, keep_na=keep_na)

    def _note_one_of_several(self, cells: Sequence[str], flags: OneHotColumns) -> None:
        """Add a note if the column that was named is one of several one-hot columns."""
        name = self._options.columns.get("label", "")
        both = flags.with_columns(
            OneHotColumns(self._table.header, [self._found["label"]], [cells])
        )
        if not flags.names or both.others or both.single_labels() < len(cells):
            return
        names = ",".join(both.names)
        self._notes.append(
            f"The column {quoted(name)} is one of several one-hot columns in {self._where}: the "
            f"classes are 0 and 1. For a class for each column, give "
            f"{_label_option(names)}."
        )

    def _missing(self, kind: str, beside: str, flags: OneHotColumns | None = None) -> DatasetError:
        # A file in another encoding may be a single line.
        there = quoted_list([f"{name:.60}" for name in self._table.header])
        columns = f"column of {kind}s {beside}".strip()
        hint = _COLUMN_HINT.format(kind=kind)
        if len(self._found) >= len(self._table.header):
            hint = f"Add a column named {kind}."
        if flags is not None and len(flags.names) > 1:
            names = ",".join(flags.names)
            hint = (
                f"If the columns of 0 and 1 are one-hot labels, name them: {_label_option(names)}."
            )
        return NoLabelsError(f"{self._where} has no {columns}; its columns are {there}. {hint}")

    def _check_rows(self) -> None:
        if not len(self._numbers):
            raise DatasetError(f"{self._where} has no rows; a table must have one for each image.")

    def _location(self, row: int) -> str:
        return row_numbers(self._table.unit, [int(self._numbers[row])])

    def _dataset(
        self,
        labels: CodeColumn | None,
        cells: Mapping[str, Sequence[str]],
        ambiguous: Sequence[int],
        **columns: Any,
    ) -> ImageDataset:
        """Add labels, splits and groups; exclude rows without one label."""
        several = np.zeros(0, np.int64)
        if labels is not None:
            what = f"The labels in {self._where}"
            columns["label"], several = resolve_labels(labels, self._options, what, self._location)
        splits = self._splits(cells)
        if splits is not None:
            columns["split"] = splits.mapped(lambda s: None if s in (UNLABELLED, EXCLUDED) else s)
        if "group" in cells:
            columns["group"] = _groups(cells["group"])
            name = quoted(self._table.header[self._found["group"]])
            if any(columns["group"]):
                self._notes.append(f"Images of one group (column {name}) stay in one split.")
        dataset = ImageDataset(**columns).with_notes(*self._notes)
        excluded = [
            ("unlabelled row", "unlabelled images", "", _rows_of(splits, UNLABELLED)),
            ("excluded row", "excluded by the table", "", _rows_of(splits, EXCLUDED)),
            ("ambiguous name", "ambiguous names", "", np.array(ambiguous, np.int64)),
            ("several labels", "rows with several labels", "", several),
        ]
        if labels is not None:
            missing = np.flatnonzero(as_codes(dataset.label).equals(None))
            more = self._missing_texts
            excluded.append(("row without a label", "rows without a label", more, missing))
        left = np.arange(len(dataset))
        for reason, what, more, rows in excluded:
            place = np.flatnonzero(np.isin(left, rows))
            dataset = self._exclude(dataset, place, reason, what, more)
            left = np.delete(left, place)
        if "group" in cells and (joined := joined_classes_note(dataset)):
            dataset = dataset.with_notes(joined)
        return replace(dataset, classes=class_order(dataset.label))

    def _splits(self, cells: Mapping[str, Sequence[str]]) -> CodeColumn | None:
        """Return the column of splits; None if there is none."""
        if "split" not in cells:
            return None
        name = self._table.header[self._found["split"]]
        named = "split" in self._options.columns or name.casefold() in _SPLIT_NAMES
        args = (self._numbers, self._table.unit, self._where)
        splits = read_splits(cells["split"], *args, named=named)
        if splits is None:
            self._notes.append(f"Ignored the column {quoted(name)}, which contains no splits.")
        return splits

    def _exclude(
        self,
        dataset: ImageDataset,
        rows: NDArray[np.int64],
        reason: str,
        what: str,
        more: str = "",
    ) -> ImageDataset:
        """Exclude rows, with a note."""
        if not len(rows):
            return dataset
        named = row_numbers(self._table.unit, self._numbers[rows])
        self._numbers = np.delete(self._numbers, rows)
        note = f"Ignored {what}: {n_images(len(rows))} of {self._where}, {named}.{more}"
        return exclude_rows(dataset, rows, reason, note)


def _groups(cells: Sequence[str]) -> CodeColumn:
    """Return a column of groups: cells without blanks at their ends; None for missing values."""
    return as_codes(cells).mapped(
        lambda cell: None if (cell or "").strip() in MISSING else cell.strip()
    )


def _rows_of(splits: CodeColumn | None, name: str) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if splits is None else np.flatnonzero(splits.equals(name))
