"""The entry ``"uncertainty"`` of a bundle: when a classifier does not decide, and prediction sets.

A training measures both on held-out images and writes them; a prediction reads them. Damaged
entries raise UsageError, which the caller completes with the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError, UsageError
from kindsight.evaluation.conformal import LEVEL, ConformalSets
from kindsight.evaluation.selective import CONFIDENCE, RiskCoverage

__all__ = ["StoredSets", "Unsure", "check_targets"]


def check_targets(target_accuracy: float | None, target_coverage: float | None) -> None:
    """Raise SettingsError for a target that is not a fraction, or for both at once."""
    if target_accuracy is not None and target_coverage is not None:
        raise SettingsError(
            f"`target_accuracy` and `target_coverage` cannot be combined; got {target_accuracy:g} "
            f"and {target_coverage:g}. Leave one of them out."
        )
    for name, value in (("accuracy", target_accuracy), ("coverage", target_coverage)):
        if value is not None and not 0 < value < 1:
            raise SettingsError(
                f"`target_{name}` must be a fraction between 0 and 1, such as 0.95; got {value:g}."
            )


@dataclass(frozen=True)
class Unsure:
    """The risk-coverage curve of held-out images, and the threshold that follows from a target.

    Parameters
    ----------
    curve : RiskCoverage
        Accuracy and coverage by threshold.
    source : str
        The predictions that it was measured on, in words.
    threshold : float or None
        Confidence below which a prediction is unsure; None if there is no target, or if it cannot
        be promised.
    target_accuracy, target_coverage : float or None
        The target, 0 to 1.
    """

    curve: RiskCoverage
    source: str
    threshold: float | None = None
    target_accuracy: float | None = None
    target_coverage: float | None = None

    def with_target(
        self, target_accuracy: float | None = None, target_coverage: float | None = None
    ) -> Unsure:
        """Return the same with another target and its threshold; with none, without threshold."""
        check_targets(target_accuracy, target_coverage)
        found = None
        if target_accuracy is not None:
            found = self.curve.threshold_for_accuracy(target_accuracy)
        elif target_coverage is not None:
            found = self.curve.threshold_for_coverage(target_coverage)
        return replace(
            self,
            threshold=found,
            target_accuracy=target_accuracy,
            target_coverage=target_coverage,
        )

    def fault(self) -> str:
        """Return why the target accuracy cannot be promised; empty if it can, or there is none."""
        if self.target_accuracy is None or self.threshold is not None:
            return ""
        highest = self.curve.highest_accuracy()
        most, cure = "no lower accuracy can, either", "Set a target coverage instead."
        if highest:
            most = f"at most {100 * highest:.1f}% can"
            cure = f"Set a target accuracy of {highest:g} or less, or a target coverage."
        return (
            f"{100 * self.target_accuracy:.4g}% accuracy cannot be promised with "
            f"{self.curve.images:,} held-out images and these predictions; {most} "
            f"({100 * CONFIDENCE:.0f}% confidence). {cure}"
        )

    def describe(self) -> str:
        """Return threshold, coverage and accuracy on the held-out images; empty without one."""
        if self.threshold is None:
            return ""
        coverage, accuracy = self.curve.at(self.threshold)
        target, name = self.target_accuracy, "accuracy"
        if target is None:
            target, name = self.target_coverage, "coverage"
        wanted = "" if target is None else f" for {100 * target:.4g}% {name}"
        return (
            f"below {100 * self.threshold:.1f}% confidence{wanted}; {100 * coverage:.1f}% of "
            f"{self.curve.images:,} held-out images are labelled, {100 * accuracy:.1f}% of them "
            "correctly"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``bundle.json``."""
        return {
            "curve": self.curve.to_list(),
            "threshold": self.threshold,
            "target_accuracy": self.target_accuracy,
            "target_coverage": self.target_coverage,
            "images": self.curve.images,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Unsure:
        """Return what :meth:`to_dict` wrote; UsageError if it is damaged."""
        numbers = {}
        for name in ("threshold", "target_accuracy", "target_coverage"):
            value = values.get(name)
            if value is not None and not _is_fraction(value):
                raise UsageError(f"{name!r} must be a fraction or null; got {str(value)[:80]!r}.")
            numbers[name] = value
        curve = RiskCoverage.from_list(values.get("curve"), values.get("images"))
        return cls(curve, str(values.get("source", ""))[:200], **numbers)


@dataclass(frozen=True)
class StoredSets:
    """Conformal prediction sets, with their usual level and where they were measured.

    Parameters
    ----------
    sets : ConformalSets
        The held-out scores.
    confidence_level : float
        The level if none is given.
    source : str
        The predictions that the scores are of, in words.
    mean_size : float or None
        Mean number of classes in the held-out images' sets at that level.
    """

    sets: ConformalSets
    confidence_level: float = LEVEL
    source: str = ""
    mean_size: float | None = None

    def with_mean_size(self, probabilities: NDArray[np.floating[Any]]) -> StoredSets:
        """Return the same with the mean size of the sets of held-out `probabilities`."""
        inside = self.sets.predict(probabilities, self.confidence_level)
        return replace(self, mean_size=float(inside.sum(axis=1).mean()))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``bundle.json``."""
        return {
            "confidence_level": self.confidence_level,
            "images": self.sets.images,
            "source": self.source,
            "mean_size": self.mean_size,
            **self.sets.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], classes: int) -> StoredSets:
        """Return what :meth:`to_dict` wrote; UsageError if it is damaged."""
        level, size = values.get("confidence_level"), values.get("mean_size")
        if type(level) is not float or not 0 < level < 1:
            raise UsageError(f"'confidence_level' must be a fraction; got {str(level)[:80]!r}.")
        known = size if type(size) in (int, float) else None
        source = str(values.get("source", ""))[:200]
        return cls(ConformalSets.from_dict(values, classes), level, source, known)


def _is_fraction(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1 + 1e-6  # type: ignore[operator]
