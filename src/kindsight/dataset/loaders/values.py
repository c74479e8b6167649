"""What cells of a table mean: labels, splits and groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from kindsight.dataset.labels import WHOLE
from kindsight.dataset.loaders.folder_roles import role_of
from kindsight.dataset.names import shown
from kindsight.errors import DatasetError

__all__ = [
    "EXCLUDED",
    "Faults",
    "name_labels",
    "places",
    "read_labels",
    "read_splits",
]

# SECTION: Rows that break a rule: gathered, counted, and named in one sentence for each rule.

_SHOWN = 5


class Faults:
    """The faulty rows of one table.

    Parameters
    ----------
    unit : str
        What a row's number counts: ``"line"`` of a text file, ``"row"`` of another table.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._found: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def add(self, rule: str, place: int, received: str, cure: str = "", count: int = 1) -> None:
        """Take down that the row at `place` (and, all in all, `count` rows) breaks a rule.

        Parameters
        ----------
        rule : str
            A sentence.
        place : int
            The number of the line or row.
        received : str
            What is there, in a few characters, safe to print; may be empty.
        cure : str
            A sentence.
        count : int
            How many rows this stands for.
        """
        number, named = self._found.get((rule, cure), (0, []))
        if len(named) < _SHOWN:
            named.append(f"{self.unit} {place:,}" + (f" ({received})" if received else ""))
        self._found[rule, cure] = (number + count, named)

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raise DatasetError if there are faulty rows: a line for each rule."""
        lines = []
        for (rule, cure), (number, named) in self._found.items():
            more = f" and {number - len(named):,} more" if number > len(named) else ""
            rows = f"{number:,} row{'' if number == 1 else 's'}"
            lines.append(f"{rule} Received: {rows}, {', '.join(named)}{more}. {cure}".rstrip())
        if lines:
            raise DatasetError("\n".join(lines))


def places(unit: str, numbers: Sequence[int]) -> str:
    """Name rows: ``line 3``, ``lines 3, 8 and 12 more``."""
    named = ", ".join(f"{number:,}" for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return f"{unit}{'' if len(numbers) == 1 else 's'} {named}{more}"


EXCLUDED = "excluded"
"""What a column of splits says of an image that is to be in no part."""

_WHOLE_WITH_POINT = re.compile(r"([+-]?\d{1,18})\.0+")
# The first is for looking at while one works, the second for the last word.
_COMPETITION = {"publictest": "validation", "privatetest": "test"}
_OUT = dict.fromkeys(("excluded", "exclude", "left out", "leave out"), EXCLUDED)


def read_labels(cells: Iterable[str]) -> list[str | None]:
    """Turn a column's cells into labels: without blanks around them, None where they are empty.

    Where all are numbers, ``3.0`` is 3: so whole numbers come out of programs that had gaps in
    the column.
    """
    labels = [cell.strip() or None for cell in cells]
    different = {label for label in labels if label is not None}
    numbers = {label: _WHOLE_WITH_POINT.fullmatch(label) for label in different}
    if not any(numbers.values()):
        return labels
    if not all(numbers[label] or WHOLE.fullmatch(label) for label in different):
        return labels
    new: dict[str | None, str] = {label: match[1] for label, match in numbers.items() if match}
    return [new.get(label, label) for label in labels]


def _role(cell: str) -> str | None:
    """Return the role that a cell states; with the two test parts of competitions."""
    plain = cell.strip().casefold()
    return _COMPETITION.get(plain) or _OUT.get(plain) or role_of(cell)


def name_labels(
    labels: Sequence[str | None], names: Sequence[str], place: Callable[[int], str]
) -> list[str | None]:
    """Give the labels 0, 1, 2, ... their names.

    Parameters
    ----------
    labels : sequence of (str or None)
        Whole numbers.
    names : sequence of str
        The name of each number; if empty, nothing is changed.
    place : callable
        Says where row i is, for messages.

    Raises
    ------
    DatasetError
        For a label that is no number, or has no name.
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
                f"Where labels are given names, they are numbers from 0 to {len(names) - 1}, as "
                f"there are {len(names)} names. Received: {shown(label)}, first in {place(row)}."
            )
        new[label] = names[number].strip()
    return [None if label is None else new[label] for label in labels]


def read_splits(
    cells: Sequence[str], numbers: Sequence[int], unit: str, where: str, *, named: bool
) -> list[str | None] | None:
    """Turn a column's cells into splits, by the same spellings as folders.

    Parameters
    ----------
    cells : sequence of str
        ``train``, ``val``, ``Test``, ...; empty where it is not decided.
    numbers, unit, where : sequence of int, str, str
        The rows' numbers, what they count, and the table, for messages.
    named : bool
        Whether the column is sure to hold splits. One that was only found by its name does not,
        if no cell is a split.

    Returns
    -------
    list of (str or None), or None
        ``"train"``, ``"validation"``, ``"test"``, ``"unlabelled"``, ``"excluded"`` or None; None
        altogether where the column holds something else.

    Raises
    ------
    DatasetError
        Naming the rows whose cells are no splits.
    """
    meaning = {cell: _role(cell) for cell in set(cells) if cell.strip()}
    if not named and not any(meaning.values()):
        return None
    faults = Faults(unit)
    for cell, number in zip(cells, numbers, strict=True):
        if cell.strip() and meaning[cell] is None:
            rule = f"A split in {where} must be train, validation, test or excluded."
            faults.add(rule, number, shown(cell[:40]), "Leave the cell empty to have it decided.")
    faults.check()
    return [meaning.get(cell) for cell in cells]
