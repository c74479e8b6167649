"""What an evaluation holds, and its form in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.intervals import wilson_interval

__all__ = ["ClassScores", "Evaluation", "wilson_interval"]

_KEYS = (
    "pictures",
    "accuracy",
    "accuracy_interval",
    "balanced_accuracy",
    "macro_f1",
    "log_loss",
    "ece",
    "classes",
    "confusion",
)


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class.

    Attributes
    ----------
    name : str
        The class.
    precision : float
        Right among those predicted to be of this class; NaN where it was never predicted.
    recall : float
        Right among those of this class; NaN where there is no picture of it.
    f1 : float
        2 tp / (2 tp + fp + fn), so 0 where the class was never predicted but has pictures;
        NaN where it has neither pictures nor predictions.
    support : int
        Pictures of this class.
    recall_interval : tuple of float
        95% Wilson interval of the recall; (0, 1) where there is no picture.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    recall_interval: tuple[float, float]

    @classmethod
    def from_counts(cls, name: str, right: int, support: int, predicted: int) -> ClassScores:
        """Work the scores out from counts: right, of this class, predicted to be of it."""
        return cls(
            name=name,
            precision=right / predicted if predicted else math.nan,
            recall=right / support if support else math.nan,
            f1=2 * right / (support + predicted) if support + predicted else math.nan,
            support=support,
            recall_interval=wilson_interval(right, support),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give name, precision, recall, f1 and support, ready for JSON (NaN becomes None)."""
        return {
            "name": self.name,
            "precision": _number(self.precision),
            "recall": _number(self.recall),
            "f1": _number(self.f1),
            "support": self.support,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a classifier did on labelled pictures.

    Attributes
    ----------
    pictures : int
        How many were scored.
    accuracy : float
        Share whose most probable class is the label, 0-1.
    accuracy_interval : tuple of float
        Its 95% Wilson interval.
    balanced_accuracy : float
        Mean recall over the classes that have pictures.
    macro_f1 : float
        Mean F1 over the classes that have pictures. (scikit-learn also counts, as 0, a class
        that was predicted without having pictures; here such a mistake counts once, in the
        recall of the class that the picture is of.)
    log_loss : float
        Mean of -ln p(label), in nats, p clipped below at ``metrics.LOG_EPSILON``.
    ece : float
        Expected calibration error over 15 equal bins of the top confidence, 0-1.
    classes : tuple of ClassScores
        One a class, in the classifier's order.
    confusion : int64 array (k, k)
        Pictures by label (row) and prediction (column).
    """

    pictures: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    classes: tuple[ClassScores, ...]
    confusion: NDArray[np.int64]

    @classmethod
    def from_confusion(
        cls, table: NDArray[np.int64], names: tuple[str, ...], *, log_loss: float, ece: float
    ) -> Evaluation:
        """Work out everything that the confusion matrix decides; the rest is given."""
        pictures, right = int(table.sum()), int(np.trace(table))
        columns = table.sum(axis=0)
        scores = tuple(
            ClassScores.from_counts(name, int(table[i, i]), int(table[i].sum()), int(columns[i]))
            for i, name in enumerate(names)
        )
        present = [score for score in scores if score.support]
        return cls(
            pictures=pictures,
            accuracy=right / pictures,
            accuracy_interval=wilson_interval(right, pictures),
            balanced_accuracy=math.fsum(score.recall for score in present) / len(present),
            macro_f1=math.fsum(score.f1 for score in present) / len(present),
            log_loss=log_loss,
            ece=ece,
            classes=scores,
            confusion=table,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the recalls' intervals, ready for JSON (NaN becomes None)."""
        return {
            "pictures": self.pictures,
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
        """Read back what :meth:`to_dict` gave.

        Whatever the confusion matrix decides is worked out again from it, so that a file
        cannot say one thing in its counts and another in its scores.

        Raises
        ------
        UsageError
            If a key is missing or a value is not what :meth:`to_dict` writes.
        """
        missing = [key for key in _KEYS if key not in data]
        if missing:
            raise UsageError(f"an evaluation must have the keys {_KEYS}. Missing: {missing}")
        try:
            names = tuple(str(score["name"]) for score in data["classes"])
            table = np.array(data["confusion"])
            log_loss, ece = (
                math.nan if data[key] is None else float(data[key]) for key in ("log_loss", "ece")
            )
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise UsageError(f"an evaluation must be as to_dict() gives it. {error}") from error
        shape = (len(names), len(names))
        if table.dtype.kind != "i" or table.shape != shape or table.min(initial=0) < 0:
            raise UsageError(
                f"confusion must be a table of counts of shape {shape}. "
                f"Received: shape {table.shape}, dtype {table.dtype}"
            )
        if table.sum() < 1 or table.sum() != data["pictures"]:
            raise UsageError(
                "pictures must be the sum of the confusion matrix, and at least 1. "
                f"Received: {data['pictures']!r} against {table.sum()}"
            )
        return cls.from_confusion(table.astype(np.int64), names, log_loss=log_loss, ece=ece)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
