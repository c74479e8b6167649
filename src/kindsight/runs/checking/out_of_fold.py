"""What the costly checks look at: features, and the answers of heads that have not seen them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, OutOfFoldPredictions, RowFeatures
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.checks.measurement_cache import MeasuringObserver
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.folds import fold_indices
from kindsight.dataset.splits.groups import connected_components
from kindsight.evaluation import fit_temperature, to_probabilities
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.runs.checking.settings import CheckSettings
from kindsight.training.frozen.candidates import (
    CHOICE_TOLERANCE,
    FIRST_STRENGTHS,
    Candidate,
    Task,
    cost_of,
    try_candidate,
    walk_strengths,
)
from kindsight.training.frozen.projection import WeighedFeatures
from kindsight.training.frozen.select_head import (
    BLOCKS,
    CHOICE_IMAGES,
    COMPONENTS,
    FOLDS,
    THREADED_IMAGES,
    block_choices,
    column_weights,
    generator,
)
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.frozen.softmax import fit_softmax

__all__ = [
    "add_features",
    "compute_features_and_measurements",
    "out_of_fold",
]

# SECTION: What a head that has not seen an image says of it: for questioning labels.
#
# Only linear heads are tried. They are as good at that as curved ones, and take a fraction of a
# second; and of the strengths the one of least log loss is taken, not a weaker one as for the head
# that is kept: where labels are wrong, a weakly held head learns them by heart.

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
    """Return the probabilities that each image gets from a head that was fitted without it.

    Parameters
    ----------
    features : array
        float32 (images, width).
    targets : array
        int64 (images,), 0 to classes - 1.
    classes : int
        How many classes, at least 2.
    layout : FeatureLayout
        Which columns come from where.
    folds : array
        int64 (images,): the fold that each image is held out in. Copies belong in one fold.
    seed : int
        For the random directions.

    Returns
    -------
    array
        float64 (images, classes); rows sum to 1. One temperature has been fitted to them.
    """
    limit = 1 if len(targets) < THREADED_IMAGES else None
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
    rows = np.sort(generator(seed, 1).permutation(len(targets))[:CHOICE_IMAGES])
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


Progress = Callable[[str, int, int], None]


def add_features(
    context: CheckContext,
    settings: CheckSettings,
    cache: Cache,
    progress: Progress | None = None,
) -> None:
    """Give a context features and out-of-fold answers, made when a check first asks for them.

    Parameters
    ----------
    context : CheckContext
        Of measured images.
    settings : CheckSettings
        Which backbone.
    cache : Cache
        Where features are kept.
    progress : callable, optional
        Called with (stage, done, total): ``"backbone"``, ``"features"``.
    """
    layouts: list[FeatureLayout] = []

    def features() -> RowFeatures:
        training = _training(settings, cache)
        rows = context.readable_rows
        # The row goes along as the group, so that it is known of which images there are features.
        numbered = context.dataset[rows].with_columns(group=[str(row) for row in rows])
        said = _said(progress)
        files = training.backbone(said)
        found = training.features(numbered, files, said)
        layouts.append(files.layout)
        context.feature_blocks = tuple(
            slice(block.start, block.stop) for block in files.layout.blocks
        )
        kept = np.array([int(str(row)) for row in found.dataset.group], np.int64)
        return RowFeatures(kept, found.vectors)

    def answers() -> OutOfFoldPredictions:
        found = context.features
        assert found is not None
        return out_of_fold_predictions(context, found, layouts[0])

    context.compute_features, context.compute_out_of_fold = features, answers


def compute_features_and_measurements(
    dataset: ImageDataset,
    settings: CheckSettings,
    cache: Cache,
    progress: Progress | None = None,
) -> None:
    """Compute the features of a dataset's images, and measure what is read for that.

    Both are then found in the cache: no image has to be read twice.
    """
    training, said = _training(settings, cache), _said(progress)
    with MeasuringObserver(cache) as measuring:
        training.features(dataset, training.backbone(said), said, measuring)


def _training(settings: CheckSettings, cache: Cache) -> FrozenTrainer:
    return FrozenTrainer(
        model=settings.model,
        size=settings.size,
        workers=settings.workers,
        cache=str(cache.root),
    )


def _said(progress: Progress | None) -> Progress:
    def said(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress("features" if stage == "images" else stage, done, total)

    return said


def out_of_fold_predictions(
    context: CheckContext, features: RowFeatures, layout: FeatureLayout, seed: int = 0
) -> OutOfFoldPredictions:
    """Let heads answer for the labelled images that they were not fitted on.

    Copies of all kinds, and images of one group, are in one fold: else a head has seen what it
    answers for.
    """
    dataset = context.dataset
    targets = dataset.targets[features.rows]
    labelled = np.flatnonzero(targets >= 0)
    rows, targets = features.rows[labelled], targets[labelled]
    k = len(dataset.classes)
    kin: list[int | None] = [None] * len(dataset)
    for number, group in enumerate(find_duplicates(context).groups()):
        for row in group.tolist():
            kin[row] = number
    picked = rows.tolist()
    columns = [[column[r] for r in picked] for column in (dataset.digest, dataset.group, kin)]
    units = connected_components(*columns) if picked else np.empty(0, np.int64)
    if k < 2 or len(np.unique(units)) < 2 * k:
        return OutOfFoldPredictions(rows[:0], np.empty((0, k)))
    digests = [str(dataset.digest[row]) for row in picked]
    folds = fold_indices(targets, units, FOLDS, seed, digests)
    vectors = features.vectors[labelled]
    return OutOfFoldPredictions(
        rows, out_of_fold(vectors, targets, k, layout, folds=folds, seed=seed)
    )
