"""Progress of a long command: bars on a terminal, occasional lines elsewhere.

The environment variable :data:`VARIABLE` selects lines of JSON, for programs that run commands.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.command import raise_if_interrupted
from kindsight.cli.terminal.text import echo_error, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import Task

__all__ = [
    "STAGES", "VARIABLE", "BarProgress", "JsonProgress", "LineProgress", "Progress", "checked",
    "clock_time", "counting", "make_bars", "watching",
]  # fmt: skip

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 if unknown."""

STAGES = {
    "backbone": "Building backbone",
    "images": "Decoding images",
    "input size": "Choosing the input size",
    "features": "Computing features",
    "head": "Fitting head",
    "wider": "Computing wider features",
    "activations": "Computing frozen activations",
    "frozen": "Computing frozen activations",
    "rates": "Trying learning rates",
    "scratch": "Trying a network from scratch",
    "files": "Writing files",
    "check": "Verifying exports",
    "curve": "Fitting subsets of the images",
    "suggest": "Ranking images",
    "similarity": "Measuring similarity",
    "duplicates": "Comparing similar images",
    "neighbours": "Finding nearest neighbours",
    "crops": "Searching for crops",
    "alignment": "Aligning crops",
    "outliers": "Searching for outliers",
    "out of fold": "Predicting out of fold",
    "dates": "Reading EXIF dates",
    "measure": "Measuring images",
    "checks": "Running checks",
    "findings": "Writing findings",
    "report": "Writing report",
    "evaluate": "Evaluating",
    "predict": "Predicting",
    "layers": "Computing feature maps",
    "explain": "Explaining images",
    "demo": "Writing demo images",
    "reference": "Running the classifier",
}
"""The titles of the stages on the terminal."""

LINE_SECONDS = 10.0
"""Minimum seconds between two lines of a stage."""

VARIABLE = "KINDSIGHT_PROGRESS"
"""Environment variable: with the value ``json``, progress is written as lines of JSON."""

FEW = 32
"""Number of steps after which a line states their speed, or a hundredth of all if that is less. The
first steps may have waited for worker processes to start."""

JSON_SECONDS = 0.25
"""Minimum seconds between two lines of JSON of a stage."""

DELAY_SECONDS = 2.0
"""Seconds before any progress is shown for a command that is usually quick."""


@contextmanager
def watching(quiet: bool) -> Iterator[Progress]:
    """Yield a function that shows progress on standard error while the block runs.

    Parameters
    ----------
    quiet : bool
        Show nothing.

    Yields
    ------
    callable
        Takes (stage, done, total); a stage that is not in :data:`STAGES` is shown by its name.
    """
    if quiet:
        yield checked(None)
    elif os.environ.get(VARIABLE) == "json":
        yield checked(JsonProgress())
    elif sys.stderr.isatty():
        from rich.console import Console

        with make_bars(Console(stderr=True)) as bars:
            progress = BarProgress(bars)
            yield checked(progress)
            progress.close()
    else:
        yield checked(LineProgress())


def checked(show: Progress | None) -> Progress:
    """Return a progress function that first raises a Ctrl-C that a library swallowed."""

    def progress(stage: str, done: int, total: int) -> None:
        raise_if_interrupted()
        if show is not None:
            show(stage, done, total)

    return progress


@contextmanager
def counting(quiet: bool) -> Iterator[Progress]:
    """Show progress as :func:`watching` does, but nothing in the first seconds."""
    started = time.monotonic()
    stack: list[Any] = []

    def late(stage: str, done: int, total: int) -> None:
        raise_if_interrupted()
        if not stack and time.monotonic() - started > DELAY_SECONDS:
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
    """Progress as plain lines: one when a stage begins, then at most one every ten seconds.

    Parameters
    ----------
    write : callable, optional
        Takes a line; standard error if omitted.
    clock : callable, optional
        Returns seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None] = echo_error,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._latest: dict[str, tuple[int, int]] = {}
        self._last, self._shown = 0.0, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Record the progress of a stage; write a line if one is due."""
        now = self._clock()
        name = printable(STAGES.get(stage, stage))
        if stage not in self._begun:
            self._begun[stage] = now, done
            self._write(f"{name}: {done:,} of {total:,}" if total > 1 else name)
            self._last, self._shown = now, done
        elif is_repeated(self._latest[stage], done, total):
            self._begun[stage] = now, done
        self._latest[stage] = done, total
        if now - self._last >= LINE_SECONDS and done not in (self._shown, total):
            begun, first = self._begun[stage]
            gained = done - first if done - first >= min(FEW, (total or 100 * FEW) / 100) else 0
            self._write(f"{name}: {progress_text(done, total, gained, now - begun)}")
            self._last, self._shown = now, done


class JsonProgress:
    """Progress as lines of JSON on standard error.

    A line is ``{"stage", "title", "done", "total"}``: at a stage's beginning, its end, and at most
    four times a second in between; total is 0 if unknown.

    Parameters
    ----------
    write : callable, optional
        Takes a line; standard error if omitted.
    clock : callable, optional
        Returns seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None] = echo_error,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._shown: tuple[str, int, int] | None = None
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Write the progress of a stage, if it is due."""
        self.show(stage, STAGES.get(stage, stage), done, total)

    def show(self, stage: str, title: str, done: int, total: int) -> None:
        """Write the progress of a stage with the given title, if it is due."""
        now, state = self._clock(), (title, done, total)
        begins = self._shown is None or self._shown[0] != title
        if state == self._shown or not (
            begins or done == total or now - self._last >= JSON_SECONDS
        ):
            return
        self._shown, self._last = state, now
        line = {"stage": stage, "title": printable(title), "done": done, "total": total}
        self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        self._write(json.dumps(line))


def is_repeated(latest: tuple[int, int], done: int, total: int) -> bool:
    """Return whether a stage has started again, as with a budget; its speed is then measured anew.

    `latest` is the (done, total) reported before.
    """
    return done < latest[0] or (0 < latest[1] != total)


def progress_text(done: int, total: int, gained: int, seconds: float) -> str:
    """Return the amount done, the speed and the time left, as text.

    Parameters
    ----------
    done, total : int
        `total` is 0 if unknown.
    gained : int
        The part of `done` that took `seconds`.
    """
    rate = max(0, gained) / seconds if seconds > 0 else 0.0
    parts = [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"] if rate else []
    if total and rate:
        parts.append(f"{clock_time(max(0, total - done) / rate)} left")
    amount = f"{done:,} of {total:,}" if total else f"{done:,}"
    return f"{amount} ({', '.join(parts)})" if parts else amount


def clock_time(seconds: float) -> str:
    """Format seconds as a clock: 0:07, 12:30, 3:05:00."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class BarProgress:
    """Progress as bars on a terminal, one per stage.

    Parameters
    ----------
    bars : rich.progress.Progress
        From :func:`make_bars`.
    """

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._latest: dict[str, tuple[int, int]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Record the progress of a stage; a new stage ends those of unknown length before it."""
        if stage not in self._tasks:
            self.close()
            # Cached items do not count for the speed.
            self._tasks[stage] = self._bars.add_task(
                printable(STAGES.get(stage, stage)), total=total or None, completed=done
            )
        elif is_repeated(self._latest[stage], done, total):
            self._bars.reset(self._tasks[stage], total=total or None, completed=done)
        self._latest[stage] = done, total
        self._bars.update(self._tasks[stage], total=total or None, completed=done)

    def close(self) -> None:
        """End the stages of unknown length."""
        for identity in self._tasks.values():
            task = self._bars.tasks[identity]
            if task.total is None:
                amount = max(1, int(task.completed))
                self._bars.update(identity, total=amount, completed=amount)


def make_bars(console: Console) -> RichProgress:
    """Return progress bars for a console, not started."""
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Numbers(ProgressColumn):
        """Amount, speed and time left, or the time taken."""

        def render(self, task: Task) -> Text:
            return Text(_numbers(task), style="dim", no_wrap=True, overflow="ellipsis")

    return Bars(
        SpinnerColumn(finished_text="[green]\N{CHECK MARK}"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20 if console.width >= 100 else 10),
        Numbers(),
        console=console,
        refresh_per_second=5,
    )


def _numbers(task: Task) -> str:
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
            parts.append(f"{clock_time(max(0, total - done) / rate)} left")
    return "  ".join(parts)
