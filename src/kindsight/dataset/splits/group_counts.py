"""The number of images of each class in each group, without the zeros."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GroupCounts"]


class GroupCounts(NamedTuple):
    """Images of each class in each of n groups, as sparse rows: memory grows with the images.

    Most groups have images of few classes. A dense array of a million groups and a thousand classes
    would need 8 GB.
    """

    starts: NDArray[np.int64]  # (n + 1,): where each group begins in the other arrays, and the end
    classes: NDArray[np.int64]  # class index, ascending in each group
    images: NDArray[np.int64]  # images of this class in the group, at least 1

    @classmethod
    def of(cls, groups: NDArray[np.int64], classes: NDArray[np.int64], n: int) -> GroupCounts:
        """Count images: the group, 0 to `n` - 1, and the class of each."""
        order = np.lexsort((classes, groups))
        groups, classes = groups[order], classes[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (np.diff(groups) != 0) | (np.diff(classes) != 0)
        first = np.flatnonzero(new)
        starts = np.searchsorted(groups[first], np.arange(n + 1))
        return cls(starts, classes[first], np.diff(first, append=len(order)))

    @property
    def n(self) -> int:
        """The number of groups."""
        return len(self.starts) - 1

    @property
    def groups(self) -> NDArray[np.int64]:
        """The group of each entry of `classes` and `images`."""
        return np.repeat(np.arange(self.n), np.diff(self.starts))

    def take(self, groups: NDArray[np.int64], classes: NDArray[np.int64]) -> GroupCounts:
        """Return some groups and classes; the i-th of `classes`, ascending, becomes class i."""
        lengths = np.diff(self.starts)[groups]
        ends = np.cumsum(lengths)
        at = np.arange(lengths.sum()) + np.repeat(self.starts[groups] - ends + lengths, lengths)
        number = np.repeat(np.arange(len(groups)), lengths)
        column = np.searchsorted(classes, self.classes[at])
        there = column < len(classes)
        there[there] = classes[column[there]] == self.classes[at][there]
        starts = np.searchsorted(number[there], np.arange(len(groups) + 1))
        return GroupCounts(starts, column[there], self.images[at][there])

    def dense(self, groups: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
        """Return some groups as an array, int64 (groups, n_classes)."""
        some = self.take(groups, np.arange(n_classes))
        result = np.zeros((len(groups), n_classes), np.int64)
        result[some.groups, some.classes] = some.images
        return result

    def sums(
        self, chosen: NDArray[np.bool_], n_classes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of images, and of groups, of each class in the chosen groups."""
        there = np.repeat(chosen, np.diff(self.starts))
        classes = self.classes[there]
        images = np.zeros(n_classes, np.int64)
        np.add.at(images, classes, self.images[there])
        return images, np.bincount(classes, minlength=n_classes)

    def group_sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum of `values`, one for each entry, in each group: float64 (n,)."""
        sums: NDArray[np.float64] = np.zeros(self.n)
        sums += np.bincount(self.groups, values, self.n)
        return sums
