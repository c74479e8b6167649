"""Choices of a fine-tuning on the validation images: learning rate, TTA, ensemble.

The best learning rate differs by a factor of twenty between datasets: images much like ImageNet's,
or few and noisy labels, need small steps; hands before a wall need large ones. Each trial is a
whole training in small, with a rate that rises and falls to zero: at a constant large rate the loss
rises before it falls.

TTA and the ensemble are chosen by the calibrated log loss, by :func:`.is_clearly_better`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.evaluation import Evaluation, evaluate
from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.models.backbones.tta import FLIP_AXES, FLIPS, flip_image
from kindsight.models.networks.fine_tuned import (
    FineTunedNetwork,
    average_logits,
    average_over_flips,
)
from kindsight.models.runtime import InterpreterPool
from kindsight.models.steps.trainable import TrainableNetwork
from kindsight.threads import map_ordered
from kindsight.training.engine.loop import EVALUATION_BATCH, StoppedError, TrainingData
from kindsight.training.engine.plan import Phase
from kindsight.training.held_out import is_clearly_better

__all__ = [
    "LEARNING_RATES", "build_predictor", "choose_flips", "choose_learning_rate",
    "choose_prediction", "describe_flips", "flipped_logits", "trial_epochs",
]  # fmt: skip

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


Logits = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Prediction:
    """How a fine-tuned network predicts.

    Parameters
    ----------
    flips : int
        Flips that its logits are averaged over; 1 for the image alone.
    ensemble : bool
        Whether these logits are averaged with the frozen head's.
    logits : array
        float32 (images, classes): the network's own validation logits.
    """

    flips: int
    ensemble: bool
    logits: Logits


def choose_prediction(
    flipped: Logits, frozen: Logits, targets: Rows, *, wide: bool, margin: float
) -> Prediction:
    """Choose test-time augmentation and the ensemble by validation log loss.

    Without wider features the network predicts alone from a single image, the cheapest, unless
    the ensemble or the flips are clearly better. With wider features, for which a budget was
    given, accuracy counts more than speed: the ensemble over all flips is the default, and is
    left only for a clearly better alternative.

    Parameters
    ----------
    flipped : array
        float32 (flips, images, classes): the network's logits; the first of the images unflipped.
    frozen : array
        float32 (images, classes): the frozen head's calibrated logits.
    targets : array
        int64 (images,): class indices.
    wide : bool
        Whether the frozen head has wider features than the network.
    margin : float
        See :func:`.is_clearly_better`.
    """

    def is_better(logits: Logits, incumbent: Logits) -> bool:
        (loss, correct), (other, others) = (
            _calibrated(each, targets) for each in (logits, incumbent)
        )
        return is_clearly_better(loss, other, correct, others, margin=margin)

    def mean(logits: Logits) -> Logits:
        return (0.5 * logits + 0.5 * frozen).astype(np.float32)

    one, every = flipped[0], np.asarray(flipped.mean(0), np.float32)
    several = len(flipped) > 1
    if wide:
        single = several and is_better(one, every)
        logits, flips = (one, 1) if single else (every, len(flipped))
        return Prediction(flips, not is_better(logits, mean(logits)), logits)
    ensemble = is_better(mean(one), one)
    if several and is_better(every, mean(one) if ensemble else one):
        return Prediction(len(flipped), False, every)
    return Prediction(1, ensemble, one)


def _calibrated(logits: Logits, targets: Rows) -> tuple[float, NDArray[np.bool_]]:
    """Return the log loss after temperature scaling, and which images are correct."""
    probabilities = to_probabilities(logits, fit_temperature(logits, targets))
    picked = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    loss = float(-np.log(np.maximum(picked, 1e-12)).mean())
    return loss, logits.argmax(1) == targets


def flipped_logits(
    network: TrainableNetwork,
    inputs: NDArray[Any],
    rows: Rows,
    flips: Sequence[int],
    *,
    flipped: bool,
    report: Callable[[], None],
) -> Logits:
    """Return the network's logits of flipped images, float32 (flips, images, classes).

    Parameters
    ----------
    network : TrainableNetwork
    inputs : array
        Images, or activations at the cut.
    rows : array
        int64 (images, flips): row indices of each image in `inputs`.
    flips : sequence of int
        Indices of :data:`kindsight.models.backbones.tta.FLIPS`.
    flipped : bool
        Whether `inputs` are flipped already.
    report : callable
        Called before each batch.
    """

    def run(rows: Rows, flip: int) -> Logits:
        report()
        batch = inputs[rows]
        return network.logits(batch if flipped else np.flip(batch, FLIP_AXES[flip]))

    starts = range(0, len(rows), EVALUATION_BATCH)
    return np.stack(
        [
            np.concatenate([run(some[at : at + EVALUATION_BATCH], flip) for at in starts])
            for some, flip in zip(rows.T, flips, strict=True)
        ]
    )


def build_predictor(
    network: FineTunedNetwork, prediction: Prediction, flips: Sequence[int], frozen: Any
) -> Any:
    """Return the Keras model that predicts so; None where it is the fine-tuned network itself.

    Parameters
    ----------
    network : FineTunedNetwork
    prediction : Prediction
    flips : sequence of int
        Indices of the flips, the unflipped image first.
    frozen : keras.Model
        The frozen head with its backbone, for the ensemble.
    """
    full = network.full
    if prediction.flips > 1:
        full = average_over_flips(full, flips[: prediction.flips])
    if prediction.ensemble:
        return average_logits(full, frozen, 0.5)
    return full if prediction.flips > 1 else None


# Images that decide whether a flip preserves the class: enough to show a large loss, in seconds.
FLIP_IMAGES = 200
# A flip is used where it costs the frozen head no more accuracy and log loss than this.
ACCURACY_LOST, LOSS_FACTOR, LOSS_ADDED = 0.03, 1.25, 0.01


def choose_flips(
    stored: CachedImages,
    rows: Rows,
    targets: Rows,
    pool: InterpreterPool,
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    classes: Sequence[str],
) -> tuple[tuple[int, ...], int]:
    """Return the flips that preserve an image's class: a mirrored 2 is not a 2.

    A flip does where the frozen head classifies flipped validation images nearly as well.

    Parameters
    ----------
    stored : CachedImages
    rows, targets : array
        int64: the validation images and their class indices.
    pool : InterpreterPool
        The backbone, pixels to features.
    predict : callable
        The head, float32 (n, features) to probabilities float32 (n, classes).
    classes : sequence of str

    Returns
    -------
    flips : tuple of int
        Indices of :data:`kindsight.models.backbones.tta.FLIPS`, 0 always among them.
    runs : int
        Number of images run.
    """
    step = -(-len(rows) // FLIP_IMAGES)
    chosen, labels = rows[::step], targets[::step]

    def judge(number: int) -> Evaluation:
        def run(row: int) -> Any:
            return pool.run(flip_image(stored.pixels(np.array([row]))[0], number))

        vectors = np.stack(list(map_ordered(run, chosen.tolist(), pool.workers)))
        return evaluate(predict(vectors), labels, tuple(classes), resamples=0)

    plain, *flipped = (judge(number) for number in range(len(FLIPS) - 1))
    single = [
        number
        for number, found in enumerate(flipped, 1)
        if found.accuracy >= plain.accuracy - ACCURACY_LOST
        and found.log_loss <= LOSS_FACTOR * plain.log_loss + LOSS_ADDED
    ]
    # An image that may be flipped both ways may be turned by 180 degrees.
    both = [len(FLIPS) - 1] if len(single) == len(flipped) else []
    return (0, *single, *both), len(chosen) * (1 + len(flipped))


def describe_flips(flips: Sequence[int]) -> str:
    """Return ``"flipped left to right"`` or the like."""
    names = {1: "left to right", 2: "upside down"}
    named = [name for number, name in names.items() if number in flips]
    return f"flipped {' and '.join(named)}" if named else "not flipped"
