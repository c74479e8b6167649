"""The numbers of a training's curves: points by epoch, phases, steps of a learning-rate finder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kindsight.report.axes import thinned

__all__ = [
    "MAX_POINTS",
    "Epoch",
    "Point",
    "Rate",
    "Span",
    "curve_table",
    "phase_table",
    "rate_table",
]

MAX_POINTS = 300
"""Points of a curve at most, evenly chosen; the first, the last and the best always."""


class Epoch(Protocol):
    """One epoch of a training, as :class:`kindsight.training.engine.history.EpochRow` is one."""

    @property
    def epoch(self) -> int:
        """From 1, counted through all phases."""

    @property
    def phase(self) -> str:
        """The phase that it belongs to."""

    @property
    def seconds(self) -> float:
        """How long it took."""

    @property
    def learning_rate(self) -> float:
        """Of its last step."""

    @property
    def loss(self) -> float:
        """Mean over the training images, in nats."""

    @property
    def accuracy(self) -> float:
        """Share of the training images right, 0-1."""

    @property
    def val_loss(self) -> float | None:
        """The loss on the validation images."""

    @property
    def val_accuracy(self) -> float | None:
        """The share of the validation images right."""


class Point(NamedTuple):
    """One epoch of a curve; `phase` counts from 0, `validation` is None where there is none."""

    epoch: int
    phase: int
    training: float
    validation: float | None
    best: bool


class Span(NamedTuple):
    """A phase with its first and last epoch."""

    name: str
    first: int
    last: int


class Rate(NamedTuple):
    """One step of a learning-rate finder; `suggested` marks the rate that it advises."""

    rate: float
    loss: float
    suggested: bool


def curve_table(epochs: Sequence[Epoch], best: int | None, quantity: str) -> list[Point]:
    """Give the points of a curve.

    Parameters
    ----------
    epochs : sequence of Epoch
        In order.
    best : int or None
        The epoch to mark.
    quantity : str
        ``"accuracy"`` (0-1) or ``"loss"`` (nats).

    Returns
    -------
    list of Point
        `MAX_POINTS` at most.
    """
    phases = {span.name: place for place, span in enumerate(phase_table(epochs))}
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


def phase_table(epochs: Sequence[Epoch]) -> list[Span]:
    """Give the phases with their epochs, in order."""
    spans: dict[str, Span] = {}
    for row in epochs:
        first = spans[row.phase].first if row.phase in spans else row.epoch
        spans[row.phase] = Span(row.phase, first, row.epoch)
    return list(spans.values())


def rate_table(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> list[Rate]:
    """Give the steps of a learning-rate finder, the one nearest to its suggestion marked.

    Parameters
    ----------
    rates : sequence of float
        Above 0, rising.
    losses : sequence of float
        As many, in nats; what is not finite is left out.
    suggestion : float or None
    """
    pairs = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    nearest = None
    if suggestion is not None and pairs:
        nearest = min((pair[0] for pair in pairs), key=lambda r: abs(math.log(r / suggestion)))
    points = [Rate(rate, loss, rate == nearest) for rate, loss in pairs]
    return thinned(points, MAX_POINTS, lambda point: point.suggested)
