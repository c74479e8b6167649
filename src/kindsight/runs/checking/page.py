"""Choosing what of a check's findings is shown, and gathering it for the page."""

from __future__ import annotations

import base64
import importlib.metadata
import time
from collections.abc import Iterable
from contextlib import closing

import cv2
import numpy as np

from kindsight.cache.folder import Cache
from kindsight.checks import Check, CheckResult, Finding, all_checks
from kindsight.checks.measurement_cache import FORMAT, MeasurementTable
from kindsight.dataset.table import ImageDataset
from kindsight.errors import ImageError
from kindsight.images import read_image
from kindsight.report.findings import (
    FindingsData,
    FindingsSection,
    QuietCheck,
    ShownFinding,
    ShownImage,
)
from kindsight.runs.checking.report import CheckReport
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = [
    "THUMBNAIL",
    "findings_data",
    "thumbnails",
]

# SECTION: Small images to be shown beside findings, made when they are first shown and then kept.

THUMBNAIL = 144
"""Pixels of the longer side."""

QUALITY = 80


def thumbnails(
    dataset: ImageDataset, rows: Iterable[int], cache: Cache, workers: int | None = None
) -> dict[int, bytes]:
    """Return small JPEGs of some rows.

    Parameters
    ----------
    dataset : ImageDataset
        With digests; rows without one, and images that cannot be read, get none.
    rows : iterable of int
    cache : Cache
        Where they are kept by content.
    workers : int, optional
        How many are read at once; the number of cores if omitted.

    Returns
    -------
    dict of int to bytes
    """
    digests = {row: digest for row in rows if (digest := dataset.digest[row]) is not None}
    with closing(MeasurementTable(cache.measurements_file(str(FORMAT)))) as table:
        known = table.thumbnails(digests.values())
        missing: dict[str, int] = {}
        for row, digest in digests.items():
            if digest not in known:
                missing.setdefault(digest, row)
        if missing:
            with single_threaded_opencv():
                made = map_ordered(
                    lambda row: _thumbnail(dataset, row), missing.values(), workers or count_cores()
                )
                fresh = dict(zip(missing, made, strict=True))
            table.put_thumbnails({digest: jpeg for digest, jpeg in fresh.items() if jpeg})
            known.update(fresh)
    return {row: known[digest] for row, digest in digests.items() if known.get(digest)}


def _thumbnail(dataset: ImageDataset, row: int) -> bytes:
    try:
        data = dataset.load(row)
        # Twice the size: what is decoded at reduced size is then still made smaller, and smooth.
        target = (2 * THUMBNAIL, 2 * THUMBNAIL)
        image = read_image(data, target=target) if isinstance(data, bytes) else data
    except ImageError:
        return b""
    height, width = image.shape[:2]
    scale = THUMBNAIL / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    turned = np.ascontiguousarray(image[:, :, ::-1])
    made, data = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(data).tobytes() if made else b""


MAX_SINGLE = 24
"""Findings of one image each that are shown of a check."""

MAX_GROUPS = 12
"""Findings of several images that are shown of a check."""

MAX_IN_GROUP = 8
"""Images shown of one finding."""

MAX_NAMES = 12
"""Names shown of a finding that is not about images of the dataset."""


def findings_data(report: CheckReport, cache: Cache) -> FindingsData:
    """Gather what the page shows.

    Parameters
    ----------
    report : CheckReport
        What was found.
    cache : Cache
        Where small images are kept.
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
    images = thumbnails(report.context.dataset, rows, cache)
    return FindingsData(
        source=report.data or "the images",
        created=time.strftime("%Y-%m-%d %H:%M"),
        images=len(report.context.dataset),
        readable=len(report.context.readable_rows),
        classes=report.context.dataset.counts(),
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
        images=len({row for finding in result.findings for row in finding.rows}),
        remark=result.reason,
    )


def _shown(report: CheckReport, finding: Finding, images: dict[int, bytes]) -> ShownFinding:
    return ShownFinding(
        message=finding.message,
        severity=finding.severity,
        images=tuple(
            _image(report, row, images.get(row, b"")) for row in finding.rows[:MAX_IN_GROUP]
        ),
        names=() if finding.rows else finding.paths[:MAX_NAMES],
        count=len(finding.paths),
        suggestion=finding.suggestion or "",
    )


def _image(report: CheckReport, row: int, jpeg: bytes) -> ShownImage:
    dataset, measured = report.context.dataset, report.context.measurements
    height, width = int(measured.height[row]), int(measured.width[row])
    kilobytes = f"{measured.bytes[row] / 1000:,.1f} kB"
    address = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii") if jpeg else ""
    return ShownImage(
        path=dataset.path[row],
        image=address,
        label=dataset.label[row] or "",
        split=dataset.split[row] or "",
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
