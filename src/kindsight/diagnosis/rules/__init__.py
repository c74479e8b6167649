"""The rules: pure functions from the evidence to a finding or None; a cause comes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kindsight.diagnosis.diagnosis import Diagnosis
from kindsight.diagnosis.evidence import RunEvidence
from kindsight.diagnosis.rules.conditions import (
    augmentation_too_strong,
    inference_differs,
    input_scaled_twice,
    miscalibration,
)
from kindsight.diagnosis.rules.data import (
    class_collapse,
    confounded_source,
    leakage,
    rare_class_collapse,
    small_validation,
    wrong_labels,
)
from kindsight.diagnosis.rules.fit import overfitting, plateau, stopped_early, underfitting
from kindsight.diagnosis.rules.learning_rate import rate_too_high, rate_too_low

__all__ = ["RULES", "diagnose"]

Rule = Callable[[RunEvidence], Diagnosis | None]

RULES: tuple[tuple[str, Rule], ...] = (
    ("KD115", input_scaled_twice),
    ("KD114", inference_differs),
    ("KD103", rate_too_high),
    ("KD110", leakage),
    ("KD112", confounded_source),
    ("KD104", rate_too_low),
    ("KD113", augmentation_too_strong),
    ("KD102", underfitting),
    ("KD108", rare_class_collapse),
    ("KD105", stopped_early),
    ("KD108", class_collapse),
    ("KD109", wrong_labels),
    ("KD101", overfitting),
    ("KD106", plateau),
    ("KD111", miscalibration),
    ("KD107", small_validation),
)
"""Every rule with its code, the one that explains most first: wrong input makes a network collapse,
but no collapse makes input wrong."""

_TRAINING = frozenset(
    {"KD101", "KD102", "KD104", "KD105", "KD106", "KD108", "KD109", "KD111", "KD113"}
)

EXPLAINS: Mapping[str, frozenset[str]] = {
    "KD115": _TRAINING | {"KD103", "KD114"},
    "KD114": _TRAINING | {"KD103"},
    "KD103": _TRAINING,
    "KD104": frozenset({"KD102", "KD105", "KD106", "KD108"}),
    "KD113": frozenset({"KD102", "KD105", "KD106", "KD108"}),
    "KD102": frozenset({"KD106", "KD108"}),
    "KD110": frozenset({"KD101", "KD111"}),
    "KD109": frozenset({"KD101", "KD111"}),
    "KD105": frozenset({"KD106", "KD108", "KD109"}),
    "KD108": frozenset({"KD109"}),
    "KD101": frozenset({"KD111"}),
}
"""What a finding explains: those are its consequences, and are not reported with it."""


def diagnose(evidence: RunEvidence) -> tuple[Diagnosis, ...]:
    """Return the findings on a training, the one that explains most first."""
    found: list[Diagnosis] = []
    explained: set[str] = set()
    for code, rule in RULES:
        if code in explained or any(finding.code == code for finding in found):
            continue
        finding = rule(evidence)
        if finding is not None:
            found.append(finding)
            explained |= EXPLAINS.get(code, frozenset())
    return tuple(found)
