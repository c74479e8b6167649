"""KS403: probable label errors, found by confident learning.

C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels",
Journal of Artificial Intelligence Research 70 (2021), 1373-1411, arXiv:1911.00068, written from the
paper. The confident joint counts the images of each given label that are confidently of each class.
It estimates how many labels of each pair of classes are wrong; that many are reported, those with
the largest margin first (section 3.2, "prune by noise rate").

With good features the estimate is too low: images count as confident only above their class's mean
probability, which is then near 1, and with many classes most pairs have fewer than one wrong label.
A label of very low probability is therefore reported whatever the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext, OutOfFoldPredictions
from kindsight.checks.rules.labels import NO_PREDICTIONS, usable_predictions
from kindsight.dataset.names import quoted
from kindsight.evaluation import wilson_interval

__all__ = [
    "LabelErrors",
    "SuspectLabels",
    "better_than_majority",
    "confident_joint",
    "estimate_joint",
    "find_label_errors",
    "thresholds",
]

Probabilities = NDArray[np.float64]

FEWEST = 10
"""Images of a class below which its mean probability is unreliable: its labels are not checked, and
it is never suggested."""

IMPROBABLE = 0.05
"""Probability of the given label below which it is reported whatever the confident joint says.
Chosen with labels swapped at random in cats-dogs, sign-digits and 2,000 images of CIFAR-10; on the
last, with 78% accuracy, precision rises with recall (docs/experiments.md)."""


class LabelErrors(Check):
    """Labels that a classifier, not trained on the image, contradicts with confidence.

    Confident learning (Northcutt, Jiang, Chuang 2021) on out-of-fold probabilities.
    """

    code = "KS403"
    title = "Probable label errors"
    severity = "warning"
    cost = "full"
    advice = (
        "Check each image. --apply FILE relabels those whose suggestion is at least 90% probable, "
        "and lists the others."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Report the labels that are probably wrong."""
        predictions = usable_predictions(context)
        if predictions is None:
            return self.not_applicable(NO_PREDICTIONS)
        targets = context.dataset.targets[predictions.rows]
        if not better_than_majority(predictions, targets):
            return self.not_applicable(
                "The features do not separate these classes better than predicting the largest "
                "class, so they cannot show which labels are wrong."
            )
        suspects = find_label_errors(predictions.probabilities, targets)
        names = context.dataset.classes
        findings = []
        for index, other, margin in zip(
            suspects.rows.tolist(), suspects.suggested.tolist(), suspects.margin.tolist(),
            strict=True,
        ):  # fmt: skip
            own, probability = int(targets[index]), predictions.probabilities[index]
            found = self.finding(
                context,
                [int(predictions.rows[index])],
                f"Labelled {quoted(names[own])}; a classifier not trained on it predicts "
                f"{quoted(names[other])} ({probability[other]:.0%} against "
                f"{probability[own]:.0%}).",
                suggestion=names[other],
                value=round(float(margin), 4),
            )
            findings.append(replace(found, confidence=round(float(probability[other]), 4)))
        return self.result(findings, suspects.examined)


def better_than_majority(predictions: OutOfFoldPredictions, targets: NDArray[np.int64]) -> bool:
    """Return whether the lower 95% bound of the accuracy is above the largest class's frequency."""
    n = len(targets)
    if n == 0:
        return False
    correct = int((predictions.probabilities.argmax(axis=1) == targets).sum())
    return wilson_interval(correct, n)[0] > int(np.bincount(targets).max()) / n


@dataclass(frozen=True)
class SuspectLabels:
    """Labels that are probably wrong, the largest margin first."""

    rows: NDArray[np.int64]  # rows of the probabilities
    suggested: NDArray[np.int64]  # most probable class of each
    # probability of the given class minus that of the suggested one, -1 to 0
    margin: NDArray[np.float64]
    examined: int  # number of labels examined


def find_label_errors(probabilities: Probabilities, targets: NDArray[np.int64]) -> SuspectLabels:
    """Return the labels that are probably wrong.

    - `probabilities`: float64 array (n, k); out-of-fold probabilities; rows sum to 1.
    - `targets`: int64 array (n,); class of each label, 0 to k - 1.

    Returns
    -------
    SuspectLabels
        Only images for which another class is more probable.
    """
    n, k = probabilities.shape
    limits = thresholds(probabilities, targets)
    joint = estimate_joint(confident_joint(probabilities, targets, limits), targets)
    predicted = probabilities.argmax(axis=1)
    own = probabilities[np.arange(n), targets]
    wrong = own < IMPROBABLE
    for label in range(k):
        rows = np.flatnonzero(targets == label)
        for other in np.flatnonzero(joint[label] >= 0.5):
            if other == label:
                continue
            number = round(float(joint[label, other]))
            against = probabilities[rows, other] - own[rows]
            wrong[rows[np.argsort(-against, kind="stable")[:number]]] = True
    checked = np.isfinite(limits)
    rows = np.flatnonzero(wrong & (predicted != targets) & checked[predicted])
    margin = own[rows] - probabilities[rows, predicted[rows]]
    order = np.lexsort((rows, margin))
    return SuspectLabels(
        rows[order], predicted[rows][order], margin[order], int(checked[targets].sum()) if n else 0
    )


def thresholds(probabilities: Probabilities, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean probability of each class over its images, float64 (k,).

    Infinite for classes of fewer than :data:`FEWEST` images.
    """
    n, k = probabilities.shape
    counts = np.bincount(targets, minlength=k)
    sums = np.bincount(targets, weights=probabilities[np.arange(n), targets], minlength=k)
    return np.where(counts >= FEWEST, sums / np.maximum(counts, 1), np.inf)


def confident_joint(
    probabilities: Probabilities, targets: NDArray[np.int64], limits: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the number of images by label (row) and confident class (column), int64 (k, k).

    The confident class is the most probable one whose probability reaches its threshold; images
    without one are not counted.
    """
    k = probabilities.shape[1]
    reached = np.where(probabilities >= limits, probabilities, -1.0)
    best = reached.argmax(axis=1)
    counted = reached.max(axis=1) >= 0
    cells = targets[counted] * k + best[counted]
    return np.bincount(cells, minlength=k * k).reshape(k, k).astype(np.int64)


def estimate_joint(counts: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the confident joint scaled so that each row sums to the images with that label.

    Returns
    -------
    float64 array (k, k)
        Estimated number of images by label (row) and true class (column). Labels without a
        confident image are taken to be correct.
    """
    k = len(counts)
    totals = np.bincount(targets, minlength=k)
    sums = counts.sum(axis=1)
    scaled: NDArray[np.float64] = counts * (totals / np.maximum(sums, 1))[:, None]
    empty = sums == 0
    scaled[empty, empty] = totals[empty]
    return scaled
