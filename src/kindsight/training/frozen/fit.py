"""From images to features of the frozen backbones, and from features to a fitted head."""

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
from kindsight.training.frozen.candidates import CrossValidation
from kindsight.training.frozen.features import Features, compute_features, concatenate, sum_variant
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.select_head import FOLDS, FittedHead, fit_head, selection_rows

if TYPE_CHECKING:
    from kindsight.training.frozen.settings import FrozenTrainer

__all__ = ["compute_all_features", "fit_ensemble_head", "fit_frozen"]

Floats = NDArray[np.float32]


def compute_all_features(
    trainer: FrozenTrainer,
    dataset: ImageDataset,
    files: BackboneFiles,
    progress: Progress | None = None,
    observer: DecodeObserver | None = None,
) -> Features:
    """Return the features of a dataset's images by every backbone, averaged over TTA variants.

    Each backbone's and each variant's are cached by themselves.

    Parameters
    ----------
    trainer : FrozenTrainer
        The settings.
    dataset : ImageDataset
        The images.
    files : BackboneFiles
        The backbone, or the ensemble.
    progress : callable, optional
        Called with (``"features"``, done, total).
    observer : DecodeObserver, optional
        Observer of the images that have to be decoded.
    """
    cache, spec = Cache(trainer.cache), trainer.spec()
    members = files.members or (files,)
    passes = [(member, variant) for member in members for variant in member.variants]
    every: list[Features] = []
    for number, (member, variant) in enumerate(passes):

        def report(done: int, total: int, number: int = number) -> None:
            if progress is not None:  # an image is done after all passes
                progress("features", (number * total + done) // len(passes), total)

        found = compute_features(
            every[-1].dataset if every else dataset, member, spec, cache, workers=trainer.workers,
            progress=report, variant=variant, observer=None if every else observer,
        )  # fmt: skip
        if variant == member.variants[0]:
            every.append(found)
        else:
            every[-1] = sum_variant(every[-1], found)
        if variant == member.variants[-1] and variant:
            every[-1].vectors[...] /= np.float32(len(member.variants))
    return concatenate(every)


def fit_frozen(
    trainer: FrozenTrainer,
    features: Features,
    files: BackboneFiles,
    classes: Sequence[str],
    rows: NDArray[np.int64] | None = None,
) -> FittedFrozenHead:
    """Return a head fitted to some of the images.

    Of an ensemble it may be on one backbone, where cross-validation finds it no worse.

    Parameters
    ----------
    trainer : FrozenTrainer
        The settings.
    features : Features
        By the backbones of `files`.
    files : BackboneFiles
        The backbone, or the ensemble.
    classes : sequence of str
        Class names, in the order of the logits.
    rows : array, optional
        int64: rows of the training images; all if omitted.

    Raises
    ------
    DatasetError
        If a class has no training image.
    """
    start = time.monotonic()
    rows = np.arange(len(features.dataset)) if rows is None else rows
    dataset = features.dataset[rows]
    targets, groups = class_targets(dataset, classes), group_indices(dataset)
    rarest, different = int(np.bincount(targets).min()), int(groups.max()) + 1
    folds = max(2, min(FOLDS, rarest, different))
    digests = [str(digest) for digest in dataset.digest]
    weights = balanced_weights(targets, trainer.class_weight)
    all_rows = len(rows) == len(features.vectors) and bool((np.diff(rows) == 1).all())
    fit = fit_ensemble_head if len(files.members) > 1 else fit_head
    head = fit(
        features.vectors if all_rows else features.vectors[rows],  # a copy can be gigabytes
        targets,
        len(classes),
        files.layout,
        folds=fold_indices(targets, groups, folds, trainer.seed, digests),
        kind=trainer.head,
        weights=None if weights is None else weights[targets].astype(np.float32),
        seed=trainer.seed,
    )
    if network := head.chosen.network:
        trainer, files, features = _only_backbone(trainer, network, files, features)
    seconds = time.monotonic() - start
    return FittedFrozenHead(trainer, tuple(classes), files, features, rows, head, seconds)


def fit_ensemble_head(
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
    """Fit a head on each backbone's features; return the mean of their logits, or the best alone.

    Backbones that see images at different sizes make different errors; the mean of their heads
    has a lower log loss than one head on all features (docs/experiments.md).

    Parameters
    ----------
    features, targets, classes, layout, folds, kind, weights, seed
        See :func:`.select_head.fit_head`; the layout is of several networks.

    Returns
    -------
    FittedHead
        Where ``chosen`` names a network, ``layers`` takes that network's features only.
    """
    fitted: dict[str, FittedHead] = {}
    for network, columns in layout.networks().items():
        fitted[network] = fit_head(
            features[:, columns], targets, classes, layout.of_network(network), folds=folds,
            kind=kind, weights=weights, seed=seed, out_of_fold=True,
        )  # fmt: skip
    heads = tuple(replace(head.chosen, network=network) for network, head in fitted.items())
    logits = [head.out_of_fold for head in fitted.values() if head.out_of_fold is not None]
    rows = selection_rows(len(targets), seed)
    counted = np.ones(len(targets), np.float32) if weights is None else weights
    task = CrossValidation(targets[rows], classes, folds[rows], counted[rows])
    with threadpool_limits(1, user_api="blas"):
        mean = task.score(np.mean(logits, axis=0, dtype=np.float32), "mean", "all", 0.0, 0.0)
    ensemble = replace(mean, heads=heads)
    tried = [
        replace(item, network=network)
        for network, head in fitted.items()
        for item in head.candidates
    ]
    candidates = (*tried, ensemble)
    best = min(heads, key=lambda head: head.log_loss)
    if best.log_loss <= ensemble.log_loss:
        alone = fitted[best.network]
        return FittedHead(alone.layers, alone.temperature, best, candidates)
    factor = 1 / len(fitted)
    layers = EnsembleHead(
        tuple(head.layers.scaled(factor / head.temperature) for head in fitted.values())
    )
    return FittedHead(layers, ensemble.temperature, ensemble, candidates)


def _only_backbone(
    trainer: FrozenTrainer, network: str, files: BackboneFiles, features: Features
) -> tuple[FrozenTrainer, BackboneFiles, Features]:
    """Remove the other backbones from settings, files and features."""
    columns = files.layout.networks()
    index = list(columns).index(network)
    variants = trainer.variants_by_backbone[index]
    # The image size stays the one that all backbones got.
    alone = replace(trainer, model=split_model_name(trainer.model)[index], size=trainer.spec().size)
    if index:  # these are the first backbone's settings
        alone = replace(alone, first_size=None, first_tta_crops=None)
    folder = Cache(trainer.cache).folder()
    joined = build_ensemble({network: files.members[index]}, folder, [variants])
    vectors, table = features.vectors[:, columns[network]], features.tables[index]
    return alone, joined, replace(features, vectors=vectors, table=table)
