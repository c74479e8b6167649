"""Selective classification: accuracy of the images that a classifier labels.

An image is labelled if its confidence (the probability of the most probable class) reaches a
threshold. The risk-coverage curve gives, for each threshold, the fraction of images labelled
(coverage) and their accuracy.

A target accuracy is promised by fixed-sequence testing with several starts: from each start,
thresholds are tested one after another, the more selective first, each by the exact binomial test
of "the accuracy of the labelled images is below the target", until one is not rejected. The lowest
threshold that was rejected is used. Each start has an equal part of the probability of an error,
1 - `CONFIDENCE`, so that the promise fails with at most this probability, for images drawn as the
held-out ones were. With one start, a single wrong label among the most confident predictions would
end the sequence.

References
----------
R. El-Yaniv, Y. Wiener, "On the foundations of noise-free selective classification", JMLR 11, 2010.
Y. Geifman, R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017,
arXiv:1705.08500.
A. N. Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan, L. Lei, "Learn then test: calibrating
predictive algorithms to achieve risk control", 2021, arXiv:2110.01052.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = ["CONFIDENCE", "RiskCoverage", "binomial_tail"]

CONFIDENCE = 0.95
"""Probability that a promised accuracy holds."""

STARTS = 4
"""Starts of the sequence of tests, evenly spaced from the first threshold that can be rejected."""

POINTS = 200
"""Maximum points of a stored curve."""

_PROMISES = 1000  # a promised accuracy is a multiple of a thousandth


@dataclass(frozen=True)
class RiskCoverage:
    """The risk-coverage curve: accuracy and coverage by threshold of confidence.

    Parameters
    ----------
    thresholds : array
        float64 (points,): minimum confidence, 0 to 1, decreasing.
    labelled : array
        int64 (points,): images with at least this confidence, increasing; the last is `images`.
    correct : array
        int64 (points,): correct predictions among them.
    images : int
        Number of held-out images.
    """

    thresholds: NDArray[np.float64]
    labelled: NDArray[np.int64]
    correct: NDArray[np.int64]
    images: int

    @classmethod
    def measure(
        cls, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
    ) -> RiskCoverage:
        """Return the curve of held-out predictions.

        Parameters
        ----------
        probabilities : float array (n, k)
            Of images that the classifier was not fitted on, n at least 1.
        targets : int array (n,)
            Class indices.
        """
        if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1] or not len(targets):
            raise UsageError(
                "`probabilities` must have the shape (n, k) and `targets` (n,), n at least 1; "
                f"got {probabilities.shape} and {targets.shape}."
            )
        confidence = probabilities.max(axis=1).astype(np.float64)
        correct = probabilities.argmax(axis=1) == targets
        order = np.argsort(-confidence, kind="stable")
        falling, n = confidence[order], len(order)
        hits = np.cumsum(correct[order])
        counts = np.unique(np.ceil(np.linspace(1, n, min(n, POINTS))).astype(np.int64))
        # Images of equal confidence are labelled together.
        counts = np.unique(np.searchsorted(-falling, -falling[counts - 1], side="right"))
        return cls(falling[counts - 1], counts.astype(np.int64), hits[counts - 1], n)

    @property
    def coverage(self) -> NDArray[np.float64]:
        """float64 (points,): fraction of the images labelled."""
        return self.labelled / self.images

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """float64 (points,): accuracy of the labelled images."""
        return self.correct / self.labelled

    def threshold_for_coverage(self, coverage: float) -> float:
        """Return the highest threshold at which a new image is labelled with this probability.

        The threshold is the confidence of the ceil(coverage x (n + 1))-th most confident image, so
        that the probability is at least `coverage` for images drawn as the held-out ones were; 0
        where n images are too few for that.
        """
        needed = math.ceil(coverage * (self.images + 1) - 1e-9)
        (enough,) = np.nonzero(self.labelled >= needed)
        return float(self.thresholds[enough[0]]) if len(enough) else 0.0

    def threshold_for_accuracy(self, accuracy: float) -> float | None:
        """Return the lowest threshold that promises an accuracy; None if none does.

        See this module's description. The threshold is 0 if all images are labelled.
        """
        if accuracy >= 1:
            return None
        error = (1 - CONFIDENCE) / STARTS
        # With fewer images, even zero errors are not enough.
        fewest = 1 if accuracy <= 0 else math.log(error) / math.log(accuracy)
        first, last = int(np.searchsorted(self.labelled, fewest)), len(self.labelled) - 1
        reached = -1
        for start in (
            np.unique(np.linspace(first, last, STARTS).astype(int)) if first <= last else ()
        ):
            point = max(int(start), reached + 1)
            while point <= last and self._error(point, accuracy) <= error:
                reached = point
                point += 1
        if reached < 0:
            return None
        return 0.0 if reached == last else float(self.thresholds[reached])

    def _error(self, point: int, accuracy: float) -> float:
        """Return the probability of at most the observed errors at a given true accuracy."""
        labelled = int(self.labelled[point])
        return binomial_tail(labelled - int(self.correct[point]), labelled, 1 - accuracy)

    def highest_accuracy(self) -> float:
        """Return the highest accuracy, in thousandths, that some threshold promises; 0 if none."""
        low, high = 0, _PROMISES
        while high - low > 1:
            middle = (low + high) // 2
            found = self.threshold_for_accuracy(middle / _PROMISES) is not None
            low, high = (middle, high) if found else (low, middle)
        return low / _PROMISES

    def at(self, threshold: float) -> tuple[float, float]:
        """Return coverage and accuracy at a threshold; the accuracy is NaN if none is labelled."""
        reached = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        if reached < 0:
            return 0.0, math.nan
        return float(self.coverage[reached]), float(self.accuracy[reached])

    def to_list(self) -> list[list[float]]:
        """Return [minimum confidence, coverage, accuracy] of each point, for JSON."""
        columns = (self.thresholds, self.coverage, self.accuracy)
        return [[float(value) for value in row] for row in zip(*columns, strict=True)]

    @classmethod
    def from_list(cls, points: object, images: object) -> RiskCoverage:
        """Return the curve written by :meth:`to_list`; UsageError if it is damaged."""
        if type(images) is not int or not 1 <= images < 2**53 or not isinstance(points, list):
            raise UsageError("The curve must be a list of points, of at least one image.")
        if not 1 <= len(points) <= POINTS or not all(map(_is_point, points)):
            raise UsageError(f"The curve must have 1 to {POINTS} points of three fractions.")
        thresholds, coverage, accuracy = np.array(points, np.float64).T
        labelled = np.rint(coverage * images).astype(np.int64)
        if (np.diff(thresholds) >= 0).any() or (np.diff(labelled) <= 0).any() or labelled[0] < 1:
            raise UsageError("The curve's coverage must rise as the confidence falls.")
        return cls(thresholds, labelled, np.rint(accuracy * labelled).astype(np.int64), images)


def _is_point(point: object) -> bool:
    return (
        isinstance(point, Sequence)
        and len(point) == 3
        and all(type(value) in (int, float) and 0 <= value <= 1 + 1e-6 for value in point)
    )


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """Return the probability of at most `successes` in independent `trials`, exactly."""
    if successes >= trials or probability <= 0:
        return 1.0
    if probability >= 1:
        return 0.0
    counts = np.arange(1, successes + 1)
    # log C(n, k) as a sum of log((n - k + 1) / k).
    choices = np.concatenate([[0.0], np.cumsum(np.log((trials - counts + 1) / counts))])
    hits = np.arange(successes + 1)
    logs = choices + hits * math.log(probability) + (trials - hits) * math.log1p(-probability)
    largest = logs.max()
    return min(1.0, float(np.exp(logs - largest).sum() * math.exp(largest)))
