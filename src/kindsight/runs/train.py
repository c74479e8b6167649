"""One training: from a dataset to a run folder with a bundle and a report."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.bundle import Bundle
from kindsight.cache.folder import Cache
from kindsight.cache.location import sharing_notes
from kindsight.dataset.splits.settings import check_split
from kindsight.distributed import require_cluster, reuse_executors
from kindsight.models.pooled_maps import MapNetwork
from kindsight.models.worker.process import KerasProcess, require_training_packages
from kindsight.report.data import Overlay, Predictions, Reference
from kindsight.report.format import duration
from kindsight.report.page import prepare_report
from kindsight.runs.advice import hint_of
from kindsight.runs.diagnosing import diagnose_training
from kindsight.runs.explained import map_for_report, maps_of, overlays_of_mistakes
from kindsight.runs.folder import claim_run
from kindsight.runs.record import RunRecord, read_records
from kindsight.runs.reporting.build import report_data, report_thumbnails
from kindsight.runs.reporting.facts import ReportFacts
from kindsight.runs.reporting.make import MODEL_CARD_FILE, write_history_figures, write_report
from kindsight.runs.result import (
    Clock,
    Scored,
    TrainResult,
    leakage_summary,
    predict_training_images,
    run_notes,
    score,
    unsupported_notes,
    write_predictions,
)
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import SplitImages, open_data, rows_of, split_images, write_problems
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import (
    CallbackList,
    TrainingCallback,
    check_mlflow,
    open_logs,
)
from kindsight.training.frozen.settings import parse_budget
from kindsight.training.protocols import FittedModel, Prepared, Trainer
from kindsight.training.trainer import prepare
from kindsight.training.write_bundle import (
    describe_uncertainty,
    measure_uncertainty,
    uncertainty_notes,
    unknown_notes,
    write_bundle,
)

if TYPE_CHECKING:
    from kindsight.runs.cross_validation import CrossValidation

__all__ = ["TrainResult", "TrainSettings", "train"]

SPLITS = ("train", "validation", "test")

# Fraction of the area outside the crop from which a note is written; a 4:3 photograph loses 25%.
MUCH_CROPPED = 0.3
# A note is written if a training takes longer than its time budget by this factor.
BUDGET_TOLERANCE = 1.1


class Explained(NamedTuple):
    """Explanations of a run's network for its report, computed in parallel with other work."""

    record: RunRecord
    network: Future[MapNetwork | None]
    overlays: Future[tuple[Overlay, ...]]


@reuse_executors()
def train(
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    callback: TrainingCallback | None = None,
    reference: Sequence[Reference] = (),
) -> TrainResult:
    """Train a classifier and write its run folder.

    Parameters
    ----------
    settings : TrainSettings
        The dataset, the model and how it is trained.
    progress : callable, optional
        Called with (stage, done, total); the stages are backbone, images, head, files, check and
        report.
    callback : TrainingCallback, optional
        Notified of the epochs of a training by gradient.
    reference : sequence of Reference
        Published accuracies on the same data, shown in the report.

    Raises
    ------
    DatasetError
        If the dataset cannot be used for a classifier.
    UsageError
        If the run folder exists already.
    ParityError
        If the two written networks disagree.
    MissingExtraError
        If MLflow is requested and not installed, or packages that training needs are not.
    """
    clock, show = Clock(), progress or _silent
    trainer, verify = settings.training(), settings.verify or "auto"
    _require_packages(settings)
    dataset = open_data(settings)
    check_split(dataset, settings.split_settings(int(bool(settings.folds))))
    clock.mark("read")
    with claim_run(settings) as folder, trainer.process() as keras, ExitStack() as stack:
        watch = _watching(keras, trainer, verify, clock, show)
        prepared = prepare(trainer, dataset, watch, keras)
        stack.callback(prepared.close)
        write_problems(folder, prepared)
        clock.mark("prepare")

        split = split_images(prepared, settings, dataset, show).written(folder)
        prepared, rows = (
            split.images,
            {name: rows_of(split.images.dataset, name) for name in SPLITS},
        )
        compared = rows["validation"] if len(rows["validation"]) else rows["train"]
        clock.mark("split")

        _start_ahead(prepared, keras, compared, verify)
        folds = _cross_validate(prepared, split, trainer, keras, folder, show)
        if folds:
            clock.mark("folds")
        callbacks = stack.enter_context(_logging(settings, trainer, folder, callback))
        model = prepared.for_fold(len(split.folds)).fit(
            dataset.classes,
            rows["train"],
            rows["validation"],
            keras=keras,
            folder=folder,
            progress=progress,
            callback=callbacks,
            chosen=folds and folds.choices(trainer),
        )
        clock.mark("fit")
        folds = folds and folds.with_model(model, clock.seconds["fit"])
        scored, trained = _score(model, rows, folder, folds)
        # In products of small matrices, a second thread waits more than it computes.
        stack.enter_context(threadpool_limits(1, user_api="blas"))

        show("check", 0, 0)
        bundle = write_bundle(
            folder, model, compared, keras,
            {**split.facts(scored), "uncertainty": _uncertainty(settings, model, folds)},
            requested=trainer, verify=verify, known_kept=settings.known_kept or None,
        )  # fmt: skip
        keras.close_in_background()
        clock.mark("check")

        explained = stack.enter_context(_explained_ahead(model, bundle))
        found = run_notes(
            dataset, _with_chosen_size(settings, model), folder, scored, split.leakage, show, clock
        )
        notes = (*found, *keras.device_notes(), *filter(None, [bundle.facts["parity"]["note"]]))
        result = _with_uncertainty(
            _result(folder, settings, prepared, model, scored, rows, notes, folds), settings, bundle
        )
        show("report", 0, 0)
        findings = diagnose_training(folder, settings, model, trained, scored)
        seconds = clock.total()
        exceeded = _budget_notes(settings, seconds["total"])
        result = replace(
            result, seconds=seconds, notes=(*result.notes, *exceeded), diagnosis=findings,
            leakage=leakage_summary(split.leakage, scored, model.classes),
        )  # fmt: skip
        _write_report(result, model, explained, reference)
        clock.mark("report")

        result = replace(result, seconds=clock.total())
        callbacks.on_result(_final_metrics(result), result.report)
        bundle.facts["seconds"] = result.seconds
        bundle.write()
        model.clear_away()
        if folds:
            folds.clear_away(folder)
    return result


def _silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


def _require_packages(settings: TrainSettings) -> None:
    """Raise MissingExtraError for packages that are not installed, SettingsError for a cluster."""
    require_training_packages()
    require_cluster(settings.on)
    if settings.mlflow:
        check_mlflow()


def _watching(
    keras: KerasProcess, trainer: Trainer, verify: str, clock: Clock, show: Progress
) -> Progress:
    """Return a progress function that starts Keras as soon as an image has to be decoded."""
    started: set[str] = set()

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "features" and "backbone" in started and stage not in started:
            clock.mark("backbone")
        started.add(stage)
        if stage in ("images", "features") and done < total and "Keras" not in started:
            started.add("Keras")
            # TensorFlow takes seconds to import, on one core.
            trainer.warm_up(keras, verify=verify)
        show(stage, done, total)

    return watch


def _start_ahead(
    prepared: Prepared, keras: KerasProcess, compared: NDArray[np.int64], verify: str
) -> None:
    """Start Keras and read the report's templates while the model is fitted."""
    threading.Thread(target=prepare_report, name="kindsight-report", daemon=True).start()
    prepared.warm_up(keras, compared, verify=verify)


@contextmanager
def _logging(
    settings: TrainSettings, trainer: Trainer, folder: Path, callback: TrainingCallback | None
) -> Iterator[CallbackList]:
    """Combine the user's callback with the requested loggers."""
    with open_logs(
        folder,
        tensorboard=settings.tensorboard,
        mlflow=bool(settings.mlflow),
        parameters={**settings.to_dict(), **trainer.to_dict()},
    ) as logs:
        yield CallbackList(*([] if callback is None else [callback]), logs)


def _final_metrics(result: TrainResult) -> dict[str, float]:
    """Return the metrics for loggers, by name."""
    metrics: dict[str, float] = {"temperature": result.temperature}
    for split, found in (("validation", result.validation), ("test", result.test)):
        if found is not None:
            for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"):
                metrics[f"{split}_{name}"] = float(getattr(found, name))
    metrics |= {f"{name}_images": float(count) for name, count in result.images.items()}
    metrics["total_seconds"] = float(result.seconds["total"])
    return metrics


def _cross_validate(
    prepared: Prepared,
    split: SplitImages,
    trainer: Trainer,
    keras: KerasProcess,
    folder: Path,
    show: Progress,
) -> CrossValidation | None:
    """Return the folds of a cross-validation; None if there is none."""
    if not split.folds:
        return None
    # Imported here because it imports the code of all trainings by epochs.
    from kindsight.runs.cross_validation import cross_validate

    return cross_validate(prepared, split.folds, trainer, keras, folder, show)


def _score(
    model: FittedModel,
    rows: dict[str, NDArray[np.int64]],
    folder: Path,
    folds: CrossValidation | None,
) -> tuple[dict[str, Scored], Predictions]:
    """Evaluate on the validation and test splits, and write the predictions.

    With folds, the out-of-fold predictions take the place of the validation split's. Predictions of
    training images are also written and returned, but not used in metrics.
    """
    names = SPLITS[1:] if folds is None else SPLITS[2:]
    scored = {name: score(model, rows[name]) for name in names if len(rows[name])}
    for name, part in scored.items():
        write_predictions(folder / f"{name}.csv", part.predictions, model.classes)
    trained = predict_training_images(model, rows["train"])
    write_predictions(folder / "train.csv", trained, model.classes)
    if folds is None:
        return scored, trained
    folds.write(folder)
    return {"validation": folds.scored(), **scored}, trained


def _result(
    folder: Path,
    settings: TrainSettings,
    prepared: Prepared,
    model: FittedModel,
    scored: dict[str, Scored],
    rows: dict[str, NDArray[np.int64]],
    notes: tuple[str, ...],
    folds: CrossValidation | None,
) -> TrainResult:
    cache = Cache(settings.training().cache).root
    every = (
        *notes, *model.dataset.notes, *unsupported_notes(prepared.problems), *_crop_notes(model),
        *model.notes, *sharing_notes(cache), *([folds.note] if folds and folds.note else []),
    )  # fmt: skip
    size = getattr(model.training, "size_choice", None)
    return TrainResult(
        run=folder,
        report=folder / "report.html",
        classes=model.classes,
        images={**{name: len(rows[name]) for name in SPLITS}, "skipped": len(prepared.problems)},
        validation=scored["validation"].evaluation if "validation" in scored else None,
        test=scored["test"].evaluation if "test" in scored else None,
        seconds={},
        cache={
            "computed": prepared.computed,
            "reused": prepared.reused,
            "folder": str(cache),
        },
        notes=tuple(dict.fromkeys(every)),
        problems=prepared.problems,
        problem_labels=prepared.problem_labels,
        ignored_files=prepared.dataset.ignored_files,
        model=model.describe(),
        temperature=model.temperature,
        history=model.history,
        fine_tuning={} if model.fine_tuning is None else model.fine_tuning.to_dict(),
        hint=hint_of(model, settings, len(rows["validation"]), str(folder)),
        cross_validation=folds,
        input_size={} if size is None else size.to_dict(),
    )


def _uncertainty(
    settings: TrainSettings, model: FittedModel, folds: CrossValidation | None
) -> dict[str, Any]:
    """Return the bundle's entry, measured on predictions of held-out images."""
    held_out = model.held_out()
    if held_out is None and folds is not None:
        held_out = folds.held_out()
    return measure_uncertainty(held_out, settings.target_accuracy, settings.target_coverage)


def _with_chosen_size(settings: TrainSettings, model: FittedModel) -> TrainSettings:
    """Return the settings with the chosen input size, so that checks share the features."""
    choice = getattr(model.training, "size_choice", None)
    return settings if choice is None else settings.with_options(size=choice.size)


def _with_uncertainty(result: TrainResult, settings: TrainSettings, bundle: Bundle) -> TrainResult:
    """Add the bundle's uncertainty to the result: a row of the summary, or a note."""
    found = bundle.uncertainty
    notes = (
        *uncertainty_notes(found, settings.target_accuracy, settings.target_coverage),
        *unknown_notes(found, settings.known_kept),
    )
    return replace(
        result,
        model={**result.model, **describe_uncertainty(found)},
        notes=(*result.notes, *notes),
        uncertainty=found,
    )


@contextmanager
def _explained_ahead(model: FittedModel, bundle: Bundle) -> Iterator[Explained]:
    """Read the run's records, and compute the report's overlays while the block runs."""
    record = read_records(bundle)
    with ThreadPoolExecutor(1) as executor:
        network = executor.submit(maps_of, bundle)
        overlays = executor.submit(lambda: overlays_of_mistakes(model, record, network.result()))
        yield Explained(record, network, overlays)


def _write_report(
    result: TrainResult, model: FittedModel, explained: Explained, reference: Sequence[Reference]
) -> None:
    """Write the plots, the facts for the report, and the report from the run folder."""
    if model.history is not None:
        write_history_figures(model.history, result.run)
    record, cache = explained.record, result.cache["folder"]
    feature_map = map_for_report(model, record, explained.network.result())
    facts = ReportFacts.of_training(
        model,
        notes=result.notes,
        seconds=result.seconds,
        reference=tuple(reference),
        feature_map=feature_map,
    )
    images = report_thumbnails(record, feature_map, facts.features_file, cache)
    replace(facts, overlays=explained.overlays.result()).write(result.run)
    data = report_data(record, cache=cache, images=images)
    write_report(data, result.report, result.run / MODEL_CARD_FILE)


def _crop_notes(model: FittedModel) -> tuple[str, ...]:
    """Return a note if the crop removes much of the images."""
    share = model.cropped_fraction()
    if share < MUCH_CROPPED:
        return ()
    return (
        f"The images are far from square: on average, {share:.0%} of their area is outside the "
        "crop and not used. If it may be relevant, use --resize stretch or --resize pad.",
    )


def _budget_notes(settings: TrainSettings, seconds: float) -> tuple[str, ...]:
    """Return a note if a training took clearly longer than its time budget."""
    budget = None if settings.budget is None else parse_budget(settings.budget)
    if budget is None or seconds <= BUDGET_TOLERANCE * budget:
        return ()
    return (
        f"The time budget of {duration(budget)} was exceeded: the training took "
        f"{duration(seconds)}. The frozen head is always trained, even if the budget is shorter.",
    )
