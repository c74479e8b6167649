"""The laboratory: trains folds of experiments, and stores them so that none is trained twice."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from kindsight.dataset.labels import class_indices
from kindsight.digest import content_digest
from kindsight.errors import KindsightError
from kindsight.evaluation import distinct_images
from kindsight.files import copy_file, write_text
from kindsight.models.worker.process import KerasProcess
from kindsight.runs.cross_validation import Fold, StageProgress, fit_fold, fold_file
from kindsight.runs.improve.changes import Changes, changed
from kindsight.runs.improve.experiments import (
    MIN_PROBABILITY,
    FoldResult,
    OnEpoch,
    OutOfTime,
    StopExperiment,
)
from kindsight.runs.improve.original import ExperimentImages
from kindsight.runs.record import RunRecord
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data
from kindsight.training.common import Progress
from kindsight.training.engine.history import EpochRow
from kindsight.training.fine_tuning.state import DECISIONS_FILE
from kindsight.training.network.fit import training_key
from kindsight.training.protocols import Prepared
from kindsight.training.trainer import prepare

__all__ = ["Laboratory", "OuterFold"]

EXPERIMENTS_FOLDER = "experiments"
# Stages whose progress is shown as that of the experiment.
COMPUTED_STAGES = ("images", "features", "frozen")
CHECKPOINT_SUFFIX = ".checkpoint"
MAX_REASON = 1 << 16  # bytes
# Settings of a network that determine the threads of its worker process.
OWN_THREADS = ("batch_norm", "preset")


class Laboratory:
    """Runs experiments on the images of a run; a context manager.

    Parameters
    ----------
    settings : TrainSettings
        Settings of the original, without its split.
    images : ExperimentImages
    folder : pathlib.Path
        Folder for results and the checkpoint of the running experiment.
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

    def of(self, changes: Changes) -> TrainSettings:
        """Return the settings of an experiment."""
        said = repr(sorted(changes.items()))
        if said not in self._settings:
            found = changed(self.settings, changes) if changes else None
            self._settings[said] = found or self.settings
        return self._settings[said]

    def training_images(self) -> int:
        """Return the number of images that the first fold trains on."""
        return len(self.images.rows(self.images.dataset, self.images.every[0])[0])

    def run(
        self,
        changes: Changes,
        fold: int,
        stage: str,
        on_epoch: OnEpoch | None = None,
        *,
        without: int = 0,
    ) -> FoldResult:
        """Return the result of a fold, from storage or by training.

        `without` is an outer fold whose images are not trained on, either.

        Raises
        ------
        StopExperiment
            If the training fails (it diverges, or there is not enough memory), or if `on_epoch`
            raises it.
        """
        settings, dataset = self.of(changes), self.images.dataset
        rows, held_out = self.images.rows(dataset, fold, without)
        key = training_key(
            {"settings": settings.training().to_dict(), "fold": fold}, dataset, (rows, held_out)
        )
        path = self._file(changes, fold, without)
        found = Fold.read(path, key, fold, rows, held_out, len(dataset.classes))
        if found is None:
            stopped = path.with_suffix(".txt")
            if reason := _read_reason(stopped, key):
                raise StopExperiment(reason)
            try:
                found = self._train(changes, fold, without, _Watch(stage, self._progress, on_epoch))
            except OutOfTime:
                raise
            except StopExperiment as reason:
                write_text(stopped, f"{key}\n{reason}\n")
                raise
            found.write(path, key)
        return self.result(found)

    def is_stored(self, changes: Changes, fold: int, *, without: int = 0) -> bool:
        """Return whether a fold has been trained, or was stopped early."""
        path = self._file(changes, fold, without)
        return path.exists() or path.with_suffix(".txt").exists()

    def copy_folds(self, changes: Changes, folder: Path) -> None:
        """Copy the folds of an experiment to a run folder, where a cross-validation reads them."""
        for fold in self.images.every:
            if (path := self._file(changes, fold)).exists():
                copy_file(path, fold_file(folder, fold))

    def _file(self, changes: Changes, fold: int, without: int = 0) -> Path:
        outer = f"-without-{without}" if without else ""
        return self.folder / f"{_name(changes)}-{fold}{outer}.npz"

    def result(self, fold: Fold) -> FoldResult:
        """Return the correct images of a fold, their log losses, and its epochs."""
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

    def known(self, record: RunRecord, seconds: float) -> dict[int, FoldResult]:
        """Return the original's folds that the run has predicted.

        These are its validation split, or the folds of its cross-validation; none if the
        experiments use a new split.
        """
        predictions = record.predictions.get("validation")
        if self.images.new_test or predictions is None:
            return {}
        row_of = {path: row for row, path in enumerate(predictions.paths)}
        none, history, found = np.zeros(0, np.int64), record.history, {}
        for fold in self.images.every:
            _, held_out = self.images.rows(self.images.dataset, fold)
            paths = [self.images.dataset.path[row] for row in held_out]
            if not set(paths) <= set(row_of):
                continue
            probabilities = predictions.probabilities[[row_of[path] for path in paths]]
            found[fold] = self.result(
                Fold(
                    fold, none, held_out, probabilities.astype(np.float32), 1.0,
                    () if history is None else history.rows(),
                    None if history is None else history.best_epoch, seconds,
                )
            )  # fmt: skip
        return found

    def checkpoint(self, changes: Changes) -> Path:
        """Return the path of the last checkpoint of an experiment's first fold.

        The final training is that of the first fold and continues from this checkpoint.
        """
        return self._file(changes, self.images.every[0]).with_suffix(CHECKPOINT_SUFFIX)

    def delete_checkpoints(self, but: Changes) -> None:
        """Delete the checkpoints of all experiments except one and the original: they are large."""
        kept = self.checkpoint(but), self.checkpoint({})
        for path in self.folder.glob(f"*{CHECKPOINT_SUFFIX}"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _train(self, changes: Changes, fold: int, without: int, watch: _Watch) -> Fold:
        settings = self.of(changes)
        final = fold == self.images.every[0] and not without
        keras = self._keras(settings)
        try:
            prepared = self._prepare(settings, keras, watch.progress)
            rows, held_out = self.images.rows(prepared.dataset, fold, without)
            return fit_fold(
                prepared.for_fold(1), fold, rows, held_out, keras, self.folder, watch,
                self.checkpoint(changes) if final else None,
            )  # fmt: skip
        except KindsightError as error:
            self._forget_decisions()
            raise StopExperiment(str(error).splitlines()[0]) from error
        except StopExperiment:
            self._forget_decisions()
            raise

    def _forget_decisions(self) -> None:
        """Delete the decisions of a stopped fine-tuning, which do not hold for the next one."""
        (self.folder / DECISIONS_FILE).unlink(missing_ok=True)

    def _keras(self, settings: TrainSettings) -> KerasProcess:
        """Return the worker process: a new one if its number of threads must change."""
        trainer = settings.training()
        key = (
            type(trainer),
            trainer.by_gradient,
            *(getattr(trainer, name, None) for name in OWN_THREADS),
        )
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


class OuterFold:
    """A laboratory whose experiments use no image of an outer fold.

    Parameters
    ----------
    laboratory : Laboratory
    fold : int
        The outer fold.
    """

    def __init__(self, laboratory: Laboratory, fold: int) -> None:
        self.settings, self._laboratory, self._fold = laboratory.settings, laboratory, fold

    def of(self, changes: Changes) -> TrainSettings:
        """Return the settings of an experiment."""
        return self._laboratory.of(changes)

    def training_images(self) -> int:
        """Return the maximum number of images that an experiment trains on."""
        return self._laboratory.training_images()

    def run(
        self, changes: Changes, fold: int, stage: str, on_epoch: OnEpoch | None = None
    ) -> FoldResult:
        """Return the result of an inner fold; see :meth:`Laboratory.run`."""
        stage = f"Outer fold {self._fold}, {stage[0].lower()}{stage[1:]}"
        return self._laboratory.run(changes, fold, stage, on_epoch, without=self._fold)

    def is_stored(self, changes: Changes, fold: int) -> bool:
        """Return whether the result of an inner fold is stored already."""
        return self._laboratory.is_stored(changes, fold, without=self._fold)


class _Watch(StageProgress):
    """Shows an experiment as one stage, and forwards its epochs."""

    def __init__(self, stage: str, show: Progress, on_epoch: OnEpoch | None) -> None:
        super().__init__(stage, show)
        self._on_epoch = on_epoch

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of computing features, and check the time."""
        self._show(self._stage, *((done, total) if stage in COMPUTED_STAGES else (0, 0)))
        if self._on_epoch is not None:
            self._on_epoch(None, 0)

    def on_epoch(self, row: EpochRow) -> None:
        """Forward the epoch."""
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
    """Return why an experiment was stopped early; empty if it was not."""
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_REASON).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[1] if len(lines) == 2 and lines[0] == key else ""


def _name(changes: Changes) -> str:
    text = json.dumps(changes, sort_keys=True, default=list)
    return content_digest(text, 8)
