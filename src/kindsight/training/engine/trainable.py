"""What a loop trains: anything with these methods, on these images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.models.steps.optimizers import Optimizer
from kindsight.training.engine.checkpoints import Arrays

__all__ = ["EVALUATION_BATCH", "StoppedError", "Trainable", "TrainingData"]

EVALUATION_BATCH = 64


class StoppedError(Exception):
    """The training was asked to stop, and its checkpoint is written."""


class Trainable(Protocol):
    """What the loop needs; see :class:`~kindsight.models.steps.trainable.TrainableNetwork`."""

    def begin(
        self, optimizer: Optimizer, label_smoothing: float = 0.0, freeze: str | int = "none"
    ) -> None:
        """Begin a phase, in which some layers do not learn."""

    def step(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        rate: float,
        address: tuple[int, int],
    ) -> tuple[float, int]:
        """Learn from a batch; return the sum of losses, and how many are right."""

    def evaluate(self, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of losses, and how many are right."""

    def weights(self) -> Arrays:
        """Return copies of the weights."""

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take weights back."""

    def state(self) -> Arrays:
        """Return copies of the weights and of what the optimiser keeps."""

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take a state back; ValueError for one that does not fit."""


@dataclass(frozen=True)
class TrainingData:
    """What is learned from, and what it is judged on.

    Parameters
    ----------
    inputs : array
        uint8 (rows, height, width, 3), usually mapped from the store; or what else is learned
        from in their place.
    rows, targets : array
        int64 (images,): the training images and their classes; of the rows there may be
        several for each image, (images, views).
    val_rows, val_targets : array
        The same of the validation images; there may be none.
    classes : int
    """

    inputs: NDArray[np.uint8]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    val_targets: NDArray[np.int64]
    classes: int
