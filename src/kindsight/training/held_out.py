"""Predictions of images by a model that was not fitted on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation import distinct_images, to_probabilities

__all__ = ["OUT_OF_FOLD", "VALIDATION", "HeldOutPredictions"]

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
