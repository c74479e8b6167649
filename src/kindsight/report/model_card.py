"""The model card: a Markdown page on a classifier, its data, its metrics and its limits.

The sections follow M. Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from kindsight.report.data import ReportData, SplitResult
from kindsight.report.format import amount, elide, interval, percent
from kindsight.report.results import FIGURE_NAMES, figures_of
from kindsight.report.summary import describe_run, reproduce
from kindsight.report.templating import clean

__all__ = ["render_model_card"]

MAX_ROWS = 100
MAX_ITEMS = 20


def render_model_card(data: ReportData) -> str:
    """Return the model card as Markdown. Names from outside are escaped and shortened."""
    sections = [
        *_heading(data),
        *_use(data),
        *_data(data),
        *_metrics(data),
        *_uncertainty(data),
        *_limits(data),
        *_training(data),
    ]
    return clean("\n".join(sections).rstrip() + "\n")


def _heading(data: ReportData) -> Iterator[str]:
    yield from ("---", "library_name: kindsight", "pipeline_tag: image-classification", "---", "")
    yield f"# Model card: {_text(data.title, 100)}"
    yield from ("", _text(" ".join(describe_run(data)), 3000), "")


def _use(data: ReportData) -> Iterator[str]:
    classes = [_text(name, 60) for name in data.training.classes]
    height, width = data.training.input_size
    yield from ("## Intended use", "")
    yield (
        f"The model assigns an image to one of {amount(len(classes), 'class', 'classes')}: "
        f"{', '.join(classes[:MAX_ITEMS])}{', and more' if len(classes) > MAX_ITEMS else ''}. "
        f"Images are resized to {height} x {width} pixels (height x width)."
    )
    yield from (
        "",
        "It is meant for images of the same kind and source as the training images. On other "
        "images, its accuracy is unknown: first evaluate it on your own labelled images. Do not "
        "use it for decisions about people unless a person checks them.",
        "",
        *_code([command for _, command in reproduce(data)[:2]]),
    )


def _data(data: ReportData) -> Iterator[str]:
    training = data.training
    yield from ("## Data", "")
    if training.source:
        yield f"Images from `{_code_text(training.source)}`:"
        yield ""
    header = ["Class", *(split.capitalize() for split in training.splits)]
    rows = [
        [_text(name, 60), *(f"{counts.get(split, 0):,}" for split in training.splits)]
        for name, counts in list(training.classes.items())[:MAX_ROWS]
    ]
    total = ["all", *(f"{training.images(split):,}" for split in training.splits)]
    yield from _table(header, [*rows, total])
    yield (
        f"Skipped: {amount(len(data.skipped), 'unreadable image')}. Exact duplicates: "
        f"{training.duplicates:,}. Images in groups of duplicates across splits: "
        f"{len(data.leakage):,}."
    )
    yield ""


def _metrics(data: ReportData) -> Iterator[str]:
    yield from ("## Metrics", "")
    if not data.results:
        yield from ("Not measured: there were no validation or test images.", "")
    for result in data.results:
        evaluation = result.evaluation
        yield f"### {result.name.capitalize()} images ({evaluation.images:,})"
        yield ""
        rows = [
            [FIGURE_NAMES[name].format(k=evaluation.top_k), value, between]
            for name, value, between in figures_of(evaluation)
        ]
        yield from _table(["Metric", "Value", "95% confidence interval"], rows)
    for result in data.results[:1]:
        yield from _classes(result)


def _classes(result: SplitResult) -> Iterator[str]:
    yield from (f"### By class ({result.name} images)", "")
    scores = list(result.evaluation.classes)
    if len(scores) > MAX_ROWS:
        scores = sorted(scores, key=lambda one: math.inf if math.isnan(one.f1) else one.f1)
    rows = [
        [
            _text(score.name, 60), percent(score.recall), interval(score.recall_interval),
            percent(score.precision), percent(score.f1), f"{score.support:,}",
        ]
        for score in scores[:MAX_ROWS]
    ]  # fmt: skip
    yield from _table(["Class", "Recall", "95% CI", "Precision", "F1", "Images"], rows)
    if len(scores) > MAX_ROWS:
        yield from (f"The {MAX_ROWS} of {len(scores):,} classes with the lowest F1.", "")


def _uncertainty(data: ReportData) -> Iterator[str]:
    lines = []
    source = data.training.temperature_source
    if source:
        lines.append(
            f"Probabilities are calibrated by temperature scaling (temperature "
            f"{data.training.temperature:.3f}, fitted on {_text(source, 100)})."
        )
    curve = data.risk_coverage
    if curve is not None and curve.threshold is not None:
        lines.append(f"Predictions below {percent(curve.threshold)} confidence are unsure.")
    if data.prediction_sets is not None:
        lines.append(
            "Prediction sets contain the true class of "
            f"{percent(data.prediction_sets.confidence_level)} of images like these (conformal "
            "prediction)."
        )
    if data.unknown is not None:
        lines.append(
            "Images that are unlike the training images are reported as unknown; the threshold "
            f"accepts {percent(data.unknown.known_kept)} of known images "
            f"({_text(data.unknown.method, 200)})."
        )
    if lines:
        yield from ("## Uncertainty", "", *(f"- {line}" for line in lines), "")


def _limits(data: ReportData) -> Iterator[str]:
    yield from ("## Limits", "")
    lines = [
        f"**{_text(found.title, 100)}** ({_text(found.code, 20)}): {_text(found.message, 500)}"
        for found in data.diagnoses[:MAX_ITEMS]
    ]
    lines += [
        f"Accuracy is {percent(item.accuracy)} ({interval((item.low, item.high))}) on "
        f"{amount(item.images, 'image')} with {_text(item.column, 60)} {_text(item.value, 60)}, "
        f"{percent(item.others)} on the others."
        for item in data.slices[:MAX_ITEMS]
    ]
    lines += [_text(note, 500) for note in data.notes[:MAX_ITEMS]]
    yield from [f"- {line}" for line in lines] or ["No limits were found by the checks that ran."]
    yield ""


def _training(data: ReportData) -> Iterator[str]:
    training = data.training
    yield from ("## Training", "")
    for name, value in training.details.items():
        yield f"- {_text(name, 80)}: {_text(value, 400)}"
    yield f"- Seed: {training.seed}"
    if "total" in training.seconds:
        yield f"- Time: {training.seconds['total']:.0f} s"
    if training.machine:
        yield f"- Machine: {_text(training.machine, 300)}"
    if training.versions:
        pairs = (f"{_text(k, 60)} {_text(v, 60)}" for k, v in training.versions.items())
        yield f"- Versions: {', '.join(pairs)}"
    yield from ("", "To reproduce it:", "", *_code([c for _, c in reproduce(data)[2:]]))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"| --- |{' ---: |' * (len(header) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _code(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return ["```console", *(f"$ {_code_text(line)}" for line in lines), "```", ""]


def _code_text(text: str) -> str:
    """Return a text for a code block: on one line, without the characters that end the block."""
    return re.sub(r"\s+", " ", elide(text, 400)).replace("`", "'")


def _text(text: str, limit: int) -> str:
    """Return a text from outside on one line, without meaning in Markdown or HTML."""
    line = re.sub(r"\s+", " ", elide(text, limit))
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", line)
