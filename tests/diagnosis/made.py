"""Evidence made by hand: curves and predictions with given accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kindsight.diagnosis import RunEvidence
from kindsight.diagnosis.evidence import EpochCurves, SplitPredictions

CNN = {"data": "photos", "model": "small-cnn", "epochs": 10, "validation": 0.2, "test": 0.0}


def curves(
    loss: Sequence[float], accuracy: Sequence[float], val_loss: Sequence[float] | None = None,
    val_accuracy: Sequence[float] | None = None, rate: float | Sequence[float] = 0.001,
) -> EpochCurves:  # fmt: skip
    """Return the epochs; without validation where it is not given."""
    n = len(loss)
    nothing = np.full(n, np.nan)
    return EpochCurves(
        np.array(loss, float),
        np.array(accuracy, float),
        nothing if val_loss is None else np.array(val_loss, float),
        nothing if val_accuracy is None else np.array(val_accuracy, float),
        np.broadcast_to(np.array(rate, float), n),
        ("training",) * n,
        n,
    )


def predictions(images: int, correct: int, confidence: float = 0.9, k: int = 2) -> SplitPredictions:
    """Return predictions for balanced classes, the first `correct` of them correct.

    Mistakes have a slightly lower confidence.
    """
    targets = np.arange(images) % k
    predicted = np.where(np.arange(images) < correct, targets, (targets + 1) % k)
    top = confidence - 1e-6 * (predicted != targets)
    probabilities = np.tile(((1 - top) / (k - 1))[:, None], (1, k))
    probabilities[np.arange(images), predicted] = top
    return SplitPredictions(tuple(f"{i}.jpg" for i in range(images)), targets, probabilities)


def evidence(train: int = 400, k: int = 2, **values: Any) -> RunEvidence:
    """Return the evidence of a small network on balanced classes."""
    given: dict[str, Any] = {
        "settings": CNN,
        "kind": "network",
        "counts": {"train": np.full(k, train // k, np.int64)},
    }
    return RunEvidence(tuple(f"class {i}" for i in range(k)), **{**given, **values})
