"""Predict the source of images from file properties: a ridge regression on binned columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.groups import fold_indices

__all__ = ["SourceAccuracy", "one_hot_bins", "predict_source", "source_accuracies"]

FOLDS = 5
BINS = 8

MAX_TEXTS = 15
"""Maximum number of texts per column with a separate bin; rarer ones share one."""

RIDGE = 1.0
"""L2 strength of the classifier."""

CONFIDENCE = 0.95
"""Confidence of the intervals."""


@dataclass(frozen=True)
class SourceAccuracy:
    """Cross-validated accuracy of predicting the source, or one source against all others."""

    accuracy: float  # balanced accuracy, 0 to 1
    # its 95% interval (normal approximation)
    low: float
    high: float
    random: float  # accuracy of random guessing
    source: int | None = None  # the source that is distinguished from all others

    @property
    def skill(self) -> float:
        """Lower end of the interval, scaled from random guessing (0) to perfect prediction (1)."""
        return (self.low - self.random) / (1 - self.random)


def predict_source(
    columns: Mapping[str, NDArray[Any]],
    targets: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int = 0,
) -> SourceAccuracy:
    """Return the cross-validated accuracy of a ridge-regression classifier on binned columns.

    - `columns`: numbers (NaN if missing) or texts.
    - `targets`: int64 array (n,); 0 to k - 1, at least two of each and k at least 2.
    - `groups`: int64 array (n,); rows of one group (duplicates, images of one patient) are in one
      fold.
    - `seed`: seed of the folds.
    """
    return source_accuracies(columns, targets, groups, seed)[0]


def source_accuracies(
    columns: Mapping[str, NDArray[Any]],
    targets: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int = 0,
    source: int | None = None,
) -> tuple[SourceAccuracy, SourceAccuracy]:
    """Return the accuracy for all sources, and for one against the others, by default the best."""
    count = int(targets.max()) + 1
    bins = np.concatenate([one_hot_bins(column) for column in columns.values()], axis=1)
    sizes = np.bincount(targets, minlength=count)
    folds = max(2, min(FOLDS, int(sizes.min()), len(np.unique(groups))))
    fold = fold_indices(targets, groups, folds, seed)
    predicted = np.empty(len(targets), np.int64)
    for held_out in range(folds):
        out = fold == held_out
        weights = _fit(bins[~out], targets[~out], count)
        predicted[out] = (bins[out] @ weights).argmax(axis=1)
    hits = np.bincount(targets[predicted == targets], minlength=count)
    whole = _balanced(hits, sizes)
    others = len(targets) - sizes
    rejected = others - (np.bincount(predicted, minlength=count) - hits)
    one_by_one = [
        _balanced(np.array([hits[k], rejected[k]]), np.array([sizes[k], others[k]]), k, count)
        for k in (range(count) if source is None else (source,))
    ]
    return whole, max(one_by_one, key=lambda found: found.skill)


def _balanced(
    hits: NDArray[np.int64],
    sizes: NDArray[np.int64],
    source: int | None = None,
    comparisons: int = 1,
) -> SourceAccuracy:
    """Return the mean recall of targets with its interval, for one of several comparisons."""
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / comparisons)  # Bonferroni
    recall, count = hits / sizes, len(sizes)
    # One correct and one wrong prediction are added per target, so that no interval has width 0.
    smoothed = (hits + 1) / (sizes + 2)
    spread = z * float(np.sqrt((smoothed * (1 - smoothed) / sizes).sum())) / count
    accuracy = float(recall.mean())
    low, high = max(0.0, accuracy - spread), min(1.0, accuracy + spread)
    return SourceAccuracy(accuracy, low, high, 1 / count, source)


def one_hot_bins(column: NDArray[Any]) -> NDArray[np.float32]:
    """Return a column as one-hot bins, float32 (n, bins).

    Numbers are binned at their quantiles, with one more bin for NaN; the most frequent
    :data:`MAX_TEXTS` texts have a bin each, with one more for all others.
    """
    if column.dtype.kind in "OU":
        names, counts = np.unique(column.astype(str), return_counts=True)
        known = names[np.argsort(-counts, kind="stable")[:MAX_TEXTS]]
        index = np.full(len(column), len(known))
        for i, name in enumerate(known):
            index[column == name] = i
    else:
        values = column.astype(np.float64)
        finite = np.isfinite(values)
        # A column without numbers has no quantiles; all images share the bin of NaN.
        numbers = values[finite] if finite.any() else np.zeros(1)
        cuts = np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS))
        index = np.where(finite, np.searchsorted(cuts, values, side="right"), len(cuts) + 1)
    hot: NDArray[np.float32] = np.eye(int(index.max(initial=0)) + 1, dtype=np.float32)[index]
    return hot


def _fit(bins: NDArray[np.float32], targets: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return the weights of a ridge regression on one-hot targets, with balanced sample weights."""
    weights = 1.0 / np.bincount(targets, minlength=count)[targets]
    weights = weights * (len(targets) / weights.sum())
    wide = bins.astype(np.float64)
    weighted = wide * weights[:, None]
    gram = weighted.T @ wide + RIDGE * np.eye(wide.shape[1])
    solution: NDArray[np.float64] = np.linalg.solve(gram, weighted.T @ np.eye(count)[targets])
    return solution
