"""What the costly checks look at: features, and the answers of heads that have not seen them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.catalog.checks import CheckContext, OutOfFold, RowVectors
from kindsight.catalog.checks.duplicates.copies import find_copies
from kindsight.catalog.checks.keeping import Measuring
from kindsight.catalog.folds import fold_indices
from kindsight.catalog.units import connected
from kindsight.checking.settings import CheckSettings
from kindsight.models.layout import FeatureLayout
from kindsight.training.frozen import FrozenTraining
from kindsight.training.head import FOLDS
from kindsight.training.out_of_fold import out_of_fold

__all__ = ["add_features", "read_for_both"]

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
        Of measured pictures.
    settings : CheckSettings
        Which backbone.
    cache : Cache
        Where features are kept.
    progress : callable, optional
        Called with (stage, done, total): ``"backbone"``, ``"features"``.
    """
    layouts: list[FeatureLayout] = []

    def features() -> RowVectors:
        training = _training(settings, cache)
        rows = context.readable_rows
        # The row goes along as the group, so that it is known of which pictures there are features.
        numbered = context.catalog[rows].with_columns(group=[str(row) for row in rows])
        said = _said(progress)
        files = training.backbone(said)
        found = training.features(numbered, files, said)
        layouts.append(files.layout)
        context.feature_blocks = tuple(
            slice(block.start, block.stop) for block in files.layout.blocks
        )
        kept = np.array([int(str(row)) for row in found.catalog.group], np.int64)
        return RowVectors(kept, found.vectors)

    def answers() -> OutOfFold:
        found = context.features
        assert found is not None
        return answer_out_of_fold(context, found, layouts[0])

    context.make_features, context.make_out_of_fold = features, answers


def read_for_both(
    catalog: Catalog,
    settings: CheckSettings,
    cache: Cache,
    progress: Progress | None = None,
) -> None:
    """Compute the features of a catalog's pictures, and measure what is read for that.

    Both are then found in the cache: no picture has to be read twice.
    """
    training, said = _training(settings, cache), _said(progress)
    with Measuring(cache) as measuring:
        training.features(catalog, training.backbone(said), said, measuring)


def _training(settings: CheckSettings, cache: Cache) -> FrozenTraining:
    return FrozenTraining(
        model=settings.model,
        size=settings.size,
        workers=settings.workers,
        cache=str(cache.root),
    )


def _said(progress: Progress | None) -> Progress:
    def said(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress("features" if stage == "pictures" else stage, done, total)

    return said


def answer_out_of_fold(
    context: CheckContext, features: RowVectors, layout: FeatureLayout, seed: int = 0
) -> OutOfFold:
    """Let heads answer for the labelled pictures that they were not fitted on.

    Copies of all kinds, and pictures of one group, are in one fold: else a head has seen what it
    answers for.
    """
    catalog = context.catalog
    targets = catalog.targets[features.rows]
    labelled = np.flatnonzero(targets >= 0)
    rows, targets = features.rows[labelled], targets[labelled]
    k = len(catalog.classes)
    kin: list[int | None] = [None] * len(catalog)
    for number, group in enumerate(find_copies(context).groups()):
        for row in group.tolist():
            kin[row] = number
    picked = rows.tolist()
    columns = [[column[r] for r in picked] for column in (catalog.digest, catalog.group, kin)]
    units = connected(*columns) if picked else np.empty(0, np.int64)
    if k < 2 or len(np.unique(units)) < 2 * k:
        return OutOfFold(rows[:0], np.empty((0, k)))
    digests = [str(catalog.digest[row]) for row in picked]
    folds = fold_indices(targets, units, FOLDS, seed, digests)
    vectors = features.vectors[labelled]
    return OutOfFold(rows, out_of_fold(vectors, targets, k, layout, folds=folds, seed=seed))
