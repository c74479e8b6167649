"""Predictions of a bundle, streamed in the order of the images; without TensorFlow."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from kindsight.bundle import Bundle, load_bundle
from kindsight.dataset.labels import class_indices
from kindsight.dataset.loaders.arrays import single_images, to_image
from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.errors import BundleError, DatasetError, ImageError, UsageError
from kindsight.evaluation import Evaluation, distinct_images, evaluate, to_probabilities
from kindsight.images import InputSpec, read_bytes, read_image, resize_image
from kindsight.images.convert import ValueScale
from kindsight.images.read import ImageSource, read_with_scale
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import in_batches, map_ordered, single_threaded_opencv
from kindsight.uncertainty.prediction import Decisions, Prediction, Reason

if TYPE_CHECKING:
    from kindsight.trained_images import TrainingImageDetector

__all__ = [
    "DatasetEvaluation",
    "DecidedImages",
    "ImageObserver",
    "Prediction",
    "Predictor",
    "SetSizes",
]

_Read: TypeAlias = "tuple[NDArray[np.uint8], float] | ImageError"
"""The resized pixels and the fraction of values that were clipped, or why there are none."""

BATCH = 8
"""Images that a thread reads, and then runs through the network."""

AHEAD = 2
"""Batches per thread that may be queued."""


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


class Predictor:
    """A loaded bundle that predicts, without TensorFlow.

    Parameters
    ----------
    bundle : Bundle or path
    workers : int, optional
        Images processed at once; the number of cores by default.
    always : bool
        Whether every image gets a label, however low its confidence.
    target_accuracy, target_coverage : float, optional
        Accuracy of the labelled images, or fraction of images that are labelled, 0 to 1; in place
        of the training's. The others are unsure. The threshold of confidence follows from the
        predictions of held-out images in the bundle.
    sets : float, optional
        Confidence level of prediction sets, 0 to 1; without it there are none.
    sets_per_class : bool, optional
        Whether this level is promised for each class; as in the bundle by default.

    Raises
    ------
    BundleError
        For a missing or damaged bundle.
    SettingsError
        For a target that cannot be promised, or if the bundle lacks what is needed.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        workers: int | None = None,
        always: bool = False,
        target_accuracy: float | None = None,
        target_coverage: float | None = None,
        sets: float | None = None,
        sets_per_class: bool | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.decisions = Decisions.load(
            self.bundle,
            always=always,
            target_accuracy=target_accuracy,
            target_coverage=target_coverage,
            sets=sets,
            sets_per_class=sets_per_class,
        )
        self._pool = InterpreterPool(self.bundle.tflite, workers)
        expected = (self.bundle.spec.size, len(self.bundle.classes))
        if (self._pool.size, self._pool.width) != expected or self._pool.second_width > 1:
            raise BundleError(
                f"{self.bundle.tflite} does not match bundle.json: the network takes images of "
                f"{self._pool.size} and returns {self._pool.width} logits, but bundle.json says "
                f"{expected[0]} and {expected[1]}. Restore the bundle, or train again."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.bundle.classes

    def predict(
        self, images: Iterable[ImageSource | ArrayLike] | ImageSource | ImageDataset
    ) -> Iterator[Prediction]:
        """Yield a prediction for each image; memory does not grow with their number.

        Parameters
        ----------
        images : iterable
            Each image is a path, the bytes of a file, a file opened in binary mode, a Pillow image,
            or an array as for :meth:`kindsight.ImageDataset.from_arrays`. Also one array of several
            images, a dataset, or a single image that is no array.

        Yields
        ------
        Prediction
            In the order of `images`, with an `error` for an unreadable image. Its ``path`` is that
            of the image, or ``image-000003`` for the fourth if it has none.

        Raises
        ------
        UsageError
            For anything that is not an image; DatasetError for an array of another kind.
        """
        if isinstance(images, ImageDataset):
            return self.predict_dataset(images)
        several = _as_iterable(images)
        return self._stream((_name(image, i), image) for i, image in enumerate(several))

    def predict_bytes(self, data: bytes, name: str = "-") -> Prediction:
        """Return the prediction for the content of an image file; `name` becomes its path."""
        (prediction,) = self._stream([(name, data)])
        return prediction

    def predict_dataset(
        self,
        dataset: ImageDataset,
        detector: ImageObserver | None = None,
    ) -> Iterator[Prediction]:
        """Yield a prediction for each image of a dataset, in its order.

        The dataset is of files or arrays; a `detector` observes each image. Raises `DatasetError`
        for arrays that were scaled by another range than those of the training.
        """
        self._check_range(dataset)
        return self._stream(((name, None) for name in dataset.path), dataset, detector)

    def _check_range(self, dataset: ImageDataset) -> None:
        """Raise DatasetError for arrays that were scaled by another range than the training's."""
        trained, given = self.bundle.spec.value_range, dataset.value_range
        if dataset.arrays is None or given in (None, trained, (0.0, 1.0)):
            return
        if trained is None:
            rule = "was trained on values from 0 to 255. Convert the arrays to uint8 in that range"
        else:
            rule = f"was trained on another. Open the arrays with value_range={trained}"
        raise DatasetError(
            f"The arrays were scaled by the range {given}, and the classifier {rule}."
        )

    def _stream(
        self,
        images: Iterable[tuple[str, Any]],
        dataset: ImageDataset | None = None,
        detector: ImageObserver | None = None,
    ) -> Iterator[Prediction]:
        """Predict for pairs of a name and an image; with a dataset, its rows are read instead."""
        spec = self.bundle.spec

        def read(row: int, source: Any) -> _Read:
            scale = ValueScale(spec.value_range)
            try:
                if dataset is None:
                    return resize_image(_read(row, source, spec, scale), spec), _clipped(scale)
                data = dataset.load(row)
                if isinstance(data, bytes):
                    image = read_with_scale(data, scale, target=spec.size)
                else:
                    image = data
                pixels = resize_image(image, spec)
            except ImageError as error:
                return error
            if detector is not None:
                detector.observe(row, data, pixels)
            return pixels, _clipped(scale)

        def predict(batch: list[tuple[int, tuple[str, Any]]]) -> list[Prediction]:
            # Alternating image by image, the network and the decoder evict each other from the
            # processor's cache.
            read_images = [read(row, source) for row, (_, source) in batch]
            return self._predict([name for _, (name, _) in batch], read_images)

        with single_threaded_opencv():
            # As many threads as networks: one more, to read ahead, was measured a tenth slower.
            batches = in_batches(enumerate(images), BATCH, self._pool.workers)
            for predictions in map_ordered(predict, batches, self._pool.workers, AHEAD):
                yield from predictions

    def _predict(self, names: Sequence[str], images: Sequence[_Read]) -> list[Prediction]:
        readable = [image[0] for image in images if not isinstance(image, ImageError)]
        shape = (len(readable), len(self.classes))
        outputs = self._pool.run_both(readable)
        logits = np.array([output for output, _ in outputs], np.float32).reshape(shape)
        finite = np.asarray(np.isfinite(logits).all(axis=1), np.bool_)
        probabilities = np.zeros(shape, np.float32)
        probabilities[finite] = to_probabilities(logits[finite], self.bundle.temperature)
        rows = iter(range(len(readable)))
        predictions = []
        for name, image in zip(names, images, strict=True):
            if isinstance(image, ImageError):
                predictions.append(Prediction(name, self.classes, error=image.at(name)))
                continue
            row = next(rows)
            if finite[row]:
                found = Prediction(
                    name, self.classes, logits[row], probabilities[row], clipped=image[1],
                    ood_score=_finite(outputs[row][1]),
                )  # fmt: skip
                predictions.append(self.decisions.decide(found))
            else:
                error = ImageError("corrupt", "Its logits are not finite.", name)
                predictions.append(Prediction(name, self.classes, error=error))
        return predictions

    def evaluate(
        self, dataset: ImageDataset, progress: Callable[[str, int, int], None] | None = None
    ) -> DatasetEvaluation:
        """Evaluate the classifier on labelled images.

        Parameters
        ----------
        dataset : ImageDataset
            With labels; its classes may differ from the classifier's.
        progress : callable, optional
            Called with ("evaluate", done, total) after each image.

        Raises
        ------
        DatasetError
            If no label is a class of the classifier.
        UsageError
            If no image can be scored.
        """
        # Imported here so that predicting starts quickly.
        from kindsight.dataset.loaders.renames import rename_labels
        from kindsight.dataset.names import quoted_list
        from kindsight.evaluation.conformal import ConformalSets
        from kindsight.trained_images import TrainingImageDetector

        dataset = rename_labels(dataset, {}, self.classes)
        known = [row for row, label in enumerate(dataset.label) if label in self.classes]
        unknown = Counter(label for label in dataset.label if label and label not in self.classes)
        if unknown and not known:
            raise DatasetError(
                f"None of the classes of the data is known to the classifier: the data have "
                f"{quoted_list(dataset.present_classes())}, the classifier "
                f"{quoted_list(self.classes)}. Choose other data or another classifier, or rename "
                "the classes, such as with `label_map`; `label_names` names numbers in a table or "
                "arrays."
            )
        scored = dataset[np.array(known, np.int64)]
        detector = TrainingImageDetector.load(self.bundle.folder)
        report = progress or (lambda *_: None)
        report("evaluate", 0, len(scored))
        recorder = _DigestRecorder(detector)
        predictions = []
        for prediction in self.predict_dataset(scored, recorder):
            predictions.append(prediction)
            report("evaluate", len(predictions), len(scored))
        good = np.array([row for row, p in enumerate(predictions) if p.error is None], np.int64)
        readable = scored[good]
        probabilities = np.array([predictions[row].probabilities for row in good], np.float32)
        present = set(readable.label)
        digests = tuple(recorder.digests[row] for row in good.tolist())
        return DatasetEvaluation(
            evaluate(
                probabilities.reshape(len(good), len(self.classes)),
                class_indices(readable.label, self.classes),
                self.classes,
                digests,
            ),
            readable,
            probabilities,
            tuple(p.error for p in predictions if p.error is not None),
            dict(sorted(unknown.items())),
            tuple(name for name in self.classes if name not in present),
            None if detector is None else detector.trained_on(good.tolist()),
            tuple(
                label
                for label, p in zip(scored.label, predictions, strict=True)
                if p.error is not None
            ),
            sum(p.is_clipped for p in predictions),
            digests,
            tuple(predictions[row].reason for row in good),
            None if self.decisions.quantiles is None
            else ConformalSets.contains(probabilities, self.decisions.quantiles),
        )  # fmt: skip


def _finite(second: NDArray[np.float32]) -> float | None:
    """Return the score, of a network that has one; the largest float32 where it overflowed."""
    if not len(second):
        return None
    return float(second[0] if np.isfinite(second[0]) else np.finfo(np.float32).max)


def _clipped(scale: ValueScale) -> float:
    """Return the fraction of samples outside of the training's range; all, if it had none."""
    if scale.value_range is None:
        return float(math.isfinite(scale.low) and not scale.stated)
    return scale.clipped


def _name(image: Any, i: int) -> str:
    """Return the path of an image's file; for one without, its number."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    # Files have `name`, Pillow images `filename`; either may be missing or a number.
    name = getattr(image, "filename", "") or getattr(image, "name", "")
    return name if isinstance(name, str) and name else f"image-{i:06d}"


def _read(i: int, source: Any, spec: InputSpec, scale: ValueScale) -> NDArray[np.uint8]:
    # A name in a NumPy array is both a string and an array without dimensions.
    is_array = hasattr(source, "__array__") and not isinstance(source, (str, bytes))
    if is_array or isinstance(source, (list, tuple)):
        return to_image(source, i, spec.value_range)
    if isinstance(source, (str, os.PathLike)):
        return read_with_scale(read_bytes(source), scale, target=spec.size)
    return read_image(source, target=spec.size, value_range=spec.value_range)


def _as_iterable(images: Any) -> Iterable[Any]:
    """Return images one by one; a single one is a list of one. A file object is iterable, too."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    if isinstance(images, kinds) or hasattr(images, "read"):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim != 1:
        return single_images(images)
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return images
    # The value is not shown: it may have millions of bytes.
    raise UsageError(
        f"`images` must be a list of paths, arrays or images; got {type(images).__name__}."
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
