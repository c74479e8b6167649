"""Select and fit the head: a convex problem, its kind and L2 strength chosen by cross-validation.

Candidates are softmax regressions on standardised principal components of all features, of all
but those of rows and columns, of all with the early stages weighted up, and of the last mean
alone; and, from the best of these, on an RBF kernel of the first components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.evaluation import calibrate, to_probabilities
from kindsight.models.backbones.backbone import PROFILES, FeatureLayout
from kindsight.models.heads import EnsembleHead, Head, LinearHead, RBFHead
from kindsight.threads import count_cores, map_ordered
from kindsight.training.common import ColumnScale
from kindsight.training.frozen.column_store import ColumnFile, Columns, ColumnStore
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.pca import MAX_PRODUCTS, PCA, NystroemMap, WeightedPCA, fit_nystroem
from kindsight.training.frozen.softmax import (
    FIRST_STRENGTH,
    GAMMA,
    STRENGTHS,
    Candidate,
    CrossValidation,
    SoftmaxFit,
    best_candidate,
    blocks_of,
    fit_softmax,
    search_strengths,
    selection_cost,
)

__all__ = [
    "FOLDS",
    "THREADED_IMAGES",
    "FittedHead",
    "column_weights",
    "feature_sets",
    "fit_ensemble_head",
    "fit_head",
    "predict_out_of_fold",
    "refit_head",
]

Floats = NDArray[np.float32]

FOLDS = 5

# Sets of features: weights of the statistics of the stages, and of those over rows and columns; the
# last mean has the weight 1.
FEATURE_SETS = {
    "all": (1.0, 1.0), "no-profiles": (1.0, 0.0), "early": (3.0, 3.0), "last": (0.0, 0.0)
}  # fmt: skip
COMPONENTS = 512
KERNEL_COMPONENTS = 256
LANDMARKS = 2000
# The logits of an RBF head are sums of many large terms that nearly cancel. With weights up to
# this norm, divided by the temperature where that is below 1, float32 is exact to about 1e-5, so
# that every runtime gives the same probabilities.
MAX_NORM = 150.0
STRONGER = 3.0
# With more images, the cross-validation would be slower and its choice no better; the inner
# products of this many images fit into memory.
SELECTION_IMAGES = MAX_PRODUCTS
# On small matrices, a second thread in a product gains little, and if another process uses the
# other core, waiting threads take many times as long as the work. With fewer images than this,
# candidates are fitted in parallel instead, each on one thread. With more, that would take too much
# memory, and the Keras process (600 MB; 1 GB after it has built a backbone) is ended before the
# head is fitted.
THREADED_IMAGES = 4000
MOST_CANDIDATES = 13
"""Maximum number of fits in a selection: four sets of features, five and three strengths, the
chosen head."""
SELECTION_SHARE, COLUMNS_SHARE = 0.2, 0.3
"""Shares of the selection and of computing the columns in the progress of out-of-fold
predictions."""
CALIBRATION_IMAGES = 100_000
"""Maximum number of out-of-fold predictions for fitting the temperature; more change its third
digit."""


@dataclass(frozen=True)
class FittedHead:
    """A fitted head and how it was selected.

    Parameters
    ----------
    layers : Head
        The layers from features to logits, with standardisation and projection folded in.
    temperature : float
        The number by which logits are divided before the softmax; 1 if scaling does not lower the
        held-out log loss.
    chosen : Candidate
        The best candidate.
    candidates : tuple of Candidate
        All candidates, in the order of evaluation.
    out_of_fold : array
        float32 (selection images, classes): logits of each image, not divided by the temperature,
        by the chosen head fitted on the other folds.
    selection : array
        int64: the rows of these images among those that the head was fitted on.
    scale : pair of arrays, optional
        The result of :func:`.mean_and_scale` for their features; None if it is unknown.
    """

    layers: Head
    temperature: float
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    out_of_fold: Floats
    selection: NDArray[np.int64]
    scale: ColumnScale | None = None


def fit_head(
    features: Floats | FeatureRows,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    kind: str = "auto",
    weights: Floats | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    store: ColumnStore | None = None,
) -> FittedHead:
    """Select a head by cross-validation and fit it to all images.

    The selection uses at most :data:`SELECTION_IMAGES` images. The columns of all images are
    computed once; the final fit reads them about twenty to sixty times, at most 200 times.

    Parameters
    ----------
    features : array or FeatureRows
        float32 (images, width).
    targets : array
        int64 (images,): class indices.
    classes : int
        Number of classes, at least 2.
    layout : FeatureLayout
        Where the columns come from.
    folds : array
        int64 (images,): the fold in which each image is held out.
    kind : str
        As for :class:`.settings.FrozenTrainer`.
    weights : array, optional
        float32 (images,): sample weights; 1 if omitted.
    seed : int
        Seed of random directions and landmarks.
    progress : callable, optional
        Called with (done, total) while a head is fitted to many images, in units of one candidate;
        the selection may end early.
    store : ColumnStore, optional
        Where the columns of many images are held; by default, columns of more than 200 MB are
        stored in a temporary file.
    """
    if weights is None:
        weights = np.ones(len(targets), np.float32)
    store = ColumnStore() if store is None else store
    steps = _Steps(None if len(targets) < THREADED_IMAGES else progress, len(targets))
    with _blas_threads(len(targets)):
        every, rows = FeatureRows.of(features), selection_rows(len(targets), seed)
        task = CrossValidation(targets[rows], classes, folds[rows], weights[rows], steps.add)
        threads = 1 if len(targets) >= THREADED_IMAGES else count_cores()
        # The data that only the selection needs, hundreds of megabytes, are freed afterwards.
        found = _select(every[rows], task, layout, kind, seed, threads)
        temperature = calibrate(found.logits, task.targets, task.folds).temperature
        computed: AbstractContextManager[Columns] = nullcontext(found.columns)
        if len(rows) < len(every):
            computed = head_columns(every, found.projection, found.nystroem, store)
        with computed as columns:
            start = None
            if isinstance(columns, ColumnFile):  # a pass takes long: start from the selection's fit
                strength = found.chosen.l2_strength / len(rows)
                start = fit_softmax(
                    found.columns, task.targets, classes, task.weights[None], strength
                )
            layers = _fit_layers(
                found.projection, found.nystroem, columns, targets, classes, weights,
                found.chosen.l2_strength, temperature, steps.finish, start,
            )  # fmt: skip
    return FittedHead(
        layers, temperature, found.chosen, found.candidates, found.logits, rows, found.scale
    )


def _blas_threads(images: int) -> threadpool_limits:
    return threadpool_limits(1 if images < THREADED_IMAGES else None, user_api="blas")


class _Steps:
    """Progress of selecting and fitting a head."""

    def __init__(self, progress: Callable[[int, int], None] | None, images: int) -> None:
        self._progress, self._done = progress, 0
        # The final fit is one problem with a tenth of the tolerance; a candidate has one problem
        # per fold.
        self._last = 1 + 2 * images // (FOLDS * SELECTION_IMAGES)
        self._total = MOST_CANDIDATES + self._last

    def add(self) -> None:
        """Count a candidate."""
        self._report(min(self._done + 1, MOST_CANDIDATES))

    def finish(self, fraction: float) -> None:
        """Show that a fraction of the final fit is done."""
        self._report(MOST_CANDIDATES + int(fraction * self._last))

    def _report(self, done: int) -> None:
        self._done = max(done, self._done)
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Selected(NamedTuple):
    """The selected head, and everything that is needed to fit it to all images."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    logits: Floats
    projection: PCA
    nystroem: NystroemMap | None  # None for a linear head
    columns: Floats  # columns of the images on which it was selected
    scale: ColumnScale | None  # scale of their features


def _select(
    features: Floats,
    task: CrossValidation,
    layout: FeatureLayout,
    kind: str,
    seed: int,
    threads: int,
) -> _Selected:
    """Select a head by cross-validation on some images."""
    names = feature_sets(layout)
    pca = _weighted_pca(features, layout, seed)
    strength = FIRST_STRENGTH["linear"]

    def try_features(number: int) -> Candidate:
        return task.try_candidate(pca.components(number), "linear", names[number], strength)

    candidates = list(map_ordered(try_features, range(len(names)), threads))
    pca.forget_products()
    best = min(candidates, key=selection_cost)
    columns = pca.components(names.index(best.features))
    kernel_columns = columns
    nystroem: NystroemMap | None = None
    with ThreadPoolExecutor(1) as executor:
        searched = executor.submit(search_strengths, task, columns, best)
        if threads == 1:
            searched.result()
        tried: list[Candidate] = []
        if kind != "linear":
            first_columns = np.ascontiguousarray(columns[:, :KERNEL_COMPONENTS])
            nystroem = fit_nystroem(first_columns, LANDMARKS, GAMMA, _random_stream(seed, 3))
            kernel_columns = nystroem.apply(first_columns)
            first = task.try_candidate(kernel_columns, "rbf", best.features, FIRST_STRENGTH["rbf"])
            tried = [first, *search_strengths(task, kernel_columns, first)]
        candidates += [*searched.result(), *tried]
    chosen = best_candidate([item for item in candidates if kind in ("auto", item.kind)])
    number, rbf = names.index(chosen.features), chosen.kind == "rbf"
    final_columns = kernel_columns if rbf else pca.components(number)
    # Fitted again, since the logits of all candidates may not fit into memory.
    logits = task.fit(final_columns, chosen.l2_strength)
    return _Selected(
        chosen, tuple(candidates), logits, pca.projection(number), nystroem if rbf else None,
        final_columns, pca.scale,
    )  # fmt: skip


def head_columns(
    features: FeatureRows,
    projection: PCA,
    nystroem: NystroemMap | None,
    store: ColumnStore,
    report: Callable[[int], None] = lambda done: None,
) -> AbstractContextManager[Columns]:
    """Return the columns that a head is fitted to, (images, columns), computed in blocks.

    `report` is called with the number of images whose columns are computed.
    """

    def compute(block: Floats) -> Floats:
        components = projection.apply(block)
        if nystroem is None:
            return components
        return nystroem.apply(np.ascontiguousarray(components[:, :KERNEL_COMPONENTS]))

    width = projection.kernel.shape[1] if nystroem is None else nystroem.whitening.shape[1]
    return store.computed(features, compute, width, report)


def _fit_layers(
    pca: PCA,
    nystroem: NystroemMap | None,
    columns: Columns,
    targets: NDArray[np.int64],
    classes: int,
    weights: Floats,
    l2_strength: float,
    temperature: float,
    report: Callable[[float], None] | None = None,
    start: SoftmaxFit | None = None,
) -> Head:
    """Fit to all images, and fold all steps into a few dense layers."""
    while True:
        fit = fit_softmax(
            columns, targets, classes, weights[None], l2_strength / len(columns), start,
            report=report,
        )  # fmt: skip
        kernel, bias = fit.kernel[0].astype(np.float64), fit.bias[0].astype(np.float64)
        if nystroem is None:
            bias = pca.bias @ kernel + bias
            return LinearHead(_float32(pca.kernel @ kernel), _float32(bias))
        expansion = nystroem.whitening @ kernel
        if np.sqrt(np.square(expansion).sum(0).max()) <= MAX_NORM * min(1.0, temperature):
            break
        l2_strength *= STRONGER
        start = None if start is None else fit
    return RBFHead(
        project_kernel=np.ascontiguousarray(pca.kernel[:, :KERNEL_COMPONENTS]),
        project_bias=pca.bias[:KERNEL_COMPONENTS],
        landmarks=nystroem.landmarks,
        gamma=np.array(nystroem.gamma, np.float32),
        kernel=_float32(expansion),
        bias=_float32(bias - nystroem.mean @ kernel),
    )


def fit_ensemble_head(
    features: Floats | FeatureRows,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    kind: str = "auto",
    weights: Floats | None = None,
    seed: int = 0,
    store: ColumnStore | None = None,
) -> FittedHead:
    """Fit a head on each backbone's features; return the mean of their logits, or the best alone.

    Backbones that see images at different sizes make different errors; the mean of their heads
    has a lower log loss than one head on all features (docs/experiments.md).

    Parameters
    ----------
    features, targets, classes, layout, folds, kind, weights, seed, store
        See :func:`fit_head`; the layout is of several networks.

    Returns
    -------
    FittedHead
        Where ``chosen`` names a network, ``layers`` takes that network's features only.
    """
    fitted: dict[str, FittedHead] = {}
    for network, columns in layout.networks().items():
        fitted[network] = fit_head(
            FeatureRows.of(features).of_columns(columns), targets, classes,
            layout.of_network(network), folds=folds,
            kind=kind, weights=weights, seed=seed, store=store,
        )  # fmt: skip
    heads = tuple(replace(head.chosen, network=network) for network, head in fitted.items())
    logits = np.mean([head.out_of_fold / head.temperature for head in fitted.values()], axis=0)
    logits = logits.astype(np.float32)
    rows = selection_rows(len(targets), seed)
    counted = np.ones(len(targets), np.float32) if weights is None else weights
    task = CrossValidation(targets[rows], classes, folds[rows], counted[rows])
    with threadpool_limits(1, user_api="blas"):
        mean = task.score(logits, "mean", "all", 0.0, 0.0)
        temperature = calibrate(logits, task.targets, task.folds).temperature
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
        return replace(alone, chosen=best, candidates=candidates)
    factor = 1 / len(fitted)
    layers = EnsembleHead(
        tuple(head.layers.scaled(factor / head.temperature) for head in fitted.values())
    )
    return FittedHead(layers, temperature, ensemble, candidates, logits, rows)


def refit_head(
    features: Floats | FeatureRows,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    chosen: Candidate,
    *,
    weights: Floats | None = None,
    seed: int = 0,
) -> Head:
    """Fit a head of a previously selected kind to other images, without a selection.

    Parameters
    ----------
    features, targets, classes, layout, weights, seed
        See :func:`fit_head`.
    chosen : Candidate
        Kind, features and L2 strength. For an ensemble, its networks must be those of the layout.

    Returns
    -------
    Head
        A head on one network's features if the candidate names one. For a mean of heads, a head on
        the features of all networks, each head's logits divided by its temperature.
    """
    if weights is None:
        weights = np.ones(len(targets), np.float32)
    if chosen.heads:
        heads = [
            refit_head(
                FeatureRows.of(features).of_columns(layout.networks()[head.network]), targets,
                classes,
                layout.of_network(head.network), replace(head, network=""), weights=weights,
                seed=seed,
            ).scaled(1 / (len(chosen.heads) * head.temperature))
            for head in chosen.heads
        ]  # fmt: skip
        return EnsembleHead(tuple(heads))
    with _blas_threads(len(targets)):
        pca = _weighted_pca(FeatureRows.of(features)[:], layout, seed, (chosen.features,))
        columns, nystroem = pca.components(0), None
        if chosen.kind == "rbf":
            first_columns = np.ascontiguousarray(columns[:, :KERNEL_COMPONENTS])
            nystroem = fit_nystroem(first_columns, LANDMARKS, GAMMA, _random_stream(seed, 3))
            columns = nystroem.apply(first_columns)
        return _fit_layers(
            pca.projection(0), nystroem, columns, targets, classes, weights, chosen.l2_strength,
            chosen.temperature,
        )  # fmt: skip


def predict_out_of_fold(
    features: Floats | FeatureRows,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    seed: int = 0,
    store: ColumnStore | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Floats:
    """Return the probabilities of each image from a head that was fitted without it.

    They are used to find wrong labels. Only linear heads are tried, which are as good at that, and
    the L2 strength with the lowest log loss is used, not a weaker one as in :func:`fit_head`:
    where labels are wrong, a weakly regularised head memorises them.

    Parameters
    ----------
    features, targets, classes, layout, seed, store
        See :func:`fit_head`.
    folds : array
        int64 (images,): the fold in which each image is held out; copies belong in one fold.
    progress : callable, optional
        Called with (done, total), as a number of images.

    Returns
    -------
    array
        float32 (images, classes): calibrated probabilities; rows sum to 1. Beside the features, an
        image takes 40 bytes of memory, and 4 for each class.
    """
    store = ColumnStore() if store is None else store
    with _blas_threads(len(targets)):
        rows = selection_rows(len(targets), seed)
        weights = np.ones(len(targets), np.float32)
        report, counter = _shares(progress, len(targets)), count(1)
        most = len(FEATURE_SETS) * len(STRENGTHS["linear"])
        task = CrossValidation(
            targets[rows], classes, folds[rows], weights[rows],
            lambda: report(0.0, SELECTION_SHARE, next(counter) / most),
        )  # fmt: skip
        every_row = FeatureRows.of(features)
        names, pca = feature_sets(layout), _weighted_pca(every_row[rows], layout, seed)
        tried: list[Candidate] = []
        for number, name in enumerate(names):
            columns = pca.components(number)
            first = task.try_candidate(columns, "linear", name, FIRST_STRENGTH["linear"])
            tried += [first, *search_strengths(task, columns, first)]
        best = min(tried, key=selection_cost)
        number = names.index(best.features)
        every = CrossValidation(targets, classes, folds, weights)
        projection, few = pca.projection(number), pca.components(number)
        del pca  # hundreds of megabytes
        with head_columns(
            every_row, projection, None, store,
            lambda done: report(SELECTION_SHARE, COLUMNS_SHARE, done / len(targets)),
        ) as found:  # fmt: skip
            start = None
            if isinstance(found, ColumnFile):
                start = task.fit_folds(few, best.l2_strength)
            before = SELECTION_SHARE + COLUMNS_SHARE
            fit = every.fit_folds(
                found, best.l2_strength, start,
                lambda fraction: report(before, 1 - before, fraction),
            )  # fmt: skip
            logits = every.held_out_logits(found, fit)
            blocks = blocks_of(found, classes)
        known = np.arange(len(targets))
        if len(targets) > CALIBRATION_IMAGES:
            known = np.sort(_random_stream(seed, 1).permutation(len(targets))[:CALIBRATION_IMAGES])
        temperature = calibrate(logits[known], targets[known], folds[known]).temperature
        for block in blocks:
            logits[block] = to_probabilities(logits[block], temperature)
        progress(len(targets), len(targets))
        return logits


def _shares(
    progress: Callable[[int, int], None], images: int
) -> Callable[[float, float, float], None]:
    """Return a function that reports the progress of all steps.

    Its arguments are the share of the earlier steps, that of the current step, and the fraction of
    the current step that is done.
    """
    latest = 0

    def report(before: float, share: float, fraction: float) -> None:
        nonlocal latest
        latest = max(latest, int(images * (before + share * min(1.0, fraction))))
        progress(latest, images)

    return report


def selection_rows(images: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of the images on which candidates are compared."""
    return np.sort(_random_stream(seed, 1).permutation(images)[:SELECTION_IMAGES])


def _random_stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose]))


def _weighted_pca(
    features: Floats, layout: FeatureLayout, seed: int, names: Sequence[str] = ()
) -> WeightedPCA:
    """Return the components of features; the features are overwritten."""
    weightings = [
        column_weights(layout, *FEATURE_SETS[name]) for name in names or feature_sets(layout)
    ]
    layers = [slice(block.start, block.stop) for block in layout.blocks]
    return WeightedPCA(
        features, weightings, COMPONENTS, lambda: _random_stream(seed, 2), layers, overwrite=True
    )


def feature_sets(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the names of the feature sets that differ for a layout."""
    if len(layout.blocks) == 1:
        return ("all",)
    profiles = any(block.name.endswith(PROFILES) for block in layout.blocks)
    return tuple(name for name in FEATURE_SETS if profiles or name != "no-profiles")


def column_weights(layout: FeatureLayout, early: float, profiles: float) -> Floats:
    """Return the columns' weights, float32 (width,).

    They are `profiles` for the statistics over rows and columns, 1 for the last means, and `early`
    for the others.
    """
    ends = [columns.stop for columns in layout.networks().values()] or [layout.width]
    weights = np.full(layout.width, early, np.float32)
    for block in layout.blocks:
        if block.name.endswith(PROFILES):
            weights[block.start : block.stop] = profiles
        if block.stop in ends:
            weights[block.start : block.stop] = 1.0
    return weights


def _float32(values: NDArray[np.float64]) -> Floats:
    return values.astype(np.float32)
