"""Prepared images of a backbone that is fine-tuned after its head has been fitted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.models.worker.process import KerasProcess
from kindsight.training.budget.run import fine_tune
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.fine_tuning.state import FineTuningState
from kindsight.training.frozen.prepared import FrozenImages, prepare_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.protocols import FittedModel

__all__ = ["FineTunedImages", "prepare_backbone"]


def prepare_backbone(
    training: FrozenTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> FrozenImages:
    """Return a dataset's frozen features, ready to fit a head and, if configured, to fine-tune."""
    frozen = prepare_frozen(training, dataset, progress, keras)
    return frozen if training.fine_tune_mode == "off" else FineTunedImages(**vars(frozen))


@dataclass(frozen=True)
class FineTunedImages(FrozenImages):
    """Frozen features on which a head is fitted, from which the backbone is then fine-tuned."""

    def warm_up(self, keras: KerasProcess, rows: NDArray[np.int64], *, verify: str) -> None:
        """Start the worker process, which will train."""
        keras.start()

    def fit(
        self,
        classes: Sequence[str],
        rows: NDArray[np.int64],
        validation: NDArray[np.int64],
        *,
        keras: KerasProcess,
        folder: Path | None = None,
        progress: Progress | None = None,
        callback: TrainingCallback | None = None,
    ) -> FittedModel:
        """Fit a head to the images of `rows`, then fine-tune; see :mod:`.run`."""
        head = self.fit_head(classes, rows, progress)
        budget, spent = self.training.budget_seconds, time.monotonic() - self.begun
        own = None
        if folder is None:
            own = tempfile.TemporaryDirectory(prefix="kindsight-")
            folder = Path(own.name)
        state = FineTuningState(
            head, rows, validation, keras, folder,
            seconds=None if budget is None else budget - spent, progress=progress,
            callback=callback, timings={"frozen head": spent}, predicts_afterwards=own is None,
        )  # fmt: skip
        return fine_tune(state, own)
