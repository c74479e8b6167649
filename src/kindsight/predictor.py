"""From a bundle to answers: files in, predictions out, in the same order and as they are made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle, load_bundle
from kindsight.dataset.labels import class_indices
from kindsight.errors import BundleError, ImageError, UsageError
from kindsight.evaluation import Evaluation, evaluate, to_probabilities
from kindsight.images import read_bytes, read_image, resize_image
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import in_batches, map_ordered, single_threaded_opencv

if TYPE_CHECKING:
    from kindsight.dataset import ImageDataset
    from kindsight.trained_images import Recognition

__all__ = ["ImageDatasetScores", "Prediction", "Predictor"]

# Images that a thread takes at once: it reads them, then runs the network on them.
BUNDLE = 8
# Bundles for each thread that may wait for their turn.
AHEAD = 2


@dataclass(frozen=True)
class Prediction:
    """The answer for one image, or why there is none.

    Parameters
    ----------
    path : str
        As it was given.
    classes : tuple of str
        The classifier's classes.
    logits : array or None
        float32 (classes,); None for an image that cannot be read.
    probabilities : array or None
        float32 (classes,), each 0 to 1, together 1.
    error : ImageError or None
        Why there is no answer.
    """

    path: str
    classes: tuple[str, ...]
    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    error: ImageError | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        if self.probabilities is None:
            return None
        return self.classes[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float | None:
        """The probability of that class, 0 to 1."""
        return None if self.probabilities is None else float(self.probabilities.max())

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the `count` most probable classes with their probabilities."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]


@dataclass(frozen=True)
class ImageDatasetScores:
    """How a classifier does on labelled images.

    Parameters
    ----------
    evaluation : Evaluation
        Of the images that could be read and whose class the classifier knows.
    dataset : ImageDataset
        Those images.
    probabilities : array
        float32 (images, classes), in that order.
    problems : tuple of ImageError
        Images that cannot be read.
    unknown : dict
        Classes of the data that the classifier does not know, with their counts: not scored.
    absent : tuple of str
        Classes of the classifier of which the data have no image.
    trained_on : array or None
        bool (images,): which of them it was trained on, the same file or the same image
        stored anew; None where the classifier does not say what it was trained on.
    """

    evaluation: Evaluation
    dataset: ImageDataset
    probabilities: NDArray[np.float32]
    problems: tuple[ImageError, ...]
    unknown: dict[str, int]
    absent: tuple[str, ...]
    trained_on: NDArray[np.bool_] | None = None

    def unseen(self) -> Evaluation | None:
        """Score the images that it was not trained on; None where there is none."""
        if self.trained_on is None or self.trained_on.all():
            return None
        fresh = np.flatnonzero(~self.trained_on)
        classes = tuple(score.name for score in self.evaluation.classes)
        targets = class_indices(self.dataset[fresh].label, classes)
        return evaluate(self.probabilities[fresh], targets, classes)


class Predictor:
    """A bundle ready to answer, without TensorFlow.

    Parameters
    ----------
    bundle : Bundle or path
        A bundle, or the folder of one.
    workers : int, optional
        How many images are run at once; the number of cores if omitted.

    Raises
    ------
    BundleError
        For a bundle that is absent or damaged.
    """

    def __init__(
        self, bundle: Bundle | str | os.PathLike[str], *, workers: int | None = None
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._pool = InterpreterPool(self.bundle.tflite, workers)
        expected = (self.bundle.spec.size, len(self.bundle.classes))
        if (self._pool.size, self._pool.width) != expected:
            raise BundleError(
                f"{self.bundle.tflite} must take images of {expected[0]} and give "
                f"{expected[1]} logits. It takes {self._pool.size} and gives {self._pool.width}."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.bundle.classes

    def predict(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Prediction]:
        """Answer for files, one by one; memory does not depend on how many there are.

        Parameters
        ----------
        paths : iterable of path
            Taken as needed.

        Yields
        ------
        Prediction
            In the order of `paths`; one that cannot be read has an error in place of an answer.

        Raises
        ------
        UsageError
            For a single path in place of several.
        """
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise UsageError(
                f"Files are given as a list of paths. Received: the single path {paths!r}. "
                "Put it in a list: [path]."
            )
        return self._stream(os.fspath(path) for path in paths)

    def predict_dataset(
        self, dataset: ImageDataset, recognition: Recognition | None = None
    ) -> Iterator[Prediction]:
        """Answer for the images of a dataset, files or arrays, in its order.

        `recognition` is shown each of them.
        """
        return self._stream(dataset.path, dataset, recognition)

    def _stream(
        self,
        names: Iterable[str],
        dataset: ImageDataset | None = None,
        recognition: Recognition | None = None,
    ) -> Iterator[Prediction]:
        def read(row: int, name: str) -> NDArray[np.uint8] | ImageError:
            try:
                data = read_bytes(name) if dataset is None else dataset.load(row)
                image = (
                    read_image(data, target=self.bundle.spec.size)
                    if isinstance(data, bytes)
                    else data
                )
                pixels = resize_image(image, self.bundle.spec)
            except ImageError as error:
                return error
            if recognition is not None:
                recognition.see(row, data, pixels)
            return pixels

        def answer(bundle: list[tuple[int, str]]) -> list[Prediction]:
            # One after the other the network and the decoder push each other out of the cache.
            return self._answers([name for _, name in bundle], [read(*item) for item in bundle])

        with single_threaded_opencv():
            # As many threads as networks: one more, to read ahead, was measured a tenth slower.
            bundles = in_batches(enumerate(names), BUNDLE, self._pool.workers)
            for answers in map_ordered(answer, bundles, self._pool.workers, AHEAD):
                yield from answers

    def _answers(
        self, names: Sequence[str], images: Sequence[NDArray[np.uint8] | ImageError]
    ) -> list[Prediction]:
        """Run the network on those images that could be read."""
        good = [image for image in images if not isinstance(image, ImageError)]
        found = self._pool.run_all(good)
        shape = (len(good), len(self.classes))
        table = np.array(found, np.float32).reshape(shape)
        finite = np.asarray(np.isfinite(table).all(axis=1), np.bool_)
        probabilities = np.zeros(shape, np.float32)
        probabilities[finite] = to_probabilities(table[finite], self.bundle.temperature)
        rows = zip(table, probabilities, finite.tolist(), strict=True)
        answers = []
        for name, image in zip(names, images, strict=True):
            error = image if isinstance(image, ImageError) else None
            if error is None:
                logits, shares, is_finite = next(rows)
                if is_finite:
                    answers.append(Prediction(name, self.classes, logits, shares))
                    continue
                error = ImageError("corrupt", "The network's answer to it is not finite.")
            answers.append(Prediction(name, self.classes, error=_at(error, name)))
        return answers

    def evaluate(self, dataset: ImageDataset) -> ImageDatasetScores:
        """Answer for labelled images and score the answers.

        Parameters
        ----------
        dataset : ImageDataset
            With labels; its classes need not be the classifier's.

        Raises
        ------
        UsageError
            If no image is left that can be scored.
        """
        known = [row for row, label in enumerate(dataset.label) if label in self.classes]
        unknown = Counter(label for label in dataset.label if label and label not in self.classes)
        scored = dataset[np.array(known, np.int64)]
        # Of no use to a prediction, which is to start at once.
        from kindsight.trained_images import Recognition

        recognition = Recognition.of(self.bundle.folder)
        answers = list(self.predict_dataset(scored, recognition))
        good = np.array([row for row, answer in enumerate(answers) if answer.error is None], int)
        kept = scored[good]
        targets = class_indices(kept.label, self.classes)
        table = np.array([answers[row].probabilities for row in good], np.float32)
        present = set(kept.label)
        return ImageDatasetScores(
            evaluate(table.reshape(len(good), len(self.classes)), targets, self.classes),
            kept,
            table,
            tuple(answer.error for answer in answers if answer.error is not None),
            dict(sorted(unknown.items())),
            tuple(name for name in self.classes if name not in present),
            None if recognition is None else recognition.known(good.tolist()),
        )


def _at(error: ImageError | None, path: str) -> ImageError | None:
    return None if error is None else ImageError(error.code, error.reason, path)
