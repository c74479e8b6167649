"""Cross-validation of a training: folds, out-of-fold predictions, and the epochs that they chose.

A fold is one training whose validation split is that fold, as with ``--fold K/N``. Finished folds
are stored in the run folder, so that an interrupted cross-validation continues with the next one.
"""

from __future__ import annotations

import io
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.evaluation import Evaluation, distinct_images, evaluate
from kindsight.files import replacing, write_csv, write_json
from kindsight.models.worker.process import KerasProcess
from kindsight.report.data import Predictions
from kindsight.runs.folder import FOLDS_FILE, FOLDS_TABLE
from kindsight.runs.result import Scored
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.engine.history import EpochRow
from kindsight.training.held_out import OUT_OF_FOLD, HeldOutPredictions
from kindsight.training.network.fit import training_key
from kindsight.training.protocols import FittedModel, FoldChoices, Prepared, Trainer

__all__ = [
    "CrossValidation", "Fold", "cross_validate", "fit_fold",
]  # fmt: skip

MAX_FILE_BYTES = 2**30
# Stages of a fold that take long; the others are too short to be shown.
SHOWN_STAGES = ("frozen", "activations", "wider")

CHOSEN_ON_FOLD = (
    "The best epoch of each fold was chosen on its own held-out images, which makes the "
    "accuracy slightly too high."
)
MODEL_OF_FOLD = (
    "Fine-tuning needs validation images: the final model is that of fold 1, trained without the "
    "images held out there."
)

Rows = NDArray[np.int64]


class Shown(TrainingCallback, Protocol):
    """Shows one training."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show a stage of the training."""

    def finish(self) -> None:
        """Show that the training is finished."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One training of a cross-validation.

    Parameters
    ----------
    number : int
        From 1.
    rows, held_out : array
        int64: rows of the training images, and of the images that it predicts.
    probabilities : array
        float32 (held-out images, classes).
    temperature : float
        Temperature of the fold's model.
    history : tuple of EpochRow
        Its epochs; empty if it was not trained in epochs.
    best_epoch : int or None
        The epoch whose weights it has.
    seconds : float
        Duration of the training.
    """

    number: int
    rows: Rows
    held_out: Rows
    probabilities: NDArray[np.float32]
    temperature: float
    history: tuple[EpochRow, ...]
    best_epoch: int | None
    seconds: float

    @classmethod
    def of(
        cls, number: int, model: FittedModel, rows: Rows, held_out: Rows, seconds: float
    ) -> Fold:
        """Return the fold of a fitted model."""
        history = model.history
        return cls(
            number, rows, held_out, model.probabilities(held_out), float(model.temperature),
            () if history is None else history.rows(),
            None if history is None else history.best_epoch, seconds,
        )  # fmt: skip

    def evaluation(self, dataset: ImageDataset) -> Evaluation:
        """Return the metrics on the held-out images."""
        held_out = dataset[self.held_out]
        targets = class_indices(held_out.label, dataset.classes)
        return evaluate(self.probabilities, targets, dataset.classes, held_out.digest)

    def write(self, path: Path, key: str) -> None:
        """Write the result of the fold, to be read by :meth:`read` with the same key."""
        values = {
            "key": key,
            "temperature": self.temperature,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "history": [asdict(row) for row in self.history],
        }
        text = np.frombuffer(json.dumps(values).encode(), np.uint8)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, values=text, probabilities=self.probabilities)

    @classmethod
    def read(
        cls, path: Path, key: str, number: int, rows: Rows, held_out: Rows, classes: int
    ) -> Fold | None:
        """Read a fold, untrusted; None if it is missing, damaged or of another training."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                return None
            archive = io.BytesIO(content)
            with np.load(archive, allow_pickle=False) as arrays:
                values = json.loads(arrays["values"].tobytes())
                probabilities = arrays["probabilities"]
            wanted = (len(held_out), classes)
            if values["key"] != key or probabilities.shape != wanted:
                return None
            best = values["best_epoch"]
            return cls(
                number, rows, held_out, probabilities.astype(np.float32),
                float(values["temperature"]), tuple(EpochRow(**row) for row in values["history"]),
                None if best is None else int(best), float(values["seconds"]),
            )  # fmt: skip
        except Exception:  # whatever a damaged file raises, the fold is trained again
            return None


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The folds of a cross-validation.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images.
    folds : tuple of Fold
        In order; no image is held out in two.
    note : str
        A sentence on how the accuracy and the final model depend on the folds.
    """

    dataset: ImageDataset
    folds: tuple[Fold, ...]
    note: str = ""

    def clear_away(self, folder: Path) -> None:
        """Delete the files of finished folds; ``folds.json`` and ``folds.csv`` have all results."""
        for path in folder.glob("fold-*.npz"):
            path.unlink(missing_ok=True)

    def scored(self) -> Scored:
        """Return the out-of-fold predictions of all images, in the dataset's order."""
        rows = np.concatenate([fold.held_out for fold in self.folds])
        order = np.argsort(rows)
        rows, dataset = rows[order], self.dataset
        probabilities = np.concatenate([fold.probabilities for fold in self.folds])[order]
        targets = class_indices(dataset[rows].label, dataset.classes)
        digests = [dataset.digest[row] for row in rows]
        return Scored(
            rows,
            Predictions(tuple(dataset.path[row] for row in rows), targets, probabilities),
            evaluate(probabilities, targets, dataset.classes, digests),
            distinct_images(digests, targets),
        )

    def held_out(self) -> HeldOutPredictions:
        """Return the out-of-fold predictions, each calibrated by its fold's temperature."""
        scored = self.scored()
        folds = np.concatenate(
            [np.full(len(fold.held_out), number) for number, fold in enumerate(self.folds)]
        )[np.argsort(np.concatenate([fold.held_out for fold in self.folds]))]
        predictions = scored.predictions
        logits = np.log(np.maximum(predictions.probabilities, 1e-30)).astype(np.float32)
        targets = predictions.targets.astype(np.int64)
        found = HeldOutPredictions(scored.rows, logits, targets, 1.0, folds, OUT_OF_FOLD)
        return found.distinct([self.dataset.digest[row] for row in scored.rows])

    def evaluations(self) -> list[Evaluation]:
        """Return the metrics of each fold."""
        return [fold.evaluation(self.dataset) for fold in self.folds]

    def choices(self, trainer: Trainer) -> FoldChoices | None:
        """Return epochs and temperature of the final model; None if its training selects them.

        For each phase, the median over the folds of the number of epochs up to the best one; the
        geometric mean of the temperatures.
        """
        if trainer.needs_validation or not all(fold.history for fold in self.folds):
            return None
        last = getattr(trainer, "final_weights", "best") == "last"
        phases = list(dict.fromkeys(row.phase for fold in self.folds for row in fold.history))
        counts = []
        for fold in self.folds:
            whole = last and not fold.history[-1].diverged
            end = len(fold.history) if whole else fold.best_epoch or 0
            used = [row.phase for row in fold.history[:end]]
            counts.append([used.count(phase) for phase in phases])
        epochs = [
            math.floor(statistics.median(column) + 0.5) for column in zip(*counts, strict=True)
        ]
        epochs[0] = epochs[0] if any(epochs) else 1
        logs = [math.log(fold.temperature) for fold in self.folds]
        return FoldChoices(tuple(epochs), math.exp(statistics.fmean(logs)))

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the folds' accuracies (n - 1)."""
        return statistics.stdev(each.accuracy for each in self.evaluations())

    def with_model(self, model: FittedModel, seconds: float) -> CrossValidation:
        """Return the cross-validation with the final model as its first fold, if it has none."""
        if self.folds and self.folds[0].number == 1:
            return self
        first = np.array(
            [row for row, name in enumerate(self.dataset.split) if name == "validation"], np.int64
        )
        fold = Fold.of(1, model, model.rows, first, seconds)
        return replace(self, folds=(fold, *self.folds))

    def write(self, folder: Path) -> None:
        """Write ``folds.csv`` and ``folds.json``."""
        scored, classes = self.scored(), self.dataset.classes
        number = {int(row): fold.number for fold in self.folds for row in fold.held_out}
        predictions = scored.predictions
        predicted = predictions.predicted
        write_csv(
            folder / FOLDS_TABLE,
            ("path", "label", "fold", "prediction", *(f"p_{name}" for name in classes)),
            (
                (
                    predictions.paths[i],
                    classes[predictions.targets[i]],
                    number[int(row)],
                    classes[predicted[i]],
                    *(f"{value:.6g}" for value in predictions.probabilities[i]),
                )
                for i, row in enumerate(scored.rows)
            ),
        )
        histories = {fold.number: [_finite(asdict(r)) for r in fold.history] for fold in self.folds}
        values = self.to_dict()
        for fold in values["folds"]:
            fold["history"] = histories[fold["fold"]]
        write_json(folder / FOLDS_FILE, values)

    def to_dict(self) -> dict[str, Any]:
        """Return accuracy, spread and folds, ready for JSON; accuracies are 0-1."""
        whole = self.scored().evaluation
        low, high = whole.accuracy_interval
        return {
            "folds": [
                {
                    "fold": fold.number,
                    "images": len(fold.rows),
                    "held_out": len(fold.held_out),
                    "accuracy": found.accuracy,
                    "low": found.accuracy_interval[0],
                    "high": found.accuracy_interval[1],
                    "log_loss": found.log_loss,
                    "temperature": fold.temperature,
                    "epochs": {"trained": len(fold.history), "best": fold.best_epoch}
                    if fold.history
                    else None,
                    "seconds": round(fold.seconds, 3),
                }
                for fold, found in zip(self.folds, self.evaluations(), strict=True)
            ],
            "images": whole.images,
            "accuracy": whole.accuracy,
            "low": low,
            "high": high,
            "standard_deviation": self.standard_deviation,
            "note": self.note,
        }


def cross_validate(
    images: Prepared,
    folds: Sequence[tuple[Rows, Rows]],
    trainer: Trainer,
    keras: KerasProcess,
    folder: Path,
    progress: Progress,
) -> CrossValidation | None:
    """Train and predict each fold; folds that the run folder already has are read.

    None if there are no folds.

    Parameters
    ----------
    images : Prepared
        All readable images.
    folds : sequence of (array, array)
        int64: training rows and held-out rows.
    trainer : Trainer
        The trainer. If it needs validation images, the first fold is left out: it is the final
        model.
    folder : pathlib.Path
        The run folder.
    progress : callable
        Called with (stage, done, total).
    """
    if not folds:
        return None
    classes, found = images.dataset.classes, []
    for number, (rows, held_out) in enumerate(folds, 1):
        if number == 1 and trainer.needs_validation:
            continue
        facts = {"settings": trainer.to_dict(), "fold": number}
        key = training_key(facts, images.dataset, (rows, held_out))
        path = fold_file(folder, number)
        fold = Fold.read(path, key, number, rows, held_out, len(classes))
        if fold is None:
            shown = StageProgress(f"Fold {number} of {len(folds)}", progress)
            fold = fit_fold(
                images.for_fold(len(folds)), number, rows, held_out, keras, folder, shown
            )
            fold.write(path, key)
        found.append(fold)
    note = ""
    if trainer.needs_validation:
        note = MODEL_OF_FOLD
    elif trainer.by_gradient and getattr(trainer, "final_weights", "best") == "best":
        note = CHOSEN_ON_FOLD
    return CrossValidation(images.dataset, tuple(found), note)


def fit_fold(
    images: Prepared,
    number: int,
    rows: Rows,
    held_out: Rows,
    keras: KerasProcess,
    folder: Path,
    shown: Shown,
    checkpoint: Path | None = None,
) -> Fold:
    """Train on `rows` and predict the held-out images.

    `folder` is for checkpoints during the training; the last one is stored at `checkpoint`.
    """
    start = time.monotonic()
    model = images.fit(
        images.dataset.classes, rows, held_out,
        keras=keras, folder=folder, progress=shown.progress, callback=shown,
    )  # fmt: skip
    fold = Fold.of(number, model, rows, held_out, time.monotonic() - start)
    if checkpoint is not None and (folder / CHECKPOINT_FILE).exists():
        (folder / CHECKPOINT_FILE).replace(checkpoint)
    model.clear_away()
    shown.finish()
    return fold


def fold_file(folder: Path, number: int) -> Path:
    """Return the file of a finished fold of an unfinished run."""
    return folder / f"fold-{number}.npz"


class StageProgress:
    """A training callback that shows a training as one stage of a longer command.

    Parameters
    ----------
    stage : str
        The stage's name.
    show : callable
        Called with (stage, done, total).
    """

    def __init__(self, stage: str, show: Progress) -> None:
        self._stage, self._show = stage, show
        self._epochs = 1
        show(stage, 0, 0)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show a stage within the training, if it takes long."""
        if stage in SHOWN_STAGES:
            self._show(stage, done, total)

    def on_start(self, epochs: int, done: int) -> None:
        """Store the number of epochs."""
        self._epochs = max(1, epochs)

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        images_per_second: float,
    ) -> None:
        """Show the fraction of steps that are done."""
        self._show(self._stage, (epoch - 1) * steps + step, self._epochs * steps)

    def on_epoch(self, row: EpochRow) -> None:
        """Do nothing: the epoch's last step was shown."""

    def on_interrupt(self) -> None:
        """Stop the command: the same command continues with this training."""
        raise KeyboardInterrupt

    def finish(self) -> None:
        """Show that the training is finished."""
        self._show(self._stage, 1, 1)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values for JSON: None in place of NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
