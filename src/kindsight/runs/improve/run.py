"""``kindsight improve``: from a finished run to experiments, a verdict, and a better run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kindsight.diagnosis import Diagnosis
from kindsight.errors import UsageError
from kindsight.files import copy_file
from kindsight.report.format import amount, duration
from kindsight.runs.improve.changes import Changes, describe, smaller_sizes
from kindsight.runs.improve.combinations import require_optuna
from kindsight.runs.improve.experiments import Experiment, Verdict
from kindsight.runs.improve.figure import deciding_folds, nested_folds, on_test_split
from kindsight.runs.improve.folder import LOCK_FILE, Timer, claimed, improve_folder, write_state
from kindsight.runs.improve.laboratory import Laboratory, OuterFold
from kindsight.runs.improve.original import (
    USUAL_FOLDS,
    budget_choices,
    computing_seconds,
    final_settings,
    findings_of,
    plan_images,
    seconds_of,
    settings_of,
)
from kindsight.runs.improve.result import FinalFigure, ImproveResult, experiment_rows
from kindsight.runs.improve.search import Search
from kindsight.runs.record import RunRecord, load_run
from kindsight.runs.reporting.build import report_data
from kindsight.runs.reporting.facts import ReportFacts
from kindsight.runs.reporting.make import MODEL_CARD_FILE, REPORT_FILE, write_report
from kindsight.runs.settings import TrainSettings
from kindsight.runs.train import train
from kindsight.training.common import Progress
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.frozen.settings import parse_budget
from kindsight.training.network.settings import EpochTrainer

__all__ = ["improve", "improve_folder"]

SETTINGS_FILE = "settings.toml"
# Minimum number of changed trainings (with a smaller input, if possible) that must fit into the
# budget.
MIN_CHANGES = 3
# Maximum fraction of a training that its last checkpoint lacks.
CHECKPOINT_SHARE = 0.3
# A search takes about as long as this many trainings of the original, if these are fast.
SEARCH_TRAININGS = 60
# Maximum fraction of the budget for training the original on other images.
MAX_RETRAINING = 0.35

NO_TEST = "a run trained with --test 0.2 has images that no experiment uses"
NO_TIME = "a longer --budget leaves time for nested folds"

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
    """Run controlled experiments with changes of a finished training, and train with the best one.

    The same call continues an interrupted search.

    Parameters
    ----------
    run : path
        Folder of a finished run.
    budget : str or float
        Time for the whole search, such as ``"30m"``, or in seconds.
    any_model : bool
        Whether a head on a frozen backbone may replace another kind of model.
    folder : path, optional
        Folder for experiments and results; by default, the run's name with ``-improve``.
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
    settings = settings_of(record)
    place = improve_folder(record.folder) if folder is None else Path(folder)
    show = progress or (lambda stage, done, total: None)
    with claimed(place, settings, any_model) as used:
        finished = ImproveResult.read(place)
        if finished is not None and seconds <= finished.budget:
            note = "This search was finished before; a longer --budget continues it."
            return replace(finished, notes=(*finished.notes, note))
        clock = timer or Timer(seconds, used)
        save = partial(write_state, place, settings, any_model)
        try:
            work = _Improvement(record, settings, place, clock, any_model, show)
            return work.run(on_experiment, lambda: save(clock.used))
        finally:
            save(clock.used)


@dataclass(eq=False)
class _Improvement:
    """The work of :func:`improve`, in its folder."""

    record: RunRecord
    settings: TrainSettings
    folder: Path
    timer: Timer
    any_model: bool
    show: Progress

    def __post_init__(self) -> None:
        self.took, self.finish = seconds_of(self.record)
        if budget := getattr(self.settings.training(), "budget_seconds", None):
            self.took = min(self.took, float(budget))
        nested = self._has_time_for_nested_folds()
        self.images = plan_images(
            self.record, self.settings, self.folder, self.show,
            make_test=not nested and self._has_time_to_train_again(),
        )  # fmt: skip
        self.nested = nested and self.images.test == "none"
        self.final = final_settings(self.settings, self.folder, self.images)
        self.start = budget_choices(self.record, self.settings)

    def run(self, on_experiment: OnExperiment | None, save: Callable[[], None]) -> ImproveResult:
        """Return the result; `save` is called after each experiment."""
        with Laboratory(self.settings, self.images, self.folder, self.show) as laboratory:
            self.laboratory, timer = laboratory, self.timer
            known = laboratory.known(self.record, self.took)
            self._learn()
            if not self.any_model:  # a frozen head takes seconds
                self._check_budget(trained=bool(known))

            def finished(experiment: Experiment) -> None:
                best = search.best()
                laboratory.delete_checkpoints({} if best is None else best.changes)
                save()
                if on_experiment is not None:
                    on_experiment(experiment, search, timer)

            search = Search(
                laboratory, self.images.every, self._search_time(), known=known,
                reserve=self._reserve, on_experiment=finished, **self._options(),
            )  # fmt: skip
            verdict = search.run()
            final = self._nested(search) if verdict.accepted and self.nested else None
            changes: Changes = {} if verdict.best is None else verdict.best.changes
            best = self._final_settings(changes)
        best_run = None
        if verdict.accepted:
            best_run = self._train(best, "best", changes)
            final = final or self._figure(verdict, search, best_run)
            _explain(best_run, self.record.folder, verdict, final)
        result = self._result(search, verdict, best_run, final)
        (best if verdict.accepted else self.final).write(self.folder / SETTINGS_FILE)
        result.write()
        return result

    # Time ---------------------------------------------------------------------------------------

    def _has_time_for_nested_folds(self) -> bool:
        """Return whether a further search for each fold is expected to fit."""
        searches = 1 + (self.settings.folds or USUAL_FOLDS)
        needed = searches * SEARCH_TRAININGS * self.took + computing_seconds(self.record)
        return needed + self.finish <= self.timer.seconds

    def _has_time_to_train_again(self) -> bool:
        """Return whether there is time to train the original twice on other images.

        The second training continues from a checkpoint.
        """
        by_epochs = isinstance(self.settings.training(), EpochTrainer)
        last = CHECKPOINT_SHARE * self.took if by_epochs else self.took
        return self.took + last + self.finish <= MAX_RETRAINING * self.timer.seconds

    def _learn(self) -> None:
        """Pass the known training times to the timer."""
        self.timer.unknown = computing_seconds(self.record)
        images = self.laboratory.training_images()
        self.timer.learn(self.settings, images, self.took)
        if self.start is not None and self.start.get("fine_tune") != "off":
            self.timer.learn(self.laboratory.of(self.start), images, self.took)

    def _cost(self, changes: Changes) -> float:
        settings = self.laboratory.of(changes)
        return self.timer.estimate(settings, self.laboratory.training_images())

    def _reserve(self, changes: Changes) -> float:
        """Return the seconds of the final trainings."""
        by_epochs = isinstance(self.laboratory.of(changes).training(), EpochTrainer)
        # It continues from the checkpoint of the first fold.
        best = (CHECKPOINT_SHARE if by_epochs else 1.0) * self._cost(changes) + self.finish
        if self.images.new_test:
            return best + self.finish + (0.0 if by_epochs else self.took)
        if (folds := self.final.folds) is not None:  # some folds may not be trained yet
            return best + int(folds) * self._cost(changes)
        return best

    def _search_time(self) -> Timer:
        """Return the timer of the search, which leaves time for nested folds."""
        if not self.nested:
            return self.timer
        searches = 1 + len(self.images.every)
        return self.timer.part(self.finish + (self.timer.left - self.finish) / searches)

    def _check_budget(self, *, trained: bool) -> None:
        """Raise UsageError if not even one change can be compared with the original."""
        first: Changes = self.start or {}
        one, trainer = self._cost(first), self.laboratory.of(first).training()
        least = min([self._cost({**first, **each}) for each in smaller_sizes(trainer)] or [one])
        needed = (0.0 if trained else self._cost({})) + MIN_CHANGES * least + self.finish
        if needed > self.timer.seconds:
            minutes = int(needed // 60) + 1
            raise UsageError(
                f"`budget` must leave time for experiments; got {duration(self.timer.seconds)}. An "
                f"experiment takes about {duration(one)}, and the files and the report of the best "
                f"run {duration(self.finish)}. Use a `budget` of {minutes}m or more."
            )

    # The search ---------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        """Return the options of each search: the whole one, and those of nested folds."""
        found: tuple[Diagnosis, ...] = findings_of(self.record)
        return {"findings": found, "start": self.start, "any_model": self.any_model}

    def _nested(self, search: Search) -> FinalFigure | None:
        """Return the accuracies by nested folds; None if the time does not suffice."""
        results = [each for found in search.experiments for each in found.results.values()]
        return nested_folds(
            self.laboratory, partial(OuterFold, self.laboratory), self.images.every, self.timer,
            needed=sum(each.seconds for each in results), options=self._options(),
            reserve=self._reserve({}),
        )  # fmt: skip

    # The final trainings ------------------------------------------------------------------------

    def _final_settings(self, changes: Changes) -> TrainSettings:
        """Return the settings of a final training, with the split of the experiments."""
        changed = self.laboratory.of(changes)
        split = ("split", "fold", "folds", "test", "split_by", "group_near_duplicates")
        same = {name: getattr(self.final, name) for name in (*split, "validation")}
        return changed.with_options(**same)

    def _train(self, settings: TrainSettings, name: str, changes: Changes) -> Path:
        """Return a finished run in the folder; an interrupted one with these settings continues.

        A new one continues from the checkpoint of its experiment, if there is one.
        """
        number, checkpoint = 1, self.laboratory.checkpoint(changes)
        while True:
            path = self.folder / (name if number == 1 else f"{name}-{number}")
            where = {"run": str(path.resolve()), "runs": str(self.folder.resolve())}
            wanted = settings.with_options(**where)
            if not (path / "bundle.json").exists():
                if not path.exists():
                    path.mkdir(parents=True)
                    (path / LOCK_FILE).touch()
                    wanted.write(path / SETTINGS_FILE)
                    if checkpoint.exists():
                        copy_file(checkpoint, path / CHECKPOINT_FILE)
                    if settings.folds is not None:
                        self.laboratory.copy_folds(changes, path)
                return train(wanted, progress=self.show).run
            if load_run(path).settings == wanted:
                return path
            number += 1

    def _figure(self, verdict: Verdict, search: Search, best_run: Path) -> FinalFigure:
        """Return the accuracies on the test split; without one, on the deciding folds."""
        if self.images.test == "none":
            why = NO_TIME if self.nested else NO_TEST
            return deciding_folds(verdict, search.experiments[0], why)
        old = self.record.predictions.get("test")
        if self.images.new_test or old is None:
            again = self._train(self._final_settings({}), "original", {})
            old = load_run(again).predictions["test"]
        return on_test_split(old, load_run(best_run).predictions["test"], self.images)

    def _result(
        self,
        search: Search,
        verdict: Verdict,
        best_run: Path | None,
        final: FinalFigure | None,
    ) -> ImproveResult:
        changes = verdict.best.changes if verdict.accepted and verdict.best is not None else {}
        notes = []
        if self.start is not None:
            notes.append(
                f"The run was trained with a time budget of {self.settings.budget}. Experiment 1 "
                "has the settings that the budget chose, as far as options can express them, but "
                "no budget; the other experiments change these."
            )
        skipped = sum(bool(each.stopped) for each in search.experiments)
        if skipped:
            notes.append(f"{amount(skipped, 'experiment')} stopped before the end.")
        return ImproveResult(
            self.record.folder, self.folder, verdict.accepted, verdict.reason, dict(changes),
            describe(changes), verdict.difference, verdict.tests, verdict.p_value,
            experiment_rows(search.experiments, search.explored), best_run, final,
            self.timer.seconds, self.timer.used, tuple(notes),
        )  # fmt: skip


def _explain(best_run: Path, original: Path, verdict: Verdict, final: FinalFigure) -> None:
    """Add the changes and the gain to the report of the best run."""
    assert verdict.best is not None
    note = (
        f"kindsight improve chose these settings from experiments on {original.name}: "
        f"{verdict.best.words}. {final.sentence()}"
    )
    facts = ReportFacts.read(best_run)
    if note in facts.notes:
        return
    replace(facts, notes=(note, *facts.notes)).write(best_run)
    write_report(
        report_data(load_run(best_run)), best_run / REPORT_FILE, best_run / MODEL_CARD_FILE
    )
