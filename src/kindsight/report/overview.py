"""The first paragraph of a report: the task, the accuracy, its uncertainty, and the risks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kindsight.evaluation import ClassScores
from kindsight.report.data import ReportData, SplitResult
from kindsight.report.format import amount, elide, interval, listing, percent
from kindsight.report.summary import CONFIDENT

__all__ = ["describe_run"]

MAX_CONCERNS = 3

# An accuracy whose interval is wider than this fraction says little.
WIDE_INTERVAL = 0.15


def describe_run(data: ReportData) -> list[str]:
    """Return sentences for a reader who knows the task but not machine learning."""
    sentences = [_purpose(data)]
    if data.results:
        sentences += [_accuracy(data.results[0]), *_confidence(data)]
    else:
        sentences.append("Its accuracy was not measured: there were no validation or test images.")
    concerns = list(_concerns(data))[:MAX_CONCERNS]
    if concerns:
        sentences.append(f"What to watch: {'; '.join(concerns)}.")
    elif data.results:
        sentences.append("The checks of this report found nothing to worry about.")
    return sentences


def _purpose(data: ReportData) -> str:
    classes = tuple(data.training.classes)
    trained = data.training.images("train")
    learned = f", and was trained on {amount(trained, 'labelled image')}" if trained else ""
    return (
        f"This classifier sorts images into {amount(len(classes), 'class', 'classes')} "
        f"({_some_names(classes)}){learned}."
    )


def _some_names(names: tuple[str, ...], width: int = 80) -> str:
    """List as many names as fit into `width` characters, but at least two."""
    tries = [listing(names, limit) for limit in range(12, 1, -1)]
    return next((text for text in tries if len(text) <= width), tries[-1])


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
    """Yield the risks, most important first, as parts of a sentence."""
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
