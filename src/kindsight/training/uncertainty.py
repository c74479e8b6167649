"""Measure a fitted model's uncertainty on held-out images: the bundle's entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kindsight.evaluation.conformal import ConformalSets
from kindsight.evaluation.selective import RiskCoverage
from kindsight.training.held_out import HeldOutPredictions
from kindsight.uncertainty.stored import StoredSets, Unsure

__all__ = [
    "describe_uncertainty",
    "measure_sets",
    "measure_uncertainty",
    "measure_unsure",
    "uncertainty_notes",
    "unknown_notes",
]


def measure_uncertainty(
    held_out: HeldOutPredictions | None,
    target_accuracy: float | None = None,
    target_coverage: float | None = None,
) -> dict[str, Any]:
    """Return the parts ``"unsure"`` and ``"sets"`` of a bundle; empty without held-out images.

    Parameters
    ----------
    held_out : HeldOutPredictions or None
        Of the fitted model.
    target_accuracy, target_coverage : float, optional
        Of the labelled images, 0 to 1; without either, no threshold is set.
    """
    if held_out is None or not len(held_out):
        return {}
    unsure = measure_unsure(held_out).with_target(target_accuracy, target_coverage)
    return {"unsure": unsure.to_dict(), "sets": measure_sets(held_out).to_dict()}


def uncertainty_notes(
    uncertainty: Mapping[str, Any], target_accuracy: float | None, target_coverage: float | None
) -> tuple[str, ...]:
    """Return a note where a target has no threshold; `uncertainty` is the bundle's entry."""
    if target_accuracy is None and target_coverage is None:
        return ()
    if "unsure" not in uncertainty:
        return (
            "No threshold of confidence was set: there are no held-out images to measure it on. "
            "Train with validation images.",
        )
    fault = Unsure.from_dict(uncertainty["unsure"]).fault()
    return (f"{fault} Every image gets a label.",) if fault else ()


def unknown_notes(uncertainty: Mapping[str, Any], known_kept: float) -> tuple[str, ...]:
    """Return a note where a wanted out-of-distribution score is missing from a bundle's entry."""
    if not known_kept or "unknown" in uncertainty:
        return ()
    return (
        "No image will be reported as unknown, none of the classes: there are no validation images "
        "to set the threshold of the score on.",
    )


def describe_uncertainty(uncertainty: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of the summary on the threshold of confidence, where there is one."""
    if "unsure" not in uncertainty:
        return {}
    text = Unsure.from_dict(uncertainty["unsure"]).describe()
    return {"unsure": text} if text else {}


def measure_unsure(held_out: HeldOutPredictions) -> Unsure:
    """Return the risk-coverage curve, without a threshold."""
    curve = RiskCoverage.measure(held_out.probabilities, held_out.targets)
    return Unsure(curve, held_out.source)


def measure_sets(held_out: HeldOutPredictions) -> StoredSets:
    """Return the conformal prediction sets at the default level."""
    probabilities = held_out.probabilities
    sets = ConformalSets.measure(probabilities, held_out.targets)
    return StoredSets(sets, source=held_out.source).with_mean_size(probabilities)
