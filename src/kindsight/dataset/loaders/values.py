"""Cells of a table as labels and splits, and errors in rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from kindsight.dataset.labels import WHOLE
from kindsight.dataset.loaders.from_names import role_of
from kindsight.dataset.names import quoted
from kindsight.errors import DatasetError

__all__ = ["EXCLUDED", "Faults", "name_labels", "read_labels", "read_splits", "row_numbers"]

_SHOWN = 5  # rows named in a message


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

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raise DatasetError if there are invalid rows, with a line for each rule."""
        lines = []
        for (rule, cure), (total, named) in self._found.items():
            more = f" and {total - len(named):,} more" if total > len(named) else ""
            rows = f"{total:,} row{'' if total == 1 else 's'}"
            lines.append(f"{rule} Invalid: {rows}, {', '.join(named)}{more}. {cure}".rstrip())
        if lines:
            raise DatasetError("\n".join(lines))


def row_numbers(unit: str, numbers: Sequence[int]) -> str:
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


def read_labels(cells: Iterable[str]) -> list[str | None]:
    """Return a column's cells as labels: stripped; None if empty.

    If all are numbers, ``3.0`` becomes ``3``: programs write whole numbers like that if a column
    has gaps.
    """
    labels = [cell.strip() or None for cell in cells]
    distinct = {label for label in labels if label is not None}
    numbers = {label: _WHOLE_WITH_POINT.fullmatch(label) for label in distinct}
    if not any(numbers.values()):
        return labels
    if not all(numbers[label] or WHOLE.fullmatch(label) for label in distinct):
        return labels
    new: dict[str | None, str] = {label: match[1] for label, match in numbers.items() if match}
    return [new.get(label, label) for label in labels]


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
    cells: Sequence[str], numbers: Sequence[int], unit: str, where: str, *, named: bool
) -> list[str | None] | None:
    """Return a column's cells as splits, with the same names as for folders.

    - `cells`: ``train``, ``val``, ``Test``, ...; empty if undecided.
    - `numbers`, `unit`, `where`: row numbers, their unit and the table's name, for messages.
    - `named`: whether the column certainly contains splits. If not, and no cell is a split, the
      result is None.

    Returns
    -------
    list of (str or None), or None
        ``"train"``, ``"validation"``, ``"test"``, ``"unlabelled"``, ``"excluded"`` or None; None
        instead of a list if the column contains something else.

    Raises
    ------
    DatasetError
        If cells are not splits; the message names the rows.
    """
    meaning = {cell: _role(cell) for cell in set(cells) if cell.strip()}
    if not named and not any(meaning.values()):
        return None
    faults = Faults(unit)
    for cell, number in zip(cells, numbers, strict=True):
        if cell.strip() and meaning[cell] is None:
            rule = f"A split in {where} must be train, validation, test or excluded."
            faults.add(rule, number, quoted(cell[:40]), "Leave the cell empty for a random split.")
    faults.check()
    return [meaning.get(cell) for cell in cells]
