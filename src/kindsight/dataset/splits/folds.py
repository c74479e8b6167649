"""Numbered folds for cross-validation: stratified, grouped, drawn by key."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kindsight.dataset.splits.groups import Unit, build_groups, content_key
from kindsight.errors import SettingsError

__all__ = ["fold_indices"]


def fold_indices(
    labels: ArrayLike,
    units: ArrayLike | None,
    folds: int,
    seed: int,
    keys: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Give every row the number of the fold in which it is held out.

    Parameters
    ----------
    labels : integer array of shape (n,)
        The class of each row.
    units : integer or text array of shape (n,), or None
        Rows of one unit go into one fold; None: each row stands alone.
    folds : int
        At least 2, at most the number of units.
    seed : int
        Another seed gives other folds.
    keys : sequence of str, optional
        What each row is drawn by, such as its digest: the folds then do not depend on the order
        of rows, as long as rows of one class and different units have different keys. Without
        keys a row is drawn by its place.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        0 to folds - 1. If every unit is one row, each class's numbers in any two folds differ by
        at most one, and so do the sizes of the folds.

    Raises
    ------
    SettingsError
        If there are fewer than 2 folds, or more than units.
    ValueError
        If `labels`, `units` and `keys` differ in length.
    """
    targets: list[int] = np.asarray(labels, np.int64).tolist()
    n = len(targets)
    given = list(range(n)) if units is None else np.asarray(units).tolist()
    content = [str(row) for row in range(n)] if keys is None else list(keys)
    if not len(given) == len(content) == n:
        raise ValueError(
            f"labels, units and keys must have one length. Received: {n}, {len(given)}, "
            f"{len(content)}"
        )
    number: dict[object, int] = {}
    numbers = [number.setdefault(unit, len(number)) for unit in given]
    if not 2 <= folds <= len(number):
        raise SettingsError(
            f"folds must be between 2 and the number of images that can be parted, "
            f"{len(number):,}. Received: {folds}"
        )
    drawn = [
        content_key(seed, "folds", key, str(target))
        for key, target in zip(content, targets, strict=True)
    ]
    made = build_groups(range(n), targets, numbers, drawn)
    return _spread(made, folds, n)


def _spread(units: list[Unit], folds: int, n: int) -> NDArray[np.int64]:
    """Place large units first where they do least harm; then fill up with single rows."""
    result = np.empty(n, np.int64)
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0] * folds)
    total = [0] * folds
    large = sorted((u for u in units if len(u.rows) > 1), key=lambda u: -len(u.rows))
    for unit in large:

        def harm(fold: int, unit: Unit = unit) -> tuple[int, int, int]:
            squares = sum(2 * counts[k][fold] * m + m * m for k, m in unit.counts.items())
            return squares, total[fold], fold

        fold = min(range(folds), key=harm)
        result[unit.rows] = fold
        total[fold] += len(unit.rows)
        for k, m in unit.counts.items():
            counts[k][fold] += m
    singles: defaultdict[int, list[int]] = defaultdict(list)
    for unit in units:
        if len(unit.rows) == 1:
            singles[next(iter(unit.counts))].append(unit.rows[0])
    for k in sorted(singles):
        _fill(singles[k], counts[k], total, result)
    return result


def _fill(rows: list[int], count: list[int], total: list[int], result: NDArray[np.int64]) -> None:
    """Put each row of one class into the fold that has fewest of the class, then fewest rows."""
    heap = [(count[fold], total[fold], fold) for fold in range(len(total))]
    heapq.heapify(heap)
    for row in rows:
        have, size, fold = heap[0]
        result[row] = fold
        total[fold] = size + 1
        heapq.heapreplace(heap, (have + 1, size + 1, fold))
