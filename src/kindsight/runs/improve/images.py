"""The images of the experiments: a test split that none of them sees, and folds of the rest."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.from_file import write_split
from kindsight.dataset.splits.groups import fold_indices, group_indices
from kindsight.dataset.splits.leakage import merge_groups
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.dataset.splits.stratified import check_group_counts
from kindsight.encoding import unescape_name
from kindsight.errors import BundleError, DatasetError
from kindsight.runs.folder import FOLDS_TABLE
from kindsight.runs.record import RunRecord
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import SPLIT_FILE, open_data, rows_of
from kindsight.training.common import Progress
from kindsight.training.near_duplicates import find_near_duplicates
from kindsight.training.protocols import Prepared
from kindsight.training.trainer import prepare

__all__ = ["ExperimentImages", "final_settings", "plan_images"]

TEST_FRACTION = 0.25
"""Test split that is made for a run that has none."""

MAX_FOLDS = 10
USUAL_FOLDS = 5
# Folds of a cross-validation, at most.
MAX_STATED = 1000

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExperimentImages:
    """The images that an experiment is trained and evaluated on.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images with their splits.
    fold_of : dict of str to int
        Path to fold, from 1, of all images outside the test split. If the run has a validation
        split, it is the first.
    folds : int
        How many of them can be held out.
    test : str
        The test split that no experiment sees: ``"own"`` (the run's), ``"new"`` or ``"none"``.
    """

    dataset: ImageDataset
    fold_of: dict[str, int]
    folds: int
    test: str

    @property
    def every(self) -> tuple[int, ...]:
        """The folds that can be held out."""
        return tuple(range(1, self.folds + 1))

    @property
    def new_test(self) -> bool:
        """Whether the experiments have a split of their own."""
        return self.test == "new"

    def rows(self, dataset: ImageDataset, fold: int, without: int = 0) -> tuple[Rows, Rows]:
        """Return the training and the held-out rows of a fold, in a dataset of these images.

        The images of the fold `without` are in neither.
        """
        folds = np.array([self.fold_of.get(path, 0) for path in dataset.path])
        usable = (folds > 0) & (folds != without)
        return np.flatnonzero(usable & (folds != fold)), np.flatnonzero(folds == fold)


def plan_images(
    record: RunRecord,
    settings: TrainSettings,
    folder: Path,
    progress: Progress,
    *,
    make_test: bool = True,
) -> ExperimentImages:
    """Split the run's images and write the split to a folder; a split that is there is read.

    Parameters
    ----------
    record : RunRecord
    settings : TrainSettings
        Of the run.
    folder : pathlib.Path
        For ``split.csv``.
    progress : callable
        Called with (stage, done, total).
    make_test : bool
        Whether a quarter of the images of a run without a test split becomes one.

    Raises
    ------
    DatasetError
        If the images are too few for the splits or folds.
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
    new = make_test and not own_test
    file = path if path.exists() else None if new else record.folder / SPLIT_FILE
    chosen = SplitSettings(
        0.0 if file else settings.validation or 0.2,
        0.0 if file else TEST_FRACTION,
        seed=settings.seed,
        file=None if file is None else str(file),
        group_near_duplicates=file is None or settings.split_settings().group_near_duplicates,
        leakage=settings.leakage,
    )
    split, _ = chosen.split_without_leakage(readable, groups)
    if not path.exists():
        write_split(split, path)
    test = "own" if own_test else "new" if "test" in split.split else "none"
    stated = {} if test == "new" else dict(_stated_folds(record.folder / FOLDS_TABLE))
    if stated:
        known = {path: stated[path] for path in split.path if path in stated}
        return ExperimentImages(split, known, max(known.values()), test)
    return ExperimentImages(split, *_folds(split, groups, settings.seed), test)


def _stated_folds(path: Path) -> Iterator[tuple[str, int]]:
    """Yield path and fold of each image of a cross-validation; none where there was none."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            number = row.get("fold") or ""
            if not (number.isascii() and number.isdigit() and 0 < int(number[:9]) <= MAX_STATED):
                raise BundleError(
                    f"{path} is damaged: {number[:20]!r} is not a fold. Restore it, or train again."
                )
            yield unescape_name(row["path"]), int(number)


def _folds(
    dataset: ImageDataset, duplicates: list[list[int]], seed: int
) -> tuple[dict[str, int], int]:
    """Return the fold of each path, and the number of folds.

    The first is the validation split, if there is one; the others, of about its size, are of the
    train split.
    """
    validation, train = rows_of(dataset, "validation"), rows_of(dataset, "train")
    links: list[int | None] = [None] * len(dataset)
    for index, rows in enumerate(duplicates):
        for row in rows:
            links[row] = index
    subset = merge_groups(dataset, links)[train]
    groups = group_indices(subset)
    fold_of = {dataset.path[row]: 1 for row in validation}
    first = int(len(validation) > 0)
    wanted = USUAL_FOLDS
    if first:
        wanted = min(MAX_FOLDS, round((len(train) + len(validation)) / len(validation))) - 1
    for count in range(wanted, 1, -1):
        try:
            check_group_counts(subset, range(len(subset)), groups.tolist(), [], count)
        except DatasetError:
            continue
        digests = [str(digest) for digest in subset.digest]
        found = fold_indices(subset.targets, groups, count, seed, digests)
        others = {path: int(k) + 1 + first for path, k in zip(subset.path, found, strict=True)}
        return fold_of | others, count + first
    if not first:
        raise DatasetError(
            "Experiments need images that are not trained on: each class must have at least two "
            "images, or groups of images, outside the test split. Add images."
        )
    # Too few groups: the train split is trained on in every experiment and never held out.
    return fold_of | dict.fromkeys(subset.path, 2), 1


def final_settings(
    settings: TrainSettings, folder: Path, images: ExperimentImages
) -> TrainSettings:
    """Return the settings of the original for a final training, with the split of experiments.

    A run with a cross-validation is cross-validated again.
    """
    if settings.folds is not None and not images.new_test:
        return settings.with_options(run=None)
    return settings.with_options(
        run=None, split=str((folder / SPLIT_FILE).resolve()), fold=None, folds=None, test=0.0,
        split_by="random", group_near_duplicates=False,
        validation=settings.validation or 0.2 if images.new_test else settings.validation,
    )  # fmt: skip
