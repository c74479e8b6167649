"""L2-regularised softmax regression: several problems on the same images, solved together.

The problems (the folds of a cross-validation) share the features and differ in their sample
weights, so that each step is one matrix product for all of them. The columns of the features must
be nearly uncorrelated (principal components, or kernel components): the quadratic bound of the
softmax's curvature (D. Böhning, "Multinomial logistic regression algorithm", 1992) is then nearly
diagonal, and scaling by it lets L-BFGS converge in a few dozen steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.threads import count_cores, map_ordered
from kindsight.training.frozen.column_store import ColumnFile, Columns

__all__ = [
    "FIRST_STRENGTH",
    "GAMMA",
    "Candidate",
    "CrossValidation",
    "SoftmaxFit",
    "best_candidate",
    "blocks_of",
    "fit_softmax",
    "search_strengths",
    "selection_cost",
]

Floats = NDArray[np.float32]
BLOCK_IMAGES = 8192
"""Images per block; twice as many as select a head, so that the selection has a single block."""

FILE_BLOCK = 32_000_000
"""Bytes of a thread's images, logits and gradients if columns are read from a file."""
FEWEST_BLOCK_IMAGES = 256
# Blocks per thread whose gradients may wait for earlier ones, since sums have a fixed order.
AHEAD = 2

HISTORY = 8
BACKTRACKS = 20
# The intercept is not regularised; this makes its curvature comparable with the other columns'.
INTERCEPT_SCALE = np.float32(2.0)
Kind = Literal["linear", "rbf", "mean"]
# Inverse squared width of the RBF kernel, on components whose mean square norm is 1.
GAMMA = 0.7
# L2 strengths times the number of training images; on that scale, the best values of different
# datasets agree. Feature sets are compared at FIRST_STRENGTH; the search goes to both sides of it.
STRENGTHS = {"linear": (2.0, 0.6, 0.2, 0.06, 0.02, 0.006), "rbf": (0.6, 0.2, 0.06)}
FIRST_STRENGTH = {"linear": 0.2, "rbf": 0.06}
# The search in one direction ends where the log loss has risen by this factor.
WORSE = 1.04
# Log losses within this factor of the lowest differ only by noise.
NEAR = 1.03
# An RBF head is larger, so its log loss must be lower by this factor.
RBF_COST = 1.005
# The same for the last feature mean alone: if it is as good by chance, more stages are usually
# better.
LAST_COST = 1.02
TOLERANCE = 1e-3


@dataclass(frozen=True)
class SoftmaxFit:
    """The solution of each problem.

    Parameters
    ----------
    kernel : array
        float32 (problems, columns, classes).
    bias : array
        float32 (problems, classes).
    passes : int
        Number of passes over all images.
    """

    kernel: Floats
    bias: Floats
    passes: int

    def logits(self, features: Floats, problem: int = 0) -> Floats:
        """Return float32 (images, classes) for features float32 (images, columns)."""
        result: Floats = features @ self.kernel[problem] + self.bias[problem]
        return result


class _Problem:
    """The loss and gradient of every problem, in scaled coordinates.

    Images are processed in blocks, so that memory does not grow with images times classes.
    Several blocks are computed at once, each on one thread.
    """

    def __init__(
        self,
        features: Columns,
        targets: NDArray[np.int64],
        classes: int,
        weights: Floats,
        l2_strength: float,
    ) -> None:
        self.features, self.passes = features, 1
        self.count, self.columns = features.shape
        self.problems, self.classes = len(weights), classes
        self.l2_strength = np.float32(l2_strength)
        self.weights = weights / weights.sum(1, keepdims=True)
        self.targets = targets
        self.blocks = blocks_of(features, self.problems * classes)
        if isinstance(features, np.ndarray) and len(self.blocks) == 1:
            spread = np.square(features.astype(np.float32, copy=False)).mean(0)
        else:
            sums = sum(
                np.square(features[block].astype(np.float32, copy=False)).sum(0, dtype=np.float64)
                for block in self.blocks
            )
            spread = np.asarray(sums / self.count, np.float32)
        self.scale = (1.0 / np.sqrt(0.25 * spread + l2_strength)).astype(np.float32)

    def split(self, point: Floats) -> tuple[Floats, Floats]:
        """Return the kernels and intercepts of points (problems, size)."""
        kernel = point[:, : -self.classes].reshape(self.problems, self.columns, self.classes)
        return kernel * self.scale[:, None], point[:, -self.classes :] * INTERCEPT_SCALE

    def point(self, kernel: Floats, bias: Floats) -> Floats:
        """Return the point (problems, size) of kernels and intercepts."""
        flat = (kernel / self.scale[:, None]).reshape(self.problems, -1)
        return np.concatenate([flat, bias / INTERCEPT_SCALE], axis=1)

    def __call__(self, point: Floats) -> tuple[NDArray[np.float64], Floats]:
        """Return the loss (problems,) and its gradient (problems, size) at `point`."""
        self.passes += 1
        kernel, bias = self.split(point)
        flat = kernel.transpose(1, 0, 2).reshape(self.columns, -1)

        def compute(block: slice) -> tuple[NDArray[np.float64], Floats, Floats]:
            return self._compute(block, flat, bias)

        threads = min(len(self.blocks), count_cores())
        parts = iter(
            map_ordered(compute, self.blocks, threads, AHEAD)
            if threads > 1
            else map(compute, self.blocks)
        )
        loss, products, slopes = next(parts)
        for more in parts:
            loss, products, slopes = loss + more[0], products + more[1], slopes + more[2]
        loss = loss + 0.5 * self.l2_strength * np.square(kernel).sum((1, 2), dtype=np.float64)
        gradient = products.reshape(self.columns, self.problems, self.classes)
        gradient = (gradient.transpose(1, 0, 2) + self.l2_strength * kernel) * self.scale[:, None]
        intercepts = slopes * INTERCEPT_SCALE
        return loss, np.concatenate([gradient.reshape(self.problems, -1), intercepts], axis=1)

    def _compute(
        self, block: slice, flat: Floats, bias: Floats
    ) -> tuple[NDArray[np.float64], Floats, Floats]:
        """Return the loss of some images, and its gradient for the kernels and the intercepts."""
        features = self.features[block].astype(np.float32, copy=False)
        weights = self.weights[:, block].T
        count, targets = len(features), self.targets[block, None]
        problems, images = np.arange(self.problems), np.arange(count)[:, None]
        logits = (features @ flat).reshape(count, self.problems, self.classes)
        logits += bias
        logits -= logits.max(-1, keepdims=True)
        picked = logits[images, problems, targets]
        slope = np.exp(logits, out=logits)
        totals = slope.sum(-1, keepdims=True)
        picked = picked - np.log(totals[..., 0])
        loss = -(picked * weights).sum(0, dtype=np.float64)
        slope /= totals
        slope[images, problems, targets] -= 1
        slope *= weights[:, :, None]
        return loss, features.T @ slope.reshape(count, -1), slope.sum(0)


def blocks_of(columns: Columns, outputs: int) -> list[slice]:
    """Return the blocks in which images are processed, whatever the number of threads.

    - `outputs`: number of logits per image.
    """
    rows = BLOCK_IMAGES
    if isinstance(columns, ColumnFile):
        each = 4 * (columns.shape[1] + 2 * outputs)
        rows = max(FEWEST_BLOCK_IMAGES, min(BLOCK_IMAGES, FILE_BLOCK // each))
    return [slice(at, min(at + rows, len(columns))) for at in range(0, len(columns), rows)]


def fit_softmax(
    features: Columns,
    targets: NDArray[np.int64],
    classes: int,
    weights: Floats,
    l2_strength: float,
    start: SoftmaxFit | None = None,
    steps: int = 200,
    tolerance: float = 1e-4,
    report: Callable[[float], None] | None = None,
) -> SoftmaxFit:
    """Minimise, for each problem, the weighted mean log loss plus l2_strength / 2 · ‖kernel‖².

    Parameters
    ----------
    features : array or ColumnFile
        float32 or float16 (images, columns); columns nearly uncorrelated, see above.
    targets : array
        int64 (images,): class indices.
    classes : int
        Number of classes, at least 2.
    weights : array
        float32 (problems, images), not negative: sample weights in each problem.
    l2_strength : float
        Above 0.
    start : SoftmaxFit, optional
        The fit of a similar problem of the same shape.
    steps : int
        Maximum number of steps.
    tolerance : float
        Norm of the scaled gradient below which a problem is solved.
    report : callable, optional
        Called with the fraction done, 0-1, on the scale of the logarithm of the gradient's norm.
    """
    # Blocks are computed in parallel, so each product uses one thread.
    several = len(features) > BLOCK_IMAGES or isinstance(features, ColumnFile)
    with threadpool_limits(1, user_api="blas") if several else contextlib.nullcontext():
        problem = _Problem(features, targets, classes, weights, l2_strength)
        return _minimise(problem, start, steps, tolerance, report)


def _minimise(
    problem: _Problem,
    start: SoftmaxFit | None,
    steps: int,
    tolerance: float,
    report: Callable[[float], None] | None,
) -> SoftmaxFit:
    """Minimise by L-BFGS."""
    size = (problem.columns + 1) * problem.classes
    point = np.zeros((problem.problems, size), np.float32)
    if start is not None:
        point = problem.point(start.kernel, start.bias)
    loss, gradient = problem(point)
    history: list[tuple[Any, Any, Any]] = []
    done, first = 0.0, 0.0
    for _ in range(steps):
        norm = float(np.sqrt(np.square(gradient).sum(1)).max())
        if norm < tolerance:
            break
        first = first or norm
        if report is not None:
            done = max(done, math.log(first / norm) / math.log(max(first / tolerance, 2.0)))
            report(done)
        direction = _direction(gradient, history)
        following, next_loss, next_gradient = _search(problem, point, loss, gradient, direction)
        moved, turned = following - point, next_gradient - gradient
        if not moved.any():
            break
        products = (moved * turned).sum(1)
        safe = np.where(products > 1e-12, products, np.inf).astype(np.float32)
        history = [*history, (moved, turned, 1.0 / safe)][-HISTORY:]
        point, loss, gradient = following, next_loss, next_gradient
    kernel, bias = problem.split(point)
    return SoftmaxFit(kernel, bias, problem.passes)


def _direction(gradient: Floats, history: list[tuple[Any, Any, Any]]) -> Floats:
    """Return each problem's L-BFGS direction (Nocedal and Wright, algorithm 7.4)."""
    result = gradient.copy()
    factors = []
    for moved, turned, inverse in reversed(history):
        factor = inverse * (moved * result).sum(1)
        result -= factor[:, None] * turned
        factors.append(factor)
    if history:
        moved, turned, inverse = history[-1]
        norms = np.maximum(np.square(turned).sum(1), 1e-30)
        products = (moved * turned).sum(1)
        result *= np.where(products > 0, products / norms, 1.0)[:, None].astype(np.float32)
    for (moved, turned, inverse), factor in zip(history, reversed(factors), strict=True):
        result += (factor - inverse * (turned * result).sum(1))[:, None] * moved
    uphill = (result * gradient).sum(1) <= 0
    result[uphill] = gradient[uphill]
    negative: Floats = -result
    return negative


def _search(
    problem: _Problem, point: Floats, loss: NDArray[np.float64], gradient: Floats, direction: Floats
) -> tuple[Floats, NDArray[np.float64], Floats]:
    """Backtrack each problem until its loss falls enough (Armijo's rule)."""
    slope = (direction * gradient).sum(1)
    length: Floats = np.ones(len(point), np.float32)
    # In float32, the relative precision of the loss is about 1e-7.
    slack = 1e-6 * np.maximum(np.abs(loss), 1e-3)
    for _ in range(BACKTRACKS):
        following = point + length[:, None] * direction
        next_loss, next_gradient = problem(following)
        enough = next_loss <= loss + 1e-4 * length * slope + slack
        if enough.all():
            break
        length = np.where(enough, length, 0.4 * length).astype(np.float32)
    return following, next_loss, next_gradient


@dataclass(frozen=True)
class Candidate:
    """A head evaluated by cross-validation.

    Parameters
    ----------
    kind : str
        ``"linear"``, ``"rbf"``, or ``"mean"``: the mean of several heads' logits.
    features : str
        ``"all"``, ``"no-profiles"`` (without means over rows and columns), ``"early"`` (early
        stages weighted up) or ``"last"`` (the last mean alone).
    l2_strength : float
        L2 strength times the number of images.
    gamma : float
        Inverse squared width of the RBF kernel; 0 for a linear head.
    accuracy : float
        Accuracy of the out-of-fold predictions, 0-1.
    log_loss : float
        Log loss of the out-of-fold predictions after temperature scaling, in nats.
    temperature : float
        Temperature fitted to these predictions.
    network : str
        With several backbones, the only one whose features are used; empty for all.
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
    """The data that all candidates share.

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
    fitted : callable
        Called after each fit.
    """

    targets: NDArray[np.int64]
    classes: int
    folds: NDArray[np.int64]
    weights: Floats
    fitted: Callable[[], None] = lambda: None

    def fit(self, columns: Floats, l2_strength: float) -> Floats:
        """Return each image's logits from the fit on the other folds, (images, classes)."""
        return self.held_out_logits(columns, self.fit_folds(columns, l2_strength))

    def fit_folds(
        self,
        columns: Columns,
        l2_strength: float,
        start: SoftmaxFit | None = None,
        report: Callable[[float], None] | None = None,
    ) -> SoftmaxFit:
        """Return the fits without each fold, one problem per fold.

        `report` is that of :func:`fit_softmax`.
        """
        count = int(self.folds.max()) + 1
        weights = np.stack([np.where(self.folds == fold, 0, self.weights) for fold in range(count)])
        return fit_softmax(
            columns, self.targets, self.classes, weights, l2_strength / len(columns), start,
            tolerance=TOLERANCE, report=report,
        )  # fmt: skip

    def held_out_logits(self, columns: Columns, fit: SoftmaxFit) -> Floats:
        """Return each image's logits from the fit without its fold, (images, classes)."""
        logits = np.empty((len(columns), self.classes), np.float32)

        def compute(block: slice) -> None:
            some, folds = columns[block], self.folds[block]
            for fold in range(len(fit.kernel)):
                held_out = folds == fold
                found = some[held_out].astype(np.float32, copy=False)
                logits[block][held_out] = fit.logits(found, fold)

        if isinstance(columns, ColumnFile):
            with threadpool_limits(1, user_api="blas"):
                for _ in map_ordered(compute, blocks_of(columns, self.classes), count_cores()):
                    pass
        else:
            compute(slice(None))
        self.fitted()
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
    """Return the log loss, increased for the kinds that are more often chosen by chance."""
    cost = candidate.log_loss
    if candidate.kind == "rbf":
        cost *= RBF_COST
    return cost * LAST_COST if candidate.features == "last" else cost


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """Return the candidate with the lowest cost, at the lowest L2 strength that is nearly as good.

    The folds train on four fifths of the images, and log loss punishes overconfidence, which
    temperature scaling corrects later. On every measured dataset, a somewhat weaker regularisation
    than that of the lowest log loss gives a higher accuracy.
    """
    best = min(candidates, key=selection_cost)
    near = [
        item
        for item in candidates
        if (item.kind, item.features, item.network) == (best.kind, best.features, best.network)
        and item.log_loss <= NEAR * best.log_loss
    ]
    return min(near, key=lambda item: item.l2_strength)
