"""Which learning rate a fine-tuning takes."""

import numpy as np
import pytest

from kindsight.augment import Augment
from kindsight.training.engine.plan import Phase
from kindsight.training.engine.trainable import StoppedError, TrainingData
from kindsight.training.fine_tuning import learning_rate as rate_choice
from kindsight.training.fine_tuning.learning_rate import choose_rate, tried_epochs


class Bowl:
    """A learner whose one weight slides down a parabola; too large a rate throws it out."""

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
    monkeypatch.setattr(rate_choice, "TRIED_STEPS", 0)


def data():
    rows = np.arange(8)
    pixels = np.zeros((12, 2, 2, 3), np.uint8)
    return TrainingData(pixels, rows, rows % 2, np.arange(8, 12), np.array([0, 1, 0, 1]), 2)


def choose(learner, rates, tell=lambda *_: None, stopped=lambda: False, late=lambda: False):
    phase = Phase("all layers", 3, 2, "adamw", 5e-5, augment=Augment())
    return choose_rate(learner, phase, data(), 0, rates, tell, stopped, late)


@pytest.mark.parametrize(
    ("curvature", "best"),
    # Twelve steps of a factor 1 - rate * curvature, at most; from 2 on it grows.
    [(1.0, 1.0), (10.0, 0.1), (100.0, 0.01), (1000.0, 0.001)],
)
def test_the_largest_rate_that_still_helps(curvature, best):
    learner = Bowl(curvature)
    assert choose(learner, (0.001, 0.01, 0.1, 1.0)) == best
    assert learner.weight == 1.0 and learner.begun == 1


def test_no_rate_is_tried_after_one_that_was_worse():
    learner, told = Bowl(50.0), []
    choose(learner, (0.001, 0.01, 0.1, 1.0), lambda *news: told.append(news))
    # Four steps an epoch of eight images, three epochs: in the first the rate rises, then it is
    # half of 1 + cos(k pi / 8).
    assert len(learner.rates) == 3 * 3 * 4
    falling = [0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381, 0.0]
    assert np.multiply(learner.rates[:12], 1000) == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, *falling], abs=1e-4
    )
    assert told == [(done, 12) for done in range(9)]


def test_of_few_images_more_epochs_are_tried(monkeypatch):
    phase = Phase("all layers", 3, 2, "adamw", 5e-5, augment=Augment())
    for steps, epochs in ((8, 3), (13, 4), (60, 15)):
        monkeypatch.setattr(rate_choice, "TRIED_STEPS", steps)
        assert tried_epochs(phase, data()) == epochs


def test_a_wish_to_stop_is_heard():
    learner = Bowl(1.0)
    with pytest.raises(StoppedError):
        choose(learner, (0.1, 1.0), stopped=lambda: len(learner.rates) == 6)
    assert len(learner.rates) == 6


def test_when_the_time_is_over_the_best_of_the_trials_that_ended_counts():
    # In the second of twelve steps each; it is asked at the beginning of each epoch, here.
    learner = Bowl(1.0)
    assert choose(learner, (0.1, 1.0), late=lambda: len(learner.rates) >= 16) == 0.1
    assert len(learner.rates) == 16 and learner.weight == 1.0
    learner = Bowl(1.0)
    assert choose(learner, (0.1, 1.0), late=lambda: True) == 0.1
    assert not learner.rates


def test_news_come_from_within_an_epoch(monkeypatch):
    told = []
    monkeypatch.setattr(rate_choice, "NEWS_SECONDS", -1.0)
    choose(Bowl(1.0), (0.1,), lambda *news: told.append(news))
    assert told == [(epoch, 3) for epoch in range(3) for _ in range(4)]
