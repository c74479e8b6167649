"""The folds of a cross-validation, in the summary of a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kindsight.cli.terminal.text import Paint, table
from kindsight.report.format import amount, duration, interval, percent

if TYPE_CHECKING:
    from kindsight.runs.cross_validation import CrossValidation

__all__ = ["fold_lines", "folds_title"]


def folds_title(found: CrossValidation) -> str:
    """Return the name of the accuracy: ``Cross-validation, 5 folds``."""
    return f"Cross-validation, {amount(len(found.folds), 'fold')}"


def fold_lines(found: CrossValidation, paint: Paint) -> Iterator[str]:
    """Yield the spread of the folds, and a line for each fold."""
    evaluations = found.evaluations()
    accuracies = [each.accuracy for each in evaluations]
    yield (
        f"Folds: {percent(min(accuracies))} to {percent(max(accuracies))}, standard deviation "
        f"{100 * found.standard_deviation:.1f} points"
    )
    yield ""
    by_epochs = any(fold.history for fold in found.folds)
    rows = [
        (
            str(fold.number),
            f"{len(fold.rows):,}",
            f"{len(fold.held_out):,}",
            percent(each.accuracy),
            interval(each.accuracy_interval),
            f"{each.log_loss:.3f}",
            *([str(fold.best_epoch or "")] if by_epochs else []),
            duration(fold.seconds),
        )
        for fold, each in zip(found.folds, evaluations, strict=True)
    ]
    heads = ["fold", "trained on", "held out", "accuracy", "95% CI", "log loss"]
    heads += ["best epoch"] if by_epochs else []
    yield from table((*heads, "time"), rows, paint=paint, left=0)
