"""How a catalog is to be divided: at random, by folds, by date, or as a file says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.by_date import split_by_date
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.fold_split import parse_fold, split_fold
from kindsight.catalog.split import split_catalog
from kindsight.catalog.split_file import read_split
from kindsight.errors import SettingsError

__all__ = ["WAYS", "Division"]

WAYS = ("random", "date")


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
    """

    validation: float | int = 0.2
    test: float | int = 0.0
    seed: int = 0
    by: str = "random"
    fold: str | None = None
    file: str | None = None

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = []
        if self.by not in WAYS:
            found.append(f"split_by must be one of {', '.join(WAYS)}. Received: {self.by!r}.")
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

    def divide(
        self, catalog: Catalog, taken: Callable[[], NDArray[np.floating[Any]]] | None = None
    ) -> Catalog:
        """Give every picture its part.

        Parameters
        ----------
        catalog : Catalog
            With labels and digests in all rows; parts that are given are respected.
        taken : callable, optional
            Gives when each picture was taken, in seconds, NaN where that is not known. Needed for
            a division by date only.

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

    def _divide(
        self,
        catalog: Catalog,
        taken: Callable[[], NDArray[np.floating[Any]]] | None,
        rows: list[int],
    ) -> Catalog:
        if self.fold is not None:
            fold, folds = parse_fold(self.fold)
            return split_fold(catalog, fold, folds, test=self.test, seed=self.seed)
        if self.by == "date":
            dates = np.full(len(rows), np.nan) if taken is None else taken()[rows]
            return split_by_date(catalog, dates, validation=self.validation, test=self.test)
        return split_catalog(catalog, validation=self.validation, test=self.test, seed=self.seed)
