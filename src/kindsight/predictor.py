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

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from kindsight.bundle import Bundle, load_bundle
from kindsight.dataset.loaders.arrays import single_images
from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.distributed import Executor, is_remote, open_executor, require_cluster
from kindsight.errors import BundleError, DatasetError, ImageError, UsageError
from kindsight.evaluation import to_probabilities
from kindsight.images.read import MAX_PIXELS, ImageSource
from kindsight.models.runtime import InterpreterPool
from kindsight.network_outputs import (
    BATCH,
    NO_NEEDS,
    DatasetRow,
    ImageObserver,
    Needs,
    NetworkOutputs,
    NetworkWorker,
    PixelsOfImage,
    compute_on,
    compute_outputs,
    fetched_ahead,
    read_source,
)
from kindsight.threads import in_batches, map_ordered, single_threaded_opencv
from kindsight.uncertainty.prediction import Decisions, Prediction

if TYPE_CHECKING:
    from kindsight.dataset_evaluation import DatasetEvaluation

__all__ = ["Prediction", "Predictor"]

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
    network : bytes, optional
        Content of the bundle's LiteRT file, which then is not read again: the file may change while
        the predictor is in use.
    on : str, optional
        Where images are read and run through the network: ``"local"``, on the threads of this
        process; ``"ray"``, on the Ray cluster of the environment variable RAY_ADDRESS or else on
        one that is started on this machine; or ``"ray://HOST:PORT"``. Predictions and their order
        are the same. The cluster is joined or started when the first image is predicted. Use the
        predictor in a ``with`` block, or close it, to leave the cluster. :meth:`predict_bytes` and
        :meth:`predict_here` run in this process.

    Raises
    ------
    BundleError
        For a missing or damaged bundle.
    SettingsError
        For a target that cannot be promised, or if the bundle lacks what is needed.
    ClusterError
        If a cluster cannot be used.
    MissingExtraError
        If Ray is needed and not installed.
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
        network: bytes | None = None,
        on: str | None = None,
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
        self._pool = InterpreterPool(self.bundle.tflite, workers, content=network)
        expected = (self.bundle.spec.size, len(self.bundle.classes))
        if (self._pool.size, self._pool.width) != expected or self._pool.second_width > 1:
            raise BundleError(
                f"{self.bundle.tflite} does not match bundle.json: the network takes images of "
                f"{self._pool.size} and returns {self._pool.width} logits, but bundle.json says "
                f"{expected[0]} and {expected[1]}. Restore the bundle, or train again."
            )
        self._network = network
        require_cluster(on)
        self._on = on if is_remote(on) else None
        self._cluster = ExitStack()
        self._executor: Executor | None = None

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, if there is one; predictions are then made on this machine."""
        self._cluster.close()
        self._on = self._executor = None

    @property
    def on_cluster(self) -> bool:
        """Whether images are read and run on a cluster."""
        return self._on is not None

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

    def predict_named(self, images: Iterable[tuple[str, Any]]) -> Generator[Prediction, None, None]:
        """Yield a prediction for each pair of a name, which becomes its path, and an image.

        Images are as for :meth:`predict`, or a :class:`.network_outputs.DatasetRow`.
        """
        return self._stream(images)

    def predict_bytes(self, data: bytes, name: str = "-") -> Prediction:
        """Return the prediction for the content of an image file; `name` becomes its path."""
        with single_threaded_opencv():
            return self.predict_here([(name, data)])[0]

    def load_networks(self) -> None:
        """Load the networks of all threads now; otherwise, a thread's first image takes longer."""
        self._pool.load_all()

    def predict_here(
        self,
        images: Sequence[tuple[str, bytes | NDArray[np.uint8]]],
        *,
        decisions: Decisions | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> list[Prediction]:
        """Return predictions of image files' contents or pixels, computed on the calling thread.

        For programs with their own threads. Up to `workers` threads may call it at once; each
        runs the network on one core. OpenCV's threads are theirs to limit.

        Parameters
        ----------
        images : sequence of (str, bytes or array)
            Name, which becomes the prediction's path, and content of each file, or pixels, uint8
            (height, width, 3), RGB.
        decisions : Decisions, optional
            In place of the predictor's own rules.
        max_pixels : int
            Limit of pixels (height times width) of an image, checked before it is decoded.
        """
        read = [
            read_source(row, data, self.bundle.spec, max_pixels=max_pixels)
            for row, (_, data) in enumerate(images)
        ]
        return self._predictions([name for name, _ in images], self._run(read), decisions)

    def predict_dataset(
        self,
        dataset: ImageDataset,
        observer: ImageObserver | None = None,
    ) -> Iterator[Prediction]:
        """Yield a prediction for each image of a dataset, in its order.

        The dataset is of files or arrays; an `observer` observes each image. Raises `DatasetError`
        for arrays that were scaled by another range than those of the training.
        """
        self.check_range(dataset)
        images = ((name, DatasetRow(dataset, row)) for row, name in enumerate(dataset.path))
        return self._stream(images, observer)

    def check_range(self, dataset: ImageDataset) -> None:
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
        observer: ImageObserver | None = None,
    ) -> Generator[Prediction, None, None]:
        """Predict for pairs of a name and a source; see :func:`.network_outputs.read_source`."""
        first = 0
        for outputs, predictions in self._computed(
            images, NO_NEEDS if observer is None else observer.needs
        ):
            if observer is not None:
                observer.observe(first + outputs.readable, outputs)
            first += len(predictions)
            yield from predictions

    def _computed(
        self, images: Iterable[tuple[str, Any]], needs: Needs
    ) -> Iterator[tuple[NetworkOutputs, list[Prediction]]]:
        """Yield outputs and predictions of the images, a block at a time, in their order."""
        if self._on is not None:
            iterator = iter(images)
            for first in iterator:  # without an image, no cluster is started
                executor = self._open_executor(self._on)
                worker = self._worker(executor, needs)
                for names, outputs in compute_on(executor, worker, chain([first], iterator)):
                    yield outputs, self._predictions(names, outputs)
            return

        def compute(
            batch: list[tuple[int, tuple[str, Any]]],
        ) -> tuple[NetworkOutputs, list[Prediction]]:
            # Alternating image by image, the network and the decoder evict each other from the
            # processor's cache.
            read = [read_source(row, source, self.bundle.spec, needs) for row, (_, source) in batch]
            outputs = self._run(read, needs)
            return outputs, self._predictions([name for _, (name, _) in batch], outputs)

        with single_threaded_opencv():
            # As many threads as networks: one more, to read ahead, was measured a tenth slower.
            batches = in_batches(enumerate(fetched_ahead(images)), BATCH, self._pool.workers)
            yield from map_ordered(compute, batches, self._pool.workers, AHEAD)

    def _open_executor(self, on: str) -> Executor:
        """Return the executor of the cluster; the first call joins or starts it."""
        if self._executor is None:
            self._executor = self._cluster.enter_context(open_executor(on))
        assert self._executor is not None
        return self._executor

    def _worker(self, executor: Executor, needs: Needs) -> NetworkWorker:
        """Send the network to a cluster; return what makes its workers' functions."""
        content = self._network or self.bundle.tflite.read_bytes()
        return NetworkWorker(
            executor.share(content), content_digest(content), str(self.bundle.tflite),
            self.bundle.spec, len(self.classes), needs,
        )  # fmt: skip

    def _run(
        self, read: Sequence[PixelsOfImage | ImageError], needs: Needs = NO_NEEDS
    ) -> NetworkOutputs:
        return compute_outputs(read, self._pool.run_both, len(self.classes), needs)

    def _predictions(
        self,
        names: Sequence[str],
        outputs: NetworkOutputs,
        decisions: Decisions | None = None,
    ) -> list[Prediction]:
        """Return the predictions of a block of images, by the bundle's rules or others."""
        logits = outputs.logits
        finite = np.asarray(np.isfinite(logits).all(axis=1), np.bool_)
        probabilities = np.zeros(logits.shape, np.float32)
        probabilities[finite] = to_probabilities(logits[finite], self.bundle.temperature)
        rows = iter(range(len(logits)))
        rules = decisions or self.decisions
        predictions = []
        for position, name in enumerate(names):
            if position in outputs.errors:
                error = ImageError(*outputs.errors[position], name)
                predictions.append(Prediction(name, self.classes, error=error))
                continue
            row = next(rows)
            if finite[row]:
                found = Prediction(
                    name, self.classes, logits[row], probabilities[row],
                    clipped=float(outputs.clipped[row]), ood_score=_score(outputs, row),
                )  # fmt: skip
                predictions.append(rules.decide(found))
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


def _score(outputs: NetworkOutputs, row: int) -> float | None:
    """Return the score, of a network that has one; the largest float32 where it overflowed."""
    if outputs.scores is None:
        return None
    score = outputs.scores[row]
    return float(score if np.isfinite(score) else np.finfo(np.float32).max)


def _name(image: Any, i: int) -> str:
    """Return the path of an image's file; for one without, its number."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    # Files have `name`, Pillow images `filename`; either may be missing or a number.
    name = getattr(image, "filename", "") or getattr(image, "name", "")
    return name if isinstance(name, str) and name else f"image-{i:06d}"


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
