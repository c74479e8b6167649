"""Columns of values of which many are equal, as codes; columns of whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.base import BLOCK_BYTES, Column, Rows, blocks
from kindsight.dataset.columns.texts import TextColumn

__all__ = ["FEW_NAMES", "CodeColumn", "NumberColumn"]

FEW_NAMES = 1 << 16
"""Maximum number of names that are stored as a plain tuple."""


class CodeColumn(Column[Any]):
    """Values of which many are equal, as codes.

    Parameters
    ----------
    codes : integer array, (rows,)
        The index of each row's value in `names`; -1 for None.
    names : sequence
        The distinct values; some may occur in no row.
    """

    __slots__ = ("codes", "names")

    def __init__(self, codes: NDArray[np.integer[Any]], names: Sequence[Any]) -> None:
        kinds = (np.int8, np.int16, np.int32)
        small = next(kind for kind in kinds if len(names) <= np.iinfo(kind).max)
        if codes.dtype.itemsize > np.dtype(small).itemsize:
            codes = codes.astype(small)
        self.codes: NDArray[np.integer[Any]] = codes
        self.names = names

    @classmethod
    def of(cls, values: Iterable[Any]) -> CodeColumn:
        """Return the column of some values; names are in the order of their first rows."""
        index: dict[Any, int] = {None: -1}
        parts = [np.zeros(0, np.int32)]
        for block in blocks(values):
            parts.append(
                np.fromiter(
                    (index.setdefault(value, len(index) - 1) for value in block),
                    np.int32,
                    len(block),
                )
            )
        return cls(np.concatenate(parts), _names(index))

    @classmethod
    def constant(cls, value: Any, rows: int) -> CodeColumn:
        """Return a column of one value in all rows."""
        code = np.int8(-1 if value is None else 0)
        return cls(np.broadcast_to(code, rows), () if value is None else (value,))

    @classmethod
    def joined(cls, columns: Sequence[CodeColumn]) -> CodeColumn:
        """Return columns one after the other."""
        index: dict[Any, int] = {None: -1}
        codes = []
        for column in columns:
            new = [index.setdefault(name, len(index) - 1) for name in (*column.names, None)]
            codes.append(np.array(new, np.int32)[column.codes])
        return cls(np.concatenate(codes), _names(index))

    def __len__(self) -> int:
        return len(self.codes)

    def __contains__(self, value: object) -> bool:
        return bool(self.equals(value).any())

    def values(self, start: int, stop: int) -> list[Any]:
        """Return the rows from `start` up to `stop`."""
        codes = self.codes[start:stop]
        if isinstance(self.names, Column):
            found = list(self.names.take(np.maximum(codes, 0)))
            return [None if k < 0 else one for one, k in zip(found, codes.tolist(), strict=True)]
        names = self.names
        return [None if code < 0 else names[code] for code in codes.tolist()]

    def take(self, rows: Rows) -> CodeColumn:
        """Return some rows, with the same names."""
        return CodeColumn(self.codes[rows], self.names)

    def equals(self, value: object) -> NDArray[np.bool_]:
        """Return which rows have a value: bool (rows,)."""
        if value is None:
            return self.codes < 0
        try:
            code = self.names.index(value)
        except ValueError:
            return np.zeros(len(self), bool)
        return np.asarray(self.codes == code)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the first row with a value; ValueError if there is none."""
        found = np.flatnonzero(self.equals(value)[start:stop])
        if not len(found):
            raise ValueError(f"{value!r} is in no row")
        return start + int(found[0])

    def counts(self) -> NDArray[np.int64]:
        """Return the number of rows of each name, and of None last: int64 (names + 1,)."""
        counts = np.zeros(len(self.names) + 1, np.int64)
        for start in range(0, len(self), BLOCK_BYTES):
            part = self.codes[start : start + BLOCK_BYTES].astype(np.int64)
            counts += np.bincount(part % len(counts), minlength=len(counts))
        return counts

    def mapped(self, new: Callable[[Any], Any]) -> CodeColumn:
        """Return the column with each value that occurs replaced; None may be replaced, too.

        `new` is called once for each distinct value, in the order of names, None last.
        """
        counts = self.counts()
        index: dict[Any, int] = {None: -1}
        codes = np.full(len(counts), -1, np.int32)
        for k, value in enumerate((*self.names, None)):
            if counts[k]:
                codes[k] = index.setdefault(new(value), len(index) - 1)
        return CodeColumn(codes[self.codes], _names(index))

    def first_rows(self) -> NDArray[np.int64]:
        """Return the first row of each name, and of None last; the number of rows if none."""
        first = np.full(len(self.names) + 1, len(self), np.int64)
        for start in reversed(range(0, len(self), BLOCK_BYTES)):
            part = self.codes[start : start + BLOCK_BYTES]
            first[part[::-1]] = np.arange(start, start + len(part))[::-1]
        return first


class NumberColumn(Column[int]):
    """Whole numbers, as an int64 array."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.numbers = numbers

    @classmethod
    def of(cls, numbers: Sequence[int]) -> NumberColumn:
        """Return the column of some numbers."""
        return cls(np.fromiter(numbers, np.int64, len(numbers)))

    @classmethod
    def joined(cls, columns: Sequence[NumberColumn]) -> NumberColumn:
        """Return columns one after the other."""
        return cls(np.concatenate([column.numbers for column in columns]))

    def __len__(self) -> int:
        return len(self.numbers)

    def values(self, start: int, stop: int) -> list[int]:
        """Return the rows from `start` up to `stop`."""
        found: list[int] = self.numbers[start:stop].tolist()
        return found

    def take(self, rows: Rows) -> NumberColumn:
        """Return some rows."""
        return NumberColumn(self.numbers[rows])


def _names(index: dict[Any, int]) -> Sequence[Any]:
    """Return the keys of an index without the first one, which is None."""
    if len(index) > FEW_NAMES and all(isinstance(name, str) for name in islice(index, 1, None)):
        return TextColumn.of(islice(index, 1, None))
    return tuple(islice(index, 1, None))
