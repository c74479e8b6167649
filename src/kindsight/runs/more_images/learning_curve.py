"""The learning curve of a run: the gain of more images."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from kindsight import random_stream
from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.names import quoted_list
from kindsight.dataset.splits.groups import connected_components
from kindsight.dataset.splits.stratified import is_already_split
from kindsight.dataset.table import SPLITS
from kindsight.errors import BundleError, DatasetError
from kindsight.evaluation.learning_curve import LearningCurve, fit_learning_curve
from kindsight.files import write_json
from kindsight.runs.record import RunRecord, load_run
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import SPLIT_FILE, open_data, rows_of
from kindsight.training.common import Progress
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.learning_curve import LabelledFeatures, measure_learning_curve
from kindsight.training.frozen.prepared import FrozenImages, prepare_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.near_duplicates import find_near_duplicates
from kindsight.training.protocols import Trainer
from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["LEARNING_CURVE_FILE", "frozen_trainer", "learning_curve", "run_settings"]

LEARNING_CURVE_FILE = "learning_curve.json"

MOST_IMAGES = 12_000
"""Maximum number of images for a curve, drawn at random; more would not make it more precise."""


def learning_curve(
    run: str | os.PathLike[str],
    *,
    data: str | None = None,
    workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    write: bool = True,
    progress: Progress | None = None,
) -> LearningCurve:
    """Return the accuracy of a run by number of training images, and the gain of more images.

    A head on frozen features is refitted on nested subsets of the images and evaluated on images
    that were held out: on each image once, in folds, if the run's split was random; on the run's
    validation and test images if the data came with a split. A run of a network trained by gradient
    gets the curve of a frozen head on the same images; refitting the network dozens of times would
    take hours.

    Parameters
    ----------
    run : path
        A finished run folder.
    data : str, optional
        The images, if they have moved since the training.
    workers : int, optional
        Number of images processed at once while features are computed.
    cache : path, optional
        The cache folder.
    write : bool, default=True
        Whether to write ``learning_curve.json`` to the run folder, for the report.
    progress : callable, optional
        Called with (stage, done, total); the stages are backbone, features, head and curve.

    Returns
    -------
    LearningCurve

    Raises
    ------
    BundleError
        If there is no finished run, or it lacks ``settings.toml`` or ``split.csv``.
    DatasetError
        If the images cannot be found, or are too few for a curve.
    """
    record = load_run(run)
    settings = run_settings(record)
    if data is not None:
        settings = settings.with_options(data=data)
    trainer, model = frozen_trainer(record, settings.training())
    trainer = replace(trainer, workers=workers, cache=cache or trainer.cache)
    dataset = open_data(settings)
    images = _split_as_before(
        prepare_frozen(trainer, _sample(dataset, trainer.seed), progress), record
    )
    train = rows_of(images.dataset, "train")
    fitted = images.fit_head(record.classes, train, progress)
    labelled = _labelled(images, fitted, is_already_split(dataset))
    measured = measure_learning_curve(labelled, progress)
    folds = len(np.unique(measured.folds))
    how = (
        "the validation and test images"
        if labelled.held_out is not None
        else f"each held out once, in {folds} folds"
    )
    now = sum(image.split == "train" for image in record.images)
    curve = fit_learning_curve(measured, now, record.classes, {"model": model, "held_out": how})
    if write:
        write_json(record.folder / LEARNING_CURVE_FILE, curve.to_dict())
    return curve


def run_settings(record: RunRecord) -> TrainSettings:
    """Return the settings of a run; BundleError if the folder lacks them or the split."""
    if record.settings is None or not record.images:
        missing = "settings.toml" if record.settings is None else SPLIT_FILE
        raise BundleError(
            f"{record.folder} has no {missing}, which names the images of the training. Give the "
            "folder of a kindsight train run."
        )
    return record.settings


def frozen_trainer(record: RunRecord, trainer: Trainer) -> tuple[FrozenTrainer, str]:
    """Return settings of a frozen head for a run's images, and a sentence about the head.

    If the run has a frozen head, it is the same. For a network trained by gradient, the head is on
    its backbone, or on the default backbone for a network from scratch.
    """
    shared: dict[str, Any] = {
        "resize": trainer.resize, "seed": trainer.seed, "value_range": trainer.value_range,
        "class_weight": getattr(trainer, "class_weight", None), "cache": trainer.cache,
    }  # fmt: skip
    if isinstance(trainer, FrozenTrainer):
        own = replace(trainer, fine_tune=None, budget=None)
        if "head" in record.bundle.facts:
            return _chosen(record, own), f"the run's own: a head on {own.model}, frozen"
        return own, f"a head on {own.model}, frozen; the fine-tuned network is not refitted"
    if isinstance(trainer, TransferTrainer) and trainer.weights != "none":
        backbone = FrozenTrainer(trainer.model, trainer.weights, trainer.size, **shared)
        return backbone, f"a head on {trainer.model}, frozen; the trained layers are not refitted"
    default = FrozenTrainer(**shared)
    return default, f"a head on {default.model}, frozen; {trainer.model} itself is not refitted"


def _chosen(record: RunRecord, trainer: FrozenTrainer) -> FrozenTrainer:
    """Return the settings that the run selected within its budget, else the requested ones."""
    facts = record.bundle.facts.get("settings")
    if not isinstance(facts, dict):
        return trainer
    names = ("model", "size", "head", "tta_flips", "tta_crops", "first_size", "flip_ids",
             "first_tta_crops")  # fmt: skip
    found: dict[str, Any] = {
        name: tuple(value) if isinstance(value := facts[name], list) else value
        for name in names
        if name in facts
    }
    chosen = replace(trainer, **found)
    return trainer if chosen.faults() else chosen


def _sample(dataset: ImageDataset, seed: int) -> ImageDataset:
    if len(dataset) <= MOST_IMAGES:
        return dataset
    rows = random_stream.permutation(seed, "learning curve images", 0, len(dataset))
    return dataset[np.sort(rows[:MOST_IMAGES])]


def _split_as_before(images: FrozenImages, record: RunRecord) -> FrozenImages:
    """Return the images with the run's splits."""
    by_path = {image.path: image.split for image in record.images}
    by_digest = {image.digest: image.split for image in record.images if image.digest}
    # Moved images are found by their content; new ones have no split.
    found = [
        by_digest.get(str(digest)) or by_path.get(path)
        for path, digest in zip(images.dataset.path, images.dataset.digest, strict=True)
    ]
    known = [split if split in SPLITS else None for split in found]
    images = images.with_dataset(images.dataset.with_columns(split=known))
    counts = images.dataset.where(split="train").counts()
    if missing := [name for name in record.classes if not counts.get(name)]:
        raise DatasetError(
            f"The run's training images of {quoted_list(missing, 5)} are no longer in the data. "
            "Give the folder that they are in now as `data`."
        )
    return images


def _labelled(
    images: FrozenImages, fitted: FittedFrozenHead, already_split: bool
) -> LabelledFeatures:
    """Return the data to refit on: the features of the images that are in a split."""
    dataset = images.dataset
    wanted = ("train", "validation", "test") if already_split else ("train", "validation")
    rows = np.array([row for row, split in enumerate(dataset.split) if split in wanted], np.int64)
    near: list[int | None] = [None] * len(dataset)
    search = find_near_duplicates(dataset, images.measure_similarity, images.small_grey)
    for number, group in enumerate(search.groups):
        for row in group.tolist():
            near[row] = number
    groups = connected_components(dataset.digest, dataset.group, near)[rows]
    held_out = None
    if already_split:
        held_out = np.array([dataset.split[row] != "train" for row in rows], np.bool_)
    return LabelledFeatures(
        fitted.features.vectors[rows],
        class_indices(dataset[rows].label, fitted.classes),
        len(fitted.classes),
        groups,
        held_out,
        [str(dataset.digest[row]) for row in rows],
        fitted.files.layout,
        replace(fitted.head.chosen, network=""),
        images.training.class_weight,
        images.training.seed,
    )
