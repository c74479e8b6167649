"""The search: one factor at a time, then combinations, then a confirmation on other images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kindsight.runs.improve.changes import (
    Changes,
    Factor,
    changed,
    doubled_epochs,
    factors_of,
    frozen_head,
    remedies_of,
    smaller_sizes,
)
from kindsight.runs.improve.combinations import Combinations
from kindsight.runs.improve.experiments import (
    Experiment,
    FoldResult,
    OutOfTime,
    Runs,
    StopExperiment,
    Verdict,
    accepts,
    decide,
    no_change,
)
from kindsight.runs.improve.folder import Timer
from kindsight.training.engine.history import EpochRow
from kindsight.training.network.settings import EpochTrainer

if TYPE_CHECKING:
    import optuna

    from kindsight.diagnosis import Diagnosis

__all__ = ["Search"]

# Fractions of the time left after the final training: for one-factor experiments, for all
# exploration.
ONE_FACTOR_SHARE = 0.4
EXPLORATION_SHARE = 0.7
# If fewer experiments fit, they use a smaller input.
MIN_EXPERIMENTS = 60
# If fewer fit, the first factors are changed together before they are changed one at a time.
FEW_EXPERIMENTS, FIRST_FACTORS = 25, 3
# If this many fit, two folds are explored instead of one.
TWO_FOLDS = 80
# The search ends after this many combinations without an improvement, or repeated ones.
PATIENCE = 10
MAX_REPEATED = 15
# A training whose best epoch is after this fraction of its epochs may gain from more epochs.
STILL_IMPROVING = 0.75
ESTIMATE_MARGIN = 1.15


class Search:
    """A search for a better training than the original.

    Parameters
    ----------
    runs : Runs
    folds : sequence of int
        Folds that can be held out.
    timer : Timer
    findings : sequence of Diagnosis
        Findings on the original.
    known : mapping of int to FoldResult
        Results of the original's folds that the run already has.
    start : mapping, optional
        Changes that each experiment has, if the original itself cannot be varied.
    any_model : bool
        Whether a head on a frozen backbone competes.
    reserve : callable
        Takes an experiment's changes, returns the seconds that must be left for its final training.
    on_experiment : callable
        Called with each experiment when it is finished or stopped early.
    """

    def __init__(
        self,
        runs: Runs,
        folds: Sequence[int],
        timer: Timer,
        *,
        findings: Sequence[Diagnosis] = (),
        known: Mapping[int, FoldResult] | None = None,
        start: Changes | None = None,
        any_model: bool = False,
        reserve: Callable[[Changes], float] | None = None,
        on_experiment: Callable[[Experiment], None] | None = None,
    ) -> None:
        self.runs, self.all_folds, self.timer = runs, tuple(folds), timer
        self.findings, self.any_model, self.start = findings, any_model, start
        self.experiments: list[Experiment] = []
        self.explored: tuple[int, ...] = self.all_folds[:1]
        self._known = dict(known or {})
        self._reserve = reserve or (lambda changes: 0.0)
        self._notify = on_experiment or (lambda experiment: None)
        self._keys: dict[str, str] = {}
        self._deadline = 0.0  # of the stage, in seconds used of the timer

    # The stages ---------------------------------------------------------------------------------

    def run(self) -> Verdict:
        """Run all experiments that the budget allows, and return the verdict."""
        self._deadline = self.timer.seconds
        original = self._experiment({}, "original", 0, known=self._known)
        if original.stopped:
            return no_change(f"The original failed: {original.stopped}")
        reference = self._reference(original)
        if reference.stopped:
            return no_change(f"The training without a budget failed: {reference.stopped}")
        usable = self.timer.left - self._reserve(reference.changes)
        begun = self.timer.used
        self._choose_folds(original, reference, usable)
        factors = factors_of(self.runs.of(reference.changes), self.findings)
        self._deadline = begun + EXPLORATION_SHARE * usable
        if self._fitting(reference.changes) < FEW_EXPERIMENTS:
            self._several_factors(reference, factors)
        self._deadline = begun + ONE_FACTOR_SHARE * usable
        self._one_factor(reference, factors)
        self._deadline = begun + EXPLORATION_SHARE * usable
        self._combine(reference, factors)
        return self._confirm(original)

    def _reference(self, original: Experiment) -> Experiment:
        """Return the reference experiment, of which the others change one factor.

        It is the original; a frozen head if that is allowed and better; the settings that a time
        budget chose; or the original with a smaller input, if few experiments fit and that is no
        worse.
        """
        settings = self.runs.settings
        if self.start is not None:
            return self._experiment(self.start, "reference", original.number)
        if self.any_model and (head := frozen_head(settings)) is not None:
            found = self._experiment(head, "any model", original.number)
            if self._is_better(found, original):
                return found
        trainer = settings.training()
        if (
            not isinstance(trainer, EpochTrainer)
            or self._fitting(original.changes) >= MIN_EXPERIMENTS
        ):
            return original
        for smaller in smaller_sizes(trainer):
            if changed(settings, smaller) is None:
                continue
            found = self._experiment(smaller, "reference", original.number)
            if not found.stopped and not self._is_better(original, found):
                return found
        return original

    def _choose_folds(self, original: Experiment, reference: Experiment, usable: float) -> None:
        """Explore two folds instead of one if experiments are cheap and three folds are left."""
        cost = self._estimate(reference.changes) + self._estimate({}) / max(1, TWO_FOLDS)
        if len(self.all_folds) < 4 or (cost and usable / cost < TWO_FOLDS):
            return
        two = self.all_folds[:2]
        for experiment in dict.fromkeys((original, reference)):
            if not experiment.has(two):
                self._run_fold(experiment, two[1])
        if original.has(two) and reference.has(two):
            self.explored = two

    def _several_factors(self, reference: Experiment, factors: Sequence[Factor]) -> None:
        """Change the first factors together, and train longer while that helps.

        With augmentation, a network learns more slowly. It is trained longer if its last epochs
        were still its best, even if it is not better than the reference so far.
        """
        changes: Changes | None = dict(reference.changes)
        # A preset is already a combination.
        single = [factor for factor in factors if factor.name != "preset"]
        for factor in single[:FIRST_FACTORS]:
            changes = {**(changes or {}), **factor.levels[0]}
        best: Experiment | None = None
        while changes is not None and self._find(changes) is None and self._time_for(changes):
            found = self._experiment(changes, "combined", reference.number)
            if found.stopped or (best is not None and not self._is_lower(found, best)):
                return
            best, changes = found, self._longer(found)

    def _one_factor(self, reference: Experiment, factors: Sequence[Factor]) -> None:
        """Change one factor at a time: the first level of each, then the others."""
        most = max((len(factor.levels) for factor in factors), default=0)
        for rank in range(most):
            for factor in factors:
                if rank < len(factor.levels):
                    self._try({**reference.changes, **factor.levels[rank]}, "one factor", reference)

    def _combine(self, reference: Experiment, factors: Sequence[Factor]) -> None:
        """Combine the harmless factors with Optuna."""
        seed = self.runs.settings.seed
        combinations = Combinations(reference, factors, self.experiments, self.explored, seed)
        if not combinations.space:
            return
        queue = combinations.first(remedies_of(self.runs.settings, self.findings), self.best())
        repeated = idle = 0
        while repeated < MAX_REPEATED and idle < PATIENCE and self._time_for(reference.changes):
            proposed = combinations.propose(queue.pop(0) if queue else None)
            if proposed is None:
                continue
            trial, changes = proposed
            before = self.best()
            if self._find(changes) is not None or not self._time_for(changes):
                combinations.tell(trial, None)
                repeated += 1
                continue
            found = self._experiment(changes, "combined", reference.number, trial=trial)
            combinations.tell(trial, None if found.stopped else found.log_loss(self.explored))
            better = self.best() is found and found is not before
            repeated, idle = 0, 0 if better else idle + 1
            if better and (longer := self._longer(found)) is not None:
                queue.insert(0, longer)

    def _confirm(self, original: Experiment) -> Verdict:
        """Compare the best experiment with the original on images not used to select it."""
        best = self.best()
        if best is None or not self._is_better(best, original):
            return no_change("No experiment was clearly better than the original.")
        self._deadline = self.timer.seconds - self._reserve(best.changes)
        fresh = tuple(fold for fold in self.all_folds if fold not in self.explored)
        for fold in fresh:
            needed = sum(
                ESTIMATE_MARGIN * self._estimate(each.changes)
                for each in (best, original)
                if fold not in each.results and not self.runs.is_stored(each.changes, fold)
            )
            if self.timer.used + needed <= self._deadline:
                for each in (best, original):
                    if fold not in each.results:
                        self._run_fold(each, fold)
        done = tuple(fold for fold in fresh if best.has((fold,)) and original.has((fold,)))
        tried = sum(1 for each in self.experiments if not each.stopped) - 1
        return decide(best, original, self.explored, done, tried)

    # One experiment -----------------------------------------------------------------------------

    def _try(self, changes: Changes, origin: str, reference: Experiment) -> None:
        if self._find(changes) is None and self._time_for(changes):
            self._experiment(changes, origin, reference.number)

    def _experiment(
        self,
        changes: Changes,
        origin: str,
        against: int,
        *,
        known: Mapping[int, FoldResult] | None = None,
        trial: optuna.Trial | None = None,
    ) -> Experiment:
        experiment = Experiment(len(self.experiments), dict(changes), origin, against)
        self.experiments.append(experiment)
        experiment.results |= known or {}
        for fold in self.explored:
            if fold not in experiment.results and not experiment.stopped:
                self._run_fold(experiment, fold, trial)
        self._notify(experiment)
        return experiment

    def _run_fold(
        self, experiment: Experiment, fold: int, trial: optuna.Trial | None = None
    ) -> None:
        first = fold == self.explored[0]
        ends = self.timer.seconds - self._reserve(experiment.changes)
        lowest = math.inf

        def on_epoch(row: EpochRow | None, epochs: int) -> None:
            nonlocal lowest
            # A training that has begun may continue after its stage; computing features may not.
            limit = ends if row else min(ends, self._deadline)
            if self.timer.used > limit and experiment.number and (not row or row.epoch < epochs):
                raise OutOfTime("no time left")
            if row is None:
                return
            if row.val_loss is not None and math.isfinite(row.val_loss):
                lowest = min(lowest, row.val_loss)
            tenth, before = (10 * epoch // epochs for epoch in (row.epoch, row.epoch - 1))
            if first and trial is not None and lowest < math.inf and before < tenth < 10:
                trial.report(lowest, tenth)
                if trial.should_prune():
                    raise StopExperiment(f"worse than others after {row.epoch} epochs")

        stage = f"Experiment {experiment.number}: {experiment.words}"
        if experiment.results:
            stage += f", fold {fold}"
        try:
            result = self.runs.run(experiment.changes, fold, stage, on_epoch)
        except StopExperiment as reason:
            if fold in self.explored:
                experiment.stopped = str(reason)
            return
        experiment.results[fold] = result
        self.timer.learn(
            self.runs.of(experiment.changes), self.runs.training_images(), result.seconds
        )

    def _find(self, changes: Changes) -> Experiment | None:
        """Return the experiment with the settings of these changes."""
        wanted = self._key(changes)
        return next((e for e in self.experiments if self._key(e.changes) == wanted), None)

    def _key(self, changes: Changes) -> str:
        said = repr(sorted(changes.items()))
        if said not in self._keys:
            self._keys[said] = repr(self.runs.of(changes).to_dict())
        return self._keys[said]

    def best(self) -> Experiment | None:
        """Return the finished experiment with the lowest log loss."""
        finished = [e for e in self.experiments if not e.stopped and e.has(self.explored)]
        return min(finished, key=lambda each: each.log_loss(self.explored), default=None)

    def _is_lower(self, one: Experiment, other: Experiment) -> bool:
        return one.log_loss(self.explored) < other.log_loss(self.explored)

    def _is_better(self, one: Experiment, other: Experiment) -> bool:
        """Return whether an experiment is clearly better, by the rule of acceptance."""
        if one.stopped or other.stopped:
            return not one.stopped
        return accepts(one, other, self.explored)

    def _longer(self, experiment: Experiment) -> Changes | None:
        """Return the experiment with more epochs, if its last epochs were still its best."""
        result = experiment.results[self.explored[0]]
        if result.best_epoch is None or result.best_epoch < STILL_IMPROVING * result.epochs:
            return None
        return doubled_epochs(self.runs.settings, experiment.changes)

    # Time ---------------------------------------------------------------------------------------

    def _estimate(self, changes: Changes) -> float:
        return self.timer.estimate(self.runs.of(changes), self.runs.training_images())

    def _fitting(self, changes: Changes) -> float:
        """Return the number of experiments of this size that fit into the time left."""
        cost = self._estimate(changes)
        return math.inf if cost == 0 else (self.timer.left - self._reserve(changes)) / cost

    def _time_for(self, changes: Changes) -> bool:
        """Return whether an experiment fits into the stage, and its final training after it."""
        if all(self.runs.is_stored(changes, fold) for fold in self.explored):
            return True
        needed = len(self.explored) * ESTIMATE_MARGIN * self._estimate(changes)
        ends = self.timer.used + needed
        return ends <= self._deadline and ends + self._reserve(changes) <= self.timer.seconds
