"""From images to features of a frozen backbone, or of several; from these to a fitted head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.process_images import DecodeObserver
from kindsight.dataset.splits.folds import fold_indices
from kindsight.dataset.splits.groups import group_indices
from kindsight.models.backbones.ensemble import build_ensemble
from kindsight.models.backbones.files import BackboneFiles
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.table import split_model_name
from kindsight.models.heads.head import EnsembleHead
from kindsight.training.common import Progress, balanced_weights, class_targets
from kindsight.training.frozen.candidates import Task
from kindsight.training.frozen.features import (
    Features,
    compute_features,
    side_by_side,
    with_view,
)
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.select_head import FOLDS, FittedHead, choosing_rows, fit_head

if TYPE_CHECKING:
    from kindsight.training.frozen.settings import FrozenTrainer

__all__ = [
    "find_features",
    "fit_apart",
    "fit_frozen",
]

# SECTION: A head for several backbones side by side: one for each, their logits averaged.
#
# Backbones that see an image at other sizes are wrong about other images. On the solar cells the
# mean of two heads' logits is better than one head on both backbones' features, whichever
# backbones,
# sizes and views these are of.

Floats = NDArray[np.float32]


def fit_apart(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    kind: str = "auto",
    weights: Floats | None = None,
    seed: int = 0,
) -> FittedHead:
    """Fit a head on each backbone's features and average them, or take the best one alone.

    Parameters
    ----------
    features, targets, classes, layout, folds, kind, weights, seed
        As :func:`.head.fit_head` takes them; the layout is of several networks.

    Returns
    -------
    FittedHead
        Where ``chosen`` names a network, one is as good alone: ``layers`` takes its features only.

    Raises
    ------
    SettingsError
        For another `kind`.
    """
    found: dict[str, FittedHead] = {}
    for network, columns in layout.networks().items():
        found[network] = fit_head(
            features[:, columns], targets, classes, layout.of_network(network),
            folds=folds, kind=kind,
            weights=weights, seed=seed, held_out=True,
        )  # fmt: skip
    heads = tuple(replace(head.chosen, network=network) for network, head in found.items())
    tried = [
        replace(item, network=network)
        for network, head in found.items()
        for item in head.candidates
    ]
    every = [head.held_out for head in found.values() if head.held_out is not None]
    rows = choosing_rows(len(targets), seed)
    counting = np.ones(len(targets), np.float32) if weights is None else weights
    task = Task(targets[rows], classes, folds[rows], counting[rows])
    with threadpool_limits(1, user_api="blas"):
        mean = task.score(np.mean(every, axis=0, dtype=np.float32), "mean", "all", 0.0, 0.0)
    chosen = replace(mean, heads=heads)
    best = min(heads, key=lambda head: head.log_loss)
    candidates = (*tried, chosen)
    if best.log_loss <= chosen.log_loss:
        alone = found[best.network]
        return FittedHead(alone.layers, alone.temperature, best, candidates)
    layers = EnsembleHead(
        tuple(head.layers.scaled(1 / (len(found) * head.temperature)) for head in found.values())
    )
    return FittedHead(layers, chosen.temperature, chosen, candidates)


def find_features(
    training: FrozenTrainer,
    dataset: ImageDataset,
    files: BackboneFiles,
    progress: Progress | None = None,
    observer: DecodeObserver | None = None,
) -> Features:
    """Find or compute the features of a dataset's images.

    Each backbone's, and each view's, are kept apart, so that nothing is computed twice.

    Parameters
    ----------
    training : FrozenTrainer
        What was told.
    dataset : ImageDataset
        The images.
    files : BackboneFiles
        The backbone.
    progress : callable, optional
        Called with (``"images"``, done, total).
    observer : DecodeObserver, optional
        What looks at images that have to be read.
    """
    cache, spec = Cache(training.cache), training.spec()
    parts = files.members or (files,)
    passes = [(part, view) for part in parts for view in part.variants]
    every: list[Features] = []
    for number, (part, view) in enumerate(passes):

        def step(done: int, total: int, number: int = number) -> None:
            if progress is not None:  # an image is done when all passes have seen it
                progress("images", (number * total + done) // len(passes), total)

        found = compute_features(
            every[-1].dataset if every else dataset, part, spec, cache, workers=training.workers,
            progress=step, view=view, observer=None if every else observer,
        )  # fmt: skip
        if view == part.variants[0]:
            every.append(found)
        else:
            every[-1] = with_view(every[-1], found)
        if view == part.variants[-1] and view:
            every[-1].vectors[...] /= np.float32(len(part.variants))
    return side_by_side(every)


def fit_frozen(
    training: FrozenTrainer,
    features: Features,
    files: BackboneFiles,
    classes: Sequence[str],
    rows: NDArray[np.int64] | None = None,
) -> FittedFrozenHead:
    """Fit a head to some of the images.

    Parameters
    ----------
    training : FrozenTrainer
        What was told.
    features : Features
        Of this backbone.
    files : BackboneFiles
        The backbone.
    classes : sequence of str
        Class names, in the order that the logits are to have.
    rows : array, optional
        int64: which images to learn from; all if omitted.

    Returns
    -------
    FittedFrozenHead
        Of several backbones it may be of one alone, where that is no worse.

    Raises
    ------
    DatasetError
        If a class has no image left to learn from.
    """
    start = time.monotonic()
    rows = np.arange(len(features.dataset)) if rows is None else rows
    dataset = features.dataset[rows]
    targets, groups = class_targets(dataset, classes), group_indices(dataset)
    rarest, different = int(np.bincount(targets).min()), int(groups.max()) + 1
    folds = max(2, min(FOLDS, rarest, different))
    digests = [str(digest) for digest in dataset.digest]
    weights = balanced_weights(targets, training.class_weight)
    every = len(rows) == len(features.vectors) and bool((np.diff(rows) == 1).all())
    fit = fit_apart if len(files.members) > 1 else fit_head
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
    return FittedFrozenHead(training, tuple(classes), files, features, rows, head, seconds)


def _alone(
    training: FrozenTrainer,
    network: str,
    files: BackboneFiles,
    features: Features,
    head: FittedHead,
) -> tuple[FrozenTrainer, BackboneFiles, Features, FittedHead]:
    """Leave the other backbones out of everything: the head is of one of them."""
    columns = files.layout.networks()
    place = list(columns).index(network)
    # The size stays the one that all saw.
    name, seen = split_model_name(training.model)[place], training.seen[place]
    alone = replace(training, model=name, size=training.spec().size)
    if place:  # what is the first one's alone
        alone = replace(alone, inner=None, first_crops=None)
    folder = Cache(training.cache).folder()
    joined = build_ensemble({network: files.members[place]}, folder, [seen])
    kept = replace(
        features, vectors=features.vectors[:, columns[network]], table=features.tables[place]
    )
    return alone, joined, kept, head
