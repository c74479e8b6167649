"""``kindsight improve``: from a finished run to experiments, a verdict, and a better run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from kindsight.diagnosis import Diagnosis
from kindsight.errors import KindsightError, UsageError
from kindsight.evaluation import distinct_images
from kindsight.evaluation.comparing.paired import compare_pair
from kindsight.files import write_json
from kindsight.report.data import Predictions
from kindsight.report.format import amount, duration
from kindsight.runs.improve.changes import describe, smaller_sizes
from kindsight.runs.improve.experiments import MIN_PROBABILITY, Experiment, Laboratory
from kindsight.runs.improve.images import ExperimentImages, plan_images, with_split
from kindsight.runs.improve.result import ImproveResult, TestComparison, experiment_rows
from kindsight.runs.improve.search import (
    FINISH_SECONDS,
    Search,
    Verdict,
    require_optuna,
)
from kindsight.runs.improve.timing import Timer
from kindsight.runs.record import RunRecord, load_run
from kindsight.runs.settings import TrainSettings
from kindsight.runs.train import train
from kindsight.training.common import Progress
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.frozen.settings import FrozenTrainer, parse_budget
from kindsight.training.network.settings import EpochTrainer

__all__ = ["improve", "improve_folder"]

STATE_FILE, SETTINGS_FILE, LOCK_FILE = "state.json", "settings.toml", ".lock"
MAX_STATE_BYTES = 1 << 20
DIAGNOSIS_FILE = "diagnosis.json"
MAX_DIAGNOSIS_BYTES = 1 << 24
# Trainings with changes, with a smaller input where that is possible, below which none is tried.
MIN_CHANGES = 3
# Another backbone may be larger than the run's.
COMPUTING = 1.5
# Share of a training that its last checkpoint lacks, at most.
CHECKPOINT_SHARE = 0.3

OnExperiment = Callable[[Experiment, Search, Timer], None]


def improve(
    run: str | os.PathLike[str],
    *,
    budget: str | float = "30m",
    any_model: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    on_experiment: OnExperiment | None = None,
    timer: Timer | None = None,
) -> ImproveResult:
    """Try changes of a finished training under control, and train with the best of them.

    The same call continues where it was interrupted.

    Parameters
    ----------
    run : path
        Folder of a finished run.
    budget : str or float
        Time for everything, such as ``"30m"``, or seconds.
    any_model : bool
        Whether a head on a frozen backbone may replace another kind of model.
    folder : path, optional
        For experiments and results; the run's name with ``-improve`` if omitted.
    progress : callable, optional
        Called with (stage, done, total).
    on_experiment : callable, optional
        Called with each finished experiment, its search and timer.
    timer : Timer, optional
        The clock; for tests.

    Returns
    -------
    ImproveResult

    Raises
    ------
    UsageError
        If the folder has no settings of a training, or the budget is too short.
    MissingExtraError
        If Optuna is not installed.
    BundleError
        If the run is damaged.
    """
    require_optuna()
    seconds = parse_budget(budget)
    record = load_run(run)
    settings = _settings(record)
    place = improve_folder(record.folder) if folder is None else Path(folder)
    show = progress or (lambda stage, done, total: None)
    with _claimed(place, settings, any_model) as used:
        finished = ImproveResult.read(place)
        if finished is not None and seconds <= finished.budget:
            return replace(
                finished,
                notes=(
                    *finished.notes,
                    "This search was finished before; a longer --budget continues it.",
                ),
            )
        clock = timer or Timer(seconds, used)
        try:
            return _improve(record, settings, place, clock, any_model, show, on_experiment)
        finally:
            _write_state(place, settings, any_model, clock.used)


def improve_folder(run: Path) -> Path:
    """Return the folder of the experiments on a run."""
    return run.with_name(f"{run.name}-improve")


def _improve(
    record: RunRecord,
    settings: TrainSettings,
    folder: Path,
    timer: Timer,
    any_model: bool,
    show: Progress,
    on_experiment: OnExperiment | None,
) -> ImproveResult:
    images = plan_images(record, settings, folder, show)
    original = with_split(settings, folder)
    with Laboratory(original, images, folder, show) as laboratory:
        took, finish = _seconds(record)
        timer.learn(original, laboratory.training_images(), took)
        timer.unknown = _computing(record)
        known = laboratory.known(record, took)

        def cost(changes: Mapping[str, Any]) -> float:
            return timer.estimate(laboratory.of(changes), laboratory.training_images())

        def reserve(changes: Mapping[str, Any]) -> float:
            # The final training continues from the checkpoint of the first fold.
            retrained = 0.0 if images.own_test else finish
            return CHECKPOINT_SHARE * cost(changes) + finish + retrained

        if not any_model:  # a frozen head takes seconds
            _check_budget(original, timer, cost, finish, trained=known is not None)

        def finished(experiment: Experiment) -> None:
            best = search.best()
            laboratory.delete_checkpoints({} if best is None else best.changes)
            _write_state(folder, settings, any_model, timer.used)
            if on_experiment is not None:
                on_experiment(experiment, search, timer)

        search = Search(
            laboratory, images.folds, timer, findings=_findings(record, settings),
            known=known, any_model=any_model, reserve=reserve,
            on_experiment=finished,
        )  # fmt: skip
        verdict = search.run()
        best = original if verdict.best is None else laboratory.of(verdict.best.changes)
    best_run, test = None, None
    if verdict.accepted:
        assert verdict.best is not None
        best_run = _train(best, folder, "best", show, laboratory.checkpoint(verdict.best.changes))
        other = laboratory.checkpoint({})
        test = _compare_on_test(record, original, images, best_run, folder, show, other)
    result = _result(record, folder, search, verdict, timer, best_run, test)
    (best if verdict.accepted else original).write(folder / SETTINGS_FILE)
    result.write()
    return result


def _settings(record: RunRecord) -> TrainSettings:
    """Return the settings of the run; UsageError where it cannot be improved."""
    if record.settings is None:
        raise UsageError(
            f"{record.folder} is a bundle without {SETTINGS_FILE}: the settings of its training "
            "are unknown. Give the folder of a run of 'kindsight train'."
        )
    trainer = record.settings.training()
    if isinstance(trainer, FrozenTrainer) and trainer.budget is not None:
        raise UsageError(
            f"{record.folder} was trained with a time budget, which tried wider features, "
            "test-time augmentation and fine-tuning. Train with a longer `budget`, or improve a "
            "run without one."
        )
    return record.settings


def _seconds(record: RunRecord) -> tuple[float, float]:
    """Return how long the original was trained, and how long the rest of its run took."""
    stated = record.bundle.facts.get("seconds")
    names = ("fit", "total", "prepare")
    known = stated if isinstance(stated, dict) else {}
    fit, total, prepare = (
        float(value) if isinstance(value := known.get(name), (int, float)) else 0.0
        for name in names
    )
    rest = total - prepare - fit
    if record.history is not None:  # of an interrupted training, too
        fit = sum(row.seconds for row in record.history)
    return max(0.1, fit), max(FINISH_SECONDS, rest)


def _computing(record: RunRecord) -> float:
    """Return how long features of another backbone may take, where that of the run is known."""
    stated = record.bundle.facts.get("seconds")
    known = stated if isinstance(stated, dict) else {}
    found = [known.get(name) for name in ("prepare", "backbone")]
    return COMPUTING * sum(float(value) for value in found if isinstance(value, (int, float)))


def _check_budget(
    original: TrainSettings,
    timer: Timer,
    cost: Callable[[Mapping[str, Any]], float],
    finish: float,
    *,
    trained: bool,
) -> None:
    """Raise UsageError where not even one change can be compared with the original."""
    trainer, one = original.training(), cost({})
    smaller = list(smaller_sizes(trainer)) if isinstance(trainer, EpochTrainer) else []
    least = min(map(cost, smaller), default=one)
    needed = (0.0 if trained else one) + MIN_CHANGES * least + finish
    if needed > timer.seconds:
        minutes = int(needed // 60) + 1
        raise UsageError(
            f"`budget` must leave time for experiments; got {duration(timer.seconds)}, and one "
            f"training of this run takes about {duration(one)}. Use a `budget` of {minutes}m or "
            "more."
        )


def _findings(record: RunRecord, settings: TrainSettings) -> tuple[Diagnosis, ...]:
    """Return the run's diagnosis; none where it was not made or is damaged."""
    try:
        with (record.folder / DIAGNOSIS_FILE).open("rb") as file:
            stored = json.loads(file.read(MAX_DIAGNOSIS_BYTES))
        return tuple(Diagnosis.from_dict(item) for item in stored["findings"])
    except (OSError, ValueError, KeyError, TypeError, KindsightError):
        return ()


def _train(
    settings: TrainSettings, folder: Path, name: str, show: Progress, checkpoint: Path
) -> Path:
    """Return a finished run in the folder; an interrupted one with these settings continues.

    A new one continues from the checkpoint of its experiment, if that is there.
    """
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        wanted = settings.with_options(run=str(path.resolve()), runs=str(folder.resolve()))
        if not (path / "bundle.json").exists():
            if checkpoint.exists() and not path.exists():
                path.mkdir(parents=True)
                (path / LOCK_FILE).touch()
                shutil.copyfile(checkpoint, path / CHECKPOINT_FILE)
                wanted.write(path / SETTINGS_FILE)
            return train(wanted, progress=show).run
        if load_run(path).settings == wanted:
            return path
        number += 1


def _compare_on_test(
    record: RunRecord,
    original: TrainSettings,
    images: ExperimentImages,
    best_run: Path,
    folder: Path,
    show: Progress,
    checkpoint: Path,
) -> TestComparison:
    """Compare original and best training on the test split."""
    source = "the run's own test split, which no experiment used"
    if images.own_test and "test" in record.predictions:
        old = record.predictions["test"]
    else:
        original_run = _train(original, folder, "original", show, checkpoint)
        old = load_run(original_run).predictions["test"]
        source = (
            "a test split made before the experiments; the original was trained again without it"
        )
    new = load_run(best_run).predictions["test"]
    row_of = {path: row for row, path in enumerate(old.paths)}
    common = [(row, row_of[path]) for row, path in enumerate(new.paths) if path in row_of]
    digests = dict(zip(images.dataset.path, images.dataset.digest, strict=True))
    targets = new.targets[[row for row, _ in common]]
    counted = distinct_images([digests.get(new.paths[row]) for row, _ in common], targets)
    right_new, loss_new = _outcome(new, np.array([row for row, _ in common])[counted])
    right_old, loss_old = _outcome(old, np.array([row for _, row in common])[counted])
    difference = compare_pair((right_old, right_new), (loss_old, loss_new))
    return TestComparison(
        len(right_new), float(right_old.mean()), float(right_new.mean()), difference, source
    )


def _outcome(
    predictions: Predictions, rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which images are classified correctly, and their log losses."""
    targets = predictions.targets[rows]
    chosen = predictions.probabilities[rows, targets].astype(np.float64)
    losses = -np.log(np.clip(chosen, MIN_PROBABILITY, 1.0))
    return predictions.predicted[rows] == targets, losses


def _result(
    record: RunRecord,
    folder: Path,
    search: Search,
    verdict: Verdict,
    timer: Timer,
    best_run: Path | None,
    test: TestComparison | None,
) -> ImproveResult:
    changes = verdict.best.changes if verdict.accepted and verdict.best is not None else {}
    notes = []
    skipped = sum(bool(each.stopped) for each in search.experiments)
    if skipped:
        notes.append(f"{amount(skipped, 'experiment')} stopped before the end.")
    return ImproveResult(
        record.folder, folder, verdict.accepted, verdict.reason, dict(changes), describe(changes),
        verdict.difference, verdict.tests, verdict.p_value,
        experiment_rows(search.experiments, search.explored), best_run, test,
        timer.seconds, timer.used, tuple(notes),
    )  # fmt: skip


# The folder ---------------------------------------------------------------------------------------


@contextmanager
def _claimed(folder: Path, settings: TrainSettings, any_model: bool) -> Iterator[float]:
    """Lock the folder while the block runs; yield the seconds used before.

    UsageError if another process has it, or it belongs to other settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{folder} is in use by another process.") from None
    except OSError as error:
        raise UsageError(
            f"Cannot write to {folder}: {error.strerror}. Choose another `folder`."
        ) from error
    try:
        names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
        state = _read_state(folder)
        if state is None and names:
            raise UsageError(
                f"{folder} contains files that do not belong to experiments. Choose another "
                "`folder`."
            )
        if state is not None and state.get("settings") != _plain(settings, any_model):
            raise UsageError(
                f"{folder} has experiments with other settings. Choose another `folder`, or give "
                "the same options to continue them."
            )
        _write_state(folder, settings, any_model, 0.0 if state is None else state["seconds"])
        yield 0.0 if state is None else float(state["seconds"])
    finally:
        lock.release()


def _plain(settings: TrainSettings, any_model: bool) -> Any:
    return json.loads(json.dumps({**settings.to_dict(), "any_model": any_model}, default=list))


def _write_state(folder: Path, settings: TrainSettings, any_model: bool, used: float) -> None:
    write_json(
        folder / STATE_FILE,
        {"settings": _plain(settings, any_model), "seconds": round(used, 3)},
    )


def _read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state of interrupted experiments; None if there is none, or it is damaged."""
    try:
        with (folder / STATE_FILE).open("rb") as file:
            state = json.loads(file.read(MAX_STATE_BYTES))
        return {"settings": state["settings"], "seconds": float(state["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
