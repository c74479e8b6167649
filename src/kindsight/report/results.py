"""The results of a split for a report: metrics, confusion matrix, classes, images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kindsight.evaluation import ClassScores, Evaluation
from kindsight.evaluation.metrics import FIGURES
from kindsight.report.data import Predictions, Reference, SplitResult
from kindsight.report.drawing.figures import (
    ConfusionCell,
    IntervalRow,
    class_table,
    comparison_table,
    confusion_table,
    draw_confusion,
    draw_reliability,
    heat_level,
    reliability_table,
)
from kindsight.report.format import interval, percent
from kindsight.report.gallery import Gallery
from kindsight.report.summary import confused_cells, describe_calibration, describe_results
from kindsight.report.templating import is_small_image

__all__ = [
    "FIGURE_NAMES", "MAX_ROWS", "Card", "cards", "figures_of", "opened_cells", "view_result",
]  # fmt: skip

MAX_MATRIX = 20
"""Maximum number of classes for a confusion matrix of numbers; above, it is a heat map."""

MAX_PAIRS = 30
"""Maximum number of confused pairs listed beside a heat map."""

MAX_ROWS = 100
"""Maximum number of rows of a table."""


class Tile(NamedTuple):
    """A metric at the top of the page: name, value and explanation."""

    name: str
    value: str
    meaning: str


class MatrixCell(NamedTuple):
    """A cell of the confusion matrix: number of images, CSS classes, and the images' anchor.

    `is_empty` marks a 0 off the diagonal, which is shown as a dot so that mistakes stand out.
    """

    images: int
    style: str
    anchor: str
    is_empty: bool


class Card(NamedTuple):
    """An image of a gallery; `image` is a ``data:`` URI, or empty if there is none."""

    path: str
    image: str
    label: str
    prediction: str
    confidence: float
    second: str  # the second most probable class with its probability


def view_result(
    result: SplitResult, reference: Sequence[Reference], shown: Mapping[tuple[int, int], str]
) -> dict[str, Any]:
    """Return the data of a split for the templates; `shown` has the anchors of the opened cells."""
    evaluation = result.evaluation
    large = len(evaluation.classes) > MAX_MATRIX
    bins = reliability_table(result.predictions) if result.predictions else []
    rows = list(
        zip(evaluation.classes, class_table(evaluation), _mistakes(evaluation, shown), strict=True)
    )
    table = confusion_table(evaluation)
    return {
        "name": result.name,
        "evaluation": evaluation,
        "tiles": _tiles(result),
        "figures": [
            (FIGURE_NAMES[name].format(k=evaluation.top_k), value, between)
            for name, value, between in figures_of(evaluation)
        ],
        "sentences": describe_results(result),
        "comparison": comparison_table(result, reference) if reference else [],
        "matrix": None if large else _matrix(evaluation, table, shown),
        "map": draw_confusion(
            table, [score.name for score in evaluation.classes], shown
        ) if large else None,
        "confused": [
            (evaluation.classes[i].name, evaluation.classes[j].name, count, fraction,
             shown.get((i, j), ""))
            for i, j, count, fraction in confused_cells(evaluation, MAX_PAIRS)
        ],
        "rows": sorted(rows, key=_f1)[:MAX_ROWS] if large else rows,
        "sorted": large,
        "ranked": any(math.isfinite(score.roc_auc) for score in evaluation.classes),
        "bins": bins,
        "diagram": draw_reliability(bins) if bins else None,
        "calibration": describe_calibration(result),
    }  # fmt: skip


def cards(
    rows: Sequence[int], predictions: Predictions, classes: Sequence[str], images: Mapping[str, str]
) -> list[Card]:
    """Return a card for each row of the predictions; at least two classes."""
    found = []
    for row in rows:
        probabilities = predictions.probabilities[row]
        first = int(probabilities.argmax())
        second = max((i for i in range(len(classes)) if i != first), key=probabilities.__getitem__)
        uri = images.get(predictions.paths[row], "")
        found.append(
            Card(
                predictions.paths[row],
                uri if is_small_image(uri) else "",
                classes[predictions.targets[row]],
                classes[first],
                float(probabilities[first]),
                f"second: {classes[second]} ({percent(probabilities[second])})",
            )
        )
    return found


def opened_cells(
    gallery: Gallery, predictions: Predictions, classes: Sequence[str], images: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[tuple[int, int], str]]:
    """Return the cells with their cards, grouped by label, and the anchor of each cell.

    A page without thumbnails has no opened cells: they would only show names, as the tables do.
    """
    groups: dict[int, dict[str, Any]] = {}
    anchors: dict[tuple[int, int], str] = {}
    for cell in gallery.cells:
        found = [card for card in cards(cell.rows, predictions, classes, images) if card.image]
        if not found:
            continue
        anchors[cell.label, cell.prediction] = f"cell-{cell.label}-{cell.prediction}"
        group = groups.setdefault(
            cell.label,
            {"anchor": f"class-{cell.label}", "name": classes[cell.label], "cells": []},
        )
        group["cells"].append(
            {
                "anchor": anchors[cell.label, cell.prediction],
                "correct": cell.label == cell.prediction,
                "prediction": classes[cell.prediction],
                "images": cell.images,
                "cards": found,
            }
        )
    for group in groups.values():
        group["cells"].sort(key=lambda cell: (cell["correct"], -cell["images"]))
    return list(groups.values()), anchors


def _mistakes(
    evaluation: Evaluation, shown: Mapping[tuple[int, int], str]
) -> list[tuple[int, str]]:
    """Return the number of mistakes of each class, and the anchor of their images."""
    opened = {label for label, prediction in shown if label != prediction}
    return [
        (
            score.support - int(evaluation.confusion[index, index]),
            f"class-{index}" if index in opened else "",
        )
        for index, score in enumerate(evaluation.classes)
    ]


def _f1(row: tuple[ClassScores, IntervalRow, tuple[int, str]]) -> float:
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


FIGURE_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy: mean recall of the classes",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
    "roc_auc": "ROC AUC, mean of the classes",
    "average_precision": "Average precision, mean of the classes",
    "top_k_accuracy": "Label among the {k} most probable classes",
    "kappa": "Cohen's kappa: agreement beyond chance",
    "mcc": "Matthews correlation coefficient",
}
"""The name of each figure in :data:`kindsight.evaluation.FIGURES`."""

_PLAIN = ("log_loss", "kappa", "mcc")
"""Figures that are not shown as percentages."""


def figures_of(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return key, value and interval of each figure that is defined, as texts."""
    rows = []
    for name in FIGURES:
        value = getattr(evaluation, name)
        ends = evaluation.intervals.get(name, (math.nan, math.nan))
        if name == "accuracy":
            ends = evaluation.accuracy_interval
        if not math.isfinite(value) or (name == "top_k_accuracy" and not evaluation.top_k):
            continue
        known = all(map(math.isfinite, ends))
        if name in _PLAIN:
            text, between = f"{value:.3f}", f"{ends[0]:.3f} to {ends[1]:.3f}"
        else:
            text, between = percent(value), interval(ends)
        rows.append((name, text, between if known else "\N{EN DASH}"))
    return rows


def _matrix(
    evaluation: Evaluation,
    table: Sequence[ConfusionCell],
    shown: Mapping[tuple[int, int], str],
) -> list[tuple[str, list[MatrixCell]]]:
    """Return the confusion matrix as named rows of shaded counts."""
    style = {
        (cell.row, cell.column): ("right" if cell.row == cell.column else "wrong")
        + f" level{heat_level(cell.fraction)}"
        for cell in table
    }
    return [
        (
            score.name,
            [
                MatrixCell(
                    int(count),
                    style.get((i, j), "none"),
                    shown.get((i, j), ""),
                    not count and i != j,
                )
                for j, count in enumerate(evaluation.confusion[i])
            ],
        )
        for i, score in enumerate(evaluation.classes)
    ]
