"""The page that shows several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from kindsight.report.data import ReportData
from kindsight.report.drawing.charts import STYLES, Series, draw_lines, thin, thinned
from kindsight.report.drawing.figures import IntervalRow, scale_start
from kindsight.report.format import amount, elide, percent
from kindsight.report.results import FIGURE_NAMES, figures_of
from kindsight.report.templating import clean, environment, script_digest

__all__ = ["MAX_RUNS", "Difference", "SideBySide", "render_side_by_side", "run_names"]

MAX_RUNS = STYLES
"""Maximum number of runs on a page: one for each style of a line."""

MAX_SETTINGS = 100
_TABLE_EPOCHS = 30


class Difference(NamedTuple):
    """The difference of a run's accuracy from that of the first run, on the same images."""

    run: str
    difference: float
    low: float
    high: float
    p_value: float
    sentence: str


@dataclass(frozen=True)
class SideBySide:
    """Several runs, and their differences from the first one.

    Parameters
    ----------
    runs : tuple of ReportData
        At least two and at most `MAX_RUNS`.
    differences : tuple of Difference
        One for each further run; empty if they were not compared.
    images : int
        Number of images that all runs classified.
    source : str
        Source of these images, in words.
    notes : tuple of str
        Limitations of the comparison, or why there is none.
    """

    runs: tuple[ReportData, ...]
    differences: tuple[Difference, ...] = ()
    images: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()


class Chart(NamedTuple):
    """A chart with its title, and its table: header and rows."""

    title: str
    drawing: Markup
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def render_side_by_side(data: SideBySide) -> str:
    """Return the page as HTML without external resources; see :func:`.page.render_report`."""
    names = run_names(data.runs)
    template = environment().get_template("side_by_side.html.j2")
    script = environment().get_template("report.js").render()
    page = template.render(
        data=data,
        names=names,
        script=script,
        script_digest=script_digest(script),
        headline=_headline(data, names),
        intervals=_accuracies(data.runs, names),
        start=scale_start(_accuracies(data.runs, names)),
        metrics=_metrics(data.runs),
        charts=[chart for chart in (_epochs(data.runs, names), _risks(data.runs, names)) if chart],
        settings=_different_settings(data.runs),
    )
    return clean(page)


def run_names(runs: Sequence[ReportData]) -> list[str]:
    """Return a unique name for each run: its folder's name, or else its whole path."""
    names = [run.run for run in runs]
    if len(set(names)) == len(names):
        return names
    return [run.run_folder or f"{run.run} ({number})" for number, run in enumerate(runs, 1)]


def _headline(data: SideBySide, names: Sequence[str]) -> str:
    known = [
        (run.results[0].evaluation.accuracy, name)
        for run, name in zip(data.runs, names, strict=True)
        if run.results
    ]
    if not known:
        return f"{len(names)} runs"
    accuracy, best = max(known)
    return f"{len(names)} runs, up to {percent(accuracy)} accuracy ({elide(best, 60)})"


def _accuracies(runs: Sequence[ReportData], names: Sequence[str]) -> list[IntervalRow]:
    rows = []
    for run, name in zip(runs, names, strict=True):
        for result in run.results[:1]:
            found = result.evaluation
            note = f"{amount(found.images, f'{result.name} image')}"
            rows.append(IntervalRow(name, found.accuracy, *found.accuracy_interval, note))
    return rows


def _metrics(runs: Sequence[ReportData]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return value and interval of each metric for each run; empty texts where it is unknown."""
    columns = [
        {name: (value, between) for name, value, between in figures_of(run.results[0].evaluation)}
        if run.results
        else {}
        for run in runs
    ]
    return [
        (title, [column.get(name, ("", "")) for column in columns])
        for name, title in FIGURE_NAMES.items()
        if any(name in column for column in columns)
    ]


def _epochs(runs: Sequence[ReportData], names: Sequence[str]) -> Chart | None:
    """Draw the validation accuracy of each run by epoch."""
    curves = [
        {row.epoch: row.val_accuracy for row in run.history if row.val_accuracy is not None}
        for run in runs
    ]
    if not any(curves):
        return None
    series = [
        Series(name, thin([(float(epoch), value) for epoch, value in curve.items()]))
        for name, curve in zip(names, curves, strict=True)
    ]
    epochs = sorted({epoch for curve in curves for epoch in curve})
    return Chart(
        "Validation accuracy by epoch",
        draw_lines(
            series,
            label=f"Validation accuracy by epoch of {amount(len(names), 'run')}",
            x_name="epoch",
            y_name="validation accuracy",
        ),
        ("Epoch", *names),
        [
            (f"{epoch:,}", *(_shown(curve.get(epoch)) for curve in curves))
            for epoch in thinned(epochs, _TABLE_EPOCHS, lambda _: False)
        ],
    )


def _risks(runs: Sequence[ReportData], names: Sequence[str]) -> Chart | None:
    """Draw the risk-coverage curve of each run."""
    if not any(run.risk_coverage for run in runs):
        return None
    series, points = [], []
    for run, name in zip(runs, names, strict=True):
        found = [] if run.risk_coverage is None else list(run.risk_coverage.points)
        pairs = sorted((point.coverage, point.accuracy) for point in found)
        points.append(pairs)
        series.append(Series(name, thin(pairs)))
    levels = [step / 10 for step in range(1, 11)]
    return Chart(
        "Accuracy by coverage",
        draw_lines(
            series,
            label=f"Risk-coverage curves of {amount(len(names), 'run')}",
            x_name="coverage: fraction of images labelled",
            y_name="accuracy of the labelled images",
            x_percent=True,
            x_range=(0.0, 1.0),
        ),
        ("Coverage", *names),
        [(percent(level), *(_shown(_at(pairs, level)) for pairs in points)) for level in levels],
    )


def _at(pairs: Sequence[tuple[float, float]], coverage: float) -> float | None:
    """Return the accuracy at the lowest coverage that is not below this one."""
    return next((accuracy for found, accuracy in pairs if found >= coverage - 1e-9), None)


def _shown(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else percent(value)


def _different_settings(runs: Sequence[ReportData]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between runs."""
    every: list[Mapping[str, str]] = [run.settings for run in runs]
    names = sorted({name for settings in every for name in settings})
    rows = [
        (name, [str(settings.get(name, "\N{EN DASH}")) for settings in every]) for name in names
    ]
    return [row for row in rows if len(set(row[1])) > 1][:MAX_SETTINGS]
