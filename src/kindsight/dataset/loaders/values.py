"""Cells of a table as labels and splits, and errors in rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import as_codes, count_values
from kindsight.dataset.labels import MISSING, WHOLE, check_label_typos, check_not_fractions
from kindsight.dataset.loaders.from_names import role_of
from kindsight.dataset.names import quoted
from kindsight.dataset.options import DataOptions
from kindsight.dataset.several_labels import choose_labels, several_labels
from kindsight.errors import DatasetError

__all__ = [
    "EXCLUDED", "Faults", "NoLabelsError", "name_labels", "read_labels", "read_splits",
    "resolve_labels", "row_numbers",
]  # fmt: skip

_SHOWN = 5  # rows named in a message


class NoLabelsError(DatasetError):
    """A table without labelled images: it names no existing images, or has no labels."""


class Faults:
    """The invalid rows of one table, reported in one sentence per rule.

    Parameters
    ----------
    unit : str
        ``"line"`` for a text file, ``"row"`` for another table.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._found: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def add(self, rule: str, number: int, received: str, cure: str = "", count: int = 1) -> None:
        """Record that a row breaks a rule.

        - `rule`, `cure`: a sentence each.
        - `number`: of the line or row.
        - `received`: a few printable characters; may be empty.
        - `count`: how many rows this represents.
        """
        total, named = self._found.get((rule, cure), (0, []))
        if len(named) < _SHOWN:
            named.append(f"{self.unit} {number:,}" + (f" ({received})" if received else ""))
        self._found[rule, cure] = (total + count, named)

    def add_rows(
        self,
        rows: NDArray[np.int64],
        fault: Callable[[int], tuple[str, int, str]],
        cure: str = "",
    ) -> None:
        """Record rows that break one rule; `fault` returns rule, number and received of a row."""
        for row in rows[:_SHOWN].tolist():
            self.add(*fault(row), cure)
        if len(rows) > _SHOWN:
            self.add(*fault(int(rows[_SHOWN])), cure, len(rows) - _SHOWN)

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raise DatasetError if there are invalid rows, with a line per rule."""
        lines = []
        for (rule, cure), (total, named) in self._found.items():
            more = f" and {total - len(named):,} more" if total > len(named) else ""
            rows = f"{total:,} row{'' if total == 1 else 's'}"
            lines.append(f"{rule} Invalid: {rows}, {', '.join(named)}{more}. {cure}".rstrip())
        if lines:
            raise DatasetError("\n".join(lines))


def row_numbers(unit: str, numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Return the numbers of rows as text: ``line 3``, ``lines 3, 8 and 12 more``."""
    named = ", ".join(f"{number:,}" for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return f"{unit}{'' if len(numbers) == 1 else 's'} {named}{more}"


EXCLUDED = "excluded"
"""The value in a split column of images without a split."""

_WHOLE_WITH_POINT = re.compile(r"([+-]?\d{1,18})\.0+")
# The public and private test sets of Kaggle competitions.
_COMPETITION = {"publictest": "validation", "privatetest": "test"}
_OUT = dict.fromkeys(("excluded", "exclude", "left out", "leave out"), EXCLUDED)


def read_labels(cells: Sequence[str], *, keep_na: bool = False) -> CodeColumn:
    """Return the labels in each cell of a column, as tuples.

    Most cells have one label; an empty one has none, nor has a text that stands for a missing
    value, such as ``NA``, unless `keep_na` is true. For cells with several labels, see
    :func:`kindsight.dataset.several_labels.several_labels`. If all labels are numbers, ``3.0``
    becomes ``3``: programs write whole numbers like that if a column has gaps.
    """
    missing = {""} if keep_na else MISSING
    coded = as_codes(cells)
    distinct = {cell.strip() for cell in count_values(coded)} - missing
    lists = several_labels(distinct)
    labels = {text: lists.get(text, (text,)) for text in distinct}
    every = {label for parts in labels.values() for label in parts}
    numbers = {label: _WHOLE_WITH_POINT.fullmatch(label) for label in every}
    if all(numbers[label] or WHOLE.fullmatch(label) for label in every):
        new = {label: match[1] for label, match in numbers.items() if match}
        labels = {
            text: tuple(new.get(label, label) for label in parts) for text, parts in labels.items()
        }
    if lists:
        labels = {
            text: tuple(part for part in parts if part not in missing)
            for text, parts in labels.items()
        }
    return coded.mapped(lambda cell: labels.get((cell or "").strip(), ()))


def resolve_labels(
    rows: Sequence[tuple[str, ...]],
    options: DataOptions,
    what: str,
    location: Callable[[int], str],
) -> tuple[CodeColumn, NDArray[np.int64]]:
    """Return one label for each row, and the rows that are skipped because they have several.

    Parameters
    ----------
    rows : sequence of tuple of str
        The labels of each row.
    options : DataOptions
        Class names of the labels 0, 1, 2, ..., and the handling of several labels.
    what : str
        Name of the labels, as the start of a sentence.
    location : callable
        Returns the location of row i, for messages.

    Raises
    ------
    DatasetError
        If the labels are numbers with fractions, rows have several labels and no option says how to
        use them, or labels have no name or differ only in spelling.
    """
    coded = as_codes(rows)
    # Of equal rows, the first one is validated; these are in row order.
    first = coded.first_rows()
    different = sorted(
        (row, labels)
        for row, labels in zip(first.tolist(), coded.names, strict=False)
        if row < len(coded)
    )
    numbers = [row for row, labels in different for _ in labels]
    flat: list[str | None] = [label for _, labels in different for label in labels]
    check_not_fractions(flat, what, lambda k: location(numbers[k]))
    names = name_labels(flat, options.label_names, lambda k: location(numbers[k]))
    named = dict(zip(flat, map(str, names), strict=True))
    if options.label_names:
        coded = coded.mapped(lambda labels: tuple(named[label] for label in labels))
    chosen, skipped = choose_labels(coded, options.multi_label, what, location)
    check_label_typos(chosen, location)
    return chosen, skipped


def _role(cell: str) -> str | None:
    """Return the role of a cell, including the test sets of competitions."""
    plain = cell.strip().casefold()
    return _COMPETITION.get(plain) or _OUT.get(plain) or role_of(cell)


def name_labels(
    labels: Sequence[str | None], names: Sequence[str], location: Callable[[int], str]
) -> list[str | None]:
    """Replace the labels 0, 1, 2, ... by their names.

    - `labels`: whole numbers.
    - `names`: the name of each number; if empty, nothing changes.
    - `location`: returns the location of row i, for messages.

    Raises
    ------
    DatasetError
        For a label that is not a number, or has no name.
    """
    if not names:
        return list(labels)
    new: dict[str, str] = {}
    for row, label in enumerate(labels):
        if label is None or label in new:
            continue
        number = int(label) if WHOLE.fullmatch(label) else -1
        if not 0 <= number < len(names):
            raise DatasetError(
                f"With {len(names)} label names, labels must be numbers from 0 to "
                f"{len(names) - 1}; got {quoted(label)}, first in {location(row)}."
            )
        new[label] = names[number].strip()
    return [None if label is None else new[label] for label in labels]


def read_splits(
    cells: Sequence[str], numbers: NDArray[np.int64], unit: str, where: str, *, named: bool
) -> CodeColumn | None:
    """Return a column's cells as splits, with the same names as for folders.

    - `cells`: ``train``, ``val``, ``Test``, ...; empty if undecided.
    - `numbers`, `unit`, `where`: row numbers, their unit and the table's name, for messages.
    - `named`: whether the column certainly contains splits. If not, and no cell is a split, the
      result is None.

    Returns
    -------
    CodeColumn of (str or None), or None
        ``"train"``, ``"validation"``, ``"test"``, ``"unlabelled"``, ``"excluded"`` or None. None
        instead of a column if the cells are something else.

    Raises
    ------
    DatasetError
        If cells are not splits; the message names the rows.
    """
    coded = as_codes(cells)
    meaning = {cell: _role(cell) for cell in count_values(coded) if cell.strip() not in MISSING}
    if not named and not any(meaning.values()):
        return None
    wrong = [meaning.get(cell, "") is None for cell in (*coded.names, "")]
    faults, rule = Faults(unit), f"A split in {where} must be train, validation, test or excluded."
    faults.add_rows(
        np.flatnonzero(np.array(wrong)[coded.codes]),
        lambda row: (rule, int(numbers[row]), quoted(cells[row][:40])),
        "Leave the cell empty for a random split.",
    )
    faults.check()
    return coded.mapped(meaning.get)
