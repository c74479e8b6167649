"""The learning rate of fine-tuning, chosen by trials."""

import numpy as np
import pytest

from kindsight.augment import Augment
from kindsight.training.engine.loop import StoppedError, TrainingData
from kindsight.training.engine.plan import Phase
from kindsight.training.fine_tuning import choices as module
from kindsight.training.fine_tuning.choices import choose_learning_rate, trial_epochs


class Bowl:
    """A network with one weight on a parabola; too large a rate diverges."""

    def __init__(self, curvature):
        self.curvature, self.weight, self.begun, self.rates = curvature, 1.0, 0, []

    def begin(self, optimizer, label_smoothing, freeze):
        self.begun += 1

    def state(self):
        return {"weight": np.array([self.weight])}

    def set_state(self, arrays):
        (self.weight,) = arrays["weight"].tolist()

    def step(self, images, targets, rate, address):
        self.rates.append(rate)
        self.weight -= rate * self.curvature * self.weight

    def evaluate(self, images, targets):
        return len(targets) * self.weight**2, 0


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "TRIAL_STEPS", 0)


def data():
    rows = np.arange(8)
    pixels = np.zeros((12, 2, 2, 3), np.uint8)
    return TrainingData(pixels, rows, rows % 2, np.arange(8, 12), np.array([0, 1, 0, 1]), 2)


def choose(network, rates, report=lambda *_: None, stopped=lambda: False, late=lambda: False):
    phase = Phase("all layers", 3, 2, "adamw", 5e-5, augment=Augment())
    return choose_learning_rate(network, phase, data(), 0, rates, report, stopped, late)


@pytest.mark.parametrize(
    ("curvature", "best"),
    # Twelve steps of a factor 1 - rate * curvature, at most; from 2 on it grows.
    [(1.0, 1.0), (10.0, 0.1), (100.0, 0.01), (1000.0, 0.001)],
)
def test_the_largest_rate_that_still_helps(curvature, best):
    network = Bowl(curvature)
    assert choose(network, (0.001, 0.01, 0.1, 1.0)) == best
    assert network.weight == 1.0 and network.begun == 1


def test_no_rate_is_tried_after_one_that_was_worse():
    network, reports = Bowl(50.0), []
    choose(network, (0.001, 0.01, 0.1, 1.0), lambda *args: reports.append(args))
    # Four steps an epoch of eight images, three epochs: in the first the rate rises, then it is
    # half of 1 + cos(k pi / 8).
    assert len(network.rates) == 3 * 3 * 4
    falling = [0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381, 0.0]
    assert np.multiply(network.rates[:12], 1000) == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, *falling], abs=1e-4
    )
    assert reports == [(done, 12) for done in range(9)]


def test_trials_with_few_images_have_more_epochs(monkeypatch):
    phase = Phase("all layers", 3, 2, "adamw", 5e-5, augment=Augment())
    for steps, epochs in ((8, 3), (13, 4), (60, 15)):
        monkeypatch.setattr(module, "TRIAL_STEPS", steps)
        assert trial_epochs(phase, data()) == epochs


def test_stopping():
    network = Bowl(1.0)
    with pytest.raises(StoppedError):
        choose(network, (0.1, 1.0), stopped=lambda: len(network.rates) == 6)
    assert len(network.rates) == 6


def test_when_time_is_up_the_best_completed_trial_counts():
    # In the second of twelve steps each; it is checked at the beginning of each epoch here.
    network = Bowl(1.0)
    assert choose(network, (0.1, 1.0), late=lambda: len(network.rates) >= 16) == 0.1
    assert len(network.rates) == 16 and network.weight == 1.0
    network = Bowl(1.0)
    assert choose(network, (0.1, 1.0), late=lambda: True) == 0.1
    assert not network.rates


def test_progress_within_an_epoch(monkeypatch):
    reports = []
    monkeypatch.setattr(module, "REPORT_SECONDS", -1.0)
    choose(Bowl(1.0), (0.1,), lambda *args: reports.append(args))
    assert reports == [(epoch, 3) for epoch in range(3) for _ in range(4)]
