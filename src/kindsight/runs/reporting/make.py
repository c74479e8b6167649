"""Create reports and model cards of one or several finished runs, and plots of their curves."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kindsight.errors import KindsightError, UsageError
from kindsight.files import replacing, write_text
from kindsight.report.data import ReportData
from kindsight.report.drawing.curves import curve_table, draw_curve, draw_rate, rate_table, svg_file
from kindsight.report.model_card import render_model_card
from kindsight.report.page import render_report
from kindsight.runs.record import load_run
from kindsight.runs.reporting.build import report_data
from kindsight.training.engine.history import History

if TYPE_CHECKING:
    from kindsight.report.side_by_side import SideBySide

__all__ = [
    "MODEL_CARD_FILE", "REPORT_FILE", "WrittenReport", "make_report", "side_by_side",
    "write_history_figures", "write_learning_rate_figures", "write_report",
]  # fmt: skip


def write_history_figures(history: History, folder: Path) -> tuple[Path, Path]:
    """Write accuracy and loss by epoch as ``history.svg`` and ``history.png``.

    Parameters
    ----------
    history : History
        The epochs, at least one.
    folder : pathlib.Path
        Existing files with these names in it are replaced.

    Returns
    -------
    svg, png : pathlib.Path

    Raises
    ------
    UsageError
        If the history has no epochs.
    """
    png = history.plot().png()
    drawings = [
        draw_curve(curve_table(history.rows(), history.best_epoch, quantity), quantity)
        for quantity in ("accuracy", "loss")
    ]
    return _write(folder, "history", svg_file(drawings, "Accuracy and loss by epoch"), png)


def write_learning_rate_figures(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None, folder: Path
) -> tuple[Path, Path]:
    """Write loss by learning rate as ``learning_rate.svg`` and ``learning_rate.png``.

    Parameters
    ----------
    rates : sequence of float
        Above 0, rising.
    losses : sequence of float
        As many, in nats; values that are not finite are left out.
    suggestion : float or None
        The rate to mark.
    folder : pathlib.Path
        Existing files with these names in it are replaced.

    Returns
    -------
    svg, png : pathlib.Path

    Raises
    ------
    UsageError
        If no step has a finite loss, or rates and losses differ in number.
    """
    from kindsight.training.engine.plots import learning_rate_figure

    png = learning_rate_figure(rates, losses, suggestion).png()
    drawing = draw_rate(rate_table(rates, losses, suggestion))
    return _write(folder, "learning_rate", svg_file([drawing], "Loss by learning rate"), png)


def _write(folder: Path, name: str, svg: str, png: bytes) -> tuple[Path, Path]:
    targets = folder / f"{name}.svg", folder / f"{name}.png"
    write_text(targets[0], svg)
    with replacing(targets[1]) as temporary:
        temporary.write_bytes(png)
    return targets


def side_by_side(
    *runs: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None
) -> SideBySide:
    """Return the content of the page of several runs.

    The runs are compared with the first one on the images that all of them held out. If there are
    none, the page states it and shows only the metrics.

    Raises
    ------
    UsageError
        If there are fewer than two or too many runs, or one is named twice.
    BundleError
        If a run is not finished or damaged.
    """
    # Imported here because the comparison imports the predictor.
    from kindsight.report.side_by_side import MAX_RUNS, Difference, SideBySide, run_names
    from kindsight.runs.compare import compare

    if not 2 <= len(runs) <= MAX_RUNS:
        raise UsageError(f"`runs` must be 2 to {MAX_RUNS} run folders; got {len(runs)}.")
    folders = [os.path.realpath(run) for run in runs]
    if len(set(folders)) < len(folders):
        raise UsageError("`runs` must be different run folders; got one of them twice.")
    data = tuple(report_data(load_run(run), cache=cache, images={}) for run in runs)
    try:
        found = compare(*runs)
    except KindsightError as error:
        return SideBySide(data, notes=(f"The runs were not compared. {_as_typed(str(error))}",))
    # The page and its sentences use one name for each run.
    named = zip(found.runs, run_names(data), strict=True)
    found = replace(found, runs=tuple(replace(run, name=name) for run, name in named))
    differences = tuple(
        Difference(run.name, pair.difference, *pair.interval, pair.p_value, sentence)
        for run, pair, sentence in zip(found.runs[1:], found.pairs, found.sentences(), strict=True)
    )
    return SideBySide(data, differences, found.images, found.source, found.notes)


def _as_typed(message: str) -> str:
    """Return a message with parameters of ``compare`` as options of ``kindsight compare``."""
    return re.sub(r"`(\w+)`", lambda found: "--" + found[1].replace("_", "-"), message)


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
        The model card in the same folder; None for several runs.
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
        Run folders. One gives the same report as its training; several are shown side by side and
        compared with the first one.
    cache : path, optional
        The cache folder with the runs' images; by default, that of this machine. Images that it no
        longer has are read from the run's data; if neither exists, the page has no images.

    Returns
    -------
    str

    Raises
    ------
    UsageError
        If there is no run, or too many.
    BundleError
        If a run is not finished, or a file of it is damaged.
    """
    if not runs:
        raise UsageError("`runs` must name at least one run folder; got none.")
    if len(runs) == 1:
        return render_report(report_data(load_run(runs[0]), cache=cache))
    # Imported here because the comparison imports the predictor.
    from kindsight.report.side_by_side import render_side_by_side

    return render_side_by_side(side_by_side(*runs, cache=cache))


def write_report(data: ReportData, report: Path, card: Path) -> WrittenReport:
    """Write the page of one run, and its model card."""
    write_text(report, render_report(data))
    write_text(card, render_model_card(data))
    return WrittenReport(report, card, len({*data.large_images, *data.small_images}), data)
