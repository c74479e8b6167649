"""The settings of ``kindsight check``, and its results as counts, table rows and JSON."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kindsight.checks import SEVERITIES, CheckContext, CheckResult, Finding, all_checks
from kindsight.checks.apply import RELABEL_CONFIDENCE, Corrections, correct
from kindsight.checks.check import Check
from kindsight.checks.rules import IGNORED, validate_codes
from kindsight.dataset.names import ignored_counts
from kindsight.distributed import check_on
from kindsight.errors import SettingsError
from kindsight.files import read_toml

__all__ = ["COLUMNS", "CheckReport", "CheckSettings"]


@dataclass(frozen=True)
class CheckSettings:
    """Settings of a check.

    Parameters
    ----------
    ignore : tuple of str
        Codes of checks to skip, such as ``KS203``; the report lists them.
    full : bool
        Run the checks that need features of all images, too.
    model : str
        Backbone that computes the features.
    size : int, optional
        Height and width of the backbone's input in pixels. Default: the backbone's, or for small
        images the one that a training would choose.
    workers : int, optional
        Images processed at once. Default: the number of cores.
    on : str, optional
        Where images are processed, as for :func:`kindsight.distributed.open_executor`.
    relabel_confidence : float
        Minimum probability of a suggested label that replaces the given one in the corrected table,
        0-1.

    Raises
    ------
    SettingsError
        If `ignore`, `full` or `relabel_confidence` is invalid.
    """

    ignore: tuple[str, ...] = ()
    full: bool = False
    model: str = "efficientnet-lite0"
    size: int | None = None
    workers: int | None = None
    on: str | None = None
    relabel_confidence: float = RELABEL_CONFIDENCE

    def __post_init__(self) -> None:
        given: object = self.ignore
        if not isinstance(given, (tuple, list)) or not all(isinstance(c, str) for c in given):
            raise SettingsError(
                f'`ignore` must be a list of check codes, such as ["KS203"]; got {given!r}.'
            )
        object.__setattr__(self, "ignore", tuple(sorted(set(self.ignore))))
        validate_codes(self.ignore)
        if not isinstance(self.full, bool):
            raise SettingsError(f"`full` must be true or false; got {self.full!r}.")
        if self.on is not None:
            check_on(self.on)
        least: object = self.relabel_confidence
        if isinstance(least, bool) or not isinstance(least, (int, float)) or not 0 < least <= 1:
            raise SettingsError(
                "`relabel_confidence` must be a probability above 0 and at most 1, such as 0.9; "
                f"got {least!r}."
            )

    @classmethod
    def from_toml(
        cls, path: str | os.PathLike[str], *, ignore: tuple[str, ...] = (), full: bool = False
    ) -> CheckSettings:
        """Read settings from a TOML file, such as ``ignore = ["KS203"]`` and ``full = true``.

        Parameters
        ----------
        path : path
        ignore : tuple of str
            Codes to add to those of the file.
        full : bool
            True overrides the file.

        Raises
        ------
        SettingsError
            If the file cannot be read or contains unknown or invalid settings.
        """
        source, values = os.fspath(path), read_toml(path, "The settings")
        known = [field.name for field in dataclasses.fields(cls)]
        faults = []
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Settings: {', '.join(known)}."
                faults.append(f"{source}: unknown setting {name!r}. {hint}")
        listed = values.get("ignore", [])
        if not isinstance(listed, list):
            faults.append(
                f'{source}: ignore must be a list of codes, such as ["KS203"]; got {listed!r}.'
            )
        if faults:
            raise SettingsError("\n".join(faults))
        values["ignore"] = (*listed, *ignore)
        values["full"] = values.get("full", False) or full
        return cls(**values)


COLUMNS = (
    "finding", "code", "severity", "title", "path", "label", "split", "message", "suggestion",
    "value",
)  # fmt: skip
"""Columns of findings.csv, which has one row per image of each finding."""


MAX_LISTED = 10_000
"""Maximum findings of a check, and images of a finding, in findings.json."""


@dataclass(frozen=True)
class CheckReport:
    """The results of all checks on a dataset.

    Parameters
    ----------
    data : str
        The data as given by the user.
    context : CheckContext
        The dataset and its measurements.
    results : tuple of CheckResult
        One per check, in the order of their codes.
    ignored : tuple of str
        Codes of the ignored checks.
    seconds : dict of str to float
        Seconds per stage.
    notes : tuple of str
        Notes of the dataset, one sentence each.
    """

    data: str
    context: CheckContext
    results: tuple[CheckResult, ...]
    ignored: tuple[str, ...]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import findings_html

        counts = ", ".join(f"{count:,} of severity {name}" for name, count in self.counts().items())
        return findings_html(f"Check of {self.data}: {counts}", self.findings)

    @property
    def findings(self) -> list[Finding]:
        """All findings: errors, then warnings, then notes; each in the order of the codes."""
        every = [finding for result in self.results for finding in result.findings]
        return sorted(every, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def failed(self) -> bool:
        """Whether there is a finding of severity error."""
        return any(finding.severity == "error" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each severity."""
        found: list[str] = [finding.severity for finding in self.findings]
        return {severity: found.count(severity) for severity in SEVERITIES}

    def states(self) -> dict[str, list[str]]:
        """Return the codes of the checks by state, with ``"ignored"`` as a further state."""
        by_state: dict[str, list[str]] = {}
        for result in self.results:
            ignored = result.state == "skipped" and result.reason == IGNORED
            by_state.setdefault("ignored" if ignored else result.state, []).append(result.code)
        return by_state

    def found(self) -> list[tuple[Check, CheckResult]]:
        """Return the checks with findings, the most severe first."""
        checks = {check.code: check for check in all_checks()}
        pairs = [(checks[r.code], r) for r in self.results if r.state == "found"]
        return sorted(pairs, key=lambda pair: (_worst(pair[1]), pair[1].code))

    def corrections(self, confidence: float = RELABEL_CONFIDENCE) -> Corrections:
        """Return the corrections that the findings imply.

        Parameters
        ----------
        confidence : float
            Minimum confidence at which a suggested label replaces the given one, 0-1.
        """
        return correct(self.context.dataset, self.results, confidence)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of findings.csv, with the columns :data:`COLUMNS`."""
        titles = {check.code: check.title for check in all_checks()}
        dataset = self.context.dataset
        for number, finding in enumerate(self.findings, 1):
            rows = finding.rows or (None,) * len(finding.paths)
            value = "" if finding.value is None else f"{finding.value:.6g}"
            for row, path in zip(rows, finding.paths, strict=True):
                label = dataset.label[row] if row is not None else None
                split = dataset.split[row] if row is not None else None
                yield (
                    number, finding.code, finding.severity, titles[finding.code], path,
                    label or "", split or "", finding.message, finding.suggestion or "", value,
                )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the content of findings.json and of ``--json``.

        Returns
        -------
        dict
            ``data``; ``images`` and ``readable``, numbers of images; ``classes``, images per class;
            ``counts``, findings per severity; ``checks``, a list of dicts with code, title,
            severity, state, examined, reason, findings and images, the number of images that the
            findings are about; ``ignored``; ``ignored_files``; ``notes``; ``seconds``. If a check
            has more than 10,000 findings, or a finding more images, the first are listed and
            ``total`` is their number; findings.csv has all. A check that could not compare all
            images has ``recall``, see :class:`kindsight.checks.CheckResult`.
        """
        checks = {check.code: check for check in all_checks()}
        return {
            "data": self.data,
            "images": len(self.context.dataset),
            "readable": len(self.context.readable_rows),
            "classes": self.context.dataset.counts(),
            "counts": self.counts(),
            "checks": [
                {
                    "code": result.code,
                    "title": checks[result.code].title,
                    "severity": checks[result.code].severity,
                    "state": result.state,
                    "examined": result.examined,
                    "reason": result.reason,
                    "findings": [_as_dict(finding) for finding in result.findings[:MAX_LISTED]],
                    "images": result.images,
                    **_more(len(result.findings)),
                    **({} if result.recall is None else {"recall": result.recall}),
                }
                for result in self.results
            ],
            "ignored": list(self.ignored),
            "ignored_files": ignored_counts(self.context.dataset.ignored_files),
            "notes": list(self.notes),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def _worst(result: CheckResult) -> int:
    return min(SEVERITIES.index(finding.severity) for finding in result.findings)


def _more(total: int) -> dict[str, int]:
    """Return the total number of entries if a list is shortened."""
    return {"total": total} if total > MAX_LISTED else {}


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "message": finding.message,
        "paths": list(finding.paths[:MAX_LISTED]),
        "rows": list(finding.rows[:MAX_LISTED]),
        **_more(len(finding.paths)),
        "suggestion": finding.suggestion,
        "value": finding.value,
        **({} if finding.confidence is None else {"confidence": finding.confidence}),
    }
