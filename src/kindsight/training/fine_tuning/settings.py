"""What fine-tuning is told, what comes of it, and when that is better than what was before."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.evaluation import Evaluation
from kindsight.training.engine.history import History
from kindsight.training.network.fitted import FittedNetwork

__all__ = [
    "DECISIONS_FILE",
    "FINE_TUNES",
    "LEAST_VALIDATION",
    "MONITOR",
    "FineTuningResult",
    "FittedFineTuned",
    "describe_seconds",
    "is_better",
    "parse_budget",
    "rejection_notes",
]

FINE_TUNES = ("off", "light", "full")
"""How much of a backbone is fine-tuned: nothing, the part above the cut, everything."""

MONITOR = "loss"
"""Which epoch of a fine-tuning is the best: what it is judged by then."""

# By so much lower must the log loss be: the same images chose rates, epoch, share and views.
BETTER = 0.99

LEAST_VALIDATION = 10
"""With fewer images to be judged by, better and worse could not be told apart."""

DECISIONS_FILE = "tuning.json"
"""What a training decided by measured times, in the folder of a run that is not finished."""


def parse_budget(text: str | float) -> float:
    """Read a time such as ``"10m"``, ``"90s"`` or ``"1.5h"``, or seconds, into seconds.

    Raises
    ------
    SettingsError
        For anything else, and for less than a second.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    seconds = (
        float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)] if match else 0
    )
    if not 1 <= seconds <= 7 * 86_400 or isinstance(text, bool):
        raise SettingsError(
            f"budget must be a time from 1s to 168h, such as 90s, 10m or 1h. Received: {text!r}."
        )
    return seconds


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


@dataclass(frozen=True)
class FittedFineTuned(FittedNetwork):
    """A fine-tuned backbone; a :class:`.network_fit.FittedNetwork` in all else.

    Parameters
    ----------
    fine_tuning : FineTuningResult
        How it came about.
    frozen : FittedFrozenHead
        What it began as.
    """

    fine_tuning: FineTuningResult | None = None
    frozen: Any = None

    def words(self) -> str:
        """Describe the network in a line."""
        assert self.fine_tuning is not None
        return f"{self.training.model}, {self.fine_tuning.description}"

    def clear_away(self) -> None:
        """Delete what is only of use to go on from: the bundle has the rest."""
        super().clear_away()
        self.keras.with_name(DECISIONS_FILE).unlink(missing_ok=True)


def is_better(
    ours: Evaluation, before: Evaluation, right: NDArray[np.bool_], right_before: NDArray[np.bool_]
) -> bool:
    """Say whether a fine-tuned network is better than the frozen head.

    It is where the log loss is lower by a hundredth and no more images are lost than chance
    explains. Of a few hundred images, two networks that are as good answer some differently, and
    by the sign test's standard deviation one of them is ahead by the square root of how many these
    are.

    Parameters
    ----------
    ours, before : Evaluation
        Of both on the same images.
    right, right_before : array
        bool (images,): which of these each of them got right.
    """
    gained, lost = int((right & ~right_before).sum()), int((right_before & ~right).sum())
    # Nothing lost is nothing lost, with nothing gained, too: 0 is not under the root of 0.
    few = lost <= gained or lost - gained < math.sqrt(lost + gained)
    return few and ours.log_loss < BETTER * before.log_loss


def describe_seconds(seconds: dict[str, float]) -> str:
    """Say where the time of a fine-tuning went."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


def rejection_notes(tuning: FineTuningResult | None) -> Sequence[str]:
    """Return what a run's notes say of a fine-tuning that was not kept."""
    return (
        ()
        if tuning is None or tuning.accepted
        else (tuning.description[0].upper() + tuning.description[1:],)
    )
