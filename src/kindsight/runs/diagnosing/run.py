"""Diagnose a run: at the end of the training, or later from its folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.diagnosis import Diagnosis
from kindsight.diagnosis import diagnose as apply_rules
from kindsight.diagnosis.evidence import (
    FrozenEstimate,
    LabelEvidence,
    SplitPredictions,
)
from kindsight.errors import BundleError, KindsightError, UsageError
from kindsight.files import write_json
from kindsight.report.data import Predictions
from kindsight.runs.diagnosing.evidence import (
    build_evidence,
    count_classes,
    distinct_predictions,
    trained_settings,
)
from kindsight.runs.diagnosing.measure import (
    Measured,
    estimate_frozen_head,
    measure_images,
)
from kindsight.runs.record import RunRecord, load_run
from kindsight.runs.result import Scored
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data
from kindsight.training.held_out import OUT_OF_FOLD
from kindsight.training.protocols import FittedModel

__all__ = ["DIAGNOSIS_FILE", "diagnose", "diagnose_training", "read_findings"]

DIAGNOSIS_FILE = "diagnosis.json"
"""The findings of a run, and the measurements of its images."""

FORMAT = 1

# Limits on untrusted files.
MAX_BYTES = 2**22
MAX_FINDINGS = 100


def diagnose(run: str | os.PathLike[str]) -> tuple[Diagnosis, ...]:
    """Return the findings on a finished run, the one that explains most first.

    Parameters
    ----------
    run : path
        The run folder. Measurements that its ``diagnosis.json`` lacks are made again on the images,
        if they have not moved.

    Returns
    -------
    tuple of Diagnosis
        Empty for a healthy run.

    Raises
    ------
    BundleError
        If there is no finished run, or a file of it is damaged.
    """
    record = load_run(run)
    stored = _read(record.folder)
    measured = Measured.from_dict(stored or {}, len(record.classes))
    if measured.images is None and record.settings is not None:
        measured = _measure_again(record, record.settings)
    images = record.images
    evidence = build_evidence(
        record.folder,
        record.classes,
        trained_settings(
            {} if record.settings is None else record.settings.to_dict(),
            record.bundle.facts.get("settings", {}),
        ),
        record.history,
        {
            split: distinct_predictions(found, record.digests(split))
            for split, found in record.predictions.items()
        },
        count_classes(
            [image.label for image in images], [image.split for image in images], record.classes
        ),
        temperature=record.bundle.temperature,
        fine_tuned=bool(record.bundle.facts.get("fine_tuning")),
        measured=measured,
    )
    return apply_rules(evidence)


def diagnose_training(
    folder: Path,
    settings: TrainSettings,
    model: FittedModel,
    trained: Predictions,
    scored: Mapping[str, Scored],
) -> tuple[Diagnosis, ...]:
    """Diagnose a training before its bundle is complete, and write ``diagnosis.json``.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    settings : TrainSettings
    model : FittedModel
        The model; its dataset has the splits.
    trained : Predictions
        Predictions of a sample of the training images.
    scored : mapping of str to Scored
        Predictions of the validation and test splits, if there are any.
    """
    dataset = model.dataset
    predictions = {"train": trained, **{name: part.predictions for name, part in scored.items()}}
    digests = dict(zip(dataset.path, dataset.digest, strict=True))
    measured = Measured(
        measure_images(dataset, Cache(settings.training().cache)),
        _out_of_fold(model),
        _estimate(dataset, settings) if model.history is not None else None,
    )
    evidence = build_evidence(
        folder,
        model.classes,
        trained_settings(settings.to_dict(), model.training.to_dict()),
        model.history,
        {
            split: distinct_predictions(found, [digests.get(path) for path in found.paths])
            for split, found in predictions.items()
        },
        count_classes(dataset.label, dataset.split, model.classes),
        temperature=model.temperature,
        fine_tuned=model.fine_tuning is not None and model.fine_tuning.accepted,
        measured=measured,
    )
    findings = apply_rules(evidence)
    write_json(
        folder / DIAGNOSIS_FILE,
        {
            "format": FORMAT,
            "findings": [finding.to_dict() for finding in findings],
            **measured.to_dict(),
        },
    )
    return findings


def read_findings(folder: Path) -> tuple[Diagnosis, ...] | None:
    """Return the findings of a run's ``diagnosis.json``; None if it has none.

    BundleError if the file is damaged.
    """
    stored = _read(folder)
    if stored is None:
        return None
    findings = stored.get("findings")
    if not isinstance(findings, list) or len(findings) > MAX_FINDINGS:
        raise _damaged(folder, "it has no list of findings")
    try:
        return tuple(Diagnosis.from_dict(finding) for finding in findings)
    except UsageError as error:
        raise _damaged(folder, str(error)) from None


def _out_of_fold(model: FittedModel) -> LabelEvidence | None:
    """Return the mistakes of a frozen head's out-of-fold predictions; None for other models."""
    held = model.held_out() if model.history is None else None
    if held is None or held.source != OUT_OF_FOLD or not len(held):
        return None
    paths = tuple(model.dataset.path[row] for row in held.rows)
    return LabelEvidence.of(
        SplitPredictions(paths, held.targets, held.probabilities.astype(np.float64))
    )


def _estimate(dataset: ImageDataset, settings: TrainSettings) -> FrozenEstimate | None:
    train, held_out = (
        np.array([row for row, split in enumerate(dataset.split) if split == name], np.int64)
        for name in ("train", "validation")
    )
    return estimate_frozen_head(dataset, train, held_out, Cache(settings.training().cache))


def _measure_again(record: RunRecord, settings: TrainSettings) -> Measured:
    """Measure the images of a run if its data has not moved."""
    known = {image.path: image for image in record.images}
    with contextlib.suppress(KindsightError, OSError):
        dataset = open_data(settings)
        rows = [row for row, path in enumerate(dataset.path) if path in known]
        dataset = dataset[rows]
        images = [known[path] for path in dataset.path]
        dataset = dataset.with_columns(
            split=[image.split if image.split != "excluded" else None for image in images],
            digest=[image.digest or None for image in images],
        )
        kept = [row for row, split in enumerate(dataset.split) if split is not None]
        dataset = dataset[kept]
        cache = Cache(settings.training().cache)
        return Measured(measure_images(dataset, cache), None, _estimate(dataset, settings))
    return Measured()


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / DIAGNOSIS_FILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _damaged(folder, f"it is larger than {MAX_BYTES // 2**20} MB")
        found = json.loads(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"Could not read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"it is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise _damaged(folder, "it is not an object")
    return found


def _damaged(folder: Path, why: str) -> BundleError:
    return BundleError(f"{folder / DIAGNOSIS_FILE} is damaged: {why}. Delete it, or train again.")
