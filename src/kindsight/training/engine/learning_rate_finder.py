"""The learning-rate finder: rising rates over a few steps, and what the loss does.

The sweep is L. N. Smith's ("Cyclical learning rates for training neural networks", WACV 2017): each
step takes a higher rate than the one before. At low rates the loss hardly moves; then it falls;
then it rises, and soon without bound. Rates are spread evenly on the logarithm, and the loss is
smoothed as S. Gugger does it (2018), by an exponential mean freed of its start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.training.engine.batches import Batches, ahead
from kindsight.training.engine.plan import Phase
from kindsight.training.engine.trainable import Trainable

__all__ = ["RateSweep", "suggest_rate", "sweep_rates"]

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
SMOOTHING = 0.9
# The sweep ends where the smoothed loss is this many times its lowest.
BURST = 2.0
# The loss has risen where it is this many times its lowest.
RISEN = 1.1
# How far below such a rate training is safe.
SAFE = 10.0
# Steps at the start that say more of the first weights than of the rate.
PASSED_OVER = 5


@dataclass(frozen=True)
class RateSweep:
    """Learning rates that were tried, one a step, and what came of them.

    Parameters
    ----------
    rates : tuple of float
        Rising.
    losses : tuple of float
        Of the batch at each rate, smoothed, in nats.
    suggestion : float or None
        See :func:`suggest_rate`.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        return {
            "learning_rates": list(self.rates),
            "losses": losses,
            "suggestion": self.suggestion,
        }


def sweep_rates(
    learner: Trainable,
    phase: Phase,
    batches: Batches,
    *,
    workers: int,
    hear: Callable[[int, int], None],
    steps: int = STEPS,
) -> RateSweep:
    """Try rising rates, a step each; the learner is of no use afterwards.

    Parameters
    ----------
    learner : Trainable
        Newly made.
    phase : Phase
        Its optimiser, its label smoothing and its layers are used.
    batches : Batches
        Taken in the order of the first epochs.
    workers : int
        Threads that prepare batches.
    hear : callable
        Called with (steps done, steps in all).
    steps : int
        How many rates.
    """
    learner.begin(phase.rule(), phase.label_smoothing, phase.freeze)
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
        for step, batch in enumerate(ahead(make, 0, steps, executor)):
            loss, _ = learner.step(batch.images, batch.targets, every[step], batch.address)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss / len(batch.images)
            smoothed = mean / (1 - SMOOTHING ** (step + 1))
            rates.append(every[step])
            losses.append(smoothed)
            hear(step + 1, steps)
            if not smoothed <= BURST * min(losses):
                break
    return RateSweep(tuple(rates), tuple(losses), suggest_rate(rates, losses))


def suggest_rate(rates: list[float], losses: list[float]) -> float | None:
    """Return a tenth of the highest rate at which the loss has not risen from its lowest.

    The rate at which the loss falls fastest, another common choice, is the same in clear cases;
    where a hundred steps are too few for the loss to fall, it is chance's.

    Parameters
    ----------
    rates : list of float
        Rising.
    losses : list of float
        As many, smoothed.

    Returns
    -------
    float or None
        Two digits of it; None where the loss rises from the start.
    """
    values = np.array(losses, np.float64)
    values[~np.isfinite(values)] = np.inf
    settled = values[PASSED_OVER:]
    if len(settled) < 3 or not np.isfinite(settled).any():
        return None
    lowest = PASSED_OVER + int(settled.argmin())
    risen = np.flatnonzero(values[lowest:] > RISEN * values[lowest])
    last = lowest + int(risen[0]) - 1 if len(risen) else len(values) - 1
    return float(f"{rates[last] / SAFE:.1e}") if last > PASSED_OVER else None
