"""The evaluation of a classifier on labelled images, from the predictions of its bundle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.dataset.labels import class_indices
from kindsight.dataset.loaders.renames import rename_labels
from kindsight.dataset.names import quoted_list
from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.errors import DatasetError, ImageError
from kindsight.evaluation import Evaluation, distinct_images, evaluate
from kindsight.evaluation.conformal import ConformalSets
from kindsight.trained_images import TrainingImageDetector
from kindsight.uncertainty.prediction import Prediction, Reason

__all__ = ["DatasetEvaluation", "DecidedImages", "ImageObserver", "SetSizes", "evaluate_dataset"]


class ImageObserver(Protocol):
    """Observes the images of a prediction stream."""

    def observe(self, row: int, data: bytes | NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
        """Take an image's row, its file or array, and its resized pixels; called on many threads.

        Only readable images are observed, each before its prediction is yielded.
        """


class DecidedImages(NamedTuple):
    """The images that have a label, byte-identical ones counted once."""

    images: int  # all
    labelled: int  # those with a label
    correct: int  # those whose label is correct
    reasons: dict[str, int]  # unsure and unknown: those without a label

    @property
    def coverage(self) -> float:
        """Fraction of the images that have a label, 0 to 1."""
        return self.labelled / self.images

    @property
    def accuracy(self) -> float:
        """Accuracy of the labelled images, 0 to 1; NaN if there is none."""
        return self.correct / self.labelled if self.labelled else math.nan


class SetSizes(NamedTuple):
    """The prediction sets of labelled images, byte-identical ones counted once."""

    images: int
    covered: int  # those whose set has the true class
    sizes: NDArray[np.int64]  # number of sets by their number of classes, from 0

    @property
    def coverage(self) -> float:
        """Fraction of the sets that have the true class, 0 to 1."""
        return self.covered / self.images

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set."""
        return float(self.sizes @ np.arange(len(self.sizes))) / self.images


@dataclass(frozen=True)
class DatasetEvaluation:
    """The evaluation of a classifier on labelled images.

    Parameters
    ----------
    evaluation : Evaluation
        Metrics on the readable images of known classes.
    dataset : ImageDataset
        Those images.
    probabilities : array
        float32 (images, classes), in that order.
    problems : tuple of ImageError
        Unreadable images.
    problem_labels : tuple of str or None
        Their labels.
    unknown_classes : dict
        Classes of the data that the classifier does not have -> number of images; not scored.
    absent_classes : tuple of str
        Classes of the classifier without images in the data.
    trained_on : array or None
        bool (images,): whether the classifier was trained on the image or a re-encoded copy; None
        if the bundle does not record its training images.
    clipped : int
        Number of images with values outside of the range on which the classifier was trained.
    digests : tuple of str
        Content digests of the images; byte-identical ones of one class count once in the metrics.
    reasons : tuple of str
        Why an image has no label: ``"unsure"`` or ``"unknown"``; empty for one that has.
    sets : array or None
        bool (images, classes): whether the class is in the image's prediction set; None if there
        are none.
    """

    evaluation: Evaluation
    dataset: ImageDataset
    probabilities: NDArray[np.float32]
    problems: tuple[ImageError, ...]
    unknown_classes: dict[str, int]
    absent_classes: tuple[str, ...]
    trained_on: NDArray[np.bool_] | None = None
    problem_labels: tuple[str | None, ...] = ()
    clipped: int = 0
    digests: tuple[str | None, ...] = ()
    reasons: tuple[Reason, ...] = ()
    sets: NDArray[np.bool_] | None = None

    def decided(self) -> DecidedImages:
        """Return how many images have a label, and how many of these are correct."""
        targets = class_indices(self.dataset.label, self._names())
        counted = distinct_images(self.digests, targets) if self.digests else targets >= 0
        reasons = np.array(self.reasons or ("",) * len(targets))[counted]
        right = (self.probabilities.argmax(1) == targets)[counted] if len(targets) else counted
        labelled = reasons == ""
        return DecidedImages(
            len(reasons),
            int(labelled.sum()),
            int(right[labelled].sum()),
            {name: int((reasons == name).sum()) for name in ("unsure", "unknown")},
        )

    def set_sizes(self) -> SetSizes | None:
        """Return size and coverage of the prediction sets; None if there are none."""
        if self.sets is None:
            return None
        targets = class_indices(self.dataset.label, self._names())
        counted = distinct_images(self.digests, targets) if self.digests else targets >= 0
        inside, labels = self.sets[counted], targets[counted]
        sizes = np.bincount(inside.sum(axis=1))
        return SetSizes(len(labels), int(inside[np.arange(len(labels)), labels].sum()), sizes)

    def _names(self) -> tuple[str, ...]:
        return tuple(score.name for score in self.evaluation.classes)

    def counted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of the images that count, without copies, and their class indices."""
        classes = tuple(score.name for score in self.evaluation.classes)
        targets = class_indices(self.dataset.label, classes)
        digests = self.digests or (None,) * len(targets)
        rows = np.flatnonzero(distinct_images(digests, targets))
        return rows, targets[rows]

    def trained_images(self) -> int:
        """Return how many of the images were trained on, copies counted once; 0 if not recorded."""
        if self.trained_on is None:
            return 0
        unseen = self.evaluate_unseen()
        return self.evaluation.images - (0 if unseen is None else unseen.images)

    def evaluate_unseen(self) -> Evaluation | None:
        """Return the metrics on images that were not trained on; None if there are none."""
        if self.trained_on is None or self.trained_on.all():
            return None
        unseen = np.flatnonzero(~self.trained_on)
        classes = self._names()
        targets = class_indices(self.dataset[unseen].label, classes)
        digests = [self.digests[row] for row in unseen] if self.digests else None
        return evaluate(self.probabilities[unseen], targets, classes, digests)


def evaluate_dataset(
    dataset: ImageDataset,
    bundle: Bundle,
    predict: Callable[[ImageDataset, ImageObserver], Iterator[Prediction]],
    quantiles: NDArray[np.float64] | None,
    progress: Callable[[str, int, int], None] | None = None,
) -> DatasetEvaluation:
    """Return the evaluation of a bundle, as :meth:`kindsight.Predictor.evaluate`.

    `predict` yields the predictions of a dataset; `quantiles` are those of its prediction sets.
    """
    classes = bundle.classes
    dataset = rename_labels(dataset, {}, classes)
    known = [row for row, label in enumerate(dataset.label) if label in classes]
    unknown = Counter(label for label in dataset.label if label and label not in classes)
    if unknown and not known:
        raise DatasetError(
            f"None of the classes of the data is known to the classifier: the data have "
            f"{quoted_list(dataset.present_classes())}, the classifier {quoted_list(classes)}. "
            "Choose other data or another classifier, or rename the classes, such as with "
            "`label_map`; `label_names` names numbers in a table or arrays."
        )
    scored = dataset[np.array(known, np.int64)]
    detector = TrainingImageDetector.load(bundle.folder)
    report = progress or (lambda *_: None)
    report("evaluate", 0, len(scored))
    recorder = _DigestRecorder(detector)
    predictions = []
    for prediction in predict(scored, recorder):
        predictions.append(prediction)
        report("evaluate", len(predictions), len(scored))
    good = np.array([row for row, p in enumerate(predictions) if p.error is None], np.int64)
    readable = scored[good]
    probabilities = np.array([predictions[row].probabilities for row in good], np.float32)
    probabilities = probabilities.reshape(len(good), len(classes))
    present = set(readable.label)
    digests = tuple(recorder.digests[row] for row in good.tolist())
    problems = [
        (p.error, label)
        for label, p in zip(scored.label, predictions, strict=True)
        if p.error is not None
    ]
    return DatasetEvaluation(
        evaluate(probabilities, class_indices(readable.label, classes), classes, digests),
        readable,
        probabilities,
        tuple(error for error, _ in problems),
        dict(sorted(unknown.items())),
        tuple(name for name in classes if name not in present),
        None if detector is None else detector.trained_on(good.tolist()),
        tuple(label for _, label in problems),
        sum(p.is_clipped for p in predictions),
        digests,
        tuple(predictions[row].reason for row in good),
        None if quantiles is None else ConformalSets.contains(probabilities, quantiles),
    )


class _DigestRecorder:
    """Records the digest of each image of a prediction stream, for copies."""

    def __init__(self, detector: TrainingImageDetector | None) -> None:
        self.digests: dict[int, str] = {}
        self._detector = detector

    def observe(self, row: int, data: bytes | NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
        """Record an image; called on many threads."""
        self.digests[row] = content_digest(data)
        if self._detector is not None:
            self._detector.observe(row, data, pixels)
