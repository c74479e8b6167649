"""Merge pairs of rows into disjoint groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["DisjointSets"]


class DisjointSets:
    """Disjoint sets of rows, merged many pairs at a time (union-find).

    Parameters
    ----------
    n : int
        Number of rows; each row starts as a set of its own.
    """

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def roots(self) -> NDArray[np.int64]:
        """Return the smallest row of each row's set, int64 (n,)."""
        while True:
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return self._parent
            self._parent = above

    def separate(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether the rows of each pair, int64 (m, 2), are in different sets."""
        root = self.roots()
        different: NDArray[np.bool_] = root[pairs[:, 0]] != root[pairs[:, 1]]
        return different

    def merge(self, pairs: NDArray[np.int64]) -> None:
        """Merge the sets of each pair, int64 (m, 2)."""
        parent = self.roots()
        while len(pairs):
            one, other = parent[pairs[:, 0]], parent[pairs[:, 1]]
            low, high = np.minimum(one, other), np.maximum(one, other)
            # Several pairs may move one set: the smallest row wins, the others are repeated.
            np.minimum.at(parent, high, low)
            parent = self.roots()
            pairs = pairs[parent[pairs[:, 0]] != parent[pairs[:, 1]]]

    def groups(self) -> list[NDArray[np.int64]]:
        """Return the sets of two or more rows, ascending, ordered by their first row."""
        root = self.roots()
        order = np.argsort(root, kind="stable")
        starts = np.flatnonzero(np.diff(root[order], prepend=-1))
        return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
