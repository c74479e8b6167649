"""KD111, KD113 to KD115: training and use differ, or the network gets the wrong values."""

from __future__ import annotations

from typing import Any

from kindsight.diagnosis.commands import check_command, plain_command
from kindsight.diagnosis.diagnosis import Diagnosis, make_finding, percent, points
from kindsight.diagnosis.evidence import RunEvidence
from kindsight.diagnosis.significance import (
    CONFIDENCE,
    calibration_noise,
    compare_proportions,
    last_epochs,
    train_images,
    training_accuracy,
)
from kindsight.evaluation.intervals import wilson_interval

__all__ = ["augmentation_too_strong", "inference_differs", "input_scaled_twice", "miscalibration"]

MIN_MISCALIBRATION = 0.03
"""Amount by which the calibration error has to exceed noise to be reported."""

MIN_CHANGE = 0.1
"""Difference of accuracy between training mode and inference mode that is reported."""

LEARNED = 0.9

TINY = 0.005
"""Standard deviation of the network's input values below which they are almost constant: pixels of
0-255 that are scaled once have 0.1 to 1, scaled twice 0.0005 to 0.001."""

STORED_MAX = 1.0
"""Largest pixel value of images that were divided by 255 before they were saved."""


def miscalibration(evidence: RunEvidence) -> Diagnosis | None:
    """KD111: confidence and accuracy differ by more than noise."""
    parts = {
        name: evidence.predictions[name]
        for name in ("test", "validation")
        if len(evidence.predictions.get(name, ())) >= 30
    }
    for name, part in parts.items():
        confidence = 1 - (1 - CONFIDENCE) / len(parts)  # two splits are two chances to err
        found = calibration_noise(part.probabilities, part.targets, confidence=confidence)
        if found.ece <= found.level or found.ece - found.expected < MIN_MISCALIBRATION:
            continue
        over = found.mean_confidence > found.accuracy
        if not over and not _underconfident_in_training(evidence):
            continue
        message = (
            f"The probabilities are not reliable: on the {name} split, mean confidence is "
            f"{percent(found.mean_confidence)}, but accuracy is {percent(found.accuracy)}."
        )
        remedies: list[dict[str, Any]] = []
        if not evidence.settings.get("validation") and "validation" not in evidence.predictions:
            message += " With validation images, training corrects this by temperature scaling."
            remedies.append({"validation": 0.2})
        elif float(evidence.settings.get("label_smoothing") or 0) >= 0.2 and not over:
            remedies.append({"label_smoothing": 0.05})
        return make_finding(
            evidence, "KD111", "Miscalibration", "warning", message,
            figure={"ece": found.ece, "noise": found.expected, "noise_level": found.level,
                    "confidence": found.mean_confidence, "accuracy": found.accuracy},
            because=f"Expected calibration error {percent(found.ece)} on {len(part):,} images; "
            f"noise alone would give {percent(found.expected)} on average, and at most "
            f"{percent(found.level)} in {100 * confidence:g} of 100 cases.",
            remedies=remedies,
        )  # fmt: skip
    return None


def _underconfident_in_training(evidence: RunEvidence) -> bool:
    """Return whether accuracy is above confidence on the training images, too; True without any.

    If it is not, an accuracy above the confidence on held-out images, which are harder, is luck:
    the saved epoch is the one that was best on them.
    """
    trained = evidence.predictions.get("train")
    if trained is None or not len(trained):
        return True
    confidence = float(trained.probabilities.max(axis=1).mean())
    return trained.correct / len(trained) - confidence >= MIN_MISCALIBRATION


def augmentation_too_strong(evidence: RunEvidence) -> Diagnosis | None:
    """KD113: the network does not learn the augmented images, nor the original ones."""
    curves, counts = evidence.history, training_accuracy(evidence)
    augment = evidence.settings.get("augment", "none")
    if curves is None or counts is None or augment in ("none", "light") or len(curves) < 3:
        return None
    n = train_images(evidence)
    last = last_epochs(curves)
    augmented = float(curves.accuracy[last].mean())
    if wilson_interval(*counts, CONFIDENCE)[1] > LEARNED:
        return None
    gap = compare_proportions(*counts, round(augmented * n), n)
    certain = gap.low > 0 and gap.value >= MIN_CHANGE
    extreme = augment == "strong" or not isinstance(augment, str)
    if not certain and not (extreme and _guesses(evidence, counts[0] / counts[1], n)):
        return None
    milder = "light" if augment == "classic" else "classic"
    message = (
        f"Accuracy is only {percent(augmented)} on the augmented training images, and "
        f"{percent(counts[0] / counts[1])} on the original ones: the augmentation is so strong "
        "that the network hardly learns."
    )
    return make_finding(
        evidence, "KD113", "Augmentation too strong", "warning", message,
        figure={"augmented_accuracy": augmented, "training_accuracy": counts[0] / counts[1],
                **gap.figure("gap")},
        because="Training accuracy of the last epochs, with augmentation, compared with "
        f"{counts[1]:,} original training images; 99% interval of the difference: "
        f"{points(gap.low, gap.high)}.",
        remedies=[{"augment": milder}], others=[f"kindsight preview {_data(evidence)}"],
        borrow=True,
    )  # fmt: skip


def _guesses(evidence: RunEvidence, accuracy: float, n: int) -> bool:
    """Return whether an accuracy is close to that of predicting the largest class."""
    majority = float(evidence.counts["train"].max()) / n
    return accuracy < majority + 0.2 * (1 - majority)


def _data(evidence: RunEvidence) -> str:
    return str(evidence.settings.get("data", "DATA"))


def inference_differs(evidence: RunEvidence) -> Diagnosis | None:
    """KD114: the saved model is worse on training images than it was in training."""
    curves, counts = evidence.history, training_accuracy(evidence)
    norm, ema = evidence.batch_norm, float(evidence.settings.get("ema_decay") or 0)
    if curves is None or counts is None or not len(curves) or not (norm or ema):
        return None
    n = train_images(evidence)
    # The saved epoch is the best by validation loss, which this fault makes unreliable.
    last = last_epochs(curves)
    trained = float(curves.accuracy[last].mean())
    gap = compare_proportions(round(trained * n), n, *counts)
    if gap.low < MIN_CHANGE or not _never_good(evidence, trained):
        return None
    remedies, why = _inference_remedies(evidence)
    message = (
        f"Training accuracy was {percent(trained)}, but the saved model has an accuracy of only "
        f"{percent(counts[0] / counts[1])} on the same images: {why}."
    )
    return make_finding(
        evidence, "KD114", "Inference differs from training", "error", message,
        figure={"training_mode_accuracy": trained, "inference_accuracy": counts[0] / counts[1],
                **gap.figure("gap")},
        because=f"The last epochs in training mode, compared with {counts[1]:,} training images in "
        f"inference mode; 99% interval of the difference: {points(gap.low, gap.high)}.",
        remedies=remedies, borrow=True,
    )  # fmt: skip


def _never_good(evidence: RunEvidence, trained: float) -> bool:
    """Return whether no epoch's validation accuracy came near the training accuracy."""
    curves = evidence.history
    assert curves is not None
    return not curves.validated or float(curves.val_accuracy.max()) < trained - MIN_CHANGE / 2


def _inference_remedies(evidence: RunEvidence) -> tuple[list[dict[str, Any]], str]:
    settings, norm = evidence.settings, evidence.batch_norm
    ema = float(settings.get("ema_decay") or 0)
    if norm is None:
        return [{"ema_decay": 0.0}], (
            f"the averaged weights (--ema-decay {ema:g}) lag behind when there are few steps"
        )
    if evidence.kind == "transfer":
        return [{"train_batch_norm": False}], (
            f"batch normalisation was trained on batches of {norm.batch_size}, whose statistics "
            "differ from those of all images"
        )
    smaller = max(8, min(20, norm.batch_size // 2))
    more = max(30, 3 * int(settings.get("epochs") or 15))
    needed = settings.get("preset") == "modern"
    remedies: list[dict[str, Any]] = [] if needed else [{"batch_norm": False}]
    if norm.batch_size > smaller:
        remedies.append({"batch_size": smaller, "epochs": more})
    else:
        remedies.append({"epochs": more})
    return remedies, (
        f"the moving statistics of batch normalisation need more than {norm.steps:,} steps to "
        "settle"
    )


def input_scaled_twice(evidence: RunEvidence) -> Diagnosis | None:
    """KD115: the values that reach the network are almost constant."""
    inputs = evidence.inputs
    if inputs is None:
        return None
    stored = inputs.image_max <= STORED_MAX
    if inputs.image_std == 0 or not (stored or inputs.network_std < TINY):
        return None
    if stored:
        message = (
            f"The pixel values are 0 to {inputs.image_max:g} instead of 0 to 255: the images were "
            "divided by 255 before they were saved, and the network scales them again. Save the "
            "original pixels; scaling belongs in the model."
        )
        commands = [check_command(evidence.settings)]
    elif inputs.user_file:
        message = (
            f"The network's input is scaled twice: pixels of 0 to 255 are multiplied by "
            f"{inputs.scale:.1e} before its first layer with weights, so they are almost constant. "
            "Remove one of its scaling layers."
        )
        commands = [plain_command(evidence.settings)]
    else:
        message = (
            f"The images are almost constant: the standard deviation of their pixels is only "
            f"{inputs.image_std:.2g} of 255. They were probably scaled before they were saved. "
            "Save the original pixels."
        )
        commands = [check_command(evidence.settings)]
    return make_finding(
        evidence, "KD115", "Input scaled twice", "error", message,
        figure={"image_std": inputs.image_std, "image_max": inputs.image_max,
                "scale": inputs.scale, "network_std": inputs.network_std},
        because=f"Standard deviation of the values at the first layer with weights: "
        f"{inputs.network_std:.1e}; 0.1 to 1 is usual.",
        others=commands,
    )  # fmt: skip
