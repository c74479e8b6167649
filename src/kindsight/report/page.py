"""The page of a training report."""

from __future__ import annotations

from typing import Any

import numpy as np

from kindsight.dataset.names import IgnoredFile, counts_by_class
from kindsight.report.data import CROSS_VALIDATION, Predictions, ReportData, SkippedImage
from kindsight.report.drawing.charts import thinned
from kindsight.report.drawing.curves import curve_table, draw_curve, phase_table
from kindsight.report.drawing.figures import head_table, time_table
from kindsight.report.gallery import choose_images
from kindsight.report.results import MAX_ROWS, cards, opened_cells, view_result
from kindsight.report.sections import (
    view_diagnoses,
    view_feature_map,
    view_learning_curve,
    view_overlays,
    view_ranking,
    view_risk,
    view_slices,
    view_unknown,
)
from kindsight.report.summary import describe_run, describe_training, headline, reproduce
from kindsight.report.templating import clean, environment, script_digest

__all__ = ["prepare_report", "render_report"]

TEMPLATES = (
    "report.html.j2", "macros.html.j2", "trust.html.j2", "training.html.j2", "style.css",
    "report.css", "report.js",
)  # fmt: skip

DOUBTFUL_LABEL = 0.95
"""Confidence of a mistake from which its label should be checked first; a less confident mistake
does not indicate a wrong label."""


def prepare_report() -> None:
    """Load the templates in advance, for example in another thread."""
    for name in TEMPLATES:
        environment().get_template(name)


def render_report(data: ReportData) -> str:
    """Return the report as one HTML page without external resources.

    Names, paths and reasons may contain any text: they are escaped and shortened. The page is below
    5 MB, whatever the number of classes and images, and can be encoded as UTF-8. It is complete
    without its script, the only one that its policy allows.
    """
    training = data.training
    script = environment().get_template("report.js").render()
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            training=training,
            script=script,
            script_digest=script_digest(script),
            headline=headline(data),
            overview=describe_run(data),
            diagnoses=view_diagnoses(data),
            **_results(data),
            heads=list(zip(training.candidates, head_table(training.candidates), strict=True)),
            history=_history(data),
            learning=view_learning_curve(data.learning_curve),
            stages=time_table(training.seconds),
            counts=_counts(data),
            skipped=_skipped(data.skipped, data.ignored),
            commands=reproduce(data),
            max_rows=MAX_ROWS,
        )
    )
    return clean(page)


def _results(data: ReportData) -> dict[str, Any]:
    """Return the sections on the evaluated splits; only the first one has images."""
    predictions = data.results[0].predictions if data.results else None
    classes = [score.name for result in data.results[:1] for score in result.evaluation.classes]
    opened: list[dict[str, Any]] = []
    anchors: dict[tuple[int, int], str] = {}
    mistakes, uncertain, doubtful = [], [], 0
    if predictions is not None:
        gallery = choose_images(predictions)
        opened, anchors = opened_cells(gallery, predictions, classes, data.small_images)
        mistakes, uncertain = (
            cards(rows, predictions, classes, data.large_images)
            for rows in (gallery.mistakes, gallery.uncertain)
        )
        confidence = predictions.probabilities[np.asarray(gallery.mistakes, np.int64)].max(axis=1)
        doubtful = int((confidence >= DOUBTFUL_LABEL).sum())
    return {
        "results": [
            view_result(result, data.reference, {} if number else anchors)
            for number, result in enumerate(data.results)
        ],
        "mistakes": mistakes,
        "uncertain": uncertain,
        "doubtful_labels": doubtful,
        "opened": opened,
        "without_images": predictions is not None and not data.large_images,
        "ranking": view_ranking(predictions, data.results[0].evaluation if data.results else None),
        "risk": view_risk(data.risk_coverage),
        "unknown": view_unknown(data.unknown, predictions),
        "slices": view_slices(data.slices),
        "overlays": view_overlays(data.overlays),
        "feature_map": view_feature_map(
            data.feature_map, _mapped_predictions(data), classes, data.map_images
        ),
    }


def _mapped_predictions(data: ReportData) -> Predictions | None:
    """Return the predictions of the split that the feature map shows."""
    split = "" if data.feature_map is None else data.feature_map.split
    names = (split, CROSS_VALIDATION) if split == "validation" else (split,)
    return next((result.predictions for result in data.results if result.name in names), None)


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
        "sentences": describe_training(rows, best),
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
