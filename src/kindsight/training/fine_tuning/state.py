"""The state of one fine-tuning: what it starts from, and what was decided on the way."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.labels import class_indices
from kindsight.files import write_json
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.frozen.fitted import FittedFrozenHead

__all__ = ["DECISIONS_FILE", "MIN_VALIDATION_IMAGES", "MONITOR", "FineTuningState"]

MONITOR = "loss"
"""The validation metric that selects the best epoch."""

MIN_VALIDATION_IMAGES = 10
"""With fewer images a difference could not be measured."""

DECISIONS_FILE = "fine_tuning.json"
"""Decisions that depend on measured time, in the folder of an unfinished run."""

MAX_DECISIONS_BYTES = 2**16

DECISIONS_FORMAT = 5
"""Raised whenever a stored decision would be made otherwise, or means something else."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FineTuningState:
    """What a fine-tuning starts from and has measured so far.

    Parameters
    ----------
    fitted : FittedFrozenHead
        The head that the network starts as.
    rows, validation : array
        int64: rows of the training images, and of those that choose and judge.
    keras : KerasProcess
        The worker process of :mod:`.worker`.
    folder : pathlib.Path
        For checkpoints, decisions and the network's files.
    wide : FittedFrozenHead, optional
        A head on wider features, which the network must beat and may join as an ensemble.
    seconds : float, optional
        Time budget from now on; none if omitted.
    progress, callback : optional
        Notified of stages and epochs.
    predicts_afterwards : bool
        Whether validation and test images are predicted within the budget, as a run does.
    tta_flips : int
        Flips over which the network may average its logits.
    seconds_per_image : float
        Seconds the network takes for an image; 0 where not measured yet.
    head_seconds_per_image : float
        The same of the first frozen head's network.
    wide_seconds_per_image : float
        The same of wider features that were accepted.

    Attributes
    ----------
    timings : dict of str to float
        Seconds by stage.
    notes : list of str
        The choices made, as phrases of the description.
    started : float
        ``time.monotonic()`` of the beginning.
    """

    fitted: FittedFrozenHead
    rows: Rows
    validation: Rows
    keras: KerasProcess
    folder: Path
    wide: FittedFrozenHead | None = None
    seconds: float | None = None
    progress: Progress | None = None
    callback: TrainingCallback | None = None
    predicts_afterwards: bool = True
    tta_flips: int = 1
    seconds_per_image: float = 0.0
    head_seconds_per_image: float = 0.0
    wide_seconds_per_image: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def incumbent(self) -> FittedFrozenHead:
        """The head that the network must beat."""
        return self.wide or self.fitted

    def stage_progress(self, stage: str) -> Callable[[int, int], None]:
        """Return a callable of (done, total) that reports the progress of a stage."""

        def report(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(stage, done, total)

        return report

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add a block's seconds to those of a stage."""
        start = time.monotonic()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start

    def validation_targets(self) -> Rows:
        """Return the class indices of the validation images, int64."""
        return class_indices(self.fitted.dataset[self.validation].label, self.fitted.classes)

    # Decisions that depend on measured time must be the same when a run is resumed --------------

    def decisions(self) -> dict[str, Any]:
        """Return the decisions of an interrupted run; values are unchecked, as of any file."""
        try:
            with (self.folder / DECISIONS_FILE).open("rb") as file:
                found = json.loads(file.read(MAX_DECISIONS_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        valid = isinstance(found, dict) and found.get("format") == DECISIONS_FORMAT
        return found if valid else {}

    def decide(self, **decisions: Any) -> None:
        """Store decisions for when the run is resumed."""
        stored = {**self.decisions(), **decisions, "format": DECISIONS_FORMAT}
        write_json(self.folder / DECISIONS_FILE, stored)
