"""What a head that has not seen a picture says of it: for questioning labels.

Only linear heads are tried. They are as good at that as curved ones, and take a fraction of a
second; and of the strengths the one of least log loss is taken, not a weaker one as for the head
that is kept: where labels are wrong, a weakly held head learns them by heart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.evaluation import fit_temperature, to_probabilities
from kindsight.models.backbones import FeatureLayout
from kindsight.training.candidates import (
    CHOICE_TOLERANCE,
    FIRST_STRENGTHS,
    Candidate,
    Task,
    cost_of,
    try_candidate,
    walk_strengths,
)
from kindsight.training.head import (
    BLOCKS,
    CHOICE_PICTURES,
    COMPONENTS,
    THREADED_PICTURES,
    block_choices,
    column_weights,
    generator,
)
from kindsight.training.softmax import fit_softmax
from kindsight.training.weighing import WeighedFeatures

__all__ = ["out_of_fold"]

Floats = NDArray[np.float32]


def out_of_fold(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the probabilities that each picture gets from a head that was fitted without it.

    Parameters
    ----------
    features : array
        float32 (pictures, width).
    targets : array
        int64 (pictures,), 0 to classes - 1.
    classes : int
        How many classes, at least 2.
    layout : FeatureLayout
        Which columns come from where.
    folds : array
        int64 (pictures,): the fold that each picture is held out in. Copies belong in one fold.
    seed : int
        For the random directions.

    Returns
    -------
    array
        float64 (pictures, classes); rows sum to 1. One temperature has been fitted to them.
    """
    limit = 1 if len(targets) < THREADED_PICTURES else None
    with threadpool_limits(limit, user_api="blas"):
        return _out_of_fold(features, targets, classes, layout, folds, seed)


def _out_of_fold(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    folds: NDArray[np.int64],
    seed: int,
) -> NDArray[np.float64]:
    rows = np.sort(generator(seed, 1).permutation(len(targets))[:CHOICE_PICTURES])
    weights = np.ones(len(rows), np.float32)
    task = Task(targets[rows], classes, folds[rows], weights)
    sample = features[rows]
    tried: list[Candidate] = []
    names = block_choices(layout)
    weightings = [column_weights(layout, *BLOCKS[blocks]) for blocks in names]
    weighed = WeighedFeatures(sample, weightings, COMPONENTS, lambda: generator(seed, 2))
    for number, blocks in enumerate(names):
        columns = weighed.components(number)
        first = try_candidate(task, columns, "linear", blocks, FIRST_STRENGTHS["linear"])
        tried += [first, *walk_strengths(task, columns, "linear", blocks, first)]
    best = min(tried, key=cost_of)
    whole = Task(targets, classes, folds, np.ones(len(targets), np.float32))
    components = weighed.projection(names.index(best.blocks)).apply(features)
    fit = fit_softmax(
        components,
        targets,
        classes,
        whole.fold_weights,
        best.strength / len(components),
        tolerance=CHOICE_TOLERANCE,
    )
    logits = whole.out_of_fold(components, fit)
    return to_probabilities(logits, fit_temperature(logits, targets)).astype(np.float64)
