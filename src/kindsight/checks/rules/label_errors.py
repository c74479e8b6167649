"""KS403: labels that are probably wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext, OutOfFoldPredictions
from kindsight.dataset.names import shown
from kindsight.evaluation.intervals import wilson_interval

__all__ = [
    "Doubts",
    "WrongLabels",
    "answers_right",
    "confident_joint",
    "doubt_labels",
    "estimate_joint",
    "thresholds",
]

# SECTION: Confident learning: which labels are probably wrong, from probabilities alone.
#
# C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels",
# Journal of Artificial Intelligence Research 70 (2021), 1373-1411, arXiv:1911.00068. Written from
# the paper. In its words: an image's given label is ``y~`` and its true one ``y*``; the confident
# joint counts the images of each given label that are confidently of each class; from it follows
# how many labels of each pair of classes are wrong, and so many are pruned, those first that speak
# most against their label (section 3.2, "prune by noise rate").

Probabilities = NDArray[np.float64]

FEWEST = 10
"""Images of a class below which its mean probability says too little: such labels are not
doubted, and no image is moved to such a class."""


@dataclass(frozen=True)
class Doubts:
    """Labels that are probably wrong, the most doubtful first.

    Parameters
    ----------
    rows : int64 array (m,)
        Places in the probabilities.
    suggested : int64 array (m,)
        The class that each is probably of.
    margin : float64 array (m,)
        The probability of the given class minus that of the suggested one, -1 to 0.
    judged : int
        How many labels were looked at.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    margin: NDArray[np.float64]
    judged: int


def doubt_labels(probabilities: Probabilities, given: NDArray[np.int64]) -> Doubts:
    """Find labels that are probably wrong.

    Parameters
    ----------
    probabilities : float64 array (n, k)
        Of a classifier that has not seen the image; rows sum to 1.
    given : int64 array (n,)
        The labels, 0 to k - 1.

    Returns
    -------
    Doubts
        Only images for which another class is more probable than their own.
    """
    n, k = probabilities.shape
    limits = thresholds(probabilities, given)
    joint = estimate_joint(confident_joint(probabilities, given, limits), given)
    answer = probabilities.argmax(axis=1)
    own = probabilities[np.arange(n), given]
    wrong = np.zeros(n, np.bool_)
    for label in range(k):
        rows = np.flatnonzero(given == label)
        for other in np.flatnonzero(joint[label] >= 0.5):
            if other == label:
                continue
            number = round(float(joint[label, other]))
            against = probabilities[rows, other] - own[rows]
            wrong[rows[np.argsort(-against, kind="stable")[:number]]] = True
    judged = np.isfinite(limits)
    rows = np.flatnonzero(wrong & (answer != given) & judged[answer])
    margin = own[rows] - probabilities[rows, answer[rows]]
    order = np.lexsort((rows, margin))
    return Doubts(
        rows[order], answer[rows][order], margin[order], int(judged[given].sum()) if n else 0
    )


def thresholds(probabilities: Probabilities, given: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean probability of each class over the images labelled so, float64 (k,).

    Infinite for classes of fewer than :data:`FEWEST` images: nothing is confidently of them.
    """
    n, k = probabilities.shape
    counts = np.bincount(given, minlength=k)
    sums = np.bincount(given, weights=probabilities[np.arange(n), given], minlength=k)
    return np.where(counts >= FEWEST, sums / np.maximum(counts, 1), np.inf)


def confident_joint(
    probabilities: Probabilities, given: NDArray[np.int64], limits: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Count images by given label (row) and the class that they are confidently of (column).

    An image is confidently of a class whose probability reaches the class's threshold; of
    several the most probable. Images that are of none are not counted.
    """
    k = probabilities.shape[1]
    reached = np.where(probabilities >= limits, probabilities, -1.0)
    best = reached.argmax(axis=1)
    counted = reached.max(axis=1) >= 0
    cells = given[counted] * k + best[counted]
    return np.bincount(cells, minlength=k * k).reshape(k, k).astype(np.int64)


def estimate_joint(counts: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scale the confident joint so that each row sums to the images with that label.

    Returns
    -------
    float64 array (k, k)
        How many images of each label (row) are of each class (column). A label without a
        confident image is taken to be right.
    """
    k = len(counts)
    totals = np.bincount(given, minlength=k)
    sums = counts.sum(axis=1)
    scaled: NDArray[np.float64] = counts * (totals / np.maximum(sums, 1))[:, None]
    empty = sums == 0
    scaled[empty, empty] = totals[empty]
    return scaled


class WrongLabels(Check):
    """Labels that a classifier which has not seen the image contradicts with confidence.

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
        given = context.dataset.targets[answers.rows]
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
        self, context: CheckContext, answers: OutOfFoldPredictions, own: int, doubts: Doubts, i: int
    ) -> Finding:
        place, other = int(doubts.rows[i]), int(doubts.suggested[i])
        row = int(answers.rows[place])
        names = context.dataset.classes
        chances = answers.probabilities[place]
        return self.finding(
            context,
            [row],
            f"Labelled {shown(names[own])}; a classifier that has not seen it takes it for "
            f"{shown(names[other])} ({chances[other]:.0%}, against {chances[own]:.0%}).",
            suggestion=names[other],
            value=round(float(doubts.margin[i]), 4),
        )


def answers_right(answers: OutOfFoldPredictions, given: NDArray[np.int64]) -> bool:
    """Say whether the answers are surely better than always naming the commonest label."""
    n = len(given)
    if n == 0:
        return False
    right = int((answers.probabilities.argmax(axis=1) == given).sum())
    commonest = int(np.bincount(given).max()) / n
    return wilson_interval(right, n)[0] > commonest
