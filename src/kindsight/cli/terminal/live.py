"""A training while it goes on: bars, the last epochs and a small curve on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import typer

from kindsight.cli.terminal.command import forgive_interrupt, raise_if_interrupted
from kindsight.cli.terminal.epoch_table import (
    NARROW,
    EpochLines,
    TrainingState,
    curve,
    epoch_table,
    headline,
)
from kindsight.cli.terminal.progress import (
    BarProgress,
    LineProgress,
    Progress,
    checked,
    clock_time,
    make_bars,
)
from kindsight.cli.terminal.text import note
from kindsight.training.engine.callbacks import CallbackList, TrainingCallback
from kindsight.training.engine.history import EpochRow, History

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress as RichProgress

__all__ = ["Screen", "Watch", "watching_training"]


class Watch(NamedTuple):
    """What shows a training: `progress` takes its stages, `callback` its steps and epochs."""

    progress: Progress
    callback: TrainingCallback


@contextmanager
def watching_training(quiet: bool, budget: float | None = None) -> Iterator[Watch]:
    """Show a training on standard error while the block runs.

    On a terminal bars for the stages, the running epoch, the last epochs and a curve; elsewhere a
    line a stage and a line an epoch.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    budget : float, optional
        Seconds against which the time is shown.

    Yields
    ------
    Watch
        Both raise KeyboardInterrupt where a Ctrl-C got lost.
    """
    if quiet:
        yield Watch(checked(None), Interrupts())
    elif sys.stderr.isatty():
        with _live(budget) as watch:
            yield watch
    else:
        write = _writer(budget)
        yield Watch(checked(LineProgress(write)), CallbackList(Interrupts(), EpochLines(write)))


class Interrupts:
    """Raises KeyboardInterrupt at any news after a Ctrl-C that did not end the command."""

    def on_start(self, epochs: int, done: int) -> None:
        """Look for a Ctrl-C."""
        raise_if_interrupted()

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
        """Look for a Ctrl-C."""
        raise_if_interrupted()

    def on_epoch(self, row: EpochRow) -> None:
        """Look for a Ctrl-C."""
        raise_if_interrupted()

    def on_interrupt(self) -> None:
        """Take a Ctrl-C as the wish to finish early."""
        forgive_interrupt()
        note("Finishing with the best so far; Ctrl-C again stops at once.")


def _writer(budget: float | None) -> Callable[[str], None] | None:
    """Return what writes lines that begin with the time used of a budget."""
    if budget is None:
        return None
    began, whole = time.monotonic(), clock_time(budget)

    def write(line: str) -> None:
        typer.echo(f"[{clock_time(time.monotonic() - began)} of {whole}] {line}", err=True)

    return write


@contextmanager
def _live(budget: float | None) -> Iterator[Watch]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    screen = Screen(make_bars(console), budget=budget)
    # On each refresh all is drawn anew: the time left goes on between two steps.
    with Live(screen, console=console, refresh_per_second=5):
        yield Watch(checked(screen.progress), CallbackList(Interrupts(), screen))
        screen.progress.close()


class Screen(TrainingState):
    """All that a terminal shows: the stages before the training, the training, those after it.

    Parameters
    ----------
    bars : rich.progress.Progress
        As :func:`.progress.make_bars` makes it.
    clock : callable, optional
        Gives seconds.
    budget : float, optional
        Seconds against which the time since now is shown.

    Attributes
    ----------
    progress : callable
        Takes the stages.
    """

    def __init__(
        self,
        bars: RichProgress,
        clock: Callable[[], float] = time.monotonic,
        budget: float | None = None,
    ) -> None:
        super().__init__(clock)
        self._began, self._budget = clock(), budget
        self.progress = BarProgress(bars)
        self._bars = bars
        self._before: int | None = None

    def on_start(self, epochs: int, done: int) -> None:
        """Begin the training: the stages so far are over."""
        super().on_start(epochs, done)
        self.progress.close()
        self._before = len(self._bars.tasks)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Draw everything for a terminal of the size that there is."""
        yield from self._stages_and_epochs(console, options)
        if self._budget is not None:
            yield self._budget_line(self._budget)

    def _budget_line(self, budget: float) -> RenderableType:
        from rich.text import Text

        used = f"{clock_time(self._clock() - self._began)} of {clock_time(budget)}"
        return Text(f"  Budget {used}; Ctrl-C finishes with the best so far", style="dim")

    def _stages_and_epochs(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        tasks = self._bars.tasks
        if self._before is None:
            yield self._bars.make_tasks_table(tasks)
            return
        if self._before:
            yield self._bars.make_tasks_table(tasks[: self._before])
        # News may come while this is drawn.
        rows, running = tuple(self.rows), self.running
        width, shown = options.max_width, max(3, min(8, console.height - len(tasks) - 8))
        # Early stopping shows in that another stage begins.
        over = running is None and (len(rows) >= self.epochs or bool(tasks[self._before :]))
        yield headline(rows, running, self.epochs, self.seconds_left(), width, over=over)
        if rows or running:
            history = History(rows, self.monitor)
            yield epoch_table(history, running, shown, narrow=width < NARROW)
        if len(rows) > 1 and not options.ascii_only:
            yield from curve(history, self.epochs, width)
        if tasks[self._before :]:
            yield self._bars.make_tasks_table(tasks[self._before :])
