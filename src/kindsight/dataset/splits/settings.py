"""Settings of a split: at random, by folds, by date or from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.splits.by_date import split_by_date
from kindsight.dataset.splits.from_file import read_split
from kindsight.dataset.splits.groups import group_indices, single_group_notes, split_codes
from kindsight.dataset.splits.leakage import (
    LEAKAGE_MODES,
    Leakage,
    leakage_notes,
    merge_groups,
    resolve_leakage,
)
from kindsight.dataset.splits.stratified import (
    check_group_counts,
    check_no_validation,
    fold_split,
    is_already_split,
    parse_fold,
    random_split,
    rows_to_split,
    split_fractions,
)
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import SettingsError

__all__ = ["SPLIT_METHODS", "CaptureTimes", "SplitSettings", "check_split"]

SPLIT_METHODS = ("random", "date")

CaptureTimes: TypeAlias = Callable[[], NDArray[np.floating[Any]]]
"""Returns the capture time of each image in seconds since 1970, NaN where unknown."""


@dataclass(frozen=True)
class SplitSettings:
    """How a dataset is split into train, validation and test.

    Parameters
    ----------
    validation, test : float or int
        A fraction, 0 <= fraction < 1, or a number of images.
    seed : int
        Seed of random splits and folds.
    by : str
        ``"random"``, or ``"date"``: the newest images are for validation and test.
    fold : str, optional
        Such as ``"2/5"``: the second of five folds is the validation split.
    file : str, optional
        A table of paths and splits; images that it leaves open are split by the other settings.
    group_near_duplicates : bool
        Whether duplicates and near-duplicates stay in one split.
    leakage : str
        What is done with duplicates across splits: ``"drop"``, ``"move"`` or ``"keep"``; see
        :data:`kindsight.dataset.splits.leakage.LEAKAGE_MODES`.
    """

    validation: float | int = 0.2
    test: float | int = 0.0
    seed: int = 0
    by: str = "random"
    fold: str | None = None
    file: str | None = None
    group_near_duplicates: bool = False
    leakage: str = "drop"

    def faults(self) -> list[str]:
        """Return one sentence for each invalid setting."""
        found = [
            f"`{name}` must be a fraction below 1 or a number of images; got {value!r}."
            for name, value in (("validation", self.validation), ("test", self.test))
            if not _is_size(value)
        ]
        choices = (("split_by", self.by, SPLIT_METHODS), ("leakage", self.leakage, LEAKAGE_MODES))
        for name, value, allowed in choices:
            if value not in allowed:
                found.append(f"`{name}` must be one of {', '.join(allowed)}; got {value!r}.")
        if self.group_near_duplicates not in (True, False):
            found.append(
                "`group_near_duplicates` must be true or false; got "
                f"{self.group_near_duplicates!r}."
            )
        if self.fold is not None:
            try:
                parse_fold(self.fold)
            except SettingsError as error:
                found.append(str(error))
            if self.by == "date":
                found.append('`fold` cannot be combined with `split_by="date"`: folds are random.')
        if self.file is not None and (not isinstance(self.file, str) or not self.file):
            found.append(f"`split` must be the path of a file; got {self.file!r}.")
        return found

    def check(self) -> None:
        """Raise SettingsError naming every invalid setting."""
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def sizes(self) -> dict[str, float | int]:
        """Return the sizes of validation and test: floats below 1, ints from 1 on."""
        both = (("validation", self.validation), ("test", self.test))
        return {name: int(value) if value >= 1 else value for name, value in both}

    def inseparable(self, dataset: ImageDataset) -> Sequence[tuple[str, str] | None]:
        """Return a value per image that is equal for images that always end up in the same split.

        None where that is not certain, and for training images whose near-duplicates will be
        grouped, because otherwise the folds of a cross-validation would separate them.

        - `dataset`: as for :meth:`split`.
        """
        if self.file is not None:
            return CodeColumn.constant(None, len(dataset))
        fixed = {"validation", "test"}
        if self.fold is None and not self.group_near_duplicates and is_already_split(dataset):
            fixed.add("train")
        fates = CodeColumn.of(
            ("split", split) if split in fixed else ("group", group) if group is not None else None
            for split, group in zip(dataset.split, dataset.group, strict=True)
        )
        return fates

    def split_without_leakage(
        self,
        dataset: ImageDataset,
        duplicates: Iterable[Sequence[int]],
        taken: CaptureTimes | None = None,
    ) -> tuple[ImageDataset, Leakage]:
        """Split a dataset and resolve duplicates across the splits.

        Parameters
        ----------
        dataset, taken
            As in :meth:`split`.
        duplicates : iterable of sequence of int
            Rows of duplicates and near-duplicates; no row in two groups.

        Returns
        -------
        dataset : ImageDataset
            With splits and notes. Dropped duplicates have no split.
        leakage : Leakage
            What was found across splits, and what was done.

        Raises
        ------
        SettingsError, DatasetError
            As :meth:`split`; DatasetError also if a class would have no images to train on.
        """
        groups = [list(rows) for rows in duplicates]
        if self.group_near_duplicates:
            links = np.full(len(dataset), -1, np.int32)
            for index, rows in enumerate(groups):
                links[rows] = index
            dataset = merge_groups(dataset, CodeColumn(links, range(len(groups))))
        result = self.split(dataset, taken)
        resolved, leakage = resolve_leakage(result, groups, self.leakage)
        if not leakage.note:
            return resolved, leakage
        # The note on leakage replaces those on byte-identical images across splits.
        notes = [note for note in resolved.notes if note not in leakage_notes(result)]
        return replace(resolved, notes=(*notes, leakage.note)), leakage

    def split(self, dataset: ImageDataset, taken: CaptureTimes | None = None) -> ImageDataset:
        """Split a dataset.

        Parameters
        ----------
        dataset : ImageDataset
            With labels and digests in all rows; existing splits are respected.
        taken : callable, optional
            Only called for a split by date.

        Returns
        -------
        ImageDataset
            With splits and notes. Only images that a file excludes have no split.

        Raises
        ------
        SettingsError
            If a setting is invalid.
        DatasetError
            If the images cannot be split as requested.
        """
        self.check()
        result = self._split_open(dataset, taken)
        return result.with_notes(*single_group_notes(result))

    def _split_open(self, dataset: ImageDataset, taken: CaptureTimes | None) -> ImageDataset:
        """Split the images that no file has split."""
        if self.file is None:
            return self._split(dataset, taken, np.arange(len(dataset)))
        stated = read_split(self.file).apply(dataset)
        rows = stated.rows_in(*SPLITS)
        result = self._split(stated[rows], taken, rows)
        split = split_codes(stated)
        split[rows] = split_codes(result)
        return stated.with_columns(split=CodeColumn(split, SPLITS)).with_notes(*result.notes)

    def _split(
        self, dataset: ImageDataset, taken: CaptureTimes | None, rows: NDArray[np.int64]
    ) -> ImageDataset:
        sizes = self.sizes()
        if self.fold is not None:
            fold, folds = parse_fold(self.fold)
            return fold_split(dataset, fold, folds, test=sizes["test"], seed=self.seed)
        if self.by == "date":
            times = np.full(len(rows), np.nan) if taken is None else taken()[rows]
            return split_by_date(dataset, times, **sizes)
        return random_split(dataset, **sizes, seed=self.seed)


def check_split(dataset: ImageDataset, settings: SplitSettings) -> None:
    """Raise an error if the dataset cannot be split as requested, without reading any image.

    Only paths, labels, groups and known digests are used. A split that passes can still fail
    later, when unreadable images, duplicates or near-duplicates reduce the number of groups, or
    when images lack a capture date.

    Parameters
    ----------
    dataset : ImageDataset
        With labels; existing splits are respected.
    settings : SplitSettings

    Raises
    ------
    SettingsError
        If a setting is invalid, or the sizes leave no images to train on.
    DatasetError
        If a class has too few groups for the splits or folds, or the split file is invalid.
    """
    settings.check()
    if settings.file is not None:
        stated = read_split(settings.file)
        if stated.by_digest and not all(path in stated.by_path for path in dataset.path):
            return  # images may be matched by their content, which is not known yet
        dataset = stated.apply(dataset)
        dataset = dataset[dataset.rows_in(*SPLITS)]
    if settings.fold is not None:
        check_no_validation(dataset)
    elif is_already_split(dataset):
        return
    rows = rows_to_split(dataset, need_digests=False)
    sizes = settings.sizes()
    validation = 0.0 if settings.fold is not None else sizes["validation"]
    fractions = split_fractions(dataset, rows, validation, sizes["test"])
    if settings.by == "date":
        return
    indices = group_indices(dataset)
    if fractions:
        check_group_counts(dataset, rows, indices, list(fractions))
    if settings.fold is not None:
        check_group_counts(dataset, rows, indices, [], parse_fold(settings.fold)[1])


def _is_size(value: object) -> bool:
    """Return whether a value is a fraction below 1 or a whole number above 1."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < 1 or (1 < value < 2**53 and value == int(value))
