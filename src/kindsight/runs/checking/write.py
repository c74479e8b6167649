"""Write the results of a check into a new folder: a table, JSON and the HTML report."""

from __future__ import annotations

import base64
import importlib.metadata
import os
import re
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from kindsight.cache.folder import Cache
from kindsight.checks import Check, CheckResult, Finding, all_checks
from kindsight.checks.measurements import MeasurementTable, measurements_path
from kindsight.dataset.loaders.table_files import is_file_of_images
from kindsight.dataset.table import ImageDataset
from kindsight.dataset.thumbnails import encode_thumbnail
from kindsight.errors import ImageError, UsageError
from kindsight.files import write_csv, write_json, write_text
from kindsight.images import read_image
from kindsight.report.sheets import (
    CheckState,
    FindingsData,
    FindingsSection,
    ShownFinding,
    ShownImage,
    render_findings,
)
from kindsight.runs.checking.report import COLUMNS, CheckReport
from kindsight.storage.address import is_address, title_of
from kindsight.storage.files import check_local
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = [
    "CSV_FILE", "JSON_FILE", "PAGE_FILE", "THUMBNAIL", "claim_folder",
    "findings_data",
    "thumbnails", "validate_output_folder", "write_report",
]  # fmt: skip

CSV_FILE = "findings.csv"
JSON_FILE = "findings.json"
PAGE_FILE = "report.html"

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


def write_report(
    report: CheckReport,
    out: str | os.PathLike[str] | None = None,
    *,
    parent: str | os.PathLike[str] = "checks",
    cache: Cache | None = None,
) -> Path:
    """Write findings.csv, findings.json and report.html.

    Parameters
    ----------
    report : CheckReport
    out : path, optional
        A new or empty folder. Default: ``<parent>/<name of the data>-<next number>``.
    parent : path
        Parent of numbered folders.
    cache : Cache, optional
        Stores the thumbnails. Default: the cache of this machine.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    UsageError
        If the folder is not empty or cannot be created.
    """
    page = render_findings(findings_data(report, cache or Cache()))
    folder = claim_folder(report.data, out, parent)
    write_csv(folder / CSV_FILE, COLUMNS, report.rows())
    write_json(folder / JSON_FILE, report.to_dict())
    write_text(folder / PAGE_FILE, page)
    return folder


def claim_folder(
    data: str, out: str | os.PathLike[str] | None, parent: str | os.PathLike[str] = "checks"
) -> Path:
    """Create and return the folder of :func:`write_report`."""
    check_local(parent if out is None else out, "`out`")
    try:
        if out is not None:
            validate_output_folder(out)
            Path(out).mkdir(parents=True, exist_ok=True)
            return Path(out)
        return _next_folder(_name(data), Path(parent))
    except OSError as error:
        folder = out if out is not None else parent
        raise UsageError(
            f"Could not create the folder {folder}: {error.strerror}. Give another folder with "
            "`out`."
        ) from error


def validate_output_folder(out: str | os.PathLike[str]) -> None:
    """Raise UsageError unless `out` is a new or empty folder."""
    folder = Path(out)
    try:
        taken = any(folder.iterdir()) if folder.is_dir() else os.path.lexists(folder)
    except (OSError, ValueError) as error:
        raise UsageError(f"`out` must be a writable folder; got {folder} ({error}).") from error
    if taken:
        raise UsageError(
            "`out` must be a new or empty folder, because nothing is overwritten; got "
            f"{folder}. Omit `out` to get a numbered folder."
        )


def thumbnails(
    dataset: ImageDataset, rows: Iterable[int], cache: Cache, workers: int | None = None
) -> dict[int, bytes]:
    """Return thumbnails of some rows, from the cache or computed.

    - `dataset`: with digests.
    - `cache`: stores the thumbnails by content digest.
    - `workers`: images read at once. Default: the number of cores.

    Returns
    -------
    dict of int to bytes
        JPEG files by row, without unreadable images.
    """
    digests = {row: digest for row in rows if (digest := dataset.digest[row]) is not None}
    with closing(MeasurementTable(measurements_path(cache, dataset))) as table:
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


def findings_data(report: CheckReport, cache: Cache) -> FindingsData:
    """Return the content of the HTML report.

    - `cache`: stores the thumbnails.
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


def _name(name: str) -> str:
    if is_address(name):
        title = title_of(name)
        return title.rpartition(".")[0] if is_file_of_images(name) else title
    data = Path(name).resolve()
    return (data.stem if data.is_file() else data.name) or "data"


def _next_folder(stem: str, parent: Path) -> Path:
    """Create the folder with the next number, even if other processes do the same."""
    parent.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(stem) + r"-(\d{1,9})")
    numbers = [int(m[1]) for path in parent.iterdir() if (m := pattern.fullmatch(path.name))]
    number = max(numbers, default=0) + 1
    while True:
        folder = parent / f"{stem}-{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _thumbnail(dataset: ImageDataset, row: int) -> bytes:
    try:
        data = dataset.load(row)
        # Decoded at twice the size, so that resizing smooths it.
        target = (2 * THUMBNAIL, 2 * THUMBNAIL)
        image = (
            read_image(data, target=target, value_range=dataset.value_range)
            if isinstance(data, bytes)
            else data
        )
    except ImageError:
        return b""
    return encode_thumbnail(image, THUMBNAIL, QUALITY)


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
        images=result.images,
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
