"""Experiments: a change and the results of its folds; a test of whether the best is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.paired import PairedComparison, compare_pair
from kindsight.runs.improve.changes import Changes, describe
from kindsight.runs.settings import TrainSettings
from kindsight.training.engine.history import EpochRow
from kindsight.training.held_out import is_clearly_better

__all__ = [
    "LEVEL", "MIN_PROBABILITY", "Experiment", "FoldResult", "OnEpoch", "OutOfTime", "Runs",
    "StopExperiment", "Verdict", "accepts", "decide", "loss_test", "no_change",
]  # fmt: skip

MIN_PROBABILITY = 1e-7
"""Lower limit of a probability in a log loss."""

OnEpoch = Callable[[EpochRow | None, int], None]
"""Called with each epoch and the number of epochs, or with None while features are computed; raises
StopExperiment to end the experiment."""


class StopExperiment(Exception):  # noqa: N818 (no error)
    """An experiment is stopped before its end; the message gives the reason."""


class OutOfTime(StopExperiment):
    """An experiment is stopped because the time is over; with more time, it is run again."""


@dataclass(frozen=True, eq=False)
class FoldResult:
    """The results of one fold of an experiment on distinct held-out images, in the dataset's order.

    `correct` is bool (images,), `losses` are their log losses in nats.
    """

    correct: NDArray[np.bool_]
    losses: NDArray[np.float64]
    seconds: float
    epochs: int = 0
    best_epoch: int | None = None
    # Lowest validation loss so far, by tenth of the epochs from 1 to 9
    curve: Mapping[int, float] = field(default_factory=dict)


@dataclass(eq=False)
class Experiment:
    """A change of the training, and its results so far.

    Parameters
    ----------
    number : int
        From 0, the original.
    changes : mapping
        Options that differ from the original's.
    origin : str
        ``"original"``, ``"reference"``, ``"one factor"``, ``"combined"`` or ``"any model"``.
    against : int
        Number of the experiment that it is compared with.
    results : dict of int to FoldResult
        By fold.
    stopped : str
        Why it was stopped early; empty if it was not.
    """

    number: int
    changes: Mapping[str, Any]
    origin: str
    against: int
    results: dict[int, FoldResult] = field(default_factory=dict)
    stopped: str = ""

    def has(self, folds: tuple[int, ...]) -> bool:
        """Return whether all these folds are finished."""
        return all(fold in self.results for fold in folds)

    def correct(self, folds: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return whether each image of some folds is classified correctly."""
        return np.concatenate([self.results[fold].correct for fold in folds])

    def accuracy(self, folds: tuple[int, ...]) -> float:
        """Return the accuracy over folds, 0-1."""
        return float(self.correct(folds).mean())

    def losses(self, folds: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the log loss of each image, in nats, over folds."""
        return np.concatenate([self.results[fold].losses for fold in folds])

    def log_loss(self, folds: tuple[int, ...]) -> float:
        """Return the mean log loss over folds, in nats."""
        return float(self.losses(folds).mean())

    def compare(self, other: Experiment, folds: tuple[int, ...]) -> PairedComparison:
        """Return the difference of this experiment from another one, on the same images."""
        return compare_pair(
            (other.correct(folds), self.correct(folds)), (other.losses(folds), self.losses(folds))
        )

    @property
    def words(self) -> str:
        """The changes as options."""
        return describe(self.changes)


class Runs(Protocol):
    """The methods of a :class:`.laboratory.Laboratory` that a search uses."""

    settings: TrainSettings

    def of(self, changes: Changes) -> TrainSettings:
        """Return the settings of an experiment."""

    def training_images(self) -> int:
        """Return the number of images that an experiment trains on."""

    def run(
        self, changes: Changes, fold: int, stage: str, on_epoch: OnEpoch | None = None
    ) -> FoldResult:
        """Return the result of a fold."""

    def is_stored(self, changes: Changes, fold: int) -> bool:
        """Return whether the result of a fold is stored already."""


LEVEL = 0.05
"""Probability that a search recommends a change although none has an effect."""

# Number of images from which the mean of log losses is approximately normal.
MIN_LOSSES = 30


@dataclass(frozen=True)
class Verdict:
    """Whether the best experiment is better than the original.

    Parameters
    ----------
    accepted : bool
    best : Experiment or None
        None if no experiment had a lower log loss than the original.
    difference : PairedComparison or None
        The difference on the deciding images.
    folds : tuple of int
        Folds of the deciding images.
    tests : int
        Number of comparisons by which the p-value was multiplied.
    p_value : float
        p-value of the lower log losses, after the multiplication.
    reason : str
        A sentence.
    """

    accepted: bool
    best: Experiment | None
    difference: PairedComparison | None
    folds: tuple[int, ...]
    tests: int
    p_value: float
    reason: str


def decide(
    best: Experiment,
    original: Experiment,
    explored: tuple[int, ...],
    fresh: tuple[int, ...],
    tried: int,
) -> Verdict:
    """Return whether the best of several experiments is better than the original.

    It must pass the rule of acceptance. Its log losses must be significantly lower, with the
    p-value multiplied by the number of experiments that competed on these images, and its errors
    significantly fewer, in a one-sided McNemar test. Half of :data:`LEVEL` is for images that were
    not used to choose it, with one comparison, and half for those that were.

    Parameters
    ----------
    best, original : Experiment
    explored : tuple of int
        Folds on which the best one was chosen.
    fresh : tuple of int
        Other folds that both have finished.
    tried : int
        Number of experiments that competed.
    """
    chances = [(fresh, 1)] if fresh else []
    usable = tuple(fold for fold in explored if best.has((fold,)) and original.has((fold,)))
    chances += [(usable, max(1, tried))] if usable else []
    verdicts = []
    for folds, tests in chances:
        difference = best.compare(original, folds)
        p_value = min(1.0, tests * loss_test(best.losses(folds), original.losses(folds)))
        fewer_errors = difference.difference > 0 and difference.p_value / 2 <= LEVEL
        accepted = (
            accepts(best, original, folds) and p_value <= LEVEL / len(chances) and fewer_errors
        )
        reason = "The gain is statistically significant."
        if not accepted:
            reason = (
                f"The gain of the best experiment ({best.words}) is not statistically significant."
            )
        verdicts.append(Verdict(accepted, best, difference, folds, tests, p_value, reason))
    return next((each for each in verdicts if each.accepted), verdicts[0])


def loss_test(new: NDArray[np.float64], old: NDArray[np.float64]) -> float:
    """Return the p-value of the lower losses, if both classifiers were equally good.

    It is from a one-sided z-test of the mean of the paired differences, and 1 for fewer than
    :data:`MIN_LOSSES` images, whose mean may not be normally distributed.
    """
    differences = old - new
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if len(differences) < MIN_LOSSES or spread == 0.0:
        return 1.0
    z = float(differences.mean()) / (spread / math.sqrt(len(differences)))
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def accepts(one: Experiment, other: Experiment, folds: tuple[int, ...]) -> bool:
    """Return whether an experiment is clearly better on folds, by the rule of acceptance."""
    return is_clearly_better(
        one.log_loss(folds), other.log_loss(folds), one.correct(folds), other.correct(folds)
    )


def no_change(reason: str) -> Verdict:
    """Return the verdict that nothing helped."""
    return Verdict(False, None, None, (), 0, 1.0, reason)
