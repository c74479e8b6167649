"""A head for several backbones side by side: one for each, their logits averaged.

Backbones that see a picture at other sizes are wrong about other pictures. On the solar cells the
mean of two heads' logits is better than one head on both backbones' features, whichever backbones,
sizes and views these are of.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.models.backbones import FeatureLayout
from kindsight.models.heads import SummedHead
from kindsight.training.candidates import Task
from kindsight.training.head import FittedHead, choosing_rows, fit_head

__all__ = ["fit_apart"]

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
            features[:, columns], targets, classes, layout.part(network), folds=folds, kind=kind,
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
    layers = SummedHead(
        tuple(head.layers.scaled(1 / (len(found) * head.temperature)) for head in found.values())
    )
    return FittedHead(layers, chosen.temperature, chosen, candidates)
