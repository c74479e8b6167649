"""One training from a folder of pictures to a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.agreement import needs_keras
from kindsight.cache import Cache
from kindsight.catalog import Catalog, open_parts
from kindsight.catalog.split import split_catalog
from kindsight.errors import CatalogError, SettingsError
from kindsight.evaluation import evaluate
from kindsight.files import write_csv, write_text
from kindsight.models.small_cnn import SmallCNN
from kindsight.pack import pack
from kindsight.report import Predictions, Reference
from kindsight.runfigures import write_history_figures, write_learning_rate_figures
from kindsight.runfolder import claim_run, data_name
from kindsight.runreport import make_report
from kindsight.runresult import Clock, Scored, TrainResult
from kindsight.settings import TrainSettings
from kindsight.training.common import Progress
from kindsight.training.frozen import FittedFrozen, FrozenTraining
from kindsight.training.kinds import Fitted, Pictures, prepare
from kindsight.training.listener import Listeners, TrainingListener
from kindsight.training.logs import open_logs
from kindsight.training.mlflow_log import check_mlflow
from kindsight.training.network import NETWORKS, NetworkTraining
from kindsight.training.network_fit import FittedNetwork, NetworkPictures
from kindsight.training.rate_finder import RateSweep

__all__ = ["TrainResult", "TrainSettings", "find_learning_rate", "network_of", "train"]

SPLITS = ("train", "validation", "test")
# Share of the pictures' area: 4 to 3 loses 25%, as most photographs do.
MUCH_CUT_OFF = 0.3


def train(
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    listener: TrainingListener | None = None,
    reference: Sequence[Reference] = (),
) -> TrainResult:
    """Train a classifier on a folder and write its run folder.

    Parameters
    ----------
    settings : TrainSettings
        What to do.
    progress : callable, optional
        Called with (stage, done, total); the stages are backbone, pictures, head, files, check,
        report.
    listener : TrainingListener, optional
        Told of the epochs of a network's training.
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
    MissingExtraError
        If MLflow is wanted and not installed.
    """
    clock = Clock()
    training = settings.training()
    if settings.mlflow:
        check_mlflow()
    catalog = _open(settings)
    clock.mark("read")
    say = progress or _silent
    # TensorFlow takes seconds to import; where pictures must be looked at, that goes on meanwhile.
    with claim_run(settings) as folder, training.process() as keras, ExitStack() as stack:
        frozen = isinstance(training, FrozenTraining)
        begun: set[str] = set()

        def watch(stage: str, done: int, total: int) -> None:
            if stage == "pictures" and done < total:
                keras.start()
            if frozen and stage == "pictures" and stage not in begun:
                clock.mark("backbone")
            begun.add(stage)
            say(stage, done, total)

        pictures = prepare(training, catalog, watch, keras)
        stack.callback(pictures.close)
        _write_problems(folder, pictures)
        clock.mark("features" if frozen else "pictures")
        pictures = _split(pictures, settings, catalog)
        rows = {name: _rows(pictures.catalog, name) for name in SPLITS}
        compared = rows["validation"] if len(rows["validation"]) else rows["train"]
        if isinstance(pictures, NetworkPictures) or needs_keras(
            pictures.features, pictures.files, compared
        ):
            keras.start()
        with _logging(settings, folder, listener) as heard:
            fitted = pictures.fit(
                catalog.classes,
                rows["train"],
                rows["validation"],
                keras=keras,
                folder=folder,
                progress=progress,
                listener=heard,
            )
        scored = {name: _score(fitted, rows[name]) for name in SPLITS[1:] if len(rows[name])}
        clock.mark("fit")
        say("check", 0, 0)
        facts = _facts(pictures, scored, rows)
        bundle = pack(folder, fitted, compared, keras, facts)
        clock.mark("check")
        result = _result(folder, settings, pictures, fitted, scored, rows, catalog.notes)
        for name, part in scored.items():
            _write_predictions(folder / f"{name}.csv", part.predictions, fitted.classes)
        say("report", 0, 0)
        if fitted.history is not None:
            write_history_figures(fitted.history, folder)
        result = replace(result, seconds=clock.total())
        page = make_report(settings, result, fitted, bundle, scored, reference)
        write_text(result.report, page)
        clock.mark("report")
        result = replace(result, seconds=clock.total())
        bundle.facts["seconds"] = result.seconds
        bundle.write()
        if isinstance(fitted, FittedNetwork):
            fitted.clear_away()
    return result


def network_of(settings: TrainSettings) -> tuple[SmallCNN, int]:
    """Return the network that a training would train, and how many classes it would tell apart.

    Raises
    ------
    SettingsError
        For a model that is not trained from its first weights.
    CatalogError
        If no classifier can be made of the data.
    """
    return _network_training(settings).network(), len(_open(settings).classes)


def find_learning_rate(
    settings: TrainSettings, *, progress: Progress | None = None
) -> tuple[RateSweep, tuple[Path, Path]]:
    """Try rising learning rates on the training part, and draw what the loss did.

    Parameters
    ----------
    settings : TrainSettings
        Of the training that the rate is for.
    progress : callable, optional
        Called with (stage, done, total); the stages are pictures and rates.

    Returns
    -------
    sweep : RateSweep
    files : svg, png : pathlib.Path
        In the folder for runs, in a folder named after the data; older ones are replaced.

    Raises
    ------
    SettingsError
        For a model that is not trained from its first weights.
    CatalogError
        If no classifier can be made of the data.
    """
    training, catalog = _network_training(settings), _open(settings)
    with training.process() as keras, ExitStack() as stack:
        keras.start()
        pictures = prepare(training, catalog, progress, keras)
        stack.callback(pictures.close)
        pictures = _split(pictures, settings, catalog)
        assert isinstance(pictures, NetworkPictures)
        rows = _rows(pictures.catalog, "train")
        sweep = pictures.find_rate(catalog.classes, rows, keras, progress)
    folder = Path(settings.runs, f"{data_name(settings)}-learning-rate")
    drawn = write_learning_rate_figures(sweep.rates, sweep.losses, sweep.suggestion, folder)
    return sweep, drawn


def _network_training(settings: TrainSettings) -> NetworkTraining:
    training = settings.training()
    if not isinstance(training, NetworkTraining):
        raise SettingsError(
            f"The model must be a network that is trained from its first weights "
            f"({', '.join(NETWORKS)}). Received: {settings.model}."
        )
    return training


def _open(settings: TrainSettings) -> Catalog:
    return open_parts(
        settings.data,
        settings.data_options(),
        validation=settings.validation_data,
        test=settings.test_data,
    )


def _silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def _logging(
    settings: TrainSettings, folder: Path, listener: TrainingListener | None
) -> Iterator[TrainingListener | None]:
    """Add the logs that are wanted to a network's listener."""
    if not isinstance(settings.training(), NetworkTraining):
        yield listener
        return
    with open_logs(
        folder,
        tensorboard=settings.tensorboard,
        mlflow=bool(settings.mlflow),
        parameters=settings.training().to_dict(),
    ) as logs:
        yield Listeners(*([] if listener is None else [listener]), logs)


def _split(pictures: Pictures, settings: TrainSettings, catalog: Catalog) -> Pictures:
    """Split what could be read, after making sure that no class was lost."""
    left = pictures.catalog.counts()
    if lost := [name for name in catalog.classes if not left.get(name)]:
        raise CatalogError(
            "Every class must have pictures that can be read. Received: none left of "
            f"{', '.join(lost)}; problems.csv in the run folder says why."
        )
    parted = split_catalog(pictures.catalog, **settings.parts(), seed=settings.seed)
    return pictures.with_catalog(parted)


def _rows(catalog: Catalog, split: str) -> NDArray[np.int64]:
    return np.array([row for row, name in enumerate(catalog.split) if name == split], np.int64)


def _score(fitted: Fitted, rows: NDArray[np.int64]) -> Scored:
    catalog = fitted.catalog
    places = {name: place for place, name in enumerate(fitted.classes)}
    targets = np.array([places[str(catalog.label[row])] for row in rows], np.int64)
    probabilities = fitted.probabilities(rows)
    paths = tuple(catalog.path[row] for row in rows)
    return Scored(
        rows,
        Predictions(paths, targets, probabilities),
        evaluate(probabilities, targets, fitted.classes),
    )


def _facts(
    pictures: Pictures, scored: dict[str, Scored], rows: dict[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """Return what ``bundle.json`` says of the data and of the scores."""
    metrics = {name: part.evaluation.to_dict() for name, part in scored.items()}
    return {
        "data": {
            "digest": pictures.catalog.digest_of_data(),
            "pictures": {name: len(rows[name]) for name in SPLITS},
            "set_aside": len(pictures.problems),
        },
        "metrics": {"validation": None, "test": None, **metrics},
    }


def _result(
    folder: Path,
    settings: TrainSettings,
    pictures: Pictures,
    fitted: Fitted,
    scored: dict[str, Scored],
    rows: dict[str, NDArray[np.int64]],
    notes: tuple[str, ...],
) -> TrainResult:
    every = tuple(dict.fromkeys((*notes, *fitted.catalog.notes, *_crop_notes(fitted))))
    return TrainResult(
        run=folder,
        report=folder / "report.html",
        classes=fitted.classes,
        pictures={
            **{name: len(rows[name]) for name in SPLITS},
            "set_aside": len(pictures.problems),
        },
        validation=scored["validation"].evaluation if "validation" in scored else None,
        test=scored["test"].evaluation if "test" in scored else None,
        seconds={},
        cache={
            "computed": pictures.computed,
            "reused": pictures.reused,
            "folder": str(Cache(settings.training().cache).root),
        },
        notes=every,
        problems=pictures.problems,
        head=fitted.head.chosen.describe() if isinstance(fitted, FittedFrozen) else "",
        temperature=fitted.temperature,
        history=fitted.history,
        network=fitted.words() if isinstance(fitted, FittedNetwork) else "",
    )


def _crop_notes(fitted: Fitted) -> tuple[str, ...]:
    """Say what the network does not see, where that is much."""
    share = fitted.share_cut_off()
    if share < MUCH_CUT_OFF:
        return ()
    return (
        f"The pictures are far from square: {share:.0%} of their area lies outside the crop, on "
        "average, and is not looked at. If what matters can be there: --resize stretch or pad.",
    )


def _write_problems(folder: Path, pictures: Pictures) -> None:
    rows = (
        (error.path, label or "", error.code, error.reason)
        for error, label in zip(pictures.problems, pictures.problem_labels, strict=True)
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
