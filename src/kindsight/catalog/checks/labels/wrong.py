"""KS403: labels that are probably wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.context import CheckContext, OutOfFold
from kindsight.catalog.checks.contract import Check, CheckResult, Finding
from kindsight.catalog.checks.labels.confident import Doubts, doubt_labels
from kindsight.catalog.names import shown
from kindsight.intervals import wilson_interval

__all__ = ["WrongLabels", "answers_right"]


class WrongLabels(Check):
    """Labels that a classifier which has not seen the picture contradicts with confidence.

    Confident learning (Northcutt, Jiang, Chuang 2021) on out-of-fold probabilities.
    """

    code = "KS403"
    title = "Labels that are probably wrong"
    severity = "warning"
    cost = "full"
    advice = "Look at each; --apply FILE writes a table with the suggested labels."

    def run(self, context: CheckContext) -> CheckResult:
        """Doubt the labels."""
        answers = context.out_of_fold
        if answers is None or answers.probabilities.shape[1] < 2 or not len(answers.rows):
            return self.not_applicable("There are no answers of a classifier to hold labels to.")
        given = context.catalog.targets[answers.rows]
        if not answers_right(answers, given):
            return self.not_applicable(
                "The features tell these classes apart no better than guessing does, so they "
                "cannot say which label is wrong."
            )
        doubts = doubt_labels(answers.probabilities, given)
        return self.result(
            [
                self._finding(context, answers, int(given[doubts.rows[i]]), doubts, i)
                for i in range(len(doubts.rows))
            ],
            doubts.judged,
        )

    def _finding(
        self, context: CheckContext, answers: OutOfFold, own: int, doubts: Doubts, i: int
    ) -> Finding:
        place, other = int(doubts.rows[i]), int(doubts.suggested[i])
        row = int(answers.rows[place])
        names = context.catalog.classes
        chances = answers.probabilities[place]
        return self.finding(
            context,
            [row],
            f"Labelled {shown(names[own])}; a classifier that has not seen it takes it for "
            f"{shown(names[other])} ({chances[other]:.0%}, against {chances[own]:.0%}).",
            suggestion=names[other],
            value=round(float(doubts.margin[i]), 4),
        )


def answers_right(answers: OutOfFold, given: NDArray[np.int64]) -> bool:
    """Say whether the answers are surely better than always naming the commonest label."""
    n = len(given)
    if n == 0:
        return False
    right = int((answers.probabilities.argmax(axis=1) == given).sum())
    commonest = int(np.bincount(given).max()) / n
    return wilson_interval(right, n)[0] > commonest
