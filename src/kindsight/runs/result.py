"""The result of a training: its scores, its notes, and the time of each stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.names import IgnoredFile, ignored_counts, n_images, skipped_counts
from kindsight.dataset.splits.leakage import Leakage
from kindsight.diagnosis import Diagnosis
from kindsight.errors import ImageError
from kindsight.evaluation import Evaluation, distinct_images, evaluate
from kindsight.files import write_csv
from kindsight.models.networks.small_cnn import NETWORKS
from kindsight.report.data import Predictions
from kindsight.report.format import interval, percent
from kindsight.runs.settings import TrainSettings
from kindsight.training.common import Progress, training_sample
from kindsight.training.engine.history import History
from kindsight.training.protocols import FittedModel

__all__ = [
    "Clock", "Scored", "TrainResult", "leakage_summary", "predict_training_images", "run_notes",
    "score", "unsupported_notes", "write_predictions",
]  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """A classifier's predictions for one split, and their scores."""

    rows: NDArray[np.int64]  # int64: their rows in the features' dataset
    predictions: Predictions  # paths, targets and probabilities
    evaluation: Evaluation  # the scores
    counted: NDArray[np.bool_]  # bool: which rows count; byte-identical copies do not

    def distinct(self) -> Scored:
        """Return the predictions and scores without copies."""
        if self.counted.all():
            return self
        kept = np.flatnonzero(self.counted)
        return Scored(self.rows[kept], self.predictions[kept], self.evaluation, self.counted[kept])


def score(fitted: FittedModel, rows: NDArray[np.int64]) -> Scored:
    """Predict some of the prepared images, and compare with their labels."""
    dataset = fitted.dataset
    found = _predict(fitted, rows)
    digests = [dataset.digest[row] for row in rows]
    return Scored(
        rows,
        found,
        evaluate(found.probabilities, found.targets, fitted.classes, digests),
        distinct_images(digests, found.targets),
    )


def predict_training_images(fitted: FittedModel, rows: NDArray[np.int64]) -> Predictions:
    """Return predictions, in inference mode, of a random sample of the training images.

    See :func:`.common.training_sample`.
    """
    by_backbone = fitted.history is not None and fitted.training.model not in NETWORKS
    sample = training_sample(rows, fitted.training.seed, by_backbone=by_backbone)
    return _predict(fitted, sample)


def _predict(fitted: FittedModel, rows: NDArray[np.int64]) -> Predictions:
    dataset = fitted.dataset
    return Predictions(
        tuple(dataset.path[row] for row in rows),
        class_indices(dataset[rows].label, fitted.classes),
        fitted.probabilities(rows),
        fitted.ood_scores(rows),
    )


def write_predictions(path: Path, predictions: Predictions, classes: tuple[str, ...]) -> None:
    """Write path, label, prediction, class probabilities, and the out-of-distribution score."""
    scores = predictions.ood_scores
    header = ("path", "label", "prediction", *(f"p_{name}" for name in classes))
    header += () if scores is None else ("ood_score",)
    predicted = predictions.predicted
    rows = (
        (
            predictions.paths[row],
            classes[predictions.targets[row]],
            classes[predicted[row]],
            *(f"{value:.6g}" for value in predictions.probabilities[row]),
            *(() if scores is None else (f"{scores[row]:.6g}",)),
        )
        for row in range(len(predictions.paths))
    )
    write_csv(path, header, rows)


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Parameters
    ----------
    run, report : pathlib.Path
        The run folder, and the report in it.
    classes : tuple of str
        Class names, in the order of the probabilities.
    images : dict
        Number of images in train, validation and test, and skipped.
    validation, test : Evaluation or None
        Evaluation on the images of these splits; None if there are none.
    seconds : dict
        read (listing the files), features, fit, total, and more.
    cache : dict
        computed, reused: numbers of images run through the network, and cached before; folder.
    notes : tuple of str
        Notes for the user.
    problems : tuple of ImageError
        The skipped images.
    problem_labels : tuple of str or None
        Their labels.
    ignored_files : tuple of IgnoredFile
        Files that are not in the dataset, with reason and label.
    model : dict of str to str
        Rows that describe the model: name and description.
    temperature : float
        Temperature of the probabilities.
    history : History or None
        The epochs of a network's training.
    leakage : dict
        how, groups, images: what was done with duplicates across splits; see
        :mod:`kindsight.dataset.splits.leakage`.
    fine_tuning : dict
        kept, words, seconds, before, after: whether fine-tuning was accepted, a description,
        seconds of its stages, and the validation accuracies; empty if there was none.
    diagnosis : tuple of Diagnosis
        Findings on the training, the one that explains most first.
    hint : str
        What could still improve the model; empty if nothing is known.
    cross_validation : CrossValidation or None
        The folds, with the setting `folds`; `validation` is then the evaluation of their
        out-of-fold predictions.
    uncertainty : dict
        The bundle's entry: thresholds of unsure and unknown predictions, and prediction sets.
    input_size : dict
        size, tried, accuracies, log_losses, images: how the input size was chosen for small images;
        empty if it was given, or is the backbone's default.
    """

    run: Path
    report: Path
    classes: tuple[str, ...]
    images: dict[str, int]
    validation: Evaluation | None
    test: Evaluation | None
    seconds: dict[str, float]
    cache: dict[str, Any]
    notes: tuple[str, ...]
    problems: tuple[ImageError, ...]
    model: dict[str, str]
    temperature: float
    history: History | None = None
    leakage: dict[str, Any] = field(default_factory=dict)
    fine_tuning: dict[str, Any] = field(default_factory=dict)
    hint: str = ""
    diagnosis: tuple[Diagnosis, ...] = ()
    cross_validation: Any = None  # its module imports this one
    uncertainty: dict[str, Any] = field(default_factory=dict)
    input_size: dict[str, Any] = field(default_factory=dict)
    problem_labels: tuple[str | None, ...] = ()
    ignored_files: tuple[IgnoredFile, ...] = ()

    def skipped_codes(self) -> list[tuple[str | None, str]]:
        """Return (label, code) of the skipped images."""
        codes = [error.code for error in self.problems]
        return list(zip(self.problem_labels or (None,) * len(codes), codes, strict=True))

    @property
    def diverged(self) -> str:
        """The epoch in which the training diverged, and the remedy; empty if it did not.

        The bundle has the weights of the best earlier epoch. Divergence in fine-tuning is not a
        failure: the result is better than the frozen head, or is that head.
        """
        found = None if self.history is None or self.fine_tuning else self.history.divergence()
        if found is None:
            return ""
        assert self.history is not None
        return f"{found} The model has the weights of epoch {self.history.best_epoch}."

    def to_dict(self) -> dict[str, Any]:
        """Return the output of ``kindsight train --json``."""
        return {
            "run": str(self.run),
            "classes": list(self.classes),
            "images": self.images,
            "skipped": skipped_counts(self.skipped_codes()),
            "ignored_files": ignored_counts(self.ignored_files),
            "leakage": self.leakage,
            **({"input_size": self.input_size} if self.input_size else {}),
            **self._cross_validation(),
            "validation": None if self.validation is None else self.validation.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            **({} if self.history is None else {"epochs": _epochs(self.history)}),
            **({"diverged": self.diverged} if self.diverged else {}),
            **({"fine_tuning": self.fine_tuning} if self.fine_tuning else {}),
            "uncertainty": {
                name: {key: value for key, value in part.items() if key not in ("curve", "scores")}
                for name, part in self.uncertainty.items()
            },
            "diagnosis": [finding.to_dict() for finding in self.diagnosis],
            "seconds": self.seconds,
            "cache": self.cache,
        }

    def _cross_validation(self) -> dict[str, Any]:
        found = self.cross_validation
        return {} if found is None else {"cross_validation": found.to_dict()}


def _epochs(history: History) -> dict[str, Any]:
    return {"trained": len(history), "best": history.best_epoch}


class Clock:
    """Adds up the time of each stage."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Add the time since the last mark to a stage."""
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self._last = now

    def total(self) -> dict[str, float]:
        """Return all stages and their total, in seconds."""
        return {**self.seconds, "total": round(time.monotonic() - self._start, 3)}


def run_notes(
    dataset: ImageDataset,
    settings: TrainSettings,
    folder: Path,
    scored: Mapping[str, Scored],
    leakage: Leakage,
    progress: Progress,
    clock: Clock,
) -> tuple[str, ...]:
    """Return the notes on the data of a run; run all checks if the settings say so.

    - `dataset`: the dataset as it was opened, including unreadable images.
    - `settings`: with ``check="full"`` the findings of all checks are written to the run folder.
    - `folder`: the run folder.
    - `scored`: the validation and test splits.
    - `leakage`: duplicates across splits.
    - `progress`: called with (stage, done, total).
    - `clock`: measures the time of the checks.
    """
    notes = (*dataset.notes, *_leakage_notes(scored, leakage, dataset.classes))
    if settings.check != "full":
        return notes
    # The checks need a tenth of a second to import.
    from kindsight.runs.checking.run import check_run

    found = check_run(dataset, settings, folder, progress)
    clock.mark("checks")
    return (*notes, found)


def unsupported_notes(problems: Iterable[ImageError]) -> Iterator[str]:
    """Yield a sentence on the skipped images of each unsupported format, with the remedy."""
    reasons = Counter(error.reason for error in problems if error.code == "unsupported")
    for reason, count in reasons.most_common():
        yield f"Skipped: {n_images(count)}. {reason}"


def leakage_summary(
    leakage: Leakage, scored: Mapping[str, Scored], classes: Sequence[str]
) -> dict[str, object]:
    """Return the entry on leakage of ``kindsight train --json``."""
    clean = _without_leakage(scored, leakage, classes)
    without = {name: None if each is None else each.to_dict() for name, each in clean.items()}
    return {**leakage.to_dict(), **({"without": without} if without else {})}


def _leakage_notes(
    scored: Mapping[str, Scored], leakage: Leakage, classes: Sequence[str]
) -> Iterator[str]:
    for name, clean in _without_leakage(scored, leakage, classes).items():
        if clean is None:
            yield f"Every image of the {name} split has a duplicate in the train split."
            continue
        known = scored[name].evaluation.images - clean.images
        yield (
            f"Without {known:,} images that have a duplicate in the train split, {name} accuracy "
            f"is {percent(clean.accuracy)} on {clean.images:,} images "
            f"(95% CI {interval(clean.accuracy_interval)})."
        )


def _without_leakage(
    scored: Mapping[str, Scored], leakage: Leakage, classes: Sequence[str]
) -> dict[str, Evaluation | None]:
    """Evaluate each split with leakage without those images; None if no image is left."""
    leaking = set(leakage.leaking_rows)
    found: dict[str, Evaluation | None] = {}
    for name, part in scored.items():
        clean = np.array([int(row) not in leaking for row in part.rows], np.bool_)
        if clean.all():
            continue
        clean &= part.counted
        predictions = part.predictions
        found[name] = (
            evaluate(predictions.probabilities[clean], predictions.targets[clean], classes)
            if clean.any()
            else None
        )
    return found
