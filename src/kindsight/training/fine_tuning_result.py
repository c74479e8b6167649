"""The result of fine-tuning, or of an attempt at it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from kindsight.training.engine.history import History

__all__ = ["FineTuningResult", "describe_seconds", "rejection_notes"]


@dataclass(frozen=True)
class FineTuningResult:
    """What fine-tuning did, and whether its result was kept.

    Parameters
    ----------
    accepted : bool
        Whether the fine-tuned network is better than the frozen head.
    description : str
        What was chosen: the cut, views, epochs, and why not kept where it was not.
    seconds : dict of str to float
        Where the time went: views, training, judging.
    accuracy_before, accuracy_after : float
        The validation accuracy of both; nan where there was none to compare.
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
        """Return it as JSON can hold it."""
        accuracies = (
            None if math.isnan(value) else value
            for value in (self.accuracy_before, self.accuracy_after)
        )
        return {
            "accepted": self.accepted,
            "description": self.description,
            "seconds": self.seconds,
            **dict(zip(("accuracy_before", "accuracy_after"), accuracies, strict=True)),
        }


def describe_seconds(seconds: dict[str, float]) -> str:
    """Say where the time of a fine-tuning went."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


def rejection_notes(fine_tuning: FineTuningResult | None) -> tuple[str, ...]:
    """Return the note on a fine-tuning whose result was not accepted; empty otherwise."""
    if fine_tuning is None or fine_tuning.accepted:
        return ()
    return (fine_tuning.description[0].upper() + fine_tuning.description[1:],)
