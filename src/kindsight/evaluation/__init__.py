"""Metrics and calibration of a classifier, on NumPy arrays only."""

from __future__ import annotations

from kindsight.evaluation.calibration import (
    Calibration,
    calibrate,
    fit_temperature,
    softmax,
    to_probabilities,
)
from kindsight.evaluation.metrics import (
    ClassScores,
    Evaluation,
    Reliability,
    confusion,
    distinct_images,
    evaluate,
    expected_calibration_error,
    reliability,
    wilson_interval,
)

__all__ = [
    "Calibration",
    "ClassScores",
    "Evaluation",
    "Reliability",
    "calibrate",
    "confusion",
    "distinct_images",
    "evaluate",
    "expected_calibration_error",
    "fit_temperature",
    "reliability",
    "softmax",
    "to_probabilities",
    "wilson_interval",
]
