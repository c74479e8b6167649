"""ROC AUC, average precision, top-k accuracy, kappa and MCC against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from kindsight.evaluation import evaluate
from kindsight.evaluation.metrics import top_k_of
from kindsight.evaluation.ranking import label_ranks, rank_images


def drawn(n: int, k: int, seed: int, digits: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that favour the label; few `digits` give ties."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)) + 1.5 * np.eye(k)[targets]
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), digits) + 1e-4
    return probabilities / probabilities.sum(1, keepdims=True), targets


@pytest.mark.parametrize("digits", [1, 2, 10])
@pytest.mark.parametrize(("n", "k"), [(12, 2), (80, 3), (300, 12)])
def test_agrees_with_scikit_learn(n, k, digits):
    probabilities, targets = drawn(n, k, n + digits, digits)
    found = evaluate(probabilities, targets, [str(i) for i in range(k)])
    for label, score in enumerate(found.classes):
        own, values = targets == label, probabilities[:, label]
        assert score.roc_auc == pytest.approx(theirs.roc_auc_score(own, values))
        assert score.average_precision == pytest.approx(theirs.average_precision_score(own, values))
    assert found.roc_auc == pytest.approx(
        np.mean([score.roc_auc for score in found.classes]), nan_ok=True
    )
    predicted = probabilities.argmax(1)
    assert found.kappa == pytest.approx(theirs.cohen_kappa_score(targets, predicted))
    assert found.mcc == pytest.approx(theirs.matthews_corrcoef(targets, predicted))
    if k > 2 and digits == 10:  # scikit-learn takes the last of equals
        expected = theirs.top_k_accuracy_score(targets, probabilities, k=found.top_k)
        assert found.top_k_accuracy == pytest.approx(expected)


def test_numbers_by_hand():
    # class b: 0.9 (b), 0.6 (a), 0.4 (b), 0.2 (a): 3 of 4 pairs in order; precision 1 and 2 / 3
    second = np.array([0.9, 0.6, 0.4, 0.2])
    found = evaluate(np.stack([1 - second, second], 1), np.array([1, 0, 1, 0]), ["a", "b"])
    assert found.classes[1].roc_auc == pytest.approx(3 / 4)
    assert found.classes[1].average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.classes[0].roc_auc == pytest.approx(3 / 4)
    # accuracy 1 / 2, and by chance 1 / 2
    assert (found.kappa, found.mcc) == (0.0, 0.0)


def test_only_what_is_defined():
    one = evaluate(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 0]), ["a", "b"])
    assert all(math.isnan(value) for value in (one.roc_auc, one.average_precision))
    assert math.isnan(one.kappa) and math.isnan(one.mcc)
    assert math.isnan(one.intervals["kappa"][0]) and math.isnan(one.intervals["roc_auc"][1])
    missing = evaluate(
        np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]]), np.array([0, 1, 0]), "abc"
    )
    assert math.isnan(missing.classes[2].roc_auc)
    assert missing.roc_auc == pytest.approx((missing.classes[0].roc_auc + 1.0) / 2)


def test_top_k():
    assert [top_k_of(classes) for classes in (2, 3, 5, 6, 1000)] == [0, 2, 2, 5, 5]
    probabilities = np.array([[0.4, 0.2, 0.4], [0.4, 0.2, 0.4], [0.3, 0.4, 0.3]])
    # of equals, the first is more probable
    assert label_ranks(probabilities, np.array([2, 0, 2])).tolist() == [1, 0, 2]
    found = evaluate(probabilities, np.array([2, 0, 2]), "abc")
    assert (found.top_k, found.top_k_accuracy) == (2, pytest.approx(2 / 3))
    assert math.isnan(evaluate(np.full((2, 2), 0.5), np.array([0, 1]), "ab").top_k_accuracy)


@given(st.integers(2, 60), st.integers(2, 7), st.integers(0, 10**6), st.sampled_from([1, 2, 9]))
def test_every_interval_holds_its_figure(n, k, seed, digits):
    probabilities, targets = drawn(n, k, seed, digits)
    found = evaluate(probabilities, targets, [str(i) for i in range(k)], resamples=50)
    for name, (low, high) in found.intervals.items():
        value = getattr(found, name)
        if not math.isnan(value):
            assert low <= value + 1e-12 and value - 1e-12 <= high, name
            assert low >= -1 and (high <= 1 or name == "log_loss"), name
    for score in found.classes:
        for name in ("precision", "recall", "f1", "roc_auc", "average_precision"):
            value = getattr(score, name)
            low, high = getattr(score, f"{name}_interval")
            if not math.isnan(value):
                assert 0 <= low <= value + 1e-9 and value - 1e-9 <= high <= 1, name


def test_perfect_predictions_are_not_certain():
    probabilities = np.repeat([[0.97, 0.03], [0.03, 0.97]], 20, axis=0)
    found = evaluate(probabilities, np.repeat([0, 1], 20), ["a", "b"])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision"):
        low, high = found.intervals[name]
        assert high == 1.0 and 0.8 < low < 0.99, name
    assert found.intervals["kappa"][0] < 0.97


def test_the_mean_of_two_mirrored_classes_has_their_interval():
    probabilities, targets = drawn(100, 2, 5)
    ranking = rank_images(probabilities, targets)
    assert ranking.mean.roc_auc_interval == pytest.approx(ranking.classes[0].roc_auc_interval)


def test_without_resamples_the_costly_figures_are_left_out():
    probabilities, targets = drawn(50, 3, 1)
    full, quick = (evaluate(probabilities, targets, "abc", resamples=r) for r in (1000, 0))
    assert (quick.accuracy, quick.log_loss) == (full.accuracy, full.log_loss)
    assert quick.ece == pytest.approx(full.ece)
    assert math.isnan(quick.roc_auc) and set(quick.intervals) == {"accuracy"}
