"""The HTML of each public value, made when a notebook asks for it.

Values are taken as Any: this package is below theirs and imports none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kindsight.notebook import pieces

__all__ = [
    "classifier_html", "dataset_html", "diagnosis_html", "evaluation_html", "findings_html",
    "history_html", "learning_curve_html", "suggestions_html",
]  # fmt: skip

SHOWN_CLASSES = 20
MATRIX_CLASSES = 12
SHOWN_FINDINGS = 20
SHOWN_PATHS = 3
SHOWN_NOTES = 3

SEVERITY_COLOURS = {"error": "192,48,38", "warning": "217,115,26", "note": "47,129,199"}


def dataset_html(dataset: Any, thumbnails: Sequence[tuple[str, str]] = ()) -> str:
    """Return images by class and split, some of the images, and the notes.

    - `thumbnails`: pairs of a ``data:`` URI and a class name.
    """
    n, counts = len(dataset), dataset.counts()
    splits = [name for name, count in dataset.split_counts().items() if count]
    by_class: dict[str, dict[str, int]] = {name: dict.fromkeys(splits, 0) for name in counts}
    for label, split in zip(dataset.label, dataset.split, strict=True):
        if label is not None and split is not None:
            by_class[label][split] += 1
    rows: list[list[object]] = [
        [name, f"{count:,}", *(f"{by_class[name][split]:,}" for split in splits)]
        for name, count in list(counts.items())[:SHOWN_CLASSES]
    ]
    classes = f", {len(counts):,} classes" if counts else ", without labels"
    return pieces.card(
        f"ImageDataset: {_images(n)}{classes}",
        pieces.table(("class", "images", *splits), rows) if rows else "",
        _more(len(counts), SHOWN_CLASSES, "classes"),
        pieces.images(thumbnails),
        *(pieces.paragraph(note, faint=True) for note in dataset.notes[:SHOWN_NOTES]),
        _more(len(dataset.notes), SHOWN_NOTES, "notes"),
    )


def evaluation_html(evaluation: Any) -> str:
    """Return the metrics, the table of classes and the confusion matrix."""
    low, high = evaluation.accuracy_interval
    rows: list[list[object]] = [
        [
            score.name, f"{score.support:,}", _percent(score.precision), _percent(score.recall),
            _percent(score.f1),
        ]
        for score in evaluation.classes[:SHOWN_CLASSES]
    ]  # fmt: skip
    return pieces.card(
        f"{_percent(evaluation.accuracy)} accuracy (95% CI {_percent(low)} to {_percent(high)}) "
        f"on {_images(evaluation.images)}",
        pieces.bar(evaluation.accuracy, f"accuracy {_percent(evaluation.accuracy)}"),
        pieces.facts(
            {
                "balanced accuracy": _percent(evaluation.balanced_accuracy),
                "macro F1": _percent(evaluation.macro_f1),
                "log loss": f"{evaluation.log_loss:.4f}",
                "expected calibration error": _percent(evaluation.ece),
            }
        ),
        pieces.table(("class", "images", "precision", "recall", "F1"), rows),
        _more(len(evaluation.classes), SHOWN_CLASSES, "classes"),
        _matrix(evaluation) if len(evaluation.classes) <= MATRIX_CLASSES else "",
    )


def _matrix(evaluation: Any) -> str:
    names = [score.name for score in evaluation.classes]
    rows: list[list[object]] = []
    for index, row in enumerate(evaluation.confusion.tolist()):
        total = max(1, sum(row))
        rows.append(
            [
                names[index],
                *(
                    pieces.Shaded(
                        f"{count:,}" if count else "\N{MIDDLE DOT}", count / total,
                        "63,155,87" if column == index else "217,115,26",
                    )
                    for column, count in enumerate(row)
                ),
            ]
        )  # fmt: skip
    return pieces.paragraph("Rows: labels. Columns: predictions.", faint=True) + pieces.table(
        ("", *names), rows
    )


def history_html(history: Any) -> str:
    """Return the curves of accuracy and loss, and the best epoch."""
    rows = history.rows()
    if not rows:
        return pieces.card("History without epochs")
    accuracy: dict[str, list[float | None]] = {"training": [row.accuracy for row in rows]}
    loss: dict[str, list[float | None]] = {"training": [row.loss for row in rows]}
    if history.validated:
        accuracy["validation"] = [row.val_accuracy for row in rows]
        loss["validation"] = [row.val_loss for row in rows]
    best = history.best_epoch
    shown = f"best epoch {best}" if best is not None else "not validated"
    charts = pieces.line_chart(
        "Accuracy by epoch", accuracy, marked=best, percent=True
    ) + pieces.line_chart("Loss by epoch, in nats", loss, marked=best)
    return pieces.card(
        f"History: {len(rows):,} epoch{'s' * (len(rows) != 1)}, {shown}",
        f'<div style="display:flex;flex-wrap:wrap;gap:1em">{charts}</div>',
        _last_epoch(rows[-1]),
    )


def _last_epoch(row: Any) -> str:
    text = f"Last epoch: training accuracy {_percent(row.accuracy)}"
    if row.val_accuracy is not None:
        text += f", validation accuracy {_percent(row.val_accuracy)}"
    return pieces.paragraph(f"{text}.", faint=True)


def classifier_html(classifier: Any, changed: Mapping[str, Any]) -> str:
    """Return the changed parameters and, once fitted, the classes and how it was trained.

    - `changed`: parameters that differ from their default.
    """
    fitted = hasattr(classifier, "classes_")
    state = f"fitted, {len(classifier.classes_):,} classes" if fitted else "not fitted"
    rows: dict[str, object] = {name: repr(value) for name, value in changed.items()}
    if fitted:
        names = [str(name) for name in classifier.classes_]
        more = ", ..." if len(names) > SHOWN_CLASSES else ""
        rows["classes"] = ", ".join(names[:SHOWN_CLASSES]) + more
        rows["temperature"] = f"{classifier.temperature_:.3f}"
        if (head := getattr(classifier, "head_", None)) is not None:
            rows["head"] = head.chosen.describe()
    skipped = len(getattr(classifier, "problems_", ()))
    history = getattr(classifier, "history_", None)
    return pieces.card(
        f"ImageClassifier ({state})",
        pieces.facts(rows),
        pieces.paragraph(f"Skipped: {_images(skipped)}; see problems_.") if skipped else "",
        "" if history is None else history_html(history),
    )


def findings_html(title: str, findings: Sequence[Any]) -> str:
    """Return a table of a check's findings: code, severity, message and images."""
    rows: list[list[object]] = []
    for finding in findings[:SHOWN_FINDINGS]:
        paths = ", ".join(finding.paths[:SHOWN_PATHS])
        if len(finding.paths) > SHOWN_PATHS:
            paths += f" and {len(finding.paths) - SHOWN_PATHS:,} more"
        colour = SEVERITY_COLOURS.get(finding.severity, SEVERITY_COLOURS["note"])
        shown = pieces.Shaded(finding.severity, 0.3, colour)
        rows.append([finding.code, shown, finding.message, paths])
    return pieces.card(
        title,
        pieces.table(("code", "severity", "finding", "images"), rows, left=4) if rows else "",
        _more(len(findings), SHOWN_FINDINGS, "findings"),
    )


def diagnosis_html(diagnosis: Any) -> str:
    """Return what was found on a training, its evidence, and the commands to try."""
    colour = SEVERITY_COLOURS.get(diagnosis.severity, SEVERITY_COLOURS["note"])
    commands = "".join(
        f'<pre style="margin:.3em 0;padding:.4em .6em;background:{pieces.FAINT};'
        f'white-space:pre-wrap">{pieces.text(command, 1000)}</pre>'
        for command in diagnosis.commands
    )
    return (
        f'<div style="border-left:4px solid rgb({colour});padding-left:.8em;margin:.4em 0">'
        + pieces.card(
            f"{diagnosis.code} {diagnosis.title} ({diagnosis.severity})",
            pieces.paragraph(diagnosis.message),
            pieces.paragraph(diagnosis.evidence, faint=True) if diagnosis.evidence else "",
            commands,
        )
        + "</div>"
    )


def learning_curve_html(curve: Any) -> str:
    """Return the sentence, the measured accuracies, and what more images would bring."""
    values = curve.to_dict()
    points: list[list[object]] = [
        [
            f"{point['images']:,}", _percent(point["accuracy"]),
            f"{_percent(point['low'])} to {_percent(point['high'])}",
        ]
        for point in values["points"]
    ]  # fmt: skip
    classes = [entry for entry in values["classes"] if entry["gain"] is not None]
    return pieces.card(
        values["sentence"],
        pieces.table(("training images", "accuracy", "90% interval"), points, left=0),
        *(pieces.paragraph(entry["sentence"]) for entry in classes[:SHOWN_NOTES]),
        pieces.paragraph(f"Fitted: {values['model']}.", faint=True),
    )


def suggestions_html(found: Any, thumbnails: Sequence[tuple[str, str]] = ()) -> str:
    """Return the first images to label next."""
    rows: list[list[object]] = [
        [str(image.rank), image.path, image.prediction, _percent(image.confidence), image.reason]
        for image in found.images[:SHOWN_FINDINGS]
    ]
    return pieces.card(
        f"{len(found.images):,} of {_images(found.considered)} to label next",
        pieces.images(thumbnails),
        pieces.table(("rank", "image", "prediction", "confidence", "reason"), rows, left=3),
        _more(len(found.images), SHOWN_FINDINGS, "images"),
    )


def _more(count: int, shown: int, noun: str) -> str:
    return (
        pieces.paragraph(f"and {count - shown:,} more {noun}", faint=True) if count > shown else ""
    )


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _percent(fraction: float) -> str:
    return "\N{EN DASH}" if math.isnan(fraction) else f"{100 * fraction:.1f}%"
