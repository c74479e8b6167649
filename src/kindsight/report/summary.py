"""The sentences of a report: first paragraph, headline, errors, calibration, commands to copy."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kindsight.evaluation import ClassScores, Evaluation
from kindsight.report.data import Epoch, ReportData, SplitResult
from kindsight.report.format import amount, elide, interval, listing, percent

__all__ = [
    "confused_cells", "describe_calibration", "describe_results", "describe_run",
    "describe_training", "headline", "reproduce", "top_confusions",
]  # fmt: skip

CONFIDENT = 0.8
"""Predictions below this confidence are counted as uncertain."""

# A smaller gap between mean confidence and accuracy is not mentioned.
SMALL_GAP = 0.01


class Headline(NamedTuple):
    """The headline in three pieces; `figure` is emphasised."""

    before: str
    figure: str
    after: str


def headline(data: ReportData) -> Headline:
    """Return the headline: the data, the accuracy and its confidence interval."""
    training = data.training
    classes = tuple(training.classes)
    before = (
        f"Trained on {amount(training.images('train'), 'image')} of "
        f"{amount(len(classes), 'class', 'classes')} ({_some_names(classes, 64)}) "
        f"from {elide(training.source, 60)}."
    )
    if not data.results:
        return Headline(before, "Accuracy not measured", "(no validation or test images)")
    name, evaluation, _ = data.results[0]
    return Headline(
        before,
        f"{name.capitalize()} accuracy {percent(evaluation.accuracy)}",
        f"(95% CI {interval(evaluation.accuracy_interval)}, {amount(evaluation.images, 'image')})",
    )


def _some_names(names: Sequence[str], width: int) -> str:
    """List as many names as fit into `width` characters, but at least two."""
    tries = [listing(names, limit) for limit in range(12, 1, -1)]
    return next((text for text in tries if len(text) <= width), tries[-1])


def describe_results(result: SplitResult) -> list[str]:
    """Return sentences on the errors, the weakest class and the uncertain predictions."""
    evaluation, predictions = result.evaluation, result.predictions
    sentences = [_describe_errors(evaluation)]
    if evaluation.copies:
        copies = amount(evaluation.copies, "byte-identical copy", "byte-identical copies")
        sentences.append(f"Not counted: {copies} of these images.")
    present = [score for score in evaluation.classes if score.support]
    if len(present) > 2 and evaluation.accuracy < 1:
        worst = min(present, key=lambda score: score.recall)
        sentences.append(
            f"Lowest recall: {elide(worst.name, 60)}, {percent(worst.recall)} of "
            f"{amount(worst.support, 'image')} (95% CI {interval(worst.recall_interval)})."
        )
    if predictions is None:
        return sentences
    uncertain = predictions.probabilities.max(axis=1) < CONFIDENT
    correct = predictions.predicted == predictions.targets
    count, rest = int(uncertain.sum()), int((~uncertain).sum())
    if not count:
        sentences.append(f"Confidence is at least {percent(CONFIDENT, 0)} for every image.")
        return sentences
    sentence = (
        f"Confidence is below {percent(CONFIDENT, 0)} for {amount(count, 'image')}: "
        f"accuracy {percent(float(correct[uncertain].mean()))} on "
        f"{'it' if count == 1 else 'these'}"
    )
    if rest:
        sentence += f", {percent(float(correct[~uncertain].mean()))} on the other {rest:,}"
    sentences.append(sentence + ".")
    return sentences


def _describe_errors(evaluation: Evaluation) -> str:
    wrong = evaluation.images - int(np.trace(evaluation.confusion))
    if not wrong:
        ceiling = percent(1 - evaluation.accuracy_interval[0])
        return (
            f"No image is misclassified; with {amount(evaluation.images, 'image')}, an error rate "
            f"of up to {ceiling} on new images cannot be ruled out."
        )
    label, prediction, count, fraction = top_confusions(evaluation, 1)[0]
    start = f"{wrong:,} of {amount(evaluation.images, 'image')} misclassified"
    confusion = f"{elide(label, 60)} predicted as {elide(prediction, 60)}"
    if wrong == 1:
        return f"{start}: {confusion}."
    if count == 1:
        return f"{start}, each pair of classes once; for example, {confusion}."
    return f"{start}, most often {confusion} ({count:,} times, {percent(fraction)} of the class)."


def describe_calibration(result: SplitResult) -> str:
    """Return a sentence on whether the classifier is over- or underconfident.

    A gap that is not statistically significant is not reported as one.
    """
    if result.predictions is None:
        return ""
    confidence = float(result.predictions.probabilities.max(axis=1).mean(dtype=np.float64))
    evaluation = result.evaluation
    gap = confidence - evaluation.accuracy
    if abs(gap) < SMALL_GAP:
        verdict = "the classifier is well calibrated on average"
    elif not evaluation.is_miscalibrated:
        verdict = (
            f"with {amount(evaluation.images, 'image')}, a difference of {100 * abs(gap):.1f} "
            "percentage points is not statistically significant"
        )
    else:
        kind = "over" if gap > 0 else "under"
        verdict = f"the classifier is {kind}confident by {100 * abs(gap):.1f} percentage points"
    return (
        f"Mean confidence is {percent(confidence)} and accuracy {percent(evaluation.accuracy)}: "
        f"{verdict}."
    )


def top_confusions(evaluation: Evaluation, limit: int) -> list[tuple[str, str, int, float]]:
    """Return the most frequent confusions: label, prediction, images, fraction of the label's."""
    names = [score.name for score in evaluation.classes]
    return [
        (names[row], names[column], count, fraction)
        for row, column, count, fraction in confused_cells(evaluation, limit)
    ]


def confused_cells(evaluation: Evaluation, limit: int) -> list[tuple[int, int, int, float]]:
    """Return the most frequent confusions: label, prediction, images, fraction of the label's.

    Label and prediction are indices of classes.
    """
    table = evaluation.confusion * ~np.eye(len(evaluation.classes), dtype=bool)
    order = np.argsort(-table, axis=None, kind="stable")[:limit]
    pairs = []
    for row, column in zip(*np.unravel_index(order, table.shape), strict=True):
        count = int(table[row, column])
        if count:
            support = evaluation.classes[row].support
            pairs.append((int(row), int(column), count, count / support))
    return pairs


def describe_training(epochs: Sequence[Epoch], best: int | None) -> list[str]:
    """Return sentences on the best epoch, and on divergence; the rest is for the diagnosis.

    - `epochs`: in order; at least one.
    - `best`: the best epoch.
    """
    sentences = [_describe_best(epochs, best)]
    if any(not math.isfinite(row.loss + (row.val_loss or 0.0)) for row in epochs):
        sentences.append(
            "Training diverged: the loss became infinite or NaN. Lower the learning rate."
        )
    elif epochs[-1].val_loss is None:
        sentences.append("Without validation images, overfitting cannot be detected.")
    return sentences


def _describe_best(epochs: Sequence[Epoch], best: int | None) -> str:
    start = f"Best epoch: {best} of {len(epochs):,}"
    if len(epochs) == 1:
        start = "After one epoch"
    for row in epochs:
        if row.epoch == best and row.val_accuracy is not None:
            return (
                f"{start}, with {percent(row.val_accuracy)} validation accuracy and "
                f"{percent(row.accuracy)} training accuracy."
            )
        if row.epoch == best:
            return f"{start} by training loss, with {percent(row.accuracy)} training accuracy."
    return f"Trained for {amount(len(epochs), 'epoch')}."


MAX_CONCERNS = 3

# An accuracy whose interval is wider than this fraction is called imprecise.
WIDE_INTERVAL = 0.15


def describe_run(data: ReportData) -> list[str]:
    """Return sentences for readers who know the task but not machine learning."""
    sentences = [_purpose(data)]
    if data.results:
        sentences += [_accuracy(data.results[0]), *_confidence(data)]
    else:
        sentences.append("Its accuracy was not measured: there were no validation or test images.")
    concerns = list(_concerns(data))[:MAX_CONCERNS]
    if concerns:
        sentences.append(f"Limitations: {'; '.join(concerns)}.")
    elif data.results:
        sentences.append("The checks of this report found no limitations.")
    return sentences


def _purpose(data: ReportData) -> str:
    classes = tuple(data.training.classes)
    trained = data.training.images("train")
    learned = f", and was trained on {amount(trained, 'labelled image')}" if trained else ""
    return (
        f"This classifier sorts images into {amount(len(classes), 'class', 'classes')} "
        f"({_some_names(classes, 80)}){learned}."
    )


def _accuracy(result: SplitResult) -> str:
    evaluation = result.evaluation
    wrong = evaluation.images - int(np.trace(evaluation.confusion))
    text = (
        f"On {amount(evaluation.images, f'{result.name} image')} that it was not trained on, "
        f"{percent(evaluation.accuracy)} of its predictions are correct"
    )
    if wrong:
        text += f", about 1 error in {max(1, round(evaluation.images / wrong)):,} images"
    return f"{text}; on further images like these, expect {interval(evaluation.accuracy_interval)}."


def _confidence(data: ReportData) -> Iterator[str]:
    result, curve = data.results[0], data.risk_coverage
    if result.predictions is not None:
        predictions = result.predictions
        confident = predictions.probabilities.max(axis=1) >= CONFIDENT
        if confident.any() and not confident.all():
            correct = (predictions.predicted == predictions.targets)[confident]
            yield (
                f"Its confidence is at least {percent(CONFIDENT, 0)} for "
                f"{percent(float(confident.mean()), 0)} of the images, and "
                f"{percent(float(correct.mean()))} of these are correct; check the others by "
                "eye."
            )
    if curve is not None and curve.threshold is not None:
        yield (f"Predictions below {percent(curve.threshold)} confidence are reported as unsure.")
    if data.unknown is not None:
        yield "Images that are unlike the training images are reported as unknown."


def _concerns(data: ReportData) -> Iterator[str]:
    """Yield the limitations, most important first, as parts of a sentence."""
    serious = [found for found in data.diagnoses if found.severity in ("error", "warning")]
    for found in serious[:2]:
        yield f"{_lowered(found.title)} ({found.code})"
    if data.results:
        yield from _measured_concerns(data.results[0])
    if data.slices:
        worst = data.slices[0]
        yield (
            f"accuracy is only {percent(worst.accuracy)} on {amount(worst.images, 'image')} with "
            f"{elide(worst.column, 40)} {elide(worst.value, 40)}"
        )
    if data.skipped:
        skipped = amount(len(data.skipped), "image")
        verb = "was" if len(data.skipped) == 1 else "were"
        yield f"{skipped} could not be read and {verb} skipped"


def _measured_concerns(result: SplitResult) -> Iterator[str]:
    evaluation = result.evaluation
    present = [score for score in evaluation.classes if score.support]
    weak = [score for score in present if score.recall_interval[1] < evaluation.accuracy]
    if len(present) > 1 and weak:
        worst: ClassScores = min(weak, key=lambda score: score.recall)
        recall = percent(worst.recall)
        yield f"only {recall} of the images of {elide(worst.name, 40)} are predicted correctly"
    low, high = evaluation.accuracy_interval
    if high - low > WIDE_INTERVAL:
        yield (
            f"{amount(evaluation.images, f'{result.name} image')} are too few to measure the "
            "accuracy precisely"
        )


def _lowered(text: str) -> str:
    """Return a title as part of a sentence: its first letter in lower case, if it is a word."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def reproduce(data: ReportData) -> list[tuple[str, str]]:
    """Return commands with descriptions: two for using the model, then those to repeat the run."""
    if not data.run_folder:
        return []
    folder = shlex.quote(data.run_folder)
    settings = shlex.quote(f"{data.run_folder}/settings.toml")
    version = data.training.versions.get("kindsight", "")
    package = shlex.quote(f"kindsight[train]=={version}" if version else "kindsight[train]")
    return [
        ("Classify images", f"kindsight predict {folder} new/*.jpg"),
        ("Evaluate on labelled images", f"kindsight evaluate {folder} photos-test/"),
        ("Install the same version", f"pip install {package}"),
        ("Train again", f"kindsight train --settings {settings}"),
        ("Create this page again", f"kindsight report {folder}"),
    ]
