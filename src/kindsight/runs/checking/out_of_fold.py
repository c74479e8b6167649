"""Compute what full checks need: features, and out-of-fold predictions of linear heads."""

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
    "out_of_fold_predictions",
]

Progress = Callable[[str, int, int], None]


def add_features(
    context: CheckContext,
    settings: CheckSettings,
    cache: Cache,
    progress: Progress | None = None,
) -> None:
    """Let a context compute features and out-of-fold predictions when a check first needs them.

    Parameters
    ----------
    context : CheckContext
    settings : CheckSettings
        Name the backbone.
    cache : Cache
        Stores the features.
    progress : callable, optional
        Called with (stage, done, total); the stages are ``"backbone"`` and ``"features"``.
    """
    layouts: list[FeatureLayout] = []

    def compute_features() -> RowFeatures:
        trainer, report = _trainer(settings, cache), _feature_progress(progress)
        rows = context.readable_rows
        # The group holds the row number, because unreadable images have no features.
        numbered = context.dataset[rows].with_columns(group=[str(row) for row in rows])
        files = trainer.backbone(report)
        found = trainer.features(numbered, files, report)
        layouts.append(files.layout)
        context.feature_blocks = tuple(
            slice(block.start, block.stop) for block in files.layout.blocks
        )
        return RowFeatures(
            np.array([int(str(row)) for row in found.dataset.group], np.int64), found.vectors
        )

    def compute_out_of_fold() -> OutOfFoldPredictions:
        features = context.features
        assert features is not None
        return out_of_fold_predictions(context, features, layouts[0])

    context.compute_features = compute_features
    context.compute_out_of_fold = compute_out_of_fold


def compute_features_and_measurements(
    dataset: ImageDataset,
    settings: CheckSettings,
    cache: Cache,
    progress: Progress | None = None,
) -> None:
    """Compute and cache the features and the measurements of all images, reading each once."""
    trainer, report = _trainer(settings, cache), _feature_progress(progress)
    with MeasuringObserver(cache) as observer:
        trainer.features(dataset, trainer.backbone(report), report, observer)


def _trainer(settings: CheckSettings, cache: Cache) -> FrozenTrainer:
    return FrozenTrainer(
        model=settings.model,
        size=settings.size,
        workers=settings.workers,
        cache=str(cache.root),
    )


def _feature_progress(progress: Progress | None) -> Progress:
    def report(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress("features" if stage == "images" else stage, done, total)

    return report


def out_of_fold_predictions(
    context: CheckContext, features: RowFeatures, layout: FeatureLayout, seed: int = 0
) -> OutOfFoldPredictions:
    """Return the out-of-fold predictions for all labelled images; none if they are too few.

    Duplicates of all kinds, and images of one group, are in one fold.
    """
    dataset = context.dataset
    targets = dataset.targets[features.rows]
    labelled = np.flatnonzero(targets >= 0)
    rows, targets = features.rows[labelled], targets[labelled]
    k = len(dataset.classes)
    duplicates: list[int | None] = [None] * len(dataset)
    for number, group in enumerate(find_duplicates(context).groups()):
        for row in group.tolist():
            duplicates[row] = number
    indices = rows.tolist()
    columns = [
        [column[r] for r in indices] for column in (dataset.digest, dataset.group, duplicates)
    ]
    groups = connected_components(*columns) if indices else np.empty(0, np.int64)
    if k < 2 or len(np.unique(groups)) < max(2 * k, FOLDS):
        return OutOfFoldPredictions(rows[:0], np.empty((0, k)))
    digests = [str(dataset.digest[row]) for row in indices]
    folds = fold_indices(targets, groups, FOLDS, seed, digests)
    vectors = features.vectors[labelled]
    return OutOfFoldPredictions(
        rows, out_of_fold(vectors, targets, k, layout, folds=folds, seed=seed)
    )


def out_of_fold(
    features: NDArray[np.float32],
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the probabilities of each image by a linear head that was trained on other folds.

    RBF heads find label errors no better and are slower. The L2 strength has the lowest
    cross-validated log loss: a weaker one, as trained classifiers use, would fit wrong labels.

    Parameters
    ----------
    features : float32 array (n, width)
    targets : int64 array (n,)
        0 to classes - 1.
    classes : int
        Number of classes, at least 2.
    layout : FeatureLayout
        Columns of the features by layer.
    folds : int64 array (n,)
        Fold of each image. Duplicates must be in one fold.
    seed : int
        Seed of the sample and of the random directions.

    Returns
    -------
    float64 array (n, classes)
        Calibrated by temperature scaling; rows sum to 1.
    """
    limit = 1 if len(targets) < THREADED_IMAGES else None
    with threadpool_limits(limit, user_api="blas"):
        rows = np.sort(generator(seed, 1).permutation(len(targets))[:CHOICE_IMAGES])
        weights = np.ones(len(rows), np.float32)
        task = Task(targets[rows], classes, folds[rows], weights)
        tried: list[Candidate] = []
        names = block_choices(layout)
        weightings = [column_weights(layout, *BLOCKS[blocks]) for blocks in names]
        weighed = WeighedFeatures(
            features[rows], weightings, COMPONENTS, lambda: generator(seed, 2)
        )
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
