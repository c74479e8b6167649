"""The label map: a table of labels in the data and the classes that they stand for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from kindsight.dataset.labels import class_order
from kindsight.dataset.loaders.csv_table import CsvTable
from kindsight.dataset.names import quoted, quoted_list
from kindsight.dataset.renames import RENAMED
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError

__all__ = ["check_label_map", "read_label_map"]

_COLUMNS = ("label", "class")


@lru_cache(4)
def _read(path: str, changed: int) -> dict[str, str]:
    table = CsvTable(path, encoding="")
    if missing := [name for name in _COLUMNS if name not in table.header]:
        raise DatasetError(
            f"The label map {table.where} needs the columns label and class; it lacks "
            f"{' and '.join(missing)} and has {quoted_list(tuple(table.header))}. Make its first "
            "line label,class."
        )
    lines, (labels, names) = table.read([table.header.index(name) for name in _COLUMNS])
    found: dict[str, str] = {}
    for line, label, name in zip(lines, labels, names, strict=True):
        if not label or not name:
            raise DatasetError(
                f"Line {line:,} of the label map {table.where} lacks a label or a class. Fill it "
                "in, or delete the line."
            )
        if found.setdefault(label, name) != name:
            raise DatasetError(
                f"The label map {table.where} gives {quoted(label)} two classes, "
                f"{quoted(found[label])} and, in line {line:,}, {quoted(name)}. Delete one line."
            )
    if not found:
        raise DatasetError(f"The label map {table.where} is empty. Add a line for each label.")
    return found


def read_label_map(path: str | None) -> Mapping[str, str]:
    """Read a table with the columns ``label`` and ``class``.

    Returns
    -------
    mapping of str to str
        Label in the data -> class name; empty without a path.

    Raises
    ------
    DatasetError
        If the file cannot be read, lacks a column, is empty, or gives a label two classes.
    """
    if path is None:
        return {}
    try:
        changed = os.stat(path).st_mtime_ns  # noqa: PTH116 (a str)
    except (OSError, ValueError):
        changed = 0  # reading it reports the error
    return _read(path, changed)


def check_label_map(dataset: ImageDataset, path: str | None) -> None:
    """Raise DatasetError if a label map is given and no label of the data is in it."""
    if path is None or any(note.startswith(RENAMED) for note in dataset.notes):
        return
    mapped = read_label_map(path)
    raise DatasetError(
        f"The label map {quoted(path)} has no label of the data. It maps "
        f"{quoted_list(class_order(mapped))}; the data have {quoted_list(dataset.classes)}. "
        "Write the data's labels into its column label, or leave `label_map` out."
    )
