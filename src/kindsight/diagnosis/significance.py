"""Whether a difference is more than noise: intervals of proportions and of their difference."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream
from kindsight.evaluation.intervals import wilson_interval
from kindsight.evaluation.reliability import BINS, expected_calibration_error

__all__ = [
    "CONFIDENCE",
    "CalibrationNoise",
    "Difference",
    "calibration_noise",
    "compare_proportions",
    "images_for_half_width",
]

CONFIDENCE = 0.99
"""Confidence of the intervals that decide whether a finding is reported: with some fifteen rules,
95% would report noise in every second training."""

DRAWS = 400
"""Random label sets for the noise level of the calibration error."""

MAX_IMAGES = 5000
"""Most images for that noise level; 5,000 take a tenth of a second."""


class Difference(NamedTuple):
    """A difference of two proportions with its confidence interval, each -1 to 1."""

    value: float
    low: float
    high: float

    def figure(self, name: str) -> dict[str, float]:
        """Return the entries of a finding's figure."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def compare_proportions(
    first: int, of_first: int, second: int, of_second: int, confidence: float = CONFIDENCE
) -> Difference:
    """Return the first proportion minus the second, with its interval (Newcombe's method 10).

    References
    ----------
    R. G. Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998), 873-890.
    """
    if not of_first or not of_second:
        return Difference(0.0, -1.0, 1.0)
    p, q = first / of_first, second / of_second
    p_low, p_high = wilson_interval(first, of_first, confidence)
    q_low, q_high = wilson_interval(second, of_second, confidence)
    value = p - q
    low = value - math.hypot(p - p_low, q_high - q)
    high = value + math.hypot(p_high - p, q - q_low)
    return Difference(value, max(-1.0, low), min(1.0, high))


def images_for_half_width(accuracy: float, half_width: float) -> int:
    """Return how many images give a 95% interval of this half width at an accuracy, both 0-1."""
    z = NormalDist().inv_cdf(0.975)
    # An accuracy near 1 would promise too much: it is itself an estimate.
    variance = max(accuracy * (1 - accuracy), 0.05 * 0.95)
    return math.ceil(z * z * variance / half_width**2)


class CalibrationNoise(NamedTuple):
    """A calibration error, and what perfectly calibrated probabilities would show by chance."""

    ece: float
    expected: float  # mean over random labels
    level: float  # exceeded by 1 - confidence of the random labels
    mean_confidence: float  # mean top probability
    accuracy: float


def calibration_noise(
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> CalibrationNoise:
    """Compare the expected calibration error with that of labels drawn from the probabilities.

    Parameters
    ----------
    probabilities : array
        float64 (n, k), n at least 1.
    targets : array
        int64 (n,): class indices.
    seed : int
        Of the random labels.
    confidence : float
        Of the level.

    References
    ----------
    J. Bröcker, L. A. Smith, "Increasing the reliability of reliability diagrams", Weather and
    Forecasting 22 (2007), 651-661: consistency resampling.
    """
    if len(targets) > MAX_IMAGES:
        rows = np.linspace(0, len(targets) - 1, MAX_IMAGES).astype(np.int64)
        probabilities, targets = probabilities[rows], targets[rows]
    top = probabilities.max(axis=1).astype(np.float64)
    ece = expected_calibration_error(probabilities, targets)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bins = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, BINS - 1)
    index = np.arange(len(top), dtype=np.int64)
    draws = random_stream.uniforms(seed, "calibration noise", 0, index, DRAWS) < top[:, None]
    # The error is the sum over bins of |correct - confidence|, divided by the images.
    excess = draws - top[:, None]
    member = np.zeros((BINS, len(top)))
    member[bins, index] = 1.0
    simulated = np.abs(member @ excess).sum(axis=0) / len(top)
    correct = probabilities.argmax(axis=1) == targets
    return CalibrationNoise(
        ece,
        float(simulated.mean()),
        float(np.quantile(simulated, confidence)),
        float(top.mean()),
        float(correct.mean()),
    )
