"""Level, trend and gap of the training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.diagnosis.evidence import EpochCurves, RunEvidence
from kindsight.diagnosis.significance import Difference, compare_proportions

__all__ = [
    "PRESET_RATES",
    "REFERENCE_RATES",
    "classes_entropy",
    "decline",
    "last_epochs",
    "own_rate",
    "peak_rate",
    "reference_rate",
    "saved_gap",
    "train_images",
    "training_accuracy",
]

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
