"""Suggest which unlabelled images to label next."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.dataset import DataOptions, ImageDataset, open_dataset
from kindsight.digest import Digests
from kindsight.errors import DatasetError, ImageError, SettingsError
from kindsight.files import write_csv
from kindsight.images import read_loaded, resize_image
from kindsight.models.head_network import FeatureNetwork
from kindsight.network_outputs import Needs, NetworkOutputs
from kindsight.predictor import Predictor
from kindsight.report.format import percent
from kindsight.runs.more_images.select import (
    Candidate,
    Shortlist,
    select_diverse,
    selection_space,
)
from kindsight.storage.address import join
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv
from kindsight.trained_images import TrainedImages
from kindsight.training.common import Progress
from kindsight.uncertainty.prediction import Prediction

__all__ = ["Suggestion", "Suggestions", "suggest"]

COUNT = 50
MOST = 2000
"""Maximum number of suggestions; the features of several times as many images are in memory."""

SHORTLIST = 6
"""Candidates for each suggestion, by uncertainty.

With 3 and with 15, the gain over random images was the same within noise; with 1, two thirds of
it."""

UNKNOWN_SHARE = 0.2
"""Maximum fraction of the suggestions that the classifier calls unknown.

Some of them belong to no class, and some show what the labelled images lack."""

SHOWN_IN_NOTEBOOK = 12
"""Maximum number of images that a notebook shows."""

CHUNK = 512
"""Number of predictions that are compared with the training images at once."""

CERTAIN = 0.5
"""Margin between the two most probable classes from which an image is not called uncertain."""


@dataclass(frozen=True)
class Suggestion:
    """An image that should be labelled.

    Parameters
    ----------
    rank : int
        From 1, the most useful first.
    path : str
        Path in the dataset.
    row : int
        Row of the dataset.
    reason : str
        Why it was chosen, in words.
    prediction : str
        The most probable class.
    confidence : float
        Its probability, 0-1.
    second : str
        The second most probable class.
    unknown : bool
        Whether the classifier calls it unknown.
    """

    rank: int
    path: str
    row: int
    reason: str
    prediction: str
    confidence: float
    second: str
    unknown: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, without the row."""
        found = {name: value for name, value in vars(self).items() if name != "row"}
        return {**found, "confidence": float(f"{self.confidence:.9g}")}


@dataclass(frozen=True, eq=False)
class Suggestions:
    """The images to label next, and the numbers of those left out.

    Parameters
    ----------
    images : tuple of Suggestion
        In the order in which they should be labelled.
    dataset : ImageDataset
        All images.
    bundle : Bundle
        The classifier.
    considered : int
        Readable images that the classifier was not trained on.
    trained_on : int
        Images left out because the classifier was trained on them or a copy.
    duplicates : int
        Images left out because they are nearly the same as a suggested or more useful one.
    unknown : int
        Images that the classifier calls unknown.
    problems : tuple of ImageError
        Unreadable images.
    """

    images: tuple[Suggestion, ...]
    dataset: ImageDataset
    bundle: Bundle
    considered: int
    trained_on: int
    duplicates: int
    unknown: int
    problems: tuple[ImageError, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Suggestion]:
        return iter(self.images)

    def _repr_html_(self) -> str:
        from kindsight.dataset.thumbnails import row_thumbnail
        from kindsight.notebook.values import suggestions_html

        pairs = (
            (row_thumbnail(self.dataset, image.row), f"{image.rank}: {image.prediction}")
            for image in self.images[:SHOWN_IN_NOTEBOOK]
        )
        return suggestions_html(self, [(uri, caption) for uri, caption in pairs if uri])

    def to_dict(self) -> dict[str, Any]:
        """Return the output of ``kindsight suggest --json``."""
        return {
            "suggestions": [image.to_dict() for image in self.images],
            "images": len(self.dataset),
            "considered": self.considered,
            "trained_on": self.trained_on,
            "duplicates": self.duplicates,
            "unknown": self.unknown,
            "skipped": [
                {"path": problem.path, "code": problem.code, "message": problem.reason}
                for problem in self.problems
            ],
        }

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write rank, path, prediction, confidence and reason of each image as a table."""
        write_csv(
            path,
            ("rank", "path", "prediction", "confidence", "reason"),
            (
                (
                    image.rank, image.path, image.prediction,
                    f"{image.confidence:.4f}", image.reason,
                )
                for image in self.images
            ),
        )  # fmt: skip


def suggest(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | ImageDataset,
    *,
    count: int = COUNT,
    options: DataOptions | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Suggestions:
    """Return images to label next: uncertain, different from each other, without copies.

    All images are classified; the most uncertain (the smallest difference between the two highest
    probabilities) are the candidates, and of these a diverse selection in the classifier's feature
    space is returned, in order. Memory does not grow with the number of images beyond their names.

    Parameters
    ----------
    run : path
        A run folder or another bundle.
    data : path or ImageDataset
        The images; labels are ignored.
    count : int
        Number of images to suggest, at most 2,000.
    options : DataOptions, optional
        How the data are read.
    workers : int, optional
        Number of images processed at once; the number of cores by default.
    progress : callable, optional
        Called with (stage, done, total); the stages are predict and features.

    Raises
    ------
    BundleError
        If there is no bundle.
    DatasetError
        If no image is left to suggest.
    SettingsError
        If `count` is out of range.
    """
    if not 1 <= count <= MOST:
        raise SettingsError(f"`count` must be from 1 to {MOST:,}; got {count:,}.")
    predictor = Predictor(run, workers=workers)
    bundle = predictor.bundle
    if isinstance(data, ImageDataset):
        dataset = data
    else:
        given = options or DataOptions()
        given = replace(given, value_range=bundle.spec.value_range)
        dataset = open_dataset(os.fspath(data), given, labelled=False)
        if isinstance(dataset.root, Path) and not Path(data).is_absolute():
            with contextlib.suppress(ValueError):  # outside of the working directory
                dataset = replace(dataset, root=dataset.root.relative_to(Path.cwd()))
    pool = _Pool(count, TrainedImages.read(bundle.folder))
    pool.fill(predictor, dataset, progress)
    chosen = _choose(pool, dataset, bundle, count, workers, progress)
    if not chosen:
        raise DatasetError(_nothing_left(pool, len(dataset)))
    return Suggestions(
        tuple(
            _suggestion(rank, dataset, row, pool.predictions[row])
            for rank, row in enumerate(chosen, 1)
        ),
        dataset, bundle, pool.considered, pool.trained_on,
        pool.known.duplicates + pool.strange.duplicates, pool.unknown, tuple(pool.problems),
    )  # fmt: skip


class _Pool:
    """The images seen so far: two shortlists, one of known and one of unknown images, and counts.

    - `count`: number of wanted suggestions.
    - `trained`: the training images, if they are recorded.
    """

    def __init__(self, count: int, trained: TrainedImages | None) -> None:
        self._trained = trained
        self.most_unknown = max(1, round(UNKNOWN_SHARE * count))
        self.known = Shortlist(SHORTLIST * count)
        self.strange = Shortlist(SHORTLIST * count)
        self.predictions: dict[int, Prediction] = {}
        self.problems: list[ImageError] = []
        self.considered = self.trained_on = self.unknown = 0

    def fill(self, predictor: Predictor, dataset: ImageDataset, progress: Progress | None) -> None:
        """Classify all images and store the candidates."""
        show = progress or _silent
        seen = _Recorder()
        waiting: list[tuple[int, Prediction]] = []
        show("predict", 0, len(dataset))
        for row, prediction in enumerate(predictor.predict_dataset(dataset, seen)):
            if prediction.error is not None:
                self.problems.append(prediction.error)
            else:
                waiting.append((row, prediction))
            if len(waiting) == CHUNK:
                self._add(waiting, seen)
                waiting = []
            show("predict", row + 1, len(dataset))
        self._add(waiting, seen)

    def _add(self, some: list[tuple[int, Prediction]], seen: _Recorder) -> None:
        found = [seen.images.pop(row) for row, _ in some]
        known = np.zeros(len(some), np.bool_)
        if self._trained is not None and some:
            hashes = np.array([hashed for _, hashed in found], np.uint64).reshape(-1, 4)
            known = self._trained.contains([digest for digest, _ in found], hashes)
        self.trained_on += int(known.sum())
        for (row, prediction), (digest, hashed), trained in zip(some, found, known, strict=True):
            if trained:
                continue
            self.considered += 1
            strange = prediction.reason == "unknown"
            self.unknown += strange
            shortlist = self.strange if strange else self.known
            shortlist.add(Candidate(row, 1.0 - _margin(prediction), digest, hashed))
            self.predictions[row] = prediction
        held = {item.row for item in (*self.known.candidates(), *self.strange.candidates())}
        self.predictions = {row: self.predictions[row] for row in held}


class _Recorder:
    """Records the digest and the perceptual hash of each image of a prediction stream."""

    def __init__(self) -> None:
        self.images: dict[int, tuple[str, NDArray[np.uint64]]] = {}

    @property
    def needs(self) -> Needs:
        """The data that are recorded."""
        return Needs(digests=True, hashes=True)

    def observe(self, rows: NDArray[np.int64], seen: NetworkOutputs) -> None:
        """Record a block of images."""
        assert seen.digests is not None and seen.hashes is not None
        self.images.update(
            zip(rows.tolist(), zip(Digests(seen.digests), seen.hashes, strict=True), strict=True)
        )


def _choose(
    pool: _Pool, dataset: ImageDataset, bundle: Bundle, count: int, workers: int | None,
    progress: Progress | None,
) -> list[int]:  # fmt: skip
    """Return the rows to suggest: diverse candidates, with some unknown ones between them."""
    known = pool.known.candidates()
    strange = [item for item in pool.strange.candidates() if not pool.known.has_copy(item)]
    pool.strange.duplicates += len(pool.strange.candidates()) - len(strange)
    if not known and not strange:
        return []
    vectors = _vectors(dataset, [*known, *strange], pool.predictions, bundle, workers, progress)
    scores = np.array([max(item.score, 1e-6) for item in known])
    first = select_diverse(vectors[: len(known)], scores, count)
    # They exceed their fraction only if nothing else is left.
    room = max(pool.most_unknown, count - len(first))
    others = select_diverse(vectors[len(known) :], np.ones(len(strange)), min(room, count))
    rows = [known[place].row for place in first]
    unknown = [strange[place].row for place in others]
    if not rows:
        return unknown
    rows = rows[: count - len(unknown)]
    every = max(1, len(rows) // max(1, len(unknown)))
    mixed = list[int]()
    for number, row in enumerate(rows, 1):
        mixed.append(row)
        if number % every == 0 and unknown:
            mixed.append(unknown.pop(0))
    return [*mixed, *unknown]


def _vectors(
    dataset: ImageDataset,
    candidates: list[Candidate],
    predictions: Mapping[int, Prediction],
    bundle: Bundle,
    workers: int | None,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """Return the vectors in which the candidates are compared."""
    show, workers = progress or _silent, workers or count_cores()
    network = FeatureNetwork(bundle.tflite, workers)

    def compute(candidate: Candidate) -> NDArray[np.float32] | None:
        try:
            data = dataset.load(candidate.row)
            return network.run(resize_image(read_loaded(data, bundle.spec), bundle.spec))
        except ImageError:  # removed since it was classified
            return None

    found: list[NDArray[np.float32] | None] = []
    with single_threaded_opencv():
        for vector in map_ordered(compute, candidates, workers):
            found.append(vector)
            show("features", len(found), len(candidates))
    width = max((len(vector) for vector in found if vector is not None), default=1)
    filled = [np.zeros(width, np.float32) if vector is None else vector for vector in found]
    logits = [predictions[candidate.row].logits for candidate in candidates]
    return selection_space(np.stack(filled), np.array(logits, np.float32))


def _suggestion(rank: int, dataset: ImageDataset, row: int, prediction: Prediction) -> Suggestion:
    (first, high), (second, low) = prediction.top(2)
    if prediction.reason == "unknown":
        reason = "unlike the training images"
    elif high - low < CERTAIN:
        reason = f"between {first} ({percent(high)}) and {second} ({percent(low)})"
    else:
        reason = "among the least certain of these images"
    return Suggestion(
        rank, _path(dataset, row), row, reason, first, high, second, prediction.reason == "unknown"
    )


def _path(dataset: ImageDataset, row: int) -> str:
    path = dataset.path[row]
    return path if dataset.arrays is not None else join(dataset.root, path)


def _margin(prediction: Prediction) -> float:
    (_, high), (_, low) = prediction.top(2)
    return high - low


def _nothing_left(pool: _Pool, images: int) -> str:
    if pool.trained_on:
        return (
            f"There is no image to suggest: the classifier was trained on {pool.trained_on:,} of "
            f"the {images:,} images, and the others are unreadable. Give a folder of images that "
            "have no label yet."
        )
    return f"There is no image to suggest: none of the {images:,} images is readable."


def _silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
