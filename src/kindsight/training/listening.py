"""Who is told how a training goes: the display, the logs."""

from __future__ import annotations

from typing import Protocol

from kindsight.training.epoch import EpochRow
from kindsight.training.history import History

__all__ = ["Listeners", "TrainingListener"]


class TrainingListener(Protocol):
    """Takes the news of a training, in the process and the thread that started it."""

    def on_begin(self, history: History, epochs: int) -> None:
        """Take that the training begins, or goes on after it was stopped.

        Parameters
        ----------
        history : History
            The epochs that are done already; of them there is no further news.
        epochs : int
            How many there will be in all, if nothing ends the training early.
        """

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        pictures_per_second: float,
    ) -> None:
        """Take where the training is; called as often as the trainer likes, not at every step.

        Parameters
        ----------
        phase : str
        epoch, step, steps : int
            The running epoch, from 1; how many of its steps are done, and how many it has.
        loss, accuracy : float
            Means over the epoch so far.
        pictures_per_second : float
            Over the epoch so far.
        """

    def on_epoch(self, row: EpochRow) -> None:
        """Take an epoch that is done, its validation included; each once, in order."""


class Listeners:
    """Several listeners as one; they are told in the order in which they are given.

    Parameters
    ----------
    *listeners : TrainingListener
    """

    def __init__(self, *listeners: TrainingListener) -> None:
        self._listeners = listeners

    def on_begin(self, history: History, epochs: int) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.on_begin(history, epochs)

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        pictures_per_second: float,
    ) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.on_step(phase, epoch, step, steps, loss, accuracy, pictures_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.on_epoch(row)
