"""Candidates for the head: what cross-validation tries, and how it compares them.

All folds of a candidate are solved at once (:mod:`.softmax`). What decides is the log loss of the
out-of-fold answers after a temperature has been fitted to them, which says more with few images
than counts of right answers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.training.frozen.softmax import SoftmaxFit, fit_softmax

__all__ = [
    "FIRST_STRENGTHS",
    "GAMMA",
    "STRENGTHS",
    "Candidate",
    "Task",
    "answers_of",
    "best_candidate",
    "cost_of",
    "try_candidate",
    "walk_strengths",
]

Floats = NDArray[np.float32]
Kind = Literal["linear", "rbf", "mean"]

# Inverse squared width of the kernel, on components whose mean square norm is 1.
GAMMA = 0.7
# Strengths times the number of training images: the scale on which the best ones agree. The
# features are compared at the first one; from there the path goes to both sides.
STRENGTHS = {
    "linear": (2.0, 0.6, 0.2, 0.06, 0.02, 0.006),
    "rbf": (0.6, 0.2, 0.06),
}
FIRST_STRENGTHS = {"linear": 0.2, "rbf": 0.06}
# A path is left where the log loss has risen by this factor.
WORSE = 1.04
# Log losses closer than this factor are told apart by nothing but luck.
NEAR = 1.03
# A curved head is larger: it must be better by more than this factor.
CURVED_COST = 1.005
# So must the last mean alone: where it is as good by chance, more depths are right more often.
LAST_COST = 1.02
CHOICE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Candidate:
    """One head that cross-validation tried.

    Parameters
    ----------
    kind : str
        ``"linear"``, ``"rbf"``, or ``"mean"``: the mean of several heads' logits.
    blocks : str
        Which features: ``"all"``, ``"places"`` (those of rows and columns left out), ``"early"``
        (early stages weighted up) or ``"last"``.
    strength : float
        Of the regularisation, times the number of images.
    gamma : float
        Inverse squared width of the kernel; 0 for a linear head.
    accuracy : float
        Share of out-of-fold answers that are right.
    log_loss : float
        Their mean log loss after the temperature, in nats.
    temperature : float
        Fitted to them.
    network : str
        Of several backbones side by side, the one whose features alone are used; empty for all,
        and where there is one.
    heads : tuple of Candidate
        Of a mean, what it is the mean of; `blocks`, `strength` and `gamma` are theirs.
    """

    kind: Kind
    blocks: str
    strength: float
    gamma: float
    accuracy: float
    log_loss: float
    temperature: float
    network: str = ""
    heads: tuple[Candidate, ...] = ()

    def describe(self) -> str:
        """Say it in words."""
        if self.heads:
            return f"the mean of {' and '.join(head.describe() for head in self.heads)}"
        features = {
            "all": "all stages",
            "places": "all stages without rows and columns",
            "early": "early stages weighted up",
            "last": "last mean",
        }
        form = f"curved (gamma {self.gamma:g})" if self.kind == "rbf" else "linear"
        of = f" of {self.network}" if self.network else ""
        return f"{form}, {features[self.blocks]}{of}, strength {self.strength:g}"


@dataclass(frozen=True)
class Task:
    """What stays the same over all candidates."""

    targets: NDArray[np.int64]
    classes: int
    folds: NDArray[np.int64]
    weights: Floats

    @property
    def fold_weights(self) -> Floats:
        """How much each image counts in the fit that leaves each fold out."""
        count = int(self.folds.max()) + 1
        return np.stack([np.where(self.folds == fold, 0, self.weights) for fold in range(count)])

    def out_of_fold(self, columns: Floats, fit: SoftmaxFit) -> Floats:
        """Return each image's logits from the fit that did not see it."""
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


def cost_of(candidate: Candidate) -> float:
    """Return what candidates are compared by: the log loss, and more where luck is likelier."""
    cost = candidate.log_loss
    if candidate.kind == "rbf":
        cost *= CURVED_COST
    return cost * LAST_COST if candidate.blocks == "last" else cost


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """Return the least regularised of those that are the best one but for their strength.

    The folds learn from four fifths of the images, and log loss punishes being too sure, which
    the temperature mends afterwards: on every set measured, somewhat weaker regularisation than
    the least log loss asks for answers more images right.
    """
    best = min(candidates, key=cost_of)
    near = [
        item
        for item in candidates
        if (item.kind, item.blocks, item.network) == (best.kind, best.blocks, best.network)
        and item.log_loss <= NEAR * best.log_loss
    ]
    return min(near, key=lambda item: item.strength)


def try_candidate(
    task: Task, columns: Floats, kind: Kind, blocks: str, strength: float
) -> Candidate:
    """Fit one candidate on every fold and score what it says of the images held out."""
    fit = fit_softmax(
        columns,
        task.targets,
        task.classes,
        task.fold_weights,
        strength / len(columns),
        tolerance=CHOICE_TOLERANCE,
    )
    gamma = GAMMA if kind == "rbf" else 0.0
    return task.score(task.out_of_fold(columns, fit), kind, blocks, strength, gamma)


def answers_of(task: Task, columns: Floats, candidate: Candidate) -> Floats:
    """Return what a candidate says of the images held out: logits over its temperature."""
    strength = candidate.strength / len(columns)
    fit = fit_softmax(
        columns, task.targets, task.classes, task.fold_weights, strength,
        tolerance=CHOICE_TOLERANCE,
    )  # fmt: skip
    return task.out_of_fold(columns, fit) / np.float32(candidate.temperature)


def walk_strengths(
    task: Task,
    columns: Floats,
    kind: Kind,
    blocks: str,
    first: Candidate,
) -> list[Candidate]:
    """Try strengths to either side of the first one for as long as the log loss does not rise."""
    strengths = STRENGTHS[kind]
    place = strengths.index(first.strength)
    found: list[Candidate] = []
    for path in (strengths[place + 1 :], strengths[:place][::-1]):
        best = first.log_loss
        for strength in path:
            found.append(try_candidate(task, columns, kind, blocks, strength))
            if found[-1].log_loss > WORSE * best:
                break
            best = min(best, found[-1].log_loss)
        # Where one side is better, the other side need not be looked at.
        if best < first.log_loss:
            break
    return found
