"""What fine-tuning did, for the terminal, the report and the bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from kindsight.training.engine.history import History

__all__ = ["FineTuningResult", "describe_seconds", "rejection_notes"]


@dataclass(frozen=True)
class FineTuningResult:
    """What fine-tuning did, and whether its network was accepted.

    Parameters
    ----------
    accepted : bool
        Whether the fine-tuned network replaced the frozen head.
    description : str
        The choices made (cut, copies, epochs, learning rate), or why it was not accepted.
    seconds : dict of str to float
        Seconds by stage.
    accuracy_before, accuracy_after : float
        Validation accuracy of the frozen head and of the network, 0-1; NaN where nothing was
        fine-tuned.
    history : History
        The epochs.
    """

    accepted: bool
    description: str
    seconds: dict[str, float]
    accuracy_before: float
    accuracy_after: float
    history: History = field(default_factory=History)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the history, ready for JSON (NaN becomes None)."""
        before, after = self.accuracy_before, self.accuracy_after
        return {
            "accepted": self.accepted,
            "description": self.description,
            "seconds": self.seconds,
            "accuracy_before": None if math.isnan(before) else before,
            "accuracy_after": None if math.isnan(after) else after,
        }


def describe_seconds(seconds: dict[str, float]) -> str:
    """Return the seconds of each stage in a line: ``"flips 2 s, training 60 s"``."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


def rejection_notes(result: FineTuningResult | None) -> tuple[str, ...]:
    """Return a run's note about fine-tuning that was not accepted; empty where it was."""
    if result is None or result.accepted:
        return ()
    return (result.description[0].upper() + result.description[1:],)
