"""KD101, KD102, KD105, KD106: overfitting, underfitting, stopped too early, plateau."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kindsight.diagnosis.diagnosis import Diagnosis, make_finding, percent, points
from kindsight.diagnosis.evidence import EpochCurves, RunEvidence
from kindsight.diagnosis.significance import (
    CONFIDENCE,
    Difference,
    compare_proportions,
    decline,
    last_epochs,
    own_rate,
    reference_rate,
    saved_gap,
    train_images,
    training_accuracy,
)
from kindsight.evaluation.intervals import wilson_interval

__all__ = ["overfitting", "plateau", "stopped_early", "underfitting"]

MIN_GAP = 0.05
"""Gap between training and validation accuracy from which overfitting is reported."""

LEARNED = 0.9
"""Training accuracy above which a network has learned its training images."""

FLAT = 0.01
"""Decline of the training loss per epoch below which it is flat."""

FALLING = 0.03
"""Decline of both losses per epoch above which the training was stopped too early."""

FEW_EPOCHS = 5
"""Number of epochs below which a flat loss is no plateau: many networks begin to learn later."""


def overfitting(evidence: RunEvidence) -> Diagnosis | None:
    """KD101: accuracy on training images far above that on validation images."""
    if evidence.kind == "frozen":  # its regularisation is selected by cross-validation
        return None
    saved = saved_gap(evidence)
    curves = evidence.history
    whole = None if curves is None else _final_gap(evidence, curves)
    certain = [gap for gap in (whole, saved) if gap is not None and gap.low >= MIN_GAP]
    if not certain:
        return None
    held = evidence.held_out
    assert held is not None
    if whole is not None and whole.low >= MIN_GAP and curves is not None:
        gap, start, last = whole, _gap_start(evidence, curves), last_epochs(curves)
        trained = float(curves.accuracy[last].mean())
        validated = float(curves.val_accuracy[last].mean())
        begin = f"from epoch {start} on" if start > 1 else "from the first epoch on"
        because = (
            f"Mean of the last {last.stop - last.start} of {len(curves)} epochs; "
            f"99% interval of the gap: {points(gap.low, gap.high)}."
        )
    else:
        assert saved is not None
        counts = training_accuracy(evidence)
        assert counts is not None
        gap, start, trained = saved, 0, counts[0] / counts[1]
        validated, begin = held.correct / len(held), "the saved model"
        because = (
            f"The saved model on {counts[1]:,} training and {len(held):,} "
            f"{evidence.held_out_name} images; 99% interval of the gap: "
            f"{points(gap.low, gap.high)}."
        )
    what = "the network memorises its training images" if start else "has memorised training images"
    message = (
        f"Training accuracy is {percent(trained)}, {evidence.held_out_name} accuracy "
        f"{percent(validated)}: {begin}{' ' + what if not start else ', ' + what}."
    )
    figure = {
        "training_accuracy": trained, "held_out_accuracy": validated, **gap.figure("gap"),
        **({"epoch": start} if start else {}),
    }  # fmt: skip
    return make_finding(
        evidence, "KD101", "Overfitting", "warning", message, figure=figure, because=because,
        remedies=_against_overfitting(evidence), borrow=True,
    )  # fmt: skip


def _final_gap(evidence: RunEvidence, curves: EpochCurves) -> Difference | None:
    """Return the gap of the last epochs: training accuracy during them, against validation."""
    held = evidence.predictions.get("validation")
    n, m = train_images(evidence), 0 if held is None else len(held)
    if not curves.validated or not n or not m:
        return None
    last = last_epochs(curves)
    trained, validated = curves.accuracy[last].mean(), curves.val_accuracy[last].mean()
    return compare_proportions(round(trained * n), n, round(validated * m), m)


def _gap_start(evidence: RunEvidence, curves: EpochCurves) -> int:
    """Return the epoch from which on training accuracy is certainly above validation accuracy."""
    held = evidence.predictions["validation"]
    n, m = train_images(evidence), len(held)
    for epoch in range(len(curves), 0, -1):
        trained, validated = (
            float(column[max(0, epoch - 2) : epoch + 1].mean())  # with both neighbours
            for column in (curves.accuracy, curves.val_accuracy)
        )
        gap = compare_proportions(round(trained * n), n, round(validated * m), m, 0.95)
        if gap.low <= 0:
            return min(epoch + 1, len(curves))
    return 1


def _against_overfitting(evidence: RunEvidence) -> list[dict[str, Any]]:
    settings, network = evidence.settings, evidence.kind == "network"
    if evidence.kind == "fine-tuned":
        return [{"fine_tune": "off"}] if settings.get("budget") is None else []
    augmented = settings.get("augment", "none") != "none"
    dropout = float(settings.get("dropout") or 0)
    augment = {"augment": "strong" if settings.get("augment") == "classic" else "classic"}
    both: dict[str, Any] = {} if augmented and settings.get("augment") == "strong" else augment
    if dropout < 0.5:
        both = {**both, "dropout": 0.5}
    found = [both] if both else []
    if not network and settings.get("freeze", "all") != "all":
        found.append({"freeze": "all"})
    if network and settings.get("pooling", "flatten") == "flatten":
        found.append({**both, "pooling": "average"})
    if not float(settings.get("l2") or 0):
        found.append({**both, "l2": 1e-4})
    return found


def underfitting(evidence: RunEvidence) -> Diagnosis | None:
    """KD102: training images themselves are not learned, and a setting explains why."""
    curves, low = evidence.history, _hardly_learned(evidence)
    if curves is None or low is None or evidence.kind == "fine-tuned":
        return None
    causes = _held_back(evidence.settings, evidence.kind)
    if not causes or _still_falling(curves):
        return None
    correct, images = low
    remedy = {name: value for changes in causes.values() for name, value in changes.items()}
    message = (
        f"The network has an accuracy of only {percent(correct / images)} on its own training "
        f"images, and more epochs no longer help: {' and '.join(causes)} "
        f"{'holds' if len(causes) == 1 else 'hold'} it back."
    )
    return make_finding(
        evidence, "KD102", "Underfitting", "warning", message,
        figure={"training_accuracy": correct / images,
                "decline_per_epoch": decline(curves.loss, _window(curves))},
        because=f"{correct:,} of {images:,} training images are correct in inference mode; the "
        f"training loss is flat over the last {_window(curves)} epochs.",
        remedies=[remedy], borrow=True,
    )  # fmt: skip


def _held_back(settings: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the settings that limit a network, each with its remedy."""
    found: dict[str, dict[str, Any]] = {}
    l2, dropout = float(settings.get("l2") or 0), float(settings.get("dropout") or 0)
    if l2 >= 0.01:
        found[f"its L2 penalty of {l2:g}"] = {"l2": 1e-4}
    if dropout >= 0.7:
        found[f"its dropout rate of {dropout:g}"] = {"dropout": 0.3}
    filters = [int(number) for number in settings.get("filters") or (64,)]
    if kind == "network" and max(filters) <= 8:
        listed = ", ".join(map(str, filters))
        found[f"its small number of filters ({listed})"] = {
            "filters": [16, 32, 64], "dense": [512], "pooling": "flatten",
        }  # fmt: skip
    return found


def stopped_early(evidence: RunEvidence) -> Diagnosis | None:
    """KD105: both losses were still falling when the training ended, or it had hardly begun."""
    curves = evidence.history
    if curves is None or len(curves) < 2 or evidence.kind == "fine-tuned":
        return None
    planned = _planned_epochs(evidence.settings)
    annealed = curves.learning_rate[-1] < 0.2 * curves.learning_rate.max()
    if annealed or len(curves) < planned or own_rate(evidence) < _slow(evidence):
        return None
    falling, trained = _still_falling(curves), float(curves.accuracy[-1])
    too_few = len(curves) < FEW_EPOCHS and _hardly_learned(evidence) is not None
    if _learned(evidence) or not (falling or too_few):
        return None
    more = max(20, 3 * len(curves))
    message = (
        f"After {len(curves)} epochs the loss was still falling, by "
        f"{percent(_decline_of_both(curves))} in each epoch: the training stopped too early."
        if falling
        else f"After only {len(curves)} epochs, training accuracy is {percent(trained)}: that is "
        "too few epochs to learn the images."
    )
    return make_finding(
        evidence, "KD105", "Stopped too early", "warning", message,
        figure={"epochs": len(curves), "decline_per_epoch": _decline_of_both(curves),
                "training_accuracy": trained},
        because=f"The last epochs of {len(curves)}: training loss "
        f"{', '.join(f'{x:.3g}' for x in curves.loss[-3:])}"
        + (f"; validation loss {', '.join(f'{x:.3g}' for x in curves.val_loss[-3:])}."
           if curves.validated else "."),
        remedies=[{"epochs": more, "patience": max(5, more // 5), "phases": None}
                  if evidence.settings.get("phases") else
                  {"epochs": more, "patience": max(5, more // 5)}],
        borrow=True,
    )  # fmt: skip


def plateau(evidence: RunEvidence) -> Diagnosis | None:
    """KD106: the loss has been flat for many epochs, and the training images are not learned."""
    curves, low = evidence.history, _hardly_learned(evidence)
    if curves is None or low is None or len(curves) < 10 or evidence.kind == "fine-tuned":
        return None
    constant = curves.learning_rate[-1] > 0.5 * curves.learning_rate.max()
    start = _flat_from(curves)
    if not constant or start is None:
        return None
    flat = len(curves) - start + 1
    message = (
        f"The last {flat} of {len(curves)} epochs improved nothing: training loss stays at "
        f"{curves.loss[-1]:.2f}, training accuracy at {percent(low[0] / low[1])}."
    )
    rate = own_rate(evidence)
    remedies = [
        {"schedule": "cosine", "learning_rate": float(f"{rate / 3:.1g}")},
        {"schedule": "cosine", "optimizer": "adam",
         "learning_rate": min(rate, reference_rate({"optimizer": "adam"}))},
    ]  # fmt: skip
    return make_finding(
        evidence, "KD106", "Plateau", "warning", message,
        figure={"epoch": start, "flat_epochs": flat, "training_loss": float(curves.loss[-1]),
                "training_accuracy": low[0] / low[1]},
        because=f"Training loss in epochs {start} to {len(curves)}: "
        f"{curves.loss[start - 1 :].min():.3g} to {curves.loss[start - 1 :].max():.3g}, at a "
        f"constant learning rate of {rate:g}.",
        remedies=[r for r in remedies if r["learning_rate"] != rate or "optimizer" not in r],
        borrow=True,
    )  # fmt: skip


def _flat_from(curves: EpochCurves) -> int | None:
    """Return the epoch from which on the training loss is flat; None unless 40% are flat."""
    loss = curves.loss
    if not np.isfinite(loss).all():
        return None
    for start in range(1, len(loss)):
        rest = loss[start - 1 :]
        if len(rest) < max(5, 0.4 * len(loss)):
            return None
        first, second = np.array_split(rest, 2)
        if decline(loss, len(rest) - 1) < FLAT and second.mean() > 0.97 * first.mean():
            return start
    return None


def _hardly_learned(evidence: RunEvidence) -> tuple[int, int] | None:
    """Return (correct, images) of the training images if they are certainly not learned."""
    counts, gap = training_accuracy(evidence), saved_gap(evidence)
    if counts is None or (gap is not None and gap.low >= MIN_GAP):
        return None
    return counts if wilson_interval(*counts, CONFIDENCE)[1] < LEARNED else None


def _learned(evidence: RunEvidence) -> bool:
    """Return whether the training images are learned almost completely."""
    counts, gap = training_accuracy(evidence), saved_gap(evidence)
    memorised = gap is not None and gap.low >= MIN_GAP
    return memorised or (counts is not None and wilson_interval(*counts, CONFIDENCE)[1] > 0.99)


def _window(curves: EpochCurves) -> int:
    """Return the number of last epochs from which the trend is computed."""
    return max(1, min(5, len(curves) // 3))


def _decline_of_both(curves: EpochCurves) -> float:
    """Return the decline per epoch of the loss that falls less: training or validation."""
    window = _window(curves)
    found = decline(curves.loss, window)
    return min(found, decline(curves.val_loss, window)) if curves.validated else found


def _still_falling(curves: EpochCurves) -> bool:
    return _decline_of_both(curves) >= FALLING


def _slow(evidence: RunEvidence) -> float:
    """Return the learning rate below which slow progress is due to the rate."""
    return reference_rate(evidence.settings) / 10


def _planned_epochs(settings: Mapping[str, Any]) -> int:
    shared = int(settings.get("epochs") or 15)
    phases = settings.get("phases") or ()
    return sum(int(dict(phase).get("epochs") or shared) for phase in phases) or shared
