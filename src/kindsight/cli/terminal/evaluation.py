"""The metrics of a classifier as lines of text: metrics, classes, confusions, slices, costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kindsight.cli.terminal.summary import accuracy_line
from kindsight.cli.terminal.text import Paint, cells, line_width, pad, printable, table, wrapped
from kindsight.report.format import amount, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.evaluation import Evaluation
    from kindsight.evaluation.costs import CostEvaluation
    from kindsight.evaluation.slices import Slice

__all__ = [
    "class_lines", "confusion_lines", "cost_lines", "evaluation_lines", "fitting_table", "p_value",
    "short_name", "slice_lines",
]  # fmt: skip

WIDEST_NAME = 30
"""Maximum width of a class name in tables, in columns."""

MOST_ROWS = 40
"""Maximum number of classes listed; if there are more, those with the lowest recall."""

MOST_CLASSES = 15
"""Maximum number of classes for which the confusion matrix is shown."""

CONFUSIONS = 10
"""Maximum number of pairs of classes listed instead of a larger matrix."""


def evaluation_lines(evaluation: Evaluation, paint: Paint) -> Iterator[str]:
    """Yield the accuracy, the other metrics, the table of classes, and the confusions."""
    yield accuracy_line(evaluation, paint)
    yield ""
    yield from _figure_lines(evaluation, paint)
    yield from _calibration_lines(evaluation)
    yield ""
    yield from class_lines(evaluation, paint, line_width())
    yield ""
    yield from confusion_lines(evaluation, paint, line_width())


def class_lines(evaluation: Evaluation, paint: Paint, width: int) -> Iterator[str]:
    """Yield one row per class, with as many columns as fit; of many classes, only the worst."""
    shown = list(evaluation.classes)
    if len(shown) > MOST_ROWS:
        worst = sorted((score for score in shown if score.support), key=lambda each: each.recall)
        shown = worst[:MOST_ROWS]
    columns: dict[str, tuple[str, list[str]]] = {
        "name": ("class", [short_name(score.name) for score in shown]),
        "support": ("images", [f"{score.support:,}" for score in shown]),
    }
    for name in ("precision", "recall", "f1"):
        title = "F1" if name == "f1" else name
        values = [getattr(score, name) for score in shown]
        ends = [getattr(score, f"{name}_interval") for score in shown]
        columns[name] = (title, [percent(value) for value in values])
        columns[f"{name} interval"] = ("95% CI", list(map(_percent_ends, values, ends)))
    for name, title in (("roc_auc", "ROC AUC"), ("average_precision", "avg. prec.")):
        columns[name] = (title, [_decimal(getattr(score, name)) for score in shown])
    dropped = ("f1 interval", "precision interval", "average_precision", "roc_auc")
    yield from fitting_table(columns, dropped, paint, width)
    if len(shown) < len(evaluation.classes):
        yield paint(
            f"  the {len(shown)} of {amount(len(evaluation.classes), 'class', 'classes')} with the "
            "lowest recall; all with --json",
            "dim",
        )


def confusion_lines(evaluation: Evaluation, paint: Paint, width: int) -> Iterator[str]:
    """Yield the confusion matrix if it fits, else the most frequent confusions."""
    if len(evaluation.classes) <= MOST_CLASSES:
        lines = list(_matrix(evaluation, Paint.none()))
        if max(map(cells, lines)) <= width:
            yield from _matrix(evaluation, paint)
            return
    from kindsight.report.summary import top_confusions

    pairs = top_confusions(evaluation, CONFUSIONS)
    if not pairs:
        return
    yield paint("  most frequent confusions", "dim")
    for label, prediction, count, share in pairs:
        pair = f"{short_name(label)} predicted as {short_name(prediction)}"
        yield f"  {pair}: {count:,} ({percent(share)} of its images)"


def slice_lines(slices: Sequence[Slice], *, every: bool, paint: Paint) -> Iterator[str]:
    """Yield the slices on which the accuracy is significantly lower, or all slices."""
    worse = sum(each.is_worse for each in slices)
    compared = amount(len(slices), "slice")
    yield ""
    if not slices:
        yield "No slices to compare: no column has two values with 10 images each."
        return
    if not worse:
        yield f"{compared} compared: accuracy is significantly lower on none."
    else:
        yield f"{compared} compared; accuracy is significantly lower on {worse:,}:"
    shown = slices if every else [each for each in slices if each.is_worse]
    if not shown:
        return
    header = ("slice", "value", "images", "accuracy", "95% CI", "others", "p")
    rows = [
        (
            short_name(each.column),
            short_name(each.value),
            f"{each.images:,}",
            percent(each.accuracy),
            interval(each.interval),
            percent(each.others),
            p_value(each.p_value),
        )
        for each in shown
    ]
    first, *lines = table(header, rows, paint=paint, left=2)
    yield first
    for each, line in zip(shown, lines, strict=True):
        yield paint(line, "yellow") if each.is_worse else line


def cost_lines(costs: CostEvaluation, paint: Paint) -> Iterator[str]:
    """Yield the mean cost of the predictions, and of the decisions with the lowest cost."""
    header = ("decision", "mean cost", "95% CI")
    rows = [
        ("most probable class", _cost(costs.mean), _cost_ends(costs.interval)),
        ("lowest expected cost", _cost(costs.cheapest), _cost_ends(costs.cheapest_interval)),
        ("saving", _cost(costs.saving), _cost_ends(costs.saving_interval)),
    ]
    yield ""
    yield from table(header, rows, paint=paint)
    yield f"  {costs.changed:,} of {amount(costs.images, 'image')} get a different class"


def fitting_table(
    columns: Mapping[str, tuple[str, Sequence[str]]],
    dropped: Sequence[str],
    paint: Paint,
    width: int,
) -> list[str]:
    """Return a table with as many columns as fit.

    - `columns`: by name, the title and cells of each.
    - `dropped`: names of columns that may be left out, the least important first.
    - `width`: columns of the terminal.
    """
    left_out: set[str] = set()
    for name in (*dropped, None):
        shown = [column for key, column in columns.items() if key not in left_out]
        header, rows = [title for title, _ in shown], list(zip(*(c for _, c in shown), strict=True))
        if name is None or max(map(cells, table(header, rows, paint=Paint.none()))) <= width:
            break
        left_out.add(name)
    return table(header, rows, paint=paint)


def p_value(value: float) -> str:
    """Return a p-value with two digits, or ``< 0.001``."""
    return f"{value:.2g}" if value >= 0.001 else "<0.001"


def short_name(name: str) -> str:
    """Return a name that fits into a table."""
    return printable(elide(name, WIDEST_NAME))


def _figure_lines(evaluation: Evaluation, paint: Paint) -> list[str]:
    as_percent = {
        "balanced_accuracy": "balanced accuracy (mean recall)",
        "macro_f1": "macro F1",
        "top_k_accuracy": f"top-{evaluation.top_k} accuracy",
        "ece": "ECE (calibration error)",
    }
    as_number = {
        "roc_auc": "ROC AUC (mean of classes)",
        "average_precision": "average precision (mean of classes)",
        "kappa": "Cohen's kappa",
        "mcc": "Matthews correlation",
        "log_loss": "log loss",
    }
    order = (
        *("balanced_accuracy", "macro_f1", "top_k_accuracy", "roc_auc", "average_precision"),
        *("kappa", "mcc", "log_loss", "ece"),
    )
    rows = []
    for name in order:
        value = getattr(evaluation, name)
        ends = evaluation.intervals.get(name, (math.nan, math.nan))
        if math.isnan(value):
            continue
        if name in as_percent:
            rows.append((as_percent[name], percent(value), _percent_ends(value, ends)))
        else:
            rows.append((as_number[name], _decimal(value), _decimal_ends(ends)))
    return table(("metric", "value", "95% CI"), rows, paint=paint)


def _calibration_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield a sentence on whether the ECE is within noise."""
    found = evaluation.calibration
    if math.isnan(found.limit):
        return
    verdict = (
        "the probabilities are miscalibrated"
        if evaluation.is_miscalibrated
        else "this ECE is no evidence of miscalibration"
    )
    yield ""
    yield from wrapped(
        f"  Noise alone gives an ECE of {percent(found.calibrated)} on average, and below "
        f"{percent(found.limit)} in 95% of cases: {verdict}.",
        min(line_width(), 110),
        2,
    )


def _matrix(evaluation: Evaluation, paint: Paint) -> Iterator[str]:
    names = [short_name(score.name) for score in evaluation.classes]
    head = max(*map(cells, names), len("label"))
    longest = len(f"{int(evaluation.confusion.max()):,}")
    widths = [max(cells(name), longest) for name in names]
    titles = "  ".join(pad(n, w, right=True) for n, w in zip(names, widths, strict=True))
    yield paint("  rows: labels; columns: predictions", "dim")
    yield paint(f"  {pad('', head)}  {titles}", "dim")
    for index, row in enumerate(evaluation.confusion.tolist()):
        numbers = []
        for column, count in enumerate(row):
            text = pad(f"{count:,}" if count else ".", widths[column], right=True)
            style = ("green",) if column == index else ("yellow",) if count else ("dim",)
            numbers.append(paint(text, *style))
        yield f"  {pad(names[index], head)}  {'  '.join(numbers)}"


def _percent_ends(value: float, ends: tuple[float, float]) -> str:
    return percent(math.nan) if math.isnan(value) or math.isnan(ends[0]) else interval(ends)


def _decimal(value: float) -> str:
    """Return three decimals; only exactly 1 is rounded to 1, and lower values to at most 0.999."""
    if math.isnan(value):
        return percent(value)
    return "1" if value == 1 else f"{min(value, 0.999) if value < 1 else value:.3f}"


def _decimal_ends(ends: tuple[float, float]) -> str:
    if math.isnan(ends[0]):
        return percent(math.nan)
    dash = "\N{EN DASH}" if ends[0] >= 0 else " to "
    return f"{_decimal(ends[0])}{dash}{_decimal(ends[1])}"


def _cost(value: float) -> str:
    return f"{value:,.4g}"


def _cost_ends(ends: tuple[float, float]) -> str:
    return percent(math.nan) if math.isnan(ends[0]) else f"{_cost(ends[0])} to {_cost(ends[1])}"
