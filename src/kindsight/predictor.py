"""The light runtime: a bundle and images in, predictions out; NumPy, image decoders and LiteRT.

:class:`Predictor` is all that a program needs to use a classifier, and all that ``kindsight
predict`` and ``kindsight evaluate`` use::

    from kindsight import Predictor

    predictor = Predictor("runs/photos-1")
    for prediction in predictor.predict(["new/a.jpg", "new/b.jpg"]):
        print(prediction.path, prediction.label, prediction.confidence)

What happens between a file and its label, and where:

1. **Bundle** (:mod:`kindsight.bundle`). ``bundle.json`` has the classes, the size of the images and
   how they are resized, the temperature, and the rules by which an image gets no label.
   ``model.tflite`` is the network; its digest is compared with the recorded one.
2. **Read** (:mod:`kindsight.images.read`). The format is detected by content. The result is
   uint8 (height, width, 3), RGB, 0-255: EXIF orientation applied, CMYK and grey converted,
   transparency on white, 16 bits scaled to 8.
3. **Resize** (:mod:`kindsight.images.resize`) to uint8 (h, w, 3), by the rules of ``bundle.json``.
4. **Run** (:mod:`kindsight.models.runtime`). The network takes the pixels as float32, 0-255;
   scaling and normalisation are layers of it. It returns the logits ``z``, float32 (classes,), and
   for most bundles an out-of-distribution score.
5. **Probabilities**: ``p = exp(z / T) / sum(exp(z / T))`` with the temperature ``T``.
6. **Label** (:mod:`kindsight.uncertainty.prediction`). ``unknown`` if the score is above its
   threshold, else ``unsure`` if ``max(p)`` is below its own, else the most probable class.

Images are read and run in small batches on all cores, and predictions are yielded in the order of
the images. An unreadable image has a prediction with an ``error``. Memory does not grow with the
number of images.

Of other packages, this module and all that it imports use NumPy, OpenCV, Pillow, simplejpeg and
ai-edge-litert alone. TensorFlow, Keras, SciPy and scikit-learn need not be installed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from kindsight.bundle import Bundle, load_bundle
from kindsight.dataset.loaders.arrays import single_images, to_image
from kindsight.dataset.table import ImageDataset
from kindsight.errors import BundleError, DatasetError, ImageError, UsageError
from kindsight.evaluation import to_probabilities
from kindsight.images import InputSpec, read_bytes, read_image, resize_image
from kindsight.images.convert import ValueScale
from kindsight.images.read import ImageSource, read_with_scale
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import in_batches, map_ordered, single_threaded_opencv
from kindsight.uncertainty.prediction import Decisions, Prediction

if TYPE_CHECKING:
    from kindsight.dataset_evaluation import DatasetEvaluation, ImageObserver

__all__ = ["Prediction", "Predictor"]

_Read: TypeAlias = "tuple[NDArray[np.uint8], float] | ImageError"
"""The resized pixels and the fraction of values that were clipped, or why there are none."""

BATCH = 8
"""Images that a thread reads, and then runs through the network."""

AHEAD = 2
"""Batches per thread that may be queued."""


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
        from kindsight.dataset_evaluation import evaluate_dataset

        return evaluate_dataset(
            dataset, self.bundle, self.predict_dataset, self.decisions.quantiles, progress
        )


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
