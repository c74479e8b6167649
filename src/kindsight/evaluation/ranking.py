"""How well the probability of a class ranks its images above the others: ROC AUC, precision.

Each class is compared with all others together.

References
----------
E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated
receiver operating characteristic curves", Biometrics 44 (1988), 837-845.

K. Boyd, K. H. Eng, C. D. Page, "Area under the precision-recall curve: point estimates and
confidence intervals", ECML PKDD 2013, 451-466.

G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures: a general approach",
Statistics in Medicine 27 (2008), 1693-1702.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.intervals import auc_interval, wilson_interval

__all__ = ["ClassRanking", "Ranking", "label_ranks", "rank_images"]

_PAIRS = math.sqrt(2)
"""Ratio of standard errors where no class has an error: classes are dependent in pairs."""


class ClassRanking(NamedTuple):
    """ROC AUC and average precision of one class; NaN without images of it or of others."""

    roc_auc: float = math.nan
    roc_auc_interval: tuple[float, float] = (math.nan, math.nan)
    average_precision: float = math.nan
    average_precision_interval: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class Ranking:
    """The ranking of each class, and the mean over the classes for which it is defined."""

    classes: tuple[ClassRanking, ...]
    mean: ClassRanking


def rank_images(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> Ranking:
    """Return ROC AUC and average precision, one class against the rest, with 95% intervals.

    Parameters
    ----------
    probabilities : float array (n, k)
    targets : int array (n,)
        Class indices.

    Notes
    -----
    A class's AUC has the interval of Newcombe 2006, its average precision Wilson's interval of a
    proportion of its images (Boyd et al. 2013). For the mean, the distances to the ends are
    combined as those of independent classes (Zou and Donner 2008), times the ratio of the standard
    errors of dependent and independent classes, both by DeLong's influences of single images.
    """
    n, k = probabilities.shape
    figures = np.full((2, k), np.nan)
    errors = np.full((2, k), np.nan)
    influence = np.zeros((2, n))
    support = np.bincount(targets, minlength=k)
    for label in np.flatnonzero((support > 0) & (support < n)):
        own = targets == label
        figures[:, label], single = _rank_class(probabilities[:, label], own)
        errors[:, label] = np.sqrt((single**2).sum(axis=1))
        influence += single
    defined = ~np.isnan(figures[0])
    ends = np.full((2, k, 2), np.nan)
    ends[0] = auc_interval(figures[0], support, n - support)
    for label in np.flatnonzero(defined):
        positives = int(support[label])
        ends[1, label] = wilson_interval(float(figures[1, label]) * positives, positives)
    classes = tuple(
        ClassRanking(
            float(figures[0, i]), _pair(ends[0, i]), float(figures[1, i]), _pair(ends[1, i])
        )
        for i in range(k)
    )
    if not defined.any():
        return Ranking(classes, ClassRanking())
    means = figures[:, defined].mean(axis=1)
    of_mean = np.sqrt((influence**2).sum(axis=1)) / defined.sum()
    independent = np.sqrt((errors[:, defined] ** 2).sum(axis=1)) / defined.sum()
    factor = np.divide(of_mean, independent, out=np.full(2, _PAIRS), where=independent > 0)
    widths = np.abs(ends[:, defined] - figures[:, defined, None])
    wide = np.maximum(1, factor)[:, None] * np.sqrt((widths**2).sum(axis=1)) / defined.sum()
    low, high = np.maximum(0, means - wide[:, 0]), np.minimum(1, means + wide[:, 1])
    mean = ClassRanking(
        float(means[0]), (float(low[0]), float(high[0])),
        float(means[1]), (float(low[1]), float(high[1])),
    )  # fmt: skip
    return Ranking(classes, mean)


def label_ranks(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """Return the number of classes ranked above the label: int64 (n,); ties by class order."""
    own = np.take_along_axis(probabilities, targets[:, None].astype(np.int64), axis=1)
    before = np.arange(probabilities.shape[1]) < targets[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & before)
    return np.asarray(ahead.sum(axis=1), np.int64)


def _rank_class(
    scores: NDArray[np.floating[Any]], own: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AUC and average precision (2,), and each image's influence on both (2, n)."""
    positive, negative = np.sort(scores[own]), np.sort(scores[~own])
    p, q = len(positive), len(negative)
    # Of each positive: negatives below and up to its score; positives and negatives at least there.
    below, up_to = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
    wins = (below + up_to) / (2 * q)
    found = p - np.searchsorted(positive, positive, "left")
    listed = found + q - below
    precision = found / listed
    auc, average = float(wins.mean()), float(precision.mean())
    # A positive raises the precision of all positives up to its score; a negative lowers it.
    gained = np.concatenate([[0.0], np.cumsum(1 / listed)])
    lost = np.concatenate([[0.0], np.cumsum(precision / listed)])
    influence = np.empty((2, len(scores)))
    place = (
        np.searchsorted(positive, scores[own], "left"),
        np.searchsorted(positive, scores[own], "right"),
    )
    influence[0, own] = (wins[place[0]] - auc) / p
    influence[1, own] = (precision[place[0]] - average + gained[place[1]] - lost[place[1]]) / p
    left, right = (np.searchsorted(positive, scores[~own], side) for side in ("left", "right"))
    influence[0, ~own] = (1 - (left + right) / (2 * p) - auc) / q
    influence[1, ~own] = -lost[right] / p
    return np.array([auc, average]), influence


def _pair(ends: NDArray[np.float64]) -> tuple[float, float]:
    return float(ends[0]), float(ends[1])
