"""Who wants to know how a training goes: displays and logs, told in the parent process."""

from __future__ import annotations

from typing import Protocol

from kindsight.training.engine.history import EpochRow

__all__ = ["Listeners", "TrainingListener", "tell_of_interrupt", "tell_of_rank"]


class TrainingListener(Protocol):
    """Is told of a training of epochs and steps while it goes on.

    All calls come from one thread. A training that is continued first tells of the epochs that
    were trained before, so that a listener has seen every epoch, once and in order.
    """

    def on_start(self, epochs: int, done: int) -> None:
        """Hear that the training begins, or goes on.

        Parameters
        ----------
        epochs : int
            How many there will be at most; early stopping may end sooner.
        done : int
            How many of them were trained before: that many calls of :meth:`on_epoch` follow at
            once.
        """

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        images_per_second: float,
    ) -> None:
        """Hear how far an epoch is; at most some five times a second.

        Parameters
        ----------
        phase : str
            As in :class:`.history.EpochRow`.
        epoch : int
            From 1, counted through all phases.
        step, steps : int
            How many steps of the epoch are done, and how many it has.
        loss, accuracy : float
            Mean over the images of this epoch so far; in nats, and 0-1.
        images_per_second : float
            Over the steps since the last call.
        """

    def on_epoch(self, row: EpochRow) -> None:
        """Hear that an epoch is done."""


def tell_of_interrupt(listener: TrainingListener | None) -> None:
    """Tell a listener that cares (it has a method ``on_interrupt``) of a Ctrl-C.

    A training with a budget answers the first one by finishing with the best so far.
    """
    heard = getattr(listener, "on_interrupt", None)
    if heard is not None:
        heard()


def tell_of_rank(listener: TrainingListener | None, best_by: str) -> None:
    """Tell a listener that cares (it has a method ``on_rank``) by what an epoch is the best.

    Where that is the accuracy, nothing has to be told.
    """
    heard = getattr(listener, "on_rank", None)
    if heard is not None:
        heard(best_by)


class Listeners:
    """Several listeners as one; they are told in the order in which they are given.

    Parameters
    ----------
    *listeners : TrainingListener
    """

    def __init__(self, *listeners: TrainingListener) -> None:
        self._listeners = listeners

    def on_start(self, epochs: int, done: int) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.on_start(epochs, done)

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        images_per_second: float,
    ) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.on_step(phase, epoch, step, steps, loss, accuracy, images_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.on_epoch(row)

    def on_interrupt(self) -> None:
        """Tell each that cares."""
        for listener in self._listeners:
            tell_of_interrupt(listener)

    def on_rank(self, best_by: str) -> None:
        """Tell each that cares."""
        for listener in self._listeners:
            tell_of_rank(listener, best_by)
