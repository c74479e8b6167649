"""Temperature scaling: calibrated probabilities from logits.

Dividing the logits by a temperature changes the confidence, never the predicted class. The
temperature is fitted on images that the classifier was not fitted on.

References
----------
C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
ICML 2017, arXiv:1706.04599.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = [
    "MIN_CALIBRATION_IMAGES",
    "TEMPERATURE_RANGE",
    "Calibration",
    "calibrate",
    "fit_temperature",
    "softmax",
    "to_probabilities",
]

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
