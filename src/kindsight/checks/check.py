"""What a check is, and what it says: the contract that every check keeps."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from kindsight.checks.context import CheckContext

__all__ = ["COSTS", "SEVERITIES", "STATES", "Check", "CheckResult", "Cost", "Finding", "Severity"]

Severity = Literal["error", "warning", "note"]
State = Literal["found", "passed", "not applicable", "skipped"]
Cost = Literal["cheap", "full"]

SEVERITIES = ("error", "warning", "note")
"""An error makes results wrong or loses images; a warning may; a note is worth knowing."""

STATES = ("found", "passed", "not applicable", "skipped")
"""Not applicable: the data are not of the kind it looks at. Skipped: it was not asked to look."""

COSTS = ("cheap", "full")
"""Cheap checks need measurements alone; the others features, or what is computed from them."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Parameters
    ----------
    code : str
        The check's.
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``.
    message : str
        One sentence; without the names of the images, which stand in `paths`.
    rows : tuple of int
        Rows of the dataset that it is about, several for a group; none for what is not in the
        dataset, such as a file that was passed over.
    paths : tuple of str
        Names of what it is about: of the rows, in their order, or of files, folders or classes.
    suggestion : str, optional
        What could be put in place: another label, say.
    value : float, optional
        What was measured; what is listed first among the findings of a check has been put first
        by the check.
    """

    code: str
    severity: Severity
    message: str
    rows: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()
    suggestion: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class CheckResult:
    """What a check came to.

    Parameters
    ----------
    code : str
        The check's.
    state : str
        One of :data:`STATES`.
    findings : tuple of Finding
        What matters most comes first; empty unless the state is ``"found"``.
    reason : str
        Why it is not applicable or was skipped; otherwise empty, or what it could not look at.
    examined : int
        How many images (or files, or classes) were looked at.
    """

    code: str
    state: State
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    examined: int = 0

    def __post_init__(self) -> None:
        if (self.state == "found") != bool(self.findings):
            raise ValueError(f"findings and the state 'found' go together. Received: {self.state}")


class Check(ABC):
    """One question that is asked of all images.

    A check is a class without arguments, in a file of its own, that sets the class variables and
    defines :meth:`run`. Checks have no state, change nothing, and give the same result for the
    same context. Thresholds are constants of the file, with the reason.

    Attributes
    ----------
    code : str
        ``KS`` and three digits, the first of them the kind: 1 files, 2 content, 3 duplicates,
        4 labels, 5 splits, 6 balance. A code keeps its meaning for ever.
    title : str
        A few words: what is found, as the heading of a list of findings.
    severity : str
        Of what it finds, usually; the worst that it gives.
    cost : str
        ``"cheap"`` or ``"full"``.
    advice : str
        What to do, in a sentence or two; its page says more.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    cost: ClassVar[Cost] = "cheap"
    advice: ClassVar[str] = ""

    @property
    def docs(self) -> str:
        """The check's page in the documentation."""
        return f"checks/{self.code}.md"

    @property
    def about(self) -> str:
        """What is found, in a sentence or two: the class's own description."""
        return " ".join((inspect.getdoc(type(self)) or "").split())

    @abstractmethod
    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""

    def result(self, findings: Iterable[Finding], examined: int) -> CheckResult:
        """Return what was found, or that nothing was."""
        found = tuple(findings)
        return CheckResult(self.code, "found" if found else "passed", found, examined=examined)

    def remark(self, result: CheckResult, reason: str) -> CheckResult:
        """Return a result with a sentence on what could not be looked at."""
        return replace(result, reason=reason)

    def not_applicable(self, reason: str) -> CheckResult:
        """Return that there is nothing to look at; `reason` is a sentence."""
        return CheckResult(self.code, "not applicable", reason=reason)

    def skipped(self, reason: str) -> CheckResult:
        """Return that nobody looked; `reason` is a sentence."""
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
        """Make a finding about rows of the dataset; of the check's severity if none is given."""
        chosen = tuple(int(row) for row in rows)
        paths = tuple(context.dataset.path[row] for row in chosen)
        return Finding(
            self.code, severity or self.severity, message, chosen, paths, suggestion, value
        )

    def finding_about(
        self,
        paths: Iterable[str],
        message: str,
        *,
        suggestion: str | None = None,
        value: float | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """Make a finding about what is not in the dataset: files, folders, names of classes."""
        return Finding(
            self.code, severity or self.severity, message, (), tuple(paths), suggestion, value
        )
