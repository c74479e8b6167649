"""What a terminal shows of a training: a headline, the last epochs, a small curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kindsight.cli.braille import draw_braille
from kindsight.cli.epochs import Running
from kindsight.cli.progress import clock_time
from kindsight.cli.text import percent, printable
from kindsight.training.history import EpochRow, History

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["NARROW", "curve", "epoch_table", "headline"]

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
    if running and running.pictures_per_second > 0:
        unit = "/s" if narrow else " pictures/s"
        news.append(f"{running.pictures_per_second:,.0f}{unit}")
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
