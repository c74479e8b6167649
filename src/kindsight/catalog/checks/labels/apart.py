"""KS405: classes that the features cannot tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.names import shown
from kindsight.intervals import wilson_interval

__all__ = ["ClassesAlike", "told_apart"]

SURELY_BELOW = 0.75
"""Half way from guessing to certainty, for two classes."""

FEWEST = 10
"""Pictures that each of two classes must have."""

MOST = 50
"""Pairs that are listed."""


class ClassesAlike(Check):
    """Pairs of classes that a classifier confuses nearly as if it guessed between the two."""

    code = "KS405"
    title = "Classes that cannot be told apart"
    severity = "warning"
    cost = "full"
    advice = "Merge them if they are one thing; else try larger pictures: --size 300."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare each class with each other one."""
        answers = context.out_of_fold
        if answers is None or answers.probabilities.shape[1] < 2 or not len(answers.rows):
            return self.not_applicable("There are no answers of a classifier to hold labels to.")
        given = context.catalog.targets[answers.rows]
        counts = np.bincount(given, minlength=answers.probabilities.shape[1])
        right = told_apart(answers.probabilities, given)
        enough = np.flatnonzero(counts >= FEWEST)
        alike = []
        for i, one in enumerate(enough.tolist()):
            for other in enough[i + 1 :].tolist():
                # Both classes count alike, as many pictures as the rarer one has.
                n = 2 * int(min(counts[one], counts[other]))
                share = (right[one, other] + right[other, one]) / 2
                _, high = wilson_interval(round(share * n), n)
                if high < SURELY_BELOW:
                    alike.append((float(share), one, other, high))
        names = context.catalog.classes
        return self.result(
            (
                self.finding_outside(
                    [names[one], names[other]],
                    f"Between {shown(names[one])} and {shown(names[other])} a classifier is right "
                    f"for {share:.0%} of their pictures, for {high:.0%} at most (95% interval); "
                    "guessing gives 50%.",
                    value=round(share, 4),
                )
                for share, one, other, high in sorted(alike)[:MOST]
            ),
            len(enough),
        )


def told_apart(probabilities: NDArray[np.float64], given: NDArray[np.int64]) -> NDArray[np.float64]:
    """Say how often a class is told from each other one, when only these two are in question.

    Parameters
    ----------
    probabilities : float64 array (n, k)
        Of a classifier that has not seen the picture.
    given : int64 array (n,)
        The labels.

    Returns
    -------
    float64 array (k, k)
        The share of a class's pictures (row) whose own probability is above that of another
        (column), ties counting half; 1 for a class without pictures.
    """
    k = probabilities.shape[1]
    right = np.ones((k, k))
    for label in range(k):
        rows = probabilities[given == label]
        if len(rows):
            ahead = rows[:, label, None] - rows
            right[label] = ((ahead > 0) + 0.5 * (ahead == 0)).mean(axis=0)
    return right
