"""Split conformal prediction: sets of classes that contain the true one with a stated frequency.

The conformity score of an image is 1 minus the probability of its class (LAC, least ambiguous
set-valued classifier). The set of a new image has every class whose score is at most the
ceil((n + 1) x confidence level)-th smallest of the n held-out scores: for images drawn as these
were, it contains the true class with a probability of at least the confidence level, and of at most
1 / (n + 1) more without ties. Per class (Mondrian), each class has the quantile of its own images,
and the promise holds for each.

A set may be empty. That is no error: it means that the most probable class is less probable than
usual, and it is frequent where the classifier's accuracy is above the confidence level.

References
----------
V. Vovk, A. Gammerman, G. Shafer, "Algorithmic learning in a random world", Springer, 2005.
M. Sadinle, J. Lei, L. Wasserman, "Least ambiguous set-valued classifiers with bounded error
levels", Journal of the American Statistical Association 114, 2019, arXiv:1609.00451.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError, UsageError

__all__ = [
    "LEVEL", "METHOD", "ConformalSets", "check_level", "conformal_quantile", "smallest_count",
]  # fmt: skip

LEVEL = 0.9
"""The default confidence level."""

METHOD = "lac"
"""The conformity score: 1 minus the probability of the class."""

MAX_IMAGES = 20_000
"""Images whose scores are stored; of more, every second, third and so on, which changes nothing of
the promise."""

_ROUNDING = 1e-6  # runtimes' probabilities differ by this much


@dataclass(frozen=True)
class ConformalSets:
    """Held-out conformity scores, from which the sets of any confidence level follow.

    Parameters
    ----------
    scores : tuple of array
        float64 (images of the class,): increasing conformity scores of each class, in the order of
        the probabilities; 0 to 1.
    per_class : bool
        Whether the level is promised for each class, not for all images together.
    """

    scores: tuple[NDArray[np.float64], ...]
    per_class: bool = False

    @classmethod
    def measure(
        cls,
        probabilities: NDArray[np.floating[Any]],
        targets: NDArray[np.integer[Any]],
        *,
        per_class: bool = False,
    ) -> ConformalSets:
        """Return the scores of held-out predictions.

        Parameters
        ----------
        probabilities : float array (n, k)
            Of images that the classifier was not fitted on.
        targets : int array (n,)
            Class indices, 0 to k - 1.
        per_class : bool
            Whether the level is promised for each class.
        """
        if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
            raise UsageError(
                "`probabilities` must have the shape (n, k) and `targets` (n,); "
                f"got {probabilities.shape} and {targets.shape}."
            )
        every = np.arange(0, len(targets), 1 + len(targets) // MAX_IMAGES)
        own = 1.0 - probabilities[every, targets[every]].astype(np.float64)
        classes = range(probabilities.shape[1])
        return cls(tuple(np.sort(own[targets[every] == number]) for number in classes), per_class)

    @property
    def images(self) -> int:
        """Number of scores."""
        return sum(map(len, self.scores))

    def quantiles(self, confidence_level: float = LEVEL) -> NDArray[np.float64]:
        """Return the largest score that each class may have to be in a set.

        Returns
        -------
        array
            float64 (classes,): infinite where there are too few images for the level; equal for
            all classes unless `per_class`.
        """
        check_level(confidence_level)
        if self.per_class:
            return np.array([conformal_quantile(own, confidence_level) for own in self.scores])
        every = np.sort(np.concatenate(self.scores))
        return np.full(len(self.scores), conformal_quantile(every, confidence_level))

    def predict(
        self, probabilities: NDArray[np.floating[Any]], confidence_level: float = LEVEL
    ) -> NDArray[np.bool_]:
        """Return which classes are in each image's set, bool (n, classes)."""
        return self.contains(probabilities, self.quantiles(confidence_level))

    @staticmethod
    def contains(
        probabilities: NDArray[np.floating[Any]], quantiles: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return which classes are in each image's set, by the quantiles of a level."""
        inside: NDArray[np.bool_] = 1.0 - probabilities.astype(np.float64) <= quantiles + _ROUNDING
        return inside

    def to_dict(self) -> dict[str, Any]:
        """Return method, kind and scores, for JSON."""
        rounded = [[float(f"{score:.7g}") for score in own] for own in self.scores]
        return {"method": METHOD, "per_class": self.per_class, "scores": rounded}

    @classmethod
    def from_dict(cls, values: object, classes: int) -> ConformalSets:
        """Return what :meth:`to_dict` wrote; UsageError if it is damaged or of another method."""
        if not isinstance(values, dict) or values.get("method") != METHOD:
            raise UsageError(f"The prediction sets must be of the method {METHOD!r}.")
        scores, per_class = values.get("scores"), values.get("per_class", False)
        if not isinstance(scores, list) or len(scores) != classes or type(per_class) is not bool:
            raise UsageError(f"The prediction sets must have the scores of {classes} classes.")
        if not all(map(_are_scores, scores)):
            raise UsageError("The scores of each class must be increasing numbers from 0 to 1.")
        return cls(tuple(np.array(own, np.float64) for own in scores), per_class)


def conformal_quantile(scores: NDArray[np.float64], confidence_level: float) -> float:
    """Return the ceil((n + 1) x level)-th smallest of n sorted scores; infinite beyond the n-th."""
    # Rounded first: 0.9 * 10 is 9.000000000000002 in some orders of operations.
    rank = math.ceil(round((len(scores) + 1) * confidence_level, 9))
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def smallest_count(confidence_level: float) -> int:
    """Return the number of images from which a set need not have all classes."""
    count = max(1, math.floor(confidence_level / (1 - confidence_level)) - 1)
    while math.isinf(conformal_quantile(np.zeros(count), confidence_level)):
        count += 1
    return count


def check_level(level: float, name: str = "confidence_level") -> None:
    """Raise SettingsError for a confidence level that is not between 0 and 1."""
    if not isinstance(level, (int, float, np.floating)) or not 0 < level < 1:
        raise SettingsError(
            f"`{name}` must be a confidence level between 0 and 1, such as 0.9; got {level!r}."
        )


def _are_scores(own: object) -> bool:
    if not isinstance(own, Sequence) or isinstance(own, str) or len(own) > MAX_IMAGES:
        return False
    if not all(type(score) in (int, float) and -1e-6 <= score <= 1 + 1e-6 for score in own):
        return False
    return bool((np.diff(np.array(own, np.float64)) >= 0).all())
