"""Intervals against published numbers, and silence of all rules on noise over many seeds."""

from __future__ import annotations

import numpy as np
import pytest
from made import CNN, curves, evidence

from kindsight.diagnosis import diagnose
from kindsight.diagnosis.evidence import SplitPredictions
from kindsight.diagnosis.significance import calibration_noise, compare_proportions


def test_the_interval_of_a_difference_is_newcombes():
    # Newcombe 1998, table II (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    found = compare_proportions(56, 70, 48, 80, 0.95)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    # (c): 6/7 - 2/7: 0.0582 to 0.8062.
    found = compare_proportions(6, 7, 2, 7, 0.95)
    assert (found.low, found.high) == pytest.approx((0.0582, 0.8062), abs=5e-5)


def test_no_images_tell_nothing():
    assert compare_proportions(0, 0, 5, 10) == (0.0, -1.0, 1.0)


def calibrated(rng, images: int, k: int = 3) -> SplitPredictions:
    """Return predictions whose labels are drawn from the probabilities."""
    logits = rng.normal(0, 2, (images, k))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (rng.random((images, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return SplitPredictions(
        tuple(map(str, range(images))), np.minimum(targets, k - 1), probabilities
    )


def test_the_noise_level_is_exceeded_at_its_nominal_rate():
    rng = np.random.default_rng(5)
    exceeded = 0
    for seed in range(200):
        part = calibrated(rng, 120)
        found = calibration_noise(part.probabilities, part.targets, seed)
        exceeded += found.ece > found.level
    # 1% of 200 is 2; more than 7 has a probability of 0.1%.
    assert exceeded <= 7


def test_noise_is_not_reported():
    # The same true accuracy everywhere: training, validation and test differ by chance alone.
    rng = np.random.default_rng(6)
    false = 0
    for _ in range(150):
        parts = {
            "train": calibrated(rng, 400), "validation": calibrated(rng, 150),
            "test": calibrated(rng, 150),
        }  # fmt: skip
        accuracy = parts["train"].correct / 400
        loss = np.linspace(1.0, 0.75, 12) * np.exp(rng.normal(0, 0.01, 12))
        seen = [rng.binomial(400, accuracy) / 400 for _ in range(12)]
        validated = [rng.binomial(150, accuracy) / 150 for _ in range(12)]
        history = curves(loss, seen, loss * 1.05, validated, rate=np.linspace(1e-3, 1e-5, 12))
        given = evidence(
            k=3, history=history, predictions=parts, settings={**CNN, "schedule": "cosine"}
        )
        false += len(diagnose(given))
    assert false <= 3
