"""Rows that break a rule: gathered, counted, and named in one sentence for each rule."""

from __future__ import annotations

from collections.abc import Sequence

from kindsight.errors import CatalogError

__all__ = ["Faults", "places"]

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
        """Raise CatalogError if there are faulty rows: a line for each rule."""
        lines = []
        for (rule, cure), (number, named) in self._found.items():
            more = f" and {number - len(named):,} more" if number > len(named) else ""
            rows = f"{number:,} row{'' if number == 1 else 's'}"
            lines.append(f"{rule} Received: {rows}, {', '.join(named)}{more}. {cure}".rstrip())
        if lines:
            raise CatalogError("\n".join(lines))


def places(unit: str, numbers: Sequence[int]) -> str:
    """Name rows: ``line 3``, ``lines 3, 8 and 12 more``."""
    named = ", ".join(f"{number:,}" for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return f"{unit}{'' if len(numbers) == 1 else 's'} {named}{more}"
