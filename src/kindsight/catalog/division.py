"""How a catalog is to be divided: at random, by folds, by date, or as a file says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.by_date import split_by_date
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.fold_split import parse_fold, split_fold
from kindsight.catalog.leaks import LEAKS, Leaks, leak_notes, mend_leaks
from kindsight.catalog.linking import link_groups
from kindsight.catalog.split import split_catalog
from kindsight.catalog.split_file import read_split
from kindsight.errors import SettingsError

__all__ = ["WAYS", "Division", "Taken"]

WAYS = ("random", "date")

Taken: TypeAlias = Callable[[], NDArray[np.floating[Any]]]
"""Gives when each picture was taken, in seconds, NaN where that is not known."""


@dataclass(frozen=True)
class Division:
    """How pictures are divided into training, validation and test part.

    Parameters
    ----------
    validation, test : float or int
        A fraction, 0 <= fraction < 1, or a number of pictures.
    seed : int
        Another seed gives another division at random, and other folds.
    by : str
        ``"random"``, or ``"date"``: the newest pictures are held back.
    fold : str, optional
        Such as ``"2/5"``: the second of five folds is the validation part.
    file : str, optional
        A table of paths and splits; what it leaves open is divided as the rest says.
    group_near : bool
        Whether copies, and pictures that are nearly the same, stay together.
    leaks : str
        What becomes of pictures of which another part has copies: ``"drop"``, ``"move"`` or
        ``"keep"``; see :mod:`kindsight.catalog.leaks`.
    """

    validation: float | int = 0.2
    test: float | int = 0.0
    seed: int = 0
    by: str = "random"
    fold: str | None = None
    file: str | None = None
    group_near: bool = False
    leaks: str = "drop"

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = [
            f"{name} must be a share from 0 to below 1, or a number of pictures. "
            f"Received: {value!r}."
            for name, value in (("validation", self.validation), ("test", self.test))
            if not _is_part(value)
        ]
        for name, value, allowed in (("split_by", self.by, WAYS), ("leaks", self.leaks, LEAKS)):
            if value not in allowed:
                found.append(f"{name} must be one of {', '.join(allowed)}. Received: {value!r}.")
        if self.group_near not in (True, False):
            found.append(f"group_near must be true or false. Received: {self.group_near!r}.")
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

    def sizes(self) -> dict[str, float | int]:
        """Return the sizes of validation and test part: shares below 1, whole numbers above."""
        both = (("validation", self.validation), ("test", self.test))
        return {name: int(value) if value >= 1 else value for name, value in both}

    def without_leaks(
        self, catalog: Catalog, copies: Iterable[Sequence[int]], taken: Taken | None = None
    ) -> tuple[Catalog, Leaks]:
        """Give every picture its part, and let no two parts have copies of one picture.

        Parameters
        ----------
        catalog : Catalog
            As for :meth:`divide`.
        copies : iterable of sequence of int
            Rows of pictures that are the same, or nearly; no row in two of them.
        taken : callable, optional
            As for :meth:`divide`.

        Returns
        -------
        catalog : Catalog
            Divided, with notes. What was left out is in no part.
        leaks : Leaks
            What was found in several parts, and what was done.

        Raises
        ------
        SettingsError, CatalogError
            As :meth:`divide` does; CatalogError also if a class would have nothing to train on.
        """
        groups = [list(rows) for rows in copies]
        if self.group_near:
            kin: list[int | None] = [None] * len(catalog)
            for number, rows in enumerate(groups):
                for row in rows:
                    kin[row] = number
            catalog = link_groups(catalog, kin)
        divided = self.divide(catalog, taken)
        mended, leaks = mend_leaks(divided, groups, self.leaks)
        if not leaks.note:
            return mended, leaks
        # What the division found across the parts is said better now that it is mended.
        said = [note for note in mended.notes if note not in leak_notes(divided)]
        return replace(mended, notes=(*said, leaks.note)), leaks

    def divide(self, catalog: Catalog, taken: Taken | None = None) -> Catalog:
        """Give every picture its part.

        Parameters
        ----------
        catalog : Catalog
            With labels and digests in all rows; parts that are given are respected.
        taken : callable, optional
            Needed for a division by date only, and called for no other.

        Returns
        -------
        Catalog
            Divided, with notes. Only what a file excludes is in no part.

        Raises
        ------
        SettingsError
            If the settings cannot be.
        CatalogError
            If the pictures cannot be divided so.
        """
        if faults := self.faults():
            raise SettingsError("\n".join(faults))
        if self.file is None:
            return self._divide(catalog, taken, list(range(len(catalog))))
        stated = read_split(self.file).apply(catalog)
        kept = [row for row, part in enumerate(stated.split) if part is not None]
        divided = self._divide(stated[kept], taken, kept)
        split = list(stated.split)
        for row, part in zip(kept, divided.split, strict=True):
            split[row] = part
        return stated.with_columns(split=split).with_notes(*divided.notes)

    def _divide(self, catalog: Catalog, taken: Taken | None, rows: list[int]) -> Catalog:
        parts = self.sizes()
        if self.fold is not None:
            fold, folds = parse_fold(self.fold)
            return split_fold(catalog, fold, folds, test=parts["test"], seed=self.seed)
        if self.by == "date":
            dates = np.full(len(rows), np.nan) if taken is None else taken()[rows]
            return split_by_date(catalog, dates, **parts)
        return split_catalog(catalog, **parts, seed=self.seed)


def _is_part(value: object) -> bool:
    """Whether a number is a share, 0 to below 1, or a whole number above 1."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < 1 or (1 < value < 2**53 and value == int(value))
