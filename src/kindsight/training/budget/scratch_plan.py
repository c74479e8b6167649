"""Whether and how a network from scratch is trained within a budget: constants and decisions.

Nothing here trains anything; :mod:`.from_scratch` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FILTERS",
    "MEASURED_IMAGES",
    "Trial",
    "choose_filters",
    "fits_epoch",
    "is_candidate",
    "needs_another",
    "planned_epochs",
    "predict_log_loss",
    "trial_rows",
    "trial_seconds",
]

# Images with at most this side are small: it is half the input side of the default backbone, which
# enlarges each of their pixels to four. With larger images, a network from random weights needs
# at least MANY of them.
SMALL, MANY = 112, 10_000
# With fewer training images a backbone's pretrained features have always been better.
MIN_IMAGES = 1000
# With fewer seconds left nothing can be learned from a trial.
MIN_SECONDS = 45.0

MEASURED_IMAGES = 1024
"""Images that measure the speed of a network, at most."""

# Fractions of the time left that the trials take at most, and the least seconds of the first.
# Trials in vain should cost little: fine-tuning gains with every minute.
TRIAL_FRACTIONS, MIN_TRIAL_SECONDS = (1 / 32, 1 / 16, 1 / 8, 1 / 4), 5.0
# After this many trials, another is worth its time only if the log loss that they predict is at
# most this multiple of the head's: predictions from a slow start are rough.
USUAL_TRIALS, PROMISING = 3, 2.0
# Above this fraction of the log loss of guessing, a network has hardly begun to learn, and its loss
# falls slowly at first: no power law holds from there.
BEGUN = 0.8

FILTERS: tuple[int, ...] = (16, 24, 32, 48)
"""Filters of the first convolution, of all networks that may be trained; the first is tried."""

# Epochs that must fit into the time left before a wider network is taken.
WIDER_EPOCHS = 24
MAX_EPOCHS = 60
# Epochs are planned for this fraction of the time: the last ones may be slower than the first.
EPOCH_FRACTION = 0.85


@dataclass(frozen=True)
class Trial:
    """A short training with a complete learning-rate schedule.

    Parameters
    ----------
    images : int
        Training images seen, those of all epochs.
    log_loss : float
        On the validation images, in nats.
    """

    images: int
    log_loss: float


def is_candidate(side: float, images: int, seconds: float) -> bool:
    """Return whether a network from scratch is worth a trial.

    Parameters
    ----------
    side : float
        Median of the images' shorter sides in pixels.
    images : int
        Number of training images.
    seconds : float
        Seconds left.
    """
    return images >= MIN_IMAGES and (side <= SMALL or images >= MANY) and seconds >= MIN_SECONDS


def fits_epoch(images: int, rate: float, seconds: float) -> bool:
    """Return whether an epoch of `images` fits at a rate in images per second."""
    return EPOCH_FRACTION * seconds * rate >= images


def planned_epochs(images: int, rate: float, seconds: float) -> int:
    """Return how many epochs of `images` fit at a rate in images per second; at least one."""
    return max(1, min(MAX_EPOCHS, int(EPOCH_FRACTION * seconds * rate / images)))


def trial_seconds(left: float) -> list[float]:
    """Return the seconds of the trials, each twice as long as the one before, of those left."""
    factor = max(1.0, MIN_TRIAL_SECONDS / (TRIAL_FRACTIONS[0] * left))
    return [fraction * factor * left for fraction in TRIAL_FRACTIONS]


def needs_another(trials: Sequence[Trial], expected: float, head: float, classes: int) -> bool:
    """Return whether a longer trial is needed to decide.

    Parameters
    ----------
    trials : sequence of Trial
        The trials so far, at least one.
    expected, head : float
        Log losses: the network's as predicted by the trials, and the frozen head's.
    classes : int
        Number of classes.
    """
    if expected < head:
        return False
    if len(trials) >= USUAL_TRIALS and expected > PROMISING * head:
        return False
    # Two that have begun to learn predict the log loss of longer ones.
    return len(trials) < 2 or trials[-2].log_loss >= BEGUN * math.log(classes)


def trial_rows(
    rows: NDArray[np.int64], targets: NDArray[np.int64], rate: float, seconds: float, seed: int
) -> tuple[NDArray[np.int64], int]:
    """Return the images of a trial, and its epochs.

    All images where an epoch fits into the time; else a random part of them for one epoch, with at
    least one image of each class.

    Parameters
    ----------
    rows, targets : array
        int64: the training images and their class indices.
    rate : float
        Measured training speed in images per second.
    seconds : float
        Time of the trial.
    seed : int
    """
    affordable = int(rate * seconds)
    if affordable >= len(rows):
        return rows, affordable // len(rows)
    order = np.random.default_rng(seed).permutation(len(rows)).astype(np.int64)
    first = np.unique(targets[order], return_index=True)[1]
    some = np.concatenate([first, np.setdiff1d(np.arange(len(rows)), first)])
    return np.sort(rows[order[some[: max(affordable, len(first))]]]), 1


def predict_log_loss(trials: Sequence[Trial], images: float) -> float:
    """Return the log loss after `images`, by the power law through two trials.

    The log loss falls by the same factor with each doubling of the images seen. Where the longer
    trial was no better, nothing is gained, nor is anything known from one trial.
    """
    short, longer = trials[0], trials[-1]
    if not longer.log_loss < short.log_loss or images <= longer.images:
        return longer.log_loss
    doublings = math.log2(longer.images / short.images)
    if doublings <= 0:
        return longer.log_loss
    factor = longer.log_loss / short.log_loss
    return float(longer.log_loss * factor ** (math.log2(images / longer.images) / doublings))


def choose_filters(images: int, rate: float, seconds: float) -> int:
    """Return the filters of the first convolution of the network that is trained.

    The widest of :data:`FILTERS` that leaves time for enough epochs, by the measured rate of the
    narrowest: the cost grows with the square of the width.

    Parameters
    ----------
    images : int
        Number of training images.
    rate : float
        Training speed of the narrowest network in images per second.
    seconds : float
        Seconds left.
    """
    for filters in reversed(FILTERS[1:]):
        slower = (FILTERS[0] / filters) ** 2
        if EPOCH_FRACTION * seconds * rate * slower >= WIDER_EPOCHS * images:
            return filters
    return FILTERS[0]
