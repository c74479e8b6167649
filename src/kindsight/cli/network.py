"""What ``kindsight train`` says of a network besides training it: its layers, a learning rate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kindsight.cli.text import Paint, print_json, printable, say, table

if TYPE_CHECKING:
    from kindsight.settings import TrainSettings
    from kindsight.training.rate_finder import RateSweep

__all__ = ["find", "layer_lines"]

# Rows of the sweep that are printed.
SHOWN = 20


def layer_lines(settings: TrainSettings, *, quiet: bool) -> Iterator[str]:
    """Yield a network's table of layers, as it is for the classes of the data.

    Raises
    ------
    SettingsError
        For a model whose layers do not learn.
    """
    from kindsight.cli.progress import watching
    from kindsight.runs import layers_of

    with watching(quiet) as progress:
        rows = layers_of(settings, progress=progress)
    told = any(row.trains for row in rows)
    cells = [
        (
            row.name,
            row.kind,
            *([row.trains] if told else []),
            " x ".join(map(str, row.output)),
            f"{row.parameters:,}",
        )
        for row in rows
    ]
    total = f"{sum(row.parameters for row in rows):,}"
    heads: tuple[str, ...] = ("layer", "what it does", "output", "parameters")
    last: tuple[str, ...] = ("in all", "", "", total)
    if told:
        learned = sum(row.parameters for row in rows if row.trains.startswith("trains"))
        heads = (*heads[:2], "in training", *heads[2:])
        last = (*last[:2], f"{learned:,} train", *last[2:])
    left = 3 if told else 2
    yield from table(heads, [*cells, last], paint=Paint(sys.stdout), left=left)
    yield ""


def find(settings: TrainSettings, *, json: bool, quiet: bool) -> None:
    """Try learning rates, and say which one to take."""
    from kindsight.cli.progress import watching
    from kindsight.runs import find_learning_rate

    with watching(quiet) as progress:
        sweep, files = find_learning_rate(settings, progress=progress)
    if json:
        print_json({**sweep.to_dict(), "files": [str(file) for file in files]})
    else:
        say(*_sweep_lines(sweep), *(f"figure  {printable(str(file))}" for file in files))


def _sweep_lines(sweep: RateSweep) -> Iterator[str]:
    paint = Paint(sys.stdout)
    every = max(1, len(sweep.rates) // SHOWN)
    rows = [
        (f"{rate:.2e}", f"{loss:.4f}")
        for rate, loss in list(zip(sweep.rates, sweep.losses, strict=True))[::every]
    ]
    yield from table(("learning rate", "loss"), rows, paint=paint, left=0)
    yield ""
    if sweep.suggestion is None:
        yield "The loss rose from the start: there is no learning rate to suggest."
    else:
        yield paint(f"suggested: --learning-rate {sweep.suggestion:g}", "bold")
        yield paint("a tenth of the highest rate at which the loss has not risen", "dim")
