"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from kindsight.cli.terminal.command import raise_if_interrupted
from kindsight.cli.terminal.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import Task

__all__ = [
    "STAGES",
    "BarProgress",
    "LineProgress",
    "Progress",
    "checked",
    "clock_time",
    "counting",
    "make_bars",
    "watching",
]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 where it is not known."""

STAGES = {
    "backbone": "Building the network, once",
    "images": "Reading images",
    "head": "Fitting the head",
    "wider": "Wider features",
    "views": "Views at the cut",
    "frozen": "Running the frozen layers",
    "rates": "Trying learning rates",
    "files": "Writing the classifier",
    "check": "Checking it in Keras",
    "features": "Computing features",
    "dates": "Reading dates",
    "measure": "Looking at images",
    "checks": "Looking for faults",
    "findings": "Writing the findings",
    "report": "Writing the report",
    "evaluate": "Evaluating",
    "predict": "Predicting",
    "layers": "Running the network",
    "demo": "Writing the demo's images",
}
"""What the stages are called on the terminal."""

LINE_SECONDS = 10.0
PATIENCE_SECONDS = 2.0


@contextmanager
def watching(quiet: bool) -> Iterator[Progress]:
    """Give a function that shows progress on standard error while the block runs.

    Parameters
    ----------
    quiet : bool
        Show nothing.

    Yields
    ------
    callable
        Takes (stage, done, total); a stage that is none of :data:`STAGES` is called by its name.
    """
    if quiet:
        yield checked(None)
    elif sys.stderr.isatty():
        from rich.console import Console

        with make_bars(Console(stderr=True)) as bars:
            progress = BarProgress(bars)
            yield checked(progress)
            progress.close()
    else:
        yield checked(LineProgress())


def checked(show: Progress | None) -> Progress:
    """Return what shows progress, after looking for a Ctrl-C that got lost."""

    def progress(stage: str, done: int, total: int) -> None:
        raise_if_interrupted()
        if show is not None:
            show(stage, done, total)

    return progress


@contextmanager
def counting(quiet: bool) -> Iterator[Progress]:
    """Do as :func:`watching` for what is mostly quick: nothing is shown in the first seconds."""
    started = time.monotonic()
    stack: list[Any] = []

    def late(stage: str, done: int, total: int) -> None:
        raise_if_interrupted()
        if not stack and time.monotonic() - started > PATIENCE_SECONDS:
            context = watching(quiet)
            stack.extend([context, context.__enter__()])
        if stack:
            stack[1](stage, done, total)

    try:
        yield late
    finally:
        if stack:
            stack[0].__exit__(None, None, None)


class LineProgress:
    """Plain lines, for logs: one when a stage begins, then one every ten seconds at most.

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
        self._write = write or (lambda line: typer.echo(line, err=True))
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take the news; write a line if it is time for one."""
        now = self._clock()
        name = printable(STAGES.get(stage, stage))
        if stage not in self._begun:
            self._begun[stage] = now, done
            already = f", {done:,} known already" if total and done else ""
            self._write(f"{name}: {total:,}{already}" if total > 1 else name)
            self._last = now
        elif now - self._last >= LINE_SECONDS and done != total:
            begun, first = self._begun[stage]
            self._write(f"{name}: {how_far(done, total, done - first, now - begun)}")
            self._last = now


def how_far(done: int, total: int, gained: int, seconds: float) -> str:
    """Say how much is done, how fast, and how long the rest will take.

    Parameters
    ----------
    done, total : int
        `total` is 0 where it is not known.
    gained : int
        How much of `done` was done in these `seconds`.
    """
    rate = gained / seconds if seconds > 0 else 0.0
    parts = [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"] if rate else []
    if total and rate:
        parts.append(f"{clock_time((total - done) / rate)} left")
    amount = f"{done:,} of {total:,}" if total else f"{done:,}"
    return f"{amount} ({', '.join(parts)})" if parts else amount


def clock_time(seconds: float) -> str:
    """Write seconds as a clock does: 0:07, 12:30, 3:05:00."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class BarProgress:
    """Bars on a terminal, one a stage.

    Parameters
    ----------
    bars : rich.progress.Progress
        As :func:`make_bars` makes it.
    """

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take the news; a stage that begins ends those before it whose length is not known."""
        if stage not in self._tasks:
            self.close()
            # What is done at the start was done before: it must not count for the rate.
            self._tasks[stage] = self._bars.add_task(
                printable(STAGES.get(stage, stage)), total=total or None, completed=done
            )
        self._bars.update(self._tasks[stage], total=total or None, completed=done)

    def close(self) -> None:
        """End the stages whose length is not known."""
        for identity in self._tasks.values():
            task = self._bars.tasks[identity]
            if task.total is None:
                amount = max(1, int(task.completed))
                self._bars.update(identity, total=amount, completed=amount)


def make_bars(console: Console) -> RichProgress:
    """Make bars that stand on a console once they are started."""
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class News(ProgressColumn):
        """Amount, rate and time left, or the time taken."""

        def render(self, task: Task) -> Text:
            return Text(_news(task), style="dim", no_wrap=True, overflow="ellipsis")

    return Bars(
        SpinnerColumn(finished_text="[green]\N{CHECK MARK}"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20 if console.width >= 100 else 10),
        News(),
        console=console,
        refresh_per_second=5,
    )


def _news(task: Task) -> str:
    elapsed = task.finished_time if task.finished else task.elapsed
    seconds = clock_time(elapsed or 0)
    total = int(task.total or 0)
    done = int(task.completed)
    if task.finished or not (total > 1 or (total == 0 and done)):
        amount = f"{done:,}  " if done > 1 else ""
        return f"{amount}{seconds}"
    rate = task.speed or 0.0
    parts = [f"{done:,} of {total:,}" if total else f"{done:,}"]
    if rate:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if total:
            parts.append(f"{clock_time((total - done) / rate)} left")
    return "  ".join(parts)
