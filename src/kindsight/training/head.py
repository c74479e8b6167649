"""The head: a convex fit on features, its form and strength chosen by cross-validation.

Candidates are softmax regressions on standardised principal components of all features, of all
with the early stages weighted up, and of the last mean alone; and, from the best of these,
regressions on an RBF kernel of the first components. All folds of a candidate are solved at once
(:mod:`.softmax`). What decides is the log loss of the out-of-fold answers after a temperature has
been fitted to them, which says more with few pictures than counts of right answers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.models.backbones import FeatureLayout
from kindsight.models.heads import CurvedHead, HeadLayers, LinearHead
from kindsight.training.projection import Projection, fit_kernel_map, fit_projection
from kindsight.training.softmax import SoftmaxFit, fit_softmax

__all__ = ["HEADS", "Candidate", "FittedHead", "fit_head"]

Floats = NDArray[np.float32]
Kind = Literal["linear", "curved"]

HEADS = ("auto", "linear", "curved")
# Weights of the early stages' features beside the last mean's.
BLOCKS = {"all": 1.0, "early": 3.0, "last": 0.0}
COMPONENTS = 512
KERNEL_COMPONENTS = 192
LANDMARKS = 1000
GAMMAS = (0.5, 1.0)
# Strengths times the number of training pictures: the scale on which the best ones agree.
LINEAR_STRENGTHS = (2.0, 0.6, 0.2, 0.06, 0.02, 0.006)
CURVED_STRENGTHS = (0.2, 0.06, 0.02)
# More pictures than this make the cross-validation slower but its choice no better.
CHOICE_PICTURES = 6000
FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    """One head that cross-validation tried.

    Parameters
    ----------
    kind : str
        ``"linear"`` or ``"curved"``.
    blocks : str
        Which features: ``"all"``, ``"early"`` (early stages weighted up) or ``"last"``.
    strength : float
        Of the regularisation, times the number of pictures.
    gamma : float
        Inverse squared width of the kernel; 0 for a linear head.
    accuracy : float
        Share of out-of-fold answers that are right.
    log_loss : float
        Their mean log loss after the temperature, in nats.
    temperature : float
        Fitted to them.
    """

    kind: Kind
    blocks: str
    strength: float
    gamma: float
    accuracy: float
    log_loss: float
    temperature: float

    def describe(self) -> str:
        """Say it in words."""
        features = {"all": "all stages", "early": "early stages weighted up", "last": "last mean"}
        form = f"curved (gamma {self.gamma:g})" if self.kind == "curved" else "linear"
        return f"{form}, {features[self.blocks]}, strength {self.strength:g}"


@dataclass(frozen=True)
class FittedHead:
    """A head with what chose it.

    Parameters
    ----------
    layers : HeadLayers
        Features to logits, everything folded in.
    temperature : float
        Divides the logits before the softmax.
    chosen : Candidate
        The best one.
    candidates : tuple of Candidate
        All that were tried, in that order.
    """

    layers: HeadLayers
    temperature: float
    chosen: Candidate
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class _Task:
    """What stays the same over all candidates."""

    targets: NDArray[np.int64]
    classes: int
    folds: NDArray[np.int64]
    weights: Floats

    @property
    def fold_weights(self) -> Floats:
        count = int(self.folds.max()) + 1
        return np.stack([np.where(self.folds == fold, 0, self.weights) for fold in range(count)])

    def out_of_fold(self, columns: Floats, fit: SoftmaxFit) -> Floats:
        """Return each picture's logits from the fit that did not see it."""
        logits = np.empty((len(columns), self.classes), np.float32)
        for fold in range(int(self.folds.max()) + 1):
            held = self.folds == fold
            logits[held] = fit.logits(columns[held], fold)
        return logits

    def score(
        self, logits: Floats, kind: Kind, blocks: str, strength: float, gamma: float
    ) -> Candidate:
        """Fit the temperature to out-of-fold logits and score them."""
        temperature = fit_temperature(logits, self.targets)
        probabilities = to_probabilities(logits, temperature)
        picked = probabilities[np.arange(len(logits)), self.targets].astype(np.float64)
        right = logits.argmax(1) == self.targets
        total = self.weights.sum()
        return Candidate(
            kind,
            blocks,
            strength,
            gamma,
            float((right * self.weights).sum() / total),
            float(-(np.log(np.maximum(picked, 1e-12)) * self.weights).sum() / total),
            temperature,
        )


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
) -> FittedHead:
    """Choose a head by cross-validation and fit it to all pictures.

    Parameters
    ----------
    features : array
        float32 (pictures, width).
    targets : array
        int64 (pictures,), 0 to classes - 1.
    classes : int
        How many classes, at least 2.
    layout : FeatureLayout
        Which columns come from where.
    folds : array
        int64 (pictures,): the fold that each picture is held out in.
    kind : str
        One of :data:`HEADS`; ``"auto"`` tries both forms.
    weights : array, optional
        float32 (pictures,): how much each counts; 1 each if omitted.
    seed : int
        For the random directions and landmarks.

    Raises
    ------
    SettingsError
        For another `kind`.
    """
    if kind not in HEADS:
        raise SettingsError(f"head must be one of {', '.join(HEADS)}. Received: {kind!r}.")
    if weights is None:
        weights = np.ones(len(targets), np.float32)
    chooser = np.random.Generator(np.random.Philox(key=[seed, 1]))
    rows = np.sort(chooser.permutation(len(targets))[:CHOICE_PICTURES])
    task = _Task(targets[rows], classes, folds[rows], weights[rows])
    sample = features if len(rows) == len(features) else features[rows]
    candidates: list[Candidate] = []
    projections: dict[str, Projection] = {}
    for blocks, weight in BLOCKS.items():
        if weight == 0.0 and len(layout.blocks) == 1:
            continue
        projections[blocks] = fit_projection(
            sample, _column_weights(layout, weight), COMPONENTS, _generator(seed, 2)
        )
        candidates += _try_linear(task, projections[blocks].apply(sample), blocks)
    best = min(candidates, key=lambda candidate: candidate.log_loss)
    if kind != "linear":
        components = projections[best.blocks].apply(sample)[:, :KERNEL_COMPONENTS]
        for gamma in GAMMAS:
            mapping = fit_kernel_map(components, LANDMARKS, gamma, _generator(seed, 3))
            candidates += _try_curved(task, mapping.apply(components), best.blocks, gamma)
    allowed = [item for item in candidates if kind in ("auto", item.kind)]
    chosen = min(allowed, key=lambda candidate: candidate.log_loss)
    layers = _fit_chosen(features, targets, classes, weights, chosen, projections, seed)
    return FittedHead(layers, chosen.temperature, chosen, tuple(candidates))


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose]))


def _column_weights(layout: FeatureLayout, early: float) -> Floats:
    weights = np.full(layout.width, early, np.float32)
    weights[layout.blocks[-1].start :] = 1.0
    return weights


def _try_linear(task: _Task, columns: Floats, blocks: str) -> list[Candidate]:
    """Score a path of strengths, each started from the one before."""
    found, start = [], None
    for strength in LINEAR_STRENGTHS:
        fit = fit_softmax(
            columns,
            task.targets,
            task.classes,
            task.fold_weights,
            strength / len(columns),
            start,
            tolerance=1e-3,
        )
        start = fit.start
        logits = task.out_of_fold(columns, fit)
        found.append(task.score(logits, "linear", blocks, strength, 0.0))
        if len(found) > 1 and found[-1].log_loss > 1.02 * found[-2].log_loss:
            break
    return found


def _try_curved(task: _Task, columns: Floats, blocks: str, gamma: float) -> list[Candidate]:
    """Score a path of strengths on kernel components."""
    found = []
    for strength in CURVED_STRENGTHS:
        fit = fit_softmax(
            columns,
            task.targets,
            task.classes,
            task.fold_weights,
            strength / len(columns),
            None,
            tolerance=1e-3,
        )
        logits = task.out_of_fold(columns, fit)
        found.append(task.score(logits, "curved", blocks, strength, gamma))
    return found


def _fit_chosen(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    weights: Floats,
    chosen: Candidate,
    projections: dict[str, Projection],
    seed: int,
) -> HeadLayers:
    """Fit the chosen form to all pictures and fold everything into a few dense layers."""
    projection = projections[chosen.blocks]
    components = projection.apply(features)
    strength = chosen.strength / len(features)
    if chosen.kind == "linear":
        fit = fit_softmax(components, targets, classes, weights[None], strength)
        kernel = fit.kernel[0].astype(np.float64)
        bias = projection.bias @ kernel + fit.bias[0]
        return LinearHead((projection.kernel @ kernel).astype(np.float32), bias.astype(np.float32))
    components = np.ascontiguousarray(components[:, :KERNEL_COMPONENTS])
    mapping = fit_kernel_map(components, LANDMARKS, chosen.gamma, _generator(seed, 3))
    fit = fit_softmax(mapping.apply(components), targets, classes, weights[None], strength)
    kernel = fit.kernel[0].astype(np.float64)
    return CurvedHead(
        project_kernel=np.ascontiguousarray(projection.kernel[:, :KERNEL_COMPONENTS]),
        project_bias=projection.bias[:KERNEL_COMPONENTS],
        landmarks=mapping.landmarks,
        gamma=np.array(mapping.gamma, np.float32),
        kernel=(mapping.whitening @ kernel).astype(np.float32),
        bias=(fit.bias[0] - mapping.mean @ kernel).astype(np.float32),
    )
