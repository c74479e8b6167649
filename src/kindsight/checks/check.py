"""The interface of all checks: :class:`Check`, :class:`CheckResult` and :class:`Finding`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kindsight.checks.context import CheckContext

__all__ = [
    "COSTS", "SEVERITIES", "STATES", "SUMMARY_FRACTION", "Check", "CheckResult", "Cost", "Finding",
    "Severity", "per_image_or_summary",
]  # fmt: skip

Severity = Literal["error", "warning", "note"]
State = Literal["found", "passed", "not applicable", "skipped"]
Cost = Literal["cheap", "full"]

SEVERITIES = ("error", "warning", "note")
"""An error makes results wrong or loses images; a warning may do so; a note informs."""

STATES = ("found", "passed", "not applicable", "skipped")
"""Not applicable: the dataset lacks what the check needs. Skipped: ignored, or not requested."""

COSTS = ("cheap", "full")
"""Cheap checks need measurements only; full checks need features or out-of-fold predictions."""

SUMMARY_FRACTION = 0.25
"""Affected fraction above which the property is taken to be typical of the dataset (X-rays are
dark, scans are bright) and reported once."""

FEWEST = 20
"""Minimum number of readable images for a summary."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem that a check found.

    Parameters
    ----------
    code : str
        Code of the check.
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``.
    message : str
        One sentence, without the names of the images, which are in `paths`.
    rows : tuple of int
        Affected rows of the dataset, several for a group; empty if the finding is about files
        outside the dataset, folders or classes.
    paths : tuple of str
        Paths of `rows`, in the same order, or the names of files, folders, splits or classes.
    suggestion : str, optional
        Proposed replacement, such as another label.
    value : float, optional
        Measured value, in the unit that the check's documentation names.
    confidence : float, optional
        Probability of the suggestion, 0-1, where one is estimated.
    """

    code: str
    severity: Severity
    message: str
    rows: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()
    suggestion: str | None = None
    value: float | None = None
    confidence: float | None = None

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import findings_html

        return findings_html("Finding", [self])


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Parameters
    ----------
    code : str
        Code of the check.
    state : str
        One of :data:`STATES`.
    findings : tuple of Finding
        Most severe first; empty unless the state is ``"found"``.
    reason : str
        Why the check is not applicable or was skipped; otherwise a limitation of the result, or
        empty.
    examined : int
        Number of images (or files, or classes) examined.
    recall : dict, optional
        Where not all pairs of images could be compared: the fraction of similar pairs that were
        found, ``value``, measured on this dataset: of ``pairs`` similar pairs of ``images`` sampled
        images, each compared with all, ``found`` were found.
    """

    code: str
    state: State
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    examined: int = 0
    recall: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if (self.state == "found") != bool(self.findings):
            raise ValueError(
                f'state must be "found" if and only if there are findings; got {self.state!r} '
                f"with {len(self.findings)} findings."
            )

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import findings_html

        reason = f": {self.reason}" if self.reason else ""
        return findings_html(f"{self.code}, {self.state}{reason}", self.findings)

    @property
    def images(self) -> int:
        """The number of images that the findings are about; each counts once."""
        return len({row for finding in self.findings for row in finding.rows})


class Check(ABC):
    """Base class of all checks.

    Subclasses take no constructor arguments, set the class attributes and define :meth:`run`.
    They hold no state and return the same result for the same context. Thresholds are module
    constants with their source.

    Attributes
    ----------
    code : str
        ``KS`` and three digits; the first digit is the kind: 1 files, 2 content, 3 duplicates,
        4 labels, 5 splits, 6 balance. A code never changes its meaning.
    title : str
        What is found, in a few words.
    severity : str
        Highest severity of the check's findings.
    cost : str
        ``"cheap"`` or ``"full"``.
    advice : str
        What to do, in one or two sentences.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    cost: ClassVar[Cost] = "cheap"
    advice: ClassVar[str] = ""

    @property
    def docs(self) -> str:
        """Path of the check's page in the documentation."""
        return f"checks/{self.code}.md"

    @property
    def description(self) -> str:
        """What is found, in one or two sentences: the docstring of the class."""
        return " ".join((inspect.getdoc(type(self)) or "").split())

    @abstractmethod
    def run(self, context: CheckContext) -> CheckResult:
        """Run the check."""

    def result(self, findings: Iterable[Finding], examined: int) -> CheckResult:
        """Return a result in state ``"found"`` or ``"passed"``."""
        found = tuple(findings)
        return CheckResult(self.code, "found" if found else "passed", found, examined=examined)

    def not_applicable(self, reason: str) -> CheckResult:
        """Return a result in state ``"not applicable"``; `reason` is a sentence."""
        return CheckResult(self.code, "not applicable", reason=reason)

    def skipped(self, reason: str) -> CheckResult:
        """Return a result in state ``"skipped"``; `reason` is a sentence."""
        return CheckResult(self.code, "skipped", reason=reason)

    def finding(
        self,
        context: CheckContext,
        rows: Iterable[int],
        message: str,
        *,
        suggestion: str | None = None,
        value: float | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """Return a finding about rows of the dataset, by default of the check's severity."""
        indices = tuple(int(row) for row in rows)
        paths = tuple(context.dataset.path[row] for row in indices)
        return Finding(
            self.code, severity or self.severity, message, indices, paths, suggestion, value
        )

    def finding_about(
        self,
        names: Iterable[str],
        message: str,
        *,
        suggestion: str | None = None,
        value: float | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """Return a finding about other files, folders, splits or classes."""
        return Finding(
            self.code, severity or self.severity, message, (), tuple(names), suggestion, value
        )


def per_image_or_summary(
    check: Check,
    context: CheckContext,
    affected: NDArray[np.bool_],
    extent: NDArray[np.floating],
    message: Callable[[int], str],
    summary: str,
) -> CheckResult:
    """Return one finding per affected image, or one for all of them if they are many.

    Parameters
    ----------
    check : Check
        The check that reports.
    context : CheckContext
    affected : bool array (n,)
        Per row of the dataset; unreadable images are ignored.
    extent : float array (n,)
        Severity of the property, the value of each finding; the largest comes first.
    message : callable
        Called with a row; returns its message.
    summary : str
        End of a sentence that begins "640 of 2,062 images".
    """
    rows = context.readable_rows
    if not len(rows):
        return check.not_applicable("No image can be read.")
    found = rows[affected[rows]]
    found = found[np.argsort(-extent[found], kind="stable")]
    if len(found) > SUMMARY_FRACTION * len(rows) and len(rows) >= FEWEST:
        text = (
            f"{len(found):,} of {len(rows):,} images {summary}; this may be typical of the dataset."
        )
        return check.result([check.finding(context, found, text)], len(rows))
    return check.result(
        (
            check.finding(context, [row], message(int(row)), value=float(extent[row]))
            for row in found
        ),
        len(rows),
    )
