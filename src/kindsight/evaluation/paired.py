"""Two classifiers on the same images: exact tests, and whether a difference of accuracies is real.

References
----------
R. A. Fisher, "The logic of inductive inference", Journal of the Royal Statistical Society 98
(1935), 39-82.

Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
percentages", Psychometrika 12 (1947), 153-157; the exact form is the sign test.

S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
Statistics 6 (1979), 65-70.

D. G. Bonett, R. M. Price, "Adjusted Wald confidence interval for a difference of binomial
proportions based on paired data", Journal of Educational and Behavioral Statistics 37 (2012),
479-488: the smoothing of the bootstrap.

R. J. Connor, "Sample size for testing differences in proportions for the paired-sample design",
Biometrics 43 (1987), 207-211: the number of images needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.intervals import RESAMPLES, mean_interval, quantile_interval

__all__ = [
    "SIGNIFICANT", "PairedComparison", "compare_pair", "correct_comparisons", "fisher_more_errors",
    "holm", "mcnemar",
]  # fmt: skip


def fisher_more_errors(errors: int, images: int, all_errors: int, all_images: int) -> float:
    """Return the probability of at least these errors in a random subset of the images.

    Fisher's exact test, one-sided: the subset has `errors` among its `images`, and all images
    together `all_errors` among `all_images`.

    Raises
    ------
    UsageError
        If the counts are impossible.
    """
    others = all_images - images
    if not (0 <= errors <= images and 0 <= all_errors - errors <= others):
        raise UsageError(
            "The errors must be among the images; got "
            f"{errors} of {images} and {all_errors} of {all_images}."
        )
    most = min(images, all_errors)
    counts = np.arange(errors, most + 1)
    logs = (
        _log_choose(images, counts)
        + _log_choose(others, all_errors - counts)
        - _log_choose(all_images, np.array([all_errors]))
    )
    return min(1.0, float(np.exp(logs).sum()))


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Parameters
    ----------
    first_only, second_only : int
        Images on which only the first, or only the second, of two classifiers is correct.

    Raises
    ------
    UsageError
        If a count is negative.
    """
    if min(first_only, second_only) < 0:
        raise UsageError(f"Counts must be 0 or more; got {first_only} and {second_only}.")
    n, fewer = first_only + second_only, min(first_only, second_only)
    logs = _log_choose(n, np.arange(fewer + 1)) - n * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for their number by Holm's method: float64 (n,).

    The chance that any true null hypothesis has a corrected p-value below 0.05 is at most 5%,
    however the tests depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ln(n choose k) of each k."""
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k.tolist()]
    return np.array(logs)


SIGNIFICANT = 0.05
"""Corrected p-value below which a difference is real."""

POWER = 0.8
"""Probability of detecting the difference with `images_needed` images."""

_SEED = 0


@dataclass(frozen=True)
class PairedComparison:
    """The difference of a second classifier from a first one, on the same images.

    Attributes
    ----------
    images : int
    first_only, second_only : int
        Images on which only the first, or only the second, is correct.
    difference : float
        Accuracy of the second minus accuracy of the first.
    interval : tuple of float
        Its 95% bootstrap interval. It contains 0 if the test does not reject.
    log_loss_difference : float
        Mean log loss of the second minus that of the first, in nats; below 0 if it is better.
    log_loss_interval : tuple of float
        Its 95% bootstrap-t interval; NaN for a single image.
    p_value : float
        Of McNemar's exact test, two-sided, corrected for the number of comparisons.
    images_needed : int or None
        Images with which a true difference of this size would be seen in four of five cases; None
        without a difference.
    """

    images: int
    first_only: int
    second_only: int
    difference: float
    interval: tuple[float, float]
    log_loss_difference: float
    log_loss_interval: tuple[float, float]
    p_value: float
    images_needed: int | None

    @property
    def is_real(self) -> bool:
        """Whether the difference of the accuracies is statistically significant."""
        return self.p_value < SIGNIFICANT

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes and ``is_real``, ready for JSON (NaN becomes None)."""
        ends = [end if math.isfinite(end) else None for end in self.log_loss_interval]
        return {
            "images": self.images,
            "first_only": self.first_only,
            "second_only": self.second_only,
            "difference": self.difference,
            "interval": list(self.interval),
            "log_loss_difference": self.log_loss_difference,
            "log_loss_interval": ends,
            "p_value": self.p_value,
            "is_real": self.is_real,
            "images_needed": self.images_needed,
        }


def compare_pair(
    correct: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    losses: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    resamples: int = 10 * RESAMPLES,
) -> PairedComparison:
    """Compare two classifiers on the same images.

    Parameters
    ----------
    correct : pair of bool arrays (n,)
        Whether each image is predicted correctly, by the first and by the second.
    losses : pair of float64 arrays (n,)
        -ln p(label) of each image, in nats.
    resamples : int, default 10000
        Bootstrap resamples of the difference of accuracies.

    Raises
    ------
    UsageError
        If there is no image, or the lengths differ.
    """
    lengths = {len(values) for values in (*correct, *losses)}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(
            f"`correct` and `losses` must have one value for each image; got lengths {lengths}."
        )
    n = len(correct[0])
    first_only = int((correct[0] & ~correct[1]).sum())
    second_only = int((correct[1] & ~correct[0]).sum())
    generator = np.random.default_rng(_SEED)
    # Half an image of each kind: without it, two equal classifiers would have no uncertainty.
    smooth = np.array([first_only + 0.5, second_only + 0.5, n - first_only - second_only])
    drawn = generator.multinomial(n, smooth / smooth.sum(), resamples)
    low, high = quantile_interval((drawn[:, 1] - drawn[:, 0]) / n)
    difference = (second_only - first_only) / n
    change = losses[1] - losses[0]
    found = PairedComparison(
        images=n,
        first_only=first_only,
        second_only=second_only,
        difference=difference,
        interval=(min(low, difference), max(high, difference)),
        log_loss_difference=float(change.mean()),
        log_loss_interval=mean_interval(change, generator),
        p_value=mcnemar(first_only, second_only),
        images_needed=_images_needed(first_only, second_only, n),
    )
    return _consistent(found)


def correct_comparisons(
    comparisons: tuple[PairedComparison, ...],
) -> tuple[PairedComparison, ...]:
    """Return the comparisons with p-values corrected for their number by Holm's method."""
    corrected = holm(np.array([each.p_value for each in comparisons]))
    return tuple(
        _consistent(replace(each, p_value=float(p)))
        for each, p in zip(comparisons, corrected, strict=True)
    )


def _consistent(found: PairedComparison) -> PairedComparison:
    """Widen an interval up to 0 where the exact test, which is stricter, does not reject."""
    if found.is_real:
        return found
    low, high = found.interval
    return replace(found, interval=(min(low, 0.0), max(high, 0.0)))


def _images_needed(first_only: int, second_only: int, n: int) -> int | None:
    """Return the images for a power of 80% at the 5% level, rounded to two digits."""
    difference, either = abs(second_only - first_only) / n, (first_only + second_only) / n
    if difference == 0:
        return None
    significance = NormalDist().inv_cdf(1 - SIGNIFICANT / 2)
    power = NormalDist().inv_cdf(POWER)
    root = significance * math.sqrt(either) + power * math.sqrt(either - difference**2)
    needed = (root / difference) ** 2
    digits = max(0, math.floor(math.log10(needed)) - 1)
    return int(math.ceil(needed / 10**digits) * 10**digits)
