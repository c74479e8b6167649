"""Thresholds of confidence by hand, against SciPy, and the promise over seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from kindsight.errors import UsageError
from kindsight.evaluation.selective import CONFIDENCE, POINTS, RiskCoverage, binomial_tail


def curve_of(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    """The curve of two classes, the first of which is predicted."""
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    return RiskCoverage.measure(probabilities, np.where(correct, 0, 1))


def drawn(images: int, seed: int, hardness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences from 0.5 to 1, and predictions that are right with these probabilities."""
    random = np.random.default_rng(seed)
    confidence = 1 - random.uniform(0, 0.5**hardness, images) ** (1 / hardness)
    return confidence, random.uniform(size=images) < confidence


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0, 1))
def test_binomial_tail_is_that_of_scipy(trials, successes, probability):
    expected = binom.cdf(successes, trials, probability)
    assert binomial_tail(successes, trials, probability) == pytest.approx(expected, abs=1e-9)


def test_large_numbers():
    assert binomial_tail(900, 50_000, 0.02) == pytest.approx(binom.cdf(900, 50_000, 0.02), rel=1e-6)


def test_a_curve_by_hand():
    confidence = np.array([0.9, 0.6, 0.8, 0.8, 0.95])
    correct = np.array([True, False, True, False, True])
    curve = curve_of(confidence, correct)
    assert curve.thresholds.tolist() == [0.95, 0.9, 0.8, 0.6]
    assert curve.labelled.tolist() == [1, 2, 4, 5]  # two of equal confidence come together
    assert curve.accuracy.tolist() == [1, 1, 0.75, 0.6]
    assert curve.coverage.tolist() == [0.2, 0.4, 0.8, 1.0]
    assert curve.at(0.85) == (0.4, 1.0) and curve.at(0.8) == (0.8, 0.75)
    assert curve.at(0) == (1.0, 0.6) and curve.at(0.99)[0] == 0


def test_a_threshold_for_a_coverage_by_hand():
    confidence = np.linspace(0.99, 0.51, 49)
    curve = curve_of(confidence, confidence > 0)
    # 0.8 x (49 + 1) = 40: the confidence of the 40th; 0.81 x 50 = 40.5: that of the 41st.
    assert curve.threshold_for_coverage(0.8) == pytest.approx(confidence[39])
    assert curve.threshold_for_coverage(0.81) == pytest.approx(confidence[40])
    assert curve.threshold_for_coverage(0.99) == 0  # 50 of 49 are too many


def test_a_threshold_for_an_accuracy_by_hand():
    # 100 correct ones above 0.8, then 20 wrong ones.
    confidence = np.concatenate([np.linspace(0.99, 0.81, 100), np.linspace(0.6, 0.55, 20)])
    curve = curve_of(confidence, confidence > 0.7)
    # Each of four starts may err with a probability of 0.0125. 0.95^100 = 0.006; with one wrong
    # image of 101: 0.95^101 + 101 x 0.05 x 0.95^100 = 0.035.
    assert curve.threshold_for_accuracy(0.95) == pytest.approx(confidence[99])
    assert curve.threshold_for_accuracy(0.96) is None  # 0.96^100 = 0.017
    # 0.957^100 = 0.0123, 0.958^100 = 0.0137
    assert curve.highest_accuracy() == pytest.approx(0.957)
    assert curve.threshold_for_accuracy(0.5) == 0  # all are labelled
    assert curve.threshold_for_accuracy(1.0) is None


def test_a_wrong_label_among_the_most_confident_does_not_end_the_search():
    confidence = np.linspace(0.999, 0.5, 1000)
    correct = confidence > 0.6
    promised = curve_of(confidence, correct).threshold_for_accuracy(0.98)
    correct[3] = False
    found = curve_of(confidence, correct).threshold_for_accuracy(0.98)
    assert found is not None and promised is not None and promised <= found < promised + 0.02


@pytest.mark.parametrize(("images", "accuracy"), [(200, 0.85), (1000, 0.9), (1000, 0.95)])
def test_the_promise_is_kept_on_new_images(images, accuracy):
    broken = promised = 0
    for seed in range(400):
        curve = curve_of(*drawn(images, seed))
        threshold = curve.threshold_for_accuracy(accuracy)
        if threshold is None:
            continue
        promised += 1
        # The true accuracy at a threshold, of so many images that its error is small.
        confidence, correct = drawn(40_000, seed + 10_000)
        broken += correct[confidence >= threshold].mean() < accuracy
    assert promised > 50
    # 1 - CONFIDENCE of all 400, with three standard errors
    assert broken <= 400 * (1 - CONFIDENCE) + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_the_coverage_is_reached_on_new_images():
    found = []
    for seed in range(300):
        curve = curve_of(*drawn(60, seed))
        confidence, _ = drawn(2_000, seed + 10_000)
        found.append((confidence >= curve.threshold_for_coverage(0.7)).mean())
    assert 0.69 < np.mean(found) < 0.7 + 1 / 61 + 0.01


@given(
    st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1, max_size=150),
    st.floats(0.01, 0.999),
    st.floats(0.01, 0.999),
)
def test_thresholds_follow_the_targets(pairs, first, second):
    confidence, correct = (np.array(column) for column in zip(*pairs, strict=True))
    curve = curve_of(confidence, correct)
    low, high = sorted([first, second])
    assert curve.threshold_for_coverage(high) <= curve.threshold_for_coverage(low)
    threshold = curve.threshold_for_accuracy(high)
    if threshold is not None:
        coverage, accuracy = curve.at(threshold)
        assert coverage > 0 and accuracy >= high
    assert curve.threshold_for_accuracy(min(0.9999, curve.highest_accuracy() + 0.001)) is None


@given(st.lists(st.tuples(st.floats(0.5, 1, width=32), st.booleans()), min_size=1, max_size=300))
def test_it_is_read_back(pairs):
    confidence, correct = (np.array(column) for column in zip(*pairs, strict=True))
    curve = curve_of(confidence, correct)
    again = RiskCoverage.from_list(curve.to_list(), curve.images)
    assert len(curve.thresholds) <= POINTS
    for name in ("thresholds", "labelled", "correct"):
        assert (getattr(again, name) == getattr(curve, name)).all()


@pytest.mark.parametrize(
    "points",
    [
        None,
        [],
        [[0.9, 0.5]],
        [[0.9, 0.5, "x"]],
        [[0.9, 0.5, 1.0], [0.95, 1.0, 1.0]],
        [[0.9, 0.5, 1.0], [0.8, 0.4, 1.0]],
        [[0.9, 0.0, 1.0]],
        [[0.9, float("nan"), 1.0]],
        [[0.9, 0.5, 1.0]] * (POINTS + 1),
    ],
)
def test_damaged_curves_are_refused(points):
    with pytest.raises(UsageError, match="curve"):
        RiskCoverage.from_list(points, 100)


@pytest.mark.parametrize("images", [None, 0, True, 1.5, 10**30])
def test_damaged_counts_are_refused(images):
    with pytest.raises(UsageError, match="curve"):
        RiskCoverage.from_list([[0.9, 1.0, 1.0]], images)
