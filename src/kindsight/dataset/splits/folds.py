"""Cross-validation folds: stratified, grouped, independent of the order of rows."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kindsight.dataset.splits.groups import Group, build_groups, content_key
from kindsight.errors import SettingsError

__all__ = ["fold_indices"]


def fold_indices(
    labels: ArrayLike,
    groups: ArrayLike | None,
    folds: int,
    seed: int,
    keys: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Return the index of the fold in which each row is held out.

    Parameters
    ----------
    labels : integer array of shape (n,)
        Class indices.
    groups : integer or text array of shape (n,), or None
        Rows of one group go into one fold; None: each row is its own group.
    folds : int
        At least 2, at most the number of groups.
    seed : int
        Another seed gives other folds.
    keys : sequence of str, optional
        Identifies each row's content, such as its digest. The folds then do not depend on the order
        of rows, if rows of one class and different groups have different keys. Without keys, the
        row index is used.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        0 to folds - 1. If every group is one row, the sizes of any two folds, and their numbers of
        each class, differ by at most one.

    Raises
    ------
    SettingsError
        If there are fewer than 2 folds, or more than groups.
    ValueError
        If `labels`, `groups` and `keys` differ in length.
    """
    targets: list[int] = np.asarray(labels, np.int64).tolist()
    n = len(targets)
    given = list(range(n)) if groups is None else np.asarray(groups).tolist()
    content = [str(row) for row in range(n)] if keys is None else list(keys)
    if not len(given) == len(content) == n:
        raise ValueError(
            f"labels, groups and keys must have the same length; got {n}, {len(given)} and "
            f"{len(content)}"
        )
    index: dict[object, int] = {}
    indices = [index.setdefault(group, len(index)) for group in given]
    if not 2 <= folds <= len(index):
        raise SettingsError(
            f"folds must be between 2 and the number of groups, {len(index):,}; got {folds}."
        )
    row_keys = [
        content_key(seed, "folds", key, str(target))
        for key, target in zip(content, targets, strict=True)
    ]
    return _distribute(build_groups(range(n), targets, indices, row_keys), folds, n)


def _distribute(groups: list[Group], folds: int, n: int) -> NDArray[np.int64]:
    """Assign large groups first, each to the fold it unbalances least; then single rows.

    Of equally good folds, the group gets the first one at or after a fold that its key selects. The
    rule prefers no fold: each one is equally likely for every group, even the largest.
    """
    result = np.empty(n, np.int64)
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0] * folds)
    total = [0] * folds
    large = sorted((g for g in groups if len(g.rows) > 1), key=lambda g: -len(g.rows))
    for group in large:
        start = _start(group, folds)

        def cost(fold: int, group: Group = group, start: int = start) -> tuple[int, int, int]:
            squares = sum(2 * counts[k][fold] * m + m * m for k, m in group.counts.items())
            return squares, total[fold], (fold - start) % folds

        fold = min(range(folds), key=cost)
        result[group.rows] = fold
        total[fold] += len(group.rows)
        for k, m in group.counts.items():
            counts[k][fold] += m
    singles: defaultdict[int, list[Group]] = defaultdict(list)
    for group in groups:
        if len(group.rows) == 1:
            singles[next(iter(group.counts))].append(group)
    for k in sorted(singles):
        # Without large groups, every single row is as likely to be the first.
        start = _start(singles[k][0], folds) if large else 0
        _fill([group.rows[0] for group in singles[k]], counts[k], total, start, result)
    return result


def _start(group: Group, folds: int) -> int:
    """Return the fold that a group prefers; the first half of its key decides its place."""
    return int.from_bytes(group.key[8:], "little") % folds


def _fill(
    rows: list[int], count: list[int], total: list[int], start: int, result: NDArray[np.int64]
) -> None:
    """Assign each row of a class to the fold with the fewest of the class, then the fewest rows."""
    folds = len(total)
    heap = [(count[fold], total[fold], (fold - start) % folds) for fold in range(folds)]
    heapq.heapify(heap)
    for row in rows:
        n, size, place = heap[0]
        fold = (place + start) % folds
        result[row] = fold
        total[fold] = size + 1
        heapq.heapreplace(heap, (n + 1, size + 1, place))
