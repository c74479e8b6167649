"""From probabilities and targets to an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.scores import ClassScores, Evaluation, wilson_interval

__all__ = [
    "BINS",
    "LOG_EPSILON",
    "ClassScores",
    "Evaluation",
    "Reliability",
    "confusion",
    "evaluate",
    "expected_calibration_error",
    "reliability",
    "wilson_interval",
]

BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""

LOG_EPSILON = 1e-15
"""A label's probability counts as at least this in the log loss, so 34.54 nats at worst."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often a classifier is right at each level of its confidence.

    Attributes
    ----------
    edges : float64 array (bins + 1,)
        A bin holds the confidences above its lower edge, up to and with its upper edge.
    count : int64 array (bins,)
        Pictures in the bin.
    confidence : float64 array (bins,)
        Their mean top probability; NaN in an empty bin.
    accuracy : float64 array (bins,)
        The share of them that is right; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence|, weighed by count."""
        filled = self.count > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.count[filled]))


def evaluate(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> Evaluation:
    """Score probabilities against the labels.

    Parameters
    ----------
    probabilities : float array (n, k)
        Rows sum to 1. The prediction is the most probable class, the first of equals.
    targets : int array (n,)
        The label of each picture as its place in `classes`. Pictures of a class that the
        classifier does not know must be left out before.
    classes : sequence of str
        The k class names, each once.

    Returns
    -------
    Evaluation
        Classes without pictures are left out of balanced accuracy and macro F1; the
        undefined scores of a single class are NaN (see :class:`ClassScores`).

    Raises
    ------
    UsageError
        If there is no picture, shapes differ, a target is out of range, or a row is no
        probability distribution.
    """
    if len(set(classes)) != len(classes):
        raise UsageError(f"classes must be named once each. Received: {list(classes)}")
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise UsageError(
            f"probabilities must have one column for each of the {len(classes)} classes. "
            f"Received: shape {probabilities.shape}"
        )
    table = reliability(probabilities, targets)
    predicted = probabilities.argmax(axis=1)
    of_label = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return Evaluation.from_confusion(
        confusion(targets, predicted, len(classes)),
        tuple(classes),
        log_loss=float(-np.log(np.clip(of_label, LOG_EPSILON, 1.0)).mean()),
        ece=table.ece,
    )


def confusion(
    targets: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Count pictures by label and prediction.

    Parameters
    ----------
    targets, predicted : int array (n,)
        Both in 0 to `classes` - 1.
    classes : int
        How many classes there are.

    Returns
    -------
    int64 array (classes, classes)
        Rows are labels, columns predictions.

    Raises
    ------
    UsageError
        If the lengths differ or a value is out of range.
    """
    for name, values in (("targets", targets), ("predicted", predicted)):
        _check_range(name, values, classes)
    if targets.shape != predicted.shape:
        raise UsageError(
            "targets and predicted must have the same length. "
            f"Received: {targets.shape} and {predicted.shape}"
        )
    cells = targets.astype(np.int64) * classes + predicted.astype(np.int64)
    counts = np.bincount(cells, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def reliability(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    bins: int = BINS,
) -> Reliability:
    """Group pictures by top confidence and say how often each group is right.

    Parameters
    ----------
    probabilities : float array (n, k)
        Rows sum to 1.
    targets : int array (n,)
        In 0 to k - 1.
    bins : int
        How many bins of equal width divide 0-1, at least 1.

    Returns
    -------
    Reliability

    Raises
    ------
    UsageError
        As :func:`evaluate`.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017, arXiv:1706.04599.
    """
    if bins < 1:
        raise UsageError(f"bins must be at least 1. Received: {bins}")
    _check_probabilities(probabilities, targets)
    edges = np.linspace(0.0, 1.0, bins + 1)
    top = np.clip(probabilities.max(axis=1).astype(np.float64), 0.0, 1.0)
    right = (probabilities.argmax(axis=1) == targets).astype(np.float64)
    place = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, weights=top, minlength=bins) / count
        accuracy = np.bincount(place, weights=right, minlength=bins) / count
    return Reliability(edges.astype(np.float64), count, confidence, accuracy)


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    bins: int = BINS,
) -> float:
    """Give the mean distance between confidence and accuracy, 0-1; see :func:`reliability`."""
    return reliability(probabilities, targets, bins).ece


def _check_probabilities(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> None:
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise UsageError(
            "probabilities must be (n, k) and targets (n,). "
            f"Received: {probabilities.shape} and {targets.shape}"
        )
    if 0 in probabilities.shape:
        raise UsageError("an evaluation needs at least one labelled picture. Received: none")
    _check_range("targets", targets, probabilities.shape[1])
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # a NaN fails both comparisons, so it is caught here as well
    if not (probabilities.min() >= 0.0 and np.abs(sums - 1.0).max() <= _SUM_TOLERANCE):
        raise UsageError(
            f"each row of probabilities must be between 0 and 1 and sum to 1. Received: sums from "
            f"{sums.min():.4g} to {sums.max():.4g}, smallest value {probabilities.min():.4g}"
        )


def _check_range(name: str, values: NDArray[np.integer[Any]], classes: int) -> None:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise UsageError(
            f"{name} must be one row of whole numbers. "
            f"Received: shape {values.shape}, dtype {values.dtype}"
        )
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise UsageError(
            f"{name} must be places in the {classes} classes, 0 to {classes - 1}. "
            f"Received: {values.min()} to {values.max()}"
        )
