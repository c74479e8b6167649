"""The live display of a training: bars for the stages, and a table of the last epochs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from kindsight.cli.terminal.command import forgive_interrupt, raise_if_interrupted
from kindsight.cli.terminal.epoch_table import (
    NARROW,
    EpochLines,
    TrainingState,
    best_line,
    epoch_table,
    headline,
)
from kindsight.cli.terminal.progress import (
    VARIABLE,
    BarProgress,
    JsonProgress,
    LineProgress,
    Progress,
    checked,
    clock_time,
    make_bars,
)
from kindsight.cli.terminal.text import echo_error, note
from kindsight.training.engine.callbacks import CallbackList, TrainingCallback
from kindsight.training.engine.history import EpochRow, History

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress as RichProgress

__all__ = ["Screen", "Watch", "watching_training"]


class Watch(NamedTuple):
    """The display of a training: `progress` takes its stages, `callback` its steps and epochs."""

    progress: Progress
    callback: TrainingCallback


@contextmanager
def watching_training(quiet: bool, budget: float | None = None) -> Iterator[Watch]:
    """Show a training on standard error while the block runs.

    On a terminal: bars for the stages, the running epoch and the last epochs. Elsewhere: a line per
    stage and a line per epoch.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    budget : float, optional
        Time budget in seconds, shown next to the time used.

    Yields
    ------
    Watch
        Both raise KeyboardInterrupt after a Ctrl-C that a library swallowed.
    """
    if quiet:
        yield Watch(checked(None), Interrupts())
    elif os.environ.get(VARIABLE) == "json":
        lines = JsonProgress()
        yield Watch(checked(lines), CallbackList(Interrupts(), JsonEpochs(lines)))
    elif sys.stderr.isatty():
        with _live(budget) as watch:
            yield watch
    else:
        write = _writer(budget)
        yield Watch(checked(LineProgress(write)), CallbackList(Interrupts(), EpochLines(write)))


class Interrupts:
    """A callback that raises KeyboardInterrupt after a Ctrl-C that a library swallowed."""

    def on_start(self, epochs: int, done: int) -> None:
        """Raise a swallowed Ctrl-C."""
        raise_if_interrupted()

    def on_step(self, *_: Any, **__: Any) -> None:
        """Raise a swallowed Ctrl-C."""
        raise_if_interrupted()

    def on_epoch(self, row: EpochRow) -> None:
        """Raise a swallowed Ctrl-C."""
        raise_if_interrupted()

    def on_interrupt(self) -> None:
        """Report that Ctrl-C finishes the training early."""
        forgive_interrupt()
        note("Finishing with the best epoch so far. Press Ctrl-C again to stop immediately.")


class JsonEpochs:
    """A training by epochs as lines of JSON, ``{"epoch": row}``: rows of the run's history.

    Epochs that an earlier process trained come first. The steps of an epoch are a stage ``epoch``.

    Parameters
    ----------
    lines : JsonProgress
    """

    def __init__(self, lines: JsonProgress) -> None:
        self._lines, self._epochs = lines, 0

    def on_start(self, epochs: int, done: int) -> None:
        """Start a training, of which some epochs may be done."""
        self._epochs = epochs

    def on_step(self, phase: str, epoch: int, step: int, steps: int, *_: Any) -> None:
        """Write the progress of an epoch, if it is due."""
        title = f"{phase}: epoch {epoch:,} of {self._epochs:,}"
        self._lines.show("epoch", title, step, steps)

    def on_epoch(self, row: EpochRow) -> None:
        """Write a finished epoch."""
        self._lines.write({"epoch": row.to_dict()})


def _writer(budget: float | None) -> Callable[[str], None]:
    """Return a function that writes lines to standard error, each after the used budget."""
    if budget is None:
        return echo_error
    began, whole = time.monotonic(), clock_time(budget)

    def write(line: str) -> None:
        echo_error(f"[{clock_time(time.monotonic() - began)} of {whole}] {line}")

    return write


@contextmanager
def _live(budget: float | None) -> Iterator[Watch]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    screen = Screen(make_bars(console), budget=budget)
    # Everything is drawn again on each refresh, because the time left changes between two steps.
    with Live(screen, console=console, refresh_per_second=5):
        yield Watch(checked(screen.progress), CallbackList(Interrupts(), screen))
        screen.progress.close()


class Screen(TrainingState):
    """The display on a terminal: stages before the training, the epochs, stages after it.

    Parameters
    ----------
    bars : rich.progress.Progress
        From :func:`.progress.make_bars`.
    clock : callable, optional
        Returns seconds.
    budget : float, optional
        Time budget in seconds, counted from now.

    Attributes
    ----------
    progress : callable
        Takes (stage, done, total).
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
        """Start the epochs; the stages so far are finished."""
        super().on_start(epochs, done)
        self.progress.close()
        self._before = len(self._bars.tasks)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield everything, fitted to the size of the terminal."""
        yield from self._stages_and_epochs(console, options)
        if self._budget is not None:
            yield self._budget_line(self._budget)

    def _budget_line(self, budget: float) -> RenderableType:
        from rich.text import Text

        used = f"{clock_time(self._clock() - self._began)} of {clock_time(budget)}"
        return Text(f"  Budget {used}. Ctrl-C finishes with the best epoch so far.", style="dim")

    def _stages_and_epochs(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        tasks = self._bars.tasks
        if self._before is None:
            yield self._bars.make_tasks_table(tasks)
            return
        if self._before:
            yield self._bars.make_tasks_table(tasks[: self._before])
        # Callbacks may run while this is drawn.
        rows, running = tuple(self.rows), self.running
        width, shown = options.max_width, max(3, min(8, console.height - len(tasks) - 8))
        # After early stopping, another stage begins.
        over = running is None and (len(rows) >= self.epochs or bool(tasks[self._before :]))
        yield headline(rows, running, self.epochs, self.seconds_left(), width, over=over)
        if rows or running:
            history = History(rows, self.monitor)
            yield epoch_table(history, running, shown, narrow=width < NARROW)
        if len(rows) > 1:
            yield best_line(history)
        if tasks[self._before :]:
            yield self._bars.make_tasks_table(tasks[self._before :])
