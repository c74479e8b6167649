"""Costs of errors: the mean cost of predictions, and the decisions with the lowest expected cost.

References
----------
C. Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, 973-978.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.calibration import check_probabilities
from kindsight.evaluation.intervals import mean_interval

__all__ = ["CostEvaluation", "cheapest_decisions", "evaluate_costs"]

_SEED = 0


@dataclass(frozen=True)
class CostEvaluation:
    """The mean cost per image, in the unit of the cost matrix.

    Attributes
    ----------
    images : int
    mean : float
        If each image is decided as its most probable class.
    interval : tuple of float
        Its 95% bootstrap-t interval.
    cheapest : float
        If each image is decided as the class with the lowest expected cost.
    cheapest_interval : tuple of float
    saving : float
        Mean cost saved by these decisions; below 0 if they cost more.
    saving_interval : tuple of float
        Of the paired difference.
    changed : int
        Images whose decision differs from the most probable class.
    """

    images: int
    mean: float
    interval: tuple[float, float]
    cheapest: float
    cheapest_interval: tuple[float, float]
    saving: float
    saving_interval: tuple[float, float]
    changed: int

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, ready for JSON (NaN becomes None)."""
        return {
            "images": self.images,
            "mean": self.mean,
            "interval": _ends(self.interval),
            "cheapest": self.cheapest,
            "cheapest_interval": _ends(self.cheapest_interval),
            "saving": self.saving,
            "saving_interval": _ends(self.saving_interval),
            "changed": self.changed,
        }


def cheapest_decisions(
    probabilities: NDArray[np.floating[Any]], costs: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the class with the lowest expected cost of each image: int64 (n,).

    Of equal costs, the more probable class is chosen.

    Parameters
    ----------
    probabilities : float array (n, k)
    costs : float64 array (k, k)
        Cost of an image by label (row) and decision (column).
    """
    expected = probabilities.astype(np.float64) @ costs
    lowest = expected.min(axis=1, keepdims=True)
    # Rounding must not decide between equal costs.
    tied = expected <= lowest + 1e-9 * np.abs(costs).max(initial=0.0)
    return np.asarray(np.where(tied, probabilities, -1.0).argmax(axis=1), np.int64)


def evaluate_costs(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    costs: NDArray[np.float64],
) -> CostEvaluation:
    """Return the mean cost of the predictions, and of the decisions with the lowest expected cost.

    Parameters
    ----------
    probabilities : float array (n, k)
        Rows sum to 1. Give copies of an image once.
    targets : int array (n,)
        Class indices.
    costs : float64 array (k, k)
        Cost of an image by label (row) and decision (column).

    Raises
    ------
    UsageError
        If there is no image, a shape does not fit or a value is invalid.
    """
    check_probabilities(probabilities, targets)
    size = probabilities.shape[1]
    if costs.shape != (size, size) or not np.isfinite(costs).all():
        raise UsageError(
            f"`costs` must be finite numbers of the shape {(size, size)}; got shape {costs.shape}."
        )
    predicted, cheapest = probabilities.argmax(axis=1), cheapest_decisions(probabilities, costs)
    paid, lower = costs[targets, predicted], costs[targets, cheapest]
    generator = np.random.default_rng(_SEED)
    return CostEvaluation(
        images=len(targets),
        mean=float(paid.mean()),
        interval=mean_interval(paid, generator),
        cheapest=float(lower.mean()),
        cheapest_interval=mean_interval(lower, generator),
        saving=float((paid - lower).mean()),
        saving_interval=mean_interval(paid - lower, generator),
        changed=int((predicted != cheapest).sum()),
    )


def _ends(interval: tuple[float, float]) -> list[float | None]:
    return [float(end) if np.isfinite(end) else None for end in interval]
