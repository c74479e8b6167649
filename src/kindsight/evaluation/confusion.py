"""The confusion matrix, the figures that follow from it, and their bootstrap intervals.

Each resample draws the correct images of a class from a binomial distribution, and the classes
that its errors are predicted as. The rates are smoothed: every class gets two images with the mean
recall, or else a class of few images, all correct, would have no uncertainty. One more image, half
correct and half an error, is divided among all classes, as in Jeffreys' prior of a proportion: a
classifier without errors has no interval of width zero.

References
----------
B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, sections 6.5 and 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.intervals import RESAMPLES, quantile_interval, resamples_for

__all__ = [
    "balanced_accuracy", "check_range", "cohen_kappa", "confusion", "confusion_intervals",
    "counts_of", "macro_f1", "matthews_correlation",
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


Figure: TypeAlias = Callable[[WeightedCounts], NDArray[np.float64]]

_SMALLEST = 1e-300
"""Least weight of errors that did not occur, above 0."""

_SMOOTHING = 2.0
"""Images with the mean recall that are added to each class."""


def confusion_intervals(
    table: NDArray[np.int64],
    figures: Mapping[str, tuple[Figure, float]],
    generator: np.random.Generator,
    *,
    most: int = RESAMPLES,
) -> dict[str, tuple[float, float]]:
    """Return the 95% interval of each figure; NaN where the figure is.

    Parameters
    ----------
    table : int64 array (classes, classes)
        Images by label (row) and prediction (column); at least one.
    figures : mapping of str to tuple
        A function of counts and its lowest possible value; the highest is 1.
    generator : numpy.random.Generator
    most : int, default 1000
        Number of resamples; fewer for a matrix with many different errors.
    """
    expected, resampled = _resample(table, generator, most)
    counts = counts_of(table)
    found = {}
    for name, (figure, lowest) in figures.items():
        value = float(figure(counts))
        if math.isnan(value):
            found[name] = (math.nan, math.nan)
            continue
        values = figure(resampled)
        values = values[~np.isnan(values)]
        # The figure is too low by this much, and a resample's by twice as much.
        bias = float(values.mean()) - float(figure(expected))
        low, high = (end - 2 * bias for end in quantile_interval(values))
        found[name] = (max(lowest, min(low, value)), min(1.0, max(high, value)))
    return found


def _resample(
    table: NDArray[np.int64], generator: np.random.Generator, most: int
) -> tuple[WeightedCounts, WeightedCounts]:
    """Return the expected counts (classes,), and resampled ones (resamples, classes)."""
    size = len(table)
    correct, support = np.diagonal(table), table.sum(axis=1)
    present = support > 0
    share = 0.5 / present.sum()
    recall = float(((correct + share) / (support + 2 * share))[present].mean())
    wrong = _SMOOTHING * (1 - recall) + share
    rates = present * (correct + _SMOOTHING * recall + share) / (support + _SMOOTHING + 2 * share)
    rows, columns = np.nonzero(table - np.diag(correct))
    counts: NDArray[Any] = table[rows, columns]

    def tally(
        found: NDArray[np.float64], seen: NDArray[np.float64], unseen: NDArray[np.float64]
    ) -> WeightedCounts:
        """Spread the errors over classes, by weights of those that occurred and of all others."""
        # With few errors, a random weight can be so small that it is rounded to 0.
        unseen = np.maximum(unseen, _SMALLEST)
        scale = (support - found) / (_sums(seen, rows, size) + unseen)
        unseen = unseen * scale
        spread = (unseen.sum(axis=1, keepdims=True) - unseen) / max(1, size - 1)
        predicted = found + _sums(seen * scale[:, rows], columns, size) + spread
        images = np.broadcast_to(support.astype(np.float64), found.shape)
        return WeightedCounts(found, images, predicted)

    expected = tally(
        (rates * support)[None], counts[None].astype(np.float64), np.full((1, size), wrong)
    )
    resamples = resamples_for(len(rows) + 2 * size, most)
    resampled = tally(
        generator.binomial(support, rates, (resamples, size)).astype(np.float64),
        generator.standard_gamma(counts, (resamples, len(rows))),
        generator.standard_gamma(wrong, (resamples, size)),
    )
    return WeightedCounts(*(each[0] for each in expected)), resampled


def _sums(values: NDArray[np.float64], index: NDArray[np.intp], size: int) -> NDArray[np.float64]:
    """Return the sums of columns that share an index: float64 (rows, size)."""
    cells = np.arange(len(values))[:, None] * size + index
    sums = np.bincount(cells.ravel(), values.ravel(), len(values) * size)
    return sums.reshape(len(values), size).astype(np.float64)
