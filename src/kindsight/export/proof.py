"""The comparison of an export with its classifier: predictions, size and speed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.intervals import wilson_interval
from kindsight.export.images import Reference
from kindsight.export.target import (
    OOD_SCORE,
    Bounds,
    ExportedModel,
    FileModel,
    Measured,
    TimedModel,
    measure,
)
from kindsight.uncertainty.prediction import Decisions

__all__ = ["Accuracy", "Difference", "FromFiles", "Proof", "compare", "prove"]

SHOWN = 20
"""Maximum number of images with another label that are listed."""


@dataclass(frozen=True)
class Accuracy:
    """The accuracy on the labelled images, 0 to 1, with its 95% Wilson interval."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Fraction of correct images."""
        return self.correct / self.images

    def to_dict(self) -> dict[str, Any]:
        """Return the accuracy and its interval for JSON."""
        return {
            "images": self.images, "accuracy": self.accuracy,
            "interval": list(wilson_interval(self.correct, self.images)),
        }  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """An image with another label in the export: its path, and both labels' probabilities."""

    path: str
    label: str
    probability: float
    exported_label: str
    exported_probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return the image for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class FromFiles:
    """The differences of an export that decodes and resizes image files by itself.

    `images` were compared; `agreeing` of them have the same most probable class; the export could
    not decode `unreadable` ones. `largest` and `mean` are differences of probabilities.
    """

    images: int
    agreeing: int
    unreadable: int
    largest: float
    mean: float

    def to_dict(self) -> dict[str, Any]:
        """Return the differences for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Proof:
    """How an export's predictions differ from the classifier's.

    Parameters
    ----------
    images, skipped : int
        Numbers of compared and of unreadable images.
    description : str
        Description of the images.
    agreeing : int
        Number of images with the same most probable class.
    largest, mean : float
        Difference of the probabilities, over all images and classes.
    accuracy, exported_accuracy : Accuracy or None
        Accuracy of the classifier and of the export; None without labels.
    largest_score : float or None
        Largest difference of the out-of-distribution score, as a fraction of its threshold (or of
        its median, without a threshold); None if there is no score.
    unknown_agreeing : int or None
        Number of images that are unknown in both or in neither; None if there is no threshold.
    differing : tuple of Difference
        Images with another label, the most confident first.
    latency, throughput, cold_start : float
        Seconds for one image (median); images per second; seconds from the start of a process to
        the first prediction (None if it was not measured).
    from_files : FromFiles or None
        Differences of an export that decodes and resizes files by itself.
    """

    images: int
    skipped: int
    description: str
    agreeing: int
    largest: float
    mean: float
    accuracy: Accuracy | None
    exported_accuracy: Accuracy | None
    largest_score: float | None
    unknown_agreeing: int | None
    differing: tuple[Difference, ...]
    latency: float
    throughput: float
    cold_start: float | None = None
    from_files: FromFiles | None = None

    @property
    def agreement(self) -> float:
        """Fraction of images with the same most probable class, 0 to 1."""
        return self.agreeing / self.images

    def faults(self, bounds: Bounds) -> Iterator[str]:
        """Yield a sentence for each bound that is exceeded."""
        if self.agreement < bounds.labels:
            yield (
                f"{self.images - self.agreeing:,} of {self.images:,} images get a different label; "
                f"at least {100 * bounds.labels:g}% must have the same label."
            )
        if bounds.probability is not None and not self.largest <= bounds.probability:
            yield (
                f"A probability differs by {self.largest:.2g}; at most {bounds.probability:g} is "
                "allowed."
            )
        if self.largest_score is not None and math.isinf(self.largest_score):
            yield (
                f"The export returns no finite {OOD_SCORE}, which is needed to recognise unknown "
                "images."
            )
        ours, theirs = self.accuracy, self.exported_accuracy
        if bounds.accuracy is not None and ours is not None and theirs is not None:
            lost = abs(theirs.accuracy - ours.accuracy)
            if lost > bounds.accuracy:
                yield (
                    f"The accuracy differs by {100 * lost:.1f} points; at most "
                    f"{100 * bounds.accuracy:g} is allowed."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the proof for ``export.json``."""
        ours, theirs = self.accuracy, self.exported_accuracy
        return {
            "images": self.images,
            "description": self.description,
            "skipped": self.skipped,
            "label_agreement": self.agreement,
            "probability_difference": {"largest": self.largest, "mean": self.mean},
            "accuracy": None if ours is None else ours.to_dict(),
            "exported_accuracy": None if theirs is None else theirs.to_dict(),
            "ood_score_difference": finite(self.largest_score),
            "unknown_agreement": (
                None if self.unknown_agreeing is None else self.unknown_agreeing / self.images
            ),
            "latency_seconds": self.latency,
            "images_per_second": self.throughput,
            "cold_start_seconds": self.cold_start,
            "from_files": None if self.from_files is None else self.from_files.to_dict(),
            "differing": [each.to_dict() for each in self.differing[:SHOWN]],
        }


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, or None."""
    return value if value is not None and math.isfinite(value) else None


def prove(
    model: ExportedModel,
    reference: Reference,
    decisions: Decisions,
    cold_start: float | None = None,
) -> Proof:
    """Run an export on the compared images and return the differences from the classifier."""
    if isinstance(model, TimedModel):
        measured = model.measure(reference.pixels)
    else:
        measured = measure(model.predict, reference.pixels)
    from_files = _from_files(model, reference) if isinstance(model, FileModel) else None
    return compare(measured, reference, decisions, cold_start, from_files)


def _from_files(model: FileModel, reference: Reference) -> FromFiles:
    probabilities, _ = model.predict_files(reference.files())
    ours = reference.probabilities
    read = np.isfinite(probabilities).all(axis=1)
    difference = np.abs(probabilities[read] - ours[read])
    return FromFiles(
        images=int(read.sum()),
        agreeing=int((probabilities[read].argmax(1) == ours[read].argmax(1)).sum()),
        unreadable=int((~read).sum()),
        largest=float(difference.max(initial=0.0)),
        mean=float(difference.mean()) if read.any() else 0.0,
    )


def compare(
    measured: Measured,
    reference: Reference,
    decisions: Decisions,
    cold_start: float | None = None,
    from_files: FromFiles | None = None,
) -> Proof:
    """Return the differences of an export's outputs from the classifier's."""
    probabilities, scores = measured.outputs
    ours = reference.probabilities
    best, exported_best = ours.argmax(1), probabilities.argmax(1)
    # A NaN counts as the largest difference.
    difference = np.nan_to_num(np.abs(probabilities - ours), nan=1.0)
    largest_score, unknown = _scores(scores, reference.scores, decisions.unknown)
    return Proof(
        images=len(ours),
        skipped=reference.skipped,
        description=reference.images.description,
        agreeing=int((best == exported_best).sum()),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        accuracy=_accuracy(ours, reference),
        exported_accuracy=_accuracy(probabilities, reference),
        largest_score=largest_score,
        unknown_agreeing=unknown,
        differing=tuple(_differing(reference, probabilities, best != exported_best)),
        latency=measured.latency,
        throughput=measured.throughput,
        cold_start=cold_start,
        from_files=from_files,
    )


def _accuracy(probabilities: NDArray[np.float32], reference: Reference) -> Accuracy | None:
    classes = reference.predictions[0].classes
    known = [
        (label, classes[best])
        for label, best in zip(reference.labels, probabilities.argmax(1).tolist(), strict=True)
        if label in classes
    ]
    correct = sum(label == predicted for label, predicted in known)
    return Accuracy(correct, len(known)) if known else None


def _scores(
    scores: NDArray[np.float32] | None, ours: NDArray[np.float32] | None, threshold: float | None
) -> tuple[float | None, int | None]:
    if ours is None:
        return None, None
    if scores is None:  # the export has lost the output
        return float("inf"), None if threshold is None else 0
    scale = float(np.median(np.abs(ours))) if threshold is None else abs(threshold)
    largest = float(np.nan_to_num(np.abs(scores - ours), nan=np.inf).max()) / (scale or 1.0)
    if threshold is None:
        return largest, None
    return largest, int(((scores > threshold) == (ours > threshold)).sum())


def _differing(
    reference: Reference, probabilities: NDArray[np.float32], other: NDArray[np.bool_]
) -> list[Difference]:
    """Return the images whose label differs, the most confident first."""
    found = []
    for row in np.flatnonzero(other).tolist():
        prediction = reference.predictions[row]
        best = int(probabilities[row].argmax())
        found.append(
            Difference(
                prediction.path,
                prediction.best or "",
                prediction.confidence or 0.0,
                prediction.classes[best],
                float(probabilities[row, best]),
            )
        )
    return sorted(found, key=lambda each: -each.probability)
