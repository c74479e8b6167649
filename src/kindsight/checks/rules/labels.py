"""KS401: one image, byte for byte, under several labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.dataset.names import shown, shown_list
from kindsight.dataset.table import ImageDataset
from kindsight.evaluation.intervals import wilson_interval

__all__ = [
    "ClassesAlike",
    "CopiesSeveralLabels",
    "SameImageSeveralLabels",
    "label_of_most",
    "separability",
]

# SECTION: What the copies of an image agree on.


def label_of_most(dataset: ImageDataset, rows: Sequence[int]) -> str | None:
    """Return the label that more than half of the rows have; None where none has."""
    label, n = Counter(dataset.label[row] for row in rows).most_common(1)[0]
    return label if 2 * n > len(rows) else None


class SameImageSeveralLabels(Check):
    """Byte-identical files with different labels: at least one of them is wrong."""

    code = "KS401"
    title = "The same image under several labels"
    severity = "error"
    advice = "Keep the file that is in the right class."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the labels of files with one digest."""
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
                findings.append(
                    self.finding(
                        context,
                        rows,
                        f"One image, byte for byte, is labelled {shown_list(labels)}.",
                        suggestion=label_of_most(dataset, rows),
                    )
                )
        return self.result(findings, sum(map(len, rows_of.values())))


# SECTION: KS402: copies of one image, stored anew or nearly alike, under several labels.


class CopiesSeveralLabels(Check):
    """Copies of an image with different labels, where they are not byte-identical.

    An image that was merely stored anew cannot be of two classes: an error. Mirrored ones, and
    images of one burst, can be.
    """

    code = "KS402"
    title = "Copies of an image under several labels"
    severity = "error"
    advice = "Look at them side by side and give them one label."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the labels of copies."""
        dataset = context.dataset
        if not any(dataset.label):
            return self.not_applicable("The images have no labels.")
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        copies = find_duplicates(context)
        told: set[tuple[int, ...]] = set()
        findings: list[Finding] = []
        for kinds, what in (
            (("identical", "stored"), "The same image, stored anew,"),
            (("identical", "stored", "turned"), "The same image, mirrored or turned,"),
            (("identical", "stored", "turned", "near"), "Nearly the same image"),
        ):
            severity = "error" if len(kinds) == 2 else "warning"
            for rows in copies.groups(kinds):
                group = tuple(rows.tolist())
                labels = sorted({str(dataset.label[r]) for r in group if dataset.label[r]})
                same = len({dataset.digest[row] for row in group}) == 1
                if len(labels) < 2 or same or group in told:
                    continue
                told.add(group)
                findings.append(
                    self.finding(
                        context,
                        group,
                        f"{what} is labelled {shown_list(labels)}.",
                        suggestion=label_of_most(dataset, group),
                        severity=severity,  # type: ignore[arg-type]
                    )
                )
        return self.result(findings, len(context.readable_rows))


# SECTION: KS405: classes that the features cannot tell apart.

SURELY_BELOW = 0.75
"""Half way from guessing to certainty, for two classes."""

FEWEST = 10
"""Images that each of two classes must have."""

MOST = 50
"""Pairs that are listed."""


class ClassesAlike(Check):
    """Pairs of classes that a classifier confuses nearly as if it guessed between the two."""

    code = "KS405"
    title = "Classes that cannot be told apart"
    severity = "warning"
    cost = "full"
    advice = "Merge them if they are one thing; else try larger images: --size 300."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare each class with each other one."""
        answers = context.out_of_fold
        if answers is None or answers.probabilities.shape[1] < 2 or not len(answers.rows):
            return self.not_applicable("There are no answers of a classifier to hold labels to.")
        given = context.dataset.targets[answers.rows]
        counts = np.bincount(given, minlength=answers.probabilities.shape[1])
        right = separability(answers.probabilities, given)
        enough = np.flatnonzero(counts >= FEWEST)
        alike = []
        for i, one in enumerate(enough.tolist()):
            for other in enough[i + 1 :].tolist():
                # Both classes count alike, as many images as the rarer one has.
                n = 2 * int(min(counts[one], counts[other]))
                share = (right[one, other] + right[other, one]) / 2
                _, high = wilson_interval(round(share * n), n)
                if high < SURELY_BELOW:
                    alike.append((float(share), one, other, high))
        names = context.dataset.classes
        return self.result(
            (
                self.finding_about(
                    [names[one], names[other]],
                    f"Between {shown(names[one])} and {shown(names[other])} a classifier is right "
                    f"for {share:.0%} of their images, for {high:.0%} at most (95% interval); "
                    "guessing gives 50%.",
                    value=round(share, 4),
                )
                for share, one, other, high in sorted(alike)[:MOST]
            ),
            len(enough),
        )


def separability(
    probabilities: NDArray[np.float64], given: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Say how often a class is told from each other one, when only these two are in question.

    Parameters
    ----------
    probabilities : float64 array (n, k)
        Of a classifier that has not seen the image.
    given : int64 array (n,)
        The labels.

    Returns
    -------
    float64 array (k, k)
        The share of a class's images (row) whose own probability is above that of another
        (column), ties counting half; 1 for a class without images.
    """
    k = probabilities.shape[1]
    right = np.ones((k, k))
    for label in range(k):
        rows = probabilities[given == label]
        if len(rows):
            ahead = rows[:, label, None] - rows
            right[label] = ((ahead > 0) + 0.5 * (ahead == 0)).mean(axis=0)
    return right
