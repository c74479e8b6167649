"""Reliability: whether the confidence of predictions is their accuracy.

References
----------
C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
ICML 2017, arXiv:1706.04599.

J. Bröcker, L. A. Smith, "Increasing the reliability of reliability diagrams", Weather and
Forecasting 22 (2007), 651-661.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.confusion import check_range
from kindsight.evaluation.intervals import (
    RESAMPLES,
    quantile_interval,
    resample_rows,
    resamples_for,
)

__all__ = [
    "BINS", "CalibrationError", "Reliability", "check_probabilities", "expected_calibration_error",
    "measure_calibration", "reliability",
]  # fmt: skip

BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""

LIMIT = 0.95
"""Fraction of calibrated classifiers whose ECE is below :attr:`CalibrationError.limit`."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Reliability:
    """The accuracy of a classifier at each level of confidence.

    Attributes
    ----------
    edges : float64 array (bins + 1,)
        A bin has the confidences above its lower edge, up to and including its upper edge.
    count : int64 array (bins,)
        Images in the bin.
    confidence : float64 array (bins,)
        Their mean top probability; NaN in an empty bin.
    accuracy : float64 array (bins,)
        Their accuracy; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence|, weighted by count."""
        filled = self.count > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.count[filled]))


class CalibrationError(NamedTuple):
    """The expected calibration error (ECE), and what noise alone would give.

    The ECE of few images is above 0 even if all probabilities are correct.
    """

    ece: float
    interval: tuple[float, float] = (math.nan, math.nan)  # 95%
    calibrated: float = math.nan  # mean ECE of a calibrated classifier with these probabilities
    limit: float = math.nan  # 95% of calibrated classifiers are below


def reliability(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], bins: int = BINS
) -> Reliability:
    """Return the accuracy of images binned by top probability, in bins of equal width.

    Parameters and errors are those of :func:`evaluate`; `bins` is at least 1. The method is of Guo
    et al. 2017; see :mod:`kindsight.evaluation.reliability`.
    """
    if bins < 1:
        raise UsageError(f"`bins` must be at least 1; got {bins}.")
    check_probabilities(probabilities, targets)
    edges = np.linspace(0.0, 1.0, bins + 1)
    top, correct, bin_index = _binned(probabilities, targets, edges)
    count = np.bincount(bin_index, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_index, weights=top, minlength=bins) / count
        accuracy = np.bincount(bin_index, weights=correct, minlength=bins) / count
    return Reliability(edges.astype(np.float64), count, confidence, accuracy)


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], bins: int = BINS
) -> float:
    """Return the mean distance between confidence and accuracy, 0-1; see :func:`reliability`."""
    return reliability(probabilities, targets, bins).ece


def measure_calibration(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    generator: np.random.Generator,
    *,
    most: int = RESAMPLES,
) -> CalibrationError:
    """Return the ECE with its 95% interval and the ECE of a calibrated classifier.

    Parameters
    ----------
    probabilities, targets
        As for :func:`evaluate`.
    generator : numpy.random.Generator
    most : int, default 1000
        Number of bootstrap resamples; fewer for more than 4,000 images.

    Notes
    -----
    For a calibrated classifier, whether each prediction is correct is drawn from its confidence
    (Bröcker and Smith 2007). Noise cannot raise the ECE by more than its own ECE: the interval
    starts at the ECE minus the limit. A resample's ECE is too high by the noise of resampling, for
    which the upper end is corrected.
    """
    top, correct, bin_index = _binned(probabilities, targets, np.linspace(0.0, 1.0, BINS + 1))
    n = len(top)

    def errors(gaps: NDArray[np.float64], bins: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the ECE of each row of gaps between confidence and accuracy."""
        cells = np.arange(len(gaps))[:, None] * BINS + bins
        sums = np.bincount(cells.ravel(), gaps.ravel(), len(gaps) * BINS)
        return np.asarray(np.abs(sums.reshape(-1, BINS)).sum(axis=1) / n, np.float64)

    gap = top - correct
    ece = float(errors(gap[None], bin_index[None])[0])
    resampled, calibrated = [], []
    for rows in resample_rows(n, resamples_for(n, most), generator):
        resampled.append(errors(gap[rows], bin_index[rows]))
        drawn = generator.random(rows.shape) < top
        calibrated.append(errors(top - drawn, bin_index[None]))
    noise = np.concatenate(calibrated)
    limit = float(np.quantile(noise, LIMIT))
    values = np.concatenate(resampled)
    high = quantile_interval(values)[1] - (float(values.mean()) - ece)
    interval = max(0.0, ece - limit), min(1.0, max(ece, high))
    return CalibrationError(ece, interval, float(noise.mean()), limit)


def check_probabilities(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> None:
    """Raise UsageError unless there are images whose rows are probability distributions."""
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise UsageError(
            "`probabilities` must have the shape (n, k) and `targets` (n,); "
            f"got {probabilities.shape} and {targets.shape}."
        )
    if 0 in probabilities.shape:
        raise UsageError("An evaluation needs at least one labelled image; got none.")
    check_range("targets", targets, probabilities.shape[1])
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # NaN fails both comparisons.
    if not (probabilities.min() >= 0.0 and np.abs(sums - 1.0).max() <= _SUM_TOLERANCE):
        raise UsageError(
            "Each row of `probabilities` must be between 0 and 1 and sum to 1; got sums from "
            f"{sums.min():.4g} to {sums.max():.4g}, smallest value {probabilities.min():.4g}."
        )


def _binned(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    edges: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the confidence of each image, whether it is correct (0 or 1), and its bin."""
    top = np.clip(probabilities.max(axis=1).astype(np.float64), 0.0, 1.0)
    correct = (probabilities.argmax(axis=1) == targets).astype(np.float64)
    bins = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, len(edges) - 2)
    return top, correct, bins.astype(np.int64)
