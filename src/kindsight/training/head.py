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
from threadpoolctl import threadpool_limits

from kindsight.errors import SettingsError
from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.models.backbones import FeatureLayout
from kindsight.models.heads import CurvedHead, HeadLayers, LinearHead
from kindsight.training.projection import KernelMap, Projection, fit_kernel_map, fit_projection
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
GAMMA = 0.7
# Strengths times the number of training pictures: the scale on which the best ones agree. The
# features are compared at the first one; from there the path goes to both sides.
LINEAR_STRENGTHS = (2.0, 0.6, 0.2, 0.06, 0.02, 0.006)
CURVED_STRENGTHS = (0.6, 0.2, 0.06, 0.02)
FIRST_STRENGTHS = {"linear": 0.2, "curved": 0.06}
# A path is left where the log loss has risen by this factor.
WORSE = 1.02
# Log losses closer than this factor are told apart by nothing but luck.
NEAR = 1.02
# More pictures than this make the cross-validation slower but its choice no better.
CHOICE_PICTURES = 6000
FOLDS = 5
THREADED_PICTURES = 4000
CHOICE_TOLERANCE = 1e-3


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
    # On small matrices a second thread gains little, and where another process has the other
    # core the threads' waiting for each other takes many times as long as the work.
    limit = 1 if len(targets) < THREADED_PICTURES else None
    with threadpool_limits(limit, user_api="blas"):
        return _choose_and_fit(features, targets, classes, layout, folds, kind, weights, seed)


def _choose_and_fit(
    features: Floats,
    targets: NDArray[np.int64],
    classes: int,
    layout: FeatureLayout,
    folds: NDArray[np.int64],
    kind: str,
    weights: Floats,
    seed: int,
) -> FittedHead:
    """Compare the candidates on a bounded number of pictures, fit the best one to all."""
    chooser = np.random.Generator(np.random.Philox(key=[seed, 1]))
    rows = np.sort(chooser.permutation(len(targets))[:CHOICE_PICTURES])
    task = _Task(targets[rows], classes, folds[rows], weights[rows])
    sample = features if len(rows) == len(features) else features[rows]
    candidates: list[Candidate] = []
    projections: dict[str, Projection] = {}
    for blocks, weight in BLOCKS.items():
        if weight != 1.0 and len(layout.blocks) == 1:
            continue
        projections[blocks] = fit_projection(
            sample, _column_weights(layout, weight), COMPONENTS, _generator(seed, 2)
        )
        columns = projections[blocks].apply(sample)
        candidates.append(_try(task, columns, "linear", blocks, FIRST_STRENGTHS["linear"]))
    blocks = min(candidates, key=_loss).blocks
    columns = projections[blocks].apply(sample)
    candidates += _walk(
        task, columns, "linear", blocks, LINEAR_STRENGTHS, min(candidates, key=_loss)
    )
    mapping = None
    if kind != "linear":
        columns = np.ascontiguousarray(columns[:, :KERNEL_COMPONENTS])
        mapping = fit_kernel_map(columns, LANDMARKS, GAMMA, _generator(seed, 3))
        columns = mapping.apply(columns)
        first = _try(task, columns, "curved", blocks, FIRST_STRENGTHS["curved"])
        candidates += [first, *_walk(task, columns, "curved", blocks, CURVED_STRENGTHS, first)]
    chosen = _best([item for item in candidates if kind in ("auto", item.kind)])
    fitted = _Fitted(projections[chosen.blocks], mapping if chosen.kind == "curved" else None)
    layers = fitted.fit(features, targets, classes, weights, chosen.strength)
    return FittedHead(layers, chosen.temperature, chosen, tuple(candidates))


def _loss(candidate: Candidate) -> float:
    return candidate.log_loss


def _best(candidates: list[Candidate]) -> Candidate:
    """Of the candidates whose log loss is next to the least, return the most accurate."""
    least = min(candidate.log_loss for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.log_loss <= NEAR * least]
    return min(near, key=lambda candidate: (-candidate.accuracy, candidate.log_loss))


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose]))


def _column_weights(layout: FeatureLayout, early: float) -> Floats:
    weights = np.full(layout.width, early, np.float32)
    weights[layout.blocks[-1].start :] = 1.0
    return weights


def _try(task: _Task, columns: Floats, kind: Kind, blocks: str, strength: float) -> Candidate:
    """Fit one candidate on every fold and score what it says of the pictures held out."""
    fit = fit_softmax(
        columns,
        task.targets,
        task.classes,
        task.fold_weights,
        strength / len(columns),
        tolerance=CHOICE_TOLERANCE,
    )
    gamma = GAMMA if kind == "curved" else 0.0
    return task.score(task.out_of_fold(columns, fit), kind, blocks, strength, gamma)


def _walk(
    task: _Task,
    columns: Floats,
    kind: Kind,
    blocks: str,
    strengths: tuple[float, ...],
    first: Candidate,
) -> list[Candidate]:
    """Try strengths to either side of the first one for as long as the log loss does not rise."""
    place = strengths.index(first.strength)
    found: list[Candidate] = []
    for path in (strengths[place + 1 :], strengths[:place][::-1]):
        best = first.log_loss
        for strength in path:
            found.append(_try(task, columns, kind, blocks, strength))
            if found[-1].log_loss > WORSE * best:
                break
            best = min(best, found[-1].log_loss)
        # Where one side is better, the other side need not be looked at.
        if best < first.log_loss:
            break
    return found


@dataclass(frozen=True)
class _Fitted:
    """The chosen features, ready for the fit to all pictures."""

    projection: Projection
    mapping: KernelMap | None

    def fit(
        self,
        features: Floats,
        targets: NDArray[np.int64],
        classes: int,
        weights: Floats,
        strength: float,
    ) -> HeadLayers:
        """Fit to all pictures and fold everything into a few dense layers."""
        projection, mapping = self.projection, self.mapping
        columns = projection.apply(features)
        if mapping is not None:
            columns = mapping.apply(np.ascontiguousarray(columns[:, :KERNEL_COMPONENTS]))
        fit = fit_softmax(columns, targets, classes, weights[None], strength / len(features))
        kernel, bias = fit.kernel[0].astype(np.float64), fit.bias[0].astype(np.float64)
        if mapping is None:
            bias = projection.bias @ kernel + bias
            return LinearHead(_narrow(projection.kernel @ kernel), _narrow(bias))
        return CurvedHead(
            project_kernel=np.ascontiguousarray(projection.kernel[:, :KERNEL_COMPONENTS]),
            project_bias=projection.bias[:KERNEL_COMPONENTS],
            landmarks=mapping.landmarks,
            gamma=np.array(mapping.gamma, np.float32),
            kernel=_narrow(mapping.whitening @ kernel),
            bias=_narrow(bias - mapping.mean @ kernel),
        )


def _narrow(values: NDArray[np.float64]) -> Floats:
    return values.astype(np.float32)
