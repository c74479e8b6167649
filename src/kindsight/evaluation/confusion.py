"""The confusion matrix, and the figures that follow from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = [
    "WeightedCounts", "balanced_accuracy", "check_range", "cohen_kappa", "confusion", "counts_of",
    "macro_f1", "matthews_correlation",
]  # fmt: skip


class WeightedCounts(NamedTuple):
    """Images of each class that are correct, labelled and predicted: float64 (..., classes)."""

    correct: NDArray[np.float64]
    support: NDArray[np.float64]
    predicted: NDArray[np.float64]


def confusion(
    targets: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Count images by label (row) and prediction (column): int64 (classes, classes).

    Raises `UsageError` if the lengths differ or a value is not in 0 to `classes` - 1.
    """
    for name, values in (("targets", targets), ("predicted", predicted)):
        check_range(name, values, classes)
    if targets.shape != predicted.shape:
        raise UsageError(
            "`targets` and `predicted` must have the same length; "
            f"got {targets.shape} and {predicted.shape}."
        )
    cells = targets.astype(np.int64) * classes + predicted.astype(np.int64)
    counts = np.bincount(cells, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def counts_of(table: NDArray[np.int64]) -> WeightedCounts:
    """Return the numbers of correct, labelled and predicted images of each class."""
    values = table.astype(np.float64)
    return WeightedCounts(np.diagonal(values), values.sum(axis=1), values.sum(axis=0))


def balanced_accuracy(counts: WeightedCounts) -> NDArray[np.float64]:
    """Return the mean recall over the classes that have images: float64 (...)."""
    return _mean_where_present(counts.correct, counts.support, counts.support)


def macro_f1(counts: WeightedCounts) -> NDArray[np.float64]:
    """Return the mean F1 over the classes that have images: float64 (...)."""
    either = counts.support + counts.predicted
    return _mean_where_present(2 * counts.correct, either, counts.support)


def cohen_kappa(counts: WeightedCounts) -> NDArray[np.float64]:
    """Return Cohen's kappa, NaN where labels and predictions are all of one class: float64 (...).

    It is the accuracy beyond the one expected by chance, as a fraction of the greatest possible.
    """
    images = counts.support.sum(axis=-1)
    chance = (counts.support * counts.predicted).sum(axis=-1) / images**2
    return _ratio(counts.correct.sum(axis=-1) / images - chance, 1 - chance)


def matthews_correlation(counts: WeightedCounts) -> NDArray[np.float64]:
    """Return the Matthews correlation of labels and predictions, NaN if either is constant.

    The generalisation to several classes is that of Gorodkin, Computational Biology and Chemistry
    28 (2004), 367-374. (scikit-learn returns 0 where it is undefined.)
    """
    labels, predicted = counts.support, counts.predicted
    images = labels.sum(axis=-1)
    covariance = counts.correct.sum(axis=-1) * images - (labels * predicted).sum(axis=-1)
    variances = [images**2 - (each**2).sum(axis=-1) for each in (labels, predicted)]
    return _ratio(covariance, np.sqrt(np.maximum(variances[0], 0) * np.maximum(variances[1], 0)))


def check_range(name: str, values: NDArray[np.integer[Any]], classes: int) -> None:
    """Raise UsageError unless the values are class indices."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise UsageError(
            f"`{name}` must be a one-dimensional array of integers; "
            f"got shape {values.shape}, dtype {values.dtype}."
        )
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise UsageError(
            f"`{name}` must be class indices from 0 to {classes - 1}; "
            f"got {values.min()} to {values.max()}."
        )


def _mean_where_present(
    part: NDArray[np.float64], whole: NDArray[np.float64], support: NDArray[np.float64]
) -> NDArray[np.float64]:
    present = support > 0
    ratios = np.divide(part, whole, out=np.zeros_like(part), where=present)
    return np.asarray(ratios.sum(axis=-1) / present.sum(axis=-1))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    undefined = np.full(np.shape(part), np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0), np.float64)
