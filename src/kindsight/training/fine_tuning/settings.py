"""What fine-fine_tuning is told, what comes of it, and when that is better than what was before."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation import Evaluation
from kindsight.training.fine_tuning_result import describe_seconds
from kindsight.training.network.fitted import CALIBRATED_BY, FittedNetwork
from kindsight.training.protocols import ReportSections

__all__ = [
    "DECISIONS_FILE",
    "LEAST_VALIDATION",
    "MONITOR",
    "FittedFineTuned",
    "is_better",
]

MONITOR = "loss"
"""Which epoch of a fine-fine_tuning is the best: what it is judged by then."""

# By so much lower must the log loss be: the same images chose rates, epoch, share and views.
BETTER = 0.99

LEAST_VALIDATION = 10
"""With fewer images to be judged by, better and worse could not be told apart."""

DECISIONS_FILE = "fine_tuning.json"
"""What a training decided by measured times, in the folder of a run that is not finished."""


@dataclass(frozen=True)
class FittedFineTuned(FittedNetwork):
    """A fine-tuned backbone; a :class:`.network_fit.FittedNetwork` in all else.

    Parameters
    ----------
    frozen : FittedFrozenHead
        What it began as.
    """

    frozen: Any = None

    def words(self) -> str:
        """Describe the network in a line."""
        assert self.fine_tuning is not None
        return f"{self.training.model}, {self.fine_tuning.description}"

    def _facts(self) -> dict[str, Any]:
        head = asdict(self.frozen.head.chosen)
        return {**self._epochs(), "fine_tuning": self.words(), "head": head}

    def report_sections(self) -> ReportSections:
        """Return how the network was fine-tuned, and from which head."""
        fine_tuning = self.fine_tuning
        frozen: ReportSections = self.frozen.report_sections()
        assert fine_tuning is not None
        made = {
            **frozen.details,
            "Backbone": f"{self.frozen.training.describe_backbone()}, fine-tuned",
            "Fine-tuning": f"{fine_tuning.description}; weights of the best epoch, "
            f"{self.history.best_epoch}",
            "Gain": f"validation accuracy {fine_tuning.accuracy_after:.1%}, with the frozen head "
            f"{fine_tuning.accuracy_before:.1%}",
            "Time": describe_seconds(fine_tuning.seconds),
        }
        return replace(frozen, details=made, temperature_source=CALIBRATED_BY if self.folds else "")

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
