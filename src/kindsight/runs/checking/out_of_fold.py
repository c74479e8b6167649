"""Compute features and out-of-fold predictions of linear heads for full checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, OutOfFoldPredictions, RowFeatures
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.checks.measurements import MeasuringObserver
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.groups import connected_components, fold_indices
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.runs.checking.report import CheckSettings
from kindsight.training.frozen.column_store import ColumnStore
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.features import compute_all_features
from kindsight.training.frozen.input_size import choose_input_size
from kindsight.training.frozen.select_head import FOLDS, predict_out_of_fold
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = [
    "add_features", "compute_features_and_measurements", "out_of_fold_predictions",
    "with_input_size",
]  # fmt: skip

Progress = Callable[[str, int, int], None]


def add_features(
    context: CheckContext, settings: CheckSettings, cache: Cache, progress: Progress | None = None
) -> None:
    """Let a context compute features and out-of-fold predictions when a check first needs them.

    - `settings`: settings that name the backbone.
    - `cache`: stores the features.
    - `progress`: called with (stage, done, total); the stages are ``"backbone"`` and
      ``"features"``.
    """
    layouts: list[FeatureLayout] = []

    def compute_features() -> RowFeatures:
        trainer, report = _trainer(settings, cache, context.dataset), _feature_progress(progress)
        rows = context.readable_rows
        # The group column holds the row number, because unreadable images have no features.
        numbered = context.dataset[rows].with_columns(group=[str(row) for row in rows])
        files = trainer.backbone(report)
        found = compute_all_features(trainer, numbered, files, report, images=len(context.dataset))
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
        store = ColumnStore(cache.folder("features"))
        return out_of_fold_predictions(context, features, layouts[0], store=store)

    context.compute_features = compute_features
    context.compute_out_of_fold = compute_out_of_fold


def with_input_size(
    dataset: ImageDataset, settings: CheckSettings, cache: Cache, progress: Progress | None = None
) -> CheckSettings:
    """Return the settings with the input size that a training would choose and share."""
    trainer = _trainer(settings, cache, dataset)
    chosen = choose_input_size(trainer, dataset, _feature_progress(progress))
    return replace(settings, size=chosen.spec().height) if chosen is not trainer else settings


def compute_features_and_measurements(
    dataset: ImageDataset, settings: CheckSettings, cache: Cache, progress: Progress | None = None
) -> None:
    """Compute and cache the features and the measurements of all images, reading each once."""
    trainer, report = _trainer(settings, cache, dataset), _feature_progress(progress)
    with MeasuringObserver(cache, dataset) as observer:
        compute_all_features(trainer, dataset, trainer.backbone(report), report, observer)


def _trainer(settings: CheckSettings, cache: Cache, dataset: ImageDataset) -> FrozenTrainer:
    return FrozenTrainer(
        model=settings.model, size=settings.size, workers=settings.workers, cache=str(cache.root),
        value_range=dataset.value_range, on=settings.on,
    )  # fmt: skip


def _feature_progress(progress: Progress | None) -> Progress:
    def report(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(stage, done, total)

    return report


def out_of_fold_predictions(
    context: CheckContext,
    features: RowFeatures,
    layout: FeatureLayout,
    seed: int = 0,
    store: ColumnStore | None = None,
) -> OutOfFoldPredictions:
    """Return the out-of-fold predictions for all labelled images; none if they are too few.

    Duplicates of all kinds, and images of one group, are in one fold.
    """
    dataset = context.dataset
    targets = dataset.targets[features.rows]
    labelled = np.flatnonzero(targets >= 0)
    rows, targets = features.rows[labelled], targets[labelled]
    k = len(dataset.classes)
    linked = np.full(len(dataset), -1, np.int64)
    for number, group in enumerate(find_duplicates(context).groups()):
        linked[group] = number
    duplicates = [None if number < 0 else number for number in linked[rows].tolist()]
    some = dataset[rows]
    groups = (
        connected_components(some.digest, some.group, duplicates)
        if len(rows)
        else np.empty(0, np.int64)
    )
    if k < 2 or len(np.unique(groups)) < max(2 * k, FOLDS):
        return OutOfFoldPredictions(rows[:0], np.empty((0, k), np.float32))
    digests = [str(digest) for digest in some.digest]
    folds = fold_indices(targets, groups, FOLDS, seed, digests)
    vectors = FeatureRows.of(features.vectors).take(labelled)
    show = context.late_progress
    probabilities = predict_out_of_fold(
        vectors, targets, k, layout, folds=folds, seed=seed, store=store,
        progress=lambda done, total: show("out of fold", done, total),
    )  # fmt: skip
    return OutOfFoldPredictions(rows, probabilities)
