"""Split a dataset by capture time: the newest images are for validation and test.

A classifier will see images that are newer than its training images. A random split hides what
changes over time (seasons, cameras, worn tools); this split shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.names import n_images, quoted_list
from kindsight.dataset.splits.groups import group_indices
from kindsight.dataset.splits.leakage import duplicate_notes
from kindsight.dataset.splits.stratified import is_already_split, rows_to_split, split_fractions
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError

__all__ = ["split_by_date"]

_Blocks = list[tuple[float, list[int]]]


def split_by_date(
    dataset: ImageDataset,
    taken: NDArray[np.floating[Any]],
    *,
    validation: float | int = 0.2,
    test: float | int = 0.0,
) -> ImageDataset:
    """Split a dataset by capture time; existing splits are respected.

    The newest images become the test split, the next newest the validation split. Images of the
    same second, byte-identical images and images of one group stay together; a group counts as
    taken when its newest image was. So no train image is newer than any validation image, and no
    validation image newer than any test image. Sizes are as close to the requested ones as that
    allows. Images without a date are train images.

    - `dataset`: with labels and digests in all rows.
    - `taken`: float array (n,); capture times in seconds since 1970; NaN where unknown.
    - `validation`, `test`: as in :func:`kindsight.dataset.random_split`.

    Returns
    -------
    ImageDataset
        Every row has a split. The notes name classes that the validation or test split lacks.

    Raises
    ------
    DatasetError
        If too few images have a date, or a class would have no images to train on.
    SettingsError
        As in :func:`kindsight.dataset.random_split`.
    """
    if is_already_split(dataset):
        return dataset.with_notes(
            *duplicate_notes(dataset), "Not split by date: the data are already split."
        )
    rows = rows_to_split(dataset)
    fractions = split_fractions(dataset, rows, validation, test)
    blocks = list(_blocks(dataset, rows, taken)) if fractions else []
    _check_dates(len(rows), blocks, fractions)
    split: list[str | None] = list(dataset.split)
    for row in rows:
        split[row] = "train"
    notes = []
    reserves = range(len(fractions), 0, -1)
    for reserve, (name, fraction) in zip(reserves, fractions.items(), strict=True):
        count = _closest_count(blocks[: len(blocks) - reserve], fraction * len(rows))
        for _, members in blocks[:count]:
            for row in members:
                split[row] = name
        notes.append(f"Images of the {name} split were taken from {_day(blocks[count - 1][0])} on.")
        blocks = blocks[count:]
    result = dataset.with_columns(split=split)
    _check_training(result)
    if undated := sum(not np.isfinite(taken[row]) for row in rows):
        notes.append(f"Without a capture date, so in the train split: {n_images(undated)}.")
    return result.with_notes(*duplicate_notes(result), *notes, *_absent(result, fractions))


def _blocks(
    dataset: ImageDataset, rows: list[int], taken: NDArray[np.floating[Any]]
) -> Iterator[tuple[float, list[int]]]:
    """Yield the different dates with their rows, newest first; a group has its newest date."""
    indices = group_indices(dataset)[rows]
    newest = np.full(int(indices.max()) + 1, -np.inf)
    dates = np.where(np.isfinite(taken[rows]), taken[rows], -np.inf)
    np.maximum.at(newest, indices, dates)
    dated = [(float(newest[n]), row) for n, row in zip(indices.tolist(), rows, strict=True)]
    dated.sort(key=lambda pair: (-pair[0], pair[1]))
    for date, pairs in groupby(dated, key=lambda pair: pair[0]):
        if date > -np.inf:
            yield date, [row for _, row in pairs]


def _closest_count(blocks: _Blocks, wanted: Fraction) -> int:
    """Return how many blocks, at least one, come closest to the wanted number of images."""
    totals = accumulate(len(rows) for _, rows in blocks)
    return min(enumerate(totals, start=1), key=lambda pair: abs(pair[1] - wanted))[0]


def _check_dates(n: int, blocks: _Blocks, fractions: dict[str, Fraction]) -> None:
    if not fractions:
        return
    dated, fraction = sum(len(rows) for _, rows in blocks), sum(fractions.values())
    if dated == 0:
        raise DatasetError(
            f"Cannot split by date: none of {n_images(n)} has a capture date in its EXIF data. Use "
            "`split_by=\"random\"`, or a table with a column 'split'."
        )
    if dated <= fraction * n:
        raise DatasetError(
            f"Cannot split by date: {dated:,} of {n_images(n)} have a capture date, too few for "
            f"validation and test splits of {float(fraction):.0%}. Use smaller fractions or "
            '`split_by="random"`.'
        )
    if len(blocks) <= len(fractions):
        raise DatasetError(
            f"Cannot split by date: {n_images(dated)} have only {len(blocks)} different capture "
            'times (duplicates and groups count once). Use `split_by="random"`.'
        )


def _check_training(dataset: ImageDataset) -> None:
    present = dataset.labels_in("train")
    if absent := [name for name in dataset.present_classes() if name not in present]:
        raise DatasetError(
            f"A split by date leaves no images to train on for {quoted_list(absent)}: all of them "
            'are new. Use smaller validation and test splits or `split_by="random"`.'
        )


def _absent(dataset: ImageDataset, fractions: dict[str, Fraction]) -> Iterator[str]:
    for name in fractions:
        present = dataset.labels_in(name)
        if absent := [label for label in dataset.present_classes() if label not in present]:
            yield f"The {name} split has no images of {quoted_list(absent)}."


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
