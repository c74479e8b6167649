"""A finding on a training: its code, what it means, its evidence, and commands to try first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kindsight.diagnosis.commands import plain_command, train_command
from kindsight.diagnosis.evidence import RunEvidence
from kindsight.diagnosis.significance import compare_proportions
from kindsight.errors import UsageError
from kindsight.evaluation.intervals import wilson_interval

__all__ = ["SEVERITIES", "Diagnosis", "make_finding", "percent", "points"]

SEVERITIES = ("error", "warning", "note")
"""From the most to the least severe: the result is not usable, limited, or only worth knowing."""


@dataclass(frozen=True)
class Diagnosis:
    """A finding on a finished training.

    Parameters
    ----------
    code : str
        ``"KD101"`` and so on; see the guide's page on diagnosis.
    title : str
        A few words, such as ``"Overfitting"``.
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``.
    message : str
        One or two sentences for a learner.
    figure : mapping of str to number
        The numbers behind the message, by name: accuracies and other shares 0-1, losses in nats.
    evidence : str
        Where these numbers come from, in a sentence.
    commands : tuple of str
        Commands to copy, the most useful first; empty where no command helps.
    remedies : tuple of mapping
        What each experiment changes: options of a training by name, such as
        ``{"augment": "classic", "dropout": 0.5}``, the most useful first. Every one is valid with
        the run's other settings.

    Raises
    ------
    UsageError
        For an unknown severity or a figure that is not finite.
    """

    code: str
    title: str
    severity: str
    message: str
    figure: Mapping[str, float] = field(default_factory=dict)
    evidence: str = ""
    commands: tuple[str, ...] = ()
    remedies: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise UsageError(
                f"`severity` must be one of {', '.join(SEVERITIES)}; got {self.severity!r}."
            )
        if wrong := [name for name, value in self.figure.items() if not math.isfinite(value)]:
            raise UsageError(f"`figure` must have finite numbers; got {wrong[0]!r} without one.")

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import diagnosis_html

        return diagnosis_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return {
            "code": self.code,
            "title": self.title,
            "severity": self.severity,
            "message": self.message,
            "figure": dict(self.figure),
            "evidence": self.evidence,
            "commands": list(self.commands),
            "remedies": [dict(remedy) for remedy in self.remedies],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Diagnosis:
        """Return the finding of a :meth:`to_dict`; UsageError for anything else."""
        try:
            return cls(
                code=str(data["code"]),
                title=str(data["title"]),
                severity=str(data["severity"]),
                message=str(data["message"]),
                figure={str(name): float(value) for name, value in data["figure"].items()},
                evidence=str(data["evidence"]),
                commands=tuple(str(command) for command in data["commands"]),
                remedies=tuple(dict(remedy) for remedy in data["remedies"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"A finding is not as to_dict() returns it: {error!r}.") from error


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
