"""Exact tests against SciPy, and the correction of p-values against hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kindsight.errors import UsageError
from kindsight.evaluation.paired import fisher_more_errors, holm, mcnemar


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60), st.integers(0, 60))
def test_fisher_agrees_with_scipy(errors, correct, other_errors, other_correct):
    images, all_images = errors + correct, errors + correct + other_errors + other_correct
    found = fisher_more_errors(errors, images, errors + other_errors, all_images)
    table = [[errors, correct], [other_errors, other_correct]]
    assert found == pytest.approx(stats.fisher_exact(table, alternative="greater")[1], rel=1e-7)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_agrees_with_scipy(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-7)


def test_many_images():
    expected = stats.binomtest(20_000, 40_600).pvalue
    assert mcnemar(20_000, 20_600) == pytest.approx(expected, rel=1e-6)
    expected = stats.hypergeom.sf(5_299, 1_000_000, 50_000, 100_000)
    assert fisher_more_errors(5_300, 100_000, 50_000, 1_000_000) == pytest.approx(
        expected, rel=1e-5
    )


def test_holm_by_hand():
    # sorted: 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1, which may not be smaller
    found = holm(np.array([0.03, 0.01, 0.04, 0.02]))
    assert found == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]
    assert len(holm(np.array([]))) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_agrees_with_its_definition(p_values):
    p = np.array(p_values)
    n = len(p)
    expected = [min(1.0, max((n - (p < q).sum()) * q for q in p[p <= value])) for value in p]
    # equal values share the largest factor
    assert holm(p) == pytest.approx(expected)


def test_impossible_counts_are_refused():
    for counts in ((3, 2, 3, 9), (1, 2, 0, 9), (0, 2, 8, 9), (-1, 2, 3, 9)):
        with pytest.raises(UsageError, match="among the images"):
            fisher_more_errors(*counts)
    with pytest.raises(UsageError):
        mcnemar(-1, 2)
