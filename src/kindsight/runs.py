"""One training from a folder of pictures to a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.agreement import needs_keras
from kindsight.cache import Cache
from kindsight.catalog import Catalog, open_parts
from kindsight.catalog.split import split_catalog
from kindsight.errors import CatalogError
from kindsight.evaluation import evaluate, to_probabilities
from kindsight.files import write_csv, write_text
from kindsight.models.keras_process import KerasProcess
from kindsight.pack import pack
from kindsight.report import Predictions, Reference
from kindsight.runfolder import claim_run
from kindsight.runreport import make_report
from kindsight.runresult import Clock, Scored, TrainResult
from kindsight.settings import TrainSettings
from kindsight.training.features import Features
from kindsight.training.frozen import FittedFrozen, Progress

__all__ = ["TrainResult", "TrainSettings", "train"]

SPLITS = ("train", "validation", "test")
# Share of the pictures' area: 4 to 3 loses 25%, as most photographs do.
MUCH_CUT_OFF = 0.3


def train(
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    reference: Sequence[Reference] = (),
) -> TrainResult:
    """Train a classifier on a folder and write its run folder.

    Parameters
    ----------
    settings : TrainSettings
        What to do.
    progress : callable, optional
        Called with (stage, done, total); the stages are backbone, pictures, head, check, report.
    reference : sequence of Reference
        Others' accuracies on the same data, shown beside ours in the report.

    Raises
    ------
    CatalogError
        If no classifier can be made of the folder.
    UsageError
        If the named run is there already.
    AgreementError
        If the written networks disagree.
    """
    clock = Clock()
    training = settings.training()
    catalog = open_parts(
        settings.data,
        settings.data_options(),
        validation=settings.validation_data,
        test=settings.test_data,
    )
    clock.mark("read")
    # TensorFlow takes seconds to import; where pictures must be looked at, that goes on meanwhile.
    with claim_run(settings) as folder, KerasProcess() as keras:

        def watch(stage: str, done: int, total: int) -> None:
            if stage == "pictures" and done < total:
                keras.start()
            if progress is not None:
                progress(stage, done, total)

        files = training.backbone(progress, keras)
        clock.mark("backbone")
        features = training.features(catalog, files, watch)
        _write_problems(folder, features)
        clock.mark("features")
        features = _split(features, settings, catalog)
        rows = {name: _rows(features.catalog, name) for name in SPLITS}
        compared = rows["validation"] if len(rows["validation"]) else rows["train"]
        if needs_keras(features, files, compared):
            keras.start()
        if progress is not None:
            progress("head", 0, 0)
        fitted = training.fit(features, files, catalog.classes, rows["train"])
        scored = {name: _score(fitted, rows[name]) for name in SPLITS[1:] if len(rows[name])}
        clock.mark("fit")
        if progress is not None:
            progress("check", 0, 0)
        facts = _facts(features, scored, rows)
        bundle = pack(folder, fitted, compared, keras, facts)
        clock.mark("check")
        result = _result(folder, settings, fitted, scored, rows, catalog.notes)
        for name, part in scored.items():
            _write_predictions(folder / f"{name}.csv", part.predictions, fitted.classes)
        if progress is not None:
            progress("report", 0, 0)
        result = replace(result, seconds=clock.total())
        page = make_report(settings, result, fitted, bundle, scored, reference)
        write_text(result.report, page)
        clock.mark("report")
        result = replace(result, seconds=clock.total())
        bundle.facts["seconds"] = result.seconds
        bundle.write()
    return result


def _split(features: Features, settings: TrainSettings, catalog: Catalog) -> Features:
    """Split what could be read, after making sure that no class was lost."""
    left = features.catalog.counts()
    if lost := [name for name in catalog.classes if not left.get(name)]:
        raise CatalogError(
            "Every class must have pictures that can be read. Received: none left of "
            f"{', '.join(lost)}; problems.csv in the run folder says why."
        )
    parted = split_catalog(features.catalog, **settings.parts(), seed=settings.seed)
    return replace(features, catalog=parted)


def _rows(catalog: Catalog, split: str) -> NDArray[np.int64]:
    return np.array([row for row, name in enumerate(catalog.split) if name == split], np.int64)


def _score(fitted: FittedFrozen, rows: NDArray[np.int64]) -> Scored:
    catalog = fitted.features.catalog
    places = {name: place for place, name in enumerate(fitted.classes)}
    targets = np.array([places[str(catalog.label[row])] for row in rows], np.int64)
    logits = fitted.head.layers.logits(fitted.features.vectors[rows])
    probabilities = to_probabilities(logits, fitted.head.temperature)
    paths = tuple(catalog.path[row] for row in rows)
    return Scored(
        rows,
        Predictions(paths, targets, probabilities),
        evaluate(probabilities, targets, fitted.classes),
    )


def _facts(
    features: Features, scored: dict[str, Scored], rows: dict[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """Return what ``bundle.json`` says of the data and of the scores."""
    metrics = {name: part.evaluation.to_dict() for name, part in scored.items()}
    return {
        "data": {
            "digest": features.catalog.digest_of_data(),
            "pictures": {name: len(rows[name]) for name in SPLITS},
            "set_aside": len(features.problems),
        },
        "metrics": {"validation": None, "test": None, **metrics},
    }


def _result(
    folder: Path,
    settings: TrainSettings,
    fitted: FittedFrozen,
    scored: dict[str, Scored],
    rows: dict[str, NDArray[np.int64]],
    notes: tuple[str, ...],
) -> TrainResult:
    features = fitted.features
    every = tuple(dict.fromkeys((*notes, *features.catalog.notes, *_crop_notes(fitted))))
    return TrainResult(
        run=folder,
        report=folder / "report.html",
        classes=fitted.classes,
        pictures={
            **{name: len(rows[name]) for name in SPLITS},
            "set_aside": len(features.problems),
        },
        validation=scored["validation"].evaluation if "validation" in scored else None,
        test=scored["test"].evaluation if "test" in scored else None,
        seconds={},
        cache={
            "computed": features.computed,
            "reused": features.reused,
            "folder": str(Cache(settings.training().cache).root),
        },
        notes=every,
        problems=features.problems,
        head=fitted.head.chosen.describe(),
        temperature=fitted.head.temperature,
    )


def _crop_notes(fitted: FittedFrozen) -> tuple[str, ...]:
    """Say what the network does not see, where that is much."""
    share = fitted.share_cut_off()
    if share < MUCH_CUT_OFF:
        return ()
    return (
        f"The pictures are far from square: {share:.0%} of their area lies outside the crop, on "
        "average, and is not looked at. If what matters can be there: --resize stretch or pad.",
    )


def _write_problems(folder: Path, features: Features) -> None:
    rows = (
        (error.path, label or "", error.code, error.reason)
        for error, label in zip(features.problems, features.problem_labels, strict=True)
    )
    write_csv(folder / "problems.csv", ("path", "label", "code", "reason"), rows)


def _write_predictions(path: Path, predictions: Predictions, classes: tuple[str, ...]) -> None:
    """Write path, label, prediction and a probability a class."""
    header = ("path", "label", "prediction", *(f"p_{name}" for name in classes))
    predicted = predictions.predicted
    rows = (
        (
            predictions.paths[row],
            classes[predictions.targets[row]],
            classes[predicted[row]],
            *(f"{value:.6g}" for value in predictions.probabilities[row]),
        )
        for row in range(len(predictions.paths))
    )
    write_csv(path, header, rows)
