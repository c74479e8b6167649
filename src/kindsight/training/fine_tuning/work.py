"""One fine-tuning: what it goes out from, how much time it has, and what it decided before."""

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
from kindsight.training.fine_tuning.settings import DECISIONS_FILE
from kindsight.training.frozen.fitted import FittedFrozenHead

__all__ = ["WIDER", "FineTuning"]

# What the rest of a run takes after the training, in seconds: writing, converting and comparing the
# files; and the same of other networks beside it, at least so much, or what they take to answer
# images: those on which the files are compared, by Keras at a quarter of LiteRT's pace, and those
# that are not learned from.
AFTERWARDS, BESIDE = 25.0, 20.0
COMPARED = 64 * 4
# What the process with Keras takes to look at whole images, in passes of LiteRT.
LOOKING_FIRST = 2

WIDER = "wider features"
"""What making and trying wider features is called, where the time went."""

MAX_RECORD_BYTES = 2**16

DECISIONS_FORMAT = 4
"""Raised whenever what was decided before would be decided otherwise, or mean something else."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FineTuning:
    """What a fine-tuning goes out from.

    Parameters
    ----------
    fitted : FittedFrozenHead
        The head that the network begins as.
    rows, validation : array
        int64: which images to learn from, and by which the best epoch is chosen and compared
        with the head.
    keras : KerasProcess
        Of :mod:`.child`.
    folder : pathlib.Path
        Where the training is kept.
    before : FittedFrozenHead, optional
        What is to be better than, and may answer together with the result; `fitted` if omitted.
    seconds : float, optional
        How long it may take, all in all.
    progress, callback : optional
        Told of the training.
    asked : bool
        Whether images are answered afterwards within the time, as a run has them.
    looks : int
        Over how many flipped views of an image the network may answer.
    look_seconds : float
        How long it looks at each; 0 where that is not known yet.
    head_seconds : float
        How long the network of the first frozen head takes for an image; 0 likewise.
    wide_seconds : float
        How long wider features that were kept took for an image, with all that belongs to it.

    Attributes
    ----------
    took : dict of str to float
        Where the time went, in seconds.
    said : list of str
        What was chosen on the way, in words.
    """

    fitted: FittedFrozenHead
    rows: Rows
    validation: Rows
    keras: KerasProcess
    folder: Path
    before: FittedFrozenHead | None = None
    seconds: float | None = None
    progress: Progress | None = None
    callback: TrainingCallback | None = None
    asked: bool = True
    looks: int = 1
    look_seconds: float = 0.0
    head_seconds: float = 0.0
    wide_seconds: float = 0.0
    took: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    @property
    def frozen(self) -> FittedFrozenHead:
        """What is to be better than."""
        return self.before or self.fitted

    def left(self) -> float | None:
        """Return how many seconds there are for training, without what comes after it."""
        if self.seconds is None:
            return None
        fitted, answering = self.fitted, self.answering()
        wide = self.before is not None or fitted.files.members
        each = max(self.head_seconds, self.wide_seconds)
        if wide and each:
            answering += max(BESIDE, self._answered() * each)
        return self.seconds - AFTERWARDS - answering - (time.monotonic() - self._start)

    def answering(self) -> float:
        """Return how many seconds the network itself takes, afterwards, to look at images."""
        looked_at = self._answered()
        if self.fitted.training.tunes == "full":  # there is no cut's cache to look at first
            looked_at += LOOKING_FIRST * len(self.validation)
        return looked_at * self.looks * self.look_seconds

    def _answered(self) -> int:
        """Return how many answers come after the training.

        What is not learned from is answered, too: the validation part, and a test part.
        """
        if not self.asked:
            return 0
        return COMPARED + len(self.fitted.dataset) - len(self.rows)

    def step(self, stage: str) -> Callable[[int, int], None]:
        """Return what is called with (done, total) of a stage."""

        def step(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(stage, done, total)

        return step

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a block to where the time went."""
        began = time.monotonic()
        yield
        self.took[name] = self.took.get(name, 0.0) + time.monotonic() - began

    def targets(self) -> Rows:
        """Return the validation images' classes, int64."""
        return class_indices(self.fitted.dataset[self.validation].label, self.fitted.classes)

    # Decisions that hang on measured time must be the same after a stop ------------------------

    def decided(self) -> dict[str, Any]:
        """Return what was decided before the training was stopped; as hostile as any file."""
        try:
            with (self.folder / DECISIONS_FILE).open("rb") as file:
                told = json.loads(file.read(MAX_RECORD_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        kept = isinstance(told, dict) and told.get("format") == DECISIONS_FORMAT
        return told if kept else {}

    def decide(self, **more: Any) -> None:
        """Keep decisions for a training that goes on."""
        told = {**self.decided(), **more, "format": DECISIONS_FORMAT}
        write_json(self.folder / DECISIONS_FILE, told)
