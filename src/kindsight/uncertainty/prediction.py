"""The prediction for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ImageError

__all__ = ["CLIPPED", "Prediction", "Reason"]

CLIPPED = 0.001
"""Fraction of an image's samples outside of the range of values from which it counts as clipped."""

Reason: TypeAlias = Literal["", "unsure", "unknown"]
"""Why a prediction has no label."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image, or the reason why there is none.

    The most probable class is always in :attr:`best`; :attr:`label` is None where the classifier
    does not decide, for the reason in `reason`.

    Parameters
    ----------
    path : str
        As given.
    classes : tuple of str
    logits : array or None
        float32 (classes,); None for an unreadable image.
    probabilities : array or None
        float32 (classes,), 0 to 1, with sum 1.
    error : ImageError or None
        Why there is no prediction.
    clipped : float
        Fraction of the image's samples of more than 8 bits that are outside of the range on which
        the classifier was trained, 0 to 1; 1 if it was trained on images of 8 bits and the file
        does not state its depth.
    reason : {"", "unsure", "unknown"}
        Why there is no label: ``"unsure"`` below the threshold of confidence, ``"unknown"`` for an
        image unlike those of the training; empty if there is a label, or an error.
    ood_score : float or None
        Out-of-distribution score: higher for images less like those of the training; None if the
        classifier has none.
    prediction_set : tuple of str or None
        The classes of the prediction set, most probable first; None if none was requested.
    """

    path: str
    classes: tuple[str, ...]
    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    error: ImageError | None = None
    clipped: float = 0.0
    reason: Reason = ""
    ood_score: float | None = None
    prediction_set: tuple[str, ...] | None = None

    @property
    def label(self) -> str | None:
        """The most probable class; None where the classifier does not decide."""
        return None if self.reason else self.best

    @property
    def best(self) -> str | None:
        """The most probable class; None only for an unreadable image."""
        if self.probabilities is None:
            return None
        return self.classes[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float | None:
        """The probability of the most probable class, 0 to 1."""
        return None if self.probabilities is None else float(self.probabilities.max())

    @property
    def is_clipped(self) -> bool:
        """Whether at least a thousandth of the samples is outside of the training's range."""
        return self.clipped >= CLIPPED

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the `count` most probable classes with their probabilities."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]
