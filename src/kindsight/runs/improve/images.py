"""The images of the experiments: a test split that none of them uses, and folds of the rest."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.splits.folds import fold_indices
from kindsight.dataset.splits.from_file import write_split
from kindsight.dataset.splits.groups import group_indices
from kindsight.dataset.splits.leakage import merge_groups
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.dataset.splits.stratified import check_group_counts
from kindsight.errors import DatasetError
from kindsight.runs.record import RunRecord
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import SPLIT_FILE, open_data, rows_of
from kindsight.training.common import Progress
from kindsight.training.near_duplicates import find_near_duplicates
from kindsight.training.protocols import Prepared
from kindsight.training.trainer import prepare

__all__ = ["ExperimentImages", "plan_images", "with_split"]

TEST_FRACTION = 0.25
"""Test split of a run that has none."""

MAX_FOLDS = 10

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExperimentImages:
    """Which images an experiment is trained and judged on.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images with their splits.
    fold_of : dict of str to int
        Path to fold, from 1, of all images outside the test split. The first fold is the
        validation split.
    folds : int
        How many of them can be held out.
    own_test : bool
        Whether the test split is the run's own.
    """

    dataset: ImageDataset
    fold_of: dict[str, int]
    folds: int
    own_test: bool

    def rows(self, dataset: ImageDataset, fold: int) -> tuple[Rows, Rows]:
        """Return the training and the held-out rows of a fold, in a dataset of these images."""
        folds = np.array([self.fold_of.get(path, 0) for path in dataset.path])
        return np.flatnonzero((folds > 0) & (folds != fold)), np.flatnonzero(folds == fold)

    def targets(self, paths: tuple[str, ...]) -> Rows:
        """Return the class indices of images."""
        known = dict(zip(self.dataset.path, self.dataset.label, strict=True))
        return class_indices(tuple(known[path] for path in paths), self.dataset.classes)


def plan_images(
    record: RunRecord, settings: TrainSettings, folder: Path, progress: Progress
) -> ExperimentImages:
    """Split the run's images and write the split to a folder; a split that is there is read.

    A run's own test split stays; where it has none, a quarter of the images becomes one.

    Parameters
    ----------
    record : RunRecord
    settings : TrainSettings
        Of the run.
    folder : pathlib.Path
        For ``split.csv``.
    progress : callable
        Called with (stage, done, total).

    Raises
    ------
    DatasetError
        If the images are too few for a test and a validation split.
    """
    own_test = any(image.split == "test" for image in record.images)
    trainer, path = settings.training(), folder / SPLIT_FILE
    dataset = open_data(settings)
    with ExitStack() as stack:
        keras = stack.enter_context(trainer.process())
        images: Prepared = prepare(trainer, dataset, progress, keras)
        stack.callback(images.close)
        readable = images.dataset
        near = find_near_duplicates(
            readable, images.measure_similarity, images.small_grey, progress
        )
        groups = [group.tolist() for group in near.groups]
    file = path if path.exists() else record.folder / SPLIT_FILE if own_test else None
    chosen = SplitSettings(
        settings.validation or 0.2,
        0.0 if file else TEST_FRACTION,
        seed=settings.seed,
        file=None if file is None else str(file),
        group_near_duplicates=file is None or settings.split_settings().group_near_duplicates,
        leakage=settings.leakage,
    )
    split, _ = chosen.split_without_leakage(readable, groups)
    if not path.exists():
        write_split(split, path)
    return ExperimentImages(split, *_folds(split, groups, settings.seed), own_test)


def _folds(
    dataset: ImageDataset, duplicates: list[list[int]], seed: int
) -> tuple[dict[str, int], int]:
    """Return the fold of each path, and the number of folds.

    The first is the validation split; the others, of about its size, are of the train split.
    """
    validation, train = rows_of(dataset, "validation"), rows_of(dataset, "train")
    links: list[int | None] = [None] * len(dataset)
    for index, rows in enumerate(duplicates):
        for row in rows:
            links[row] = index
    subset = merge_groups(dataset, links)[train]
    groups = group_indices(subset)
    wanted = min(MAX_FOLDS, round((len(train) + len(validation)) / max(1, len(validation)))) - 1
    fold_of = {dataset.path[row]: 1 for row in validation}
    for count in range(wanted, 1, -1):
        try:
            check_group_counts(subset, range(len(subset)), groups.tolist(), [], count)
        except DatasetError:
            continue
        digests = [str(digest) for digest in subset.digest]
        found = fold_indices(subset.targets, groups, count, seed, digests)
        others = {path: int(k) + 2 for path, k in zip(subset.path, found, strict=True)}
        return fold_of | others, count + 1
    # Too few groups: the train split is trained on in every experiment and never held out.
    return fold_of | dict.fromkeys(subset.path, 2), 1


def with_split(settings: TrainSettings, folder: Path) -> TrainSettings:
    """Return settings whose split is that of the experiments."""
    return settings.with_options(
        split=str((folder / SPLIT_FILE).resolve()),
        fold=None, folds=None, test=0.0, split_by="random", group_near_duplicates=False,
        validation=settings.validation or 0.2,
    )  # fmt: skip
