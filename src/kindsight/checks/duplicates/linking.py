"""Link rows of similar images into sets with few comparisons.

Thirty frames of one video are 435 candidate pairs, but 29 comparisons link them all. As in
Boruvka's algorithm (1926) each set proposes its most promising pair with another set; the pairs of
one round are compared together. A set whose comparisons fail proposes one more pair for each
failure, so that the number of rounds grows with the logarithm of the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.disjoint_sets import DisjointSets

__all__ = ["Compared", "link_pairs"]

Pairs = NDArray[np.int64]


class Compared(NamedTuple):
    """Result of a comparison of pairs."""

    confirmed: NDArray[np.bool_]  # whether each pair is linked
    values: NDArray[np.float64]  # correlation of each pair


def link_pairs(
    sets: DisjointSets,
    pairs: Pairs,
    compare: Callable[[Pairs], Compared],
    report: Callable[[int], None] = lambda decided: None,
) -> tuple[Pairs, NDArray[np.float64]]:
    """Merge the sets of all pairs that a comparison confirms.

    A pair whose rows are in one set already is not compared. The resulting sets are the same as if
    all pairs were compared.

    - `pairs`: int64 array (m, 2); the most promising first.
    - `compare`: compares pairs, int64 (k, 2), sorted by their first row.
    - `report`: called with the number of pairs that are decided.

    Returns
    -------
    pairs : int64 array (k, 2)
        The confirmed pairs.
    values : float64 array (k,)
        Their values.
    """
    linked, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    failures, count = np.zeros(len(sets.roots()), np.int64), len(pairs)
    while len(pairs := pairs[sets.separate(pairs)]):
        report(count - len(pairs))
        chosen = _proposed(sets.roots(), pairs, failures)
        some = pairs[chosen]
        some = some[np.lexsort((some[:, 1], some[:, 0]))]
        found = compare(some)
        confirmed = some[found.confirmed]
        sets.merge(confirmed)
        linked.append(confirmed)
        values.append(found.values[found.confirmed])
        failed = some[~found.confirmed].reshape(-1)
        failures += np.bincount(failed, minlength=len(failures))
        pairs = pairs[~chosen]
    report(count)
    return np.concatenate(linked), np.concatenate(values)


def _proposed(
    roots: NDArray[np.int64], pairs: Pairs, failures: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether each pair is among the first 1 + failures pairs of one of its two sets."""
    allowed = 1 + np.bincount(roots, failures, len(roots)).astype(np.int64)
    ends = roots[pairs].reshape(-1)  # the sets of both rows of each pair
    order = np.argsort(ends, kind="stable")
    number = np.arange(len(order))
    starts = np.diff(ends[order], prepend=-1) != 0
    rank = number - np.maximum.accumulate(np.where(starts, number, 0))  # of a pair within a set
    chosen: NDArray[np.bool_] = np.zeros(len(pairs), np.bool_)
    chosen[order[rank < allowed[ends[order]]] // 2] = True
    return chosen
