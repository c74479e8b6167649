"""The sections of a report on uncertainty, slices, features and learning curves."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation import Evaluation
from kindsight.report.data import (
    FeatureMap,
    LearningCurve,
    Overlay,
    Predictions,
    ReportData,
    RiskCoverage,
    Slice,
    UnknownScore,
)
from kindsight.report.drawing.charts import (
    STYLES,
    Mark,
    Series,
    draw_histogram,
    draw_lines,
    score_table,
    thin,
    thinned,
)
from kindsight.report.drawing.figures import IntervalRow, scale_start
from kindsight.report.format import amount, elide, percent
from kindsight.report.results import MAX_ROWS
from kindsight.report.templating import is_small_image

__all__ = [
    "view_diagnoses", "view_feature_map", "view_learning_curve", "view_overlays", "view_ranking",
    "view_risk", "view_slices", "view_unknown",
]  # fmt: skip

MAX_DIAGNOSES = 20
MAX_SLICES = 30
MAX_OVERLAYS = 12
MAX_COMMANDS = 5

MIN_TILE, MAX_TILE = 0.03, 0.1
"""Side of an image in the feature map, as a fraction of the map."""

_TABLE_POINTS = 25
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


class OverlayCard(NamedTuple):
    """An image and its saliency map as ``data:`` URIs."""

    overlay: Overlay
    image: str
    map: str


def view_diagnoses(data: ReportData) -> list[dict[str, Any]]:
    """Return the findings on the training for the templates."""
    return [
        {
            "code": found.code,
            "title": found.title,
            "severity": found.severity if found.severity in ("error", "warning") else "note",
            "message": found.message,
            "evidence": found.evidence,
            "figure": [(name.replace("_", " "), f"{v:.4g}") for name, v in found.figure.items()],
            "commands": list(found.commands)[:MAX_COMMANDS],
        }
        for found in data.diagnoses[:MAX_DIAGNOSES]
    ]


def view_risk(curve: RiskCoverage | None) -> dict[str, Any] | None:
    """Return the risk-coverage curve with its table and a sentence."""
    if curve is None or not curve.points:
        return None
    points = sorted(curve.points, key=lambda point: point.coverage)
    marks = []
    if curve.target_accuracy is not None:
        text = f"wanted accuracy {percent(curve.target_accuracy)}"
        marks.append(Mark(curve.target_accuracy, text, horizontal=True))
    chosen = None
    if curve.threshold is not None:
        reached = [point for point in points if point.confidence >= curve.threshold]
        chosen = reached[-1] if reached else None
        if chosen is not None:
            marks.append(Mark(chosen.coverage, f"threshold {percent(curve.threshold)}"))
    line = Series("accuracy", thin([(point.coverage, point.accuracy) for point in points]))
    return {
        "curve": curve,
        "chosen": chosen,
        "chart": draw_lines(
            [line],
            label="Risk-coverage curve: accuracy of the labelled images by the fraction of "
            f"images that are labelled; {percent(points[-1].accuracy)} if all are labelled",
            x_name="coverage: fraction of images labelled",
            y_name="accuracy of the labelled images",
            marks=marks,
            x_percent=True,
            x_range=(0.0, 1.0),
        ),
        "rows": thinned(points, _TABLE_POINTS, lambda point: point is chosen)[::-1],
    }


def view_ranking(
    predictions: Predictions | None, evaluation: Evaluation | None
) -> dict[str, Any] | None:
    """Return ROC and precision-recall curves of the classes with the lowest average precision."""
    if predictions is None or evaluation is None:
        return None
    order = sorted(
        (
            (score.average_precision, index)
            for index, score in enumerate(evaluation.classes)
            if math.isfinite(score.average_precision)
        ),
    )[:STYLES]
    if not order:
        return None
    roc, precision = [], []
    for _, index in order:
        name = evaluation.classes[index].name
        curves = _ranked(predictions.probabilities[:, index], predictions.targets == index)
        roc.append(Series(name, thin(curves[0])))
        precision.append(Series(name, thin(curves[1])))
    names = ", ".join(elide(line.name, 40) for line in roc)
    options: dict[str, Any] = {"x_percent": True, "x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
    return {
        "classes": [evaluation.classes[index] for _, index in order],
        "others": len(evaluation.classes) - len(order),
        "charts": [
            draw_lines(
                roc,
                label=f"ROC curves of {names}",
                x_name="images of other classes above the threshold",
                y_name="recall",
                **options,
            ),
            draw_lines(
                precision,
                label=f"Precision-recall curves of {names}",
                x_name="recall",
                y_name="precision",
                **options,
            ),
        ],
    }


def _ranked(
    scores: NDArray[np.floating[Any]], own: NDArray[np.bool_]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Return the ROC curve and the precision-recall curve of one class against the others."""
    order = np.argsort(-scores, kind="stable")
    # Images with equal scores are above the same thresholds.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = np.cumsum(own[order])[last].astype(np.float64)
    above = last + 1.0
    recall = found / max(1, int(own.sum()))
    false = (above - found) / max(1, int((~own).sum()))
    return (
        [(0.0, 0.0), *zip(false.tolist(), recall.tolist(), strict=True)],
        list(zip(recall.tolist(), (found / above).tolist(), strict=True)),
    )


def view_unknown(
    unknown: UnknownScore | None, predictions: Predictions | None
) -> dict[str, Any] | None:
    """Return the distribution of the out-of-distribution score with its table."""
    scores = None if predictions is None else predictions.ood_scores
    if scores is None or predictions is None or not np.isfinite(scores).any():
        return None
    correct = predictions.predicted == predictions.targets
    marked = [] if unknown is None else [unknown.threshold]
    table = score_table([scores[correct], scores[~correct]], include=marked)
    refused = None
    if unknown is not None:
        refused = int((scores > unknown.threshold).sum())
    return {
        "unknown": unknown,
        "refused": refused,
        "images": len(predictions),
        "rows": [row for row in table if sum(row.counts)],
        "chart": draw_histogram(
            table,
            label=f"Distribution of the out-of-distribution score of "
            f"{amount(len(predictions), 'image')}",
            x_name="out-of-distribution score",
            mark=None if unknown is None else Mark(unknown.threshold, "threshold"),
        ),
    }


def view_slices(slices: Sequence[Slice]) -> dict[str, Any] | None:
    """Return the slices with their accuracies as intervals."""
    rows = [
        (item, IntervalRow(item.value, item.accuracy, item.low, item.high))
        for item in slices[:MAX_SLICES]
    ]
    if not rows:
        return None
    return {"rows": rows, "start": scale_start([row for _, row in rows]), "count": len(slices)}


def view_overlays(overlays: Sequence[Overlay]) -> list[OverlayCard]:
    """Return the saliency maps whose files are small images."""
    found = [
        OverlayCard(item, _uri(item.image), _uri(item.overlay)) for item in overlays[:MAX_OVERLAYS]
    ]
    return [card for card in found if card.image and card.map]


def _uri(content: bytes) -> str:
    """Return an image file as a ``data:`` URI; empty if it is neither a JPEG nor a PNG."""
    kind = "jpeg" if content.startswith(_JPEG) else "png" if content.startswith(_PNG) else ""
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return uri if kind and is_small_image(uri) else ""


def view_feature_map(
    plan: FeatureMap | None,
    predictions: Predictions | None,
    classes: Sequence[str],
    images: Mapping[str, str],
) -> dict[str, Any] | None:
    """Return the positions of images in feature space, with their labels and predictions."""
    if plan is None or predictions is None or not plan.images:
        return None
    rows = {path: row for row, path in enumerate(predictions.paths)}
    predicted = predictions.predicted
    known = [image for image in plan.images if image.path in rows]
    tiles = [
        {
            "path": image.path,
            "x": f"{100 * min(1.0, max(0.0, image.x)):.1f}",
            "y": f"{100 * (1 - min(1.0, max(0.0, image.y))):.1f}",
            "label": classes[predictions.targets[rows[image.path]]],
            "prediction": classes[predicted[rows[image.path]]],
            "image": images.get(image.path, ""),
        }
        for image in known
    ]
    if not tiles:
        return None
    return {"plan": plan, "tiles": tiles, "rows": tiles[:MAX_ROWS], "size": _tile_size(plan)}


def _tile_size(plan: FeatureMap) -> str:
    """Return the side of a tile in percent of the map: the minimum distance between two columns."""
    across = np.unique(np.round([image.x for image in plan.images], 4))
    step = float(np.diff(across).min()) if len(across) > 1 else 1.0
    return f"{100 * min(MAX_TILE, max(MIN_TILE, step)):.2f}"


def view_learning_curve(curve: LearningCurve | None) -> dict[str, Any] | None:
    """Return the learning curve with its table."""
    if curve is None or not curve.points:
        return None
    series = []
    if curve.fit:
        series.append(
            Series(
                "fitted",
                tuple((point.images, point.accuracy) for point in curve.fit),
                tuple((point.low, point.high) for point in curve.fit),
            )
        )
    series.append(
        Series(
            "measured",
            tuple((point.images, point.accuracy) for point in curve.points),
            tuple((point.low, point.high) for point in curve.points),
            dots=True,
        )
    )
    first, last = curve.points[0], curve.points[-1]
    return {
        "curve": curve,
        "chart": draw_lines(
            series,
            label=f"Learning curve: accuracy by number of training images, from "
            f"{percent(first.accuracy)} with {first.images:,} to {percent(last.accuracy)} with "
            f"{last.images:,}",
            x_name="training images",
            y_name="accuracy",
        ),
        "rows": curve.points[:MAX_ROWS],
        "fit": thinned(curve.fit, _TABLE_POINTS, lambda _: False),
        "classes": curve.classes[:MAX_ROWS],
    }
