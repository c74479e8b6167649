"""Experiments: a change of a training, and the results of its folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.paired import PairedComparison, compare_pair
from kindsight.runs.improve.changes import describe
from kindsight.runs.improve.remedies import Changes
from kindsight.runs.settings import TrainSettings
from kindsight.training.engine.history import EpochRow

__all__ = [
    "MIN_PROBABILITY",
    "Experiment",
    "FoldResult",
    "OnEpoch",
    "OutOfTime",
    "Runs",
    "StopExperiment",
]

MIN_PROBABILITY = 1e-7
"""Smallest probability in a log loss."""

OnEpoch = Callable[[EpochRow | None, int], None]
"""Called with each epoch and the number of all epochs; raises StopExperiment to end it.

Called with None while features are computed."""


class StopExperiment(Exception):  # noqa: N818 (no error)
    """An experiment is stopped before its end; the message says why."""


class OutOfTime(StopExperiment):
    """As StopExperiment, because the time is over: with more time, the experiment is run again."""


@dataclass(frozen=True, eq=False)
class FoldResult:
    """What one fold of an experiment got right: distinct held-out images, in the dataset's order.

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
        """Return whether all these folds were finished."""
        return all(fold in self.results for fold in folds)

    def correct(self, folds: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which images are classified correctly, over folds."""
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
        """Return how many images an experiment trains on."""

    def run(
        self, changes: Changes, fold: int, stage: str, on_epoch: OnEpoch | None = None
    ) -> FoldResult:
        """Return the result of a fold."""

    def is_stored(self, changes: Changes, fold: int) -> bool:
        """Return whether the result of a fold is there already."""
