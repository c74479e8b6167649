"""Constants of fine-tuning, and its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from kindsight.training.fine_tuning_result import describe_seconds
from kindsight.training.network.fitted import CALIBRATED_BY, FittedNetwork
from kindsight.training.protocols import ReportSections

__all__ = ["DECISIONS_FILE", "MIN_VALIDATION_IMAGES", "MONITOR", "FittedFineTuned"]

MONITOR = "loss"
"""The validation metric that selects the best epoch."""

MIN_VALIDATION_IMAGES = 10
"""With fewer images a difference could not be measured."""

DECISIONS_FILE = "fine_tuning.json"
"""Decisions that depend on measured time, in the folder of an unfinished run."""


@dataclass(frozen=True)
class FittedFineTuned(FittedNetwork):
    """A fine-tuned backbone with its head.

    Parameters
    ----------
    frozen : FittedFrozenHead
        The frozen head that it replaced.
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
        result = self.fine_tuning
        frozen: ReportSections = self.frozen.report_sections()
        assert result is not None
        details = {
            **frozen.details,
            "Backbone": f"{self.frozen.training.describe_backbone()}, fine-tuned",
            "Fine-tuning": f"{result.description}; weights of the best epoch, "
            f"{self.history.best_epoch}",
            "Gain": f"validation accuracy {result.accuracy_after:.1%}, with the frozen head "
            f"{result.accuracy_before:.1%}",
            "Time": describe_seconds(result.seconds),
        }
        source = CALIBRATED_BY if self.folds else ""
        return replace(frozen, details=details, temperature_source=source)

    def clear_away(self) -> None:
        """Delete the files for resuming: the bundle has everything else."""
        super().clear_away()
        self.keras.with_name(DECISIONS_FILE).unlink(missing_ok=True)
