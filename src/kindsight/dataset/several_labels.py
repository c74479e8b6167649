"""Images with several labels: recognised in texts and in one-hot values, and given one label."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import as_codes, count_values
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.errors import DatasetError

__all__ = ["MULTI_LABEL", "OneHotColumns", "choose_labels", "one_hot_labels", "several_labels"]

MULTI_LABEL = ("first", "skip", "combine")
"""Choices for images with several labels."""

_COMBINED = "+"
"""Joins labels to a class name. It is not a separator of :func:`several_labels`, so that the name
is read back as a single label."""

_SHOWN = 5  # rows named in a message
_LONGEST = 10_000  # characters of a list in a cell
_ITEM = re.compile(r"""[\s,]*(?:'([^']*)'|"([^"]*)"|(\d+)\.?)""")


def several_labels(values: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the labels in each text that holds a list of labels.

    Lists are JSON (``["a", "b"]``), as Python and NumPy print them (``['a' 'b']``), or separated by
    ``|``, ``;``, a comma or blanks. A separated text is a list only if its labels occur in other
    texts: alone, or for ``|`` and ``;`` also in another position. ``great tit`` is therefore one
    label.

    Parameters
    ----------
    values : collection of str
        The distinct texts.

    Returns
    -------
    dict of str to tuple of str
        Empty if every text is a single label.
    """
    lists = {text: items for text in values if (items := _listed(text)) is not None}
    if lists:
        return _vectors(lists) or {text: _unique(items) for text, items in lists.items()}
    known = set(values)
    for mark in "|;,":
        found = {text: _separated(text, mark) for text in values if mark in text}
        alone = known.intersection(part for parts in found.values() for part in parts)
        if mark == ",":
            found = {text: parts for text, parts in found.items() if alone.intersection(parts)}
        if alone or (mark in "|;" and _in_other_positions(found.values())):
            return found
    words = {text: _unique(text.split()) for text in values if " " in text}
    return {text: parts for text, parts in words.items() if known.issuperset(parts)}


def _unique(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parts))


def _separated(text: str, mark: str) -> tuple[str, ...]:
    return _unique([part.strip() for part in text.split(mark) if part.strip()])


def _in_other_positions(found: Collection[tuple[str, ...]]) -> bool:
    """Return whether a label is first in one text and later in another."""
    first = {parts[0] for parts in found if parts}
    return any(first.intersection(parts[1:]) for parts in found)


def _listed(text: str) -> tuple[str, ...] | None:
    """Return the items of a list of texts or numbers, as texts; None for another text."""
    if not (text.startswith("[") and text.endswith("]")) or len(text) > _LONGEST:
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return _printed_items(text[1:-1])
    if not all(isinstance(item, (str, int, float)) for item in items):
        return None
    whole = (
        int(item) if not isinstance(item, str) and item == item // 1 else item for item in items
    )
    return tuple(str(item).strip() for item in whole)


def _printed_items(text: str) -> tuple[str, ...] | None:
    """Return the items of a list as Python or NumPy prints it; None for another text."""
    items = []
    position = 0
    while match := _ITEM.match(text, position):
        items.append(next(part for part in match.groups() if part is not None).strip())
        position = match.end()
    return None if text[position:].strip() else tuple(items)


def _vectors(lists: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the labels of lists that are all one-hot, such as ``[0, 1, 0]``; else empty."""
    widths = {len(items) for items in lists.values()}
    if len(widths) != 1 or widths < {2} or {*widths} & {0, 1}:
        return {}
    if not all(item in ("0", "1") for items in lists.values() for item in items):
        return {}
    return {
        text: tuple(str(k) for k, item in enumerate(items) if item == "1")
        for text, items in lists.items()
    }


_FLAGS = {"0": False, "1": True, "false": False, "true": True, "": False}
_WHOLE_WITH_POINT = re.compile(r"([01])\.0*")


def _flag(cell: str) -> bool | None:
    """Return whether a cell of a one-hot column is 1; None if it is neither 1, 0 nor empty."""
    text = cell.strip().casefold()
    match = _WHOLE_WITH_POINT.fullmatch(text)
    return _FLAGS.get(match[1] if match else text)


def one_hot_labels(columns: Sequence[NDArray[np.bool_]], names: Sequence[str]) -> CodeColumn:
    """Return the labels of each row: the names of the columns that have 1, as tuples."""
    if not columns:
        return CodeColumn(np.zeros(0, np.int8), ())
    codes = np.zeros(len(columns[0]), np.int64)
    sets: list[tuple[str, ...]] = [()]
    for column, name in zip(columns, names, strict=True):
        found, codes = np.unique(codes * 2 + column, return_inverse=True)
        pairs = (divmod(pair, 2) for pair in found.tolist())
        sets = [(*sets[one], name) if has else sets[one] for one, has in pairs]
    return CodeColumn(codes, sets)


class OneHotColumns:
    """The columns of a table that contain 0 and 1 only.

    Parameters
    ----------
    header : sequence of str
        Names of all columns.
    indices : sequence of int
        The columns that were read.
    columns : sequence of sequence of str
        Their cells.
    """

    def __init__(
        self, header: Sequence[str], indices: Sequence[int], columns: Sequence[Sequence[str]]
    ) -> None:
        self._flags: dict[int, NDArray[np.bool_]] = {}
        self._header, self._wrong = header, dict[int, str]()
        self._columns = dict(zip(indices, columns, strict=True))
        for index in sorted(self._columns):
            cells = as_codes(self._columns[index])
            first = cells.first_rows()
            meaning = {
                cell: _flag(cell)
                for cell, row in zip(cells.names, first.tolist(), strict=False)
                if row < len(cells)
            }
            wrong = [k for k, cell in enumerate(cells.names) if meaning.get(cell, True) is None]
            if wrong or not any(cell.strip() for cell in meaning):
                self._wrong[index] = cells.names[min(wrong, key=first.item)] if wrong else ""
            else:
                flags = np.array([bool(meaning.get(cell)) for cell in (*cells.names, "")], np.bool_)
                self._flags[index] = flags[cells.codes]

    @property
    def indices(self) -> list[int]:
        """The columns of 0 and 1, in the table's order."""
        return list(self._flags)

    @property
    def names(self) -> list[str]:
        """The names of these columns."""
        return [self._header[index] for index in self._flags]

    @property
    def others(self) -> list[str]:
        """The names of the columns that contain anything else."""
        return [self._header[index] for index in self._wrong]

    def with_columns(self, more: OneHotColumns) -> OneHotColumns:
        """Return all columns of both."""
        columns = {**self._columns, **more._columns}
        return OneHotColumns(self._header, list(columns), list(columns.values()))

    def labels(self) -> CodeColumn:
        """Return the labels of each row: the names of the columns that have 1."""
        return one_hot_labels(list(self._flags.values()), self.names)

    def single_labels(self) -> int:
        """Return the number of rows with exactly one 1."""
        counts = count_values(self.labels())
        return sum(n for labels, n in counts.items() if len(labels) == 1)

    def check(self, where: str, location: Callable[[int], str]) -> None:
        """Raise DatasetError, naming a cell, if a column contains anything but 0 and 1."""
        for index, cell in self._wrong.items():
            row = as_codes(self._columns[index]).index(cell) if cell else 0
            raise DatasetError(
                f"One-hot columns of {where} must contain 0 and 1 only; got {quoted(cell[:40])} in "
                f"{location(row)}, column {quoted(self._header[index])}. Name other columns: "
                '`columns={"label": "A,B"}`.'
            )


def choose_labels(
    rows: Sequence[tuple[str, ...]],
    multi_label: str | None,
    where: str,
    location: Callable[[int], str],
) -> tuple[CodeColumn, NDArray[np.int64]]:
    """Return one label for each row, and the rows that are skipped because they have several.

    Parameters
    ----------
    rows : sequence of tuple of str
        The labels of each row; none for an unlabelled one.
    multi_label : str or None
        ``"first"``, ``"skip"`` or ``"combine"``; None: rows with several labels are an error.
    where : str
        Name of the labels, for the message.
    location : callable
        Returns the location of row i, for the message.

    Returns
    -------
    CodeColumn of (str or None)
        With ``"combine"``, several labels are one class, such as ``a+b``, in sorted order.
    int64 array
        With ``"skip"``, the rows with several labels; their label is None.

    Raises
    ------
    DatasetError
        If rows have several labels and `multi_label` is None.
    """
    coded = as_codes(rows)
    has_several = np.array([len(labels) > 1 for labels in (*coded.names, ())], np.bool_)
    several = np.flatnonzero(has_several[coded.codes])
    if len(several) and multi_label is None:
        named = ", ".join(
            f"{location(row)} ({quoted_list(rows[row], 4)})" for row in several[:_SHOWN].tolist()
        )
        more = f" and {len(several) - _SHOWN:,} more" if len(several) > _SHOWN else ""
        raise DatasetError(
            f"{where} are multi-label: {len(several):,} of {n_images(len(rows))} "
            f"{'has' if len(several) == 1 else 'have'} several labels: {named}{more}. A classifier "
            "needs one label for each image. Choose how to use these images: "
            '`multi_label="first"` (the first label is used), `multi_label="skip"` (they are left '
            'out) or `multi_label="combine"` (each combination of labels is a class).'
        )

    def chosen(labels: tuple[str, ...]) -> str | None:
        if len(labels) > 1 and multi_label == "combine":
            return _COMBINED.join(sorted(labels))
        if len(labels) > 1 and multi_label == "skip":
            return None
        return labels[0] if labels else None

    return coded.mapped(chosen), several if multi_label == "skip" else several[:0]
