"""Make a finding with its commands, and with the accuracy that a pretrained backbone reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kindsight.diagnosis.commands import plain_command, train_command
from kindsight.diagnosis.diagnosis import Diagnosis
from kindsight.diagnosis.evidence import RunEvidence
from kindsight.diagnosis.significance import compare_proportions
from kindsight.evaluation.intervals import wilson_interval

__all__ = ["borrowed_network", "make_finding", "percent", "points"]

# Above this accuracy, a pretrained backbone is not recommended without a measurement.
GOOD = 0.95


def make_finding(
    evidence: RunEvidence,
    code: str,
    title: str,
    severity: str,
    message: str,
    *,
    figure: Mapping[str, float],
    because: str,
    remedies: Sequence[Mapping[str, Any]] = (),
    others: Sequence[str] = (),
    borrow: bool = False,
) -> Diagnosis:
    """Return a finding.

    Parameters
    ----------
    evidence : RunEvidence
    code, title, severity, message, figure
        As of :class:`.diagnosis.Diagnosis`.
    because : str
        The evidence.
    remedies : sequence of mapping
        Changed options; each becomes a command.
    others : sequence of str
        Further commands, after those of the remedies.
    borrow : bool
        Whether to recommend a pretrained backbone for a network trained from random weights.
    """
    commands = [train_command(evidence.settings, changes, evidence.run) for changes in remedies]
    commands += others
    if borrow and (sentence := borrowed_network(evidence)):
        message = f"{message} {sentence}"
        commands.append(plain_command(evidence.settings))
    return Diagnosis(
        code, title, severity, message,
        {name: float(value) for name, value in figure.items() if math.isfinite(value)},
        because, tuple(dict.fromkeys(commands)), tuple(remedies),
    )  # fmt: skip


def borrowed_network(evidence: RunEvidence) -> str:
    """Return a sentence on what a frozen backbone reaches; empty where it is no better."""
    held = evidence.held_out
    from_scratch = evidence.kind == "network" or evidence.settings.get("weights") == "none"
    if held is None or not from_scratch:
        return ""
    frozen = evidence.frozen
    if frozen is None:
        if wilson_interval(held.correct, len(held))[1] > GOOD:
            return ""
        return (
            "A pretrained backbone, the default of kindsight train, usually reaches a far higher "
            "accuracy in less time."
        )
    gain = compare_proportions(frozen.correct, frozen.images, held.correct, len(held))
    if gain.low <= 0:
        return ""
    return (
        f"A pretrained backbone, the default of kindsight train, reaches "
        f"{percent(frozen.correct / frozen.images)} accuracy on the same {frozen.images:,} images "
        "in less time."
    )


def percent(fraction: float) -> str:
    """Return a fraction as a percentage in whole points; only 0 and 1 become 0% and 100%."""
    if fraction in (0.0, 1.0):
        return f"{fraction:.0%}"
    if not 0.01 <= fraction <= 0.99:
        return f"{min(max(100 * fraction, 0.1), 99.9):.1f}%"
    return f"{100 * fraction:.0f}%"


def points(low: float, high: float) -> str:
    """Return the ends of a difference in percentage points: "12 to 27 points"."""
    return f"{100 * low:.0f} to {100 * high:.0f} points"
