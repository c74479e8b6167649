"""Choose the learning rate of fine-tuning by short trials on the validation images.

The best rate differs by a factor of twenty between datasets: images much like ImageNet's, or few
and noisy labels, need small steps; hands before a wall need large ones. Each trial is a whole
training in small, with a rate that rises and falls to zero: at a constant large rate the loss
rises before it falls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kindsight.models.steps.trainable import TrainableNetwork
from kindsight.training.acceptance import is_clearly_better
from kindsight.training.engine.loop import EVALUATION_BATCH, StoppedError, TrainingData
from kindsight.training.engine.plan import Phase

__all__ = ["LEARNING_RATES", "choose_learning_rate", "trial_epochs"]

LEARNING_RATES = (5e-5, 3e-4, 1e-3)
"""From a rate that barely changes the fitted head to one that retrains the network."""

# Epochs of a trial, and its fewest steps: with few images, three epochs show nothing.
TRIAL_EPOCHS, TRIAL_STEPS = 3, 60
# Fraction of a trial in which the rate rises.
WARMUP = 1 / 3
# Seconds from one progress report to the next.
REPORT_SECONDS = 2.0


def choose_learning_rate(
    network: TrainableNetwork,
    phase: Phase,
    data: TrainingData,
    seed: int,
    rates: Sequence[float],
    report: Callable[[int, int], None],
    stopped: Callable[[], bool],
    is_late: Callable[[], bool],
) -> float:
    """Return the learning rate with the lowest validation loss; the network is left unchanged.

    A larger rate must be clearly better (:func:`.is_clearly_better`); the first that is not ends
    the search.

    Parameters
    ----------
    network : TrainableNetwork
    phase : Phase
        Trainable layers and optimizer.
    data : TrainingData
        With validation images.
    seed : int
        For the order of the images.
    rates : sequence of float
        In increasing order.
    report : callable
        Called with (epochs done, epochs at most), every few seconds.
    stopped : callable
        Returns whether training is to stop; called before each step.
    is_late : callable
        Returns whether time is up; then the best of the completed trials is returned.

    Raises
    ------
    StoppedError
        When `stopped` returns True.
    """
    network.begin(phase.update_rule(), phase.label_smoothing, phase.freeze)
    epochs, start = trial_epochs(phase, data), network.state()
    best, lowest = rates[0], np.inf
    for number, rate in enumerate(rates):
        network.set_state(start)
        for epoch in range(1, epochs + 1):
            done = number * epochs + epoch - 1
            for _ in _train_epoch(network, phase, data, seed, rate, (epoch, epochs), stopped):
                report(done, len(rates) * epochs)
                if is_late():
                    network.set_state(start)
                    return best
        loss = _validation_loss(network, data)
        if not is_clearly_better(loss, lowest):
            break
        best, lowest = rate, loss
    network.set_state(start)
    return best


def trial_epochs(phase: Phase, data: TrainingData) -> int:
    """Return the epochs of each trial."""
    steps = -(-len(data.targets) // phase.batch_size)
    return max(TRIAL_EPOCHS, -(-TRIAL_STEPS // steps))


def _train_epoch(
    network: TrainableNetwork,
    phase: Phase,
    data: TrainingData,
    seed: int,
    rate: float,
    epoch: tuple[int, int],
    stopped: Callable[[], bool],
) -> Iterator[None]:
    """Train for epoch (number, of all), with warm-up and cosine decay; yield every few seconds."""
    batches = data.batches(phase, seed)
    number, epochs = epoch
    order, count, reported = batches.order(number), len(batches), -np.inf
    for step in range(count):
        if stopped():
            raise StoppedError
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            yield
        batch = batches.make(number, step, order)
        done = (number - 1 + (step + 1) / count) / epochs
        decay = 0.5 + 0.5 * np.cos(np.pi * max(0.0, done - WARMUP) / (1 - WARMUP))
        network.step(
            batch.images, batch.targets, rate * min(done / WARMUP, decay), batch.random_key
        )


def _validation_loss(network: TrainableNetwork, data: TrainingData) -> float:
    """Return the mean cross-entropy of the validation images."""
    rows, targets, total = data.val_rows, data.val_targets, 0.0
    for start in range(0, len(rows), EVALUATION_BATCH):
        some = slice(start, start + EVALUATION_BATCH)
        total += network.evaluate(data.inputs[rows[some]], targets[some])[0]
    return total / max(1, len(rows))
