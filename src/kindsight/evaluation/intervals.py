"""Confidence intervals: formulas where there are any, else the bootstrap.

Intervals of proportions are Wilson's. The mean of one number per image has a bootstrap-t interval.
Figures of the whole confusion matrix have the bootstrap of
:mod:`kindsight.evaluation.confusion`.

References
----------
E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
Journal of the American Statistical Association 22 (1927), 209-212.

R. G. Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney
statistic. Part 2: asymptotic methods and evaluation", Statistics in Medicine 25 (2006), 559-573.

B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapter 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = [
    "RESAMPLES", "auc_interval", "f1_interval", "mean_interval", "quantile_interval",
    "resample_rows", "resamples_for", "wilson_interval",
]  # fmt: skip

Interval: TypeAlias = tuple[float, float]

RESAMPLES = 1000
"""Bootstrap resamples of up to 4,000 images."""

_FEWEST_RESAMPLES = 200
_MOST_DRAWS = 4_000_000  # over all resamples: some tenths of a second
_BLOCK = 1 << 20  # draws in memory at once

_CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)

_LOWEST_SPREAD = 0.25
"""Lowest standard error of a resample, as a fraction of the sample's: few images may all be one."""


def resamples_for(values: int, most: int = RESAMPLES) -> int:
    """Return the number of bootstrap resamples for a number of random numbers in each."""
    return min(most, max(_FEWEST_RESAMPLES, _MOST_DRAWS // max(1, values)))


def wilson_interval(
    successes: float, n: int, confidence: float = _CONFIDENCE
) -> tuple[float, float]:
    """Return the ends, 0-1, of the Wilson score interval of a proportion.

    There is no continuity correction. The lower end is exactly 0 without successes, the upper one
    exactly 1 without failures; with `n` = 0 the interval is (0, 1). Raises `UsageError` if the
    counts are out of range or `confidence` is not above 0 and below 1. The source is Wilson 1927;
    see :mod:`kindsight.evaluation.intervals`.
    """
    if not 0 <= successes <= n:
        raise UsageError(
            f"`successes` must be between 0 and `n`; got successes={successes}, n={n}."
        )
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"`confidence` must be above 0 and below 1; got {confidence}.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    proportion = successes / n
    centre = proportion + z * z / (2 * n)
    half = z * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # These ends are exact; rounding would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high


def f1_interval(correct: int, support: int, predicted: int) -> Interval:
    """Return the 95% interval of a class's F1 from its numbers of images; (0, 1) without any.

    Of the images that have the label or the prediction, the fraction J that has both is a
    proportion, and F1 = 2 J / (1 + J): the ends are those of Wilson's interval of J.
    """
    low, high = wilson_interval(correct, support + predicted - correct)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def auc_interval(
    auc: NDArray[np.float64], positives: NDArray[np.int64], negatives: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the 95% interval of each ROC AUC: float64 (classes, 2), NaN where the AUC is.

    The method is the fifth of Newcombe 2006, which has a width also where the AUC is 1.
    """
    pairs = positives * negatives.astype(np.float64)
    images = (positives + negatives) / 2 - 1

    def beyond(value: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a true AUC of `value` would make the measured one implausible."""
        spread = 1 + images * (1 - value) / (2 - value) + images * value / (1 + value)
        variance = value * (1 - value) * spread / np.maximum(pairs, 1)
        return np.asarray((auc - value) ** 2 > _Z**2 * variance, np.bool_)

    ends = []
    for limit in (0.0, 1.0):
        inside, outside = auc.copy(), np.full_like(auc, limit)
        for _ in range(50):
            middle = (inside + outside) / 2
            far = beyond(middle)
            inside, outside = np.where(far, inside, middle), np.where(far, middle, outside)
        ends.append(np.where(auc == limit, limit, inside))
    return np.stack(ends, axis=-1)


def mean_interval(
    values: NDArray[np.float64], generator: np.random.Generator, *, most: int = RESAMPLES
) -> Interval:
    """Return the 95% bootstrap-t interval of the mean of one number per image.

    Parameters
    ----------
    values : float64 array (n,)
    generator : numpy.random.Generator
    most : int, default 1000
        Number of resamples; fewer for more than 4,000 images.

    Returns
    -------
    tuple of float
        NaN for a single image.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return mean, mean
    ratios = []
    for rows in resample_rows(n, resamples_for(n, most), generator):
        drawn = values[rows]
        errors = np.maximum(drawn.std(axis=1, ddof=1) / math.sqrt(n), _LOWEST_SPREAD * error)
        ratios.append((drawn.mean(axis=1) - mean) / errors)
    low, high = quantile_interval(np.concatenate(ratios))
    return mean - high * error, mean - low * error


def resample_rows(
    n: int, resamples: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield all resamples of n images in blocks: int64 (resamples in the block, n) of rows."""
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        yield generator.integers(0, n, (min(step, resamples - start), n))


def quantile_interval(values: NDArray[np.float64], confidence: float = _CONFIDENCE) -> Interval:
    """Return the central interval that holds this fraction of the values."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
