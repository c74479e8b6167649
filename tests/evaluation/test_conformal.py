"""Prediction sets against MAPIE, quantiles by hand, and coverage over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight.errors import SettingsError, UsageError
from kindsight.evaluation.conformal import (
    MAX_IMAGES,
    ConformalSets,
    conformal_quantile,
    smallest_count,
)


def predictions(count: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn with other ones: the classifier is overconfident."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 2
    targets = (logits + random.gumbel(size=logits.shape)).argmax(1)
    powers = np.exp(2 * logits)
    return powers / powers.sum(1, keepdims=True), targets


def mapie_sets(probabilities, targets, new, level):
    """The sets by MAPIE, of a classifier that looks its probabilities up."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    every = np.concatenate([probabilities, new])

    class Known(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.arange(every.shape[1])
            return self

        def predict_proba(self, X):
            return every[np.asarray(X)[:, 0].astype(int)]

        def predict(self, X):
            return self.predict_proba(X).argmax(1)

    rows = np.arange(len(every))[:, None]
    known = Known().fit(rows, targets)
    mapie = SplitConformalClassifier(known, confidence_level=level, conformity_score="lac")
    mapie.conformalize(rows[: len(targets)], targets)
    return mapie.predict_set(rows[len(targets) :])[1][:, :, 0]


@pytest.mark.parametrize("count", [25, 50, 333])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_sets_are_those_of_mapie(count, level):
    for seed in range(3):
        probabilities, targets = predictions(count, seed=seed)
        new, _ = predictions(200, seed=seed + 100)
        found = ConformalSets.measure(probabilities, targets).predict(new, level)
        assert (found == mapie_sets(probabilities, targets, new, level)).all()


def test_sets_per_class_are_those_of_mapie_on_the_images_of_the_class():
    probabilities, targets = predictions(400)
    new, _ = predictions(200, seed=1)
    found = ConformalSets.measure(probabilities, targets, per_class=True).predict(new, 0.9)
    for name in range(4):
        own = targets == name
        alone = mapie_sets(probabilities[own], targets[own], new, 0.9)
        assert (found[:, name] == alone[:, name]).all()


def test_quantiles_by_hand():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # (9 + 1) x 0.9 = 9: the ninth; (9 + 1) x 0.85 = 8.5, rounded up: the ninth; x 0.8: the eighth.
    assert conformal_quantile(scores, 0.9) == 0.9
    assert conformal_quantile(scores, 0.85) == 0.9
    assert conformal_quantile(scores, 0.8) == 0.8
    assert conformal_quantile(scores, 0.05) == 0.1
    # The tenth of nine: no score is large enough.
    assert conformal_quantile(scores, 0.91) == math.inf
    assert conformal_quantile(scores[:0], 0.5) == math.inf
    assert [smallest_count(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]


def test_a_set_by_hand():
    # The scores are 0.1, 0.4 (class 0) and 0.3 (class 1); (3 + 1) x 0.5 = 2: the second, 0.3.
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    sets = ConformalSets.measure(probabilities, np.array([0, 0, 1]))
    new = np.array([[0.75, 0.25], [0.65, 0.35], [0.2, 0.8]])
    found = sets.predict(new, 0.5)
    assert found.tolist() == [[True, False], [False, False], [False, True]]
    # Per class: (2 + 1) x 0.5 = 1.5, the second of class 0, 0.4; the only one of class 1, 0.3.
    each = ConformalSets.measure(probabilities, np.array([0, 0, 1]), per_class=True)
    assert each.predict(new, 0.5).tolist() == [[True, False], [True, False], [False, True]]


@pytest.mark.parametrize("per_class", [False, True])
def test_coverage_on_exchangeable_images(per_class):
    # Over seeds, the mean coverage lies between the level and the level + 1 / (n + 1).
    covered = np.zeros((400, 4))
    for seed in range(400):
        probabilities, targets = predictions(480, seed=seed)
        sets = ConformalSets.measure(probabilities[:80], targets[:80], per_class=per_class)
        inside = sets.predict(probabilities[80:], 0.8)[np.arange(400), targets[80:]]
        covered[seed] = [inside[targets[80:] == name].mean() for name in range(4)]
    means = covered.mean(0)
    if per_class:  # some 20 images of each class
        assert (means > 0.79).all() and (means < 0.8 + 1 / 15 + 0.01).all()
    else:
        assert 0.79 < means.mean() < 0.8 + 1 / 81 + 0.01


@given(
    st.lists(st.floats(0, 1), max_size=60),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
)
def test_a_higher_level_has_a_higher_quantile(scores, first, second):
    low, high = sorted([first, second])
    ordered = np.sort(np.array(scores, float))
    assert conformal_quantile(ordered, low) <= conformal_quantile(ordered, high)
    # The fraction of n + 1 scores that reaches the quantile is at least the level.
    quantile = conformal_quantile(ordered, low)
    assert ((ordered <= quantile).sum() + (quantile == math.inf)) / (len(scores) + 1) >= low - 1e-9


def test_many_images_are_thinned_without_moving_the_quantile():
    probabilities, targets = predictions(3 * MAX_IMAGES)
    sets = ConformalSets.measure(probabilities, targets)
    assert sets.images <= MAX_IMAGES
    own = np.sort(1 - probabilities[np.arange(len(targets)), targets])
    assert sets.quantiles(0.9) == pytest.approx(conformal_quantile(own, 0.9), abs=0.02)


def test_they_are_read_back():
    probabilities, targets = predictions(100, seed=5)
    for per_class in (False, True):
        sets = ConformalSets.measure(probabilities, targets, per_class=per_class)
        again = ConformalSets.from_dict(sets.to_dict(), 4)
        assert again.per_class == per_class
        assert again.quantiles(0.9) == pytest.approx(sets.quantiles(0.9), abs=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "aps"},
        {"scores": None},
        {"scores": [[0.1]]},
        {"scores": [[0.2, 0.1], [0.5]]},
        {"scores": [[0.1, "x"], [0.5]]},
        {"scores": [[0.1, float("nan")], [0.5]]},
        {"scores": [[0.1, 7.0], [0.5]]},
        {"scores": ["12", [0.5]]},
        {"scores": [[0.1] * (MAX_IMAGES + 1), [0.5]]},
        {"per_class": 1},
    ],
)
def test_damaged_values_are_refused(change):
    good = {"method": "lac", "per_class": False, "scores": [[0.1, 0.2], [0.5]]}
    assert ConformalSets.from_dict(good, 2).images == 3
    with pytest.raises(UsageError):
        ConformalSets.from_dict({**good, **change}, 2)


@pytest.mark.parametrize("level", [0, 1, -0.1, 90, float("nan"), "0.9", None])
def test_wrong_levels(level):
    sets = ConformalSets.measure(*predictions(20))
    with pytest.raises(SettingsError, match="between 0 and 1"):
        sets.quantiles(level)
