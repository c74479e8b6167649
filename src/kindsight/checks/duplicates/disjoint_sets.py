"""What belongs together: pairs become groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Groups"]


class Groups:
    """Disjoint sets of rows, joined by pairs (Tarjan's union-find, many pairs at a time).

    Parameters
    ----------
    n : int
        How many rows; each is alone at first.
    """

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def leaders(self) -> NDArray[np.int64]:
        """Return for each row the least row of its group, int64 (n,)."""
        while True:
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return self._parent
            self._parent = above

    def apart(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which pairs, int64 (m, 2), are of two groups."""
        leader = self.leaders()
        separate: NDArray[np.bool_] = leader[pairs[:, 0]] != leader[pairs[:, 1]]
        return separate

    def join(self, pairs: NDArray[np.int64]) -> None:
        """Join the groups of each pair, int64 (m, 2)."""
        parent = self.leaders()
        while len(pairs):
            one, other = parent[pairs[:, 0]], parent[pairs[:, 1]]
            low, high = np.minimum(one, other), np.maximum(one, other)
            # Several pairs may want to move one group: the least row wins, the rest go round again.
            np.minimum.at(parent, high, low)
            parent = self.leaders()
            pairs = pairs[parent[pairs[:, 0]] != parent[pairs[:, 1]]]

    def of_several(self) -> list[NDArray[np.int64]]:
        """Return the groups of two rows and more; the rows of each ascend, as do their firsts."""
        leader = self.leaders()
        order = np.argsort(leader, kind="stable")
        starts = np.flatnonzero(np.diff(leader[order], prepend=-1))
        return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]

    def copy(self) -> Groups:
        """Return groups that can be joined further without changing these."""
        other = Groups(0)
        other._parent = self.leaders().copy()
        return other
