"""A finding on a training: its code, what it means, its evidence, and what to try first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kindsight.errors import UsageError

__all__ = ["SEVERITIES", "Diagnosis"]

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
