"""The learning-rate finder: increase the learning rate at each step and record the loss.

The range test of L. N. Smith ("Cyclical learning rates for training neural networks", WACV 2017),
on a logarithmic scale, with the loss smoothed by a bias-corrected exponential moving average (S.
Gugger, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.training.engine.batches import Batches, prefetch
from kindsight.training.engine.loop import Trainable
from kindsight.training.engine.plan import Phase

__all__ = ["RateSweep", "suggest_rate", "sweep_rates"]

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
SMOOTHING = 0.9
# The sweep ends when the smoothed loss exceeds its minimum by this factor.
DIVERGED = 2.0
# The loss counts as risen when it exceeds its minimum by this factor.
RISEN = 1.1
# The suggestion is the highest learning rate before the loss rises, divided by this.
SAFETY_FACTOR = 10.0
# Steps at the start whose loss depends on the initial weights rather than on the learning rate.
IGNORED_STEPS = 5


@dataclass(frozen=True)
class RateSweep:
    """Increasing learning rates, one per step, and the smoothed loss at each, in nats."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as JSON values."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        return {"learning_rates": list(self.rates), "losses": losses, "suggestion": self.suggestion}


def sweep_rates(
    network: Trainable,
    phase: Phase,
    batches: Batches,
    *,
    workers: int,
    progress: Callable[[int, int], None],
    steps: int = STEPS,
) -> RateSweep:
    """Train one step of a phase at each of several increasing learning rates.

    `network` is new, and not usable afterwards; `workers` threads prepare batches; `progress` is
    called with (steps done, steps).
    """
    network.begin(phase.update_rule(), phase.label_smoothing, phase.freeze)
    every = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    orders: dict[int, NDArray[np.int64]] = {}

    def make(step: int) -> Any:
        epoch = 1 + step // len(batches)
        order = orders.setdefault(epoch, batches.order(epoch))
        return batches.make(epoch, step % len(batches), order)

    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as executor:
        for step, batch in enumerate(prefetch(make, 0, steps, executor)):
            loss, _ = network.step(batch.images, batch.targets, every[step], batch.random_key)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss / len(batch.images)
            smoothed = mean / (1 - SMOOTHING ** (step + 1))
            rates.append(every[step])
            losses.append(smoothed)
            progress(step + 1, steps)
            if not smoothed <= DIVERGED * min(losses):
                break
    return RateSweep(tuple(rates), tuple(losses), suggest_rate(rates, losses))


def suggest_rate(rates: list[float], losses: list[float]) -> float | None:
    """Return a tenth of the highest learning rate before the loss rises above its minimum.

    It is rounded to two digits; None if the smoothed loss rises from the start. The learning rate
    of the steepest descent, another common choice, agrees in clear cases, but is random where a
    hundred steps are too few for the loss to fall.
    """
    values = np.array(losses, np.float64)
    values[~np.isfinite(values)] = np.inf
    settled = values[IGNORED_STEPS:]
    if len(settled) < 3 or not np.isfinite(settled).any():
        return None
    lowest = IGNORED_STEPS + int(settled.argmin())
    risen = np.flatnonzero(values[lowest:] > RISEN * values[lowest])
    last = lowest + int(risen[0]) - 1 if len(risen) else len(values) - 1
    return float(f"{rates[last] / SAFETY_FACTOR:.1e}") if last > IGNORED_STEPS else None
