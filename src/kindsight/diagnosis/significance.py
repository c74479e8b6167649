"""Level, trend and gap of training curves, and whether a difference is more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream
from kindsight.diagnosis.evidence import EpochCurves, RunEvidence
from kindsight.evaluation.calibration import BINS, expected_calibration_error
from kindsight.evaluation.intervals import wilson_interval

__all__ = [
    "CONFIDENCE", "PRESET_RATES", "Difference", "calibration_noise", "classes_entropy",
    "compare_proportions", "decline", "images_for_half_width", "last_epochs", "own_rate",
    "reference_rate", "saved_gap", "train_images", "training_accuracy",
]  # fmt: skip

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


REFERENCE_RATES = {"rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2}
"""Default learning rates by optimizer."""

PRESET_RATES = {("modern", "adamw"): 6e-3}
"""Learning rates of presets with their own optimizer."""

LAST = 3
"""Epochs whose mean is the level at the end: one epoch alone is noise."""


def train_images(evidence: RunEvidence) -> int:
    """Return the number of training images."""
    counts = evidence.counts.get("train")
    return 0 if counts is None else int(counts.sum())


def last_epochs(curves: EpochCurves) -> slice:
    """Return the last epochs, a third of the training at most."""
    return slice(len(curves) - max(1, min(LAST, len(curves) // 3)), len(curves))


def decline(values: NDArray[np.float64], epochs: int) -> float:
    """Return the decline per epoch over the last `epochs` steps, as a fraction; below 0 for a rise.

    The slope of a straight line through the logarithms, for positive values.
    """
    window = values[-(epochs + 1) :]
    if len(window) < 2 or not (window > 0).all() or not np.isfinite(window).all():
        return 0.0
    x = np.arange(len(window)) - (len(window) - 1) / 2
    slope = float(x @ np.log(window) / (x @ x))
    return 1 - math.exp(slope)


def training_accuracy(evidence: RunEvidence) -> tuple[int, int] | None:
    """Return (correct, images) of the training images in inference mode, by the saved model."""
    found = evidence.predictions.get("train")
    return None if found is None or not len(found) else (found.correct, len(found))


def saved_gap(evidence: RunEvidence) -> Difference | None:
    """Return training minus held-out accuracy of the saved model; None where one is missing."""
    trained, held = training_accuracy(evidence), evidence.held_out
    if trained is None or held is None:
        return None
    return compare_proportions(*trained, held.correct, len(held))


def peak_rate(curves: EpochCurves) -> float:
    """Return the highest learning rate at the end of an epoch."""
    return float(curves.learning_rate.max())


def own_rate(evidence: RunEvidence) -> float:
    """Return the peak learning rate that the run asked for."""
    rates = [evidence.settings.get("learning_rate"), *_of_phases(evidence.settings)]
    given = [float(rate) for rate in rates if rate is not None]
    if given:
        return max(given)
    return 0.0 if evidence.history is None else peak_rate(evidence.history)


def reference_rate(settings: Mapping[str, Any]) -> float:
    """Return the usual learning rate of the run's preset or optimizer."""
    optimizer = str(settings.get("optimizer", "rmsprop"))
    usual = REFERENCE_RATES.get(optimizer, 1e-3)
    return PRESET_RATES.get((str(settings.get("preset", "course")), optimizer), usual)


def classes_entropy(evidence: RunEvidence) -> float:
    """Return the log loss of predicting the class frequencies, in nats: nothing was learned."""
    counts = evidence.counts.get("train")
    if counts is None or not counts.sum():
        return math.log(max(2, len(evidence.classes)))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _of_phases(settings: Mapping[str, Any]) -> list[Any]:
    return [dict(phase).get("learning_rate") for phase in settings.get("phases") or ()]
