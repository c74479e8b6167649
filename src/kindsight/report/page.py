"""The page of a training report."""

from __future__ import annotations

import math
import shlex
from typing import Any, NamedTuple

from kindsight.dataset.ignored import IgnoredFile, counts_by_class
from kindsight.evaluation import ClassScores
from kindsight.report.axes import thinned
from kindsight.report.curves import curve_table, draw_curve, phase_table
from kindsight.report.data import MAX_CARDS, ReportData, SkippedImage, SplitResult, ThumbnailCard
from kindsight.report.figures import (
    IntervalRow,
    class_table,
    comparison_table,
    confusion_table,
    draw_confusion,
    draw_reliability,
    head_table,
    heat_level,
    reliability_table,
    time_table,
)
from kindsight.report.format import interval, percent
from kindsight.report.summary import (
    describe_calibration,
    describe_results,
    describe_training,
    headline,
    top_confusions,
)
from kindsight.report.templating import clean, environment, is_small_image

__all__ = ["prepare_report", "render_report"]

TEMPLATES = ("report.html.j2", "macros.html.j2", "training.html.j2", "style.css")

MAX_MATRIX = 20
"""Up to this many classes, the confusion matrix is a table of numbers; above, a heat map."""

MAX_PAIRS = 12
"""Number of confused pairs listed beside a heat map."""

MAX_ROWS = 100
"""Maximum number of rows of a table."""


class Tile(NamedTuple):
    """A metric at the top of the page: name, value and explanation."""

    name: str
    value: str
    meaning: str


class Cell(NamedTuple):
    """A cell of the confusion matrix: number of images and CSS classes."""

    images: int
    style: str


def prepare_report() -> None:
    """Load the templates in advance, for example in another thread."""
    for name in TEMPLATES:
        environment().get_template(name)


def render_report(data: ReportData) -> str:
    """Return the report as one HTML page without scripts or external resources.

    Names, paths and reasons may contain any text: they are escaped and shortened. The page is below
    1.5 MB with thumbnails of 128 pixels, whatever the number of classes and images, and can be
    encoded as UTF-8.
    """
    training = data.training
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            training=training,
            headline=headline(data),
            results=[_result(result, data) for result in data.results],
            mistakes=_cards(data.mistakes),
            uncertain=_cards(data.uncertain),
            heads=list(zip(training.candidates, head_table(training.candidates), strict=True)),
            history=_history(data),
            stages=time_table(training.seconds),
            counts=_counts(data),
            skipped=_skipped(data.skipped, data.ignored),
            commands=_commands(data.run_folder),
            max_rows=MAX_ROWS,
        )
    )
    return clean(page)


def _result(result: SplitResult, data: ReportData) -> dict[str, Any]:
    evaluation = result.evaluation
    large = len(evaluation.classes) > MAX_MATRIX
    bins = reliability_table(result.predictions) if result.predictions else []
    rows = list(zip(evaluation.classes, class_table(evaluation), strict=True))
    return {
        "name": result.name,
        "evaluation": evaluation,
        "tiles": _tiles(result),
        "sentences": describe_results(result),
        "comparison": comparison_table(result, data.reference) if data.reference else [],
        "matrix": None if large else _matrix(result),
        "map": draw_confusion(confusion_table(evaluation), len(evaluation.classes))
        if large
        else None,
        "confused": top_confusions(evaluation, MAX_PAIRS),
        "rows": sorted(rows, key=_f1)[:MAX_ROWS] if large else rows,
        "sorted": large,
        "bins": bins,
        "diagram": draw_reliability(bins) if bins else None,
        "calibration": describe_calibration(result),
    }


def _f1(row: tuple[ClassScores, IntervalRow]) -> float:
    return math.inf if math.isnan(row[0].f1) else row[0].f1


def _tiles(result: SplitResult) -> list[Tile]:
    evaluation = result.evaluation
    guess = math.log(len(evaluation.classes))
    return [
        Tile(
            "Accuracy",
            percent(evaluation.accuracy),
            f"{result.name} images classified correctly; "
            f"95% CI {interval(evaluation.accuracy_interval)}",
        ),
        Tile(
            "Balanced accuracy", percent(evaluation.balanced_accuracy), "mean recall of the classes"
        ),
        Tile(
            "Macro F1",
            percent(evaluation.macro_f1),
            "harmonic mean of precision and recall, averaged over the classes",
        ),
        Tile(
            "Log loss",
            f"{evaluation.log_loss:.3f}",
            f"0 is perfect; random guessing has {guess:.3f}",
        ),
        Tile(
            "Calibration error",
            percent(evaluation.ece),
            "mean gap between confidence and accuracy (ECE)",
        ),
    ]


def _matrix(result: SplitResult) -> list[tuple[str, list[Cell]]]:
    """Return the confusion matrix as named rows of shaded counts."""
    evaluation = result.evaluation
    style = {
        (cell.row, cell.column): ("right" if cell.row == cell.column else "wrong")
        + f" level{heat_level(cell.fraction)}"
        for cell in confusion_table(evaluation)
    }
    return [
        (
            score.name,
            [
                Cell(int(count), style.get((i, j), "none"))
                for j, count in enumerate(evaluation.confusion[i])
            ],
        )
        for i, score in enumerate(evaluation.classes)
    ]


def _cards(cards: tuple[ThumbnailCard, ...]) -> list[tuple[ThumbnailCard, str]]:
    """Pair each card with its image, or with "" if that is not a small data URI."""
    images = [(card, card.image or "") for card in cards[:MAX_CARDS]]
    return [(card, image if is_small_image(image) else "") for card, image in images]


def _history(data: ReportData) -> dict[str, Any] | None:
    rows, best = data.history, data.best_epoch
    if not rows:
        return None
    phases = phase_table(rows)
    return {
        "curves": [
            draw_curve(curve_table(rows, best, quantity), quantity)
            for quantity in ("accuracy", "loss")
        ],
        "sentences": describe_training(rows, best, len(data.training.classes)),
        "phases": phases if len(phases) > 1 else [],
        "count": len(rows),
        "validated": rows[0].val_accuracy is not None,
        "best": best,
        "rows": thinned(rows, MAX_ROWS, lambda row: row.epoch == best),
    }


def _counts(data: ReportData) -> list[tuple[str, list[int]]]:
    splits = data.training.splits
    classes = list(data.training.classes.items())[:MAX_ROWS]
    return [(name, [counts.get(split, 0) for split in splits]) for name, counts in classes]


def _skipped(images: tuple[SkippedImage, ...], ignored: tuple[IgnoredFile, ...]) -> dict[str, Any]:
    others = [
        SkippedImage(file.path, "ignored", f"{file.reason.capitalize()}.", file.label or "")
        for file in ignored
    ]
    return {
        "count": len(images),
        "total": len(images) + len(ignored),
        "codes": counts_by_class(
            [(image.label or None, image.code) for image in images]
            + [(file.label, file.reason) for file in ignored]
        ),
        "rows": [*images[:MAX_ROWS], *others[:MAX_ROWS]][:MAX_ROWS],
    }


def _commands(folder: str) -> list[str]:
    if not folder:
        return []
    quoted = shlex.quote(folder)
    return [f"kindsight predict {quoted} new/*.jpg", f"kindsight evaluate {quoted} photos-test/"]
