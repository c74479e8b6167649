"""Choosing what of a check's findings is shown, and gathering it for the page."""

from __future__ import annotations

import base64
import importlib.metadata
import time

from kindsight.cache import Cache
from kindsight.catalog.checks import Check, CheckResult, Finding, all_checks
from kindsight.catalog.checks.thumbnails import thumbnails
from kindsight.checking.report import CheckReport
from kindsight.report.findings_data import (
    FindingsData,
    FindingsSection,
    QuietCheck,
    ShownFinding,
    ShownPicture,
)

__all__ = ["findings_data"]

MAX_SINGLE = 24
"""Findings of one picture each that are shown of a check."""

MAX_GROUPS = 12
"""Findings of several pictures that are shown of a check."""

MAX_IN_GROUP = 8
"""Pictures shown of one finding."""

MAX_NAMES = 12
"""Names shown of a finding that is not about pictures of the catalog."""


def findings_data(report: CheckReport, cache: Cache) -> FindingsData:
    """Gather what the page shows.

    Parameters
    ----------
    report : CheckReport
        What was found.
    cache : Cache
        Where small pictures are kept.
    """
    chosen = [(check, result, _chosen(result)) for check, result in report.found()]
    readable = report.context.measurements.readable
    rows = dict.fromkeys(
        row
        for _, _, findings in chosen
        for finding in findings
        for row in finding.rows[:MAX_IN_GROUP]
        if readable[row]
    )
    images = thumbnails(report.context.catalog, rows, cache)
    return FindingsData(
        source=report.data or "the pictures",
        created=time.strftime("%Y-%m-%d %H:%M"),
        pictures=len(report.context.catalog),
        readable=len(report.context.readable_rows),
        classes=report.context.catalog.counts(),
        counts=report.counts(),
        sections=tuple(
            _section(report, check, result, findings, images) for check, result, findings in chosen
        ),
        quiet=_quiet(report),
        notes=report.notes,
        seconds=report.seconds,
        version=importlib.metadata.version("kindsight"),
    )


def _chosen(result: CheckResult) -> list[Finding]:
    """Return the first findings: fewer of those that take a row each."""
    chosen, singles, groups = [], 0, 0
    for finding in result.findings:
        single = len(finding.rows) == 1
        singles, groups = singles + single, groups + (not single)
        if singles <= MAX_SINGLE and groups <= MAX_GROUPS:
            chosen.append(finding)
        else:
            break
    return chosen


def _section(
    report: CheckReport,
    check: Check,
    result: CheckResult,
    findings: list[Finding],
    images: dict[int, bytes],
) -> FindingsSection:
    return FindingsSection(
        code=check.code,
        title=check.title,
        severity=result.findings[0].severity,
        about=check.about,
        advice=check.advice,
        findings=tuple(_shown(report, finding, images) for finding in findings),
        count=len(result.findings),
        pictures=len({row for finding in result.findings for row in finding.rows}),
        remark=result.reason,
    )


def _shown(report: CheckReport, finding: Finding, images: dict[int, bytes]) -> ShownFinding:
    return ShownFinding(
        message=finding.message,
        severity=finding.severity,
        pictures=tuple(
            _picture(report, row, images.get(row, b"")) for row in finding.rows[:MAX_IN_GROUP]
        ),
        names=() if finding.rows else finding.paths[:MAX_NAMES],
        count=len(finding.paths),
        suggestion=finding.suggestion or "",
    )


def _picture(report: CheckReport, row: int, jpeg: bytes) -> ShownPicture:
    catalog, measured = report.context.catalog, report.context.measurements
    height, width = int(measured.height[row]), int(measured.width[row])
    kilobytes = f"{measured.bytes[row] / 1000:,.1f} kB"
    address = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii") if jpeg else ""
    return ShownPicture(
        path=catalog.path[row],
        image=address,
        label=catalog.label[row] or "",
        split=catalog.split[row] or "",
        caption=f"{height:,} \N{MULTIPLICATION SIGN} {width:,}, {kilobytes}" if height else "",
    )


def _quiet(report: CheckReport) -> tuple[QuietCheck, ...]:
    titles = {check.code: check.title for check in all_checks()}
    state_of = {code: state for state, codes in report.states().items() for code in codes}
    return tuple(
        QuietCheck(result.code, titles[result.code], state_of[result.code], result.reason)
        for result in report.results
        if result.state != "found"
    )
