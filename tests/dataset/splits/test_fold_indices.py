"""Folds: stratified, grouped, drawn by key."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kindsight.dataset import fold_indices
from kindsight.errors import SettingsError

labels_of = st.lists(st.integers(0, 4), min_size=8, max_size=120)


@given(labels_of, st.integers(2, 8), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_classes_and_folds_are_even_to_one_row(labels, folds, seed):
    found = fold_indices(labels, None, folds, seed)
    assert found.dtype == np.int64
    assert found.shape == (len(labels),)
    for k in set(labels):
        sizes = Counter(f for f, label in zip(found.tolist(), labels, strict=True) if label == k)
        numbers = [sizes[f] for f in range(folds)]
        assert max(numbers) - min(numbers) <= 1
    sizes = np.bincount(found, minlength=folds)
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1


@given(labels_of, st.integers(2, 5), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_of_rows_does_not_matter(labels, folds, seed, random):
    n = len(labels)
    keys = [f"digest {i}" for i in range(n)]
    groups = [i // 3 if i % 2 else 1000 + i for i in range(n)]
    order = list(range(n))
    random.shuffle(order)
    found = fold_indices(labels, groups, folds, seed, keys)
    moved = fold_indices(
        [labels[i] for i in order],
        [groups[i] for i in order],
        folds,
        seed,
        [keys[i] for i in order],
    )
    assert found[order].tolist() == moved.tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=30, max_size=120))
@settings(max_examples=100, deadline=None)
def test_groups_stay_together(rows):
    labels, groups = zip(*rows, strict=True)
    assume(len(set(groups)) > 1)
    found = fold_indices(labels, groups, 2, 0)
    for group in set(groups):
        assert len({f for f, u in zip(found.tolist(), groups, strict=True) if u == group}) == 1


def test_groups_spread_evenly():
    """12 groups of 4 rows, half of either class: 4 folds get 3 groups, 6 rows of each class."""
    labels = np.repeat([0, 0, 1, 1] * 12, 1)
    groups = np.repeat([f"u{i}" for i in range(12)], 4)
    found = fold_indices(labels, groups, 4, 0)
    for fold in range(4):
        assert np.bincount(labels[found == fold]).tolist() == [6, 6]


def test_large_groups_are_balanced_by_single_rows():
    """A group of 4 and 8 single rows of one class in 3 folds: 4 rows each."""
    found = fold_indices([0] * 12, [0] * 4 + list(range(1, 9)), 3, 0)
    assert np.bincount(found).tolist() == [4, 4, 4]
    assert len(set(found[:4].tolist())) == 1


def test_seed_and_key_decide():
    labels = [0, 1] * 20
    keys = [str(i) for i in range(40)]
    one = fold_indices(labels, None, 4, 1, keys)
    assert fold_indices(labels, None, 4, 1, keys).tolist() == one.tolist()
    assert (
        fold_indices(labels, None, 4, 1).tolist() == one.tolist()
    )  # the default key is the row index
    assert fold_indices(labels, None, 4, 2, keys).tolist() != one.tolist()
    other = [f"x{i}" for i in range(40)]
    assert fold_indices(labels, None, 4, 1, other).tolist() != one.tolist()


def test_a_class_with_fewer_rows_than_folds():
    found = fold_indices([0] * 9 + [1], None, 5, 0)
    assert np.bincount(found).tolist() == [2] * 5


@pytest.mark.parametrize(
    ("n", "groups", "folds"),
    [(5, None, 1), (5, None, 6), (6, [0, 0, 1, 1, 1, 1], 3), (0, None, 2)],
)
def test_invalid_numbers_of_folds(n, groups, folds):
    with pytest.raises(SettingsError, match="folds must be between 2"):
        fold_indices([0] * n, groups, folds, 0)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="same length"):
        fold_indices([0, 1, 0], [0, 1], 2, 0)
    with pytest.raises(ValueError, match="same length"):
        fold_indices([0, 1, 0], None, 2, 0, ["a"])
