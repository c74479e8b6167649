"""One training from a folder of images to a run folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.files import write_text
from kindsight.models.worker.process import KerasProcess
from kindsight.report.data import Reference
from kindsight.report.page import prepare_report
from kindsight.runs.figures import write_history_figures
from kindsight.runs.folder import claim_run
from kindsight.runs.learning_rates import find_learning_rate, layers_of
from kindsight.runs.notes import leaks_said, run_notes
from kindsight.runs.report import make_report
from kindsight.runs.result import Clock, Scored, TrainResult, score, write_predictions
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import Divided, divide, open_data, rows_of, write_problems
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import CallbackList, TrainingCallback
from kindsight.training.engine.logs import open_logs
from kindsight.training.engine.mlflow import check_mlflow
from kindsight.training.epoch_settings import EpochTrainer
from kindsight.training.fine_tuning.settings import (
    LEAST_VALIDATION,
    FineTuningResult,
    FittedFineTuned,
    rejection_notes,
)
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.fit import NetworkImages
from kindsight.training.network.fitted import FittedNetwork
from kindsight.training.parity import images_for_keras, needs_keras
from kindsight.training.trainer import Fitted, Images, Training, prepare
from kindsight.training.write_bundle import pack

__all__ = ["TrainResult", "TrainSettings", "find_learning_rate", "layers_of", "train"]

SPLITS = ("train", "validation", "test")
# Who trains again with another seed mostly takes the next. It costs the first training some ten
# images more in Keras, and saves itself the start of Keras.
NEXT_SEEDS = (1,)
# Share of the images' area: 4 to 3 loses 25%, as most photographs do.
MUCH_CUT_OFF = 0.3
MORE = "--budget 10m also fine-tunes the network, and keeps that where it is better"


def train(
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    callback: TrainingCallback | None = None,
    reference: Sequence[Reference] = (),
) -> TrainResult:
    """Train a classifier on a folder and write its run folder.

    Parameters
    ----------
    settings : TrainSettings
        What to do.
    progress : callable, optional
        Called with (stage, done, total); the stages are backbone, images, head, files, check,
        report.
    callback : TrainingCallback, optional
        Told of the epochs of a network's training.
    reference : sequence of Reference
        Others' accuracies on the same data, shown beside ours in the report.

    Raises
    ------
    DatasetError
        If no classifier can be made of the folder.
    UsageError
        If the named run is there already.
    ParityError
        If the written networks disagree.
    MissingExtraError
        If MLflow is wanted and not installed.
    """
    clock = Clock()
    training = settings.training()
    if settings.mlflow:
        check_mlflow()
    dataset = open_data(settings)
    clock.mark("read")
    say = progress or _silent
    # TensorFlow takes seconds to import; where images must be looked at, that goes on meanwhile.
    with claim_run(settings) as folder, training.process() as keras, ExitStack() as stack:
        frozen = isinstance(training, FrozenTrainer)
        images = prepare(training, dataset, _watching(keras, training, clock, say), keras)
        stack.callback(images.close)
        write_problems(folder, images)
        clock.mark("features" if frozen else "images")
        divided = divide(images, settings, dataset, say).written(folder)
        clock.mark("divide")
        images = divided.images
        rows = {name: rows_of(images.dataset, name) for name in SPLITS}
        compared = rows["validation"] if len(rows["validation"]) else rows["train"]
        later = _begin_ahead(keras, training, images, compared, divided, settings.seed)
        with _logging(settings, folder, callback) as heard:
            fitted = images.fit(
                dataset.classes,
                rows["train"],
                rows["validation"],
                keras=keras,
                folder=folder,
                progress=progress,
                callback=heard,
            )
        scored = _score_parts(fitted, rows, folder)
        clock.mark("fit")
        say("check", 0, 0)
        facts = divided.facts(scored)
        bundle = pack(folder, fitted, compared, keras, facts, later, asked=training)
        keras.close_in_background()
        clock.mark("check")
        notes = run_notes(dataset, settings, folder, scored, divided, fitted, say, clock)
        result = _result(folder, settings, images, fitted, scored, rows, notes)
        say("report", 0, 0)
        if fitted.history is not None:
            write_history_figures(fitted.history, folder)
        result = replace(
            result,
            seconds=clock.total(),
            leakage=leaks_said(divided.leakage, scored, fitted.classes),
        )
        page = make_report(
            settings, result, fitted, bundle, scored, reference, divided.leakage.table
        )
        write_text(result.report, page)
        clock.mark("report")
        result = replace(result, seconds=clock.total())
        bundle.facts["seconds"] = result.seconds
        bundle.write()
        if isinstance(fitted, FittedNetwork):
            fitted.clear_away()
    return result


def _watching(keras: KerasProcess, training: Training, clock: Clock, say: Progress) -> Progress:
    """Return what is told of the reading of images, and passes it on.

    Where there are images to be looked at, Keras will have to be asked: it starts meanwhile.
    """
    begun: set[str] = set()

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "images" and isinstance(training, FrozenTrainer) and stage not in begun:
            clock.mark("backbone")
        begun.add(stage)
        if stage == "images" and done < total and "Keras" not in begun:
            begun.add("Keras")
            if isinstance(training, FrozenTrainer) and training.tunes == "off":
                keras.load_ahead(training.backbone().keras)
            else:
                keras.start()
        say(stage, done, total)

    return watch


def _begin_ahead(
    keras: KerasProcess,
    training: Training,
    images: Images,
    compared: NDArray[np.int64],
    divided: Divided,
    seed: int,
) -> list[NDArray[np.int64]]:
    """Begin what can be done while the head is fitted: Keras's part, reading templates.

    Returns what the next seeds would compare.
    """
    threading.Thread(target=prepare_report, name="kindsight-report", daemon=True).start()
    if isinstance(images, NetworkImages) or _tunes(training):
        keras.start()
        return []
    if not needs_keras(images, compared):
        return []
    later = [divided.with_seed(seed + more) for more in NEXT_SEEDS]
    if images.files.layout.networks():  # the head may need only one of them
        keras.load_ahead(images.files.keras)
    else:
        run = images_for_keras(images, [compared, *later])
        keras.run_ahead(images.files.keras, lambda: images.kept_pixels(run))
    return later


def _silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def _logging(
    settings: TrainSettings, folder: Path, callback: TrainingCallback | None
) -> Iterator[TrainingCallback | None]:
    """Add the logs that are wanted to a network's callback."""
    training = settings.training()
    if not isinstance(training, EpochTrainer) and not _tunes(training):
        yield callback
        return
    with open_logs(
        folder,
        tensorboard=settings.tensorboard,
        mlflow=bool(settings.mlflow),
        parameters=training.to_dict(),
    ) as logs:
        yield CallbackList(*([] if callback is None else [callback]), logs)


def _score_parts(
    fitted: Fitted, rows: dict[str, NDArray[np.int64]], folder: Path
) -> dict[str, Scored]:
    """Score validation and test part, and write what was answered."""
    scored = {name: score(fitted, rows[name]) for name in SPLITS[1:] if len(rows[name])}
    for name, part in scored.items():
        write_predictions(folder / f"{name}.csv", part.predictions, fitted.classes)
    return scored


def _result(
    folder: Path,
    settings: TrainSettings,
    images: Images,
    fitted: Fitted,
    scored: dict[str, Scored],
    rows: dict[str, NDArray[np.int64]],
    notes: tuple[str, ...],
) -> TrainResult:
    tuning = _tuning(fitted)
    own = fitted.notes if isinstance(fitted, FittedNetwork) else ()
    told = (*notes, *fitted.dataset.notes, *_crop_notes(fitted), *own, *rejection_notes(tuning))
    every = tuple(dict.fromkeys(told))
    judged = len(rows["validation"]) >= LEAST_VALIDATION
    could_tune = isinstance(fitted, FittedFrozenHead) and tuning is None and judged
    return TrainResult(
        run=folder,
        report=folder / "report.html",
        classes=fitted.classes,
        images={
            **{name: len(rows[name]) for name in SPLITS},
            "skipped": len(images.problems),
        },
        validation=scored["validation"].evaluation if "validation" in scored else None,
        test=scored["test"].evaluation if "test" in scored else None,
        seconds={},
        cache={
            "computed": images.computed,
            "reused": images.reused,
            "folder": str(Cache(settings.training().cache).root),
        },
        notes=every,
        problems=images.problems,
        head=fitted.head.chosen.describe() if isinstance(fitted, FittedFrozenHead) else "",
        temperature=fitted.temperature,
        history=fitted.history,
        network=fitted.words() if isinstance(fitted, FittedNetwork) else "",
        fine_tuning={} if tuning is None else tuning.to_dict(),
        more=MORE if could_tune else "",
    )


def _tunes(training: Training) -> bool:
    """Whether a frozen backbone is to be fine-tuned."""
    return isinstance(training, FrozenTrainer) and training.tunes != "off"


def _tuning(fitted: Fitted) -> FineTuningResult | None:
    return fitted.fine_tuning if isinstance(fitted, (FittedFrozenHead, FittedFineTuned)) else None


def _crop_notes(fitted: Fitted) -> tuple[str, ...]:
    """Say what the network does not see, where that is much."""
    share = fitted.share_cut_off()
    if share < MUCH_CUT_OFF:
        return ()
    return (
        f"The images are far from square: {share:.0%} of their area lies outside the crop, on "
        "average, and is not looked at. If what matters can be there: --resize stretch or pad.",
    )
