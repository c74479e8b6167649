"""How a dataset is to be divided: at random, by folds, by date, or as a file says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.by_date import split_by_date
from kindsight.dataset.splits.from_file import read_split
from kindsight.dataset.splits.leakage import (
    LEAKAGE_MODES,
    Leakage,
    leakage_notes,
    merge_groups,
    resolve_leakage,
)
from kindsight.dataset.splits.split import parse_fold, random_split, split_fold
from kindsight.dataset.table import ImageDataset
from kindsight.errors import SettingsError

__all__ = [
    "SPLIT_METHODS",
    "SplitSettings",
    "Taken",
]

SPLIT_METHODS = ("random", "date")

Taken: TypeAlias = Callable[[], NDArray[np.floating[Any]]]
"""Gives when each image was taken, in seconds, NaN where that is not known."""


@dataclass(frozen=True)
class SplitSettings:
    """How images are divided into training, validation and test part.

    Parameters
    ----------
    validation, test : float or int
        A fraction, 0 <= fraction < 1, or a number of images.
    seed : int
        Another seed gives another division at random, and other folds.
    by : str
        ``"random"``, or ``"date"``: the newest images are held back.
    fold : str, optional
        Such as ``"2/5"``: the second of five folds is the validation part.
    file : str, optional
        A table of paths and splits; what it leaves open is divided as the rest says.
    group_near_duplicates : bool
        Whether copies, and images that are nearly the same, stay together.
    leakage : str
        What becomes of images of which another part has copies: ``"drop"``, ``"move"`` or
        ``"keep"``; see :mod:`kindsight.dataset.splits.leakage`.
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
        """Return a sentence for each setting that cannot be."""
        found = [
            f"{name} must be a share from 0 to below 1, or a number of images. Received: {value!r}."
            for name, value in (("validation", self.validation), ("test", self.test))
            if not _is_part(value)
        ]
        for name, value, allowed in (
            ("split_by", self.by, SPLIT_METHODS),
            ("leakage", self.leakage, LEAKAGE_MODES),
        ):
            if value not in allowed:
                found.append(f"{name} must be one of {', '.join(allowed)}. Received: {value!r}.")
        if self.group_near_duplicates not in (True, False):
            found.append(
                f"group_near_duplicates must be true or false; got {self.group_near_duplicates!r}."
            )
        if self.fold is not None:
            try:
                parse_fold(self.fold)
            except SettingsError as error:
                found.append(str(error))
            if self.by == "date":
                found.append("Folds are made at random. Received: fold and split_by='date'.")
        if self.file is not None and (not isinstance(self.file, str) or not self.file):
            found.append(f"split must be a file. Received: {self.file!r}.")
        return found

    def check(self) -> None:
        """Raise SettingsError naming every setting that is invalid."""
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def sizes(self) -> dict[str, float | int]:
        """Return the sizes of validation and test part: shares below 1, whole numbers above."""
        both = (("validation", self.validation), ("test", self.test))
        return {name: int(value) if value >= 1 else value for name, value in both}

    def split_without_leakage(
        self, dataset: ImageDataset, copies: Iterable[Sequence[int]], taken: Taken | None = None
    ) -> tuple[ImageDataset, Leakage]:
        """Give every image its part, and let no two parts have copies of one image.

        Parameters
        ----------
        dataset : ImageDataset
            As for :meth:`divide`.
        copies : iterable of sequence of int
            Rows of images that are the same, or nearly; no row in two of them.
        taken : callable, optional
            As for :meth:`divide`.

        Returns
        -------
        dataset : ImageDataset
            Divided, with notes. What was left out is in no part.
        leakage : Leakage
            What was found in several parts, and what was done.

        Raises
        ------
        SettingsError, DatasetError
            As :meth:`divide` does; DatasetError also if a class would have nothing to train on.
        """
        groups = [list(rows) for rows in copies]
        if self.group_near_duplicates:
            kin: list[int | None] = [None] * len(dataset)
            for number, rows in enumerate(groups):
                for row in rows:
                    kin[row] = number
            dataset = merge_groups(dataset, kin)
        divided = self.divide(dataset, taken)
        mended, leakage = resolve_leakage(divided, groups, self.leakage)
        if not leakage.note:
            return mended, leakage
        # What the division found across the parts is said better now that it is mended.
        said = [note for note in mended.notes if note not in leakage_notes(divided)]
        return replace(mended, notes=(*said, leakage.note)), leakage

    def divide(self, dataset: ImageDataset, taken: Taken | None = None) -> ImageDataset:
        """Give every image its part.

        Parameters
        ----------
        dataset : ImageDataset
            With labels and digests in all rows; parts that are given are respected.
        taken : callable, optional
            Needed for a division by date only, and called for no other.

        Returns
        -------
        ImageDataset
            Divided, with notes. Only what a file excludes is in no part.

        Raises
        ------
        SettingsError
            If the settings cannot be.
        DatasetError
            If the images cannot be divided so.
        """
        self.check()
        if self.file is None:
            return self._divide(dataset, taken, list(range(len(dataset))))
        stated = read_split(self.file).apply(dataset)
        kept = [row for row, part in enumerate(stated.split) if part is not None]
        divided = self._divide(stated[kept], taken, kept)
        split = list(stated.split)
        for row, part in zip(kept, divided.split, strict=True):
            split[row] = part
        return stated.with_columns(split=split).with_notes(*divided.notes)

    def _divide(self, dataset: ImageDataset, taken: Taken | None, rows: list[int]) -> ImageDataset:
        parts = self.sizes()
        if self.fold is not None:
            fold, folds = parse_fold(self.fold)
            return split_fold(dataset, fold, folds, test=parts["test"], seed=self.seed)
        if self.by == "date":
            dates = np.full(len(rows), np.nan) if taken is None else taken()[rows]
            return split_by_date(dataset, dates, **parts)
        return random_split(dataset, **parts, seed=self.seed)


def _is_part(value: object) -> bool:
    """Whether a number is a share, 0 to below 1, or a whole number above 1."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < 1 or (1 < value < 2**53 and value == int(value))
