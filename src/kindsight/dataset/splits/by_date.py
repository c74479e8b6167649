"""Divide a dataset by when its images were taken: the newest are validated and tested on.

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

from kindsight.dataset.names import images, shown_list
from kindsight.dataset.splits.groups import group_indices
from kindsight.dataset.splits.leakage import duplicate_notes
from kindsight.dataset.splits.split import is_already_split, rows_to_split, split_fractions
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError

__all__ = ["split_by_date"]


def split_by_date(
    dataset: ImageDataset,
    taken: NDArray[np.floating[Any]],
    *,
    validation: float | int = 0.2,
    test: float | int = 0.0,
) -> ImageDataset:
    """Give every image its part by its date; splits that are given already are respected.

    The newest images are tested on, the next newest validated on. Images of the same second
    are not parted, nor are byte-identical ones and those of one group, which count as taken when
    the newest of them was: nothing that is trained on is newer than what is validated on, nor
    that newer than what is tested on. Sizes come as near to what is asked for as that allows.
    Images without a date train.

    Parameters
    ----------
    dataset : ImageDataset
        With labels and digests in all rows.
    taken : float array (n,)
        When each image was taken, in seconds since 1970; NaN where that is not known.
    validation, test : float or int
        As in :func:`kindsight.dataset.random_split`.

    Returns
    -------
    ImageDataset
        Every row in exactly one part. Classes may be absent from validation and test part, where
        there are no new images of them; that is noted.

    Raises
    ------
    DatasetError
        If too few images have a date, if a class has new images only, or if nothing can be
        trained on.
    SettingsError
        As in :func:`kindsight.dataset.random_split`.
    """
    if is_already_split(dataset):
        return dataset.with_notes(
            *duplicate_notes(dataset), "Not divided by date: the data state their parts."
        )
    pool = rows_to_split(dataset)
    shares = split_fractions(dataset, pool, validation, test)
    blocks = list(_blocks(dataset, pool, taken)) if shares else []
    _check_dates(len(pool), blocks, shares)
    split: list[str | None] = list(dataset.split)
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
    divided = dataset.with_columns(split=split)
    _check_training(divided)
    if undated := sum(not np.isfinite(taken[row]) for row in pool):
        notes.append(f"Without a date, and so in the training part: {images(undated)}.")
    return divided.with_notes(*duplicate_notes(divided), *notes, *_absent(divided, shares))


def _blocks(
    dataset: ImageDataset, pool: list[int], taken: NDArray[np.floating[Any]]
) -> Iterator[tuple[float, list[int]]]:
    """Yield the dates there are with their rows, the newest first; a unit counts as its newest."""
    numbers = group_indices(dataset)[pool]
    newest = np.full(int(numbers.max()) + 1, -np.inf)
    dates = np.where(np.isfinite(taken[pool]), taken[pool], -np.inf)
    np.maximum.at(newest, numbers, dates)
    dated = [(float(newest[n]), row) for n, row in zip(numbers.tolist(), pool, strict=True)]
    dated.sort(key=lambda pair: (-pair[0], pair[1]))
    for date, pairs in groupby(dated, key=lambda pair: pair[0]):
        if date > -np.inf:
            yield date, [row for _, row in pairs]


def _newest(blocks: list[tuple[float, list[int]]], wanted: Fraction) -> int:
    """Return how many blocks, one at least, come nearest to the wanted number of images."""
    totals = accumulate(len(rows) for _, rows in blocks)
    return min(enumerate(totals, start=1), key=lambda pair: abs(pair[1] - wanted))[0]


def _check_dates(
    n: int, blocks: list[tuple[float, list[int]]], shares: dict[str, Fraction]
) -> None:
    if not shares:
        return
    dated, share = sum(len(rows) for _, rows in blocks), sum(shares.values())
    if dated == 0:
        raise DatasetError(
            "To be divided by date, images must say in their EXIF data when they were taken. "
            f"Received: {images(n)}, of which none does. Divide at random, or give a table with "
            "a column split."
        )
    if dated <= share * n:
        raise DatasetError(
            "To be divided by date, there must be images with a date left to train on. Received: "
            f"{dated:,} of {images(n)} with a date in their EXIF data, and {float(share):.0%} to "
            "be validated and tested on. Ask for less, or divide at random."
        )
    if len(blocks) <= len(shares):
        raise DatasetError(
            "To be divided by date, images must have been taken at different times. Received: "
            f"{images(dated)} with {len(blocks)} dates among them, copies and groups counting "
            "once. Divide at random."
        )


def _check_training(dataset: ImageDataset) -> None:
    present = {
        label for label, split in zip(dataset.label, dataset.split, strict=True) if split == "train"
    }
    if absent := [name for name in dataset.present_classes() if name not in present]:
        raise DatasetError(
            "Every class must have images in the training part. Received: new ones only of "
            f"{shown_list(absent)}, all of which a division by date would validate or test on. Ask "
            "for smaller parts, or divide at random."
        )


def _absent(dataset: ImageDataset, parts: dict[str, Fraction]) -> Iterator[str]:
    for name in parts:
        present = set(dataset.where(split=name).label)
        if absent := [label for label in dataset.present_classes() if label not in present]:
            yield f"The {name} part has no images of {shown_list(absent)}."


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
