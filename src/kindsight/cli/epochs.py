"""Where a training is, as displays need it; and the plainest display: a line an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import typer

from kindsight.cli.progress import clock_time
from kindsight.cli.text import percent, printable
from kindsight.training.history import EpochRow, History

__all__ = ["EpochLines", "Running", "TrainingState"]

RECENT = 3
"""Epochs whose mean time tells how long the rest will take."""


class Running(NamedTuple):
    """The epoch that is being trained; `loss` and `accuracy` are means over it so far."""

    phase: str
    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    pictures_per_second: float


class TrainingState:
    """A :class:`~kindsight.training.listener.TrainingListener` that remembers what it hears.

    Parameters
    ----------
    clock : callable
        Gives seconds.

    Attributes
    ----------
    epochs : int
        How many there will be at most; 0 until the training begins.
    done_before : int
        How many of them were trained before this process began.
    rows : list of EpochRow
        The epochs that are done.
    running : Running or None
        The epoch after them, once a step of it is done.
    best_by : str
        As :class:`~kindsight.training.history.History` takes it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._best: tuple[int, int | None] = (0, None)
        self.best_by = "accuracy"
        self.epochs = self.done_before = 0
        self.rows: list[EpochRow] = []
        self.running: Running | None = None

    def on_start(self, epochs: int, done: int) -> None:
        """Begin, or go on after `done` epochs that are told of next."""
        self.epochs, self.done_before = epochs, done
        self.rows, self.running = [], None
        self._since = self._clock()

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
        """Remember how far the running epoch is."""
        self.running = Running(phase, epoch, step, steps, loss, accuracy, pictures_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Remember an epoch that is done."""
        self.running = None
        self.rows.append(row)
        self._since = self._clock()

    def on_rank(self, best_by: str) -> None:
        """Remember by what an epoch is the best."""
        self.best_by = best_by

    @property
    def replaying(self) -> bool:
        """Whether the last epoch was trained before this process began."""
        return len(self.rows) <= self.done_before

    @property
    def best_epoch(self) -> int | None:
        """The best epoch so far."""
        if self._best[0] != len(self.rows):
            self._best = len(self.rows), History(self.rows, self.best_by).best_epoch
        return self._best[1]

    def seconds_left(self) -> float | None:
        """Estimate how long the rest takes, if every epoch is trained; None where unknown."""
        done, passed = len(self.rows), self._clock() - self._since
        per_epoch = self._seconds_per_epoch(passed)
        if per_epoch is None or not self.epochs:
            return None
        return max(0.0, (self.epochs - done) * per_epoch - passed)

    def _seconds_per_epoch(self, passed: float) -> float | None:
        """Take the mean of the latest epochs of this phase, else go by the steps done so far."""
        running = self.running
        phase = running.phase if running else self.rows[-1].phase if self.rows else None
        recent = [row.seconds for row in self.rows[-RECENT:] if row.phase == phase]
        if recent:
            return sum(recent) / len(recent)
        if running is None or not running.step:
            return None
        return passed * running.steps / running.step


class EpochLines(TrainingState):
    """Writes a line for each epoch, for logs and pipes.

    Parameters
    ----------
    write : callable, optional
        Takes a line; standard error if omitted.
    clock : callable, optional
        Gives seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        self._write = write or (lambda line: typer.echo(line, err=True))

    def on_start(self, epochs: int, done: int) -> None:
        """Say how many epochs were trained before, if any."""
        super().on_start(epochs, done)
        if done:
            self._write(f"Training: {done:,} of {epochs:,} epochs were trained before")

    def on_epoch(self, row: EpochRow) -> None:
        """Write the epoch's line; what was trained before had its line then."""
        super().on_epoch(row)
        if not self.replaying:
            self._write(self._line(row))

    def _line(self, row: EpochRow) -> str:
        parts = [f"loss {row.loss:.4f}, accuracy {percent(row.accuracy)}"]
        if row.val_loss is not None and row.val_accuracy is not None:
            parts.append(
                f"validation loss {row.val_loss:.4f}, accuracy {percent(row.val_accuracy)}"
            )
        times = [f"{row.seconds:.1f} s"]
        left = self.seconds_left()
        if left:
            times.append(f"{clock_time(left)} left")
        best = ", best so far" if self.best_epoch == row.epoch and row.epoch > 1 else ""
        return (
            f"{printable(row.phase)}: epoch {row.epoch:,} of {self.epochs:,}: {'; '.join(parts)}"
            f"{best} ({', '.join(times)})"
        )
