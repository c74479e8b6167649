"""KD107 to KD110, KD112: findings on the images, their labels and their split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kindsight.diagnosis.commands import check_command
from kindsight.diagnosis.diagnosis import Diagnosis, make_finding, percent, points
from kindsight.diagnosis.evidence import LabelEvidence, RunEvidence
from kindsight.diagnosis.significance import (
    CONFIDENCE,
    compare_proportions,
    images_for_half_width,
)
from kindsight.evaluation.intervals import wilson_interval

__all__ = [
    "class_collapse", "confounded_source", "leakage", "rare_class_collapse", "small_validation",
    "wrong_labels",
]  # fmt: skip

WIDE = 0.1
"""Half width of the accuracy's 95% interval from which a validation split is too small."""

WANTED = 0.05
"""Half width that an enlarged validation split is to reach."""

MIN_SUPPORT = 5
"""Minimum number of images of a class whose recall is used."""

MIN_LABELS = 60
"""Minimum number of images for a finding on labels."""

MIN_CONFIDENT = 5
"""Minimum number of mistakes at high confidence for a finding on labels."""

CONFIDENT_SHARE = 0.08
"""Fraction of the mistakes in the more confident half of the images from which labels are
reported. Frozen heads have 0 to 5% there on three clean datasets, and 31 to 36% with 12 to 15% of
the labels wrong."""

MOST_CONFIDENT = 0.25
"""The same for a network from random weights, whose confidence says less."""

MIN_SKILL_OF_NETWORKS = 0.65
"""Skill, from predicting the largest class (0) to perfection (1), of networks trained by epochs."""

MIN_WRONG = 0.01
"""Fraction of wrong labels below which they do not limit a classifier."""

MIN_LEAKAGE = 0.05
"""Fraction of held-out images with a duplicate in training, or gap to the test accuracy."""

CONFIDENCE_IF_RARE = 0.9
"""Confidence of the recall's interval for a class with few training images. That it is not learned
is to be expected, and its images are too few for a higher confidence."""

MIN_SKILL = 0.25
"""As of the check of the data: skill, from guessing (0) to perfection (1), of predicting the class
from file properties."""


def small_validation(evidence: RunEvidence) -> Diagnosis | None:
    """KD107: there are too few held-out images to measure the accuracy."""
    held = evidence.held_out
    if held is None:
        return None
    accuracy = held.correct / len(held)
    low, high = wilson_interval(held.correct, len(held))
    # A test split that is large enough measures the accuracy.
    others = [len(part) for name, part in evidence.predictions.items() if name == "test"]
    if (high - low) / 2 <= WIDE or max(others, default=0) > 2 * len(held):
        return None
    needed = images_for_half_width(min(accuracy, 0.9), WANTED)
    total = int(sum(int(counts.sum()) for counts in evidence.counts.values()))
    possible = min(needed, total // 3)
    remedies = []
    name = "validation" if evidence.held_out_name == "validation" else "test"
    given = evidence.settings.get(f"{name}_data") or evidence.settings.get("split")
    if not given and possible >= 1.5 * len(held):
        remedies = [{name: int(possible)}]
    message = (
        f"With {len(held):,} {name} images, all that is known is that the accuracy is between "
        f"{percent(low)} and {percent(high)}. About {needed:,} images would measure it to within "
        f"{100 * WANTED:.0f} points."
    )
    return make_finding(
        evidence, "KD107", "Validation too small to tell", "warning", message,
        figure={"images": len(held), "accuracy": accuracy, "accuracy_low": low,
                "accuracy_high": high, "needed_images": needed},
        because=f"{held.correct:,} of {len(held):,} {name} images are correct; the interval holds "
        "with 95% confidence.",
        remedies=remedies,
    )  # fmt: skip


def rare_class_collapse(evidence: RunEvidence) -> Diagnosis | None:
    """KD108: classes with few images that are almost never predicted."""
    found = class_collapse(evidence)
    return found if found is not None and _is_rare(found.figure) else None


def _is_rare(figure: Mapping[str, float]) -> bool:
    return 2 * figure["train_images"] < figure["usual_train_images"]


def class_collapse(evidence: RunEvidence) -> Diagnosis | None:
    """KD108: classes that are almost never predicted, not even for training images."""
    parts = [part for part in evidence.predictions.values() if len(part)]
    held, k = evidence.all_held_out, len(evidence.classes)
    if held is None:
        return None
    targets = np.concatenate([part.targets for part in parts])
    predicted = np.concatenate([part.predicted for part in parts])
    support, found = (
        np.bincount(values, minlength=k) for values in (targets, targets[targets == predicted])
    )
    recall = found / np.maximum(support, 1)
    typical = float(np.median(recall[support > 0])) if k > 2 else float(recall.max())
    counts = evidence.counts.get("train", support)
    few = 2 * counts < np.median(counts) if k > 2 else 2 * counts < counts.max()
    lost = [
        c
        for c in range(k)
        if support[c] >= MIN_SUPPORT
        and _recall_limit(int(found[c]), int(support[c]), rare=bool(few[c])) < typical / 2
        and (predicted == c).sum() < support[c] / 2
    ]
    if not lost or typical < 0.5:  # otherwise the whole classifier is weak
        return None
    images, right = int(support[lost].sum()), int(found[lost].sum())
    others = np.delete(counts, lost)
    usual = float(np.median(others)) if len(others) else 0.0
    rare = 2 * float(counts[lost].min()) < usual
    one = len(lost) == 1
    message = (
        f"The {'class' if one else 'classes'} {_listed(evidence, lost)} {'is' if one else 'are'} "
        f"almost never predicted: {right:,} of {images:,} images are predicted correctly."
    )
    if rare:
        message += (
            f" There are {int(counts[lost].min()):,} training images of "
            f"{'it' if one else 'the rarest'}, against {usual:,.0f} of other classes."
        )
    remedies = []
    if evidence.settings.get("class_weight") in (None, "none") and rare:
        remedies.append({"class_weight": "balanced"})
    return make_finding(
        evidence, "KD108", "Class collapse", "warning", message,
        figure={"classes": len(lost), "images": images, "recall": right / images,
                "usual_recall": typical, "train_images": float(counts[lost].min()),
                "usual_train_images": usual},
        because=f"Predictions for {len(targets):,} training and held-out images; other classes "
        f"have a recall of {percent(typical)}.",
        remedies=remedies, others=[] if remedies else [check_command(evidence.settings)],
        borrow=True,
    )  # fmt: skip


def _recall_limit(found: int, images: int, *, rare: bool) -> float:
    """Return the upper end of a recall's interval."""
    return wilson_interval(found, images, CONFIDENCE_IF_RARE if rare else CONFIDENCE)[1]


def _listed(evidence: RunEvidence, classes: list[int], limit: int = 3) -> str:
    names = [f"{evidence.classes[c]!r}" for c in classes[:limit]]
    if len(classes) > limit:
        return f"{', '.join(names)} and {len(classes) - limit} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def wrong_labels(evidence: RunEvidence) -> Diagnosis | None:
    """KD109: mistakes at the highest confidence, which wrong labels explain.

    Where images are hard, mistakes have low confidence. Where labels are wrong at random, mistakes
    are as confident as correct predictions, and half of them are in the more confident half.
    """
    held = evidence.all_held_out
    found = evidence.labels or (LabelEvidence.of(held) if held is not None else None)
    if found is None or found.images < MIN_LABELS or found.confident < MIN_CONFIDENT:
        return None
    limit = MOST_CONFIDENT if evidence.kind in ("network", "") else CONFIDENT_SHARE
    low = wilson_interval(found.confident, found.mistakes, CONFIDENCE)[0]
    rate = wilson_interval(found.confident, found.images // 2, CONFIDENCE)[0]
    if low < limit or rate < MIN_WRONG or not _competent(evidence, found):
        return None
    estimate = min(found.mistakes, 2 * found.confident)
    message = (
        f"{found.confident:,} of {found.mistakes:,} mistakes are made with high confidence, most "
        f"often {evidence.classes[found.predicted]!r} for images labelled "
        f"{evidence.classes[found.label]!r}: probably about {percent(estimate / found.images)} of "
        "the labels are wrong. Check these images first."
    )
    return make_finding(
        evidence, "KD109", "Confusion explained by wrong labels", "warning", message,
        figure={"confident_mistakes": found.confident, "mistakes": found.mistakes,
                "images": found.images, "share": found.confident / found.mistakes,
                "wrong_labels": estimate / found.images},
        because=f"Of {found.images:,} images that the model was not fitted on, the half with the "
        f"highest confidence has {percent(found.confident / found.mistakes)} of the mistakes, "
        "where hard images would have hardly any. The most confident ones: "
        f"{', '.join(found.paths[:3])}.",
        others=[check_command(evidence.settings)],
    )  # fmt: skip


def _competent(evidence: RunEvidence, found: LabelEvidence) -> bool:
    """Return whether a classifier is good enough to question labels.

    A frozen head is if it certainly predicts better than the largest class. The confidence of a
    network that was trained by epochs says little until it is good.
    """
    correct = found.images - found.mistakes
    if evidence.kind in ("frozen", "fine-tuned"):
        return wilson_interval(correct, found.images, CONFIDENCE)[0] > found.majority
    return correct / found.images > found.majority + MIN_SKILL_OF_NETWORKS * (1 - found.majority)


def leakage(evidence: RunEvidence) -> Diagnosis | None:
    """KD110: held-out images resemble training images more than new ones would."""
    held = evidence.held_out
    if held is None:
        return None
    name = evidence.held_out_name
    leaking = int(evidence.leaking.get(name, 0))
    if leaking >= max(2, MIN_LEAKAGE * len(held)):
        message = (
            f"{leaking:,} of {len(held):,} {name} images have a duplicate in the training split: "
            f"the {name} accuracy of {percent(held.correct / len(held))} is too high."
        )
        return make_finding(
            evidence, "KD110", "Leakage suspected", "warning", message,
            figure={"leaking": leaking, "images": len(held), "accuracy": held.correct / len(held)},
            because="Duplicates across splits were found by content and appearance, and kept "
            "(--leakage keep).",
            remedies=[{"leakage": "drop"}],
        )  # fmt: skip
    test = evidence.predictions.get("test")
    if test is None or name != "validation":
        return None
    gap = compare_proportions(held.correct, len(held), test.correct, len(test))
    if gap.low <= 0 or gap.value < MIN_LEAKAGE:
        return None
    message = (
        f"Validation accuracy is {percent(held.correct / len(held))}, test accuracy only "
        f"{percent(test.correct / len(test))}: the validation images probably resemble the "
        "training images (copies, bursts, one patient), and new images do not."
    )
    remedies = [] if evidence.settings.get("group_near_duplicates") else [
        {"group_near_duplicates": True}
    ]  # fmt: skip
    return make_finding(
        evidence, "KD110", "Leakage suspected", "warning", message,
        figure={"validation_accuracy": held.correct / len(held),
                "test_accuracy": test.correct / len(test), **gap.figure("gap")},
        because=f"{len(held):,} validation and {len(test):,} test images; 99% interval of the "
        f"difference: {points(gap.low, gap.high)}.",
        remedies=remedies, others=[check_command(evidence.settings)],
    )  # fmt: skip


def confounded_source(evidence: RunEvidence) -> Diagnosis | None:
    """KD112: file properties alone predict the class."""
    source = evidence.source
    if source is None or (source.low - source.random) / (1 - source.random) < MIN_SKILL:
        return None
    what = f"predict the class of {percent(source.accuracy)} of the images"
    if source.source:
        what = (
            f"distinguish the class {source.source!r} from all others with "
            f"{percent(source.accuracy)} balanced accuracy"
        )
    message = (
        f"File properties alone {what} ({percent(source.random)} by guessing): "
        f"{source.difference}. The network may have learned that instead of the object."
    )
    return make_finding(
        evidence, "KD112", "Class confounded with its source", "warning", message,
        figure={"accuracy": source.accuracy, "accuracy_low": source.low,
                "accuracy_high": source.high, "guessing": source.random},
        because="Size, format and encoding of a sample of the training images, cross-validated; "
        f"95% interval {percent(source.low)} to {percent(source.high)}. Collect every class from "
        "every source, and test on another source.",
        others=[check_command(evidence.settings)],
    )  # fmt: skip
