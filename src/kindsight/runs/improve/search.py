"""The search: one factor at a time, then combinations, then a confirmation on other images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import MissingExtraError
from kindsight.evaluation.comparing.paired import PairedComparison
from kindsight.runs.improve.changes import (
    Factor,
    changed,
    doubled_epochs,
    factors_of,
    frozen_head,
    remedies_of,
    smaller_sizes,
)
from kindsight.runs.improve.experiments import (
    Experiment,
    FoldResult,
    OnEpoch,
    OutOfTime,
    StopExperiment,
)
from kindsight.runs.improve.timing import Timer
from kindsight.runs.settings import TrainSettings
from kindsight.training.acceptance import is_clearly_better
from kindsight.training.engine.history import EpochRow
from kindsight.training.network.settings import EpochTrainer

if TYPE_CHECKING:
    import optuna

    from kindsight.diagnosis import Diagnosis

__all__ = ["LEVEL", "Search", "Verdict", "require_optuna"]

LEVEL = 0.05
"""Probability that a search whose changes are all worthless recommends one."""

# Shares of the time left after the final training: all one-factor experiments, all exploration.
ONE_FACTOR_SHARE = 0.4
EXPLORATION_SHARE = 0.7
# Where fewer experiments fit, they are made with a smaller input.
MIN_EXPERIMENTS = 60
# Where fewer fit, the first factors are changed together before they are changed one at a time.
FEW_EXPERIMENTS, FIRST_FACTORS = 25, 3
# Where this many fit, two folds are explored in place of one.
TWO_FOLDS = 80
# Combinations without a better one, and repeated ones, after which the search ends.
PATIENCE = 10
MAX_REPEATED = 15
# A factor whose log loss is higher by this fraction is left out of combinations.
HARMFUL = 1.05
# A training whose best epoch is in this last part may gain from more epochs.
STILL_IMPROVING = 0.75
# Optuna gives up a combination that is among the worst quarter from 4 tenths of its epochs on.
KEPT_PERCENTILE, STARTUP_TRIALS, WARMUP_TENTHS = 75.0, 4, 4
ESTIMATE_MARGIN = 1.15
# Seconds of a final training beside its epochs: files, verification, report.
FINISH_SECONDS = 15.0

# Images from which on the mean of log losses is about normally distributed.
MIN_LOSSES = 30

Changes = Mapping[str, Any]


class Runs(Protocol):
    """What a search needs of a :class:`.experiments.Laboratory`."""

    settings: TrainSettings

    def of(self, changes: Changes) -> TrainSettings:
        """Return the settings of an experiment."""

    def training_images(self) -> int:
        """Return how many images an experiment trains on."""

    def run(
        self, changes: Changes, fold: int, stage: str, on_epoch: OnEpoch | None = None
    ) -> FoldResult:
        """Return the result of a fold."""

    def is_stored(self, changes: Changes, fold: int) -> bool:
        """Return whether the result of a fold is there already."""


@dataclass(frozen=True)
class Verdict:
    """Whether the best experiment is better than the original.

    Parameters
    ----------
    accepted : bool
    best : Experiment or None
        None where nothing had a lower log loss than the original.
    difference : PairedComparison or None
        On the images that decided.
    folds : tuple of int
        Folds that decided.
    tests : int
        Comparisons by which the p-value was multiplied.
    p_value : float
        Of the lower log losses, multiplied.
    reason : str
        A sentence.
    """

    accepted: bool
    best: Experiment | None
    difference: PairedComparison | None
    folds: tuple[int, ...]
    tests: int
    p_value: float
    reason: str


def require_optuna() -> None:
    """Raise MissingExtraError where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingExtraError("improve", "improve") from None


class Search:
    """A search for a better training than the original.

    Parameters
    ----------
    runs : Runs
    folds : int
        Number of folds.
    timer : Timer
    findings : sequence of Diagnosis
        Of the original.
    known : FoldResult, optional
        The original's first fold, if the run has it already.
    any_model : bool
        Whether a head on a frozen backbone competes.
    reserve : callable
        From an experiment's changes to the seconds that must be left for its final training.
    on_experiment : callable
        Called with each experiment when it is finished or stopped early.
    """

    def __init__(
        self,
        runs: Runs,
        folds: int,
        timer: Timer,
        *,
        findings: Sequence[Diagnosis] = (),
        known: FoldResult | None = None,
        any_model: bool = False,
        reserve: Callable[[Changes], float] | None = None,
        on_experiment: Callable[[Experiment], None] | None = None,
    ) -> None:
        self.runs, self.all_folds, self.timer = runs, tuple(range(1, folds + 1)), timer
        self.findings, self.any_model = findings, any_model
        self.experiments: list[Experiment] = []
        self.explored: tuple[int, ...] = (1,)
        self._known = known
        self._reserve = reserve or (lambda changes: 0.0)
        self._notify = on_experiment or (lambda experiment: None)
        self._keys: dict[str, str] = {}
        self._deadline = 0.0  # of the stage, in seconds of the timer used

    # The stages ---------------------------------------------------------------------------------

    def run(self) -> Verdict:
        """Run all experiments that the budget allows, and return the verdict."""
        self._deadline = self.timer.seconds
        original = self._experiment({}, "original", 0, known=self._known)
        if original.stopped:
            return _no_change(f"The original failed: {original.stopped}")
        reference = self._reference(original)
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
        """Return the experiment that the others change one factor of.

        It is the original; a frozen head where that is allowed and better; or the original with a
        smaller input, where few experiments fit and it is no worse.
        """
        settings = self.runs.settings
        if self.any_model and (head := frozen_head(settings)) is not None:
            found = self._experiment(head, "any model", original.number)
            if self._is_better(found, original):
                return found
        trainer = settings.training()
        fit = self._fitting(original.changes)
        if not isinstance(trainer, EpochTrainer) or fit >= MIN_EXPERIMENTS:
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
        for experiment in dict.fromkeys((original, reference)):
            self._run_fold(experiment, 2)
        if original.has((1, 2)) and reference.has((1, 2)):
            self.explored = (1, 2)

    def _several_factors(self, reference: Experiment, factors: Sequence[Factor]) -> None:
        """Change the first factors together, and train longer while that is better.

        With augmentation, a network learns more slowly: it is trained longer where its last epochs
        were still its best, even if it is no better than the reference so far.
        """
        changes: Changes | None = dict(reference.changes)
        for factor in factors[:FIRST_FACTORS]:
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
        """Combine the factors that did no harm, by Optuna."""
        import optuna

        space = self._space(reference, factors)
        if not space:
            return
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=self.runs.settings.seed, n_startup_trials=5),
            pruner=optuna.pruners.PercentilePruner(
                KEPT_PERCENTILE, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_TENTHS
            ),
        )
        queue = self._first_combinations(reference, space)
        for experiment in self.experiments:
            _add_finished(study, space, reference, experiment, self.explored)
        repeated = idle = 0
        while repeated < MAX_REPEATED and idle < PATIENCE and self._time_for(reference.changes):
            if queue:
                wanted = _levels_of(space, reference, queue.pop(0))
                if wanted is None:
                    continue
                study.enqueue_trial(wanted)
            trial = study.ask()
            levels = {
                name: trial.suggest_categorical(name, list(range(len(choices))))
                for name, choices in space.items()
            }
            changes = _changes_of(space, reference, levels)
            before = self.best()
            if self._find(changes) is not None or not self._time_for(changes):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                repeated += 1
                continue
            found = self._experiment(changes, "combined", reference.number, trial=trial)
            if found.stopped:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, found.log_loss(self.explored))
            better = self.best() is found and found is not before
            repeated, idle = 0, 0 if better else idle + 1
            if better and (longer := self._longer(found)) is not None:
                queue.insert(0, longer)

    def _confirm(self, original: Experiment) -> Verdict:
        """Compare the best experiment with the original, on images that did not select it."""
        best = self.best()
        if best is None or not self._is_better(best, original):
            return _no_change("No experiment was clearly better than the original.")
        self._deadline = self.timer.seconds - self._reserve(best.changes)
        fresh = tuple(fold for fold in self.all_folds if fold not in self.explored)
        for fold in fresh:
            missing = [
                each
                for each in (best, original)
                if fold not in each.results and not self.runs.is_stored(each.changes, fold)
            ]
            needed = sum(ESTIMATE_MARGIN * self._estimate(each.changes) for each in missing)
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
        known: FoldResult | None = None,
        trial: optuna.Trial | None = None,
    ) -> Experiment:
        experiment = Experiment(len(self.experiments), dict(changes), origin, against)
        self.experiments.append(experiment)
        if known is not None:
            experiment.results[1] = known
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
            if self.timer.used > ends and experiment.number and (not row or row.epoch < epochs):
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
            if first:
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
        """Return the experiment with more epochs, where its last epochs were still its best."""
        result = experiment.results[self.explored[0]]
        if result.best_epoch is None or result.best_epoch < STILL_IMPROVING * result.epochs:
            return None
        return doubled_epochs(self.runs.settings, experiment.changes)

    # Time ---------------------------------------------------------------------------------------

    def _estimate(self, changes: Changes) -> float:
        return self.timer.estimate(self.runs.of(changes), self.runs.training_images())

    def _fitting(self, changes: Changes) -> float:
        """Return how many experiments as large as this fit into the time left."""
        cost = self._estimate(changes)
        return math.inf if cost == 0 else (self.timer.left - self._reserve(changes)) / cost

    def _time_for(self, changes: Changes) -> bool:
        """Return whether an experiment fits into the stage, and its final training after it."""
        if all(self.runs.is_stored(changes, fold) for fold in self.explored):
            return True
        needed = len(self.explored) * ESTIMATE_MARGIN * self._estimate(changes)
        ends = self.timer.used + needed
        return ends <= self._deadline and ends + self._reserve(changes) <= self.timer.seconds

    # Combinations -------------------------------------------------------------------------------

    def _space(self, reference: Experiment, factors: Sequence[Factor]) -> dict[str, list[Changes]]:
        """Return the levels of each factor for combinations; the first changes nothing.

        Levels without an experiment that is about as good as the reference are left out, apart
        from the number of epochs: what a network gains from it shows only with other changes.
        """
        limit, space = HARMFUL * reference.log_loss(self.explored), {}
        for factor in factors:
            levels = [level for level in factor.levels if self._lowest_with(level) <= limit]
            if factor.name == "epochs":
                levels = list(factor.levels)
            if levels:
                space[factor.name] = [{}, *levels]
        return space

    def _lowest_with(self, level: Changes) -> float:
        """Return the lowest log loss of the finished experiments with a level; else infinity."""
        return min(
            (
                each.log_loss(self.explored)
                for each in self.experiments
                if not each.stopped
                and each.has(self.explored)
                and level.items() <= each.changes.items()
            ),
            default=math.inf,
        )

    def _first_combinations(
        self, reference: Experiment, space: Mapping[str, Sequence[Changes]]
    ) -> list[Changes]:
        """Return the first combinations: all changes that helped, and those of the diagnosis."""
        helped: dict[str, Any] = {}
        for name, levels in space.items():
            if name == "epochs":
                continue
            losses = {
                rank: found.log_loss(self.explored)
                for rank, level in enumerate(levels)
                if level and (found := self._find({**reference.changes, **level})) is not None
            }
            rank = min(losses, key=losses.__getitem__, default=0)
            if rank and losses[rank] < reference.log_loss(self.explored):
                helped |= levels[rank]
        together = [dict(remedy) for remedy in remedies_of(self.runs.settings, self.findings)]
        best = self.best()
        if best is not None and helped and best.origin == "combined":
            together.insert(0, {**best.changes, **helped})
        return [changes for changes in (helped, *together) if len(changes) > 1]


def decide(
    best: Experiment,
    original: Experiment,
    explored: tuple[int, ...],
    fresh: tuple[int, ...],
    tried: int,
) -> Verdict:
    """Return whether the best of several experiments is better than the original.

    It must pass the rule of acceptance; its log losses must be lower than chance explains, with the
    p-value multiplied by the number of experiments that competed on these images; and so must be
    its errors, in a one-sided McNemar test. Images that did not choose it, with one comparison, and
    those that did each have half of :data:`LEVEL`.

    Parameters
    ----------
    best, original : Experiment
    explored : tuple of int
        Folds that chose the best one.
    fresh : tuple of int
        Other folds of both.
    tried : int
        Experiments that competed.
    """
    chances = [(fresh, 1)] if fresh else []
    usable = tuple(fold for fold in explored if best.has((fold,)) and original.has((fold,)))
    chances += [(usable, max(1, tried))] if usable else []
    verdicts = []
    for folds, tests in chances:
        difference = best.compare(original, folds)
        p_value = min(1.0, tests * loss_test(best.losses(folds), original.losses(folds)))
        fewer_errors = difference.difference > 0 and difference.p_value / 2 <= LEVEL
        accepted = (
            accepts(best, original, folds) and p_value <= LEVEL / len(chances) and fewer_errors
        )
        reason = "Chance does not explain the gain."
        if not accepted:
            reason = f"Chance explains the gain of the best experiment ({best.words})."
        verdicts.append(Verdict(accepted, best, difference, folds, tests, p_value, reason))
    return next((each for each in verdicts if each.accepted), verdicts[0])


def loss_test(new: NDArray[np.float64], old: NDArray[np.float64]) -> float:
    """Return the probability of losses at least as much lower if both classifiers were equal.

    The one-sided z-test of the mean of the paired differences. With fewer than
    :data:`MIN_LOSSES` images, whose mean need not be normally distributed, it is 1.
    """
    differences = old - new
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if len(differences) < MIN_LOSSES or spread == 0.0:
        return 1.0
    z = float(differences.mean()) / (spread / math.sqrt(len(differences)))
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def accepts(one: Experiment, other: Experiment, folds: tuple[int, ...]) -> bool:
    """Return whether an experiment is clearly better on folds, by the rule of acceptance."""
    return is_clearly_better(
        one.log_loss(folds), other.log_loss(folds), one.correct(folds), other.correct(folds)
    )


def _no_change(reason: str) -> Verdict:
    return Verdict(False, None, None, (), 0, 1.0, reason)


def _levels_of(
    space: Mapping[str, Sequence[Changes]], reference: Experiment, changes: Changes
) -> dict[str, int] | None:
    """Return the level of each factor; None where the space does not have the combination."""
    own = {name: value for name, value in changes.items() if reference.changes.get(name) != value}
    levels = {}
    for name, choices in space.items():
        levels[name] = 0
        for rank, level in enumerate(choices):
            if level and all(own.get(option) == value for option, value in level.items()):
                levels[name] = rank
    covered = {option for name, rank in levels.items() for option in space[name][rank]}
    return levels if covered == set(own) else None


def _changes_of(
    space: Mapping[str, Sequence[Changes]], reference: Experiment, levels: Mapping[str, int]
) -> dict[str, Any]:
    found = dict(reference.changes)
    for name, rank in levels.items():
        found |= space[name][rank]
    return found


def _add_finished(
    study: Any,
    space: Mapping[str, Sequence[Changes]],
    reference: Experiment,
    experiment: Experiment,
    folds: tuple[int, ...],
) -> None:
    """Tell Optuna of an experiment that was run before."""
    import optuna

    levels = _levels_of(space, reference, experiment.changes)
    if levels is None or experiment.stopped or not experiment.has(folds):
        return
    if any(name not in experiment.changes for name in reference.changes):
        return
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(list(range(len(space[name]))))
        for name in space
    }
    study.add_trial(
        optuna.trial.create_trial(
            params=levels,
            distributions=distributions,
            value=experiment.log_loss(folds),
            intermediate_values=dict(experiment.results[folds[0]].curve),
        )
    )
