"""Callbacks of a training, called in the parent process: displays and logs."""

from __future__ import annotations

from typing import Protocol

from kindsight.training.engine.history import EpochRow

__all__ = ["CallbackList", "TrainingCallback", "notify_interrupt", "notify_monitor"]


class TrainingCallback(Protocol):
    """Receives the progress of a training by epochs and steps.

    All calls come from one thread. A resumed training first reports the epochs that were trained
    before, so a callback sees every epoch, once and in order. Two more methods are optional:
    ``on_interrupt()``, called on a Ctrl-C that ends a training with a budget early, and
    ``on_monitor(monitor)``, called before the training if the best epoch is not chosen by accuracy.
    """

    def on_start(self, epochs: int, done: int) -> None:
        """Receive the start of the training, or its resumption.

        `epochs` is the maximum; early stopping may end sooner. `done` epochs were trained before,
        of which as many calls of :meth:`on_epoch` follow at once.
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
        """Receive the progress of an epoch, at most about five times a second.

        `epoch` is counted from 1 through all phases, `step` of the epoch's `steps` are done.
        `loss`, in nats, and `accuracy`, 0-1, are means over the epoch's images so far; the speed is
        since the last call.
        """

    def on_epoch(self, row: EpochRow) -> None:
        """Receive a finished epoch."""


def notify_interrupt(callback: TrainingCallback | None) -> None:
    """Call a callback's optional method ``on_interrupt``."""
    method = getattr(callback, "on_interrupt", None)
    if method is not None:
        method()


def notify_monitor(callback: TrainingCallback | None, monitor: str) -> None:
    """Call a callback's optional method ``on_monitor`` with ``"accuracy"`` or ``"loss"``."""
    method = getattr(callback, "on_monitor", None)
    if method is not None:
        method(monitor)


class CallbackList:
    """Several callbacks as one, called in the order given."""

    def __init__(self, *callbacks: TrainingCallback) -> None:
        self._callbacks = callbacks

    def on_start(self, epochs: int, done: int) -> None:
        """Call each."""
        for callback in self._callbacks:
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
        """Call each."""
        for callback in self._callbacks:
            callback.on_step(phase, epoch, step, steps, loss, accuracy, images_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Call each."""
        for callback in self._callbacks:
            callback.on_epoch(row)

    def on_interrupt(self) -> None:
        """Call each that has the method."""
        for callback in self._callbacks:
            notify_interrupt(callback)

    def on_monitor(self, monitor: str) -> None:
        """Call each that has the method."""
        for callback in self._callbacks:
            notify_monitor(callback, monitor)
