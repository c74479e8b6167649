"""What the training loop needs: a trainable network, and its training data."""

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
    """The training was stopped, and its checkpoint is written."""


class Trainable(Protocol):
    """See :class:`~kindsight.models.steps.trainable.TrainableNetwork`."""

    def begin(
        self, optimizer: Optimizer, label_smoothing: float = 0.0, freeze: str | int = "none"
    ) -> None:
        """Start a phase with a new optimizer state."""

    def step(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        learning_rate: float,
        random_key: tuple[int, int],
    ) -> tuple[float, int]:
        """Train on a batch; return the sum of losses and the number of correct predictions."""

    def evaluate(self, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of losses and the number of correct predictions."""

    def weights(self) -> Arrays:
        """Return copies of the weights."""

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore weights."""

    def state(self) -> Arrays:
        """Return copies of the weights and the optimizer's state."""

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore a state; ValueError if it does not fit."""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images of a phase; the latter may be empty.

    `inputs` and the int64 (images,) `rows` and `targets` are as of :class:`.batches.Batches`.
    """

    inputs: NDArray[np.uint8]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    val_targets: NDArray[np.int64]
    classes: int
