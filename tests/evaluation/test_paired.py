"""Paired comparison: numbers by hand, simulations of coverage and false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kindsight.errors import UsageError
from kindsight.evaluation.paired import compare_pair, correct_comparisons


def pair(both: int, first: int, second: int, neither: int):
    """Return which images two classifiers have correct, from the four counts."""
    counts = [both, first, second, neither]
    return tuple(np.repeat(values, counts).astype(bool) for values in ([1, 1, 0, 0], [1, 0, 1, 0]))


def compared(*counts: int):
    correct = pair(*counts)
    losses = tuple(np.where(each, 0.1, 2.0) for each in correct)
    return compare_pair(correct, losses)


def test_numbers_by_hand():
    found = compared(80, 2, 12, 6)
    assert (found.images, found.first_only, found.second_only) == (100, 2, 12)
    assert found.difference == pytest.approx(0.10)
    # two-sided: 2 (1 + 14 + 91) / 2^14
    assert found.p_value == pytest.approx(2 * 106 / 2**14)
    assert found.log_loss_difference == pytest.approx(-1.9 * 0.10)
    assert found.is_real and 0 < found.interval[0] < 0.1 < found.interval[1] < 0.2
    # Bonett and Price: (c - b) / (n + 2) +- z sqrt((p1 + p2 - d^2) / (n + 2)), one image added each
    first, second = 3 / 102, 13 / 102
    half = 1.96 * math.sqrt((first + second - (second - first) ** 2) / 102)
    assert found.interval == pytest.approx((0.098 - half, 0.098 + half), abs=0.015)


def test_the_order_changes_signs_only():
    one, other = compared(50, 9, 3, 5), compared(50, 3, 9, 5)
    assert one.difference == -other.difference
    assert one.p_value == other.p_value
    assert one.images_needed == other.images_needed


def test_equal_classifiers_are_not_certainly_equal():
    found = compared(40, 0, 0, 5)
    assert found.difference == 0 and found.p_value == 1 and found.images_needed is None
    assert found.interval[0] < 0 < found.interval[1]
    assert found.interval[1] < 0.1


def test_the_interval_contains_zero_where_the_test_does_not_reject():
    for second in range(1, 12):
        for first in range(4):
            found = compared(60, first, second, 5)
            assert found.is_real == (stats.binomtest(first, first + second).pvalue < 0.05)
            if not found.is_real:
                assert found.interval[0] <= 0 <= found.interval[1]


def test_images_needed_give_the_power():
    # 6 against 10 of 100: N = (1.96 sqrt(0.16) + 0.8416 sqrt(0.16 - 0.0016))^2 / 0.0016
    needed = (1.959964 * 0.4 + 0.841621 * math.sqrt(0.1584)) ** 2 / 0.0016
    found = compared(80, 6, 10, 4)
    assert needed <= found.images_needed < 1.1 * needed
    draws = np.random.default_rng(0).multinomial(found.images_needed, [0.06, 0.10, 0.84], 400)
    seen = [stats.binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in draws]
    assert 0.72 < np.mean(seen) < 0.88


def test_correction_for_several_comparisons():
    several = (compared(80, 3, 11, 6), compared(80, 2, 12, 6), compared(80, 5, 6, 9))
    corrected = correct_comparisons(several)
    raw = [each.p_value for each in several]
    assert corrected[1].p_value == pytest.approx(3 * raw[1])
    assert corrected[0].p_value == pytest.approx(2 * raw[0])
    assert corrected[2].p_value == pytest.approx(raw[2])
    assert several[0].is_real == (raw[0] < 0.05)
    assert not corrected[0].is_real or 2 * raw[0] < 0.05


def test_one_image():
    found = compared(1, 0, 0, 0)
    assert found.to_dict()["log_loss_interval"] == [None, None]
    with pytest.raises(UsageError, match="got lengths"):
        compare_pair((np.ones(2, bool), np.ones(3, bool)), (np.ones(2), np.ones(2)))


def test_intervals_hold_the_true_difference_as_often_as_stated():
    generator = np.random.default_rng(3)
    for n, rates in ((60, (0.05, 0.05)), (150, (0.03, 0.10)), (400, (0.01, 0.02))):
        both = 0.85
        cells = [both, *rates, 1 - both - sum(rates)]
        held = false = 0
        for _ in range(300):
            correct = pair(*generator.multinomial(n, cells))
            found = compare_pair(correct, (np.zeros(n), np.zeros(n)), resamples=500)
            held += found.interval[0] <= rates[1] - rates[0] <= found.interval[1]
            false += found.is_real
        assert held >= 0.91 * 300
        if rates[0] == rates[1]:
            assert false <= 0.05 * 300
