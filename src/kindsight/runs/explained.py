"""Explanations of a run: the map of its validation images, and the overlays of its report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kindsight.bundle import Bundle
from kindsight.errors import KindsightError, UsageError
from kindsight.explain.overlay import ExplainedImage, report_overlays
from kindsight.explain.similarity import MAX_MAPPED, TrainingImages, map_images
from kindsight.models.pooled_maps import MapNetwork
from kindsight.report.data import FeatureMap, Overlay, Predictions
from kindsight.report.gallery import confident_mistakes
from kindsight.runs.feature_vectors import run_vectors
from kindsight.runs.record import RunImage, RunRecord, load_run
from kindsight.training.common import Progress
from kindsight.training.protocols import FittedModel

if TYPE_CHECKING:
    from kindsight.explain.pages import MappedPrediction

__all__ = ["RunMap", "map_for_report", "map_of_run", "maps_of", "overlays_of_mistakes"]

MAX_IN_REPORT = 120
"""Maximum number of images of the map in a training's report: t-SNE takes 0.03 seconds for them."""

STEPS_IN_REPORT = 250

MISTAKES_IN_REPORT = 6
"""Maximum number of overlays in a training's report: each takes three hundredths of a second."""


@dataclass(frozen=True, eq=False)
class RunMap:
    """A map of a run's validation images.

    Parameters
    ----------
    feature_map : FeatureMap
        Their positions.
    predictions : tuple of MappedPrediction
        The prediction of each image.
    total : int
        Number of distinct images of the split.
    images : TrainingImages
        The images with their vectors and thumbnails.
    run : str
        Name of the run.
    """

    feature_map: FeatureMap
    predictions: tuple[MappedPrediction, ...]
    total: int
    images: TrainingImages
    run: str

    def to_html(self) -> str:
        """Return the map as a self-contained HTML page without scripts."""
        from kindsight.explain.pages import render_image_map

        digests = self.images.digests
        return render_image_map(
            self.feature_map, self.predictions, lambda index: self.images.load(digests[index]),
            self.run, total=self.total,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the map for ``kindsight explain --map --json``."""
        return {
            "split": self.feature_map.split,
            "method": self.feature_map.method,
            "total": self.total,
            "images": [
                {**image._asdict(), **each._asdict()}
                for image, each in zip(self.feature_map.images, self.predictions, strict=True)
            ],
        }


def map_of_run(
    run: str | os.PathLike[str] | RunRecord, *, progress: Progress | None = None
) -> RunMap:
    """Return a map of the validation images of a run, or of the test images if it has no others.

    Parameters
    ----------
    run : path or RunRecord
        A finished run.
    progress : callable, optional
        Called with ("features", done, total).

    Raises
    ------
    BundleError
        If there is no finished run, or a file of it is damaged.
    KindsightError
        If the run does not record its images, or fewer than three can be found.
    """
    record = run if isinstance(run, RunRecord) else load_run(run)
    split = next(
        (name for name in ("validation", "test", "train") if _of_split(record, name)), None
    )
    if split is None:
        raise UsageError(
            f"{record.folder} has no split.csv, which lists the images. Use the folder of a run."
        )
    found = run_vectors(
        record.bundle, record.settings, _of_split(record, split), limit=MAX_MAPPED,
        progress=progress,
    )  # fmt: skip
    images = found.images
    placed = map_images(split, images.paths, images.vectors)
    if placed is None:
        reason = f" {found.problem}" if found.problem else ""
        raise KindsightError(
            f"A map needs at least 3 images; {len(images.paths)} of the {split} split were found."
            f"{reason}"
        )
    known = record.predictions.get(split)
    predictions = _predictions(images, known, record.classes)
    name = record.folder.resolve().name
    return RunMap(placed, predictions, images.total, images, name)


def _of_split(record: RunRecord, split: str) -> list[RunImage]:
    return [image for image in record.images if image.split == split]


def _predictions(
    images: TrainingImages, known: Predictions | None, classes: Sequence[str]
) -> tuple[MappedPrediction, ...]:
    from kindsight.explain.pages import MappedPrediction

    rows: Mapping[str, int] = {}
    if known is not None:
        rows = {path: row for row, path in enumerate(known.paths)}
    found = []
    for path, label in zip(images.paths, images.labels, strict=True):
        if known is None or path not in rows:
            found.append(MappedPrediction(label, None, None))
            continue
        probabilities = known.probabilities[rows[path]]
        best = int(probabilities.argmax())
        found.append(MappedPrediction(label, classes[best], float(probabilities[best])))
    return tuple(found)


def _shown_split(record: RunRecord) -> str | None:
    """Return the split that the report shows: test if there is one, else validation."""
    return next((name for name in ("test", "validation") if name in record.predictions), None)


def maps_of(bundle: Bundle) -> MapNetwork | None:
    """Return a bundle's network with its feature maps; None if it has no feature maps."""
    try:
        return MapNetwork(bundle.tflite)
    except KindsightError:
        return None


def overlays_of_mistakes(
    model: FittedModel, record: RunRecord, network: MapNetwork | None
) -> tuple[Overlay, ...]:
    """Return the overlays of the worst mistakes, for the report.

    Parameters
    ----------
    model : FittedModel
        The trained classifier.
    record : RunRecord
        Its run, whose network files and predictions must have been written; ``bundle.json`` may be
        missing.
    network : MapNetwork or None
        The result of :func:`maps_of`.
    """
    split = _shown_split(record)
    if split is None:
        return ()
    return report_overlays(record.bundle, _mistakes(model, record.predictions[split]), network)


def map_for_report(
    model: FittedModel, record: RunRecord, network: MapNetwork | None
) -> FeatureMap | None:
    """Return the map of the images that the report shows; arguments as above."""
    split = _shown_split(record)
    if split is None or network is None:
        return None
    shown = set(record.predictions[split].paths)
    images = [image for image in record.images if image.path in shown]
    found = run_vectors(
        record.bundle, record.settings, images, limit=MAX_IN_REPORT, cache=model.training.cache,
        network=network,
    ).images  # fmt: skip
    return map_images(split, found.paths, found.vectors, iterations=STEPS_IN_REPORT)


def _mistakes(model: FittedModel, predictions: Predictions) -> Iterator[ExplainedImage]:
    """Yield the worst mistakes whose images the cache still has."""
    digests = dict(zip(model.dataset.path, model.dataset.digest, strict=True))
    rows = confident_mistakes(predictions, MISTAKES_IN_REPORT)
    stored = model.stored_images([digests.get(predictions.paths[row]) or "" for row in rows])
    for row, image in zip(rows, stored, strict=True):
        if image is None:
            continue
        probabilities = np.asarray(predictions.probabilities[row])
        best = int(probabilities.argmax())
        yield ExplainedImage(
            predictions.paths[row],
            image.pixels,
            (image.height, image.width),
            model.classes[int(predictions.targets[row])],
            model.classes[best],
            float(probabilities[best]),
        )
