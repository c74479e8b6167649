"""Select the findings and thumbnails for the HTML report of a check."""

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
    CheckState,
    FindingsData,
    FindingsSection,
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

THUMBNAIL = 144
"""Longer side of a thumbnail in pixels."""

QUALITY = 80
"""JPEG quality of a thumbnail."""

MAX_SINGLE = 24
"""Maximum findings about one image that are shown per check."""

MAX_GROUPS = 12
"""Maximum findings about several images, or none, that are shown per check."""

MAX_IN_GROUP = 8
"""Maximum images shown per finding."""

MAX_NAMES = 12
"""Maximum names shown per finding that is not about images."""


def thumbnails(
    dataset: ImageDataset, rows: Iterable[int], cache: Cache, workers: int | None = None
) -> dict[int, bytes]:
    """Return thumbnails of some rows, from the cache or computed.

    Parameters
    ----------
    dataset : ImageDataset
        With digests.
    rows : iterable of int
    cache : Cache
        Stores the thumbnails by content digest.
    workers : int, optional
        Images read at once. Default: the number of cores.

    Returns
    -------
    dict of int to bytes
        JPEG files by row, without unreadable images.
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
                computed = map_ordered(
                    lambda row: _thumbnail(dataset, row), missing.values(), workers or count_cores()
                )
                fresh = dict(zip(missing, computed, strict=True))
            table.put_thumbnails({digest: jpeg for digest, jpeg in fresh.items() if jpeg})
            known.update(fresh)
    return {row: known[digest] for row, digest in digests.items() if known.get(digest)}


def _thumbnail(dataset: ImageDataset, row: int) -> bytes:
    try:
        data = dataset.load(row)
        # Decoded at twice the size, so that resizing smooths it.
        target = (2 * THUMBNAIL, 2 * THUMBNAIL)
        image = read_image(data, target=target) if isinstance(data, bytes) else data
    except ImageError:
        return b""
    height, width = image.shape[:2]
    scale = THUMBNAIL / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(data).tobytes() if encoded else b""


def findings_data(report: CheckReport, cache: Cache) -> FindingsData:
    """Return the content of the HTML report.

    Parameters
    ----------
    report : CheckReport
    cache : Cache
        Stores the thumbnails.
    """
    selected = [(check, result, _select(result)) for check, result in report.found()]
    readable = report.context.measurements.readable
    rows = dict.fromkeys(
        row
        for _, _, findings in selected
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
            _section(report, check, result, findings, images)
            for check, result, findings in selected
        ),
        other_checks=_other_checks(report),
        notes=report.notes,
        seconds=report.seconds,
        version=importlib.metadata.version("kindsight"),
    )


def _select(result: CheckResult) -> list[Finding]:
    """Return the first findings, with separate limits for single images and groups."""
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
        description=check.description,
        advice=check.advice,
        findings=tuple(_shown(report, finding, images) for finding in findings),
        count=len(result.findings),
        images=len({row for finding in result.findings for row in finding.rows}),
        limitation=result.reason,
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


def _other_checks(report: CheckReport) -> tuple[CheckState, ...]:
    titles = {check.code: check.title for check in all_checks()}
    state_of = {code: state for state, codes in report.states().items() for code in codes}
    return tuple(
        CheckState(result.code, titles[result.code], state_of[result.code], result.reason)
        for result in report.results
        if result.state != "found"
    )
