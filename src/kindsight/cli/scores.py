"""An evaluation as text: the scores, a row for each class, and what is taken for what."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kindsight.cli.summary import facts, headline, reasons
from kindsight.cli.text import Paint, cells, hanging, line_width, pad, printable, table
from kindsight.report.words import amount, elide, interval, percent, top_confusions

if TYPE_CHECKING:
    from kindsight.evaluation import Evaluation
    from kindsight.predictor import CatalogScores

__all__ = ["class_lines", "confusion_lines", "evaluation_lines", "score_lines"]

WIDEST_NAME = 30
MOST_CLASSES = 15
"""Classes up to which the confusion matrix is written out."""
CONFUSIONS = 10
PROBLEMS = 10


def score_lines(scores: CatalogScores, title: str) -> Iterator[str]:
    """Yield everything that ``kindsight evaluate`` prints.

    Parameters
    ----------
    scores : CatalogScores
        As :meth:`kindsight.predictor.Predictor.evaluate` gives it.
    title : str
        Which classifier on which data.
    """
    paint = Paint(sys.stdout)
    yield paint(printable(title), "bold")
    yield ""
    yield from evaluation_lines(scores.evaluation, "picture", paint)
    yield from _trained_on(scores, paint)
    yield from _left_out(scores, paint)


def evaluation_lines(evaluation: Evaluation, what: str, paint: Paint) -> Iterator[str]:
    """Yield the scores, the table of classes, and the confusions."""
    yield headline(evaluation, what, paint)
    yield ""
    rows = {
        "balanced": f"{percent(evaluation.balanced_accuracy)} balanced accuracy, the mean recall "
        "of the classes",
        "macro F1": percent(evaluation.macro_f1),
        "log loss": f"{evaluation.log_loss:.4f}",
        "ECE": f"{percent(evaluation.ece)} expected calibration error: how far confidence is off",
    }
    yield from facts(rows, paint)
    yield ""
    yield from class_lines(evaluation, paint)
    yield ""
    yield from confusion_lines(evaluation, paint, line_width())


def class_lines(evaluation: Evaluation, paint: Paint) -> list[str]:
    """Lay out one row a class: pictures, precision, recall with its interval, F1."""
    header = ("class", "pictures", "precision", "recall", "95% interval", "F1")
    rows = []
    for score in evaluation.classes:
        ends = interval(score.recall_interval) if score.support else _share(math.nan)
        shares = (_share(score.precision), _share(score.recall), ends, _share(score.f1))
        rows.append((_name(score.name), f"{score.support:,}", *shares))
    return table(header, rows, paint=paint)


def confusion_lines(evaluation: Evaluation, paint: Paint, width: int) -> Iterator[str]:
    """Yield the confusion matrix where it fits, else the commonest mistakes."""
    if len(evaluation.classes) <= MOST_CLASSES:
        lines = list(_matrix(evaluation, Paint.none()))
        if max(map(cells, lines)) <= width:
            yield from _matrix(evaluation, paint)
            return
    pairs = top_confusions(evaluation, CONFUSIONS)
    if not pairs:
        return
    yield paint("  most often confused", "dim")
    for label, prediction, count, share in pairs:
        pair = f"{_name(label)} taken for {_name(prediction)}"
        yield f"  {pair}: {count:,} ({percent(share)} of its pictures)"


def _matrix(evaluation: Evaluation, paint: Paint) -> Iterator[str]:
    names = [_name(score.name) for score in evaluation.classes]
    head = max(*map(cells, names), len("label"))
    longest = len(f"{int(evaluation.confusion.max()):,}")
    widths = [max(cells(name), longest) for name in names]
    titles = "  ".join(pad(n, w, right=True) for n, w in zip(names, widths, strict=True))
    yield paint("  rows: labels; columns: predictions", "dim")
    yield paint(f"  {pad('', head)}  {titles}", "dim")
    for place, row in enumerate(evaluation.confusion.tolist()):
        numbers = []
        for column, count in enumerate(row):
            text = pad(f"{count:,}" if count else ".", widths[column], right=True)
            style = ("green",) if column == place else ("yellow",) if count else ("dim",)
            numbers.append(paint(text, *style))
        yield f"  {pad(names[place], head)}  {'  '.join(numbers)}"


def _trained_on(scores: CatalogScores, paint: Paint) -> Iterator[str]:
    """Say how good it is without the pictures that it has learned."""
    if scores.trained_on is None or not scores.trained_on.any():
        return
    n = int(scores.trained_on.sum())
    unseen = scores.unseen()
    yield ""
    yield paint(
        f"It was trained on {amount(n, 'picture')} of these, or on copies of them; accuracy on "
        "them says little.",
        "yellow",
    )
    if unseen is None:
        yield "Without them none is left."
    else:
        yield f"Without them: {headline(unseen, 'picture', paint)}"


def _left_out(scores: CatalogScores, paint: Paint) -> Iterator[str]:
    """Name what was not scored."""
    unknown = ", ".join(f"{_name(name)} ({n:,})" for name, n in scores.unknown.items())
    absent = ", ".join(map(_name, scores.absent))
    rows = {
        "unknown": f"not scored, as the classifier does not know the class: {unknown}",
        "absent": f"no picture of: {absent}",
        "set aside": f"{amount(len(scores.problems), 'picture')} could not be read: "
        f"{reasons(problem.code for problem in scores.problems)}",
    }
    there = {"unknown": scores.unknown, "absent": scores.absent, "set aside": scores.problems}
    kept = {name: text for name, text in rows.items() if there[name]}
    if kept:
        yield ""
        yield from facts(kept, paint)
    for problem in scores.problems[:PROBLEMS]:
        text = printable(f"{problem.path}: {problem.reason}")
        yield from hanging("", text, indent=14, paint=paint, width=line_width())
    if len(scores.problems) > PROBLEMS:
        yield f"{' ' * 14}and {len(scores.problems) - PROBLEMS:,} more; --json lists all"


def _name(name: str) -> str:
    return printable(elide(name, WIDEST_NAME))


def _share(value: float) -> str:
    return percent(value)
