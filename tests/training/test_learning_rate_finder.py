"""The learning-rate finder: learning rates, end of the sweep, and suggestion."""

import numpy as np
import pytest
from numpy_network import NumpyNetwork, coloured

from kindsight.augment import Augment
from kindsight.training.engine.batches import Batches
from kindsight.training.engine.learning_rate_finder import suggest_rate, sweep_rates
from kindsight.training.engine.plan import Phase


def sweep(learner, **options):
    pixels, targets = coloured(30)
    batches = Batches(pixels, np.arange(30), targets, 2, 8, Augment(), 0)
    heard = []
    found = sweep_rates(
        learner, Phase(optimizer="sgd"), batches, workers=1,
        progress=lambda *news: heard.append(news), **options,
    )  # fmt: skip
    return found, heard


def test_learning_rates_are_logarithmically_spaced():
    learner = NumpyNetwork()
    found, heard = sweep(learner, steps=50)
    tried = [call[2] for call in learner.calls if call[0] == "step"]
    assert tried == list(found.rates) and len(found.losses) == len(tried)
    assert tried[0] == pytest.approx(1e-6)
    # From a millionth to 1 in 49 factors.
    assert np.diff(np.log10(tried)) == pytest.approx(6 / 49)
    assert heard == [(k + 1, 50) for k in range(len(tried))]
    # The first loss is that of a coin, whatever the smoothing.
    assert found.losses[0] == pytest.approx(np.log(2), rel=1e-5)
    assert found.suggestion is None or found.suggestion > 1e-5


def test_the_finder_stops_when_the_loss_diverges():
    learner = NumpyNetwork(fail_at=20)
    found, _ = sweep(learner)
    assert len(found.rates) == 20
    assert found.to_dict()["losses"][-1] is None and found.to_dict()["losses"][0] > 0


def test_suggests_a_tenth_of_the_highest_rate_before_the_loss_rises():
    rates = [10.0**k for k in range(-9, 3)]
    falls = [0.7] * 6 + [0.6, 0.4, 0.3, 0.31, 0.5, 2.0]
    # Lowest at 0.1; at 1 it is 3% higher, at 10 far more.
    assert suggest_rate(rates, falls) == pytest.approx(0.1)
    flat = [0.7] * 8 + [0.7, 0.75, 0.9, 3.0]
    assert suggest_rate(rates, flat) == pytest.approx(0.1)
    never = [0.7 - 0.01 * k for k in range(12)]
    assert suggest_rate(rates, never) == pytest.approx(10)


def test_no_suggestion_if_the_loss_rises_from_the_start():
    rates = [10.0**k for k in range(-9, 3)]
    assert suggest_rate(rates, [0.7 * 2**k for k in range(12)]) is None
    assert suggest_rate(rates, [np.nan] * 12) is None
    assert suggest_rate(rates[:4], [0.7] * 4) is None
