"""The images of a project as columns, and the names of its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.labels import check_not_fractions, normalised_label
from kindsight.dataset.loaders.values import read_labels
from kindsight.dataset.names import quoted
from kindsight.dataset.table import SPLITS
from kindsight.errors import DatasetError
from kindsight.studio.shapes import LONGEST_NAME

__all__ = ["NO_LABEL", "ImageColumns", "Rows", "check_class_names", "clean_class_name"]


def clean_class_name(name: str) -> str:
    """Return a name without surrounding spaces; DatasetError if it is not a valid class name."""
    cleaned = " ".join(name.split())
    if not cleaned or len(cleaned) > LONGEST_NAME or not cleaned.isprintable():
        raise DatasetError(
            f"The name of a class must be 1 to {LONGEST_NAME} printable characters; got "
            f"{quoted(name[: LONGEST_NAME + 1])}."
        )
    return cleaned


def check_class_names(names: Iterable[str]) -> None:
    """Raise DatasetError unless a table with these labels is read with the same classes."""
    given = list(names)
    known: dict[str, str] = {}
    for name in given:
        other = known.setdefault(normalised_label(name), name)
        # Single letters may differ in case.
        if other != name and not (len(name) == 1 and len(other) == 1):
            raise DatasetError(
                f"The class {quoted(other)} exists already, and {quoted(name)} differs from it "
                "only in case or spaces. Use that class, or choose another name."
            )
    check_not_fractions(given, "The names of classes", lambda row: f"class {row + 1}")
    for name, read in zip(given, read_labels(given, keep_na=True), strict=True):
        if read != (name,):
            raise DatasetError(
                f"In a table of labels, the class {quoted(name)} would be read as "
                f"{' and '.join(map(quoted, read)) or 'no label'}, given the other classes. Use "
                "another name."
            )


NO_LABEL = -1
"""Class key of an unlabelled image."""

_ROW = ("path", "name", "label", "split", "group", "size", "digest")
"""The journal's fields of an added image."""

_CHANGED = ("label", "excluded", "present", "group")
"""Columns that changes may set."""

Rows = NDArray[np.int64]


class ImageColumns:
    """All images that were ever in a project, one row each; the row number is the image's id.

    Attributes
    ----------
    path, name, digest : list of str
        Path as in dataset.csv, name for the user, content digest or "".
    group : list of (str or None)
    label : int32 array
        Keys of classes.
    split : int8 array
        0 for none, otherwise 1 + the index in SPLITS.
    excluded, present : bool array
        Images are not present if their addition was undone.
    size : int64 array
        Bytes.
    classes : dict of int to str
        Key of a class -> its name, in the order of the page. A class keeps its key when it is
        renamed.
    """

    def __init__(self) -> None:
        self.path: list[str] = []
        self.name: list[str] = []
        self.digest: list[str] = []
        self.group: list[str | None] = []
        self.label = np.zeros(0, np.int32)
        self.split = np.zeros(0, np.int8)
        self.excluded = np.zeros(0, np.bool_)
        self.present = np.zeros(0, np.bool_)
        self.size = np.zeros(0, np.int64)
        self.classes: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.path)

    def snapshot(self) -> ImageColumns:
        """Return a copy that later changes do not affect."""
        copied = ImageColumns()
        for name, column in vars(self).items():
            setattr(copied, name, column.copy())
        return copied

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append rows of :data:`_ROW`, not present yet."""
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _ROW]
        path, name, label, split, group, size, digest = columns
        count = len(path)
        self.path += [str(text) for text in path]
        self.name += [str(text) for text in name]
        self.digest += [str(text) for text in digest]
        self.group += [None if text is None else str(text) for text in group]
        self.label = np.concatenate([self.label, np.array(label, np.int32)])
        self.split = np.concatenate([self.split, np.array(split, np.int8)])
        self.size = np.concatenate([self.size, np.array(size, np.int64)])
        self.excluded = np.concatenate([self.excluded, np.zeros(count, np.bool_)])
        self.present = np.concatenate([self.present, np.zeros(count, np.bool_)])

    def apply(self, changes: Mapping[str, Any], *, back: bool = False) -> int:
        """Make the changes of a journal entry, or undo them; return how many images changed.

        - `changes`: ``classes``: [before, after], each a list of [key, name]; ``rows``: added
          images; and for a column ``[ids, before, after]``, where a single value applies to all
          ids.
        """
        if "rows" in changes and not back:
            start = int(changes["first"])
            if start == len(self):
                self.add(changes["rows"])
        if "classes" in changes:
            names = changes["classes"][0 if back else 1]
            self.classes = {int(key): str(name) for key, name in names}
        touched = np.zeros(len(self), np.bool_)
        for column in _CHANGED:
            if column in changes:
                ids, before, after = changes[column]
                rows = np.array(ids, np.int64)
                if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
                    raise ValueError("an image that does not exist")
                self._set(column, rows, before if back else after)
                touched[rows] = True
        return int(touched.sum())

    def _set(self, column: str, rows: Rows, value: Any) -> None:
        if column == "group":
            values = value if isinstance(value, list) else [value] * len(rows)
            for row, group in zip(rows.tolist(), values, strict=True):
                self.group[row] = group
            return
        array = getattr(self, column)
        if column == "label":
            known = {NO_LABEL, *self.classes}
            if not known.issuperset(value if isinstance(value, list) else [value]):
                raise ValueError("a class that does not exist")
        array[rows] = value

    def change(self, column: str, rows: Rows, value: Any) -> tuple[Rows, Any]:
        """Return the rows that a new value changes, and their entry for the journal.

        - `value`: one value, or a list with one for each row.
        """
        if column == "group":
            before = [self.group[row] for row in rows.tolist()]
            values = value if isinstance(value, list) else [value] * len(rows)
            differ = np.array([a != b for a, b in zip(before, values, strict=True)], np.bool_)
            old: Any = [item for item, keep in zip(before, differ, strict=True) if keep]
            new: Any = [item for item, keep in zip(values, differ, strict=True) if keep]
            return rows[differ], [rows[differ].tolist(), _short(old), _short(new)]
        current = getattr(self, column)[rows]
        wanted = np.broadcast_to(np.asarray(value, current.dtype), current.shape)
        differ = current != wanted
        old, new = current[differ].tolist(), wanted[differ].tolist()
        return rows[differ], [rows[differ].tolist(), _short(old), _short(new)]

    def labels(self, rows: Rows) -> list[str | None]:
        """Return the labels of rows."""
        classes = self.classes
        return [classes.get(key) for key in self.label[rows].tolist()]

    def split_name(self, row: int) -> str | None:
        """Return the split of a row, as in the dataset."""
        number = int(self.split[row])
        return SPLITS[number - 1] if number else None


def _short(values: list[Any]) -> Any:
    """Return a single value for a list of equal ones."""
    if values and all(value == values[0] for value in values):
        return values[0]
    return values
