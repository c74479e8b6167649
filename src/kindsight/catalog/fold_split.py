"""One fold of a cross-validation as the validation part."""

from __future__ import annotations

import re
from collections import Counter

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.folds import fold_indices
from kindsight.catalog.names import shown
from kindsight.catalog.split import split_catalog
from kindsight.catalog.units import units
from kindsight.errors import CatalogError, SettingsError

__all__ = ["parse_fold", "split_fold"]

_FOLD = re.compile(r"\s*(\d{1,4})\s*(?:/|of)\s*(\d{1,4})\s*")


def parse_fold(text: str) -> tuple[int, int]:
    """Read ``"2/5"``, the second of five folds.

    Raises
    ------
    SettingsError
        For anything else.
    """
    match = _FOLD.fullmatch(text) if isinstance(text, str) else None
    fold, folds = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= fold <= folds or folds < 2:
        raise SettingsError(f"fold must be such as 2/5, the second of five. Received: {text!r}.")
    return fold, folds


def split_fold(
    catalog: Catalog, fold: int, folds: int, *, test: float | int = 0.0, seed: int = 0
) -> Catalog:
    """Make one of several folds the validation part; over all folds each picture is in it once.

    Stratified by class; byte-identical pictures and pictures of one group stay together. A test
    part is taken first, the same for every fold.

    Parameters
    ----------
    catalog : Catalog
        With labels and digests in all rows. A training and a test part that are given stay.
    fold : int
        Which, from 1 to `folds`.
    folds : int
        How many, at least 2.
    test : float or int
        As in :func:`kindsight.catalog.split_catalog`.
    seed : int
        Another seed gives other folds.

    Returns
    -------
    Catalog
        Every row in exactly one part.

    Raises
    ------
    CatalogError
        If a class has fewer different pictures than there are folds, or there is a validation part
        already.
    SettingsError
        If there is no such fold, or `test` cannot be.
    """
    if not 1 <= fold <= folds or folds < 2:
        raise SettingsError(f"fold must be from 1 to {folds}, of 2 or more. Received: {fold}")
    if "validation" in catalog.split:
        raise CatalogError(
            "Folds are made where no validation part is given. Received: "
            f"{catalog.split_counts()['validation']:,} pictures of one. Leave fold away."
        )
    whole = split_catalog(catalog, validation=0.0, test=test, seed=seed)
    rows = [row for row, part in enumerate(whole.split) if part == "train"]
    pool = whole[rows]
    numbers = units(pool)
    _check_classes(pool, numbers.tolist(), folds)
    digests = [str(digest) for digest in pool.digest]
    held = fold_indices(pool.targets, numbers, folds, seed, digests) == fold - 1
    split = list(whole.split)
    for row in (row for row, out in zip(rows, held, strict=True) if out):
        split[row] = "validation"
    return whole.with_columns(split=split)


def _check_classes(pool: Catalog, numbers: list[int], folds: int) -> None:
    found = Counter(label for label, _ in set(zip(pool.label, numbers, strict=True)))
    small = [name for name in pool.present_classes() if found[name] < folds]
    if small:
        raise CatalogError(
            f"Every class needs at least {folds} pictures, one for each fold. Received: "
            f"{shown(small[0])} with {found[small[0]]:,} if copies and groups count once. Ask for "
            "fewer folds."
        )
