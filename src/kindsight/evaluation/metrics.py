"""Metrics of a classifier: accuracy, per-class scores, confusion matrix, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = [
    "BINS",
    "LOG_EPSILON",
    "ClassScores",
    "Evaluation",
    "Reliability",
    "confusion",
    "distinct_images",
    "evaluate",
    "expected_calibration_error",
    "reliability",
    "wilson_interval",
]

BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""

LOG_EPSILON = 1e-15
"""Lower bound of a probability in the log loss, so that an image costs 34.54 nats at most."""

_SUM_TOLERANCE = 1e-3

_KEYS = (
    "images", "accuracy", "accuracy_interval", "balanced_accuracy", "macro_f1", "log_loss", "ece",
    "classes", "confusion",
)  # fmt: skip


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class.

    Attributes
    ----------
    name : str
    precision : float
        Correct among the images predicted as this class; NaN if there are none.
    recall : float
        Correct among the images of this class; NaN if there are none.
    f1 : float
        2 tp / (2 tp + fp + fn); NaN if the class has neither images nor predictions.
    support : int
        Images of this class.
    recall_interval : tuple of float
        95% Wilson interval of the recall; (0, 1) without images.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    recall_interval: tuple[float, float]

    @classmethod
    def from_counts(cls, name: str, correct: int, support: int, predicted: int) -> ClassScores:
        """Compute the scores from the numbers of correct, labelled and predicted images."""
        return cls(
            name=name,
            precision=correct / predicted if predicted else math.nan,
            recall=correct / support if support else math.nan,
            f1=2 * correct / (support + predicted) if support + predicted else math.nan,
            support=support,
            recall_interval=wilson_interval(correct, support),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return name, precision, recall, f1 and support, ready for JSON (NaN becomes None)."""
        return {
            "name": self.name, "precision": _number(self.precision), "recall": _number(self.recall),
            "f1": _number(self.f1), "support": self.support,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of a classifier on labelled images.

    Attributes
    ----------
    images : int
    accuracy : float
        Fraction of images whose most probable class is the label, 0-1.
    accuracy_interval : tuple of float
        Its 95% Wilson interval.
    balanced_accuracy : float
        Mean recall over the classes that have images.
    macro_f1 : float
        Mean F1 over the classes that have images. (scikit-learn also counts a class that was
        predicted without having images, as 0; here such an error counts once, in the recall of
        the image's own class.)
    log_loss : float
        Mean of -ln p(label), in nats, p clipped below at ``metrics.LOG_EPSILON``.
    ece : float
        Expected calibration error over 15 equal bins of the top confidence, 0-1.
    classes : tuple of ClassScores
        In the classifier's order.
    confusion : int64 array (k, k)
        Images by label (row) and prediction (column).
    copies : int
        Byte-identical copies of these images that were left out of all metrics.
    """

    images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    classes: tuple[ClassScores, ...]
    confusion: NDArray[np.int64]
    copies: int = 0

    @classmethod
    def from_confusion(
        cls,
        table: NDArray[np.int64],
        names: tuple[str, ...],
        *,
        log_loss: float,
        ece: float,
        copies: int = 0,
    ) -> Evaluation:
        """Compute everything that follows from the confusion matrix."""
        images, correct = int(table.sum()), int(np.trace(table))
        columns = table.sum(axis=0)
        scores = tuple(
            ClassScores.from_counts(name, int(table[i, i]), int(table[i].sum()), int(columns[i]))
            for i, name in enumerate(names)
        )
        present = [score for score in scores if score.support]
        return cls(
            images=images,
            accuracy=correct / images,
            accuracy_interval=wilson_interval(correct, images),
            balanced_accuracy=math.fsum(score.recall for score in present) / len(present),
            macro_f1=math.fsum(score.f1 for score in present) / len(present),
            log_loss=log_loss,
            ece=ece,
            classes=scores,
            confusion=table,
            copies=copies,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the recalls' intervals, ready for JSON (NaN becomes None)."""
        return {
            "images": self.images,
            "copies": self.copies,
            "accuracy": _number(self.accuracy),
            "accuracy_interval": [_number(end) for end in self.accuracy_interval],
            "balanced_accuracy": _number(self.balanced_accuracy),
            "macro_f1": _number(self.macro_f1),
            "log_loss": _number(self.log_loss),
            "ece": _number(self.ece),
            "classes": [score.to_dict() for score in self.classes],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of a dict from :meth:`to_dict`.

        Scores are computed from the confusion matrix again, so that they cannot contradict it.

        Raises `UsageError` if a key is missing or a value is invalid.
        """
        missing = [key for key in _KEYS if key not in data]
        if missing:
            raise UsageError(f"An evaluation must have the keys {_KEYS}; missing: {missing}.")
        try:
            names = tuple(str(score["name"]) for score in data["classes"])
            table = np.array(data["confusion"])
            log_loss, ece = (
                math.nan if data[key] is None else float(data[key]) for key in ("log_loss", "ece")
            )
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise UsageError(f"The evaluation is not as to_dict() returns it: {error}") from error
        shape = (len(names), len(names))
        if table.dtype.kind != "i" or table.shape != shape or table.min(initial=0) < 0:
            raise UsageError(
                f"confusion must be counts of the shape {shape}; "
                f"got shape {table.shape}, dtype {table.dtype}."
            )
        if table.sum() < 1 or table.sum() != data["images"]:
            raise UsageError(
                "images must be the sum of the confusion matrix, and at least 1; "
                f"got {data['images']!r} and a sum of {table.sum()}."
            )
        copies = data.get("copies", 0)
        if not isinstance(copies, int) or copies < 0:
            raise UsageError(f"copies must be a number of images; got {copies!r}.")
        return cls.from_confusion(
            table.astype(np.int64), names, log_loss=log_loss, ece=ece, copies=copies
        )


@dataclass(frozen=True, eq=False)
class Reliability:
    """The accuracy of a classifier at each level of confidence.

    Attributes
    ----------
    edges : float64 array (bins + 1,)
        A bin has the confidences above its lower edge, up to and including its upper edge.
    count : int64 array (bins,)
        Images in the bin.
    confidence : float64 array (bins,)
        Their mean top probability; NaN in an empty bin.
    accuracy : float64 array (bins,)
        Their accuracy; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence|, weighted by count."""
        filled = self.count > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.count[filled]))


def evaluate(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    classes: Sequence[str],
    digests: Sequence[str | None] | None = None,
) -> Evaluation:
    """Return the metrics of probabilities for labelled images.

    Parameters
    ----------
    probabilities : float array (n, k)
        Rows sum to 1. The prediction is the most probable class, the first of equals.
    targets : int array (n,)
        Class indices. Leave out images of classes that the classifier does not know.
    classes : sequence of str
        The k class names, without duplicates.
    digests : sequence of str or None, optional
        Content digests of the n images: byte-identical ones of one class count once.

    Raises
    ------
    UsageError
        If there is no image, a shape does not fit, a target is out of range, or a row is no
        probability distribution.
    """
    if len(set(classes)) != len(classes):
        raise UsageError(f"`classes` must not have duplicates; got {list(classes)}.")
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise UsageError(
            f"`probabilities` must have a column for each of the {len(classes)} classes; "
            f"got shape {probabilities.shape}."
        )
    copies = 0
    if digests is not None:
        counted = distinct_images(digests, targets)
        copies = len(counted) - int(counted.sum())
        probabilities, targets = probabilities[counted], targets[counted]
    table = reliability(probabilities, targets)
    predicted = probabilities.argmax(axis=1)
    of_label = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return Evaluation.from_confusion(
        confusion(targets, predicted, len(classes)),
        tuple(classes),
        log_loss=float(-np.log(np.clip(of_label, LOG_EPSILON, 1.0)).mean()),
        ece=table.ece,
        copies=copies,
    )


def distinct_images(
    digests: Sequence[str | None], targets: NDArray[np.integer[Any]]
) -> NDArray[np.bool_]:
    """Return which images count: the first of byte-identical ones with the same label; bool (n,).

    Parameters
    ----------
    digests : sequence of str or None
        Content digests of n images; None equals no other.
    targets : int array (n,)
        Their class indices. One image with two labels counts once for each.

    Raises
    ------
    UsageError
        If the lengths differ.
    """
    if len(digests) != len(targets):
        raise UsageError(
            "`digests` and `targets` must have the same length; "
            f"got {len(digests)} and {len(targets)}."
        )
    seen: set[tuple[str, int]] = set()
    counted = np.ones(len(digests), np.bool_)
    for row, (digest, target) in enumerate(zip(digests, targets.tolist(), strict=True)):
        if digest is not None:
            counted[row] = (digest, target) not in seen
            seen.add((digest, target))
    return counted


def confusion(
    targets: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Count images by label (row) and prediction (column): int64 (classes, classes).

    Raises `UsageError` if the lengths differ or a value is not in 0 to `classes` - 1.
    """
    for name, values in (("targets", targets), ("predicted", predicted)):
        _check_range(name, values, classes)
    if targets.shape != predicted.shape:
        raise UsageError(
            "`targets` and `predicted` must have the same length; "
            f"got {targets.shape} and {predicted.shape}."
        )
    cells = targets.astype(np.int64) * classes + predicted.astype(np.int64)
    counts = np.bincount(cells, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def reliability(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], bins: int = BINS
) -> Reliability:
    """Return the accuracy of images binned by top probability, in bins of equal width.

    Parameters and errors are those of :func:`evaluate`; `bins` is at least 1. The method is of Guo
    et al. 2017; see :mod:`kindsight.evaluation.calibration`.
    """
    if bins < 1:
        raise UsageError(f"`bins` must be at least 1; got {bins}.")
    _check_probabilities(probabilities, targets)
    edges = np.linspace(0.0, 1.0, bins + 1)
    top = np.clip(probabilities.max(axis=1).astype(np.float64), 0.0, 1.0)
    correct = (probabilities.argmax(axis=1) == targets).astype(np.float64)
    bin_index = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_index, weights=top, minlength=bins) / count
        accuracy = np.bincount(bin_index, weights=correct, minlength=bins) / count
    return Reliability(edges.astype(np.float64), count, confidence, accuracy)


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], bins: int = BINS
) -> float:
    """Return the mean distance between confidence and accuracy, 0-1; see :func:`reliability`."""
    return reliability(probabilities, targets, bins).ece


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends, 0-1, of the Wilson score interval of a proportion.

    There is no continuity correction. The lower end is exactly 0 without successes, the upper one
    exactly 1 without failures; with `n` = 0 the interval is (0, 1). Raises `UsageError` if the
    counts are out of range or `confidence` is not above 0 and below 1.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not 0 <= successes <= n:
        raise UsageError(
            f"`successes` must be between 0 and `n`; got successes={successes}, n={n}."
        )
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"`confidence` must be above 0 and below 1; got {confidence}.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    proportion = successes / n
    centre = proportion + z * z / (2 * n)
    half = z * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # These ends are exact; rounding would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _check_probabilities(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> None:
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise UsageError(
            "`probabilities` must have the shape (n, k) and `targets` (n,); "
            f"got {probabilities.shape} and {targets.shape}."
        )
    if 0 in probabilities.shape:
        raise UsageError("An evaluation needs at least one labelled image; got none.")
    _check_range("targets", targets, probabilities.shape[1])
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # NaN fails both comparisons.
    if not (probabilities.min() >= 0.0 and np.abs(sums - 1.0).max() <= _SUM_TOLERANCE):
        raise UsageError(
            "Each row of `probabilities` must be between 0 and 1 and sum to 1; got sums from "
            f"{sums.min():.4g} to {sums.max():.4g}, smallest value {probabilities.min():.4g}."
        )


def _check_range(name: str, values: NDArray[np.integer[Any]], classes: int) -> None:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise UsageError(
            f"`{name}` must be a one-dimensional array of integers; "
            f"got shape {values.shape}, dtype {values.dtype}."
        )
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise UsageError(
            f"`{name}` must be class indices from 0 to {classes - 1}; "
            f"got {values.min()} to {values.max()}."
        )
