"""Slices: groups by hand, exact tests, and false alarms when there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kindsight.errors import UsageError
from kindsight.evaluation import wilson_interval
from kindsight.evaluation.slices import SliceColumn, find_slices


def test_texts_by_hand():
    # Canon: 2 of 20 wrong, Nikon: 9 of 12 wrong, no camera: 0 of 10 wrong, Leica: too few
    cameras = ["Canon"] * 20 + ["Nikon"] * 12 + [None] * 10 + ["Leica"] * 3
    errors = np.repeat([1, 0, 1, 0, 1], [2, 18, 9, 13, 3]).astype(bool)
    found = find_slices(~errors, [SliceColumn("camera", cameras)])
    assert [(each.value, each.images, each.errors) for each in found] == [
        ("Nikon", 12, 9),
        ("Canon", 20, 2),
        ("not known", 10, 0),
    ]
    nikon, canon, _ = found
    assert nikon.accuracy == pytest.approx(3 / 12)
    assert nikon.interval == wilson_interval(3, 12)
    assert nikon.others == pytest.approx(1 - 5 / 33)
    p = stats.fisher_exact([[9, 3], [5, 28]], alternative="greater")[1]
    assert nikon.p_value == pytest.approx(3 * p)  # Holm, of three slices
    assert nikon.is_worse and not canon.is_worse
    assert set(nikon.to_dict()) >= {"column", "value", "images", "p_value", "is_worse"}


def test_numbers_are_cut_into_groups_of_equal_size():
    values = np.arange(40.0)
    values[-4:] = np.nan
    found = find_slices(np.ones(40, bool), [SliceColumn("brightness", values)])
    assert {(each.value, each.images) for each in found} <= {
        ("below 9", 9), ("9 to 18", 9), ("18 to 27", 9), ("27 or more", 9),
    }  # fmt: skip
    found = find_slices(np.ones(80, bool), [SliceColumn("width", np.arange(80) + 0.0, unit="px")])
    assert [(each.value, each.images) for each in found] == [
        ("below 20 px", 20), ("20 to 40 px", 20), ("40 to 60 px", 20), ("60 px or more", 20),
    ]  # fmt: skip


def test_equal_numbers_stay_together():
    values = np.array([100] * 50 + [200] * 30 + [300] * 20)
    found = find_slices(np.ones(100, bool), [SliceColumn("width", values)])
    assert {(each.value, each.images) for each in found} == {("100", 50), ("200", 30), ("300", 20)}
    many = np.array([0.0] * 60 + list(range(1, 41)))
    groups = find_slices(np.ones(100, bool), [SliceColumn("x", many)])
    assert sum(each.images for each in groups) == 100
    assert ("below 16", 75) in {(each.value, each.images) for each in groups} or groups


@pytest.mark.parametrize(
    "values",
    [["a"] * 30, [None] * 30, np.full(30, 7.0), np.full(30, np.nan), [str(i) for i in range(30)]],
)
def test_a_column_without_differences_has_no_slices(values):
    assert find_slices(np.arange(30) % 2 == 0, [SliceColumn("x", values)]) == ()


def test_the_same_images_are_compared_once():
    correct = np.arange(40) % 3 > 0
    values = ["a"] * 20 + ["b"] * 20
    once = find_slices(correct, [SliceColumn("x", values)])
    twice = find_slices(correct, [SliceColumn("x", values), SliceColumn("y", values)])
    assert once == twice


def test_another_number_of_images_is_refused():
    with pytest.raises(UsageError, match="got 3 for 'x'"):
        find_slices(np.ones(4, bool), [SliceColumn("x", ["a", "b", "c"])])


@settings(max_examples=40)
@given(st.integers(1, 120), st.integers(0, 10**6), st.integers(1, 12))
def test_slices_of_a_column_do_not_overlap(n, seed, distinct):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, distinct, n) * 1.5
    correct = generator.random(n) < 0.7
    found = find_slices(correct, [SliceColumn("x", values)])
    assert sum(each.images for each in found) <= n
    assert sum(each.errors for each in found) <= (~correct).sum()
    for each in found:
        assert 0 <= each.p_value <= 1 and each.images >= 10


def test_false_alarms_are_at_most_nominal():
    """Where all slices are equally difficult, in at most 5% of experiments one is worse."""
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(300):
        n = int(generator.integers(80, 400))
        correct = generator.random(n) < generator.uniform(0.6, 0.98)
        columns = [
            SliceColumn("brightness", generator.random(n)),
            SliceColumn("camera", [f"camera {i}" for i in generator.integers(0, 6, n)]),
            SliceColumn("folder", [f"site {i}" for i in generator.geometric(0.4, n)]),
        ]
        alarms += any(each.is_worse for each in find_slices(correct, columns))
    assert alarms <= 0.05 * 300


def test_a_difficult_slice_is_found():
    generator = np.random.default_rng(12)
    found = 0
    for _ in range(20):
        dark = generator.random(400) < 0.2
        correct = generator.random(400) < np.where(dark, 0.70, 0.95)
        brightness = np.where(dark, 30, 120) + generator.normal(0, 5, 400)
        worst = find_slices(correct, [SliceColumn("brightness", brightness)])[0]
        found += worst.is_worse and worst.value.startswith("below")
    assert found >= 18
