"""The split of a run: images without duplicates across splits, written to the run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, all_checks, measure_dataset, run_checks
from kindsight.dataset import ImageDataset, open_splits, with_value_range
from kindsight.dataset.columns.convert import as_codes
from kindsight.dataset.names import quoted_list
from kindsight.dataset.splits.from_file import write_split
from kindsight.dataset.splits.leakage import LEAKAGE_FILE, Leakage, write_leakage
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.errors import DatasetError
from kindsight.files import write_csv
from kindsight.runs.result import Scored
from kindsight.runs.settings import TrainSettings
from kindsight.trained_images import TRAINED_ON_FILE, TrainedImages
from kindsight.training.common import Progress
from kindsight.training.near_duplicates import find_near_duplicates
from kindsight.training.protocols import Prepared

__all__ = ["SPLIT_FILE", "SplitImages", "open_data", "rows_of", "split_images", "write_problems"]

SPLIT_FILE = "split.csv"

CHEAP = ("KS402", "KS601", "KS602")
"""Checks that need no further computation. KS401, KS501 and KS503 are reported when the dataset is
opened and split."""

NOTES_EACH = 3


@dataclass(frozen=True)
class SplitImages:
    """Prepared images with their splits."""

    images: Prepared  # the readable images; dropped duplicates are in no split
    leakage: Leakage  # duplicates across splits, and how they were resolved
    trained_on: TrainedImages  # digests and hashes by which training images are recognised later
    # Training and held-out rows of each fold of a cross-validation
    folds: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...] = ()

    def written(self, folder: Path) -> SplitImages:
        """Write split.csv, trained_on.npz and, if there was leakage, leakage.csv."""
        write_split(self.images.dataset, folder / SPLIT_FILE)
        self.trained_on.write(folder / TRAINED_ON_FILE)
        if self.leakage.duplicates:
            write_leakage(self.leakage, folder / LEAKAGE_FILE)
        return self

    def facts(self, scored: Mapping[str, Scored]) -> dict[str, Any]:
        """Return the entries of ``bundle.json`` on the data and the metrics."""
        dataset = self.images.dataset
        metrics = {name: part.evaluation.to_dict() for name, part in scored.items()}
        return {
            "data": {
                "digest": dataset.dataset_digest(),
                "images": dataset.split_counts(),
                "skipped": len(self.images.problems),
                "ignored": dict(dataset.ignored),
                "leakage": self.leakage.to_dict(),
            },
            "metrics": {"validation": None, "test": None, **metrics},
        }


def open_data(settings: TrainSettings) -> ImageDataset:
    """Open the dataset that the settings name.

    Raises
    ------
    DatasetError
        If it cannot be used for a classifier.
    """
    options = settings.data_options()
    dataset = open_splits(
        settings.data, options, validation=settings.validation_data, test=settings.test_data
    )
    return with_value_range(dataset, options.value_range)


def rows_of(dataset: ImageDataset, split: str) -> NDArray[np.int64]:
    """Return the rows of one split."""
    return dataset.rows_in(split)


def split_images(
    images: Prepared,
    settings: TrainSettings,
    dataset: ImageDataset,
    progress: Progress | None = None,
) -> SplitImages:
    """Split the readable images, without duplicates across splits.

    - `images`: the readable images.
    - `settings`: settings with the requested split.
    - `dataset`: all images, including unreadable ones.
    - `progress`: called with (stage, done, total) during the near-duplicate search, and while dates
      are read for a split by date.

    Raises
    ------
    DatasetError
        If a class has no readable image, or the split is impossible.
    """
    left = images.dataset.counts()
    if lost := [name for name in dataset.classes if not left.get(name)]:
        pairs = zip(images.problems, images.problem_labels, strict=True)
        reasons = Counter(error.reason for error, label in pairs if label in lost).most_common(1)
        why = f" {reasons[0][0]}" if reasons else ""
        raise DatasetError(
            f"No image of {quoted_list(lost, 5)} is readable.{why} 'kindsight check', and "
            "problems.csv in a run folder, give the reason for each. Repair the files, "
            "or remove the class."
        )
    readable = images.dataset
    # If a training needs validation images, the final model is that of the first fold.
    first = int(bool(settings.folds) and settings.training().needs_validation)
    chosen = settings.split_settings(first)
    near = find_near_duplicates(
        readable, images.measure_similarity, images.small_grey, progress,
        together=_together(readable, settings.split_settings(int(bool(settings.folds)))),
    )  # fmt: skip

    def taken() -> NDArray[np.float64]:
        def step(done: int, total: int) -> None:
            if progress is not None:
                progress("dates", done, total)

        cache = Cache(settings.training().cache)
        _, measured = measure_dataset(
            readable, cache, workers=settings.workers, on=settings.on, progress=step
        )
        return np.asarray(measured.taken, np.float64)

    groups = [group.tolist() for group in near.groups]
    clean, leakage = chosen.split_without_leakage(readable, groups, taken)
    clean = clean.with_notes(*_cheap_notes(near.context))
    train = rows_of(clean, "train")
    known = TrainedImages(frozenset(str(clean.digest[row]) for row in train), near.hashes[train])

    return SplitImages(
        images.with_dataset(clean), leakage, known, tuple(_folds(settings, readable, groups))
    )


def _together(dataset: ImageDataset, settings: SplitSettings) -> NDArray[np.int64] | None:
    """Return a number per image, equal for images of one label that share a split, or None."""
    fates = as_codes(settings.inseparable(dataset))
    known = np.flatnonzero(~fates.equals(None))
    if not len(known):
        return None
    pairs = fates.codes[known] * np.int64(len(dataset.classes) + 1) + dataset.targets[known] + 1
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    numbers = np.arange(len(dataset))
    numbers[known] = known[first[inverse]]
    return numbers


def _folds(
    settings: TrainSettings, dataset: ImageDataset, groups: list[list[int]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the training rows and the held-out rows of each fold."""
    for fold in range(1, (settings.folds or 0) + 1):
        split, _ = settings.split_settings(fold).split_without_leakage(dataset, groups)
        yield rows_of(split, "train"), rows_of(split, "validation")


def _cheap_notes(context: CheckContext) -> Iterator[str]:
    """Return the findings of the cheap checks as notes."""
    for result in run_checks(context, checks=[c for c in all_checks() if c.code in CHEAP]):
        for finding in result.findings[:NOTES_EACH]:
            named = f" ({quoted_list(finding.paths, 2)})" if finding.rows else ""
            yield f"{finding.code}: {finding.message[:-1]}{named}."
        if len(result.findings) > NOTES_EACH:
            more = len(result.findings) - NOTES_EACH
            yield f"{result.code}: and {more:,} more; 'kindsight check' lists them."


def write_problems(folder: Path, images: Prepared) -> None:
    """Write ``problems.csv``: the skipped images and the ignored files, with the reason."""
    rows = [
        (error.path, label or "", error.code, error.reason)
        for error, label in zip(images.problems, images.problem_labels, strict=True)
    ]
    rows += [
        (file.path, file.label or "", "ignored", f"{file.reason.capitalize()}.")
        for file in images.dataset.ignored_files
    ]
    write_csv(folder / "problems.csv", ("path", "label", "code", "reason"), rows)
