"""Exact tests of counts, and the correction of p-values for their number.

References
----------
R. A. Fisher, "The logic of inductive inference", Journal of the Royal Statistical Society 98
(1935), 39-82.

Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
percentages", Psychometrika 12 (1947), 153-157; the exact form is the sign test.

S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
Statistics 6 (1979), 65-70.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = ["fisher_more_errors", "holm", "mcnemar"]


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
