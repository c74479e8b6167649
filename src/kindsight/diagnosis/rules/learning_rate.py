"""KD103 and KD104: the learning rate is too high or too low."""

from __future__ import annotations

from typing import Any

import numpy as np

from kindsight.diagnosis.commands import train_command
from kindsight.diagnosis.diagnosis import Diagnosis, make_finding, percent
from kindsight.diagnosis.evidence import EpochCurves, RunEvidence
from kindsight.diagnosis.significance import (
    CONFIDENCE,
    classes_entropy,
    own_rate,
    reference_rate,
    saved_gap,
    train_images,
    training_accuracy,
)
from kindsight.evaluation.intervals import wilson_interval

__all__ = ["rate_too_high", "rate_too_low"]

HIGH = 3.0
"""A rate this many times the usual one explains a training that learns nothing."""

LOW = 1 / 5
"""A rate this small compared with the usual one explains slow progress."""

SPIKE = 3.0
"""A loss this many times that of guessing shows steps that are too large."""


def rate_too_high(evidence: RunEvidence) -> Diagnosis | None:
    """KD103: the loss exploded, became infinite, or stays at that of guessing."""
    curves = evidence.history
    if curves is None or not len(curves) or evidence.kind == "fine-tuned":
        return None
    rate, usual = own_rate(evidence), reference_rate(evidence.settings)
    guess = classes_entropy(evidence)
    signs = _explosion(curves, rate / usual, guess) or _stuck(evidence, curves, rate / usual, guess)
    if not signs:
        return None
    what, severity, figure = signs
    lower = usual if rate > 2 * usual else rate / 10
    if evidence.kind == "transfer" and evidence.settings.get("freeze", "all") != "all":
        lower = min(lower, 1e-4)  # pretrained layers need smaller steps than new ones
    message = f"The learning rate of {rate:g} is too high: {what}. Use a lower one."
    remedies: list[dict[str, Any]] = [{"learning_rate": float(f"{lower:.1g}")}]
    return make_finding(
        evidence, "KD103", "Learning rate too high", severity, message,
        figure={"learning_rate": rate, "usual_learning_rate": usual, **figure},
        because=f"Training loss by epoch: {_listed(curves)}; guessing has a loss of {guess:.2f}.",
        remedies=remedies, others=[_finder(evidence)], borrow=True,
    )  # fmt: skip


def _explosion(
    curves: EpochCurves, ratio: float, guess: float
) -> tuple[str, str, dict[str, float]] | None:
    """Return what happened if the loss was not finite, or far above that of guessing."""
    broken = np.flatnonzero(~np.isfinite(curves.loss + np.nan_to_num(curves.val_loss, nan=0.0)))
    if len(broken):
        epoch = int(broken[0]) + 1
        return f"the loss became infinite in epoch {epoch}", "error", {"epoch": epoch}
    worst = int(curves.loss.argmax())
    limit = SPIKE if ratio < HIGH else 2.0
    # A single high first epoch is forgiven if the network learned afterwards.
    learned = curves.loss[-1] < 0.7 * guess and curves.loss[-1] < curves.loss[0] / 2
    if curves.loss[worst] > limit * guess and not (learned and ratio < HIGH):
        loss = float(curves.loss[worst])
        times = f"{loss / guess:,.0f} times" if loss < 1e6 * guess else "millions of times"
        return (
            f"in epoch {worst + 1} the loss was {times} that of guessing", "warning",
            {"epoch": worst + 1, "loss": loss},
        )  # fmt: skip
    return None


def _stuck(
    evidence: RunEvidence, curves: EpochCurves, ratio: float, guess: float
) -> tuple[str, str, dict[str, float]] | None:
    """Return what happened if nothing was learned at a rate far above the usual."""
    if ratio < HIGH or len(curves) < 3 or curves.loss[-1] < 0.95 * guess:
        return None
    n = train_images(evidence)
    majority = float(evidence.counts["train"].max()) / n if n else 0.0
    correct = round(float(curves.accuracy[-1]) * n)
    if n and wilson_interval(correct, n, CONFIDENCE)[0] > majority:
        return None
    return (
        f"after {len(curves)} epochs the network still guesses "
        f"({percent(float(curves.accuracy[-1]))} of the training images are predicted correctly)",
        "warning", {"loss": float(curves.loss[-1])},
    )  # fmt: skip


def rate_too_low(evidence: RunEvidence) -> Diagnosis | None:
    """KD104: the loss falls steadily, in steps so small that little was learned."""
    curves, counts = evidence.history, training_accuracy(evidence)
    if curves is None or counts is None or len(curves) < 3 or evidence.kind == "fine-tuned":
        return None
    rate, usual = own_rate(evidence), reference_rate(evidence.settings)
    if evidence.kind == "transfer" and evidence.settings.get("freeze", "all") != "all":
        usual /= 100  # pretrained layers are trained with small steps
    gap = saved_gap(evidence)
    learned = wilson_interval(*counts, CONFIDENCE)[1] > 0.95 or (gap is not None and gap.low > 0.05)
    if rate > LOW * usual or learned or not np.isfinite(curves.loss).all():
        return None
    falling = float((np.diff(curves.loss) < 0).mean())
    if falling < 0.6 and rate > usual / 30:
        return None
    message = (
        f"The learning rate of {rate:g} is too low: after {len(curves)} epochs the training loss "
        f"has only changed from {curves.loss[0]:.2f} to {curves.loss[-1]:.2f}. A higher rate "
        "learns faster."
    )
    return make_finding(
        evidence, "KD104", "Learning rate too low", "warning", message,
        figure={"learning_rate": rate, "usual_learning_rate": usual,
                "first_loss": float(curves.loss[0]), "last_loss": float(curves.loss[-1]),
                "training_accuracy": counts[0] / counts[1]},
        because=f"The loss fell in {percent(falling)} of the epochs; {counts[0]:,} of "
        f"{counts[1]:,} training images are predicted correctly. The usual rate is {usual:g}.",
        remedies=[{"learning_rate": usual}], others=[_finder(evidence)], borrow=True,
    )  # fmt: skip


def _finder(evidence: RunEvidence) -> str:
    """Return the command of the learning-rate finder."""
    return f"{train_command(evidence.settings, {}, evidence.run)} --find-learning-rate"


def _listed(curves: EpochCurves, limit: int = 6) -> str:
    shown = [f"{value:.3g}" for value in curves.loss]
    return ", ".join(shown if len(shown) <= limit else [*shown[: limit - 1], "...", shown[-1]])
