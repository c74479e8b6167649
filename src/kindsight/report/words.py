"""The sentences of a report and the way it writes numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kindsight.evaluation import Evaluation
from kindsight.report.data import Part, ReportData

__all__ = [
    "SURE",
    "Headline",
    "amount",
    "doubts",
    "duration",
    "elide",
    "headline",
    "interval",
    "leaning",
    "listing",
    "percent",
    "top_confusions",
]

SURE = 0.8
"""An answer below this confidence counts as unsure in the report's sentences."""


class Headline(NamedTuple):
    """One sentence in three pieces; the middle one is the figure that matters."""

    before: str
    figure: str
    after: str


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of 0-1 as per cent; only 0 and 1 themselves become 0% and 100%."""
    if share is None or not math.isfinite(share):
        return "\N{EN DASH}"
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}%"
    step = 10.0**-digits
    return f"{min(max(100 * share, step), 100 - step):.{digits}f}%"


def interval(ends: tuple[float, float]) -> str:
    """Write two shares of 0-1 as one interval: 96.9-99.6% with an en dash."""
    return f"{percent(ends[0]).rstrip('%')}\N{EN DASH}{percent(ends[1])}"


def amount(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: 1 image, 1,120 images."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Write seconds as a reader would say them: 0.41 s, 12.3 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def elide(text: str, limit: int = 120) -> str:
    """Shorten a long text in its middle, so that a path keeps its folder and its ending."""
    if len(text) <= limit:
        return text
    tail = limit * 2 // 3
    return f"{text[: limit - tail - 1]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def listing(names: Sequence[str], limit: int = 5) -> str:
    """Write names as a list: a, b and c; of more than `limit` the first ones and the last."""
    shown = [elide(name, 40) for name in names]
    if len(names) > limit:
        return ", ".join([*shown[: limit - 1], "\N{HORIZONTAL ELLIPSIS}", shown[-1]])
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def headline(data: ReportData) -> Headline:
    """Say what was trained on what, and how good it is, with its interval."""
    trained = data.trained_on
    classes = tuple(trained.classes)
    before = (
        f"Trained on {amount(trained.images('train'), 'image')} of "
        f"{amount(len(classes), 'class', 'classes')} ({_few(classes)}) "
        f"from {elide(trained.source, 60)}"
    )
    if not data.parts:
        return Headline(
            before + "; none were kept back, so",
            "how good it is has not been measured",
            "",
        )
    name, evaluation, _ = data.parts[0]
    return Headline(
        before + ":",
        f"{percent(evaluation.accuracy)} of {amount(evaluation.images, f'{name} image')} right",
        f"(95% interval {interval(evaluation.accuracy_interval)})",
    )


def _few(names: Sequence[str], width: int = 64) -> str:
    """List as many names as fit, two at least."""
    tries = [listing(names, limit) for limit in range(12, 1, -1)]
    return next((text for text in tries if len(text) <= width), tries[-1])


def doubts(part: Part) -> list[str]:
    """Say what the classifier got wrong and what it is not sure about, a sentence each."""
    evaluation, predictions = part.evaluation, part.predictions
    sentences = [_mistakes(evaluation)]
    present = [score for score in evaluation.classes if score.support]
    if len(present) > 2 and evaluation.accuracy < 1:
        worst = min(present, key=lambda score: score.recall)
        sentences.append(
            f"The weakest class is {elide(worst.name, 60)}: {percent(worst.recall)} of its "
            f"{amount(worst.support, 'image')} right ({interval(worst.recall_interval)})."
        )
    if predictions is None:
        return sentences
    unsure = predictions.probabilities.max(axis=1) < SURE
    right = predictions.predicted == predictions.targets
    count, rest = int(unsure.sum()), int((~unsure).sum())
    if not count:
        sentences.append(f"It was at least {percent(SURE, 0)} sure of every image.")
        return sentences
    sentence = (
        f"It was less than {percent(SURE, 0)} sure of {amount(count, 'image')}, "
        f"and {_right_on(int(right[unsure].sum()), count)}"
    )
    correct = int(right[~unsure].sum())
    if rest == 1:
        sentence += f"; the other one was {'right' if correct else 'wrong'}"
    elif rest and correct == rest:
        sentence += f"; the other {rest:,} were all right"
    elif rest:
        sentence += f"; of the other {rest:,}, {percent(correct / rest)} were right"
    sentences.append(sentence + ".")
    return sentences


def leaning(part: Part) -> str:
    """Say whether confidence is, all in all, above or below what comes true."""
    if part.predictions is None:
        return ""
    confidence = float(part.predictions.probabilities.max(axis=1).mean(dtype=np.float64))
    accuracy = part.evaluation.accuracy
    gap = confidence - accuracy
    degree = "as sure as" if abs(gap) < 0.01 else "surer than" if gap > 0 else "less sure than"
    return (
        f"Its confidence averages {percent(confidence)}, and {percent(accuracy)} were right: "
        f"all in all it is {degree} it should be."
    )


def _right_on(right: int, count: int) -> str:
    if count == 1:
        return "right on it" if right else "wrong on it"
    return f"right on {'all' if right == count else f'{right:,}'} of these"


def _mistakes(evaluation: Evaluation) -> str:
    wrong = evaluation.images - int(np.trace(evaluation.confusion))
    if not wrong:
        ceiling = percent(1 - evaluation.accuracy_interval[0])
        return (
            f"None was wrong; {amount(evaluation.images, 'image')} cannot rule out that "
            f"up to {ceiling} of new ones will be."
        )
    label, prediction, count, share = top_confusions(evaluation, 1)[0]
    start = f"{amount(wrong, 'was', 'were')} wrong"
    taken = f"{elide(label, 60)} taken for {elide(prediction, 60)}"
    if wrong == 1:
        return f"{start}: {taken}."
    if count == 1:
        return f"{start}, no two in the same way; one is {taken}."
    return f"{start}, most often {taken} ({count:,} times, {percent(share)} of that class)."


def top_confusions(evaluation: Evaluation, limit: int) -> list[tuple[str, str, int, float]]:
    """Give the pairs confused most often: label, prediction, images, share of the label's."""
    table = evaluation.confusion * ~np.eye(len(evaluation.classes), dtype=bool)
    order = np.argsort(-table, axis=None, kind="stable")[:limit]
    pairs = []
    for row, column in zip(*np.unravel_index(order, table.shape), strict=True):
        count = int(table[row, column])
        if count:
            label, prediction = evaluation.classes[row], evaluation.classes[column]
            pairs.append((label.name, prediction.name, count, count / label.support))
    return pairs
