"""The evidence of a diagnosis, from a finished run."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.leakage import LEAKAGE_FILE
from kindsight.diagnosis.evidence import (
    BatchNormEvidence,
    EpochCurves,
    InputEvidence,
    RunEvidence,
    SplitPredictions,
)
from kindsight.errors import KindsightError
from kindsight.evaluation import distinct_images
from kindsight.models.backbones.table import BACKBONES
from kindsight.models.formats.load_keras import read_keras_config
from kindsight.report.data import Predictions
from kindsight.runs.diagnosing.measure import Measured, MeasuredImages
from kindsight.training.engine.history import History
from kindsight.training.trainer import NETWORK, TRANSFER, kind_of, of_use

__all__ = [
    "build_evidence", "count_classes", "distinct_predictions", "epoch_curves", "trained_settings",
]  # fmt: skip

_WEIGHTED = ("Conv", "Dense", "Depthwise", "Separable", "BatchNormalization")
"""Prefixes of the names of layers with weights."""

MAX_LEAKAGE_BYTES = 64 * 2**20


def build_evidence(
    folder: Path,
    classes: Sequence[str],
    settings: Mapping[str, Any],
    history: History | None,
    predictions: Mapping[str, SplitPredictions],
    counts: Mapping[str, NDArray[np.int64]],
    *,
    temperature: float,
    fine_tuned: bool,
    measured: Measured,
) -> RunEvidence:
    """Return the evidence of a run.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder: its ``leakage.csv`` and ``model.keras`` are read, if they are there.
    classes, predictions, counts, temperature
        See :class:`kindsight.diagnosis.RunEvidence`.
    settings : mapping
        See :meth:`kindsight.runs.settings.TrainSettings.to_dict`; empty if unknown.
    history : History or None
        The epochs.
    fine_tuned : bool
        Whether the frozen head was fine-tuned.
    measured : Measured
        Measurements of the images.
    """
    kind = ""
    if settings:
        kind = "fine-tuned" if fine_tuned else kind_of(settings).name
    curves = None if history is None or not len(history) else epoch_curves(history)
    return RunEvidence(
        tuple(classes),
        settings,
        kind,
        counts,
        predictions,
        curves,
        temperature,
        _count_leaking(folder / LEAKAGE_FILE),
        measured.labels,
        None if measured.images is None else measured.images.source,
        _inputs(folder, settings, kind, measured.images),
        _batch_norm(settings, kind, curves, counts),
        measured.frozen if kind in (NETWORK.name, TRANSFER.name) else None,
        str(folder),
    )


def trained_settings(settings: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, replaced by those of the network that a budget chose.

    Parameters
    ----------
    settings : mapping
        The run's settings; empty if unknown.
    trained : mapping
        The trainer's settings, from ``settings`` in ``bundle.json``.
    """
    if not settings or "model" not in trained or kind_of(settings) is kind_of(trained):
        return dict(settings)
    return {**of_use(settings, trained), **trained}


def epoch_curves(history: History) -> EpochCurves:
    """Return the epochs of a history as columns."""
    best = history.best_epoch
    assert best is not None
    return EpochCurves(
        history.column("loss"),
        history.column("accuracy"),
        history.column("val_loss"),
        history.column("val_accuracy"),
        history.column("learning_rate"),
        phase=tuple(row.phase for row in history),
        best=best,
    )


def distinct_predictions(
    predictions: Predictions, digests: Sequence[str | None]
) -> SplitPredictions:
    """Return predictions for one split, byte-identical images counted once."""
    targets = np.asarray(predictions.targets, np.int64)
    kept = np.flatnonzero(distinct_images(digests, targets))
    return SplitPredictions(
        tuple(predictions.paths[row] for row in kept),
        targets[kept],
        np.asarray(predictions.probabilities, np.float64)[kept],
    )


def count_classes(
    labels: Sequence[str | None], splits: Sequence[str | None], classes: Sequence[str]
) -> dict[str, NDArray[np.int64]]:
    """Return the number of images of each class by split."""
    index = {name: number for number, name in enumerate(classes)}
    found: dict[str, NDArray[np.int64]] = {}
    for label, split in zip(labels, splits, strict=True):
        if split in ("train", "validation", "test") and label in index:
            row = found.setdefault(str(split), np.zeros(len(classes), np.int64))
            row[index[str(label)]] += 1
    return found


def _count_leaking(path: Path) -> dict[str, int]:
    """Return the number of images of each held-out split with a duplicate in the train split."""
    try:
        if path.stat().st_size > MAX_LEAKAGE_BYTES:
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["group"], row["split_after"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return {}
    trained = {group for group, split in rows if split == "train"}
    found: dict[str, int] = {}
    for group, split in rows:
        if split in ("validation", "test") and group in trained:
            found[split] = found.get(split, 0) + 1
    return found


def _batch_norm(
    settings: Mapping[str, Any],
    kind: str,
    curves: EpochCurves | None,
    counts: Mapping[str, NDArray[np.int64]],
) -> BatchNormEvidence | None:
    """Return the batch normalisation whose statistics the training updated, or None."""
    trained = kind == NETWORK.name and settings.get("batch_norm")
    if kind == TRANSFER.name:
        head = settings.get("batch_norm") and settings.get("dense")
        trained = settings.get("train_batch_norm") or head
    if not trained or curves is None or "train" not in counts:
        return None
    batch = int(settings.get("batch_size") or 20)
    return BatchNormEvidence(batch, curves.best * math.ceil(int(counts["train"].sum()) / batch))


def _inputs(
    folder: Path, settings: Mapping[str, Any], kind: str, measured: MeasuredImages | None
) -> InputEvidence | None:
    if measured is None:
        return None
    model = str(settings.get("model") or "")
    user_file = model.endswith(".keras") and model not in BACKBONES
    scale = 1 / 255  # of small-cnn; those of other networks differ little
    if user_file:
        scale = _input_scale(folder / "model.keras") or scale
    return InputEvidence(measured.std, measured.largest, scale, measured.std * scale, user_file)


def _input_scale(path: Path) -> float | None:
    """Return the factor by which layers before the first weights scale pixels; None if unknown.

    Only layers whose factors are in the config are supported: ``Rescaling``, and ``Normalization``
    with a given variance.
    """
    try:
        config = read_keras_config(path)
    except KindsightError:
        return None
    scale = 1.0
    for layer in _layers(config):
        name = str(layer.get("class_name", ""))
        if name.startswith(_WEIGHTED):
            return scale
        if name in ("Rescaling", "Normalization"):
            factor = _factor(name, dict(layer.get("config") or {}))
            if factor is None:
                return None
            scale *= factor
    return None


def _factor(layer: str, config: Mapping[str, Any]) -> float | None:
    """Return the factor of a scaling layer; None if its config does not contain it."""
    if layer == "Rescaling":
        values = np.ravel(np.array(config.get("scale"), object))
    else:
        values = np.ravel(np.array(config.get("variance"), object))
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        return None
    if not numbers.size or not (np.isfinite(numbers) & (numbers > 0)).all():
        return None
    return float((numbers if layer == "Rescaling" else 1 / np.sqrt(numbers)).mean())


def _layers(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the layers of a model's config in order, those of nested models in their place."""
    found: list[Mapping[str, Any]] = []
    for layer in dict(config.get("config") or {}).get("layers") or ():
        nested = isinstance(layer.get("config"), Mapping) and "layers" in layer["config"]
        found += _layers(layer) if nested else [layer]
    return found
