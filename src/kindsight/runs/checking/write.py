"""Write the results of a check into a new folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kindsight.cache.folder import Cache
from kindsight.errors import UsageError
from kindsight.files import write_csv, write_json, write_text
from kindsight.report.findings import render_findings
from kindsight.runs.checking.page import findings_data
from kindsight.runs.checking.report import COLUMNS, CheckReport

__all__ = [
    "CSV_FILE",
    "JSON_FILE",
    "PAGE_FILE",
    "claim_folder",
    "validate_output_folder",
    "write_report",
]

CSV_FILE = "findings.csv"
JSON_FILE = "findings.json"
PAGE_FILE = "report.html"


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
    try:
        if out is not None:
            validate_output_folder(out)
            Path(out).mkdir(parents=True, exist_ok=True)
            return Path(out)
        return _next_folder(_name(Path(data).resolve()), Path(parent))
    except OSError as error:
        folder = out if out is not None else parent
        raise UsageError(
            f"Could not create the folder {folder}: {error.strerror}. Name another with --out."
        ) from error


def validate_output_folder(out: str | os.PathLike[str]) -> None:
    """Raise UsageError unless `out` is a new or empty folder."""
    folder = Path(out)
    try:
        taken = any(folder.iterdir()) if folder.is_dir() else os.path.lexists(folder)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--out must be a folder that can be written; got {folder} ({error})."
        ) from error
    if taken:
        raise UsageError(
            "--out must be a new or empty folder, because nothing is overwritten; got "
            f"{folder}. Omit --out to get a numbered folder."
        )


def _name(data: Path) -> str:
    return (data.stem if data.is_file() else data.name) or "data"


def _next_folder(stem: str, parent: Path) -> Path:
    """Create the folder of the next number; other processes may do the same at once."""
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
