"""KS401, KS402 and KS405: duplicates with different labels, and near-identical classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, Severity
from kindsight.checks.context import CheckContext, OutOfFoldPredictions
from kindsight.checks.duplicates.search import differing_groups
from kindsight.dataset.names import quoted, quoted_list
from kindsight.dataset.table import ImageDataset
from kindsight.evaluation import wilson_interval

__all__ = [
    "NO_PREDICTIONS",
    "DuplicatesWithDifferentLabels",
    "IdenticalWithDifferentLabels",
    "NearIdenticalClasses",
    "majority_label",
    "pairwise_accuracy",
    "usable_predictions",
]

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
        rows_of: dict[str, list[int]] = {}
        for row in context.readable_rows.tolist():
            digest, label = dataset.digest[row], dataset.label[row]
            if digest is not None and label is not None:
                rows_of.setdefault(digest, []).append(row)
        findings = []
        for rows in rows_of.values():
            labels = sorted({str(dataset.label[row]) for row in rows})
            if len(labels) > 1:
                message = f"Identical files are labelled {quoted_list(labels)}."
                suggestion = majority_label(dataset, rows)
                findings.append(self.finding(context, rows, message, suggestion=suggestion))
        return self.result(findings, sum(map(len, rows_of.values())))


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


MAX_ACCURACY = 0.75
"""Upper end of the 95% interval of the pairwise accuracy, below which two classes are reported:
half-way between random guessing and perfect separation."""

FEWEST = 10
"""Images that each of the two classes needs."""

MAX_PAIRS = 50
"""Pairs that are reported."""


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
    probabilities: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how often images of a class are preferred to each other class.

    - `probabilities`: float64 array (n, k); out-of-fold probabilities.
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
        rows = probabilities[targets == label]
        if len(rows):
            ahead = rows[:, label, None] - rows
            accuracy[label] = ((ahead > 0) + 0.5 * (ahead == 0)).mean(axis=0)
    return accuracy
