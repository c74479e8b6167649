"""Combinations of changes, proposed by Optuna from the experiments so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kindsight.errors import MissingExtraError
from kindsight.runs.improve.changes import Changes, Factor
from kindsight.runs.improve.experiments import Experiment

if TYPE_CHECKING:
    import optuna

__all__ = ["Combinations", "require_optuna"]

# A level whose log loss is higher by this fraction is left out of combinations.
HARMFUL = 1.05
# Optuna prunes a combination that is among the worst quarter after 4 tenths of its epochs.
KEPT_PERCENTILE, STARTUP_TRIALS, WARMUP_TENTHS = 75.0, 4, 4
# Number of combinations that Optuna draws at random before it models the results.
RANDOM_TRIALS = 5


def require_optuna() -> None:
    """Raise MissingExtraError if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingExtraError("improve", "improve") from None


class Combinations:
    """The levels of each factor, and a study of their combinations.

    Parameters
    ----------
    reference : Experiment
        The experiment whose changes are in each combination.
    factors : sequence of Factor
    experiments : sequence of Experiment
        The experiments so far.
    folds : tuple of int
        Folds on which experiments are selected.
    seed : int
        Seed of Optuna's proposals.
    """

    def __init__(
        self,
        reference: Experiment,
        factors: Sequence[Factor],
        experiments: Sequence[Experiment],
        folds: tuple[int, ...],
        seed: int,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._reference, self._folds = reference, folds
        self._finished = [each for each in experiments if not each.stopped and each.has(folds)]
        self.space = self._levels_without_harm(factors)
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS),
            pruner=optuna.pruners.PercentilePruner(
                KEPT_PERCENTILE, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_TENTHS
            ),
        )
        for experiment in self._finished:
            self._add(experiment)

    def first(self, remedies: Sequence[Changes], best: Experiment | None) -> list[Changes]:
        """Return the first combinations: all changes that helped, and the diagnosis's remedies."""
        helped: dict[str, Any] = {}
        for name, levels in self.space.items():
            losses = {rank: self._loss_of(level) for rank, level in enumerate(levels) if level}
            rank = min(losses, key=losses.__getitem__, default=0)
            lowest = losses.get(rank, float("inf"))
            if name != "epochs" and lowest < self._reference.log_loss(self._folds):
                helped |= levels[rank]
        together = [dict(remedy) for remedy in remedies]
        if best is not None and helped and best.origin == "combined":
            together.insert(0, {**best.changes, **helped})
        return [changes for changes in (helped, *together) if len(changes) > 1]

    def propose(self, wanted: Changes | None = None) -> tuple[optuna.Trial, Changes] | None:
        """Return the next combination and its trial; None if the space lacks the wanted one."""
        if wanted is not None:
            levels = self._levels_of(wanted)
            if levels is None:
                return None
            self._study.enqueue_trial(levels)
        trial = self._study.ask()
        found = dict(self._reference.changes)
        for name, choices in self.space.items():
            found |= choices[trial.suggest_categorical(name, list(range(len(choices))))]
        return trial, found

    def tell(self, trial: optuna.Trial, log_loss: float | None) -> None:
        """Record the log loss of a combination; None if it was stopped or not run."""
        import optuna

        if log_loss is None:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, log_loss)

    def _levels_without_harm(self, factors: Sequence[Factor]) -> dict[str, list[Changes]]:
        """Return the levels of each factor; the first changes nothing.

        Levels that are clearly worse than the reference are left out, except for the number of
        epochs, whose gain shows only with other changes.
        """
        limit, space = HARMFUL * self._reference.log_loss(self._folds), {}
        for factor in factors:
            levels = [level for level in factor.levels if self._lowest_with(level) <= limit]
            if factor.name == "epochs":
                levels = list(factor.levels)
            if levels:
                space[factor.name] = [{}, *levels]
        return space

    def _lowest_with(self, level: Changes) -> float:
        """Return the lowest log loss of the experiments with a level; infinity if none."""
        with_it = (each for each in self._finished if level.items() <= each.changes.items())
        return min((each.log_loss(self._folds) for each in with_it), default=float("inf"))

    def _loss_of(self, level: Changes) -> float:
        """Return the log loss of the experiment with only this change; infinity if none."""
        wanted = {**self._reference.changes, **level}
        alone = (each for each in self._finished if each.changes == wanted)
        return next((each.log_loss(self._folds) for each in alone), float("inf"))

    def _levels_of(self, changes: Changes) -> dict[str, int] | None:
        """Return the level of each factor; None if the space lacks the combination."""
        before = self._reference.changes
        own = {name: value for name, value in changes.items() if before.get(name) != value}
        levels = {}
        for name, choices in self.space.items():
            levels[name] = 0
            for rank, level in enumerate(choices):
                if level and all(own.get(option) == value for option, value in level.items()):
                    levels[name] = rank
        covered = {option for name, rank in levels.items() for option in self.space[name][rank]}
        return levels if covered == set(own) else None

    def _add(self, experiment: Experiment) -> None:
        """Add an earlier experiment to Optuna's study."""
        import optuna

        levels = self._levels_of(experiment.changes)
        if levels is None or any(
            name not in experiment.changes for name in self._reference.changes
        ):
            return
        distributions: Mapping[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(list(range(len(choices))))
            for name, choices in self.space.items()
        }
        self._study.add_trial(
            optuna.trial.create_trial(
                params=levels,
                distributions=dict(distributions),
                value=experiment.log_loss(self._folds),
                intermediate_values=dict(experiment.results[self._folds[0]].curve),
            )
        )
