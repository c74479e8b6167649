"""The evaluation of a classifier on labelled images, from the predictions of its bundle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.dataset.labels import class_indices
from kindsight.dataset.loaders.renames import rename_labels
from kindsight.dataset.names import quoted_list
from kindsight.dataset.table import ImageDataset
from kindsight.digest import Digests
from kindsight.errors import DatasetError, ImageError
from kindsight.evaluation import Evaluation, distinct_images, evaluate
from kindsight.evaluation.conformal import ConformalSets
from kindsight.network_outputs import ImageObserver, Needs, NetworkOutputs
from kindsight.trained_images import TrainedImages
from kindsight.uncertainty.prediction import Prediction, Reason

__all__ = ["DatasetEvaluation", "DecidedImages", "SetSizes", "evaluate_dataset"]


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
    digests : sequence of str
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
    digests: Digests = field(default_factory=Digests)
    reasons: tuple[Reason, ...] = ()
    sets: NDArray[np.bool_] | None = None

    def decided(self) -> DecidedImages:
        """Return how many images have a label, and how many of these are correct."""
        targets = class_indices(self.dataset.label, self._names())
        counted = distinct_images(self.digests, targets) if self.digests else targets >= 0
        reasons = np.array(self.reasons or ("",) * len(targets), object)[counted]
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
        counted = distinct_images(self.digests, targets) if self.digests else targets >= 0
        rows = np.flatnonzero(counted)
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
        digests = self.digests[unseen] if self.digests else None
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

    While images are predicted, an image takes 4 bytes for each class and 25 bytes (57 with a record
    of the training images), and no Python object. The metrics take some 25 bytes for each class and
    image for a while.
    """
    classes = bundle.classes
    dataset = rename_labels(dataset, {}, classes)
    scored, unknown = _known_classes(dataset, classes)
    trained = TrainedImages.read(bundle.folder)
    report = progress or (lambda *_: None)
    report("evaluate", 0, len(scored))
    contents = _Contents(len(scored), trained is not None)
    found = _Predicted(scored, classes)
    for row, prediction in enumerate(predict(scored, contents)):
        found.add(row, prediction)
        report("evaluate", row + 1, len(scored))
    good = found.readable()
    readable = scored if len(good) == len(scored) else scored[good]
    probabilities = found.probabilities[: len(good)]
    present = set(readable.label)
    digests = Digests(contents.digests if len(good) == len(scored) else contents.digests[good])
    return DatasetEvaluation(
        evaluate(probabilities, class_indices(readable.label, classes), classes, digests),
        readable,
        probabilities,
        tuple(error for error, _ in found.problems),
        dict(sorted(unknown.items())),
        tuple(name for name in classes if name not in present),
        None if trained is None else trained.contains(digests, contents.hashes[good]),
        tuple(label for _, label in found.problems),
        found.clipped,
        digests,
        found.reasons(),
        None if quantiles is None else _sets(probabilities, quantiles),
    )


def _known_classes(
    dataset: ImageDataset, classes: tuple[str, ...]
) -> tuple[ImageDataset, Counter[str]]:
    """Return the images of the classifier's classes, and the numbers of those of others."""
    known = class_indices(dataset.label, classes, missing=-1) >= 0
    if known.all():
        return dataset, Counter()
    others = (dataset.label[row] for row in np.flatnonzero(~known).tolist())
    unknown = Counter(label for label in others if label)
    if unknown and not known.any():
        raise DatasetError(
            f"None of the classes of the data is known to the classifier: the data have "
            f"{quoted_list(dataset.present_classes())}, the classifier {quoted_list(classes)}. "
            "Choose other data or another classifier, or rename the classes, such as with "
            "`label_map`; `label_names` names numbers in a table or arrays."
        )
    return dataset[np.flatnonzero(known)], unknown


class _Predicted:
    """The predictions of a dataset as arrays; those of unreadable images are left out."""

    def __init__(self, dataset: ImageDataset, classes: tuple[str, ...]) -> None:
        self.probabilities = np.empty((len(dataset), len(classes)), np.float32)
        self.problems: list[tuple[ImageError, str | None]] = []
        self.clipped = 0
        self._dataset = dataset
        self._reason = np.zeros(len(dataset), np.uint8)
        self._unreadable: list[int] = []

    def add(self, row: int, prediction: Prediction) -> None:
        """Add the prediction of the next image."""
        self.clipped += prediction.is_clipped
        if prediction.error is not None:
            self.problems.append((prediction.error, self._dataset.label[row]))
            self._unreadable.append(row)
            return
        place = row - len(self.problems)
        self.probabilities[place] = prediction.probabilities
        self._reason[place] = _REASONS.index(prediction.reason)

    def readable(self) -> NDArray[np.int64]:
        """Return the rows of the readable images."""
        return np.delete(np.arange(len(self._dataset)), self._unreadable)

    def reasons(self) -> tuple[Reason, ...]:
        """Return why each readable image has no label."""
        codes = self._reason[: len(self._dataset) - len(self.problems)]
        return tuple(map(_REASONS.__getitem__, codes.tolist()))


_REASONS: tuple[Reason, ...] = ("", "unsure", "unknown")


class _Contents:
    """The digests of all images of a prediction stream, for copies; and their hashes if needed."""

    def __init__(self, images: int, hashes: bool) -> None:
        self.needs = Needs(digests=True, hashes=hashes)
        self.digests = np.zeros((images, 16), np.uint8)
        self.hashes = np.zeros((images if hashes else 0, 4), np.uint64)

    def observe(self, rows: NDArray[np.int64], seen: NetworkOutputs) -> None:
        """Record a block of images."""
        assert seen.digests is not None
        self.digests[rows] = seen.digests
        if seen.hashes is not None:
            self.hashes[rows] = seen.hashes


def _sets(probabilities: NDArray[np.float32], quantiles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which classes are in the prediction sets, bool (n, classes), in bounded memory."""
    inside = np.empty(probabilities.shape, np.bool_)
    for at in range(0, len(inside), _AT_ONCE):
        some = slice(at, at + _AT_ONCE)
        inside[some] = ConformalSets.contains(probabilities[some], quantiles)
    return inside


_AT_ONCE = 1 << 16
"""Images whose prediction sets are computed at once."""
