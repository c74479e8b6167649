"""From pictures to features of a frozen backbone, or of several; from these to a fitted head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.catalog.once import Beside
from kindsight.catalog.split import fold_indices, units
from kindsight.models.backbone_files import BackboneFiles
from kindsight.models.backbones import split_names
from kindsight.models.side_by_side import join_backbones
from kindsight.training.apart import fit_apart
from kindsight.training.common import Progress, balanced_weights, class_targets
from kindsight.training.features import Features, compute_features, side_by_side, with_view
from kindsight.training.fitted_frozen import FittedFrozen
from kindsight.training.head import FOLDS, FittedHead, fit_head

if TYPE_CHECKING:
    from kindsight.training.frozen import FrozenTraining

__all__ = ["find_features", "fit_frozen"]


def find_features(
    training: FrozenTraining,
    catalog: Catalog,
    files: BackboneFiles,
    progress: Progress | None = None,
    beside: Beside | None = None,
) -> Features:
    """Find or compute the features of a catalog's pictures.

    Each backbone's, and each view's, are kept apart, so that nothing is computed twice.

    Parameters
    ----------
    training : FrozenTraining
        What was told.
    catalog : Catalog
        The pictures.
    files : BackboneFiles
        The backbone.
    progress : callable, optional
        Called with (``"pictures"``, done, total).
    beside : Beside, optional
        What looks at pictures that have to be read.
    """
    cache, spec = Cache(training.cache), training.spec()
    parts = files.parts or (files,)
    passes = [(part, view) for part in parts for view in part.views]
    every: list[Features] = []
    for number, (part, view) in enumerate(passes):

        def step(done: int, total: int, number: int = number) -> None:
            if progress is not None:  # a picture is done when all passes have seen it
                progress("pictures", (number * total + done) // len(passes), total)

        found = compute_features(
            every[-1].catalog if every else catalog, part, spec, cache, workers=training.workers,
            progress=step, view=view, beside=None if every else beside,
        )  # fmt: skip
        if view == part.views[0]:
            every.append(found)
        else:
            every[-1] = with_view(every[-1], found)
        if view == part.views[-1] and view:
            every[-1].vectors[...] /= np.float32(len(part.views))
    return side_by_side(every)


def fit_frozen(
    training: FrozenTraining,
    features: Features,
    files: BackboneFiles,
    classes: Sequence[str],
    rows: NDArray[np.int64] | None = None,
) -> FittedFrozen:
    """Fit a head to some of the pictures.

    Parameters
    ----------
    training : FrozenTraining
        What was told.
    features : Features
        Of this backbone.
    files : BackboneFiles
        The backbone.
    classes : sequence of str
        Class names, in the order that the logits are to have.
    rows : array, optional
        int64: which pictures to learn from; all if omitted.

    Returns
    -------
    FittedFrozen
        Of several backbones it may be of one alone, where that is no worse.

    Raises
    ------
    CatalogError
        If a class has no picture left to learn from.
    """
    start = time.monotonic()
    rows = np.arange(len(features.catalog)) if rows is None else rows
    catalog = features.catalog[rows]
    targets, groups = class_targets(catalog, classes), units(catalog)
    rarest, different = int(np.bincount(targets).min()), int(groups.max()) + 1
    folds = max(2, min(FOLDS, rarest, different))
    digests = [str(digest) for digest in catalog.digest]
    weights = balanced_weights(targets, training.class_weight)
    every = len(rows) == len(features.vectors) and bool((np.diff(rows) == 1).all())
    fit = fit_apart if len(files.parts) > 1 else fit_head
    head = fit(
        features.vectors if every else features.vectors[rows],  # a copy can be gigabytes
        targets,
        len(classes),
        files.layout,
        folds=fold_indices(targets, groups, folds, training.seed, digests),
        kind=training.head,
        weights=None if weights is None else weights[targets].astype(np.float32),
        seed=training.seed,
    )
    if network := head.chosen.network:  # of several backbones one is enough
        training, files, features, head = _alone(training, network, files, features, head)
    seconds = time.monotonic() - start
    return FittedFrozen(training, tuple(classes), files, features, rows, head, seconds)


def _alone(
    training: FrozenTraining,
    network: str,
    files: BackboneFiles,
    features: Features,
    head: FittedHead,
) -> tuple[FrozenTraining, BackboneFiles, Features, FittedHead]:
    """Leave the other backbones out of everything: the head is of one of them."""
    columns = files.layout.networks()
    place = list(columns).index(network)
    # The size stays the one that all saw.
    name, seen = split_names(training.model)[place], training.seen[place]
    alone = replace(training, model=name, size=training.spec().size)
    if place:  # what is the first one's alone
        alone = replace(alone, inner=None, first_crops=None)
    folder = Cache(training.cache).folder()
    joined = join_backbones({network: files.parts[place]}, folder, [seen])
    kept = replace(
        features, vectors=features.vectors[:, columns[network]], table=features.tables[place]
    )
    return alone, joined, kept, head
