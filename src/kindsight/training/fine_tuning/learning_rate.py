"""The learning rate of a fine-tuning: tried, by what it does to the validation part.

How far a backbone may leave what it has learned before differs by a factor of twenty between
data: images much like ImageNet's, or few and noisy labels, want small steps; hands before a wall
want large ones. So the smallest rate is tried for a few epochs, then larger ones for as long as
they are better, each from the same start and falling to nothing at the end, as in a whole training:
by a large rate that does not fall, things get worse before they get better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kindsight.models.steps.trainable import TrainableNetwork
from kindsight.training.engine.batches import Batches
from kindsight.training.engine.plan import Phase
from kindsight.training.engine.trainable import EVALUATION_BATCH, StoppedError, TrainingData

__all__ = ["LEARNING_RATES", "choose_rate", "tried_epochs"]

# From what changes a fitted head hardly, to what makes another network of it.
LEARNING_RATES = (5e-5, 3e-4, 1e-3)
# Of few images more epochs: in a handful of steps no rate can show what it does.
TRIED_EPOCHS, TRIED_STEPS = 3, 60
# The share of a trial in which the rate rises.
RISING = 1 / 3
# By so much lower must the loss be for a larger rate to be taken.
BETTER = 0.98

Tried = Callable[[int, int], None]
Asked = Callable[[], bool]
# Seconds from one piece of news to the next.
NEWS_SECONDS = 2.0


def choose_rate(
    tuner: TrainableNetwork,
    phase: Phase,
    data: TrainingData,
    seed: int,
    rates: Sequence[float],
    tell: Tried,
    stopped: Asked,
    is_late: Asked,
) -> float:
    """Return the best of some learning rates; the tuner is left as it was.

    Parameters
    ----------
    tuner : TrainableNetwork
    phase : Phase
        In which layers learn, by which optimiser.
    data : TrainingData
        With validation images.
    seed : int
        Of the order of the images.
    rates : sequence of float
        From the smallest on.
    tell : callable
        Called with (epochs done, at most), every few seconds.
    stopped : callable
        Returns whether the training is to stop; asked before each step.
    is_late : callable
        Returns whether there is no more time; then the best of the trials that ended counts.

    Raises
    ------
    StoppedError
        Where it is.
    """
    tuner.begin(phase.update_rule(), phase.label_smoothing, phase.freeze)
    epochs, start = tried_epochs(phase, data), tuner.state()
    best, least = rates[0], np.inf
    for number, rate in enumerate(rates):
        tuner.set_state(start)
        for epoch in range(1, epochs + 1):
            done = number * epochs + epoch - 1
            for _ in _learn(tuner, phase, data, seed, rate, (epoch, epochs), stopped):
                tell(done, len(rates) * epochs)
                if is_late():
                    tuner.set_state(start)
                    return best
        loss = _loss(tuner, data)
        if not loss < BETTER * least:
            break
        best, least = rate, loss
    tuner.set_state(start)
    return best


def tried_epochs(phase: Phase, data: TrainingData) -> int:
    """Return for how many epochs each rate is tried."""
    steps = -(-len(data.targets) // phase.batch_size)
    return max(TRIED_EPOCHS, -(-TRIED_STEPS // steps))


def _learn(
    tuner: TrainableNetwork,
    phase: Phase,
    data: TrainingData,
    seed: int,
    rate: float,
    epoch: tuple[int, int],
    stopped: Asked,
) -> Iterator[None]:
    """Learn for one of so many epochs, by a rate that rises, then falls as a cosine.

    Yields at the beginning, and every few seconds.
    """
    batches = Batches(
        data.inputs, data.rows, data.targets, data.classes, phase.batch_size,
        phase.augment, seed,
    )  # fmt: skip
    number, epochs = epoch
    order, count, told = batches.order(number), len(batches), -np.inf
    for step in range(count):
        if stopped():
            raise StoppedError
        if time.monotonic() - told > NEWS_SECONDS:
            told = time.monotonic()
            yield
        batch = batches.make(number, step, order)
        done = (number - 1 + (step + 1) / count) / epochs
        falling = 0.5 + 0.5 * np.cos(np.pi * max(0.0, done - RISING) / (1 - RISING))
        tuner.step(
            batch.images, batch.targets, rate * min(done / RISING, falling), batch.random_key
        )


def _loss(tuner: TrainableNetwork, data: TrainingData) -> float:
    """Return the mean cross-entropy of the validation part."""
    places, targets, total = data.val_rows, data.val_targets, 0.0
    for start in range(0, len(places), EVALUATION_BATCH):
        some = slice(start, start + EVALUATION_BATCH)
        total += tuner.evaluate(data.inputs[places[some]], targets[some])[0]
    return total / max(1, len(places))
