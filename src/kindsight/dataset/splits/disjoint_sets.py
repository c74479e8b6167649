"""Disjoint sets of rows, and rows with equal values, without a Python object per row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import first_equal
from kindsight.dataset.columns.texts import BytesColumn, TextColumn

__all__ = ["DisjointSets", "equal_rows", "first_rows"]

Pairs = NDArray[np.int64] | NDArray[np.int32]


class DisjointSets:
    """Disjoint sets of rows, merged many pairs at a time (union-find).

    Parameters
    ----------
    n : int
        Number of rows; each starts as a separate set.
    """

    def __init__(self, n: int) -> None:
        self._root = np.arange(n)

    def roots(self) -> NDArray[np.int64]:
        """Return the smallest row of each row's set, int64 (n,)."""
        return self._root

    def separate(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Return whether the rows of each pair, int64 (m, 2), are in different sets."""
        different: NDArray[np.bool_] = self._root[pairs[:, 0]] != self._root[pairs[:, 1]]
        return different

    def merge(self, pairs: Pairs) -> None:
        """Merge the sets of each pair, int64 (m, 2)."""
        while len(pairs := pairs[self.separate(pairs)]):
            one, other = self._root[pairs[:, 0]], self._root[pairs[:, 1]]
            parent = self._root.copy()
            # Several pairs may move one set: the smallest row wins, the others are tried again.
            np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
            while not np.array_equal(above := parent[parent], parent):
                parent = above
            self._root = parent

    def groups(self) -> list[NDArray[np.int64]]:
        """Return the sets of two or more rows, ascending, ordered by their first row."""
        sizes = np.bincount(self._root, minlength=len(self._root))
        rows = np.flatnonzero(sizes[self._root] > 1)
        rows = rows[np.argsort(self._root[rows], kind="stable")]
        first = np.flatnonzero(sizes > 1)
        ends = np.cumsum(sizes[first]).tolist()
        starts = [0, *ends[:-1]]
        return [rows[start:end] for start, end in zip(starts, ends, strict=False)]


def first_rows(
    column: Sequence[Any], key: Callable[[Any], Hashable] | None = None
) -> NDArray[np.int64]:
    """Return, for each row, the first row with its value, int64 (n,); for None, the row itself.

    - `key`: function of a value, by which values are compared.
    """
    n = len(column)
    if key is None and isinstance(column, (CodeColumn, TextColumn, BytesColumn)):
        known = np.ones(n, bool)
        if isinstance(column, CodeColumn):
            known = column.codes >= 0
        elif column.missing is not None:
            known = ~column.missing
        return np.where(known, first_equal(column), np.arange(n))
    hashes = np.fromiter(map(hash, column if key is None else map(key, column)), np.int64, n)
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(np.diff(hashes[order]) == 0) + 1
    first = np.arange(n)
    found: dict[Hashable, int] = {}
    before = -1
    for place in again.tolist():
        row, previous = int(order[place]), int(order[place - 1])
        value, last = column[row], column[previous]
        if key is not None:
            value, last = key(value), key(last)
        if place != before + 1:  # another hash, which different values may share
            found = {last: previous}
        before = place
        if value is not None:
            first[row] = found.setdefault(value, row)
    return first


def equal_rows(
    column: Sequence[Any], key: Callable[[Any], Hashable] | None = None
) -> list[NDArray[np.int64]]:
    """Return the groups of two or more rows with equal values, ordered by their first row."""
    first = first_rows(column, key)
    sets = DisjointSets(len(first))
    sets.merge(np.stack((first, np.arange(len(first))), axis=1))
    return sets.groups()
