"""Calibration: temperature scaling, and whether the confidence of predictions is their accuracy.

Dividing the logits by a temperature changes the confidence, never the predicted class. The
temperature is fitted on images that the classifier was not fitted on.

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
    "BINS", "MIN_CALIBRATION_IMAGES", "TEMPERATURE_RANGE", "Calibration", "CalibrationError",
    "Reliability", "calibrate", "check_probabilities", "expected_calibration_error",
    "fit_temperature", "measure_calibration", "reliability", "softmax", "to_probabilities",
]  # fmt: skip

TEMPERATURE_RANGE = (0.05, 20.0)
"""The lowest and the highest fitted temperature."""

MIN_CALIBRATION_IMAGES = 10
"""Minimum number of images to fit a temperature."""

_STEPS = 100
_BLOCK = 1 << 20


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return exp(logits) / sum(exp(logits)) along the last axis as float64, without overflow.

    Raises `UsageError` if a logit is infinite or not a number.
    """
    _check_finite(logits)
    values = np.asarray(logits, dtype=np.float64)
    powers: NDArray[np.float64] = np.exp(values - values.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def to_probabilities(
    logits: NDArray[np.floating[Any]], temperature: float = 1.0
) -> NDArray[np.float32]:
    """Return softmax(logits / temperature): float32 (n, k), rows sum to 1 up to rounding.

    A `temperature` below 1 raises confidence, above 1 lowers it. The largest value of a row (the
    first of equals) is that of the same class as in `logits`.

    Raises `UsageError` if `logits` is not (n, k) and finite, or `temperature` is not above 0.
    """
    if not 0.0 < temperature < np.inf:
        raise UsageError(f"`temperature` must be above 0 and finite; got {temperature}.")
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise UsageError(f"`logits` must have the shape (images, classes); got {logits.shape}.")
    _check_finite(logits)
    # Shifted first, so that a small temperature cannot overflow the top class.
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    shifted = np.maximum(shifted / temperature, -1e4)
    probabilities = softmax(shifted).astype(np.float32)
    # float32 can round two classes to the same probability: keep the predicted one on top.
    first = logits.argmax(axis=1)
    (tied,) = np.nonzero(probabilities.argmax(axis=1) != first)
    top = probabilities[tied].max(axis=1)
    probabilities[tied, first[tied]] = np.nextafter(top, np.float32(2))
    return probabilities


def fit_temperature(logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """Return the temperature with the lowest log loss, within :data:`TEMPERATURE_RANGE`.

    The log loss of softmax(logits / T) is convex in 1 / T; it is minimised by Newton's method
    within a bracket. One pseudo-observation is added, an average image whose label is equally
    likely to be any class: it prevents certainty where all n predictions happen to be correct.
    If the logits of every image are equal, the temperature is 1.

    Parameters
    ----------
    logits : float array (n, k)
        Finite; of images that the classifier was not fitted on (out-of-fold).
    targets : int array (n,)
        Class indices, 0 to k - 1.

    Raises
    ------
    UsageError
        If there is no image, a shape does not fit, a target is out of range or a logit not finite.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or logits.size == 0:
        raise UsageError(
            "`logits` must have the shape (n, k) and `targets` (n,), n at least 1; "
            f"got {logits.shape} and {targets.shape}."
        )
    if not 0 <= targets.min() <= targets.max() < logits.shape[1]:
        raise UsageError(
            f"`targets` must be from 0 to {logits.shape[1] - 1}; "
            f"got {targets.min()} to {targets.max()}."
        )
    _check_finite(logits)
    if np.ptp(logits, axis=1).max() == 0:
        return 1.0
    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    if _slope(logits, targets, low)[0] >= 0:
        return TEMPERATURE_RANGE[1]
    if _slope(logits, targets, high)[0] <= 0:
        return TEMPERATURE_RANGE[0]
    return 1 / _root(logits, targets, low, high)


@dataclass(frozen=True)
class Calibration:
    """A temperature, and how it was found to help.

    Parameters
    ----------
    temperature : float
        For new images; 1 where scaling does not lower the log loss.
    cross_fitted : array
        float64 (n,): the temperature of each image, fitted on the other folds; 1 where scaling
        does not lower the log loss.
    log_loss_before, log_loss_after : float
        Mean log loss of the images in nats, at temperature 1 and at the temperatures fitted on
        the other folds.
    """

    temperature: float
    cross_fitted: NDArray[np.float64]
    log_loss_before: float
    log_loss_after: float

    @property
    def scales(self) -> bool:
        """Whether scaling lowers the log loss."""
        return self.log_loss_after < self.log_loss_before


def calibrate(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    folds: NDArray[np.integer[Any]],
) -> Calibration:
    """Return the temperature of logits, 1 unless scaling lowers the log loss of held-out images.

    Each image is judged at the temperature fitted on the images of the other folds; the
    temperature for new images is fitted on all.

    Parameters
    ----------
    logits : float array (n, k)
        Finite; of images that the classifier was not fitted on. n may be 0.
    targets : int array (n,)
        Class indices, 0 to k - 1.
    folds : int array (n,)
        The fold of each image; copies of an image belong in one fold.
    """
    found = np.ones(len(logits))
    for fold in np.unique(folds):
        others = folds != fold
        if others.sum() >= MIN_CALIBRATION_IMAGES:
            found[~others] = fit_temperature(logits[others], targets[others])
    before = _mean_log_loss(logits, targets)
    after = _mean_log_loss(logits / found[:, None], targets)
    if len(logits) < MIN_CALIBRATION_IMAGES or not after < before:
        return Calibration(1.0, np.ones(len(logits)), before, before)
    return Calibration(fit_temperature(logits, targets), found, before, after)


def _mean_log_loss(logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """Return the mean of -log softmax(logits)[target] in nats; 0 without images."""
    if len(logits) == 0:
        return 0.0
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    of_label = shifted[np.arange(len(shifted)), targets]
    return float((np.log(np.exp(shifted).sum(axis=1)) - of_label).mean())


def _root(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], low: float, high: float
) -> float:
    """Return the 1 / T between `low` and `high` at which the increasing slope is 0."""
    inverse = min(max(1.0, low), high)
    for _ in range(_STEPS):
        slope, curve = _slope(logits, targets, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curve if curve > 0 else low
        # A Newton step that leaves the bracket is replaced by its middle on the log scale.
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - inverse) <= 1e-10 * inverse:
            return following
        inverse = following
    return inverse


def _slope(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], inverse: float
) -> tuple[float, float]:
    """Return the first two derivatives, by 1 / T, of the summed log loss with the pseudo-image."""
    n, k = logits.shape
    rows = max(1, _BLOCK // k)
    slope = curve = 0.0
    for start in range(0, n, rows):
        block = logits[start : start + rows].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        labels = targets[start : start + rows]
        weights = softmax(block * inverse)
        mean = (weights * block).sum(axis=1)
        spread = (weights * (block - mean[:, None]) ** 2).sum(axis=1)
        of_label = block[np.arange(len(block)), labels]
        slope += float((mean - of_label).sum() + (mean - block.mean(axis=1)).sum() / n)
        curve += float(spread.sum()) * (1 + 1 / n)
    return slope, curve


def _check_finite(logits: NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(logits).all():
        raise UsageError("`logits` must be finite; got NaN or infinity.")


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
    et al. 2017; see :mod:`kindsight.evaluation.calibration`.
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
