"""Temperatures against known ones, a grid search and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kindsight.errors import UsageError
from kindsight.evaluation import (
    calibrate,
    evaluate,
    fit_temperature,
    softmax,
    to_probabilities,
)
from kindsight.evaluation.calibration import TEMPERATURE_RANGE

LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
    elements=st.floats(-1e4, 1e4, width=32),
)


def drawn_from(logits: np.ndarray, seed: int) -> np.ndarray:
    """Labels drawn from softmax(logits), so that the temperature of these logits is 1."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=1)


def loss(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    """The stated objective, written out plainly."""
    logs = logits / temperature
    logs = logs - logs.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(targets)), targets].sum() - logs.mean())


def test_softmax_by_hand():
    found = softmax(np.array([[0.0, math.log(3.0)], [1000.0, 1000.0]]))
    assert found == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert softmax(np.array([0.0, 0.0, math.log(2.0)])) == pytest.approx([0.25, 0.25, 0.5])


def test_probabilities_by_hand():
    found = to_probabilities(np.array([[0.0, 2 * math.log(3.0)]]), temperature=2.0)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[0.25, 0.75]]))


@given(LOGITS, st.floats(0.05, 20))
def test_rows_sum_to_one_and_prediction_stays(logits, temperature):
    found = to_probabilities(logits, temperature)
    assert found.shape == logits.shape
    assert found.sum(axis=1, dtype=np.float64) == pytest.approx(np.ones(len(logits)), abs=1e-6)
    assert (found >= 0).all()
    assert (found.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_prediction_stays_where_float32_makes_equals():
    logits = np.array([[1.0, np.nextafter(1.0, 2.0)], [0.0, 1e-9]])
    found = to_probabilities(logits, 20.0)
    assert found.argmax(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 9.0])
def test_finds_a_known_temperature(temperature):
    true = np.random.default_rng(4).normal(scale=1.5, size=(20_000, 4))
    found = fit_temperature(true * temperature, drawn_from(true, 5))
    assert found == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_is_the_minimum_of_the_stated_loss(seed):
    logits = np.random.default_rng(seed).normal(scale=3, size=(60, 3))
    targets = drawn_from(logits / 2, seed)
    found = fit_temperature(logits, targets)
    best = loss(logits, targets, found)
    for nearby in (0.999 * found, 1.001 * found):
        assert best <= loss(logits, targets, nearby)
    grid = np.geomspace(*TEMPERATURE_RANGE, 400)
    assert best <= min(loss(logits, targets, value) for value in grid) + 1e-9


def test_no_errors_do_not_claim_certainty():
    # two classes, logits +-d/2: with n right answers and half a wrong one (the pseudo-image's)
    # the stationary point has p(wrong) = 0.5 / (n + 1), so d / T = ln((n + 0.5) / 0.5)
    n, distance = 50, 4.0
    logits = np.tile([distance / 2, -distance / 2], (n, 1))
    found = fit_temperature(logits, np.zeros(n, int))
    assert found == pytest.approx(distance / math.log((n + 0.5) / 0.5), rel=1e-6)
    assert to_probabilities(logits, found)[0, 1] == pytest.approx(0.5 / (n + 1), rel=1e-4)


def test_stays_within_its_range():
    low, high = TEMPERATURE_RANGE
    logits = np.tile([1e-6, 0.0], (30, 1))
    assert fit_temperature(logits, np.zeros(30, int)) == low
    assert fit_temperature(logits * 1e9, np.ones(30, int)) == high
    assert fit_temperature(np.ones((5, 3)), np.zeros(5, int)) == 1.0


def test_improves_the_log_loss_and_the_calibration():
    true = np.random.default_rng(6).normal(scale=2, size=(4000, 5))
    targets = drawn_from(true, 7)
    names = list("abcde")
    before = evaluate(to_probabilities(true * 4), targets, names)
    after = evaluate(to_probabilities(true * 4, fit_temperature(true * 4, targets)), targets, names)
    assert after.accuracy == before.accuracy
    assert after.log_loss < before.log_loss
    assert after.ece < 0.03 < before.ece


def test_float32_and_many_blocks_agree_with_float64():
    logits = np.random.default_rng(8).normal(size=(5000, 700)).astype(np.float32) * 3
    targets = drawn_from(logits / 2, 9)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(fit_temperature(logits[::-1].astype(float), targets[::-1]))
    assert found == pytest.approx(2.0, rel=0.05)


@given(LOGITS, st.integers(0, 99))
def test_always_gives_a_temperature_in_range(logits, seed):
    targets = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    found = fit_temperature(logits, targets)
    assert TEMPERATURE_RANGE[0] <= found <= TEMPERATURE_RANGE[1]


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.zeros((2, 2)), np.array([0, 2])),
        (np.zeros((2, 2)), np.array([-1, 0])),
        (np.zeros((2, 2)), np.array([0])),
        (np.zeros(2), np.array([0, 1])),
        (np.array([[0.0, np.nan]]), np.array([0])),
        (np.array([[0.0, np.inf]]), np.array([0])),
    ],
)
def test_wrong_input_is_refused(logits, targets):
    with pytest.raises(UsageError, match="got "):
        fit_temperature(logits, targets)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_wrong_temperature_is_refused(temperature):
    with pytest.raises(UsageError, match="`temperature` must be"):
        to_probabilities(np.zeros((1, 2)), temperature)


def test_broken_logits_are_refused():
    for logits in (np.array([[np.nan, 0.0]]), np.array([[np.inf, 0.0]]), np.zeros(3)):
        with pytest.raises(UsageError, match="`logits` must"):
            to_probabilities(logits)


def cross_fitted_loss(logits: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> float:
    """The mean log loss of each fold at the temperature of the others, by scikit-learn."""
    from sklearn.metrics import log_loss

    total = 0.0
    for fold in np.unique(folds):
        held = folds == fold
        temperature = fit_temperature(logits[~held], targets[~held])
        values = to_probabilities(logits[held], temperature).astype(float)
        labels = [*range(logits.shape[1])]
        total += held.sum() * log_loss(
            targets[held], values / values.sum(1)[:, None], labels=labels
        )
    return total / len(logits)


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_a_temperature_is_used_where_it_lowers_the_held_out_log_loss(factor):
    from sklearn.metrics import log_loss

    used = []
    for seed in range(20):
        true = np.random.default_rng(seed).normal(size=(60, 3)) * 2
        targets, folds = drawn_from(true, seed), np.arange(60) % 5
        logits = (true * factor).astype(np.float32)
        found = calibrate(logits, targets, folds)
        plain = log_loss(targets, softmax(logits), labels=[0, 1, 2])
        assert found.scales == (cross_fitted_loss(logits, targets, folds) < plain)
        assert found.log_loss_before == pytest.approx(plain, rel=1e-5)
        if found.scales:
            assert found.temperature == fit_temperature(logits, targets)
            assert len(np.unique(found.cross_fitted)) > 1
        else:
            assert found.temperature == 1 and (found.cross_fitted == 1).all()
        used.append(found.scales)
    # Calibrated logits are mostly left as they are, others never.
    assert sum(used) <= 10 if factor == 1 else all(used)


def test_few_images_are_not_scaled():
    logits = np.array([[9.0, 0.0]] * 9 + [[0.0, 9.0]])
    targets = np.array([0, 1] * 5)
    assert calibrate(logits[:9], targets[:9], np.arange(9)).temperature == 1
    assert calibrate(logits[:0], targets[:0], np.arange(0)).temperature == 1
    assert calibrate(logits, targets, np.arange(10)).temperature == 1  # nine for each fold
    twice = np.concatenate([logits, logits]), np.concatenate([targets, targets])
    assert calibrate(*twice, np.arange(20)).temperature > 1
