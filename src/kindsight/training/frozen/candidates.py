"""Candidates for the head, compared by cross-validation.

All folds of a candidate are solved at once (:mod:`.softmax`). The criterion is the log loss of
the out-of-fold predictions after temperature scaling: with few images it varies less than the
accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.training.frozen.softmax import SoftmaxFit, fit_softmax

__all__ = [
    "FIRST_STRENGTH",
    "GAMMA",
    "STRENGTHS",
    "Candidate",
    "CrossValidation",
    "Kind",
    "best_candidate",
    "search_strengths",
    "selection_cost",
]

Floats = NDArray[np.float32]
Kind = Literal["linear", "rbf", "mean"]

# Inverse squared width of the RBF kernel, on components whose mean square norm is 1.
GAMMA = 0.7
# L2 strengths times the number of training images: on that scale the best ones of different
# datasets agree. Features are compared at the first one; the search goes to both sides of it.
STRENGTHS = {"linear": (2.0, 0.6, 0.2, 0.06, 0.02, 0.006), "rbf": (0.6, 0.2, 0.06)}
FIRST_STRENGTH = {"linear": 0.2, "rbf": 0.06}
# The search in one direction ends where the log loss has risen by this factor.
WORSE = 1.04
# Log losses within this factor of the lowest differ by noise alone.
NEAR = 1.03
# An RBF head is larger: its log loss must be lower by this factor.
RBF_COST = 1.005
# The same of the last feature mean alone: where it is as good by chance, more stages are mostly
# better.
LAST_COST = 1.02
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Candidate:
    """A head that cross-validation tried.

    Parameters
    ----------
    kind : str
        ``"linear"``, ``"rbf"``, or ``"mean"``: the mean of several heads' logits.
    features : str
        ``"all"``, ``"no-profiles"`` (without means over rows and columns), ``"early"`` (early
        stages weighted up) or ``"last"`` (the last mean alone).
    l2_strength : float
        Times the number of images.
    gamma : float
        Inverse squared width of the RBF kernel; 0 for a linear head.
    accuracy : float
        Of the out-of-fold predictions, 0-1.
    log_loss : float
        Of the out-of-fold predictions after temperature scaling, in nats.
    temperature : float
        Fitted to them.
    network : str
        Of several backbones, the one whose features alone are used; empty for all.
    heads : tuple of Candidate
        The heads of a mean; `features`, `l2_strength` and `gamma` are theirs.
    """

    kind: Kind
    features: str
    l2_strength: float
    gamma: float
    accuracy: float
    log_loss: float
    temperature: float
    network: str = ""
    heads: tuple[Candidate, ...] = ()

    def describe(self) -> str:
        """Return kind, features and L2 strength in a line."""
        if self.heads:
            return f"mean of {' and '.join(head.describe() for head in self.heads)}"
        features = {
            "all": "features of all stages",
            "no-profiles": "features of all stages without rows and columns",
            "early": "features of all stages, early ones weighted up",
            "last": "features of the last stage",
        }[self.features]
        kind = f"RBF head (gamma {self.gamma:g})" if self.kind == "rbf" else "linear head"
        backbone = f" of {self.network}" if self.network else ""
        return f"{kind}, {features}{backbone}, L2 strength {self.l2_strength:g}"

    def summarize(self) -> str:
        """Return kind and L2 strength, for the terminal; the report has the rest."""
        if self.heads:
            return f"mean of {' and '.join(head.summarize() for head in self.heads)}"
        backbone = f" of {self.network}" if self.network else ""
        kind = "RBF" if self.kind == "rbf" else "linear"
        return f"{kind}{backbone} (L2 strength {self.l2_strength:g})"


@dataclass(frozen=True)
class CrossValidation:
    """What all candidates share.

    Parameters
    ----------
    targets : array
        int64 (images,): class indices.
    classes : int
        Number of classes.
    folds : array
        int64 (images,): the fold in which each image is held out.
    weights : array
        float32 (images,): sample weights.
    """

    targets: NDArray[np.int64]
    classes: int
    folds: NDArray[np.int64]
    weights: Floats

    def fit(self, columns: Floats, l2_strength: float) -> Floats:
        """Return each image's logits from the fit on the other folds, (images, classes)."""
        count = int(self.folds.max()) + 1
        weights = np.stack([np.where(self.folds == fold, 0, self.weights) for fold in range(count)])
        fit: SoftmaxFit = fit_softmax(
            columns, self.targets, self.classes, weights, l2_strength / len(columns),
            tolerance=TOLERANCE,
        )  # fmt: skip
        logits = np.empty((len(columns), self.classes), np.float32)
        for fold in range(count):
            held_out = self.folds == fold
            logits[held_out] = fit.logits(columns[held_out], fold)
        return logits

    def try_candidate(
        self, columns: Floats, kind: Kind, features: str, l2_strength: float
    ) -> Candidate:
        """Fit a candidate on every fold and score its out-of-fold predictions."""
        gamma = GAMMA if kind == "rbf" else 0.0
        return self.score(self.fit(columns, l2_strength), kind, features, l2_strength, gamma)

    def score(
        self, logits: Floats, kind: Kind, features: str, l2_strength: float, gamma: float
    ) -> Candidate:
        """Fit a temperature to out-of-fold logits and score them."""
        temperature = fit_temperature(logits, self.targets)
        probabilities = to_probabilities(logits, temperature)
        picked = probabilities[np.arange(len(logits)), self.targets].astype(np.float64)
        correct = logits.argmax(1) == self.targets
        total = self.weights.sum()
        return Candidate(
            kind,
            features,
            l2_strength,
            gamma,
            float((correct * self.weights).sum() / total),
            float(-(np.log(np.maximum(picked, 1e-12)) * self.weights).sum() / total),
            temperature,
        )


def search_strengths(task: CrossValidation, columns: Floats, first: Candidate) -> list[Candidate]:
    """Try L2 strengths to either side of the first one while the log loss does not rise."""
    strengths = STRENGTHS[first.kind]
    index = strengths.index(first.l2_strength)
    found: list[Candidate] = []
    for path in (strengths[index + 1 :], strengths[:index][::-1]):
        best = first.log_loss
        for strength in path:
            found.append(task.try_candidate(columns, first.kind, first.features, strength))
            if found[-1].log_loss > WORSE * best:
                break
            best = min(best, found[-1].log_loss)
        if best < first.log_loss:  # the other direction can only be worse
            break
    return found


def selection_cost(candidate: Candidate) -> float:
    """Return the log loss, raised for the kinds that are more often chosen by chance."""
    cost = candidate.log_loss
    if candidate.kind == "rbf":
        cost *= RBF_COST
    return cost * LAST_COST if candidate.features == "last" else cost


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """Return the candidate with the lowest cost, at the lowest L2 strength that is nearly as good.

    The folds train on four fifths of the images, and log loss punishes overconfidence, which
    temperature scaling corrects later: on every dataset measured, somewhat weaker regularisation
    than the lowest log loss suggests has a higher accuracy.
    """
    best = min(candidates, key=selection_cost)
    near = [
        item
        for item in candidates
        if (item.kind, item.features, item.network) == (best.kind, best.features, best.network)
        and item.log_loss <= NEAR * best.log_loss
    ]
    return min(near, key=lambda item: item.l2_strength)
