"""Make columns from values and from other columns; count, compare and take their rows.

All functions also take tuples, the columns of datasets of few rows.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.base import BLOCK, Column, Rows
from kindsight.dataset.columns.codes import FEW_NAMES, CodeColumn, NumberColumn
from kindsight.dataset.columns.texts import BytesColumn, TextColumn

__all__ = [
    "COMPACT_ROWS", "as_codes", "as_column", "concatenate", "count_pairs", "count_values",
    "first_equal", "has_missing", "is_equal", "same_rows", "sort_order", "take_rows",
]  # fmt: skip

COMPACT_ROWS = 100_000
"""Number of rows from which columns are compact. Tuples are faster, but take about 100 bytes a
row."""

T = TypeVar("T")


def as_column(name: str, values: Iterable[Any], default: Any, rows: int) -> Sequence[Any]:
    """Return a column of a dataset: a tuple, or a compact one from :data:`COMPACT_ROWS` rows.

    Parameters
    ----------
    name : str
        ``"path"``, ``"label"``, ``"split"``, ``"group"``, ``"digest"`` or ``"size"``.
    values : iterable
        The values; if empty, every row is `default`.
    default : str, int or None
        The value of a column that is left out.
    rows : int
        The number of rows of the dataset.
    """
    if rows < COMPACT_ROWS:
        return tuple(values) or (default,) * rows
    if not isinstance(values, Sequence):
        values = tuple(values)
    kinds = _KINDS[name]
    if isinstance(values, kinds) and len(values) == rows:
        return values
    if kinds[0] is NumberColumn:
        if not values:
            return NumberColumn(np.broadcast_to(np.int64(default), rows))
        return NumberColumn.of(values)
    if kinds[0] is CodeColumn or not values:
        return as_codes(values) if values else CodeColumn.constant(default, rows)
    return (BytesColumn.of(values) if name == "digest" else None) or TextColumn.of(values)


_KINDS: dict[str, tuple[type[Column[Any]], ...]] = {
    "path": (TextColumn,),
    "label": (CodeColumn,),
    "split": (CodeColumn,),
    "group": (CodeColumn,),
    "digest": (BytesColumn, TextColumn, CodeColumn),
    "size": (NumberColumn,),
}


def as_codes(values: Sequence[Any]) -> CodeColumn:
    """Return a column as codes of its distinct values, in the order of their first rows.

    A column of codes is returned unchanged, whatever the order of its names.
    """
    if isinstance(values, CodeColumn):
        return values
    if not isinstance(values, (TextColumn, BytesColumn)):
        return CodeColumn.of(values)
    first = first_equal(values)
    distinct = np.flatnonzero(first == np.arange(len(first)))
    if values.missing is not None:
        distinct = distinct[~values.missing[distinct]]
    number = np.full(len(values), -1, np.int32)
    number[distinct] = np.arange(len(distinct))
    names = values.take(distinct)
    return CodeColumn(number[first], tuple(names) if len(names) <= FEW_NAMES else names)


def first_equal(column: TextColumn | BytesColumn | CodeColumn) -> NDArray[np.int64]:
    """Return for each row the first row that has the same value: int64 (rows,)."""
    if isinstance(column, CodeColumn):
        found: NDArray[np.int64] = column.first_rows()[column.codes]
        return found
    hashes = column.hashes()
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    new = np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)]
    rows = np.arange(len(order))
    if new.all():
        return rows
    first = np.empty_like(order)
    first[order] = order[np.maximum.accumulate(np.where(new, rows, 0))]
    if same_rows(column, rows, first).all():
        return first
    # Two values have the same hash, as in one of 10^5 columns of 10^7 rows.
    index: dict[Any, int] = {}
    return np.fromiter(
        (index.setdefault(v, k) for k, v in enumerate(column)), np.int64, len(column)
    )


def same_rows(
    column: TextColumn | BytesColumn, rows: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether each pair of rows has equal values: bool, of the shape of `rows`."""
    same: NDArray[np.bool_] = np.equal(rows, others)
    if isinstance(column, BytesColumn) and column.missing is None:
        for start in range(0, len(rows), BLOCK):
            some = slice(start, start + BLOCK)
            same[some] = (column.data[rows[some]] == column.data[others[some]]).all(axis=1)
        return same
    for start in range(0, len(rows), BLOCK):
        pairs = start + np.flatnonzero(~same[start : start + BLOCK])
        if not len(pairs):
            continue
        one, two = column.take(rows[pairs]), column.take(others[pairs])
        same[pairs] = [a == b for a, b in zip(one, two, strict=True)]
    return same


def concatenate(columns: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Return the columns one after the other; a tuple if all are tuples."""
    kinds = {type(column) for column in columns if isinstance(column, Column)}
    if not kinds:
        return tuple(chain.from_iterable(columns))
    kind: Any = kinds.pop() if len(kinds) == 1 else TextColumn
    if kind is BytesColumn and len({_width(column) for column in columns}) > 1:
        kind = TextColumn
    joined: Column[Any] = kind.joined(
        [column if isinstance(column, kind) else kind.of(column) for column in columns]
    )
    return joined


def _width(column: Sequence[Any]) -> int:
    return column.data.shape[1] if isinstance(column, BytesColumn) else -1


def has_missing(column: Sequence[Any]) -> bool:
    """Return whether a value is None."""
    if isinstance(column, (TextColumn, BytesColumn)):
        return column.missing is not None and bool(column.missing.any())
    return None in column


def count_values(column: Sequence[T]) -> Counter[T]:
    """Return the number of rows of each value."""
    if not isinstance(column, CodeColumn):
        return Counter(column)
    counts = column.counts()
    present = np.flatnonzero(counts)
    return Counter(dict(zip(_named(column, present), counts[present].tolist(), strict=True)))


def count_pairs(first: Sequence[Any], second: Sequence[Any]) -> Counter[tuple[Any, Any]]:
    """Return the number of rows of each pair of values of two columns."""
    one, two = as_codes(first), as_codes(second)
    width = len(two.names) + 1
    size = (len(one.names) + 1) * width
    if size > BLOCK:
        pairs = (one.codes.astype(np.int64) % (len(one.names) + 1)) * width
        found, counts = np.unique(pairs + two.codes.astype(np.int64) % width, return_counts=True)
    else:
        counts = np.zeros(size, np.int64)
        for start in range(0, len(one), BLOCK):
            rows = slice(start, start + BLOCK)
            pairs = (one.codes[rows].astype(np.int64) % (len(one.names) + 1)) * width
            counts += np.bincount(pairs + two.codes[rows].astype(np.int64) % width, minlength=size)
        found = np.flatnonzero(counts)
        counts = counts[found]
    names = zip(_named(one, found // width), _named(two, found % width), strict=True)
    return Counter(dict(zip(names, counts.tolist(), strict=True)))


def _named(column: CodeColumn, codes: NDArray[np.int64]) -> CodeColumn:
    """Return the values of the codes; the last code stands for None."""
    return CodeColumn(np.where(codes < len(column.names), codes, -1), column.names)


def sort_order(texts: TextColumn) -> NDArray[np.int64]:
    """Return the rows sorted by their texts, which contain no NUL: int64 (rows,)."""
    width = int(texts.lengths.max(initial=1))
    if width * len(texts) > _PADDED * (len(texts.data) + BLOCK):
        every = list(texts)
        return np.array(sorted(range(len(every)), key=every.__getitem__), np.int64)
    padded = np.zeros((len(texts), width), np.uint8)
    for start in range(0, len(texts), BLOCK):
        part = texts.take(slice(start, start + BLOCK))
        columns = np.arange(len(part.data)) - np.repeat(part.offsets[:-1], part.lengths)
        padded[start + np.repeat(np.arange(len(part)), part.lengths), columns] = part.data
    return np.argsort(padded.view(f"S{width}")[:, 0], kind="stable")


_PADDED = 4
"""Limit of the memory in which texts are sorted at once, relative to their own."""


def is_equal(column: Sequence[Any], value: object) -> NDArray[np.bool_]:
    """Return which rows of a column have a value: bool (rows,)."""
    if isinstance(column, CodeColumn):
        return column.equals(value)
    if isinstance(column, NumberColumn):
        return np.broadcast_to(column.numbers == value, len(column))
    if isinstance(column, (TextColumn, BytesColumn)) and value is None:
        return np.zeros(len(column), bool) if column.missing is None else column.missing
    return np.fromiter((cell == value for cell in column), bool, len(column))


def take_rows(column: Sequence[Any], rows: Rows) -> Sequence[Any]:
    """Return some rows of a column, of the same kind."""
    if isinstance(column, Column):
        return column.take(rows)
    if isinstance(rows, slice):
        return tuple(column[rows])
    picked = rows.tolist()
    if len(picked) > 1:
        found: tuple[Any, ...] = operator.itemgetter(*picked)(column)  # faster than a generator
        return found
    return tuple(column[row] for row in picked)
