"""The decision: whether the best experiment is better than the original by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.paired import PairedComparison
from kindsight.runs.improve.experiments import Experiment
from kindsight.training.acceptance import is_clearly_better

__all__ = ["LEVEL", "Verdict", "accepts", "decide", "loss_test", "no_change"]

LEVEL = 0.05
"""Probability that a search whose changes are all worthless recommends one."""

# Images from which on the mean of log losses is about normally distributed.
MIN_LOSSES = 30


@dataclass(frozen=True)
class Verdict:
    """Whether the best experiment is better than the original.

    Parameters
    ----------
    accepted : bool
    best : Experiment or None
        None where nothing had a lower log loss than the original.
    difference : PairedComparison or None
        On the images that decided.
    folds : tuple of int
        Folds that decided.
    tests : int
        Comparisons by which the p-value was multiplied.
    p_value : float
        Of the lower log losses, multiplied.
    reason : str
        A sentence.
    """

    accepted: bool
    best: Experiment | None
    difference: PairedComparison | None
    folds: tuple[int, ...]
    tests: int
    p_value: float
    reason: str


def decide(
    best: Experiment,
    original: Experiment,
    explored: tuple[int, ...],
    fresh: tuple[int, ...],
    tried: int,
) -> Verdict:
    """Return whether the best of several experiments is better than the original.

    It must pass the rule of acceptance; its log losses must be lower than chance explains, with the
    p-value multiplied by the number of experiments that competed on these images; and so must be
    its errors, in a one-sided McNemar test. Images that did not choose it, with one comparison, and
    those that did each have half of :data:`LEVEL`.

    Parameters
    ----------
    best, original : Experiment
    explored : tuple of int
        Folds that chose the best one.
    fresh : tuple of int
        Other folds of both.
    tried : int
        Experiments that competed.
    """
    chances = [(fresh, 1)] if fresh else []
    usable = tuple(fold for fold in explored if best.has((fold,)) and original.has((fold,)))
    chances += [(usable, max(1, tried))] if usable else []
    verdicts = []
    for folds, tests in chances:
        difference = best.compare(original, folds)
        p_value = min(1.0, tests * loss_test(best.losses(folds), original.losses(folds)))
        fewer_errors = difference.difference > 0 and difference.p_value / 2 <= LEVEL
        accepted = (
            accepts(best, original, folds) and p_value <= LEVEL / len(chances) and fewer_errors
        )
        reason = "Chance does not explain the gain."
        if not accepted:
            reason = f"Chance explains the gain of the best experiment ({best.words})."
        verdicts.append(Verdict(accepted, best, difference, folds, tests, p_value, reason))
    return next((each for each in verdicts if each.accepted), verdicts[0])


def loss_test(new: NDArray[np.float64], old: NDArray[np.float64]) -> float:
    """Return the probability of losses at least as much lower if both classifiers were equal.

    The one-sided z-test of the mean of the paired differences. With fewer than
    :data:`MIN_LOSSES` images, whose mean need not be normally distributed, it is 1.
    """
    differences = old - new
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if len(differences) < MIN_LOSSES or spread == 0.0:
        return 1.0
    z = float(differences.mean()) / (spread / math.sqrt(len(differences)))
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def accepts(one: Experiment, other: Experiment, folds: tuple[int, ...]) -> bool:
    """Return whether an experiment is clearly better on folds, by the rule of acceptance."""
    return is_clearly_better(
        one.log_loss(folds), other.log_loss(folds), one.correct(folds), other.correct(folds)
    )


def no_change(reason: str) -> Verdict:
    """Return the verdict that nothing helped."""
    return Verdict(False, None, None, (), 0, 1.0, reason)
