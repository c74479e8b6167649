"""Explain a classifier's predictions, with its training images where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kindsight.bundle import Bundle
from kindsight.dataset import ImageDataset
from kindsight.errors import KindsightError
from kindsight.explain import Explanation, explain_images
from kindsight.runs.feature_vectors import RunVectors, run_vectors
from kindsight.runs.record import RunImage, read_records
from kindsight.training.common import Progress
from kindsight.training.protocols import FittedModel

__all__ = ["explain_dataset"]


def explain_dataset(
    dataset: ImageDataset,
    bundle: Bundle,
    fitted: FittedModel | None,
    *,
    methods: Sequence[str],
    target: str | None,
    versus: str | None,
    nearest: int,
    progress: Progress | None,
) -> list[Explanation]:
    """Return the explanations of :meth:`.ImageClassifier.explain`; `fitted` is None if loaded."""
    found, note = None, ""
    if nearest:
        try:
            found = _training_vectors(bundle, fitted, progress)
        except KindsightError as error:  # no feature maps to compare; each image is explained
            note = str(error)
        if found is not None and not len(found.images.paths):
            note = found.problem or "the classifier has no record of its training images."
            note = f"No nearest training images: {note}"
    explanations = explain_images(
        bundle,
        dataset,
        methods=methods,
        target=target,
        versus=versus,
        training_images=None if found is None else found.images,
        nearest=nearest,
        progress=progress,
    )
    result = []
    for each in explanations:
        if each.prediction.error is not None:
            raise each.prediction.error
        known = not note or note in each.notes
        result.append(each if known else replace(each, notes=(*each.notes, note)))
    return result


def _training_vectors(
    bundle: Bundle, fitted: FittedModel | None, progress: Progress | None
) -> RunVectors:
    """Return the training images with their feature vectors, from memory or the run folder."""
    if fitted is None:
        run = read_records(bundle)
        images = [image for image in run.images if image.split == "train"]
        return run_vectors(bundle, run.settings, images, progress=progress)
    known = fitted.dataset
    images = [
        RunImage(known.path[row], str(known.label[row]), "train", known.digest[row] or "")
        for row in fitted.rows.tolist()
    ]
    cache = fitted.training.cache
    return run_vectors(bundle, None, images, dataset=known, cache=cache, progress=progress)
