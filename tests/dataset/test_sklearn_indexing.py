"""scikit-learn's own cross-validation works on a dataset as on an array."""

import numpy as np
import pytest

from kindsight.dataset import ImageDataset

pytest.importorskip("sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_consistent_length, indexable


def dataset_of(n: int = 30) -> ImageDataset:
    return ImageDataset(
        path=tuple(f"{i:03d}.jpg" for i in range(n)),
        label=tuple("abc"[i % 3] for i in range(n)),
    )


class ByName(ClassifierMixin, BaseEstimator):
    """Knows the label by the number in the file's name; counts what it was fitted on."""

    def __init__(self, shift=0):
        self.shift = shift

    def fit(self, X, y):
        assert isinstance(X, ImageDataset)
        assert X.label == tuple(y)
        self.classes_ = np.unique(y)
        self.fitted_ = len(X)
        return self

    def predict(self, X):
        return np.array(["abc"[(int(path[:3]) + self.shift) % 3] for path in X.path])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ([2, 0], [2, 0]),
        (np.array([2, 0]), [2, 0]),
        ((2, 0), [2, 0]),
        ([True] + [False] * 29, [0]),
        (np.array([True] + [False] * 29), [0]),
        (slice(1, 3), [1, 2]),
        (3, [3]),
    ],
)
def test_safe_indexing(key, expected):
    dataset = dataset_of()
    assert _safe_indexing(dataset, key).path == tuple(dataset.path[i] for i in expected)


def test_counts_as_an_array_of_its_length():
    dataset = dataset_of()
    assert _num_samples(dataset) == 30
    check_consistent_length(dataset, dataset.targets)
    assert indexable(dataset)[0] is dataset


@pytest.mark.parametrize("cv", [KFold(5, shuffle=True, random_state=0), StratifiedKFold(5)])
def test_folds_partition_the_rows(cv):
    dataset = dataset_of()
    held_out = []
    for train, test in cv.split(dataset, dataset.targets):
        assert set(dataset[train].path).isdisjoint(dataset[test].path)
        assert len(dataset[train]) + len(dataset[test]) == 30
        held_out.extend(dataset[test].path)
    assert sorted(held_out) == list(dataset.path)


def test_group_folds():
    dataset = dataset_of()
    groups = [i // 6 for i in range(30)]
    for train, test in GroupKFold(5).split(dataset, groups=groups):
        assert {int(p[:3]) // 6 for p in dataset[train].path}.isdisjoint(
            {int(p[:3]) // 6 for p in dataset[test].path}
        )


def test_train_test_split():
    dataset = dataset_of()
    train, test, y_train, y_test = train_test_split(
        dataset, dataset.targets, test_size=9, stratify=dataset.targets, random_state=0
    )
    assert (len(train), len(test)) == (21, 9)
    assert train.targets.tolist() == y_train.tolist()
    assert test.targets.tolist() == y_test.tolist()
    assert test.counts() == {"a": 3, "b": 3, "c": 3}


def test_cross_validation_and_search():
    dataset = dataset_of()
    y = np.array(dataset.label)
    assert cross_val_score(ByName(), dataset, y, cv=5).tolist() == [1.0] * 5
    assert cross_val_predict(ByName(), dataset, y, cv=3).tolist() == y.tolist()
    search = GridSearchCV(ByName(), {"shift": [1, 0]}, cv=3).fit(dataset, y)
    assert search.best_params_ == {"shift": 0}
    assert search.best_estimator_.fitted_ == 30
