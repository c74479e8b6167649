"""The epochs of a training on the terminal: a headline and a table, or a line per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kindsight.cli.terminal.progress import clock_time
from kindsight.cli.terminal.text import echo_error, printable
from kindsight.report.format import percent
from kindsight.training.engine.history import EpochRow, History

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "NARROW", "EpochLines", "Running", "TrainingState", "best_line", "epoch_table", "headline",
]  # fmt: skip

RECENT = 3
"""Number of latest epochs whose mean time is the estimate for the remaining ones."""


class Running(NamedTuple):
    """The running epoch; `loss` and `accuracy` are means over its steps so far."""

    phase: str
    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


class TrainingState:
    """A training callback that records the state of the training.

    Parameters
    ----------
    clock : callable
        Returns seconds.

    Attributes
    ----------
    epochs : int
        The maximum number of epochs; 0 until the training begins.
    done_before : int
        The epochs trained by an earlier, interrupted process.
    rows : list of EpochRow
        The finished epochs.
    running : Running or None
        The epoch after them, once a step of it is done.
    monitor : str
        As for :class:`~kindsight.training.engine.history.History`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._best: tuple[int, int | None] = (0, None)
        self.monitor = "accuracy"
        self.epochs = self.done_before = 0
        self.rows: list[EpochRow] = []
        self.running: Running | None = None

    def on_start(self, epochs: int, done: int) -> None:
        """Start, or continue after `done` epochs, which are replayed next."""
        self.epochs, self.done_before = epochs, done
        self.rows, self.running = [], None
        self._since = self._clock()

    def on_step(self, *step: Any, **named: Any) -> None:
        """Record the running epoch."""
        self.running = Running(*step, **named)

    def on_epoch(self, row: EpochRow) -> None:
        """Record a finished epoch."""
        self.running = None
        self.rows.append(row)
        self._since = self._clock()

    def on_monitor(self, monitor: str) -> None:
        """Store the metric by which the best epoch is chosen."""
        self.monitor = monitor

    @property
    def replaying(self) -> bool:
        """Whether the last epoch was trained by an earlier process."""
        return len(self.rows) <= self.done_before

    @property
    def best_epoch(self) -> int | None:
        """The best epoch so far."""
        if self._best[0] != len(self.rows):
            self._best = len(self.rows), History(self.rows, self.monitor).best_epoch
        return self._best[1]

    def seconds_left(self) -> float | None:
        """Return the estimated time left if every epoch is trained; None if unknown."""
        done, passed = len(self.rows), self._clock() - self._since
        per_epoch = self._seconds_per_epoch(passed)
        if per_epoch is None or not self.epochs:
            return None
        return max(0.0, (self.epochs - done) * per_epoch - passed)

    def _seconds_per_epoch(self, passed: float) -> float | None:
        """Return the mean of the latest epochs of this phase, or extrapolate the running one."""
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
        Returns seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None] = echo_error,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        self._write = write

    def on_start(self, epochs: int, done: int) -> None:
        """Write the number of epochs that were trained before, if any."""
        super().on_start(epochs, done)
        if done:
            self._write(f"Training: {done:,} of {epochs:,} epochs were trained before")

    def on_epoch(self, row: EpochRow) -> None:
        """Write the epoch's line, unless it is replayed."""
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


NARROW = 64
"""Number of terminal columns below which words are left out."""


def headline(
    rows: Sequence[EpochRow],
    running: Running | None,
    epochs: int,
    seconds_left: float | None,
    width: int,
    *,
    over: bool,
) -> Table:
    """Return the line with the phase, the epoch, a bar of its steps, speed and time left.

    Parameters
    ----------
    rows : sequence of EpochRow
        The finished epochs.
    running : Running or None
        The epoch after them.
    epochs : int
        The maximum number of epochs.
    seconds_left : float or None
    width : int
        Columns of the terminal.
    over : bool
        Whether the training has ended.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    narrow = width < NARROW
    last = running or (rows[-1] if rows else None)
    name = printable(last.phase if last else "training")[: max(6, width // 5)]
    epoch = min(len(rows) + (not over), epochs)
    where = f"{name} {epoch:,}/{epochs:,}" if narrow else f"{name}, epoch {epoch:,} of {epochs:,}"
    numbers = []
    if running and not narrow:
        numbers.append(f"{running.step:,} of {running.steps:,}")
    if running and running.images_per_second > 0:
        unit = "/s" if narrow else " images/s"
        numbers.append(f"{running.images_per_second:,.0f}{unit}")
    if seconds_left is not None and not over:
        numbers.append(f"{clock_time(seconds_left)} left")
    # The least important part comes first; it is the first to be dropped on a narrow terminal.
    while len(numbers) > 1 and len(where) + len("  ".join(numbers)) + 7 > width:
        del numbers[0]
    text = "  ".join(numbers)
    grid = Table.grid(padding=(0, 1), expand=False)
    for _ in range(3):
        grid.add_column(no_wrap=True)
    bar = ProgressBar(
        total=running.steps if running else 1,
        completed=running.step if running else float(over),
        width=max(4, min(24, width - len(where) - len(text) - 3)),
    )
    grid.add_row(Text(where, style="bold"), bar, Text(text, style="dim", overflow="ellipsis"))
    return grid


def epoch_table(history: History, running: Running | None, shown: int, *, narrow: bool) -> Table:
    """Return the table of the last epochs and the running one.

    Parameters
    ----------
    history : History
        The finished epochs.
    running : Running or None
        The epoch after them.
    shown : int
        The maximum number of finished epochs shown.
    narrow : bool
        Whether to shorten the column names.
    """
    from rich.table import Table
    from rich.text import Text

    rows, best_epoch = history.rows(), history.best_epoch
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), header_style="dim")
    heads = ["epoch", "loss", "acc" if narrow else "accuracy"]
    if history.validated:
        heads += ["val loss", "val acc"] if narrow else ["val loss", "val accuracy"]
    for head in [*heads, "time"]:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows[-shown:]:
        best = row.epoch == best_epoch
        table.add_row(
            f"{row.epoch:,}",
            *_scores(row.loss, row.accuracy),
            *(_scores(row.val_loss, row.val_accuracy) if history.validated else ()),
            f"{row.seconds:.1f} s" if row.seconds < 100 else clock_time(row.seconds),
            Text("best", style="green") if best else "",
            style="bold" if best else "",
        )
    if running:
        blank = ("", "") if history.validated else ()
        scores = _scores(running.loss, running.accuracy)
        table.add_row(f"{running.epoch:,}", *scores, *blank, "", "", style="dim")
    return table


def best_line(history: History) -> Text:
    """Return the line that names the best epoch so far and its accuracy."""
    from rich.text import Text

    best = history.rows()[(history.best_epoch or 1) - 1]
    which = "training" if best.val_accuracy is None else "validation"
    accuracy = best.accuracy if best.val_accuracy is None else best.val_accuracy
    text = f"best {which} accuracy {percent(accuracy)} in epoch {best.epoch:,}"
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def _scores(loss: float | None, accuracy: float | None) -> tuple[str, str]:
    if loss is None or accuracy is None:
        return "", ""
    return f"{loss:.4f}", percent(accuracy)
