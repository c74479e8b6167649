"""A small classifier on measurements alone, which may tell parts or classes apart.

Each measurement is cut into bins, and a regularised least-squares fit on the bins (an additive
model, solved in closed form) answers with one of the kinds. Cross-validation says how often it is
right, every kind counting alike; where it is right much more often than by guessing, the kinds
differ in something that is not what the pictures show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.folds import fold_indices

__all__ = ["Telling", "binned", "tell_apart"]

FOLDS = 5
BINS = 8
WORDS = 15
"""Different texts of a column that are told apart; rarer ones count as one."""

RIDGE = 1.0
CONFIDENCE = 1.96


@dataclass(frozen=True)
class Telling:
    """How well kinds are told apart.

    Parameters
    ----------
    accuracy : float
        Balanced: the mean share of each kind that is answered right, 0 to 1.
    low, high : float
        Its 95% interval, by the normal approximation.
    chance : float
        What guessing gives.
    """

    accuracy: float
    low: float
    high: float
    chance: float

    @property
    def skill(self) -> float:
        """How far the interval's lower end is from guessing (0) to always being right (1)."""
        return (self.low - self.chance) / (1 - self.chance)


def tell_apart(
    columns: Mapping[str, NDArray[Any]],
    kinds: NDArray[np.int64],
    units: NDArray[np.int64],
    seed: int = 0,
) -> Telling:
    """Cross-validate a classifier of kinds on some columns.

    Parameters
    ----------
    columns : mapping of str to array (n,)
        Numbers (NaN where there is none) or texts.
    kinds : int64 array (n,)
        0 to k - 1, at least two of each and k at least 2.
    units : int64 array (n,)
        Rows of one unit (copies, pictures of one patient) are held out together.
    seed : int
        Of the folds.
    """
    count = int(kinds.max()) + 1
    bins = np.concatenate([binned(column) for column in columns.values()], axis=1)
    sizes = np.bincount(kinds, minlength=count)
    folds = max(2, min(FOLDS, int(sizes.min()), len(np.unique(units))))
    fold = fold_indices(kinds, units, folds, seed)
    right = np.empty(len(kinds), np.bool_)
    for held in range(folds):
        out = fold == held
        kernel = _fit(bins[~out], kinds[~out], count)
        right[out] = (bins[out] @ kernel).argmax(axis=1) == kinds[out]
    shares = np.bincount(kinds, weights=right, minlength=count) / sizes
    # One right and one wrong more in each kind, so that no interval is of no width.
    smoothed = (shares * sizes + 1) / (sizes + 2)
    spread = CONFIDENCE * float(np.sqrt((smoothed * (1 - smoothed) / sizes).sum())) / count
    accuracy = float(shares.mean())
    low, high = max(0.0, accuracy - spread), min(1.0, accuracy + spread)
    return Telling(accuracy, low, high, 1 / count)


def binned(column: NDArray[Any]) -> NDArray[np.float32]:
    """Cut a column into bins, each a column of zeros and ones.

    Parameters
    ----------
    column : array (n,)
        Numbers are cut at their quantiles, what is not a number being a bin of its own; of texts
        the commonest :data:`WORDS` have a bin each.

    Returns
    -------
    float32 array (n, bins)
    """
    if column.dtype.kind in "OU":
        names, counts = np.unique(column.astype(str), return_counts=True)
        known = names[np.argsort(-counts, kind="stable")[:WORDS]]
        place = np.full(len(column), len(known))
        for i, name in enumerate(known):
            place[column == name] = i
    else:
        values = column.astype(np.float64)
        there = np.isfinite(values)
        cuts = np.unique(
            np.quantile(values[there], np.arange(1, BINS) / BINS if any(there) else [])
        )
        place = np.where(there, np.searchsorted(cuts, values, side="right"), len(cuts) + 1)
    hot: NDArray[np.float32] = np.eye(int(place.max(initial=0)) + 1, dtype=np.float32)[place]
    return hot


def _fit(bins: NDArray[np.float32], kinds: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Solve the least squares from bins to kinds, every kind counting alike."""
    weights = 1.0 / np.bincount(kinds, minlength=count)[kinds]
    weights = weights * (len(kinds) / weights.sum())
    wide = bins.astype(np.float64)
    weighted = wide * weights[:, None]
    gram = weighted.T @ wide + RIDGE * np.eye(wide.shape[1])
    kernel: NDArray[np.float64] = np.linalg.solve(gram, weighted.T @ np.eye(count)[kinds])
    return kernel
