"""What a terminal shows of a training: a headline, the last epochs, a small curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import typer

from kindsight.cli.terminal.progress import clock_time
from kindsight.cli.terminal.text import printable
from kindsight.report.format import percent
from kindsight.training.engine.history import EpochRow, History

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "NARROW",
    "EpochLines",
    "Running",
    "TrainingState",
    "curve",
    "draw_braille",
    "epoch_table",
    "headline",
]

# SECTION: A small curve in braille characters, eight dots each.

_BLANK = 0x2800
# Unicode's bits of a cell's dots, by [column][row from the top].
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def draw_braille(
    values: Sequence[float], *, length: int, width: int, height: int, low: float, high: float
) -> list[str]:
    """Draw a curve through values at equal distances.

    Parameters
    ----------
    values : sequence of float
        From the left; the curve breaks where one is not finite.
    length : int
        How many values there will be in all, so that the curve grows to the right.
    width, height : int
        Characters across and lines; a character has two dots across and four up.
    low, high : float
        The values at the bottom and at the top; what lies beyond is at the edge.

    Returns
    -------
    list of str
        `height` lines of `width` characters, the top first.
    """
    columns, rows = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    before: int | None = None
    for column, value in enumerate(_resampled(values, length, columns)):
        if not math.isfinite(value):
            before = None
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        level = round(min(1.0, max(0.0, share)) * (rows - 1))
        start = level if before is None else before + (level > before) - (level < before)
        # Steep parts are filled, so that the curve hangs together.
        for dot in range(min(start, level), max(start, level) + 1):
            line, row = divmod(rows - 1 - dot, 4)
            cells[line][column // 2] |= _DOTS[column % 2][row]
        before = level
    return ["".join(chr(_BLANK | cell) for cell in line) for line in cells]


def _resampled(values: Sequence[float], length: int, columns: int) -> list[float]:
    """Read the curve off at each column that it has reached, straight between two values."""
    if not values:
        return []
    scale = max(length - 1, len(values) - 1, 1) / max(columns - 1, 1)
    read = []
    for column in range(columns):
        place = column * scale
        left = math.floor(place + 1e-9)
        if left > len(values) - 1 or (left == len(values) - 1 and place > left + 1e-9):
            break
        share = place - left
        right = values[min(left + 1, len(values) - 1)]
        read.append(values[left] if share < 1e-9 else values[left] * (1 - share) + right * share)
    return read


# SECTION: Where a training is, as displays need it; and the plainest display: a line an epoch.

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
    images_per_second: float


class TrainingState:
    """A training callback that records the state of the training.

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
    monitor : str
        As :class:`~kindsight.training.engine.history.History` takes it.
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
        images_per_second: float,
    ) -> None:
        """Remember how far the running epoch is."""
        self.running = Running(phase, epoch, step, steps, loss, accuracy, images_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Remember an epoch that is done."""
        self.running = None
        self.rows.append(row)
        self._since = self._clock()

    def on_monitor(self, monitor: str) -> None:
        """Remember by what an epoch is the best."""
        self.monitor = monitor

    @property
    def replaying(self) -> bool:
        """Whether the last epoch was trained before this process began."""
        return len(self.rows) <= self.done_before

    @property
    def best_epoch(self) -> int | None:
        """The best epoch so far."""
        if self._best[0] != len(self.rows):
            self._best = len(self.rows), History(self.rows, self.monitor).best_epoch
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


NARROW = 64
"""Columns below which words are left out."""

CURVE = (36, 3)
"""Characters across and lines of the curve."""


def headline(
    rows: Sequence[EpochRow],
    running: Running | None,
    epochs: int,
    seconds_left: float | None,
    width: int,
    *,
    over: bool,
) -> Table:
    """Lay out the phase, the epoch, the bar of its steps, the speed and the time left.

    Parameters
    ----------
    rows : sequence of EpochRow
        The epochs that are done.
    running : Running or None
        The one after them.
    epochs : int
        How many there will be at most.
    seconds_left : float or None
    width : int
        Columns of the terminal.
    over : bool
        Whether the training has ended, be it before its last epoch.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    narrow = width < NARROW
    last = running or (rows[-1] if rows else None)
    name = printable(last.phase if last else "training")[: max(6, width // 5)]
    epoch = min(len(rows) + (not over), epochs)
    where = f"{name} {epoch:,}/{epochs:,}" if narrow else f"{name}, epoch {epoch:,} of {epochs:,}"
    news = []
    if running and not narrow:
        news.append(f"{running.step:,} of {running.steps:,}")
    if running and running.images_per_second > 0:
        unit = "/s" if narrow else " images/s"
        news.append(f"{running.images_per_second:,.0f}{unit}")
    if seconds_left is not None and not over:
        news.append(f"{clock_time(seconds_left)} left")
    # What matters least stands first, and goes first where there is no room.
    while len(news) > 1 and len(where) + len("  ".join(news)) + 7 > width:
        del news[0]
    text = "  ".join(news)
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
    """Lay out the last epochs, and the one that is running.

    Parameters
    ----------
    history : History
        The epochs that are done.
    running : Running or None
        The one after them.
    shown : int
        How many of them at most.
    narrow : bool
        Whether to shorten the heads.
    """
    from rich.table import Table
    from rich.text import Text

    rows, best_epoch = history.rows(), history.best_epoch
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), header_style="dim")
    heads = ["epoch", "loss", "acc" if narrow else "accuracy"]
    if history.validated:
        heads += ["val loss", "val acc"] if narrow else ["validation loss", "accuracy"]
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


def curve(history: History, epochs: int, width: int) -> Iterator[Text]:
    """Draw the accuracy that counts over all epochs that there will be, and name its best.

    Parameters
    ----------
    history : History
        The epochs that are done; at least one.
    epochs : int
        How many there will be at most.
    width : int
        Columns of the terminal.
    """
    from rich.text import Text

    rows, best = history.rows(), history.best_epoch
    what = "validation accuracy" if history.validated else "training accuracy"
    values = [row.accuracy if row.val_accuracy is None else row.val_accuracy for row in rows]
    low, high = min(values), max(values)
    across, lines = CURVE
    drawn = draw_braille(
        values,
        length=max(epochs, len(values)),
        width=max(8, min(across, width - 10, 2 * epochs)),
        height=lines,
        low=low,
        high=high,
    )
    for place, line in enumerate(drawn):
        label = percent(high) if place == 0 else percent(low) if place == lines - 1 else ""
        yield Text.assemble((f"{label:>7} ", "dim"), (line, "cyan"), no_wrap=True)
    said = f"{what}; best {percent(values[(best or 1) - 1])} in epoch {best:,}"
    yield Text(f"        {said}", style="dim", no_wrap=True, overflow="ellipsis")


def _scores(loss: float | None, accuracy: float | None) -> tuple[str, str]:
    if loss is None or accuracy is None:
        return "", ""
    return f"{loss:.4f}", percent(accuracy)
