"""Intervals: formulas against published numbers and SciPy, the bootstrap against simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kindsight.evaluation import FIGURES, evaluate
from kindsight.evaluation.calibration import measure_calibration
from kindsight.evaluation.confusion import confusion_intervals, counts_of, macro_f1
from kindsight.evaluation.intervals import auc_interval, f1_interval, mean_interval, wilson_interval


def test_f1_interval_is_that_of_the_jaccard_index():
    # 8 correct of 10 labelled and 11 predicted: 13 in either, F1 = 16 / 21
    low, high = wilson_interval(8, 13)
    assert f1_interval(8, 10, 11) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    expected = stats.binomtest(8, 13).proportion_ci(method="wilson")
    assert low == pytest.approx(expected.low)
    assert f1_interval(0, 0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("auc", "positives", "negatives"), [(0.5, 10, 10), (0.9, 30, 12), (0.99, 5, 200), (0.7, 3, 3)]
)
def test_auc_interval_solves_its_equation(auc, positives, negatives):
    ends = auc_interval(np.array([auc]), np.array([positives]), np.array([negatives]))[0]
    for end in ends:
        # Hanley and McNeil's variance at the end, with (m + n) / 2 images on either side
        images = (positives + negatives) / 2
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        variance = (
            end * (1 - end) + (images - 1) * (q1 - end**2) + (images - 1) * (q2 - end**2)
        ) / (positives * negatives)
        assert (auc - end) ** 2 == pytest.approx(1.959964**2 * variance, rel=1e-5)
    assert ends[0] < auc < ends[1]


def test_auc_interval_at_the_ends():
    ends = auc_interval(np.array([1.0, 0.0, np.nan]), np.array([20, 20, 0]), np.array([20, 20, 40]))
    assert 0.8 < ends[0, 0] < 0.95 and ends[0, 1] == 1.0
    assert ends[1] == pytest.approx(1 - ends[0, ::-1])
    assert np.isnan(ends[2]).all()


def test_mean_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(0).gamma(2.0, size=4000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(4000)
    found = mean_interval(values, np.random.default_rng(1))
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_mean_interval_of_few_values():
    assert np.isnan(mean_interval(np.ones(1), np.random.default_rng(0))).all()
    assert mean_interval(np.full(9, 0.5), np.random.default_rng(0)) == (0.5, 0.5)
    low, high = mean_interval(np.array([0.0, 1.0]), np.random.default_rng(0))
    assert np.isfinite([low, high]).all() and low < 0.5 < high


def test_the_same_predictions_have_the_same_intervals():
    probabilities, targets, _ = population(60, 4, 1.0, np.random.default_rng(2))
    first, second = (evaluate(probabilities, targets, "abcd") for _ in range(2))
    assert first.to_dict() == second.to_dict()


def test_noise_explains_the_calibration_error_of_a_calibrated_classifier():
    generator = np.random.default_rng(3)
    above = 0
    for _ in range(200):
        probabilities, targets, _ = population(80, 3, 1.0, generator)
        found = measure_calibration(probabilities, targets, generator, most=200)
        above += found.ece > found.limit
    assert above <= 20  # expected: 10; more than 20 in one of 1,000 such tests
    probabilities, targets, _ = population(300, 3, 3.0, generator)
    overconfident = evaluate(probabilities, targets, "abc")
    assert overconfident.is_miscalibrated
    assert overconfident.calibration.calibrated < overconfident.calibration.limit


def population(n, k, overconfidence, generator):
    """Return probabilities, labels drawn from their calibrated form, and how many of each."""
    logits = 4 * generator.normal(size=(n, k)) + 2 * np.arange(k) / k
    calibrated = np.exp(logits - logits.max(1, keepdims=True))
    calibrated /= calibrated.sum(1, keepdims=True)
    targets = (calibrated.cumsum(1) < generator.random((n, 1))).sum(1).clip(0, k - 1)
    scaled = np.exp(overconfidence * (logits - logits.max(1, keepdims=True)))
    return scaled / scaled.sum(1, keepdims=True), targets, np.bincount(targets, minlength=k)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "k", "overconfidence"), [(40, 2, 1.0), (200, 3, 1.5), (300, 30, 1.0)]
)
def test_intervals_hold_the_true_figure_as_often_as_stated(n, k, overconfidence):
    generator = np.random.default_rng(7)
    probabilities, targets, _ = population(100_000, k, overconfidence, generator)
    names = [str(i) for i in range(k)]
    true = evaluate(probabilities, targets, names, resamples=1)
    held = dict.fromkeys(FIGURES, 0)
    for _ in range(200):
        rows = generator.integers(0, len(targets), n)
        found = evaluate(probabilities[rows], targets[rows], names, resamples=300)
        for name, (low, high) in found.intervals.items():
            held[name] += math.isnan(low) or low <= getattr(true, name) <= high
    # 95% stated; 200 experiments have a standard error of 1.5 points
    assert {name: count for name, count in held.items() if count < 172} == {}


@pytest.mark.filterwarnings("error")
def test_one_error_among_many_classes_has_an_interval() -> None:
    table = np.diag(np.full(43, 465))
    table[20, 20], table[20, 1] = 464, 1
    found = confusion_intervals(table, {"f1": (macro_f1, 0.0)}, np.random.default_rng(0))
    low, high = found["f1"]
    assert 0.999 < low < float(macro_f1(counts_of(table))) <= high <= 1
