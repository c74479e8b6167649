"""Make the report and the model card of finished runs again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kindsight.errors import UsageError
from kindsight.files import write_text
from kindsight.report.data import ReportData
from kindsight.report.model_card import render_model_card
from kindsight.report.page import render_report
from kindsight.runs.record import load_run
from kindsight.runs.reporting.build import report_data

if TYPE_CHECKING:
    from kindsight.report.side_by_side import SideBySide

__all__ = ["MODEL_CARD_FILE", "REPORT_FILE", "WrittenReport", "make_report", "write_report"]

REPORT_FILE = "report.html"
MODEL_CARD_FILE = "model_card.md"


@dataclass(frozen=True)
class WrittenReport:
    """A report on disk.

    Parameters
    ----------
    report : pathlib.Path
        The page.
    model_card : pathlib.Path or None
        The model card beside it; None for several runs.
    images : int
        Number of images shown.
    data : ReportData or SideBySide
        The content.
    """

    report: Path
    model_card: Path | None
    images: int
    data: ReportData | SideBySide


def make_report(*runs: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> str:
    """Return the report of a finished run, or the page of several, as self-contained HTML.

    Parameters
    ----------
    *runs : path
        Run folders. One gives its report, the same page as after its training; several are shown
        side by side and compared with the first one.
    cache : path, optional
        The cache folder that holds the runs' images; by default this machine's. Images that it no
        longer holds are read from the run's data; without both, the page has no images.

    Returns
    -------
    str

    Raises
    ------
    UsageError
        Without a run, or for too many.
    BundleError
        If a run is not finished, or a file of it is damaged.
    """
    if not runs:
        raise UsageError("`runs` must name at least one run folder; got none.")
    if len(runs) == 1:
        return render_report(report_data(load_run(runs[0]), cache=cache))
    # The comparison imports the predictor.
    from kindsight.report.side_by_side import render_side_by_side
    from kindsight.runs.reporting.side_by_side import side_by_side

    return render_side_by_side(side_by_side(*runs, cache=cache))


def write_report(data: ReportData, report: Path, card: Path) -> WrittenReport:
    """Write the page of one run, and its model card."""
    write_text(report, render_report(data))
    write_text(card, render_model_card(data))
    return WrittenReport(report, card, len({*data.large_images, *data.small_images}), data)
