"""Experiments: one training for each fold of each change, stored so that none is run twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.labels import class_indices
from kindsight.digest import content_digest
from kindsight.errors import KindsightError
from kindsight.evaluation import distinct_images
from kindsight.evaluation.comparing.paired import PairedComparison, compare_pair
from kindsight.files import write_text
from kindsight.models.worker.process import KerasProcess
from kindsight.runs.cross_validation import Fold, StageProgress, fit_fold
from kindsight.runs.improve.changes import changed, describe
from kindsight.runs.improve.images import ExperimentImages
from kindsight.runs.record import RunRecord
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data
from kindsight.training.common import Progress
from kindsight.training.engine.history import EpochRow
from kindsight.training.network.fit import training_key
from kindsight.training.protocols import Prepared
from kindsight.training.trainer import prepare

__all__ = ["Experiment", "FoldResult", "Laboratory", "OutOfTime", "StopExperiment"]

EXPERIMENTS_FOLDER = "experiments"
MIN_PROBABILITY = 1e-7
# Stages whose progress is that of the experiment.
COMPUTED_STAGES = ("images", "features", "frozen")
CHECKPOINT_SUFFIX = ".checkpoint"
MAX_REASON = 1 << 16  # bytes

OnEpoch = Callable[[EpochRow | None, int], None]
"""Called with each epoch and the number of all epochs; raises StopExperiment to end it.

Called with None while features are computed."""


class StopExperiment(Exception):  # noqa: N818 (no error)
    """An experiment is stopped before its end; the message says why."""


class OutOfTime(StopExperiment):
    """As StopExperiment, because the time is over: with more time, the experiment is run again."""


@dataclass(frozen=True, eq=False)
class FoldResult:
    """What one fold of an experiment got right: distinct held-out images, in the dataset's order.

    `correct` is bool (images,), `losses` are their log losses in nats.
    """

    correct: NDArray[np.bool_]
    losses: NDArray[np.float64]
    seconds: float
    epochs: int = 0
    best_epoch: int | None = None
    # Lowest validation loss so far, by tenth of the epochs from 1 to 9
    curve: Mapping[int, float] = field(default_factory=dict)


@dataclass(eq=False)
class Experiment:
    """A change of the training, and its results so far.

    Parameters
    ----------
    number : int
        From 0, the original.
    changes : mapping
        Options that differ from the original's.
    origin : str
        ``"original"``, ``"reference"``, ``"one factor"``, ``"combined"`` or ``"any model"``.
    against : int
        Number of the experiment that it is compared with.
    results : dict of int to FoldResult
        By fold.
    stopped : str
        Why it was stopped early; empty if it was not.
    """

    number: int
    changes: Mapping[str, Any]
    origin: str
    against: int
    results: dict[int, FoldResult] = field(default_factory=dict)
    stopped: str = ""

    def has(self, folds: tuple[int, ...]) -> bool:
        """Return whether all these folds were finished."""
        return all(fold in self.results for fold in folds)

    def correct(self, folds: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which images are classified correctly, over folds."""
        return np.concatenate([self.results[fold].correct for fold in folds])

    def accuracy(self, folds: tuple[int, ...]) -> float:
        """Return the accuracy over folds, 0-1."""
        return float(self.correct(folds).mean())

    def losses(self, folds: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the log loss of each image, in nats, over folds."""
        return np.concatenate([self.results[fold].losses for fold in folds])

    def log_loss(self, folds: tuple[int, ...]) -> float:
        """Return the mean log loss over folds, in nats."""
        return float(self.losses(folds).mean())

    def compare(self, other: Experiment, folds: tuple[int, ...]) -> PairedComparison:
        """Return the difference of this experiment from another one, on the same images."""
        return compare_pair(
            (other.correct(folds), self.correct(folds)), (other.losses(folds), self.losses(folds))
        )

    @property
    def words(self) -> str:
        """The changes as options."""
        return describe(self.changes)


class Laboratory:
    """Runs experiments on the images of a run; to be used as a context manager.

    Parameters
    ----------
    settings : TrainSettings
        The original, without a split of its own.
    images : ExperimentImages
    folder : pathlib.Path
        For results and the checkpoint of the running experiment.
    progress : callable
        Called with (stage, done, total).
    """

    def __init__(
        self, settings: TrainSettings, images: ExperimentImages, folder: Path, progress: Progress
    ) -> None:
        self.settings, self.images = settings, images
        self.folder = folder / EXPERIMENTS_FOLDER
        self.folder.mkdir(exist_ok=True)
        self._progress = progress
        self._settings: dict[str, TrainSettings] = {}
        self._stack = ExitStack()
        self._process: tuple[object, KerasProcess] | None = None
        self._prepared: tuple[TrainSettings, Prepared] | None = None

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def of(self, changes: Mapping[str, Any]) -> TrainSettings:
        """Return the settings of an experiment."""
        said = repr(sorted(changes.items()))
        if said not in self._settings:
            found = changed(self.settings, changes) if changes else None
            self._settings[said] = found or self.settings
        return self._settings[said]

    def training_images(self) -> int:
        """Return how many images the first fold trains on."""
        return len(self.images.rows(self.images.dataset, 1)[0])

    def run(
        self, changes: Mapping[str, Any], fold: int, stage: str, on_epoch: OnEpoch | None = None
    ) -> FoldResult:
        """Return the result of a fold, stored or trained now.

        Raises
        ------
        StopExperiment
            If the training fails by itself (it diverges, or memory does not suffice), or if
            `on_epoch` raises it.
        """
        settings = self.of(changes)
        dataset = self.images.dataset
        rows, held_out = self.images.rows(dataset, fold)
        key = training_key(
            {"settings": settings.training().to_dict(), "fold": fold}, dataset, (rows, held_out)
        )
        path = self._file(changes, fold)
        found = Fold.read(path, key, fold, rows, held_out, len(dataset.classes))
        if found is None:
            stopped = path.with_suffix(".txt")
            if reason := _read_reason(stopped, key):
                raise StopExperiment(reason)
            try:
                kept = self.checkpoint(changes) if fold == 1 else None
                found = self._train(settings, fold, stage, on_epoch, kept)
            except OutOfTime:
                raise
            except StopExperiment as reason:
                write_text(stopped, f"{key}\n{reason}\n")
                raise
            found.write(path, key)
        return self.result(found)

    def is_stored(self, changes: Mapping[str, Any], fold: int) -> bool:
        """Return whether a fold was trained before, or stopped early."""
        path = self._file(changes, fold)
        return path.exists() or path.with_suffix(".txt").exists()

    def _file(self, changes: Mapping[str, Any], fold: int) -> Path:
        return self.folder / f"{_name(changes)}-{fold}.npz"

    def result(self, fold: Fold) -> FoldResult:
        """Return what a fold got right."""
        held_out = self.images.dataset[fold.held_out]
        targets = class_indices(held_out.label, self.images.dataset.classes)
        counted = distinct_images(held_out.digest, targets)
        probabilities = fold.probabilities[counted].astype(np.float64)
        targets = targets[counted]
        chosen = probabilities[np.arange(len(targets)), targets]
        return FoldResult(
            probabilities.argmax(1) == targets,
            -np.log(np.clip(chosen, MIN_PROBABILITY, 1.0)),
            fold.seconds, len(fold.history), fold.best_epoch, _curve(fold.history),
        )  # fmt: skip

    def known(self, record: RunRecord, seconds: float) -> FoldResult | None:
        """Return the original's first fold from the run's own predictions; None where they differ.

        The validation split of a run with a test split is the first fold.
        """
        predictions = record.predictions.get("validation")
        _, held_out = self.images.rows(self.images.dataset, 1)
        if not self.images.own_test or predictions is None:
            return None
        row_of = {path: row for row, path in enumerate(predictions.paths)}
        paths = [self.images.dataset.path[row] for row in held_out]
        if set(paths) != set(row_of):
            return None
        rows = np.array([row_of[path] for path in paths])
        none = np.zeros(0, np.int64)
        probabilities = predictions.probabilities[rows].astype(np.float32)
        history = record.history
        return self.result(
            Fold(
                1, none, held_out, probabilities, 1.0,
                () if history is None else history.rows(),
                None if history is None else history.best_epoch, seconds,
            )
        )  # fmt: skip

    def checkpoint(self, changes: Mapping[str, Any]) -> Path:
        """Return the path of the last checkpoint of an experiment's first fold.

        The final training is that of the first fold, and continues from it.
        """
        return self._file(changes, 1).with_suffix(CHECKPOINT_SUFFIX)

    def delete_checkpoints(self, but: Mapping[str, Any]) -> None:
        """Delete the checkpoints of experiments but one and the original: they are large."""
        kept = self.checkpoint(but), self.checkpoint({})
        for path in self.folder.glob(f"*{CHECKPOINT_SUFFIX}"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _train(
        self,
        settings: TrainSettings,
        fold: int,
        stage: str,
        on_epoch: OnEpoch | None,
        checkpoint: Path | None,
    ) -> Fold:
        watch = _Watch(stage, self._progress, on_epoch)
        keras = self._keras(settings)
        try:
            prepared = self._prepare(settings, keras, watch.progress)
            rows, held_out = self.images.rows(prepared.dataset, fold)
            return fit_fold(
                prepared.for_fold(0), fold, rows, held_out, keras, self.folder, watch, checkpoint
            )
        except KindsightError as error:
            raise StopExperiment(str(error).splitlines()[0]) from error

    def _keras(self, settings: TrainSettings) -> KerasProcess:
        """Return the worker process: a new one where threads must be set in another way."""
        trainer = settings.training()
        key = type(trainer), getattr(trainer, "batch_norm", False)
        if self._process is None or self._process[0] != key:
            self._close()
            self._process = key, self._stack.enter_context(trainer.process())
        return self._process[1]

    def _prepare(
        self, settings: TrainSettings, keras: KerasProcess, progress: Progress
    ) -> Prepared:
        if self._prepared is None or self._prepared[0] != settings:
            if self._prepared is not None:
                self._prepared[1].close()
            dataset = open_data(self.settings)
            images: Prepared = prepare(settings.training(), dataset, progress, keras)
            splits = dict(zip(self.images.dataset.path, self.images.dataset.split, strict=True))
            split = [splits.get(path) for path in images.dataset.path]
            self._prepared = settings, images.with_dataset(images.dataset.with_columns(split=split))
        return self._prepared[1]

    def _close(self) -> None:
        if self._prepared is not None:
            self._prepared[1].close()
        self._prepared = None
        self._stack.close()


class _Watch(StageProgress):
    """Shows an experiment as one stage, and passes its epochs on."""

    def __init__(self, stage: str, show: Progress, on_epoch: OnEpoch | None) -> None:
        super().__init__(stage, show)
        self._on_epoch = on_epoch

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how many features are computed, and whether the time is over."""
        self._show(self._stage, *((done, total) if stage in COMPUTED_STAGES else (0, 0)))
        if self._on_epoch is not None:
            self._on_epoch(None, 0)

    def on_epoch(self, row: EpochRow) -> None:
        """Pass the epoch on."""
        if self._on_epoch is not None:
            self._on_epoch(row, self._epochs)


def _curve(history: Sequence[EpochRow]) -> dict[int, float]:
    found, lowest = {}, math.inf
    for row in history:
        if row.val_loss is not None and math.isfinite(row.val_loss):
            lowest = min(lowest, row.val_loss)
        tenth = 10 * row.epoch // len(history)
        if 0 < tenth < 10 and lowest < math.inf:
            found[tenth] = lowest
    return found


def _read_reason(path: Path, key: str) -> str:
    """Return why an experiment was stopped early before; empty if it was not."""
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_REASON).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[1] if len(lines) == 2 and lines[0] == key else ""


def _name(changes: Mapping[str, Any]) -> str:
    text = json.dumps(changes, sort_keys=True, default=list)
    return content_digest(text, 8)
