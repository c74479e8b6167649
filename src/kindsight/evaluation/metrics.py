"""Metrics of a classifier: accuracy, per-class scores, confusion matrix, ranking, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.digest import Digests
from kindsight.errors import UsageError
from kindsight.evaluation.calibration import (
    CalibrationError,
    check_probabilities,
    measure_calibration,
    reliability,
)
from kindsight.evaluation.confusion import (
    balanced_accuracy,
    cohen_kappa,
    confusion,
    confusion_intervals,
    counts_of,
    macro_f1,
    matthews_correlation,
)
from kindsight.evaluation.intervals import (
    RESAMPLES,
    f1_interval,
    mean_interval,
    wilson_interval,
)
from kindsight.evaluation.ranking import ClassRanking, Ranking, label_ranks, rank_images

__all__ = [
    "FIGURES", "LOG_EPSILON", "ClassScores", "Evaluation", "distinct_images", "evaluate",
    "top_k_of",
]  # fmt: skip

Interval: TypeAlias = tuple[float, float]

LOG_EPSILON = 1e-15
"""Lower bound of a probability in the log loss, so that an image costs 34.54 nats at most."""

FIGURES = (
    "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece", "roc_auc", "average_precision",
    "top_k_accuracy", "kappa", "mcc",
)  # fmt: skip
"""The figures of an :class:`Evaluation` that have intervals."""

_TABLE_FIGURES = {
    "balanced_accuracy": (balanced_accuracy, 0.0),
    "macro_f1": (macro_f1, 0.0),
    "kappa": (cohen_kappa, -1.0),
    "mcc": (matthews_correlation, -1.0),
}
"""The figures that follow from the confusion matrix, with their lowest values."""

_KEYS = ("images", "log_loss", "ece", "classes", "confusion")

_NONE: Interval = (math.nan, math.nan)

_UNKNOWN_ERROR = CalibrationError(math.nan)

_SEED = 0
"""Seed of the bootstrap: the same predictions always have the same intervals."""


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class, with 95% intervals.

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
    recall_interval, precision_interval : tuple of float
        Wilson intervals; (0, 1) without images or predictions.
    f1_interval : tuple of float
        From Wilson's interval of tp / (tp + fp + fn), of which F1 is a function.
    roc_auc : float
        Probability that the class is more probable for one of its images than for another image,
        0-1; NaN without images of this class or of others, or if it was not computed.
    average_precision : float
        Mean precision at each of its images, in the order of the probability; NaN as above.
    roc_auc_interval, average_precision_interval : tuple of float
        See :func:`kindsight.evaluation.ranking.rank_images`.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    recall_interval: Interval
    precision_interval: Interval = (0.0, 1.0)
    f1_interval: Interval = (0.0, 1.0)
    roc_auc: float = math.nan
    roc_auc_interval: Interval = _NONE
    average_precision: float = math.nan
    average_precision_interval: Interval = _NONE

    @classmethod
    def from_counts(
        cls,
        name: str,
        correct: int,
        support: int,
        predicted: int,
        ranking: ClassRanking | None = None,
    ) -> ClassScores:
        """Compute the scores from the numbers of correct, labelled and predicted images."""
        return cls(
            name=name,
            precision=correct / predicted if predicted else math.nan,
            recall=correct / support if support else math.nan,
            f1=2 * correct / (support + predicted) if support + predicted else math.nan,
            support=support,
            recall_interval=wilson_interval(correct, support),
            precision_interval=wilson_interval(correct, predicted),
            f1_interval=f1_interval(correct, support, predicted),
            **(ranking or ClassRanking())._asdict(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all scores and their intervals, ready for JSON (NaN becomes None)."""
        return {
            "name": self.name,
            "precision": _number(self.precision),
            "precision_interval": _numbers(self.precision_interval),
            "recall": _number(self.recall),
            "recall_interval": _numbers(self.recall_interval),
            "f1": _number(self.f1),
            "f1_interval": _numbers(self.f1_interval),
            "support": self.support,
            "roc_auc": _number(self.roc_auc),
            "roc_auc_interval": _numbers(self.roc_auc_interval),
            "average_precision": _number(self.average_precision),
            "average_precision_interval": _numbers(self.average_precision_interval),
        }


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
    kappa : float
        Cohen's kappa: accuracy beyond that of chance, as a fraction of the greatest possible; NaN
        if all labels and predictions are one class.
    mcc : float
        Matthews correlation of labels and predictions, -1 to 1; NaN if either is constant.
    roc_auc, average_precision : float
        Means of the classes' scores; NaN if no class has one, or if they were not computed.
    top_k : int
        5 with more than five classes, 2 with three to five, 0 (not computed) with two.
    top_k_accuracy : float
        Fraction of images whose label is among the `top_k` most probable classes.
    calibration : CalibrationError
        The ECE with its interval, and the ECE of a calibrated classifier on as many images.
    intervals : mapping of str to tuple of float
        The 95% interval of each figure in :data:`FIGURES` that has one.
    """

    images: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    classes: tuple[ClassScores, ...]
    confusion: NDArray[np.int64]
    copies: int = 0
    kappa: float = math.nan
    mcc: float = math.nan
    roc_auc: float = math.nan
    average_precision: float = math.nan
    top_k: int = 0
    top_k_accuracy: float = math.nan
    calibration: CalibrationError = _UNKNOWN_ERROR
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def is_miscalibrated(self) -> bool:
        """Whether the ECE is above that of 95% of calibrated classifiers on as many images."""
        return self.ece > self.calibration.limit

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import evaluation_html

        return evaluation_html(self)

    @classmethod
    def from_confusion(
        cls,
        table: NDArray[np.int64],
        names: tuple[str, ...],
        *,
        log_loss: float,
        ece: float,
        copies: int = 0,
        ranking: Ranking | None = None,
        top_k: tuple[int, float] = (0, math.nan),
        calibration: CalibrationError | None = None,
        intervals: Mapping[str, Interval] | None = None,
    ) -> Evaluation:
        """Compute everything that follows from the confusion matrix."""
        images, correct = int(table.sum()), int(np.trace(table))
        counts = counts_of(table)
        columns = table.sum(axis=0)
        rankings = (ClassRanking(),) * len(names) if ranking is None else ranking.classes
        mean = ClassRanking() if ranking is None else ranking.mean
        interval = wilson_interval(correct, images)
        return cls(
            images=images,
            accuracy=correct / images,
            accuracy_interval=interval,
            balanced_accuracy=float(balanced_accuracy(counts)),
            macro_f1=float(macro_f1(counts)),
            log_loss=log_loss,
            ece=ece,
            classes=tuple(
                ClassScores.from_counts(
                    name, int(table[i, i]), int(table[i].sum()), int(columns[i]), rankings[i]
                )
                for i, name in enumerate(names)
            ),
            confusion=table,
            copies=copies,
            kappa=float(cohen_kappa(counts)),
            mcc=float(matthews_correlation(counts)),
            roc_auc=mean.roc_auc,
            average_precision=mean.average_precision,
            top_k=top_k[0],
            top_k_accuracy=top_k[1],
            calibration=calibration or CalibrationError(ece),
            intervals={"accuracy": interval, **(intervals or {})},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON (NaN becomes None)."""
        figures = {name: _number(getattr(self, name)) for name in FIGURES}
        return {
            "images": self.images,
            "copies": self.copies,
            "accuracy": figures.pop("accuracy"),
            "accuracy_interval": _numbers(self.accuracy_interval),
            **figures,
            "top_k": self.top_k,
            "ece_if_calibrated": _number(self.calibration.calibrated),
            "ece_limit": _number(self.calibration.limit),
            "intervals": {name: _numbers(ends) for name, ends in self.intervals.items()},
            "classes": [score.to_dict() for score in self.classes],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of a dict from :meth:`to_dict`, also of an older version.

        Scores that follow from the confusion matrix are computed again, so that they cannot
        contradict it. A figure that the dict does not have is NaN.

        Raises `UsageError` if a key is missing or a value is invalid.
        """
        missing = [key for key in _KEYS if key not in data]
        if missing:
            raise UsageError(f"An evaluation must have the keys {_KEYS}; missing: {missing}.")
        try:
            names = tuple(str(score["name"]) for score in data["classes"])
            table = np.array(data["confusion"])
            stored = _Stored.read(data)
        except (AttributeError, TypeError, ValueError, KeyError, OverflowError) as error:
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
            table.astype(np.int64),
            names,
            log_loss=stored.log_loss,
            ece=stored.calibration.ece,
            copies=copies,
            ranking=stored.ranking,
            top_k=stored.top_k,
            calibration=stored.calibration,
            intervals=stored.intervals,
        )


@dataclass(frozen=True)
class _Stored:
    """What a dict of an evaluation has beyond the confusion matrix."""

    log_loss: float
    calibration: CalibrationError
    ranking: Ranking
    top_k: tuple[int, float]
    intervals: dict[str, Interval]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> _Stored:
        """Read a dict; raise what `float` and subscripts do for a wrong value."""
        given = data.get("intervals", {})
        intervals = {name: _read_pair(given[name]) for name in FIGURES[1:] if name in given}
        return cls(
            log_loss=_read(data, "log_loss"),
            calibration=CalibrationError(
                _read(data, "ece"),
                intervals.get("ece", _NONE),
                _read(data, "ece_if_calibrated"),
                _read(data, "ece_limit"),
            ),
            ranking=Ranking(
                tuple(_read_ranking(score) for score in data["classes"]), _read_ranking(data)
            ),
            top_k=(int(data.get("top_k", 0)), _read(data, "top_k_accuracy")),
            intervals=intervals,
        )


def evaluate(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    classes: Sequence[str],
    digests: Sequence[str | None] | None = None,
    *,
    resamples: int = RESAMPLES,
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
    resamples : int, default 1000
        Bootstrap resamples for the intervals without a formula; fewer for more than 4,000 images.
        0 leaves out these intervals, ROC AUC and average precision, and saves their time.

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
    if resamples < 0:
        raise UsageError(f"`resamples` must be 0 or more; got {resamples}.")
    copies = 0
    if digests is not None:
        counted = distinct_images(digests, targets)
        copies = len(counted) - int(counted.sum())
        if copies:
            probabilities, targets = probabilities[counted], targets[counted]
    check_probabilities(probabilities, targets)
    table = confusion(targets, probabilities.argmax(axis=1), len(classes))
    of_label = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    losses = -np.log(np.clip(of_label, LOG_EPSILON, 1.0))
    log_loss = float(losses.mean())
    top_k = top_k_of(len(classes))
    among = int((label_ranks(probabilities, targets) < top_k).sum()) if top_k else 0
    top = (top_k, among / len(targets) if top_k else math.nan)
    if not resamples:
        ece = reliability(probabilities, targets).ece
        return Evaluation.from_confusion(
            table, tuple(classes), log_loss=log_loss, ece=ece, copies=copies, top_k=top
        )
    generator = np.random.default_rng(_SEED)
    ranking = rank_images(probabilities, targets)
    calibration = measure_calibration(probabilities, targets, generator, most=resamples)
    low, high = mean_interval(losses, generator, most=resamples)
    intervals = {
        **confusion_intervals(table, _TABLE_FIGURES, generator, most=resamples),
        "log_loss": (max(0.0, low), high),
        "ece": calibration.interval,
        "roc_auc": ranking.mean.roc_auc_interval,
        "average_precision": ranking.mean.average_precision_interval,
        "top_k_accuracy": wilson_interval(among, len(targets)) if top_k else _NONE,
    }
    return Evaluation.from_confusion(
        table, tuple(classes), log_loss=log_loss, ece=calibration.ece, copies=copies,
        ranking=ranking, top_k=top, calibration=calibration, intervals=intervals,
    )  # fmt: skip


def top_k_of(classes: int) -> int:
    """Return the k of top-k accuracy: 5 for more than five classes, 2 for three to five, else 0."""
    return 5 if classes > 5 else 2 if classes > 2 else 0


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
    counted = np.ones(len(digests), np.bool_)
    if isinstance(digests, Digests):
        columns = np.ascontiguousarray(digests.packed).view(np.uint64)
        order = np.lexsort((columns[:, 0], columns[:, 1], targets))  # stable: the first row first
        same = np.ones(max(0, len(order) - 1), np.bool_)
        for column in (columns[:, 0], columns[:, 1], targets):
            same &= column[order[1:]] == column[order[:-1]]
        counted[order[1:][same]] = False
        return counted
    seen: set[tuple[str, int]] = set()
    for row, (digest, target) in enumerate(zip(digests, targets.tolist(), strict=True)):
        if digest is not None:
            counted[row] = (digest, target) not in seen
            seen.add((digest, target))
    return counted


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(ends: Interval) -> list[float | None]:
    return [_number(end) for end in ends]


def _read(data: Mapping[str, Any], name: str) -> float:
    """Return a number, NaN where it is missing or None."""
    value = data.get(name)
    return math.nan if value is None else float(value)


def _read_pair(value: Any) -> Interval:
    low, high = (math.nan if end is None else float(end) for end in value)
    return low, high


def _read_ranking(data: Mapping[str, Any]) -> ClassRanking:
    intervals = data.get("intervals", {})
    ends = {
        name: data.get(f"{name}_interval") or intervals.get(name) or (None, None)
        for name in ("roc_auc", "average_precision")
    }
    return ClassRanking(
        _read(data, "roc_auc"),
        _read_pair(ends["roc_auc"]),
        _read(data, "average_precision"),
        _read_pair(ends["average_precision"]),
    )
