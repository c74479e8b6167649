"""Who wants to know how a training goes: displays and logs, told in the parent process."""

from __future__ import annotations

from typing import Protocol

from kindsight.training.engine.history import EpochRow

__all__ = ["CallbackList", "TrainingCallback", "notify_interrupt", "notify_monitor"]


class TrainingCallback(Protocol):
    """Is told of a training of epochs and steps while it goes on.

    All calls come from one thread. A training that is continued first tells of the epochs that
    were trained before, so that a callback has seen every epoch, once and in order.
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


def notify_interrupt(callback: TrainingCallback | None) -> None:
    """Tell a callback that cares (it has a method ``on_interrupt``) of a Ctrl-C.

    A training with a budget answers the first one by finishing with the best so far.
    """
    heard = getattr(callback, "on_interrupt", None)
    if heard is not None:
        heard()


def notify_monitor(callback: TrainingCallback | None, monitor: str) -> None:
    """Tell a callback that cares (it has a method ``on_monitor``) by what an epoch is the best.

    Where that is the accuracy, nothing has to be told.
    """
    heard = getattr(callback, "on_monitor", None)
    if heard is not None:
        heard(monitor)


class CallbackList:
    """Several listeners as one; they are told in the order in which they are given.

    Parameters
    ----------
    *listeners : TrainingCallback
    """

    def __init__(self, *listeners: TrainingCallback) -> None:
        self._listeners = listeners

    def on_start(self, epochs: int, done: int) -> None:
        """Tell each."""
        for callback in self._listeners:
            callback.on_start(epochs, done)

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
        for callback in self._listeners:
            callback.on_step(phase, epoch, step, steps, loss, accuracy, images_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Tell each."""
        for callback in self._listeners:
            callback.on_epoch(row)

    def on_interrupt(self) -> None:
        """Tell each that cares."""
        for callback in self._listeners:
            notify_interrupt(callback)

    def on_monitor(self, monitor: str) -> None:
        """Tell each that cares."""
        for callback in self._listeners:
            notify_monitor(callback, monitor)
