"""The head: a convex fit on features, its form and strength chosen by cross-validation.

Candidates are softmax regressions on standardised principal components of all features, of all
but those of rows and columns, of all with the stages weighted up, and of the last mean alone; and,
from the best of these, regressions on an RBF kernel of the first components (:mod:`.candidates`
tries and compares them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.errors import SettingsError
from kindsight.models.backbones.backbone import PROFILES
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.heads.head import Head, LinearHead, RBFHead
from kindsight.training.frozen.candidates import (
    FIRST_STRENGTHS,
    GAMMA,
    Candidate,
    Task,
    answers_of,
    best_candidate,
    cost_of,
    try_candidate,
    walk_strengths,
)
from kindsight.training.frozen.projection import (
    MOST_PRODUCTS,
    KernelMap,
    Projection,
    WeighedFeatures,
    fit_kernel_map,
)
from kindsight.training.frozen.softmax import fit_softmax

__all__ = [
    "HEADS",
    "Candidate",
    "FittedHead",
    "block_choices",
    "choosing_rows",
    "column_weights",
    "fit_head",
    "generator",
]

Floats = NDArray[np.float32]

HEADS = ("auto", "linear", "rbf")
# Weights of the stages' features beside the last mean's: of those over all places, and of those
# over rows and columns.
BLOCKS = {"all": (1.0, 1.0), "places": (1.0, 0.0), "early": (3.0, 3.0), "last": (0.0, 0.0)}
COMPONENTS = 512
KERNEL_COMPONENTS = 256
LANDMARKS = 2000
# The logits of a curved head are sums of many large terms that nearly cancel. With weights up to
# this norm float32 holds them to some 1e-5, so that every runtime gives the same probabilities.
LARGEST_NORM = 150.0
STRONGER = 3.0
# More images than this make the cross-validation slower but its choice no better. Of so many the
# products with each other can be kept (:mod:`.weighing`).
CHOICE_IMAGES = MOST_PRODUCTS
FOLDS = 5
THREADED_IMAGES = 4000


@dataclass(frozen=True)
class FittedHead:
    """A head with what chose it.

    Parameters
    ----------
    layers : Head
        Features to logits, everything folded in.
    temperature : float
        Divides the logits before the softmax.
    chosen : Candidate
        The best one.
    candidates : tuple of Candidate
        All that were tried, in that order.
    held_out : array, optional
        float32 (images that it was chosen by, classes): out-of-fold logits, calibrated, where
        they were asked for.
    """

    layers: Head
    temperature: float
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    held_out: Floats | None = None


def fit_head(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    *,
    folds: NDArray[np.int64],
    kind: str = "auto",
    weights: Floats | None = None,
    seed: int = 0,
    held_out: bool = False,
) -> FittedHead:
    """Choose a head by cross-validation and fit it to all images.

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
        int64 (images,): the fold that each image is held out in.
    kind : str
        One of :data:`HEADS`; ``"auto"`` tries both forms.
    weights : array, optional
        float32 (images,): how much each counts; 1 each if omitted.
    seed : int
        For the random directions and landmarks.
    held_out : bool
        Whether to keep what the chosen one says of the images held out.

    Raises
    ------
    SettingsError
        For another `kind`.
    """
    if kind not in HEADS:
        raise SettingsError(f"head must be one of {', '.join(HEADS)}. Received: {kind!r}.")
    if weights is None:
        weights = np.ones(len(targets), np.float32)
    # On small matrices a second thread gains little, and where another process has the other
    # core the threads' waiting for each other takes many times as long as the work.
    limit = 1 if len(targets) < THREADED_IMAGES else None
    with threadpool_limits(limit, user_api="blas"):
        return _choose_and_fit(
            features, targets, classes, layout, folds, kind, weights, seed, held_out
        )


def _choose_and_fit(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    folds: NDArray[np.int64],
    kind: str,
    weights: Floats,
    seed: int,
    held_out: bool,
) -> FittedHead:
    """Compare the candidates on a bounded number of images, fit the best one to all."""
    rows = choosing_rows(len(targets), seed)
    task = Task(targets[rows], classes, folds[rows], weights[rows])
    sample = features if len(rows) == len(features) else features[rows]
    names = block_choices(layout)
    weightings = [column_weights(layout, *BLOCKS[blocks]) for blocks in names]
    weighed = WeighedFeatures(sample, weightings, COMPONENTS, lambda: generator(seed, 2))
    candidates: list[Candidate] = []
    for number, blocks in enumerate(names):
        strength = FIRST_STRENGTHS["linear"]
        columns = weighed.components(number)
        candidates.append(try_candidate(task, columns, "linear", blocks, strength))
    best = min(candidates, key=cost_of)
    columns = weighed.components(names.index(best.blocks))
    candidates += walk_strengths(task, columns, "linear", best.blocks, best)
    mapping = None
    if kind != "linear":
        columns = np.ascontiguousarray(columns[:, :KERNEL_COMPONENTS])
        mapping = fit_kernel_map(columns, LANDMARKS, GAMMA, generator(seed, 3))
        columns = mapping.apply(columns)
        first = try_candidate(task, columns, "rbf", best.blocks, FIRST_STRENGTHS["rbf"])
        candidates += [first, *walk_strengths(task, columns, "rbf", best.blocks, first)]
    chosen = best_candidate([item for item in candidates if kind in ("auto", item.kind)])
    number = names.index(chosen.blocks)
    answers = None
    if held_out:
        curved = chosen.kind == "rbf"
        answers = answers_of(task, columns if curved else weighed.components(number), chosen)
    fitted = _Fitted(
        weighed.projection(number),
        mapping if chosen.kind == "rbf" else None,
    )
    known = weighed.components(number) if sample is features else None
    layers = fitted.fit(features, targets, classes, weights, chosen.strength, known)
    return FittedHead(layers, chosen.temperature, chosen, tuple(candidates), answers)


def choosing_rows(images: int, seed: int) -> NDArray[np.int64]:
    """Return by which images candidates are compared."""
    return np.sort(generator(seed, 1).permutation(images)[:CHOICE_IMAGES])


def generator(seed: int, purpose: int) -> np.random.Generator:
    """Return the source of chance for one purpose."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose]))


def block_choices(layout: FeatureLayout) -> tuple[str, ...]:
    """Return which of :data:`BLOCKS` differ."""
    if len(layout.blocks) == 1:
        return ("all",)
    profiles = any(block.name.endswith(PROFILES) for block in layout.blocks)
    return tuple(name for name in BLOCKS if profiles or name != "places")


def column_weights(layout: FeatureLayout, early: float, profiles: float) -> Floats:
    """Return a weight for each feature: `early`, `profiles`, and 1 for those of last means."""
    ends = [columns.stop for columns in layout.networks().values()] or [layout.width]
    weights = np.full(layout.width, early, np.float32)
    for block in layout.blocks:
        if block.name.endswith(PROFILES):
            weights[block.start : block.stop] = profiles
        if block.stop in ends:
            weights[block.start : block.stop] = 1.0
    return weights


@dataclass(frozen=True)
class _Fitted:
    """The chosen features, ready for the fit to all images."""

    projection: Projection
    mapping: KernelMap | None

    def fit(
        self,
        features: Floats,
        targets: NDArray[np.int64],
        classes: int,
        weights: Floats,
        strength: float,
        columns: Floats | None = None,
    ) -> Head:
        """Fit to all images and fold everything into a few dense layers.

        `columns` are the images' components, where they are known.
        """
        projection, mapping = self.projection, self.mapping
        if columns is None:
            columns = projection.apply(features)
        if mapping is not None:
            columns = mapping.apply(np.ascontiguousarray(columns[:, :KERNEL_COMPONENTS]))
        while True:
            fit = fit_softmax(columns, targets, classes, weights[None], strength / len(features))
            kernel, bias = fit.kernel[0].astype(np.float64), fit.bias[0].astype(np.float64)
            if mapping is None:
                bias = projection.bias @ kernel + bias
                return LinearHead(_narrow(projection.kernel @ kernel), _narrow(bias))
            expansion = mapping.whitening @ kernel
            if np.sqrt(np.square(expansion).sum(0).max()) <= LARGEST_NORM:
                break
            strength *= STRONGER
        return RBFHead(
            project_kernel=np.ascontiguousarray(projection.kernel[:, :KERNEL_COMPONENTS]),
            project_bias=projection.bias[:KERNEL_COMPONENTS],
            landmarks=mapping.landmarks,
            gamma=np.array(mapping.gamma, np.float32),
            kernel=_narrow(expansion),
            bias=_narrow(bias - mapping.mean @ kernel),
        )


def _narrow(values: NDArray[np.float64]) -> Floats:
    return values.astype(np.float32)
