"""From a table whose columns are known to a dataset."""

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
from kindsight.dataset.loaders.folder_roles import UNLABELLED
from kindsight.dataset.loaders.parquet_table import ParquetTable
from kindsight.dataset.loaders.pixel_rows import read_pixel_rows
from kindsight.dataset.loaders.pixels import SCALED, shape_of_row, with_shape
from kindsight.dataset.loaders.values import (
    EXCLUDED,
    Faults,
    name_labels,
    places,
    read_labels,
    read_splits,
)
from kindsight.dataset.names import images, shown, shown_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.errors import DatasetError

__all__ = [
    "TableReader",
    "find_files",
    "unlike_twins",
]

# SECTION: The paths that a table gives: where they start, which of them are there, which occur
# twice.

_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def find_files(
    cells: Sequence[str], numbers: Sequence[int], unit: str, where: str, root: Path
) -> tuple[list[str], list[int]]:
    r"""Turn a column of paths into paths below a folder, and look up how large the files are.

    A path may be absolute, or lead out of the folder: a table says which images are meant, as a
    command line does. Where all paths are written with ``\`` they are those of Windows.

    Parameters
    ----------
    cells : sequence of str
        The paths.
    numbers, unit, where : sequence of int, str, str
        The rows' numbers, what they count, and the table, for messages.
    root : Path
        The folder at which relative paths start.

    Returns
    -------
    list of str
        The paths, ``/`` between the parts.
    list of int
        Bytes; 0 where there is no such file: reading it will say so.

    Raises
    ------
    DatasetError
        If a cell is empty or names no file of a disk, or if none of the files is there.
    """
    faults = Faults(unit)
    for cell, number in zip(cells, numbers, strict=True):
        if not cell:
            faults.add(f"Every row of {where} must have a path.", number, "an empty cell")
        elif _ELSEWHERE.match(cell):
            rule = f"The paths in {where} must be those of files."
            faults.add(rule, number, shown(cell[:60]), "Fetch the images first.")
    faults.check()
    start = os.path.join(root, "")  # noqa: PTH118
    windows = os.sep == "\\" or _from_windows(cells, start)
    paths = [cell.replace("\\", "/") for cell in cells] if windows else list(cells)
    sizes = [_size(os.path.join(start, path)) for path in paths]  # noqa: PTH118
    if paths and not any(size is not None for size in sizes):
        raise DatasetError(
            f"The paths in {where} must be those of files. Received: none that is there; the first "
            f"is {shown(paths[0])}, looked for in {shown(str(root))}. If they start at another "
            "folder, name it: --root FOLDER, in Python root."
        )
    return paths, [size or 0 for size in sizes]


def _from_windows(cells: Sequence[str], start: str) -> bool:
    """Say whether paths were written on Windows, where a backslash parts folders."""
    if any("/" in cell for cell in cells):
        return False
    parted = [cell for cell in cells if "\\" in cell]
    return bool(parted) and all(_size(start + cell) is None for cell in parted)


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size  # noqa: PTH116 (called once an image; Path is slower)
    except (OSError, ValueError):
        return None


def unlike_twins(
    paths: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
    numbers: Sequence[int],
    unit: str,
    where: str,
) -> list[int]:
    """Return the rows that repeat an earlier one; refuse those that contradict it.

    Parameters
    ----------
    paths : sequence of str
        Of all rows.
    columns : mapping of str to sequence
        What else is known of them.
    numbers, unit, where : sequence of int, str, str
        The rows' numbers, what they count, and the table, for messages.

    Raises
    ------
    DatasetError
        Naming the rows that have a path of an earlier row and another label, split or group.
    """
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
                rule = f"An image in {where} must have one {kind}."
                said = (
                    f"{shown(path)} is {shown(cells[row] or '')}, and "
                    f"{shown(cells[earlier] or '')} in {places(unit, [numbers[earlier]])}"
                )
                faults.add(rule, numbers[row], said)
    faults.check()
    return again


_HOW = "Say which one it is: --column {kind}=NAME, in Python columns={{'{kind}': 'NAME'}}."


# What is called otherwise may be something else: a "set", a "part".
_SURE = ("split", "subset")


class TableReader:
    """Makes a dataset of a table whose columns are known.

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

    def of_paths(self) -> ImageDataset:
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
        dataset = self._dataset(cells, path=tuple(paths), size=tuple(sizes), root=root)
        known = {"label": dataset.label, "split": dataset.split, "group": dataset.group}
        again = unlike_twins(dataset.path, known, self._numbers, unit, self._where)
        return self._leave_out(dataset, again, "row that repeats another", "Repeating another row")

    def of_pixels(self, pixels: Sequence[int], heading: bool) -> ImageDataset:
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
        return self._dataset(
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

    def _missing(self, kind: str, beside: str) -> DatasetError:
        there = shown_list(tuple(self._table.header))
        columns = f"a column of {kind}s {beside}".strip()
        return DatasetError(
            f"A table must have {columns}. Received: {self._where} with the columns {there}. "
            + _HOW.format(kind=kind)
        )

    def _check_rows(self) -> None:
        if not self._numbers:
            raise DatasetError(
                f"A table must have a row for each image. Received: {self._where}, without any."
            )

    def _place(self, row: int) -> str:
        return places(self._table.unit, [self._numbers[row]])

    def _dataset(self, cells: Mapping[str, list[str]], **columns: Any) -> ImageDataset:
        """Put labels, splits and groups beside the images; leave out what has no label."""
        if "label" in cells:
            labels = name_labels(
                read_labels(cells["label"]), self._options.label_names, self._place
            )
            check_label_typos(labels, self._place)
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
                self._notes.append(f"Images of one group, the column {name}, stay together.")
        dataset = ImageDataset(**columns).with_notes(*self._notes)
        for role, reason, what in (
            (UNLABELLED, "row to be predicted", "To be predicted"),
            (EXCLUDED, "row that is excluded", "Excluded by the table"),
        ):
            out = [row for row, split in enumerate(splits or ()) if split == role]
            dataset = self._leave_out(dataset, out, reason, what)
            splits = [split for split in splits or () if split != role]
        if "label" in cells:
            empty = [row for row, label in enumerate(dataset.label) if label is None]
            dataset = self._leave_out(dataset, empty, "row without a label", "Without a label")
        return replace(dataset, classes=class_order(dataset.label))

    def _leave_out(
        self, dataset: ImageDataset, rows: Sequence[int], reason: str, what: str
    ) -> ImageDataset:
        """Return the other rows, with a note; the numbers of the rows go with them."""
        if not rows:
            return dataset
        said = places(self._table.unit, [self._numbers[row] for row in rows])
        left = set(rows)
        kept = [row for row in range(len(dataset)) if row not in left]
        self._numbers = [self._numbers[row] for row in kept]
        note = f"{what}, and so left out: {images(len(rows))} of {self._where}, {said}."
        return exclude_rows(dataset, rows, reason, note)
