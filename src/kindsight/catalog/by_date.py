"""Divide a catalog by when its pictures were taken: the newest are validated and tested on.

What a classifier will meet is newer than what it learned from. A division at random hides what
changes with time (seasons, cameras, worn tools); this one shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.leaks import copy_notes
from kindsight.catalog.names import pictures, shown_list
from kindsight.catalog.split import given_enough, shares_of, what_to_divide
from kindsight.catalog.units import units
from kindsight.errors import CatalogError

__all__ = ["split_by_date"]


def split_by_date(
    catalog: Catalog,
    taken: NDArray[np.floating[Any]],
    *,
    validation: float | int = 0.2,
    test: float | int = 0.0,
) -> Catalog:
    """Give every picture its part by its date; splits that are given already are respected.

    The newest pictures are tested on, the next newest validated on. Pictures of the same second
    are not parted, nor are byte-identical ones and those of one group, which count as taken when
    the newest of them was: nothing that is trained on is newer than what is validated on, nor
    that newer than what is tested on. Sizes come as near to what is asked for as that allows.
    Pictures without a date train.

    Parameters
    ----------
    catalog : Catalog
        With labels and digests in all rows.
    taken : float array (n,)
        When each picture was taken, in seconds since 1970; NaN where that is not known.
    validation, test : float or int
        As in :func:`kindsight.catalog.split_catalog`.

    Returns
    -------
    Catalog
        Every row in exactly one part. Classes may be absent from validation and test part, where
        there are no new pictures of them; that is noted.

    Raises
    ------
    CatalogError
        If too few pictures have a date, if a class has new pictures only, or if nothing can be
        trained on.
    SettingsError
        As in :func:`kindsight.catalog.split_catalog`.
    """
    if given_enough(catalog):
        return catalog.with_notes(
            *copy_notes(catalog), "Not divided by date: the data state their parts."
        )
    pool = what_to_divide(catalog)
    shares = shares_of(catalog, pool, validation, test)
    blocks = list(_blocks(catalog, pool, taken)) if shares else []
    _check_dates(len(pool), blocks, shares)
    split: list[str | None] = list(catalog.split)
    for row in pool:
        split[row] = "train"
    notes = []
    for reserve, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        taking = _newest(blocks[: len(blocks) - reserve], share * len(pool))
        for _, rows in blocks[:taking]:
            for row in rows:
                split[row] = name
        notes.append(f"The {name} part was taken from {_day(blocks[taking - 1][0])} on.")
        blocks = blocks[taking:]
    divided = catalog.with_columns(split=split)
    _check_training(divided)
    if undated := sum(not np.isfinite(taken[row]) for row in pool):
        notes.append(f"Without a date, and so in the training part: {pictures(undated)}.")
    return divided.with_notes(*copy_notes(divided), *notes, *_absent(divided, shares))


def _blocks(
    catalog: Catalog, pool: list[int], taken: NDArray[np.floating[Any]]
) -> Iterator[tuple[float, list[int]]]:
    """Yield the dates there are with their rows, the newest first; a unit counts as its newest."""
    numbers = units(catalog)[pool]
    newest = np.full(int(numbers.max()) + 1, -np.inf)
    dates = np.where(np.isfinite(taken[pool]), taken[pool], -np.inf)
    np.maximum.at(newest, numbers, dates)
    dated = [(float(newest[n]), row) for n, row in zip(numbers.tolist(), pool, strict=True)]
    dated.sort(key=lambda pair: (-pair[0], pair[1]))
    for date, pairs in groupby(dated, key=lambda pair: pair[0]):
        if date > -np.inf:
            yield date, [row for _, row in pairs]


def _newest(blocks: list[tuple[float, list[int]]], wanted: Fraction) -> int:
    """Return how many blocks, one at least, come nearest to the wanted number of pictures."""
    totals = accumulate(len(rows) for _, rows in blocks)
    return min(enumerate(totals, start=1), key=lambda pair: abs(pair[1] - wanted))[0]


def _check_dates(
    n: int, blocks: list[tuple[float, list[int]]], shares: dict[str, Fraction]
) -> None:
    if not shares:
        return
    dated, share = sum(len(rows) for _, rows in blocks), sum(shares.values())
    if dated == 0:
        raise CatalogError(
            "To be divided by date, pictures must say in their EXIF data when they were taken. "
            f"Received: {pictures(n)}, of which none does. Divide at random, or give a table with "
            "a column split."
        )
    if dated <= share * n:
        raise CatalogError(
            "To be divided by date, there must be pictures with a date left to train on. Received: "
            f"{dated:,} of {pictures(n)} with a date in their EXIF data, and {float(share):.0%} to "
            "be validated and tested on. Ask for less, or divide at random."
        )
    if len(blocks) <= len(shares):
        raise CatalogError(
            "To be divided by date, pictures must have been taken at different times. Received: "
            f"{pictures(dated)} with {len(blocks)} dates among them, copies and groups counting "
            "once. Divide at random."
        )


def _check_training(catalog: Catalog) -> None:
    present = {
        label for label, split in zip(catalog.label, catalog.split, strict=True) if split == "train"
    }
    if absent := [name for name in catalog.present_classes() if name not in present]:
        raise CatalogError(
            "Every class must have pictures in the training part. Received: new ones only of "
            f"{shown_list(absent)}, all of which a division by date would validate or test on. Ask "
            "for smaller parts, or divide at random."
        )


def _absent(catalog: Catalog, parts: dict[str, Fraction]) -> Iterator[str]:
    for name in parts:
        present = set(catalog.where(split=name).label)
        if absent := [label for label in catalog.present_classes() if label not in present]:
            yield f"The {name} part has no pictures of {shown_list(absent)}."


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
