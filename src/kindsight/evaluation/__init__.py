"""Metrics and calibration of a classifier, on NumPy arrays only."""

from __future__ import annotations

from kindsight.evaluation.calibration import (
    Calibration,
    CalibrationError,
    Reliability,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
    softmax,
    to_probabilities,
)
from kindsight.evaluation.confusion import confusion
from kindsight.evaluation.intervals import wilson_interval
from kindsight.evaluation.metrics import (
    FIGURES,
    ClassScores,
    Evaluation,
    distinct_images,
    evaluate,
)

__all__ = [
    "FIGURES", "Calibration", "CalibrationError", "ClassScores", "Evaluation", "Reliability",
    "calibrate", "confusion", "distinct_images", "evaluate", "expected_calibration_error",
    "fit_temperature", "reliability", "softmax", "to_probabilities", "wilson_interval",
]  # fmt: skip
