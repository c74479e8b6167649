"""The data of the training curves: points by epoch, phases, steps of a learning-rate finder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kindsight.report.axes import thinned
from kindsight.report.data import Epoch

__all__ = ["MAX_POINTS", "Phase", "Point", "Rate", "curve_table", "phase_table", "rate_table"]

MAX_POINTS = 300
"""Maximum number of points of a curve; the first, the last and the best are always included."""


class Point(NamedTuple):
    """One epoch of a curve; `phase` counts from 0, `validation` is None if there is none."""

    epoch: int
    phase: int
    training: float
    validation: float | None
    best: bool


class Phase(NamedTuple):
    """A training phase with its first and last epoch."""

    name: str
    first: int
    last: int


class Rate(NamedTuple):
    """One step of a learning-rate finder; `suggested` marks the suggested rate."""

    rate: float
    loss: float
    suggested: bool


def curve_table(epochs: Sequence[Epoch], best: int | None, quantity: str) -> list[Point]:
    """Return at most `MAX_POINTS` points of ``"accuracy"`` (0-1) or ``"loss"`` (nats)."""
    phases = {phase.name: number for number, phase in enumerate(phase_table(epochs))}
    points = [
        Point(
            row.epoch,
            phases[row.phase],
            getattr(row, quantity),
            getattr(row, f"val_{quantity}"),
            row.epoch == best,
        )
        for row in epochs
    ]
    return thinned(points, MAX_POINTS, lambda point: point.best)


def phase_table(epochs: Sequence[Epoch]) -> list[Phase]:
    """Return the phases with their epochs, in order."""
    phases: dict[str, Phase] = {}
    for row in epochs:
        first = phases[row.phase].first if row.phase in phases else row.epoch
        phases[row.phase] = Phase(row.phase, first, row.epoch)
    return list(phases.values())


def rate_table(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> list[Rate]:
    """Return the steps of a learning-rate finder, at most `MAX_POINTS`.

    - `rates`: above 0, rising.
    - `losses`: one per rate, in nats; steps whose loss is not finite are omitted.
    - `suggestion`: the nearest step to this rate is marked.
    """
    pairs = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    nearest = None
    if suggestion is not None and pairs:
        nearest = min((pair[0] for pair in pairs), key=lambda r: abs(math.log(r / suggestion)))
    points = [Rate(rate, loss, rate == nearest) for rate, loss in pairs]
    return thinned(points, MAX_POINTS, lambda point: point.suggested)
