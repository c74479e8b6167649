"""Bootstrap intervals of figures that follow from the confusion matrix.

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
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.confusion import WeightedCounts, counts_of
from kindsight.evaluation.intervals import RESAMPLES, quantile_interval, resamples_for

__all__ = ["confusion_intervals"]

Figure: TypeAlias = Callable[[WeightedCounts], NDArray[np.float64]]

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
