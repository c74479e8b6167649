"""The base class of all columns, and blocks of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "BLOCK_BYTES", "Column", "Rows", "blocks"]

BLOCK = 1 << 16
"""Rows that are converted to Python objects, or back, at a time."""

BLOCK_BYTES = 1 << 18
"""Bytes of texts or codes that are processed at a time."""


T = TypeVar("T")
Rows = slice | NDArray[np.integer[Any]]
"""Rows to take: a slice, or row numbers from 0."""


class Column(Sequence[T], Generic[T]):
    """An immutable sequence of values of one kind; equal to a tuple of the same values."""

    __slots__ = ()

    @abstractmethod
    def take(self, rows: Rows) -> Column[T]:
        """Return the values of the given rows."""

    @abstractmethod
    def values(self, start: int, stop: int) -> list[T]:
        """Return the rows from `start` up to `stop` as Python objects."""

    @overload
    def __getitem__(self, key: int) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[T]: ...
    def __getitem__(self, key: int | slice) -> T | Sequence[T]:
        if isinstance(key, slice):
            return self.take(key)
        row = key.__index__()
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(f"rows are 0 to {len(self) - 1}; got {key}")
        return self.values(row, row + 1)[0]

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), BLOCK):
            yield from self.values(start, min(start + BLOCK, len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values(0, len(self)), dtype)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the first row with a value; ValueError if there is none."""
        for row, one in enumerate(self):
            if one == value and row >= start and (stop is None or row < stop):
                return row
        raise ValueError(f"{value!r} is in no row")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (tuple, Column)):
            return NotImplemented
        if len(self) != len(other):
            return False
        if type(self) is type(other) and self._same(other):
            return True
        return all(a == b for a, b in zip(self, other, strict=True))

    def _same(self, other: Any) -> bool:
        """Return whether a column of the same type has equal arrays; others may be equal, too."""
        names: tuple[str, ...] = tuple(self.__slots__)
        pairs = ((getattr(self, name), getattr(other, name)) for name in names)
        return all(
            np.array_equal(a, b)
            if isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
            else a == b
            for a, b in pairs
        )

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: Sequence[Any]) -> tuple[Any, ...]:
        if not isinstance(other, (tuple, Column)):
            return NotImplemented
        return (*self, *other)

    def __radd__(self, other: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*other, *self) if isinstance(other, tuple) else NotImplemented

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.values(0, min(4, len(self)))))
        return f"<{type(self).__name__} of {len(self):,} rows: {shown}{', ...' * (len(self) > 4)}>"


def blocks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield lists of :data:`BLOCK` values."""
    iterator = iter(values)
    while block := list(islice(iterator, BLOCK)):
        yield block
