"""KS401 to KS403, KS405: label errors, duplicates with different labels, near-identical classes.

KS403 is found by confident learning: C. Northcutt, L. Jiang, I. Chuang, "Confident learning:
estimating uncertainty in dataset labels", Journal of Artificial Intelligence Research 70 (2021),
1373-1411, arXiv:1911.00068, written from the paper. The confident joint counts the images of each
given label that are confidently of each class. It estimates how many labels of each pair of classes
are wrong; that many are reported, those with the largest margin first (section 3.2, "prune by noise
rate").

With good features the estimate is too low: images count as confident only above their class's mean
probability, which is then near 1, and with many classes most pairs have fewer than one wrong label.
Therefore, labels with a very low probability are reported whatever the estimate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, Severity
from kindsight.checks.context import CheckContext, OutOfFoldPredictions
from kindsight.checks.duplicates.search import differing_groups
from kindsight.dataset.columns.convert import is_equal, take_rows
from kindsight.dataset.names import quoted, quoted_list
from kindsight.dataset.splits.disjoint_sets import equal_rows
from kindsight.dataset.table import ImageDataset
from kindsight.evaluation import wilson_interval

__all__ = [
    "DuplicatesWithDifferentLabels", "IdenticalWithDifferentLabels", "LabelErrors",
    "NearIdenticalClasses", "confident_joint", "estimate_joint", "find_label_errors",
    "pairwise_accuracy", "thresholds",
]  # fmt: skip

NO_PREDICTIONS = "There are no out-of-fold predictions to compare the labels with."


def usable_predictions(context: CheckContext) -> OutOfFoldPredictions | None:
    """Return the out-of-fold predictions if there are some, of two classes or more."""
    found = context.out_of_fold
    usable = found is not None and found.probabilities.shape[1] > 1 and len(found.rows)
    return found if usable else None


def majority_label(dataset: ImageDataset, rows: Sequence[int]) -> str | None:
    """Return the label of more than half of the rows, or None."""
    label, n = Counter(dataset.label[row] for row in rows).most_common(1)[0]
    return label if 2 * n > len(rows) else None


class IdenticalWithDifferentLabels(Check):
    """Identical files with different labels, of which at least one is wrong."""

    code = "KS401"
    title = "Identical files with different labels"
    severity = "error"
    advice = "Keep only the file with the correct label."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the labels of files with the same digest."""
        dataset = context.dataset
        if not any(dataset.label):
            return self.not_applicable("The images have no labels.")
        known = ~is_equal(dataset.label, None) & ~is_equal(dataset.digest, None)
        labelled = context.readable_rows[known[context.readable_rows]]
        findings = []
        for group in equal_rows(take_rows(dataset.digest, labelled)):
            rows = labelled[group].tolist()
            labels = sorted({str(dataset.label[row]) for row in rows})
            if len(labels) > 1:
                message = f"Identical files are labelled {quoted_list(labels)}."
                suggestion = majority_label(dataset, rows)
                findings.append(self.finding(context, rows, message, suggestion=suggestion))
        return self.result(findings, len(labelled))


_CONFLICTS: dict[str, tuple[str, Severity]] = {
    "reencoded": ("Re-encoded copies of an image", "error"),
    "rotated": ("Rotated or mirrored copies of an image", "warning"),
    "near": ("Near-duplicates", "warning"),
}


class DuplicatesWithDifferentLabels(Check):
    """Copies or near-duplicates of an image with different labels.

    For re-encoded copies this is an error. Rotated or mirrored copies and near-duplicates may
    belong to different classes.
    """

    code = "KS402"
    title = "Duplicates with different labels"
    severity = "error"
    advice = "Compare the images and give them one label."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the labels of duplicates."""
        dataset = context.dataset
        if not any(dataset.label):
            return self.not_applicable("The images have no labels.")
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")

        def labels_of(rows: Sequence[int]) -> list[str]:
            return sorted({str(dataset.label[row]) for row in rows if dataset.label[row]})

        findings = []
        for kind, group, labels in differing_groups(context, labels_of):
            subject, severity = _CONFLICTS[kind]
            message = f"{subject} are labelled {quoted_list(labels)}."
            suggestion = majority_label(dataset, group)
            findings.append(
                self.finding(context, group, message, suggestion=suggestion, severity=severity)
            )
        return self.result(findings, len(context.readable_rows))


Probabilities = NDArray[np.floating[Any]]

BLOCK = 65_536
"""Images that are compared at once."""

MAX_ACCURACY = 0.75
"""Upper end of the 95% interval of the pairwise accuracy, below which two classes are reported:
half-way between random guessing and perfect separation."""

FEWEST = 10
"""Minimum number of images of each of the two classes."""

MAX_PAIRS = 50
"""Maximum number of reported pairs."""


class NearIdenticalClasses(Check):
    """Pairs of classes that a classifier distinguishes hardly better than by random guessing."""

    code = "KS405"
    title = "Near-identical classes"
    severity = "warning"
    cost = "full"
    advice = "Merge them if they are one class; otherwise try larger images, such as --size 300."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare each pair of classes."""
        predictions = usable_predictions(context)
        if predictions is None:
            return self.not_applicable(NO_PREDICTIONS)
        targets = context.dataset.targets[predictions.rows]
        counts = np.bincount(targets, minlength=predictions.probabilities.shape[1])
        accuracy = pairwise_accuracy(predictions.probabilities, targets)
        enough = np.flatnonzero(counts >= FEWEST)
        pairs = []
        for i, one in enumerate(enough.tolist()):
            for other in enough[i + 1 :].tolist():
                # Both classes count equally, as if both had as many images as the smaller one.
                n = 2 * int(min(counts[one], counts[other]))
                mean = (accuracy[one, other] + accuracy[other, one]) / 2
                _, high = wilson_interval(round(mean * n), n)
                if high < MAX_ACCURACY:
                    pairs.append((float(mean), one, other, high))
        names = context.dataset.classes
        return self.result(
            (
                self.finding_about(
                    [names[one], names[other]],
                    f"A classifier distinguishes {quoted(names[one])} from {quoted(names[other])} "
                    f"with {mean:.0%} accuracy, at most {high:.0%} (95% CI); random guessing has "
                    "50%.",
                    value=round(mean, 4),
                )
                for mean, one, other, high in sorted(pairs)[:MAX_PAIRS]
            ),
            len(enough),
        )


def pairwise_accuracy(
    probabilities: Probabilities, targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how often each class's images get a higher probability of it than of another class.

    - `probabilities`: float array (n, k); out-of-fold probabilities.
    - `targets`: int64 array (n,); class of each label.

    Returns
    -------
    float64 array (k, k)
        Fraction of the images of a class (row) whose probability of that class is above that of
        another (column), ties counting half; 1 for classes without images.
    """
    k = probabilities.shape[1]
    accuracy = np.ones((k, k))
    for label in range(k):
        rows = np.flatnonzero(targets == label)
        if len(rows):
            wins = np.zeros(k)
            for at in range(0, len(rows), BLOCK):
                some = probabilities[rows[at : at + BLOCK]]
                own = some[:, label, None]
                wins += (some < own).sum(axis=0) + 0.5 * (some == own).sum(axis=0)
            accuracy[label] = wins / len(rows)
    return accuracy


FEWEST_OF_CLASS = 10
"""Minimum number of images of a class: of fewer, the mean probability is unreliable, so the labels
are not checked and the class is never suggested."""

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

    - `probabilities`: float array (n, k); out-of-fold probabilities; rows sum to 1.
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
    own = probabilities[np.arange(n), targets].astype(np.float64)
    wrong = own < IMPROBABLE
    for label in range(k):
        rows = np.flatnonzero(targets == label)
        for other in np.flatnonzero(joint[label] >= 0.5):
            if other == label:
                continue
            number = round(float(joint[label, other]))
            against = probabilities[rows, other] - own[rows]  # float64
            wrong[rows[np.argsort(-against, kind="stable")[:number]]] = True
    checked = np.isfinite(limits)
    rows = np.flatnonzero(wrong & (predicted != targets) & checked[predicted])
    margin = own[rows] - probabilities[rows, predicted[rows]].astype(np.float64)
    order = np.lexsort((rows, margin))
    return SuspectLabels(
        rows[order], predicted[rows][order], margin[order], int(checked[targets].sum()) if n else 0
    )


def thresholds(probabilities: Probabilities, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean probability of each class over its images, float64 (k,).

    Infinite for classes of fewer than :data:`FEWEST_OF_CLASS` images.
    """
    n, k = probabilities.shape
    counts = np.bincount(targets, minlength=k)
    sums = np.bincount(targets, weights=probabilities[np.arange(n), targets], minlength=k)
    return np.where(counts >= FEWEST_OF_CLASS, sums / np.maximum(counts, 1), np.inf)


def confident_joint(
    probabilities: Probabilities, targets: NDArray[np.int64], limits: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the number of images by label (row) and confident class (column), int64 (k, k).

    The confident class is the most probable one whose probability reaches its threshold; images
    without one are not counted.
    """
    k = probabilities.shape[1]
    counts = np.zeros(k * k, np.int64)
    for at in range(0, len(targets), BLOCK):
        some = probabilities[at : at + BLOCK]
        reached = np.where(some >= limits, some, -1.0)
        best = reached.argmax(axis=1)
        counted = reached.max(axis=1) >= 0
        cells = targets[at : at + BLOCK][counted] * k + best[counted]
        counts += np.bincount(cells, minlength=k * k)
    return counts.reshape(k, k)


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
