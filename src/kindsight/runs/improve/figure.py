"""The final accuracy, if possible on images that were not used for the choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation import distinct_images
from kindsight.evaluation.paired import compare_pair
from kindsight.report.data import Predictions
from kindsight.report.format import amount
from kindsight.runs.improve.changes import Changes, describe
from kindsight.runs.improve.experiments import (
    MIN_PROBABILITY,
    Experiment,
    FoldResult,
    Runs,
    StopExperiment,
    Verdict,
)
from kindsight.runs.improve.folder import Timer
from kindsight.runs.improve.original import ExperimentImages
from kindsight.runs.improve.result import FinalFigure, OuterChoice
from kindsight.runs.improve.search import Search

__all__ = ["deciding_folds", "nested_folds", "on_test_split"]

OWN_TEST = "the run's own test split, which no experiment used"
NEW_TEST = "a test split made before the experiments; the original was trained again without it"


def on_test_split(old: Predictions, new: Predictions, images: ExperimentImages) -> FinalFigure:
    """Return the accuracies of the original and the best training on the test split."""
    row_of = {path: row for row, path in enumerate(old.paths)}
    common = [(row, row_of[path]) for row, path in enumerate(new.paths) if path in row_of]
    digests = dict(zip(images.dataset.path, images.dataset.digest, strict=True))
    targets = new.targets[[row for row, _ in common]]
    counted = distinct_images([digests.get(new.paths[row]) for row, _ in common], targets)
    right_new, loss_new = _outcome(new, np.array([row for row, _ in common])[counted])
    right_old, loss_old = _outcome(old, np.array([row for _, row in common])[counted])
    return FinalFigure(
        "test split", len(right_new), float(right_old.mean()), float(right_new.mean()),
        compare_pair((right_old, right_new), (loss_old, loss_new)), optimistic=False,
        source=NEW_TEST if images.new_test else OWN_TEST,
    )  # fmt: skip


def deciding_folds(verdict: Verdict, original: Experiment, why: str) -> FinalFigure:
    """Return the accuracies on the deciding images, with the reason why there are no others."""
    assert verdict.best is not None and verdict.difference is not None
    folds = verdict.folds
    return FinalFigure(
        "deciding folds", verdict.difference.images, original.accuracy(folds),
        verdict.best.accuracy(folds), verdict.difference, optimistic=True,
        source=f"the images that decided, on which the accuracy is too high; {why}",
    )  # fmt: skip


# Nested folds -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Outer:
    """An outer fold: the choice made without it, and the results of original and choice on it."""

    fold: int
    changes: Changes
    original: FoldResult
    best: FoldResult

    def row(self) -> OuterChoice:
        right = self.original.correct, self.best.correct
        accuracies = (float(each.mean()) for each in right)
        return OuterChoice(self.fold, len(right[0]), describe(self.changes), *accuracies)


def nested_folds(
    runs: Runs,
    without: Callable[[int], Runs],
    folds: Sequence[int],
    timer: Timer,
    *,
    needed: float,
    reserve: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> FinalFigure | None:
    """Return the accuracies by nested cross-validation; None if there is no time for a fold.

    The whole search is repeated without the images of each outer fold. The chosen training is
    repeated on all other folds, and evaluated on the outer fold.

    Parameters
    ----------
    runs : Runs
        Experiments on all folds.
    without : callable
        Takes an outer fold, returns experiments that use no image of it.
    folds : sequence of int
    timer : Timer
    needed : float
        Seconds that a search needs.
    reserve : float
        Seconds that must be left.
    options : mapping, optional
        Options of each :class:`.Search`.

    References
    ----------
    S. Varma, R. Simon, "Bias in error estimation when using cross-validation for model selection",
    BMC Bioinformatics 7 (2006), 91.
    """
    found: list[_Outer] = []
    for number, fold in enumerate(folds):
        share = (timer.left - reserve) / (len(folds) - number)
        if share < needed:
            break
        inner = [each for each in folds if each != fold]
        search = Search(without(fold), inner, timer.part(share), **(options or {}))
        verdict = search.run()
        chosen = verdict.best.changes if verdict.accepted and verdict.best is not None else {}
        if (outer := _outer(runs, fold, chosen)) is not None:
            found.append(outer)
    if not found:
        return None
    right = [np.concatenate([getattr(each, name).correct for each in found]) for name in SIDES]
    losses = [np.concatenate([getattr(each, name).losses for each in found]) for name in SIDES]
    part = "" if len(found) == len(folds) else f" of {len(folds)}, as many as the time allowed"
    return FinalFigure(
        "nested folds", len(right[0]), float(right[0].mean()), float(right[1].mean()),
        compare_pair((right[0], right[1]), (losses[0], losses[1])), optimistic=False,
        source=f"the search was repeated without the images of each of {amount(len(found), 'fold')}"
        f"{part}, and its choice evaluated on them",
        outer=tuple(each.row() for each in found),
    )  # fmt: skip


SIDES = ("original", "best")


def _outer(runs: Runs, fold: int, chosen: Changes) -> _Outer | None:
    """Return the results on an outer fold; None if the original fails."""
    try:
        original = runs.run({}, fold, f"Fold {fold}: {describe({})}")
    except StopExperiment:
        return None
    best = original
    if chosen:
        try:
            best = runs.run(chosen, fold, f"Fold {fold}: {describe(chosen)}")
        except StopExperiment:
            chosen = {}
    return _Outer(fold, chosen, original, best)


def _outcome(
    predictions: Predictions, rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return whether each image is classified correctly, and its log loss."""
    targets = predictions.targets[rows]
    chosen = predictions.probabilities[rows, targets].astype(np.float64)
    losses = -np.log(np.clip(chosen, MIN_PROBABILITY, 1.0))
    return predictions.predicted[rows] == targets, losses
